//! What happens when somebody has signs of abuse: the user is suspended, where the operator wants that, and the
//! customer's administrators are told.

use super::limits::FULL;
use super::service::post;
use super::told::{About, Topic};
use crate::abuse::{AbuseFigures, Done, Found, OnAbuse, in_words};
use crate::audit::{Actor, Instruction};
use crate::directory::{Customer, Subject, SubjectKind};
use crate::report::{Level, LogLine};
use crate::session::Engine;
use std::time::Duration;

pub(super) async fn act(engine: &Engine, customer: &Customer, found: Found, window: Duration, on_abuse: OnAbuse) {
    let Found { subject, signs } = found;
    let why = in_words(&signs, window);
    let done = match (subject.kind, on_abuse) {
        (SubjectKind::User, OnAbuse::Suspend) => match suspend(engine, &subject, &why).await {
            Some(done) => done,
            None => return,
        },
        (SubjectKind::User, OnAbuse::Defer) => Done::Deferred,
        _ => Done::Nothing,
    };
    let topic = Topic { about: About::Abuse, subject };
    let is_news = engine.notices.told.note(&topic, FULL, engine.ledger.now(), window);
    // Every suspension is news.
    if !is_news && done != Done::Suspended {
        return;
    }
    let line = LogLine::event("abuse")
        .field("customer", &topic.subject.customer)
        .field(topic.subject.kind.key_in_log(), &topic.subject.name)
        .field("signs", signs.iter().map(|sign| sign.key()).collect::<Vec<_>>().join(","))
        .field("done", done.key())
        .field("told", customer.admins.len())
        .field("why", why);
    engine.log.write(Level::Warn, line);
    if customer.admins.is_empty() {
        return;
    }
    let settings = engine.snapshot().settings.clone();
    let relay = &settings.relay.hostname;
    let operator = settings.mail.sender(relay);
    let figures = AbuseFigures { relay, operator: &operator, subject: &topic.subject, signs: &signs, window, done };
    // Not the user: whoever reads that mail now may be somebody else.
    post(engine, &topic, "abuse", vec![customer.admins.clone()], &figures.title(), &figures.text());
}

/// `None`: it was suspended before, and all is said.
async fn suspend(engine: &Engine, subject: &Subject, why: &str) -> Option<Done> {
    // Whoever suspended it before gave a reason that is to stay.
    if engine.administration.orders().suspended_user(&subject.name).is_some() {
        return None;
    }
    let why = format!("signs of abuse: {why}");
    let order = Instruction { by: Actor::Daemon, at: engine.wall_time(), why };
    match engine.administration.suspend(subject.clone(), order.clone()).await {
        Ok(carried) => {
            // As when an administrator does it.
            let line = LogLine::event("suspend")
                .field("kind", subject.kind.key())
                .field("name", &subject.name)
                .field("customer", &subject.customer)
                .field("by", &order.by)
                .field("audit", &carried.receipt)
                .field("why", &order.why);
            engine.log.write(Level::Info, line);
            carried.outcome.is_none().then_some(Done::Suspended)
        }
        Err(error) => {
            engine.log.error(format_args!("{} cannot be suspended for signs of abuse: {error}", subject.name));
            Some(Done::Nothing)
        }
    }
}
