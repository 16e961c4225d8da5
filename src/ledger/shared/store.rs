//! The shared store: the ledger on the servers, and what happens while they are unreachable.

use super::client::error::one_line;
use super::client::servers::Servers;
use super::client::store_clock::{LocalClock, StoreClock};
use super::fallback::{Attempt, Backlog, Fallback, LocalCounts, LocalFallback, UncountedMessage};
use super::protocol::ServerTime;
use super::protocol::keys::PREFIX;
use super::protocol::nonces::Nonces;
use super::protocol::request::UsageReport;
use super::protocol::response::Decision;
use super::rebase::accept_clocks;
use super::remote::{Remote, without_repeats};
use super::top;
use crate::clock::{Anchor, Clock, Moment, SystemClock};
use crate::config::OnOutage;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject};
use crate::ledger::api::{CommitRequest, LookRequest, ReserveRequest};
use crate::ledger::ranking::Leaders;
use crate::ledger::store::Store;
use crate::ledger::{
    AcceptedRecipients, Health, LedgerAnswer, LedgerError, LedgerSize, LimitUsage, MissingNode, OpenError,
    ReservationId, StoreError,
};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How long a stop waits for messages that were accepted uncounted during an outage.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How a daemon uses a store that several daemons share.
#[derive(Debug)]
pub(in crate::ledger) struct SharedStore {
    pub(super) remote: Arc<Remote>,
    pub(super) fallback: Fallback,
    /// The daemon's own, for all but the servers' counts.
    clock: Arc<dyn Clock>,
    servers_clock: Arc<StoreClock>,
}

#[derive(Debug)]
pub(in crate::ledger) struct SharedStoreOptions<'a> {
    pub urls: &'a [String],
    /// What all keys begin with; `None`: `rk:`.
    pub prefix: Option<&'a str>,
    pub on_outage: OnOutage,
    /// Where [`OnOutage::Local`] keeps what is counted during an outage.
    pub folder: Option<&'a Path>,
    pub reservation_timeout: Duration,
    pub time: ServerTime,
}

impl Default for SharedStoreOptions<'_> {
    fn default() -> Self {
        SharedStoreOptions {
            urls: &[],
            prefix: None,
            on_outage: OnOutage::Defer,
            folder: None,
            reservation_timeout: Duration::ZERO,
            time: ServerTime::Server,
        }
    }
}

impl SharedStore {
    /// Connects with the first request.
    ///
    /// # Errors
    /// A URL is invalid; the folder, or what is in it, cannot be used.
    pub fn open(options: SharedStoreOptions<'_>) -> Result<SharedStore, OpenError> {
        let SharedStoreOptions { urls, prefix, on_outage, folder, reservation_timeout, time } = options;
        let servers = Servers::new(urls).map_err(|error| OpenError(format!("store.urls: {}", one_line(&error))))?;
        let (prefix, nonces) = (prefix.unwrap_or(PREFIX), Arc::<Nonces>::default());
        let [hash_key, daemon] = random()?;
        let [daemon @ .., _, _, _, _, _, _, _, _, _, _] = daemon;
        let servers_clock = Arc::new(StoreClock::new(time));
        let clock = |anchor: Option<&Anchor>| match &servers_clock.time {
            ServerTime::Server => Arc::new(SystemClock::start(anchor)) as Arc<dyn Clock>,
            ServerTime::Test { own, .. } => own.clone(),
        };
        let local_clock = |anchor: Option<&Anchor>| {
            Arc::new(LocalClock { own: clock(anchor), servers: servers_clock.clone() }) as Arc<dyn Clock>
        };
        let (fallback, clock, hash_key) = match on_outage {
            OnOutage::Local => {
                let folder = folder.ok_or_else(|| OpenError("on_outage = \"local\" needs a folder".to_owned()))?;
                let opened = LocalCounts::open(folder, reservation_timeout, daemon, nonces.clone(), local_clock)?;
                (Fallback::Local(LocalFallback::new(opened.counts)), opened.clock, opened.hash_key)
            }
            OnOutage::Defer => (Fallback::Defer(Arc::default()), clock(None), hash_key),
            OnOutage::Accept => (Fallback::Accept(Arc::default()), clock(None), hash_key),
        };
        let remote = Remote::new(servers, prefix, servers_clock.clone(), hash_key, daemon, nonces, reservation_timeout);
        Ok(SharedStore { remote: Arc::new(remote), fallback, clock, servers_clock })
    }

    /// An administrator says that the clocks of servers that have jumped are right. What was done, one line for each.
    ///
    /// # Errors
    /// None has jumped, or one cannot be reached or refuses.
    pub async fn accept_clocks(&self) -> Result<Vec<String>, StoreError> {
        // Whoever asked may hang up: it is carried out in any case.
        let accepting = tokio::spawn(accept_clocks(self.remote.clone()));
        accepting.await.unwrap_or_else(|error| Err(StoreError::transient(error.to_string())))
    }

    /// The local counts, if this customer's mail is decided by them now: its node is unreachable, or does not yet have all that
    /// was counted locally.
    fn decides_locally(&self, customer: &str) -> Option<&LocalCounts> {
        let counts = self.local_counts()?;
        (counts.decides(customer) || self.remote.is_unreachable(customer)).then_some(counts)
    }

    fn local_counts(&self) -> Option<&LocalCounts> {
        match &self.fallback {
            Fallback::Local(local) => Some(local.counts(&self.remote)),
            Fallback::Defer(_) | Fallback::Accept(_) => None,
        }
    }

    /// What the servers decided; or, if they cannot be reached, what the operator wants then.
    fn decision(&self, decision: Result<Decision, StoreError>, parties: &Parties) -> Result<LedgerAnswer, LedgerError> {
        match (decision, &self.fallback) {
            (Ok(decision), Fallback::Local(local)) => {
                local.counts(&self.remote).note(parties, &decision.answer, &decision.used);
                Ok(decision.answer)
            }
            (Ok(decision), Fallback::Defer(_) | Fallback::Accept(_)) => Ok(decision.answer),
            (Err(_), Fallback::Accept(_)) => Ok(LedgerAnswer::fitting(self.clock.now())),
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn reserve_remotely(&self, request: ReserveRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        let Some(counts) = self.local_counts() else {
            return self.decision(self.remote.reserve(request).await, request.parties);
        };
        if self.decides_locally(&request.parties.customer).is_some() {
            return Ok(counts.reserve(request));
        }
        match self.remote.reserve(request).await {
            Ok(decision) => {
                if decision.answer.fits() {
                    counts.note_reserved(request);
                }
                self.decision(Ok(decision), request.parties)
            }
            Err(_) => Ok(counts.reserve(request)),
        }
    }

    async fn look_remotely(&self, request: LookRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        if let Some(counts) = self.decides_locally(&request.parties.customer) {
            return Ok(counts.look(request));
        }
        match (self.remote.look(request).await, self.local_counts()) {
            (Err(_), Some(counts)) => Ok(counts.look(request)),
            (decision, _) => self.decision(decision, request.parties),
        }
    }

    async fn commit_remotely(&self, request: CommitRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        let named = without_repeats(request.recipients.named);
        let recipients = AcceptedRecipients { named: &named, unnamed: request.recipients.unnamed };
        let request = CommitRequest { recipients, ..request };
        if let Some(counts) = self.local_counts() {
            return self.commit_or_count_locally(counts, request).await;
        }
        let customer = &request.parties.customer;
        let uncounted = |nonce| UncountedMessage {
            parties: request.parties.clone(),
            named: named.clone(),
            unnamed: recipients.unnamed,
            transaction: self.remote.transaction(request.id),
            nonce,
            at: Instant::now(),
        };
        // What nobody waits for has left already.
        let count_later = match &self.fallback {
            Fallback::Accept(backlog) => Some(backlog),
            Fallback::Defer(backlog) if !request.is_awaited => Some(backlog),
            Fallback::Defer(_) | Fallback::Local(_) => None,
        };
        if let Some(backlog) = count_later
            && self.remote.is_unreachable(customer)
        {
            backlog.count_later(uncounted(None), &self.remote);
            return Ok(LedgerAnswer::fitting(self.clock.now()));
        }
        let nonce = self.remote.nonces.issue(customer);
        let report = if request.limits.warn() { UsageReport::UsedAndReserved } else { UsageReport::Nothing };
        let decision = self.remote.commit(request, nonce.number(), report).await;
        match (&decision, count_later, &self.fallback) {
            (Err(_), Some(backlog), _) => {
                backlog.count_later(uncounted(Some(nonce.stay_pending())), &self.remote);
            }
            (Err(_), None, Fallback::Defer(backlog)) => {
                backlog.release_later(self.remote.transaction(request.id), request.parties, &self.remote);
            }
            _ => {}
        }
        self.decision(decision, request.parties)
    }

    async fn commit_or_count_locally(
        &self,
        counts: &LocalCounts,
        request: CommitRequest<'_>,
    ) -> Result<LedgerAnswer, LedgerError> {
        let mut attempt = Attempt { transaction: self.remote.transaction(request.id), nonce: None };
        if self.decides_locally(&request.parties.customer).is_none() {
            let nonce = self.remote.nonces.issue(&request.parties.customer);
            let report = if request.limits.warn() { UsageReport::UsedAndReserved } else { UsageReport::Used };
            if let Ok(decision) = self.remote.commit(request, nonce.number(), report).await {
                counts.release(request.id, request.parties);
                return self.decision(Ok(decision), request.parties);
            }
            // Whether it was counted is unknown; under the same nonce it will be counted once.
            attempt.nonce = Some(nonce.stay_pending());
        }
        counts.commit(request, attempt).await
    }

    async fn usage_remotely(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        if let Some(counts) = self.decides_locally(&subject.customer) {
            return Ok(counts.usage(subject, limits));
        }
        match (self.remote.usage(subject, limits).await, self.local_counts()) {
            (Err(_), Some(counts)) => Ok(counts.usage(subject, limits)),
            (usage, _) => Ok(usage?),
        }
    }

    async fn reset_remotely(&self, subject: &Subject) -> Result<(), LedgerError> {
        let counts = self.local_counts();
        if counts.is_some_and(|counts| counts.decides(&subject.customer)) {
            let why = "messages that were counted locally during the outage are not merged yet; try again later";
            return Err(StoreError::transient(why).into());
        }
        self.remote.reset(subject).await?;
        if let Some(counts) = counts {
            counts.forget(subject);
        }
        Ok(())
    }
}

/// Every future is boxed: they are large, and would make those of the other stores large, too.
impl Store for SharedStore {
    async fn reserve(&self, request: ReserveRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        Box::pin(self.reserve_remotely(request)).await
    }

    async fn look(&self, request: LookRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        Box::pin(self.look_remotely(request)).await
    }

    async fn commit(&self, request: CommitRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        Box::pin(self.commit_remotely(request)).await
    }

    /// Written to the connection when this returns, before whatever is sent next. If it never arrives, the reservation expires.
    fn release(&self, id: ReservationId, parties: &Parties) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (remote, transaction, parties) = (self.remote.clone(), self.remote.transaction(id), parties.clone());
        let later = match &self.fallback {
            Fallback::Local(local) => {
                let counts = local.shared_counts();
                counts.release(id, &parties);
                ReleaseLater::Counts(counts)
            }
            Fallback::Defer(backlog) | Fallback::Accept(backlog) => ReleaseLater::Backlog(backlog.clone()),
        };
        let mut release = Box::pin(async move {
            if remote.release(transaction, &parties).await.is_err() {
                match later {
                    ReleaseLater::Counts(counts) => counts.release_later(transaction, &parties),
                    ReleaseLater::Backlog(backlog) => backlog.release_later(transaction, &parties, &remote),
                }
            }
        });
        // The first poll writes it to the connection's queue.
        if release.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            runtime.spawn(release);
        }
    }

    async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        Box::pin(self.usage_remotely(subject, limits)).await
    }

    async fn rank(&self, limit: LimitName, leaders: &mut Leaders<'_>) -> Result<Vec<MissingNode>, LedgerError> {
        Ok(Box::pin(top::rank(&self.remote, limit, leaders)).await?)
    }

    async fn reset(&self, subject: &Subject, _why: &str) -> Result<(), LedgerError> {
        Box::pin(self.reset_remotely(subject)).await
    }

    async fn ready(&self) -> Result<(), LedgerError> {
        // Starts merging what an earlier daemon counted locally.
        self.local_counts();
        Ok(Box::pin(self.remote.client.ready()).await?)
    }

    async fn close(&self) {
        self.fallback.close(CLOSE_TIMEOUT).await;
    }

    fn health(&self) -> Health {
        Health { readiness: self.readiness(), store: "redis" }
    }

    fn size(&self) -> Option<LedgerSize> {
        None
    }

    fn hash_key(&self) -> [u8; 16] {
        *self.remote.client.hash_key()
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Of a moment in a server's response, or of one in an answer that was decided locally: both are in the servers' time.
    fn wall(&self, moment: Moment) -> i64 {
        self.servers_clock.wall(moment)
    }

    fn wall_now(&self) -> i64 {
        self.servers_clock.time.wall()
    }
}

/// Who releases a reservation once the servers are reachable.
enum ReleaseLater {
    Counts(Arc<LocalCounts>),
    Backlog(Arc<Backlog>),
}

fn random() -> Result<[[u8; 16]; 2], OpenError> {
    let mut bytes = [[0; 16]; 2];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| bytes.iter_mut().try_for_each(|part| std::io::Read::read_exact(&mut file, part)));
    read.map(|()| bytes).map_err(|error| OpenError(format!("/dev/urandom: {error}")))
}
