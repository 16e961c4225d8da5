//! Does a suspension stand against the mail?

use crate::orders::{Orders, Suspension};
use crate::policy::decide::{Admission, Admitted};
use crate::policy::facts::Facts;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;
use std::sync::Arc;

impl Admission {
    /// The refusal, if the customer, the sender's user or the user that logged in is suspended. Unlike the rules,
    /// suspensions apply at once, so this is asked anew at each recipient and at the end of the message.
    pub fn suspended(&self, facts: &Facts, orders: &Orders, trace: &mut Trace) -> Option<Refusal> {
        let Admission::Admitted(admitted) = self else { return None };
        let suspension = if orders.suspends_nobody() { None } else { find(admitted, facts, orders) };
        let Some(suspension) = suspension else {
            trace.note("suspension", "pass", || {
                "neither the customer nor a user of the transaction is suspended".into()
            });
            return None;
        };
        let Suspension { subject, why, by, since } = &**suspension;
        trace.note("suspension", "refuse", || {
            format!("{} {} is suspended since {since} by {by}: {why}", subject.kind.key(), subject.name)
        });
        Some(Refusal::Suspended { kind: subject.kind, whose: subject.name.clone(), why: why.clone() })
    }
}

fn find<'o>(admitted: &Admitted, facts: &Facts, orders: &'o Orders) -> Option<&'o Arc<Suspension>> {
    let parties = &admitted.parties;
    let users = parties.user.iter().chain(&admitted.login_user);
    let by_user = || users.into_iter().find_map(|user| orders.suspended_user(user));
    // A suspended user who was struck off the list meanwhile must not come back as an unknown sender.
    let by_address = || {
        let suspension = orders.suspended_user(facts.sender.address()?.as_str())?;
        (suspension.subject.customer == parties.customer).then_some(suspension)
    };
    orders.suspended_customer(&parties.customer).or_else(by_user).or_else(by_address)
}
