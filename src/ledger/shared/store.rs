//! The shared store as the ledger sees it.

use super::client::client::{Client, Trouble};
use super::client::connection::in_words;
use super::client::servers::Servers;
use super::fallback::backlog::{Backlog, Next, UncountedMessage};
use super::fallback::{Attempt, LocalCounts, Merger, OpenedCounts, merge};
use super::protocol::ServerTime;
use super::protocol::keys::PREFIX;
use super::protocol::nonces::Nonces;
use super::protocol::request::{CommitDetails, Daemon, Request, UsageReport, transaction};
use super::protocol::{keys, response, scripts};
use super::top;
use crate::clock::{Anchor, Clock, SystemClock};
use crate::config::OnOutage;
use crate::directory::{CustomerLimits, Limit, LimitName, Parties, Subject};
use crate::ledger::ranking::Leaders;
use crate::ledger::{
    AcceptedRecipients, LedgerAnswer, LedgerError, LimitUsage, MissingNode, OpenError, RecipientKey, ReservationId,
};
use redis::Value;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// How long a stop waits for what passed while the store was away.
const LAST_COUNTS: Duration = Duration::from_secs(3);

/// How a daemon uses a store that several daemons share.
#[derive(Debug)]
pub(in crate::ledger) struct SharedStore(pub(in crate::ledger::shared) Arc<Inner>);

#[derive(Debug)]
pub(in crate::ledger::shared) struct Inner {
    pub(in crate::ledger::shared) client: Arc<Client>,
    prefix: String,
    daemon: Daemon,
    nonces: Arc<Nonces>,
    reservation_timeout: Duration,
    pub(in crate::ledger::shared) on_outage: OnOutage,
    pub(in crate::ledger::shared) backlog: Backlog,
    clock: Arc<dyn Clock>,
    /// Decides while the store is away (`on_outage = "local"`).
    pub(in crate::ledger::shared) local: Option<Arc<LocalCounts>>,
    merging: OnceLock<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(merging) = self.merging.get() {
            merging.abort();
        }
        if let Some(local) = &self.local {
            local.close();
        }
    }
}

impl SharedStore {
    /// Names the servers; they are connected to when the first request is asked. `prefix` is before all keys. With
    /// `on_outage = "local"` what is counted while they are away is kept in `folder`.
    ///
    /// # Errors
    /// A URL that cannot be read; the folder, or what is in it, cannot be used.
    pub fn open(
        urls: &[String],
        prefix: Option<&str>,
        on_outage: OnOutage,
        folder: Option<&Path>,
        reservation_timeout: Duration,
        time: ServerTime,
    ) -> Result<SharedStore, OpenError> {
        let unreadable = |error| OpenError(format!("store.urls: {}", in_words(&error)));
        let prefix = prefix.unwrap_or(PREFIX).to_owned();
        let servers = Servers::new(urls).map_err(unreadable)?;
        let [hash_key, daemon] = random()?;
        let [daemon @ .., _, _, _, _, _, _, _, _, _, _] = daemon;
        let (nonces, backlog) = (Arc::<Nonces>::default(), Backlog::default());
        let clock = |anchor: Option<&Anchor>| match &time {
            ServerTime::Server => Arc::new(SystemClock::start(anchor)) as Arc<dyn Clock>,
            ServerTime::Told(clock) => clock.clone(),
        };
        let (local, clock, hash_key) = match on_outage {
            OnOutage::Local => {
                let folder = folder.ok_or_else(|| OpenError("on_outage = \"local\" needs a folder".to_owned()))?;
                let opened = LocalCounts::open(folder, reservation_timeout, daemon, nonces.clone(), clock)?;
                let OpenedCounts { local, clock, hash_key } = opened;
                (Some(local), clock, hash_key)
            }
            OnOutage::Defer | OnOutage::Accept => (None, clock(None), hash_key),
        };
        let client = Arc::new(Client::new(servers, &prefix, time, hash_key));
        Ok(SharedStore(Arc::new(Inner {
            client,
            prefix,
            daemon,
            nonces,
            reservation_timeout,
            on_outage,
            backlog,
            clock,
            local,
            merging: OnceLock::new(),
        })))
    }

    /// What recipients' addresses are hashed with, by all daemons.
    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.0.client.hash_key()
    }

    pub async fn reserve(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipient: RecipientKey,
    ) -> Result<LedgerAnswer, LedgerError> {
        let request = self.0.about_recipients(id, parties, limits, &[recipient]);
        let Some(local) = self.0.local() else {
            let answer = self.0.client.ask(&scripts::RESERVE, request).await;
            return self.0.decision(answer, limits);
        };
        if !self.0.decides_here(local, &parties.customer)
            && let Ok(value) = self.0.client.ask(&scripts::RESERVE, request).await
        {
            let answer = noted(value, local, parties, limits)?;
            if answer.fits() {
                local.is_held(id, parties, recipient);
            }
            return Ok(answer);
        }
        Ok(local.reserve(id, parties, limits, recipient))
    }

    pub async fn look(
        &self,
        except: Option<ReservationId>,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> Result<LedgerAnswer, LedgerError> {
        // Reservations are numbered from 1.
        let id = except.unwrap_or(ReservationId(0));
        let request = self.0.about_recipients(id, parties, limits, &different(recipients));
        let Some(local) = self.0.local() else {
            let answer = self.0.client.ask(&scripts::LOOK, request).await;
            return self.0.decision(answer, limits);
        };
        if !self.0.decides_here(local, &parties.customer)
            && let Ok(value) = self.0.client.ask(&scripts::LOOK, request).await
        {
            return noted(value, local, parties, limits);
        }
        Ok(local.look(except, parties, limits, recipients))
    }

    pub async fn commit(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: AcceptedRecipients<'_>,
    ) -> Result<LedgerAnswer, LedgerError> {
        let named = different(kept.named);
        if let Some(local) = self.0.local() {
            return self
                .commit_or_count_here(local, id, parties, limits, AcceptedRecipients { named: &named, ..kept })
                .await;
        }
        let nonce = self.0.nonces.take(&parties.customer);
        let message = Message { parties, named: &named, unnamed: kept.unnamed };
        let answer = self.0.count(id, limits, message, nonce.number(), Duration::ZERO).await;
        if answer.is_err() && self.0.on_outage == OnOutage::Accept {
            let (parties, at) = (parties.clone(), Instant::now());
            let passed = UncountedMessage { parties, named, unnamed: kept.unnamed, nonce: nonce.keep(), at };
            self.0.clone().count_later(passed);
        }
        self.0.decision(answer, limits)
    }

    async fn commit_or_count_here(
        &self,
        local: &LocalCounts,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: AcceptedRecipients<'_>,
    ) -> Result<LedgerAnswer, LedgerError> {
        let mut attempt = Attempt { transaction: transaction(self.0.daemon, id), nonce: None };
        if !self.0.decides_here(local, &parties.customer) {
            let nonce = self.0.nonces.take(&parties.customer);
            let message = Message { parties, named: kept.named, unnamed: kept.unnamed };
            if let Ok(value) = self.0.count(id, limits, message, nonce.number(), Duration::ZERO).await {
                local.release(id, parties);
                return noted(value, local, parties, limits);
            }
            // Whether it is counted there is not known; under the same number it is counted once.
            attempt.nonce = Some(nonce.keep());
        }
        local.commit(id, parties, limits, kept, attempt).await
    }

    /// On its way when this returns, before whatever is asked next. If it never arrives, the reservation ends by itself.
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let inner = self.0.clone();
        if let Some(local) = &inner.local {
            local.release(id, parties);
        }
        let (transaction, parties) = (transaction(inner.daemon, id), parties.clone());
        let request = Request::release(&inner.prefix, transaction, &parties);
        let mut release = Box::pin(async move {
            if inner.client.ask(&scripts::RELEASE, request).await.is_err()
                && let Some(local) = &inner.local
            {
                local.release_later(transaction, &parties);
            }
        });
        // Asked as far as it goes without waiting: into the connection's queue.
        if release.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            runtime.spawn(release);
        }
    }

    pub async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        let request = Request::usage(&self.0.prefix, subject, limits);
        let local = self.0.local();
        if let Some(local) = local
            && self.0.decides_here(local, &subject.customer)
        {
            return Ok(local.usage(subject, limits));
        }
        let value = match (self.0.client.ask(&scripts::USAGE, request).await, local) {
            (Ok(value), _) => value,
            (Err(_), Some(local)) => return Ok(local.usage(subject, limits)),
            (Err(why), None) => return Err(LedgerError::Unavailable(why)),
        };
        response::usage(value, subject.kind, limits).ok_or_else(makes_no_sense)
    }

    pub async fn reset(&self, subject: &Subject) -> Result<(), LedgerError> {
        let local = self.0.local();
        if local.is_some_and(|local| local.decides(&subject.customer)) {
            let why = "what was counted while it was away is not merged yet; try again then";
            return Err(LedgerError::Unavailable(why.into()));
        }
        let request = Request::reset(&self.0.prefix, subject);
        self.0.client.ask(&scripts::RESET, request).await.map_err(LedgerError::Unavailable)?;
        if let Some(local) = local {
            local.forget(subject);
        }
        Ok(())
    }

    pub async fn rank(&self, limit: LimitName, leaders: &mut Leaders<'_>) -> Result<Vec<MissingNode>, LedgerError> {
        top::rank(&self.0.client, &self.0.prefix, limit, leaders).await.map_err(LedgerError::Unavailable)
    }

    /// Waits until the store can be asked.
    ///
    /// # Errors
    /// It is away.
    pub async fn ready(&self) -> Result<(), LedgerError> {
        self.0.local();
        self.0.client.ready().await.map_err(LedgerError::Unavailable)
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock.clone()
    }

    /// Waits a while for what is still to be counted.
    pub async fn close(&self) {
        if let Some(local) = &self.0.local {
            local.close();
        }
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

/// An answer of the store, of which is remembered how much is used.
fn noted(
    value: Value,
    local: &LocalCounts,
    parties: &Parties,
    limits: &CustomerLimits,
) -> Result<LedgerAnswer, LedgerError> {
    let decision = response::decision(value, limits).ok_or_else(makes_no_sense)?;
    local.note(parties, &decision.answer, &decision.used);
    Ok(decision.answer)
}

impl Inner {
    /// What decides while the store is away, and merges when it is back.
    fn local(&self) -> Option<&LocalCounts> {
        let local = self.local.as_ref()?;
        self.merging.get_or_init(|| {
            let merger = Merger {
                local: local.clone(),
                client: self.client.clone(),
                prefix: self.prefix.clone(),
                reservation_timeout: self.reservation_timeout,
            };
            tokio::spawn(merge(merger)).abort_handle()
        });
        Some(local)
    }

    /// The part that has the customer is away, or does not know all that was counted here.
    fn decides_here(&self, local: &LocalCounts, customer: &str) -> bool {
        local.decides(customer) || self.client.is_away(|| keys::of_customer(&self.prefix, customer))
    }

    fn about_recipients(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> Request {
        let id = transaction(self.daemon, id);
        Request::recipients(&self.prefix, id, parties, limits, self.reservation_timeout, recipients)
    }

    async fn count(
        &self,
        id: ReservationId,
        limits: &CustomerLimits,
        message: Message<'_>,
        nonce: u64,
        age: Duration,
    ) -> Result<Value, Trouble> {
        let (daemon, kept) = (self.daemon, AcceptedRecipients { named: message.named, unnamed: message.unnamed });
        let usage_report = match limits.warn() {
            true => UsageReport::UsedAndHeld,
            false if self.local.is_some() => UsageReport::Used,
            false => UsageReport::Nothing,
        };
        let accepted =
            CommitDetails { age, nonce, unsettled: self.nonces.unsettled(&message.parties.customer), usage_report };
        let (id, timeout) = (transaction(daemon, id), self.reservation_timeout);
        let request = Request::commit(&self.prefix, id, daemon, message.parties, limits, timeout, kept, accepted);
        self.client.ask(&scripts::COMMIT, request).await
    }

    /// What the server answered, or what the operator wants while it is away.
    fn decision(&self, answer: Result<Value, Trouble>, limits: &CustomerLimits) -> Result<LedgerAnswer, LedgerError> {
        match answer {
            Ok(value) => response::decision(value, limits).map(|decision| decision.answer).ok_or_else(makes_no_sense),
            Err(_) if self.on_outage == OnOutage::Accept => Ok(LedgerAnswer::fitting(self.clock.now())),
            Err(why) => Err(LedgerError::Unavailable(why)),
        }
    }

    fn count_later(self: Arc<Self>, message: UncountedMessage) {
        match self.backlog.push(message) {
            Ok(true) => drop(tokio::spawn(self.count_backlog())),
            Ok(false) => {}
            Err(lost) => self.nonces.settle(&lost.parties.customer, lost.nonce),
        }
    }

    async fn count_backlog(self: Arc<Self>) {
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        let mut changes = self.client.changes();
        loop {
            let can_be_counted = |passed: &UncountedMessage| {
                let key = || keys::of_customer(&self.prefix, &passed.parties.customer);
                !self.client.is_away(key)
            };
            let passed = match self.backlog.next(can_be_counted) {
                Next::Message(passed) => passed,
                Next::Later => {
                    let _ = changes.changed().await;
                    continue;
                }
                Next::None => return,
            };
            let message = Message { parties: &passed.parties, named: &passed.named, unnamed: passed.unnamed };
            let counted = self.count(ReservationId(0), &unlimited, message, passed.nonce, passed.at.elapsed()).await;
            match counted {
                Ok(_) => {
                    self.backlog.counted();
                    self.nonces.settle(&passed.parties.customer, passed.nonce);
                }
                Err(_) => {
                    self.backlog.put_off();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
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
