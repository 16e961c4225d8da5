//! What a recorded action changes in the orders.

use crate::audit::{Action, Actor, Record};
use crate::orders::{Grant, Orders, Suspension};
use jiff::Timestamp;

/// Carries out a record of the audit log.
pub(super) fn replay(orders: &mut Orders, record: &Record) {
    carry_out(orders, &record.action, &record.by, record.at, &record.why);
}

/// Carries out an order; other actions change nothing here.
pub(super) fn carry_out(orders: &mut Orders, action: &Action, by: &Actor, at: Timestamp, why: &str) {
    match action {
        Action::Suspend { subject: target, until } => {
            // A target that is suspended already keeps the time since when.
            let since = orders.suspension_of(target, at).map_or(at, |before| before.since);
            let (target, why, by) = (target.clone(), why.into(), by.to_string().into());
            orders.suspend(Suspension { target, why, by, since, until: *until });
        }
        Action::Resume { subject: target } => orders.resume(target),
        Action::Grant { subject, limit, more, until } => {
            let (subject, why, by) = (subject.clone(), why.into(), by.to_string().into());
            orders.grant(Grant { subject, limit: *limit, more: *more, until: *until, why, by, since: at });
        }
        Action::GrantEnded { subject, limit, .. } => orders.end_grant(subject, *limit),
        _ => {}
    }
}
