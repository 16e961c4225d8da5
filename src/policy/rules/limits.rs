//! The limits that the ledger counts: what they are now, with grants, and what the ledger's answer makes of a recipient or message
//! (relay service, section 5).

use super::identify::Login;
use crate::directory::{Customer, CustomerLimits, LimitName, Parties};
use crate::ledger::{LedgerAnswer, LimitStanding};
use crate::orders::Grantees;
use crate::policy::decide::Admitted;
use crate::policy::facts::Context;
use crate::policy::reply::{LimitRefusal, Refusal};
use crate::policy::trace::Trace;
use std::sync::Arc;

/// The customer's limits as grants raise them; `None`: as configured. Like suspensions, grants apply at once: this is asked for with
/// each recipient, and at the end of the message.
pub fn raised(admitted: &Admitted, cx: &Context, trace: &mut Trace) -> Option<CustomerLimits> {
    if !cx.orders.has_grants() {
        return None;
    }
    let now = cx.live.now();
    let Parties { customer, user, .. } = &admitted.parties;
    let grantees = Grantees { customer, user: user.as_deref(), login_user: admitted.login_user.as_deref() };
    for grant in cx.orders.grants_to(grantees, now) {
        trace.note("grant", "raise", || {
            let (kind, name) = (grant.subject.kind.key(), &grant.subject.name);
            let (limit, more, until, by, why) = (grant.limit, grant.more, grant.until, &grant.by, &grant.why);
            format!("{limit} is {more} higher for {kind} {name} until {until}, by {by}: {why}")
        });
    }
    match cx.orders.raised(&admitted.customer.limits, grantees, now) {
        std::borrow::Cow::Borrowed(_) => None,
        std::borrow::Cow::Owned(raised) => Some(raised),
    }
}

/// The login as an account of its own. Only where a limit counts by it: most logins are the same as their user.
pub fn counted_login(login: Option<Login>, customer: &Customer) -> Option<Arc<str>> {
    let limited = [LimitName::LoginMessages, LimitName::LoginUniques]
        .iter()
        .any(|&name| customer.limits.counted(name).max.is_some());
    login.filter(|_| limited).map(|login| login.name.into())
}

/// The refusal that the ledger's answer makes, if it does not fit; limits in shadow that would have refused are added to `shadow`.
pub fn exceeded(
    admitted: &Admitted,
    answer: &LedgerAnswer,
    shadow: &mut Vec<Refusal>,
    cx: &Context,
    trace: &mut Trace,
) -> Option<Refusal> {
    let refusal = |standing: &LimitStanding| limit_refusal(admitted, standing, cx);
    for standing in &answer.shadow_over {
        trace.note("limit", "shadow", || refusal(standing).to_string());
    }
    for standing in &answer.over {
        trace.note("limit", "refuse", || refusal(standing).to_string());
    }
    if answer.fits() {
        trace.note("limit", "pass", || "every limit leaves room for it".to_owned());
    }
    shadow.extend(answer.shadow_over.iter().map(refusal));
    most_telling(&answer.over).map(refusal)
}

/// Of several limits that refuse, the one that says most: what can never fit before what would fit later, and of those
/// the one that takes longest.
fn most_telling(over: &[LimitStanding]) -> Option<&LimitStanding> {
    over.iter().rev().max_by_key(|standing| (standing.never_fits(), !standing.only_reservations(), standing.fits_at))
}

fn limit_refusal(admitted: &Admitted, standing: &LimitStanding, cx: &Context) -> Refusal {
    let Parties { customer, user, login } = &admitted.parties;
    let whose = match standing.limit {
        LimitName::CustomerDay | LimitName::CustomerPeak => customer,
        LimitName::UserMessages | LimitName::UserUniques => user.as_ref().unwrap_or(customer),
        LimitName::LoginMessages | LimitName::LoginUniques => login.as_ref().unwrap_or(customer),
    };
    Refusal::Limit(LimitRefusal {
        limit: standing.limit,
        max: standing.max,
        action: admitted.customer.limits.counted(standing.limit).action,
        whose: whose.clone(),
        never_fits: standing.never_fits(),
        only_reservations: standing.only_reservations(),
        retry_at_ms: standing.fits_at.map(|moment| cx.live.wall_clock(moment)),
    })
}
