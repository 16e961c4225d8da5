//! Which limits have reached a level of `warn_at` that nobody was notified of yet.

use super::history::{About, NoticeHistory, Topic};
use super::service::LimitReached;
use crate::clock::Moment;
use crate::directory::{Customer, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::{LimitStanding, NearLimit};
use std::sync::Arc;

/// After a message was counted.
pub(super) fn after_commit<'a>(
    history: &'a NoticeHistory,
    customer: &'a Arc<Customer>,
    parties: &'a Parties,
    near: &'a [NearLimit],
    now: Moment,
) -> impl Iterator<Item = LimitReached> + 'a {
    near.iter().filter_map(move |near| {
        let level = customer.limits.level_reached(near.taken, near.max)?;
        reached(history, customer, parties, near.limit, level, false, now)
    })
}

/// After limits refused something.
pub(super) fn after_refusal<'a>(
    history: &'a NoticeHistory,
    customer: &'a Arc<Customer>,
    parties: &'a Parties,
    exceeded: &'a [LimitStanding],
    now: Moment,
) -> impl Iterator<Item = LimitReached> + 'a {
    // What can never fit, or does not fit only because of open reservations, says nothing about usage.
    let by_usage = |standing: &&LimitStanding| !standing.never_fits() && !standing.only_reservations();
    exceeded.iter().filter(by_usage).filter_map(move |standing| {
        customer.limits.warn_at.contains(&FULL).then_some(())?;
        reached(history, customer, parties, standing.limit, FULL, true, now)
    })
}

/// The limit is reached, in percent.
pub(super) const FULL: u8 = 100;

fn reached(
    history: &NoticeHistory,
    customer: &Arc<Customer>,
    parties: &Parties,
    limit: LimitName,
    level: u8,
    refuses: bool,
    now: Moment,
) -> Option<LimitReached> {
    let subject = subject(parties, limit)?;
    let topic = Topic { about: About::Limit(limit), subject };
    let is_news = history.is_news(&topic, level, now);
    is_news.then(|| LimitReached { customer: customer.clone(), subject: topic.subject, limit, refuses })
}

fn subject(parties: &Parties, limit: LimitName) -> Option<Subject> {
    let kind = SubjectKind::of(limit);
    let name = match kind {
        SubjectKind::Customer => Some(&parties.customer),
        SubjectKind::User => parties.user.as_ref(),
        SubjectKind::Login => parties.login.as_ref(),
    };
    Some(Subject { kind, customer: parties.customer.clone(), name: name?.clone() })
}
