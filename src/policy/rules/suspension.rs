//! Has an administrator suspended whoever sends the mail?

use crate::orders::{Orders, Suspension};
use crate::policy::decide::Admitted;
use crate::policy::facts::Context;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;
use std::sync::Arc;

/// The refusal, if the customer, the sender's user or the user that logged in is suspended. Suspensions apply at once, so this is
/// asked for with each recipient, and at the end of the message.
pub fn suspended(admitted: &Admitted, cx: &Context, trace: &mut Trace) -> Option<Refusal> {
    let suspension = if cx.orders.suspends_nobody() { None } else { find(admitted, cx, cx.orders) };
    let Some(suspension) = suspension else {
        trace.note("suspension", "pass", || "neither the customer nor a user of the transaction is suspended".into());
        return None;
    };
    let Suspension { subject, why, by, since } = &**suspension;
    trace.note("suspension", "refuse", || {
        format!("{} {} is suspended since {since} by {by}: {why}", subject.kind.key(), subject.name)
    });
    Some(Refusal::Suspended { kind: subject.kind, whose: subject.name.clone(), why: why.clone() })
}

fn find<'o>(admitted: &Admitted, cx: &Context, orders: &'o Orders) -> Option<&'o Arc<Suspension>> {
    let parties = &admitted.parties;
    let users = parties.user.iter().chain(&admitted.login_user);
    let by_user = || users.into_iter().find_map(|user| orders.suspended_user(user));
    // A suspended user who was struck off the list meanwhile must not come back as an unknown sender.
    let by_address = || {
        let sender = cx.envelope.sender.as_ref().ok()?;
        let suspension = orders.suspended_user(sender.address()?.as_str())?;
        (suspension.subject.customer == parties.customer).then_some(suspension)
    };
    orders.suspended_customer(&parties.customer).or_else(by_user).or_else(by_address)
}
