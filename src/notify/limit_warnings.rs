//! Which level of which limit is reached, by what the ledger says.

use super::event::Event;
use super::told::{About, Told, Topic};
use crate::clock::Moment;
use crate::directory::{Customer, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::{LimitStanding, NearLimit};
use std::sync::Arc;

/// What may be news, after a message was counted.
pub(super) fn after_commit<'a>(
    told: &'a Told,
    customer: &'a Arc<Customer>,
    parties: &'a Parties,
    near: &'a [NearLimit],
    now: Moment,
) -> impl Iterator<Item = Event> + 'a {
    near.iter().filter_map(move |near| {
        let level = customer.limits.level_reached(near.taken, near.max)?;
        event(told, customer, parties, near.limit, level, false, now)
    })
}

/// What may be news, after limits refused something.
pub(super) fn after_refusal<'a>(
    told: &'a Told,
    customer: &'a Arc<Customer>,
    parties: &'a Parties,
    over: &'a [LimitStanding],
    now: Moment,
) -> impl Iterator<Item = Event> + 'a {
    // What can never fit, or is held by messages that are under way, says nothing about how much is used.
    let is_used_up = |standing: &&LimitStanding| !standing.never_fits() && !standing.only_reservations();
    over.iter().filter(is_used_up).filter_map(move |standing| {
        customer.limits.warn_at.contains(&FULL).then_some(())?;
        event(told, customer, parties, standing.limit, FULL, true, now)
    })
}

/// A limit is used up.
pub(super) const FULL: u8 = 100;

fn event(
    told: &Told,
    customer: &Arc<Customer>,
    parties: &Parties,
    limit: LimitName,
    level: u8,
    refuses: bool,
    now: Moment,
) -> Option<Event> {
    let subject = subject(parties, limit)?;
    let topic = Topic { about: About::Limit(limit), subject };
    let is_news = told.is_news(&topic, level, now);
    is_news.then(|| Event::LimitNear { customer: customer.clone(), subject: topic.subject, limit, refuses })
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
