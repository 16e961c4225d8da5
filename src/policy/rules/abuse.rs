//! Signs of abuse (relay service, section 8): mail of a user who has them is deferred, where the operator wants that; and which
//! refusals are one.

use crate::directory::{Subject, SubjectKind};
use crate::policy::decide::Admitted;
use crate::policy::facts::Context;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;
use std::sync::Arc;

/// The refusal, if the sender's user or the user that logged in has signs of abuse (`on_abuse = "defer"`).
pub fn held_back(admitted: &Admitted, cx: &Context, trace: &mut Trace) -> Option<Refusal> {
    let user = admitted.parties.user.iter();
    let login_user = admitted.login_user.iter().filter(|&user| Some(user) != admitted.parties.user.as_ref());
    user.chain(login_user).find_map(|user| {
        let why = cx.live.signs_of_abuse(&user_of(&admitted.parties.customer, user))?;
        trace.note("abuse", "refuse", || format!("{user} has signs of abuse, and on_abuse is \"defer\": {why}"));
        Some(Refusal::HeldBack { user: user.clone(), why })
    })
}

/// Whom a refusal counts against as a sign of abuse, once the customer is identified: the user who logged in, else the customer, but
/// never a sender that somebody merely claims. Only refusals of the sender are a sign. What a limit, a size, a connection limit or a
/// suspension refuses says nothing about abuse.
pub fn burdened_by(refusal: &Refusal, customer: &Arc<str>, login_user: Option<&Arc<str>>) -> Option<Subject> {
    match refusal {
        Refusal::SenderNotAllowed { .. } | Refusal::SenderNotOfLogin { .. } => Some(match login_user {
            Some(user) => user_of(customer, user),
            None => Subject::customer(customer),
        }),
        _ => None,
    }
}

fn user_of(customer: &Arc<str>, user: &Arc<str>) -> Subject {
    Subject { kind: SubjectKind::User, customer: customer.clone(), name: user.clone() }
}
