//! The limits that the ledger counts: what they are now, with grants, and what the ledger's answer makes of a recipient or message
//! (relay service, section 5).

use super::identify::Login;
use crate::directory::{Billing, Customer, CustomerLimits, LimitName, Parties, User};
use crate::ledger::{LedgerAnswer, LimitStanding};
use crate::orders::Grantees;
use crate::policy::decide::Admitted;
use crate::policy::facts::Context;
use crate::policy::reply::{LimitCause, LimitRefusal, Refusal};
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

/// The account of the login, where a limit counts by it. A login of a registered user is one, however it is spelled.
pub fn counted_login(login: Option<&Login>, customer: &Customer) -> Option<Arc<str>> {
    let limited = [LimitName::LoginMessages, LimitName::LoginUniques]
        .iter()
        .any(|&name| customer.limits.counted(name).max.is_some());
    let login = login.filter(|_| limited)?;
    Some(login.user.map_or(&*login.name, User::login_account).into())
}

/// The refusal that the ledger's answer makes, if it does not fit; limits in shadow that would have refused are added to `shadow`.
/// `can_be_split`: the client can send to some of the recipients now, and to the others later.
pub fn exceeded(
    admitted: &Admitted,
    answer: &LedgerAnswer,
    can_be_split: bool,
    shadow: &mut Vec<Refusal>,
    cx: &Context,
    trace: &mut Trace,
) -> Option<Refusal> {
    let refusal = |standing: &LimitStanding| limit_refusal(admitted, standing, can_be_split, cx);
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
    most_telling(&answer.over, can_be_split).map(refusal)
}

/// Of several limits that refuse, the one that says most: what can never fit before what would fit later, and of those
/// the one that takes longest.
fn most_telling(over: &[LimitStanding], can_be_split: bool) -> Option<&LimitStanding> {
    over.iter().rev().max_by_key(|standing| (cause_of(standing, can_be_split), standing.fits_at))
}

fn cause_of(standing: &LimitStanding, can_be_split: bool) -> LimitCause {
    let LimitStanding { max, used, own, .. } = *standing;
    match can_be_split {
        _ if max == 0 => LimitCause::NothingAllowed,
        false if own > max => LimitCause::MessageAlone,
        _ if used + own <= max => LimitCause::OpenReservations,
        true if used < max => LimitCause::OwnRecipients,
        _ => LimitCause::Usage,
    }
}

fn limit_refusal(admitted: &Admitted, standing: &LimitStanding, can_be_split: bool, cx: &Context) -> Refusal {
    let Parties { customer, user, login } = &admitted.parties;
    let whose = match standing.limit {
        LimitName::CustomerDay | LimitName::CustomerPeak => customer,
        LimitName::UserMessages | LimitName::UserUniques => user.as_ref().unwrap_or(customer),
        LimitName::LoginMessages | LimitName::LoginUniques => login.as_ref().unwrap_or(customer),
    };
    Refusal::Limit(LimitRefusal {
        limit: standing.limit,
        max: standing.max,
        action: admitted.action.unwrap_or(admitted.customer.limits.counted(standing.limit).action),
        is_settings_action: admitted.action.is_some(),
        whose: whose.clone(),
        cause: cause_of(standing, can_be_split),
        billing: match admitted.customer.limits.is_lowered_by_billing(standing.limit) {
            true => admitted.customer.billing,
            false => Billing::Paid,
        },
        retry_at_ms: standing.fits_at.map(|moment| cx.live.wall_clock(moment)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(max: u64, used: u64, reserved: u64, own: u64, can_be_split: bool) -> LimitCause {
        let standing = LimitStanding { limit: LimitName::CustomerDay, max, used, reserved, own, fits_at: None };
        cause_of(&standing, can_be_split)
    }

    #[test]
    fn only_a_maximum_of_0_is_final_while_recipients_can_be_told_apart() {
        assert_eq!(cause(0, 0, 0, 1, true), LimitCause::NothingAllowed);
        assert_eq!(cause(4, 0, 0, 5, true), LimitCause::OwnRecipients, "nothing is counted");
        assert_eq!(cause(4, 2, 0, 3, true), LimitCause::OwnRecipients, "one alone would fit");
        assert_eq!(cause(4, 2, 2, 1, true), LimitCause::OpenReservations);
        assert_eq!(cause(4, 2, 2, 3, true), LimitCause::OwnRecipients);
        assert_eq!(cause(4, 4, 0, 1, true), LimitCause::Usage);
        assert_eq!(cause(4, 4, 0, 5, true), LimitCause::Usage);
        assert_eq!(cause(4, 5, 0, 1, true), LimitCause::Usage, "the maximum was lowered");
    }

    #[test]
    fn a_message_that_cannot_be_split_must_fit_alone() {
        assert_eq!(cause(0, 0, 0, 1, false), LimitCause::NothingAllowed);
        assert_eq!(cause(4, 0, 0, 5, false), LimitCause::MessageAlone);
        assert_eq!(cause(4, 0, 2, 4, false), LimitCause::OpenReservations);
        assert_eq!(cause(4, 1, 0, 4, false), LimitCause::Usage);
    }
}
