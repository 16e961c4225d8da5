//! Turns limits that were reached and signs of abuse into letters, on a task of its own.

use super::abuse_letter::AbuseFigures;
use super::history::{About, NoticeHistory, Topic};
use super::limit_letter::LimitFigures;
use super::limit_warnings::{self, FULL};
use crate::abuse::{Countermeasure, Suspect, describe};
use crate::clock::Moment;
use crate::directory::{Customer, LimitName, Parties, Subject, SubjectKind};
use crate::envelope::Address;
use crate::ledger::{LimitStanding, LimitUsage, NearLimit};
use crate::mail::{Letter, Outbox, Postman};
use crate::report::{Level, LogLine};
use crate::session::Engine;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Notices that may wait, about limits and about abuse each. What finds no room comes again with the next message.
const QUEUE: usize = 1_024;

/// The file in `store.path` that survives restarts.
const FILE: &str = "told.jsonl";

/// Accepts what may be worth a letter; never waits. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Notices {
    history: Arc<NoticeHistory>,
    limits: mpsc::Sender<LimitReached>,
    /// Separate, so that a crowd at its limits cannot delay a letter about abuse.
    abuse: mpsc::Sender<AbuseNotice>,
}

/// A level of a limit may have been reached. Exact figures are looked up when the letter is written.
#[derive(Clone, Debug)]
pub(super) struct LimitReached {
    pub customer: Arc<Customer>,
    pub subject: Subject,
    pub limit: LimitName,
    /// It refused mail.
    pub refuses: bool,
}

/// Signs of abuse, and what was done about them.
#[derive(Clone, Debug)]
pub struct AbuseNotice {
    pub customer: Arc<Customer>,
    pub suspect: Suspect,
    /// In which the signs were seen.
    pub window: Duration,
    pub done: Countermeasure,
}

/// Writes and sends the letters.
pub struct NoticeTask {
    engine: Arc<Engine>,
    history: Arc<NoticeHistory>,
    limits: mpsc::Receiver<LimitReached>,
    abuse: mpsc::Receiver<AbuseNotice>,
    outbox: Outbox,
    postman: Postman,
}

/// The two ends of the queue of notices.
pub fn notices(engine: &Arc<Engine>) -> (Notices, NoticeTask) {
    let history = Arc::<NoticeHistory>::default();
    let ((limits, limits_queue), (abuse, abuse_queue)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE));
    let (outbox, postman) = Postman::new(engine.own_mail.clone());
    let task = NoticeTask {
        engine: engine.clone(),
        history: history.clone(),
        limits: limits_queue,
        abuse: abuse_queue,
        outbox,
        postman,
    };
    (Notices { history, limits, abuse }, task)
}

impl Notices {
    /// A message was counted, and these limits are near their maximum.
    pub fn limits_near(&self, customer: &Arc<Customer>, parties: &Parties, near: &[NearLimit], now: Moment) {
        for reached in limit_warnings::after_commit(&self.history, customer, parties, near, now) {
            let _ = self.limits.try_send(reached);
        }
    }

    /// These limits refused mail.
    pub fn limits_exceeded(&self, customer: &Arc<Customer>, parties: &Parties, over: &[LimitStanding], now: Moment) {
        for reached in limit_warnings::after_refusal(&self.history, customer, parties, over, now) {
            let _ = self.limits.try_send(reached);
        }
    }

    /// Whether nobody was notified of signs of abuse of this user or customer within the window.
    pub fn is_abuse_news(&self, subject: &Subject, now: Moment) -> bool {
        self.history.is_news(&abuse_of(subject), FULL, now)
    }

    /// Somebody has signs of abuse, and something was done about it.
    pub fn abuse(&self, notice: AbuseNotice) {
        let _ = self.abuse.try_send(notice);
    }
}

fn abuse_of(subject: &Subject) -> Topic {
    Topic { about: About::Abuse, subject: subject.clone() }
}

impl NoticeTask {
    /// Runs as long as the daemon.
    pub async fn run(self) {
        let NoticeTask { engine, history, mut limits, mut abuse, outbox, mut postman } = self;
        let writer = Writer { engine: engine.clone(), history, outbox };
        writer.read_history();
        let settings = || engine.snapshot().settings.clone();
        let write = async {
            loop {
                tokio::select! {
                    biased;
                    Some(notice) = abuse.recv() => writer.abuse(&notice),
                    Some(reached) = limits.recv() => writer.limit(reached).await,
                    else => return,
                }
            }
        };
        tokio::join!(write, postman.run(settings, &engine.log));
    }
}

/// Decides what is news, logs it and writes the letters.
struct Writer {
    engine: Arc<Engine>,
    history: Arc<NoticeHistory>,
    outbox: Outbox,
}

impl Writer {
    /// What was sent before the daemon was started.
    fn read_history(&self) {
        let file = self.engine.snapshot().settings.store.path().join(FILE);
        if let Err(error) = self.history.open(&file, self.engine.ledger.now()) {
            let file = file.display();
            self.engine
                .log
                .warn(format_args!("{file}: {error}; after a restart, letters that were sent may be sent again"));
        }
    }

    async fn limit(&self, reached: LimitReached) {
        let LimitReached { customer, subject, limit, refuses } = reached;
        // The exact figures: reservations of other transactions may still be released.
        let limits = self.engine.limits_of(&subject, &customer);
        let Ok(usage) = self.engine.ledger.usage(&subject, &limits).await else { return };
        let Some(usage) = usage.into_iter().find(|usage| usage.limit == limit) else { return };
        self.warn_of_limit(&customer, subject, &usage, refuses);
    }

    fn warn_of_limit(&self, customer: &Customer, subject: Subject, usage: &LimitUsage, refuses: bool) {
        let (LimitUsage { limit, used, .. }, Some(max)) = (*usage, usage.max) else { return };
        let level = if refuses { Some(FULL) } else { customer.limits.level_reached(used, max) };
        let Some(level) = level else { return };
        let engine = &self.engine;
        let topic = Topic { about: About::Limit(limit), subject };
        let settings = engine.snapshot().settings.clone();
        let letters = addressees(customer, &topic.subject, settings.mail.warn_users);
        // If the MTA is down, the next message tries again.
        if !self.outbox.has_room(letters.len(), "limit-warning", &engine.log) {
            return;
        }
        let window = Duration::from_secs(limit.window().seconds().into());
        if !self.history.note(&topic, level, engine.ledger.now(), window) {
            return;
        }
        let line = LogLine::event("limit-warning")
            .field("limit", limit)
            .field("customer", &topic.subject.customer)
            .field(key_in_log(topic.subject.kind), &topic.subject.name)
            .field("percent", level)
            .field("used", used)
            .field("max", max)
            .field("told", letters.iter().flatten().count());
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
        self.post(&topic, "limit-warning", letters, &figures.title(), &figures.text());
    }

    fn abuse(&self, notice: &AbuseNotice) {
        let AbuseNotice { customer, suspect: Suspect { subject, signs }, window, done } = notice;
        let (engine, topic) = (&self.engine, abuse_of(subject));
        let is_news = self.history.note(&topic, FULL, engine.ledger.now(), *window);
        // Every suspension is news.
        if !is_news && *done != Countermeasure::Suspended {
            return;
        }
        let line = LogLine::event("abuse")
            .field("customer", &subject.customer)
            .field(key_in_log(subject.kind), &subject.name)
            .field("signs", signs.iter().map(|sign| sign.key()).collect::<Vec<_>>().join(","))
            .field("done", done.key())
            .field("told", customer.admins.len())
            .field("why", describe(signs, *window));
        engine.log.write(Level::Warn, line);
        if customer.admins.is_empty() {
            return;
        }
        let settings = engine.snapshot().settings.clone();
        let relay = &settings.relay.hostname;
        let operator = settings.mail.sender(relay);
        let figures = AbuseFigures { relay, operator: &operator, subject, signs, window: *window, done: *done };
        // Not to the user: somebody else may be reading that mailbox.
        self.post(&topic, "abuse", vec![customer.admins.clone()], &figures.title(), &figures.text());
    }

    /// What could not be sent is sent again after a restart.
    fn post(&self, topic: &Topic, about: &'static str, letters: Vec<Vec<Address>>, title: &str, text: &str) {
        for to in letters {
            let (history, log, topic) = (self.history.clone(), self.engine.log.clone(), topic.clone());
            let letter = Letter::new(to, about, title.to_owned(), text.to_owned()).then(move || {
                if let Err(error) = history.record(&topic) {
                    log.warn(format_args!(
                        "{FILE}: {error}; after a restart, letters that were sent may be sent again"
                    ));
                }
            });
            self.outbox.post(letter, &self.engine.log);
        }
    }
}

/// One letter to the administrators and one to the user, who need not know each other's addresses.
fn addressees(customer: &Customer, subject: &Subject, users_too: bool) -> Vec<Vec<Address>> {
    let mut letters = vec![customer.admins.clone()];
    if users_too && subject.kind == SubjectKind::User {
        let user = Address::from_internal(&subject.name).ok().filter(|user| !customer.admins.contains(user));
        letters.extend(user.map(|user| vec![user]));
    }
    letters.retain(|to| !to.is_empty());
    letters
}

/// The field of a log line that also has `customer=`.
fn key_in_log(kind: SubjectKind) -> &'static str {
    match kind {
        SubjectKind::User => "user",
        SubjectKind::Login => "login",
        SubjectKind::Customer => "name",
    }
}
