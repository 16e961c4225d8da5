//! Has an administrator suspended whoever sends the mail? Suspensions apply at once, so this is asked for with each recipient, and
//! at the end of the message.

use crate::envelope::canonical_login;
use crate::orders::{Suspension, TargetKind};
use crate::policy::decide::Admitted;
use crate::policy::facts::Context;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;
use std::sync::Arc;

/// The refusal, if the client's IP address is suspended.
pub fn suspended_client(cx: &Context, trace: &mut Trace) -> Option<Refusal> {
    let client = cx.envelope.client.filter(|_| cx.orders.suspends_clients())?;
    let suspension = cx.orders.suspended_client(client, cx.live.now())?;
    note(suspension, trace);
    let whose = client.to_string().into();
    Some(Refusal::Suspended { kind: TargetKind::Client, whose, why: suspension.why.clone() })
}

/// The refusal, if the customer, the sender's user, the user that logged in or the login itself is suspended.
pub fn suspended(admitted: &Admitted, cx: &Context, trace: &mut Trace) -> Option<Refusal> {
    let suspension = if cx.orders.suspends_nobody() { None } else { find(admitted, cx) };
    let Some(suspension) = suspension else {
        trace.note("suspension", "pass", || {
            "neither the customer nor a user or login of the transaction is suspended".into()
        });
        return None;
    };
    note(suspension, trace);
    let target = &suspension.target;
    Some(Refusal::Suspended { kind: target.kind, whose: target.name.clone(), why: suspension.why.clone() })
}

fn note(suspension: &Suspension, trace: &mut Trace) {
    let Suspension { target, why, by, since, until } = suspension;
    trace.note("suspension", "refuse", || {
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        format!("{} {} is suspended since {since}{until} by {by}: {why}", target.kind.key(), target.name)
    });
}

fn find<'o>(admitted: &Admitted, cx: &Context<'o>) -> Option<&'o Arc<Suspension>> {
    let (orders, now) = (cx.orders, cx.live.now());
    let parties = &admitted.parties;
    let users = parties.user.iter().chain(&admitted.login_user);
    let by_user = || users.into_iter().find_map(|user| orders.suspended_user(user, now));
    // A suspended user who was struck off the list meanwhile must not come back as an unknown sender.
    let by_address = || {
        let sender = cx.envelope.sender.as_ref().ok()?;
        let suspension = orders.suspended_user(sender.address()?.as_str(), now)?;
        (suspension.target.customer == parties.customer).then_some(suspension)
    };
    let by_login = || suspended_login(admitted, cx);
    orders.suspended_customer(&parties.customer, now).or_else(by_user).or_else(by_address).or_else(by_login)
}

/// A login of a registered user is one login, however it is spelled (relay service, section 5).
fn suspended_login<'o>(admitted: &Admitted, cx: &Context<'o>) -> Option<&'o Arc<Suspension>> {
    if cx.envelope.login.is_empty() || !cx.orders.suspends_logins() {
        return None;
    }
    let suspended = |login: &str| cx.orders.suspended_login(login, cx.live.now());
    let user = || admitted.customer.users.find(admitted.login_user.as_ref()?);
    suspended(&canonical_login(&cx.envelope.login)).or_else(|| {
        let user = user()?;
        let spellings = user.logins.iter().chain(&user.aliases).map(|name| &**name).chain([&*user.address]);
        spellings.map(canonical_login).find_map(|login| suspended(&login))
    })
}
