//! From what happened to a letter, on a task of its own.

use super::event::Event;
use super::limits::{self, FULL};
use super::told::{About, Told, Topic};
use super::words::LimitFigures;
use crate::abuse::{Found, OnAbuse, Rules};
use crate::clock::Moment;
use crate::config::Store;
use crate::directory::{Customer, Parties, Subject, SubjectKind};
use crate::envelope::Address;
use crate::ledger::{LimitStanding, LimitUsage, NearLimit};
use crate::mail::{Letter, Outbox, Postman};
use crate::report::{Level, LogLine};
use crate::session::Engine;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events that may wait, of limits and of abuse each. What finds no room comes again with the next message.
const WAITING: usize = 1_024;

/// The file in `store.path` that remembers what was told.
const FILE: &str = "told.jsonl";

/// Takes note of what people may have to be told; never waits.
#[derive(Debug)]
pub struct Notices {
    pub outbox: Outbox,
    pub(super) told: Arc<Told>,
    limits: mpsc::Sender<Event>,
    /// Apart, so that no crowd at its limits is in the way of a suspension.
    abuse: mpsc::Sender<Event>,
    /// For [`serve`], which takes it.
    work: Mutex<Option<Work>>,
}

#[derive(Debug)]
struct Work {
    limits: mpsc::Receiver<Event>,
    abuse: mpsc::Receiver<Event>,
    postman: Postman,
}

impl Default for Notices {
    fn default() -> Notices {
        let (outbox, postman) = Postman::new();
        let ((limits, limits_waiting), (abuse, abuse_waiting)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
        let work = Work { limits: limits_waiting, abuse: abuse_waiting, postman };
        Notices { outbox, told: Arc::default(), limits, abuse, work: Mutex::new(Some(work)) }
    }
}

impl Notices {
    /// A message was counted, and these limits are nearly used up.
    pub fn after_commit(&self, customer: &Arc<Customer>, parties: &Parties, near: &[NearLimit], now: Moment) {
        for event in limits::after_commit(&self.told, customer, parties, near, now) {
            let _ = self.limits.try_send(event);
        }
    }

    /// These limits refused something.
    pub fn after_refusal(&self, customer: &Arc<Customer>, parties: &Parties, over: &[LimitStanding], now: Moment) {
        for event in limits::after_refusal(&self.told, customer, parties, over, now) {
            let _ = self.limits.try_send(event);
        }
    }

    /// Somebody has signs of abuse.
    pub fn abuse(&self, customer: &Arc<Customer>, found: Found, rules: &Rules, now: Moment) {
        let topic = Topic { about: About::Abuse, subject: found.subject.clone() };
        let suspends = rules.on_abuse == OnAbuse::Suspend && topic.subject.kind == SubjectKind::User;
        if suspends || self.told.is_news(&topic, FULL, now) {
            let (customer, window, on_abuse) = (customer.clone(), rules.window, rules.on_abuse);
            let _ = self.abuse.try_send(Event::Abuse { customer, found, window, on_abuse });
        }
    }
}

/// Writes letters and brings them to the MTA, for as long as the daemon runs. A second call ends at once.
pub async fn serve(engine: Arc<Engine>) {
    let Some(Work { mut limits, mut abuse, mut postman }) = engine.notices.work.lock().take() else { return };
    remember(&engine);
    let snapshots = engine.clone();
    let settings = move || snapshots.snapshot().settings.clone();
    let write = async {
        loop {
            let event = tokio::select! {
                biased;
                Some(event) = abuse.recv() => event,
                Some(event) = limits.recv() => event,
                else => return,
            };
            handle(&engine, event).await;
        }
    };
    tokio::join!(write, postman.work(settings, &engine.log));
}

/// Reads what was told before the daemon was started.
fn remember(engine: &Engine) {
    let folder: PathBuf = match &engine.snapshot().settings.store {
        Store::Embedded { path, .. } | Store::Redis { path, .. } => path.clone(),
    };
    let file = folder.join(FILE);
    if let Err(error) = engine.notices.told.keep_in(&file, engine.ledger.now()) {
        let file = file.display();
        engine.log.warn(format_args!("{file}: {error}; after a restart people may be told again what they were told"));
    }
}

async fn handle(engine: &Engine, event: Event) {
    match event {
        Event::LimitNear { customer, subject, limit, refuses } => {
            // The exact figures: what others hold may yet be given back.
            let Ok(usage) = engine.ledger.usage(&subject, &engine.limits_of(&subject, &customer)).await else { return };
            let Some(usage) = usage.into_iter().find(|usage| usage.limit == limit) else { return };
            tell_of_limit(engine, &customer, subject, &usage, refuses);
        }
        Event::Abuse { customer, found, window, on_abuse } => {
            super::abuse::act(engine, &customer, found, window, on_abuse).await;
        }
    }
}

fn tell_of_limit(engine: &Engine, customer: &Customer, subject: Subject, usage: &LimitUsage, refuses: bool) {
    let (LimitUsage { limit, used, .. }, Some(max)) = (*usage, usage.max) else { return };
    let level = if refuses { Some(FULL) } else { customer.limits.level_reached(used, max) };
    let Some(level) = level else { return };
    let topic = Topic { about: About::Limit(limit), subject };
    let settings = engine.snapshot().settings.clone();
    let recipients = recipients(customer, &topic.subject, settings.mail.warn_users);
    // Later, by the next message, if the MTA takes no mail now.
    if !engine.notices.outbox.has_room(recipients.len(), "limit-warning", &engine.log) {
        return;
    }
    let window = Duration::from_secs(limit.window().seconds().into());
    if !engine.notices.told.note(&topic, level, engine.ledger.now(), window) {
        return;
    }
    let line = LogLine::event("limit-warning")
        .field("limit", limit)
        .field("customer", &topic.subject.customer)
        .field(topic.subject.kind.key_in_log(), &topic.subject.name)
        .field("percent", level)
        .field("used", used)
        .field("max", max)
        .field("told", recipients.iter().flatten().count());
    engine.log.write(Level::Info, line);
    let operator = settings.mail.sender(&settings.relay.hostname);
    let figures = LimitFigures {
        relay: &settings.relay.hostname,
        operator: &operator,
        subject: &topic.subject,
        limit,
        used,
        max,
        refuses,
        action: customer.limits.counted(limit).action,
        resets_at_ms: usage.resets_at.map(|moment| engine.ledger.wall(moment)),
    };
    post(engine, &topic, "limit-warning", recipients, &figures.title(), &figures.text());
}

/// One letter to the administrators, and one to the user, who need not know each other's addresses.
fn recipients(customer: &Customer, subject: &Subject, users_too: bool) -> Vec<Vec<Address>> {
    let mut all = vec![customer.admins.clone()];
    if users_too && subject.kind == SubjectKind::User {
        let user = Address::parse(&subject.name).ok().filter(|user| !customer.admins.contains(user));
        all.extend(user.map(|user| vec![user]));
    }
    all.retain(|letter| !letter.is_empty());
    all
}

/// What could not be sent is told again after a restart.
pub(super) fn post(
    engine: &Engine,
    topic: &Topic,
    about: &'static str,
    recipients: Vec<Vec<Address>>,
    title: &str,
    text: &str,
) {
    for to in recipients {
        let (told, log, topic) = (engine.notices.told.clone(), engine.log.clone(), topic.clone());
        let letter = Letter::new(to, about, title.to_owned(), text.to_owned()).then(move || {
            if let Err(error) = told.keep(&topic) {
                log.warn(format_args!("what people were told cannot be put on record: {error}"));
            }
        });
        engine.notices.outbox.post(letter, &engine.log);
    }
}

impl SubjectKind {
    /// As a field of a log line; `customer` is there already.
    pub(super) fn key_in_log(self) -> &'static str {
        match self {
            SubjectKind::User => "user",
            SubjectKind::Login => "login",
            SubjectKind::Customer => "name",
        }
    }
}
