//! What an audited action changes among the orders.

use crate::audit::{Action, Actor, Record};
use crate::orders::{Grant, Orders, Suspension};
use jiff::Timestamp;

/// Carries out what the audit log says was ordered.
pub(super) fn replay(orders: &mut Orders, record: &Record) {
    carry_out(orders, &record.action, &record.by, record.at, &record.why);
}

/// Carries out what is ordered; other actions change nothing here.
pub(super) fn carry_out(orders: &mut Orders, action: &Action, by: &Actor, at: Timestamp, why: &str) {
    match action {
        Action::Suspend { subject } => {
            // One that is suspended already keeps the time since when.
            let since = orders.suspension_of(subject).map_or(at, |before| before.since);
            let (subject, why, by) = (subject.clone(), why.into(), by.to_string().into());
            orders.suspend(Suspension { subject, why, by, since });
        }
        Action::Resume { subject } => orders.resume(subject),
        Action::Grant { subject, limit, more, until } => {
            let (subject, why, by) = (subject.clone(), why.into(), by.to_string().into());
            orders.grant(Grant { subject, limit: *limit, more: *more, until: *until, why, by, since: at });
        }
        Action::GrantEnded { subject, limit, .. } => orders.end_grant(subject, *limit),
        _ => {}
    }
}
