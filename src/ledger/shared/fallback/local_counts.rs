//! Decides locally, by the last known usage and by what was counted locally since.

use super::last_known::{Baseline, LastKnown};
use super::outage_file::{Message, OutageFile};
use super::records::{Job, LocalRecords};
use crate::clock::{Anchor, Clock, Moment};
use crate::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::api::{CommitRequest, LookRequest, ReserveRequest};
use crate::ledger::local::book::{Book, Counting, Entry, Loaded, Ticket};
use crate::ledger::local::journal::{Journal, Options, Outcome, Start, await_outcome};
use crate::ledger::shared::protocol::nonces::Nonces;
use crate::ledger::shared::protocol::request::{DaemonId, TransactionId};
use crate::ledger::{LedgerAnswer, LedgerError, LimitUsage, OpenError, ReservationId, StoreError};
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// How many reservations that ended during an outage are released when it is over; others expire.
const MAX_RELEASES: usize = 20_000;

/// A message is written at once.
const JOURNAL: Options = Options { name: "outage", linger: Duration::ZERO, accepts_when_degraded: true };

/// How many messages of each customer are not merged yet, or still being written. Only customers that are decided locally.
type Unmerged = HashMap<Arc<str>, u64>;

#[derive(Debug)]
pub(in crate::ledger::shared) struct LocalCounts {
    /// What was reserved, and what was counted locally.
    book: Book,
    clock: Arc<dyn Clock>,
    last_known: Mutex<LastKnown>,
    customers: Mutex<Unmerged>,
    /// How many customers those are.
    customer_count: AtomicUsize,
    /// How many messages those are.
    unmerged: watch::Sender<u64>,
    /// Since the start.
    merged: AtomicU64,
    releases: Mutex<Vec<(TransactionId, Parties)>>,
    /// There may be something to merge or to release.
    pub(super) work: Notify,
    /// Set right after the rest: its thread needs that.
    journal: OnceLock<Journal<Job>>,
    is_saving_last_known: AtomicBool,
    pub(super) merges_as: DaemonId,
    /// As it is in the file.
    hash_key: Mutex<[u8; 16]>,
    daemon: DaemonId,
    nonces: Arc<Nonces>,
    unlimited: CustomerLimits,
}

/// Local counts, with what else the file holds.
pub(in crate::ledger::shared) struct OpenedCounts {
    pub counts: Arc<LocalCounts>,
    pub clock: Arc<dyn Clock>,
    pub hash_key: [u8; 16],
}

/// What the servers may know of a message already.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::shared) struct Attempt {
    /// They may have reserved something for it.
    pub transaction: TransactionId,
    /// They may have counted it under this nonce, which must be retired.
    pub nonce: Option<u64>,
}

impl LocalCounts {
    /// Opens the file in a folder, and loads what was counted locally before.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, another daemon uses it, the file is damaged or of a newer version.
    pub fn open(
        folder: &Path,
        reservation_timeout: Duration,
        daemon: DaemonId,
        nonces: Arc<Nonces>,
        clock: impl FnOnce(Option<&Anchor>) -> Arc<dyn Clock>,
    ) -> Result<OpenedCounts, OpenError> {
        let file = OutageFile::open(folder)?;
        let clock = clock(file.anchor.as_ref());
        let (book, mut last_known, mut customers) =
            (Book::new(reservation_timeout), LastKnown::default(), Unmerged::new());
        let now = clock.now();
        let mut unmerged = 0;
        file.each_known(now, |subject, counts| last_known.load(subject, counts))?;
        file.each_message(|message, is_merged| {
            load(&book, &message, now);
            *customers.entry(message.parties.customer).or_default() += u64::from(!is_merged);
            unmerged += u64::from(!is_merged);
        })?;
        let (merges_as, hash_key) = (file.merges_as, file.hash_key);
        let counts = Arc::new(LocalCounts {
            book,
            clock: clock.clone(),
            last_known: Mutex::new(last_known),
            customer_count: AtomicUsize::new(customers.len()),
            customers: Mutex::new(customers),
            unmerged: watch::Sender::new(unmerged),
            merged: AtomicU64::new(0),
            releases: Mutex::default(),
            work: Notify::new(),
            journal: OnceLock::new(),
            is_saving_last_known: AtomicBool::new(false),
            merges_as,
            hash_key: Mutex::new(hash_key),
            daemon,
            nonces,
            unlimited: CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED),
        });
        let (records, clock_of_thread) = (LocalRecords(counts.clone()), clock.clone());
        let journal = Journal::start(JOURNAL, move |_| {
            let (database, next_id) = file.into_database();
            Ok(Start::Write { database, records, clock: clock_of_thread, next_id })
        });
        let no_thread = |error| OpenError(format!("the store's thread cannot be started: {error}"));
        let _ = counts.journal.set(journal.map_err(no_thread)?);
        Ok(OpenedCounts { counts, clock, hash_key })
    }

    /// Whether something was counted locally for a customer that the servers do not have.
    pub fn decides(&self, customer: &str) -> bool {
        self.customer_count.load(Ordering::Acquire) > 0 && self.customers.lock().contains_key(customer)
    }

    pub fn reserve(&self, request: ReserveRequest<'_>) -> LedgerAnswer {
        let (_customers, now, baseline) = self.open_accounts(request.parties);
        let lowered = baseline.lower(request.limits);
        let answer = self.book.reserve(now, ReserveRequest { limits: &lowered, ..request });
        self.raise(answer, &baseline, request.limits)
    }

    pub fn look(&self, request: LookRequest<'_>) -> LedgerAnswer {
        let (_customers, now, baseline) = self.open_accounts(request.parties);
        let lowered = baseline.lower(request.limits);
        let answer = self.book.look(now, LookRequest { limits: &lowered, ..request });
        self.raise(answer, &baseline, request.limits)
    }

    /// Counts a message that fits; it is on disk when this returns.
    ///
    /// # Errors
    /// It could not be written, and it is not counted.
    pub async fn commit(&self, request: CommitRequest<'_>, attempt: Attempt) -> Result<LedgerAnswer, LedgerError> {
        let room = match self.journal.get() {
            Some(journal) => ready_for_more(journal).await,
            None => Err(closed().into()),
        };
        if let Err(error) = room {
            self.book.release(request.id, request.parties);
            self.release_later(attempt.transaction, request.parties);
            self.retire(attempt.nonce, &request.parties.customer);
            return Err(error);
        }
        let (answer, written) = self.decide(request, attempt);
        match written {
            Some(written) => await_outcome(written).await?,
            None => self.release_later(attempt.transaction, request.parties),
        }
        Ok(answer)
    }

    fn decide(
        &self,
        request: CommitRequest<'_>,
        attempt: Attempt,
    ) -> (LedgerAnswer, Option<oneshot::Receiver<Outcome<()>>>) {
        let CommitRequest { parties, limits, .. } = request;
        let (mut customers, now, baseline) = self.open_accounts(parties);
        let (lowered, mut entry) = (baseline.lower(limits), None);
        let answer =
            self.book.commit(now, CommitRequest { limits: &lowered, ..request }, Counting::WhenSettled, |counted| {
                entry = Some(counted);
            });
        let answer = self.raise(answer, &baseline, limits);
        let Some(Entry { ticket, at, recipients, .. }) = entry else {
            self.retire(attempt.nonce, &parties.customer);
            return (answer, None);
        };
        *customers.entry(parties.customer.clone()).or_default() += 1;
        self.customer_count.store(customers.len(), Ordering::Release);
        self.unmerged.send_modify(|unmerged| *unmerged += 1);
        let (waiter, written) = oneshot::channel();
        let message = Box::new(Message {
            id: 0,
            at,
            parties: parties.clone(),
            recipients,
            keys: request.recipients.named.into(),
            transaction: attempt.transaction,
            nonce: attempt.nonce,
        });
        let rejected = self.push(Job::Message { message, ticket, waiter });
        drop(customers);
        // The waiter is dropped, too, which says that the journal is closed.
        if let Err(Job::Message { message, ticket, .. }) = rejected {
            self.message_not_written(&message, ticket);
        }
        (answer, Some(written))
    }

    /// The last known usage of a transaction's accounts. While the customers are locked, none of them is finished.
    fn open_accounts(&self, parties: &Parties) -> (MutexGuard<'_, Unmerged>, Moment, Baseline) {
        let (customers, now) = (self.customers.lock(), self.clock.now());
        let baseline = self.last_known.lock().baseline(parties, now);
        (customers, now, baseline)
    }

    /// The servers reserved a recipient: remembered in case they become unreachable.
    pub fn note_reserved(&self, request: ReserveRequest<'_>) {
        self.book.reserve(self.clock.now(), ReserveRequest { limits: &self.unlimited, ..request });
    }

    /// Releases what is remembered of a transaction's reservation.
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        self.book.release(id, parties);
    }

    /// The servers may still have a reservation of a transaction that has ended.
    pub fn release_later(&self, transaction: TransactionId, parties: &Parties) {
        let mut releases = self.releases.lock();
        if releases.len() < MAX_RELEASES {
            releases.push((transaction, parties.clone()));
            drop(releases);
            self.work.notify_one();
        }
    }

    /// Notes the usage of some limits that the servers reported with a decision.
    pub fn note(&self, parties: &Parties, answer: &LedgerAnswer, used: &[(LimitName, u64)]) {
        let now = self.clock.now();
        // Of unique recipients, a refusal reports only those that the transaction does not name.
        let is_complete = |limit| !matches!(limit, LimitName::UserUniques | LimitName::LoginUniques);
        let refused = answer.over.iter().chain(&answer.shadow_over).filter(|standing| is_complete(standing.limit));
        let reported = used.iter().copied().chain(refused.map(|standing| (standing.limit, standing.used)));
        let mut last_known = self.last_known.lock();
        for (limit, used) in reported {
            let kind = SubjectKind::of(limit);
            let name = match kind {
                SubjectKind::Customer => Some(&parties.customer),
                SubjectKind::User => parties.user.as_ref(),
                SubjectKind::Login => parties.login.as_ref(),
            };
            if let Some(name) = name {
                let subject = Subject { kind, customer: parties.customer.clone(), name: name.clone() };
                last_known.note(&subject, limit, used, answer.at, now);
            }
        }
    }

    /// The servers have reset a subject.
    pub fn forget(&self, subject: &Subject) {
        self.last_known.lock().forget(subject);
    }

    /// As far as it is known locally.
    pub fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Vec<LimitUsage> {
        let _customers = self.customers.lock();
        let now = self.clock.now();
        let baseline = self.last_known.lock().baseline_of(subject, now);
        let mut usage = self.book.usage(now, subject, limits);
        for usage in &mut usage {
            usage.used += baseline.used(usage.limit);
            let is_full = usage.max.is_some_and(|max| max > 0 && usage.used >= max);
            let resets_at = usage.resets_at.unwrap_or_else(|| baseline.ends(usage.limit));
            usage.resets_at = is_full.then(|| self.on_the_wall(resets_at));
        }
        usage
    }

    /// How many messages are not merged yet, and changes of that.
    pub fn unmerged(&self) -> watch::Receiver<u64> {
        self.unmerged.subscribe()
    }

    /// How many messages were merged since the start.
    pub fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    /// Why the file cannot be written now.
    pub fn degraded(&self) -> Option<StoreError> {
        self.journal.get().and_then(Journal::degraded)
    }

    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Whether there is something to merge or to release for a customer that can be reached.
    pub(super) fn has_work(&self, is_reachable: impl Fn(&str) -> bool) -> bool {
        // Checked without the locks: nobody waits for that.
        let unmerged: Vec<Arc<str>> = self.customers.lock().keys().cloned().collect();
        if unmerged.iter().any(|customer| is_reachable(customer)) {
            return true;
        }
        let releases: Vec<_> = self.releases.lock().iter().map(|(_, parties)| parties.customer.clone()).collect();
        releases.iter().any(|customer| is_reachable(customer))
    }

    pub(super) fn take_releases(&self) -> Vec<(TransactionId, Parties)> {
        std::mem::take(&mut self.releases.lock())
    }

    /// Messages that are not merged, from the one after `after` on.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) async fn read_unmerged(&self, after: u64, most: usize) -> Outcome<Vec<Message>> {
        let (waiter, read) = oneshot::channel();
        // If the journal is closed the waiter is dropped, which is an outcome, too.
        let _ = self.push(Job::Read { after, most, messages: Vec::new(), waiter });
        await_outcome(read).await
    }

    /// Writes down that the servers have counted these messages.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) async fn set_merged(&self, messages: Vec<Message>) -> Outcome<()> {
        let (waiter, written) = oneshot::channel();
        let _ = self.push(Job::Merged { messages, waiter });
        await_outcome(written).await
    }

    /// Finishes customers of which nothing is left to merge.
    pub(super) fn finish_idle(&self) {
        let mut customers = self.customers.lock();
        let idle: Vec<_> = customers.iter().filter(|(_, left)| **left == 0).map(|(name, _)| name.clone()).collect();
        idle.iter().for_each(|customer| self.finish(&mut customers, customer));
    }

    /// Saves the servers' hash key, for the next start.
    pub(super) fn save_hash_key(&self, key: [u8; 16]) {
        if std::mem::replace(&mut *self.hash_key.lock(), key) != key {
            let _ = self.push(Job::HashKey(key));
        }
    }

    /// Saves the last known usage that has changed. Also sweeps the book.
    pub(super) fn save_last_known(&self) {
        // While that is being written, or retried, further changes gather.
        if !self.is_saving_last_known.load(Ordering::Acquire) {
            let changed = self.last_known.lock().take_new();
            if !changed.is_empty() {
                self.is_saving_last_known.store(true, Ordering::Release);
                let _ = self.push(Job::LastKnown(changed));
            }
        }
        self.book.sweep(self.clock.now());
    }

    /// Waits until everything is on disk, and accepts no more.
    pub async fn close(&self) {
        self.save_last_known();
        if let Some(journal) = self.journal.get() {
            journal.close().await;
        }
    }

    /// As [`LocalCounts::close`], for whoever cannot await it.
    pub fn close_blocking(&self) {
        self.save_last_known();
        if let Some(journal) = self.journal.get() {
            journal.close_blocking();
        }
    }

    fn push(&self, job: Job) -> Result<(), Job> {
        match self.journal.get() {
            Some(journal) => journal.push(job),
            None => Err(job),
        }
    }

    fn count_down(&self, customers: &mut Unmerged, customer: &Arc<str>) {
        self.unmerged.send_modify(|unmerged| *unmerged = unmerged.saturating_sub(1));
        let Some(left) = customers.get_mut(customer) else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.finish(customers, customer);
        }
    }

    /// All that was counted locally for a customer is merged: it becomes last known usage, and the servers decide again.
    fn finish(&self, customers: &mut Unmerged, customer: &Arc<str>) {
        let now = self.clock.now();
        let mut last_known = self.last_known.lock();
        let counted = self.book.take_counted(now, customer);
        let counted = counted.into_iter().map(|(subject, used)| {
            let counts = last_known.add(&subject, used, now);
            (subject, counts)
        });
        let known: Vec<_> = counted.collect();
        if !known.is_empty() {
            let _ = self.push(Job::Settled { customer: customer.clone(), known });
        }
        customers.remove(customer);
        self.customer_count.store(customers.len(), Ordering::Release);
    }

    fn retire(&self, nonce: Option<u64>, customer: &str) {
        nonce.into_iter().for_each(|nonce| self.nonces.retire(customer, nonce));
    }

    /// Only nonces of this daemon are pending here.
    fn retire_nonce_of(&self, message: &Message) {
        if message.transaction.starts_with(&self.daemon) {
            self.retire(message.nonce, &message.parties.customer);
        }
    }

    /// An answer to lowered limits, in terms of the limits themselves and of the servers' time line.
    fn raise(&self, mut answer: LedgerAnswer, baseline: &Baseline, limits: &CustomerLimits) -> LedgerAnswer {
        baseline.raise(&mut answer, limits);
        answer.at = self.on_the_wall(answer.at);
        for standing in answer.over.iter_mut().chain(&mut answer.shadow_over) {
            standing.fits_at = standing.fits_at.map(|moment| self.on_the_wall(moment));
        }
        answer
    }

    fn on_the_wall(&self, moment: Moment) -> Moment {
        Moment(self.clock.wall(moment).max(0) as u64)
    }
}

/// For the journal's thread.
impl LocalCounts {
    pub(super) fn message_written(&self, message: &Message, ticket: Ticket) {
        self.book.settle(ticket, message.at);
        self.work.notify_one();
    }

    pub(super) fn message_not_written(&self, message: &Message, ticket: Ticket) {
        self.book.give_up(ticket);
        self.retire_nonce_of(message);
        self.count_down(&mut self.customers.lock(), &message.parties.customer);
    }

    pub(super) fn messages_merged(&self, messages: &[Message]) {
        let mut customers = self.customers.lock();
        for message in messages {
            self.retire_nonce_of(message);
            self.count_down(&mut customers, &message.parties.customer);
        }
        self.merged.fetch_add(messages.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn last_known_saved(&self) {
        self.is_saving_last_known.store(false, Ordering::Release);
    }
}

async fn ready_for_more(journal: &Journal<Job>) -> Result<(), LedgerError> {
    journal.ready().await?;
    journal.room().await
}

fn closed() -> StoreError {
    StoreError::permanent("the store is closed")
}

fn load(book: &Book, message: &Message, now: Moment) {
    let Parties { customer, user, login } = &message.parties;
    let of_customer = book.open_stored(SubjectKind::Customer, customer, customer, 0);
    let of_sender = |kind, name: &Option<Arc<str>>| name.as_ref().map(|name| book.open_stored(kind, customer, name, 0));
    let loaded = Loaded {
        at: message.at,
        customer: of_customer,
        customer_counts: true,
        user: of_sender(SubjectKind::User, user),
        login: of_sender(SubjectKind::Login, login),
        recipients: message.recipients.min(u32::MAX.into()) as u32,
    };
    book.load_shards(|shard| shard == usize::from(of_customer.shard)).count(&loaded, &message.keys, now);
}
