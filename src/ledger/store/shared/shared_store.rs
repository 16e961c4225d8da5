//! The shared store as the ledger sees it.

use super::answer;
use super::backlog::{Backlog, Passed};
use super::link::{Link, Trouble};
use super::names::PREFIX;
use super::nonces::Nonces;
use super::question::{Accepted, Daemon, Question, transaction};
use super::server::{Servers, in_words};
use super::{scripts, top};
use crate::clock::Clock;
use crate::config::OnOutage;
use crate::directory::{CustomerLimits, Limit, LimitName};
use crate::ledger::{
    Answer, Kept, LedgerError, LimitUsage, OpenError, Parties, Readiness, RecipientKey, ReservationId, Subject,
};
use redis::Value;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a stop waits for what passed while the store was away.
const LAST_COUNTS: Duration = Duration::from_secs(3);

/// How a daemon uses a store that several daemons share.
#[derive(Debug)]
pub(in crate::ledger) struct SharedStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    prefix: String,
    daemon: Daemon,
    nonces: Nonces,
    reservation_timeout: Duration,
    on_outage: OnOutage,
    backlog: Backlog,
    clock: Arc<dyn Clock>,
}

/// Whose clock the scripts go by.
#[derive(Clone, Debug)]
pub(in crate::ledger) enum ServerTime {
    /// The server's; with the shift of a test, if there is one.
    Server,
    /// A clock that a test moves.
    #[cfg_attr(not(feature = "test-clock"), expect(dead_code, reason = "for tests"))]
    Told(Arc<dyn Clock>),
}

impl ServerTime {
    /// What the scripts take in tests.
    pub fn as_argument(&self) -> Vec<u8> {
        match self {
            ServerTime::Server => format!("+{}", crate::clock::test_shift_ms()),
            ServerTime::Told(clock) => format!("={}", clock.now().0),
        }
        .into_bytes()
    }
}

impl SharedStore {
    /// Names the servers; they are connected to when the first question is asked. `prefix` is before all keys.
    ///
    /// # Errors
    /// A URL that cannot be read.
    pub fn open(
        urls: &[String],
        prefix: Option<&str>,
        on_outage: OnOutage,
        reservation_timeout: Duration,
        clock: Arc<dyn Clock>,
        time: ServerTime,
    ) -> Result<SharedStore, OpenError> {
        let unreadable = |error| OpenError(format!("store.urls: {}", in_words(&error)));
        let prefix = prefix.unwrap_or(PREFIX).to_owned();
        let [hash_key, daemon] = random()?;
        let link = Link::new(Servers::new(urls).map_err(unreadable)?, prefix.clone(), time, hash_key);
        let [daemon @ .., _, _, _, _, _, _, _, _, _, _] = daemon;
        let (nonces, backlog) = (Nonces::default(), Backlog::default());
        Ok(SharedStore(Arc::new(Inner {
            link,
            prefix,
            daemon,
            nonces,
            reservation_timeout,
            on_outage,
            backlog,
            clock,
        })))
    }

    /// What recipients' addresses are hashed with, by all daemons.
    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.0.link.hash_key()
    }

    pub async fn reserve(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipient: RecipientKey,
    ) -> Result<Answer, LedgerError> {
        let question = self.0.about_recipients(id, parties, limits, &[recipient]);
        let answer = self.0.link.ask(&scripts::RESERVE, &question).await;
        self.0.decision(answer, limits)
    }

    pub async fn look(
        &self,
        except: Option<ReservationId>,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> Result<Answer, LedgerError> {
        // Reservations are numbered from 1.
        let id = except.unwrap_or(ReservationId(0));
        let question = self.0.about_recipients(id, parties, limits, &different(recipients));
        let answer = self.0.link.ask(&scripts::LOOK, &question).await;
        self.0.decision(answer, limits)
    }

    pub async fn commit(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: Kept<'_>,
    ) -> Result<Answer, LedgerError> {
        let named = different(kept.named);
        let nonce = self.0.nonces.take();
        let message = Message { parties, named: &named, unnamed: kept.unnamed };
        let answer = self.0.count(id, limits, message, nonce.number(), Duration::ZERO).await;
        if answer.is_err() && self.0.on_outage == OnOutage::Accept {
            let (parties, at) = (parties.clone(), Instant::now());
            let passed = Passed { parties, named, unnamed: kept.unnamed, nonce: nonce.keep(), at };
            self.0.clone().count_later(passed);
        }
        self.0.decision(answer, limits)
    }

    /// On its way when this returns, before whatever is asked next. If it never arrives, the reservation ends by itself.
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let inner = self.0.clone();
        let question = Question::release(&inner.prefix, transaction(inner.daemon, id), parties);
        let mut release = Box::pin(async move { drop(inner.link.ask(&scripts::RELEASE, &question).await) });
        // Asked as far as it goes without waiting: into the connection's queue.
        if release.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            runtime.spawn(release);
        }
    }

    pub async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        let question = Question::usage(&self.0.prefix, subject, limits);
        let value = self.0.link.ask(&scripts::USAGE, &question).await.map_err(LedgerError::Unavailable)?;
        answer::usage(value, subject.kind, limits).ok_or_else(makes_no_sense)
    }

    pub async fn reset(&self, subject: &Subject) -> Result<(), LedgerError> {
        let question = Question::reset(&self.0.prefix, subject);
        self.0.link.ask(&scripts::RESET, &question).await.map(drop).map_err(LedgerError::Unavailable)
    }

    pub async fn top(&self, limit: LimitName, most: usize) -> Result<Vec<(Subject, u64)>, LedgerError> {
        top::top(&self.0.link, &self.0.prefix, limit, most).await.map_err(LedgerError::Unavailable)
    }

    /// Waits until the store can be asked.
    ///
    /// # Errors
    /// It is away.
    pub async fn ready(&self) -> Result<(), LedgerError> {
        self.0.link.ready().await.map_err(LedgerError::Unavailable)
    }

    /// Why the store cannot be asked, and changes of that.
    pub fn trouble(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.link.trouble()
    }

    /// What an administrator should change at the servers, and changes of it.
    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.link.advice()
    }

    pub fn readiness(&self) -> Readiness {
        let trouble = self.0.link.trouble().borrow().clone();
        let (waiting, lost) = (self.0.backlog.len(), self.0.backlog.lost());
        match trouble {
            Some(why) if self.0.on_outage == OnOutage::Accept => {
                Readiness::Degraded(format!("{why}; {waiting} messages passed that are still to be counted").into())
            }
            Some(why) => Readiness::Failed(why),
            None if lost > 0 => Readiness::Degraded(format!("{lost} messages passed that were never counted").into()),
            None if self.0.link.is_connecting() => Readiness::Loading { done: 0, of: 0 },
            None => Readiness::Ready,
        }
    }

    /// Waits a while for what is still to be counted.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(LAST_COUNTS, async {
            while self.0.backlog.len() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// An accepted message.
#[derive(Clone, Copy)]
struct Message<'a> {
    parties: &'a Parties,
    /// Different ones.
    named: &'a [RecipientKey],
    unnamed: u32,
}

impl Inner {
    fn about_recipients(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> Question {
        let id = transaction(self.daemon, id);
        Question::recipients(&self.prefix, id, parties, limits, self.reservation_timeout, recipients)
    }

    async fn count(
        &self,
        id: ReservationId,
        limits: &CustomerLimits,
        message: Message<'_>,
        nonce: u64,
        age: Duration,
    ) -> Result<Value, Trouble> {
        let (daemon, kept) = (self.daemon, Kept { named: message.named, unnamed: message.unnamed });
        let accepted = Accepted { age, nonce, unsettled: self.nonces.unsettled() };
        let (id, timeout) = (transaction(daemon, id), self.reservation_timeout);
        let question = Question::commit(&self.prefix, id, daemon, message.parties, limits, timeout, kept, accepted);
        self.link.ask(&scripts::COMMIT, &question).await
    }

    /// What the server answered, or what the operator wants while it is away.
    fn decision(&self, answer: Result<Value, Trouble>, limits: &CustomerLimits) -> Result<Answer, LedgerError> {
        match answer {
            Ok(value) => answer::decision(value, limits).ok_or_else(makes_no_sense),
            Err(_) if self.on_outage == OnOutage::Accept => Ok(Answer::fitting(self.clock.now())),
            Err(why) => Err(LedgerError::Unavailable(why)),
        }
    }

    fn count_later(self: Arc<Self>, message: Passed) {
        match self.backlog.push(message) {
            Ok(true) => drop(tokio::spawn(self.count_backlog())),
            Ok(false) => {}
            Err(lost) => self.nonces.settle(lost.nonce),
        }
    }

    async fn count_backlog(self: Arc<Self>) {
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        while let Some(passed) = self.backlog.next() {
            self.link.up().await;
            let message = Message { parties: &passed.parties, named: &passed.named, unnamed: passed.unnamed };
            let counted = self.count(ReservationId(0), &unlimited, message, passed.nonce, passed.at.elapsed()).await;
            match counted {
                Ok(_) => {
                    self.backlog.counted();
                    self.nonces.settle(passed.nonce);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

fn different(recipients: &[RecipientKey]) -> Vec<RecipientKey> {
    let mut known = hashbrown::HashSet::with_capacity(recipients.len());
    recipients.iter().copied().filter(|key| known.insert(*key)).collect()
}

fn makes_no_sense() -> LedgerError {
    LedgerError::Unavailable("the server's answer makes no sense".into())
}

fn random() -> Result<[[u8; 16]; 2], OpenError> {
    let mut bytes = [[0; 16]; 2];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| bytes.iter_mut().try_for_each(|part| std::io::Read::read_exact(&mut file, part)));
    read.map(|()| bytes).map_err(|error| OpenError(format!("/dev/urandom: {error}")))
}
