//! Deciding here, by what was known last and what was counted here since.

use super::file::{Message, OutageFile};
use super::journal::{Counted, Job, Journal, Outcome, outcome};
use super::last_known::{Baseline, LastKnown};
use crate::clock::{Anchor, Clock, Moment};
use crate::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::local::book::{Book, Counting, Entry, Loaded, Ticket};
use crate::ledger::shared::protocol::nonces::Nonces;
use crate::ledger::{
    AcceptedRecipients, LedgerAnswer, LedgerError, LimitUsage, OpenError, RecipientKey, ReservationId,
};
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// So many transactions that ended meanwhile are given back at once when the store is back; others end by themselves.
const MOST_RELEASES: usize = 20_000;

/// What is counted and held on this machine.
#[derive(Debug)]
pub(in crate::ledger::shared) struct LocalCounts {
    book: Book,
    clock: Arc<dyn Clock>,
    known: Mutex<LastKnown>,
    /// Customers that are decided here, and how many messages of each are to be merged or on their way to the disk.
    customers: Mutex<HashMap<Arc<str>, u64>>,
    /// How many customers those are.
    number: AtomicUsize,
    /// How many messages those are.
    waiting: watch::Sender<u64>,
    merged: AtomicU64,
    releases: Mutex<Vec<([u8; 12], Parties)>>,
    pub(in crate::ledger::shared) work: Notify,
    pub(in crate::ledger::shared) journal: Journal,
    pub(in crate::ledger::shared) merges_as: [u8; 6],
    /// As it is in the file.
    hash_key: Mutex<[u8; 16]>,
    daemon: [u8; 6],
    nonces: Arc<Nonces>,
    unlimited: CustomerLimits,
}

/// What the file had.
pub(in crate::ledger::shared) struct OpenedCounts {
    pub local: Arc<LocalCounts>,
    pub clock: Arc<dyn Clock>,
    pub hash_key: [u8; 16],
}

/// What the store may know of a message.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::shared) struct Attempt {
    /// It may hold something for it.
    pub transaction: [u8; 12],
    /// It may have counted it under this, which has to be settled.
    pub nonce: Option<u64>,
}

impl LocalCounts {
    /// Opens the file in a folder, and reads what was counted here before.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, another daemon uses it, the file is damaged or of a newer version.
    pub fn open(
        folder: &Path,
        reservation_timeout: Duration,
        daemon: [u8; 6],
        nonces: Arc<Nonces>,
        clock: impl FnOnce(Option<&Anchor>) -> Arc<dyn Clock>,
    ) -> Result<OpenedCounts, OpenError> {
        let file = OutageFile::open(folder)?;
        let clock = clock(file.anchor.as_ref());
        let (book, mut known, mut customers) = (Book::new(reservation_timeout), LastKnown::default(), HashMap::new());
        let now = clock.now();
        let mut waiting = 0;
        file.each_known(now, |subject, counts| known.load(subject, counts))?;
        file.each_message(|message, merged| {
            load(&book, &message, now);
            let to_merge = u64::from(!merged);
            *customers.entry(message.parties.customer).or_default() += to_merge;
            waiting += to_merge;
        })?;
        let (merges_as, hash_key) = (file.merges_as, file.hash_key);
        let (journal, jobs) = Journal::new();
        let local = Arc::new(LocalCounts {
            book,
            clock: clock.clone(),
            known: Mutex::new(known),
            number: AtomicUsize::new(customers.len()),
            customers: Mutex::new(customers),
            waiting: watch::Sender::new(waiting),
            merged: AtomicU64::new(0),
            releases: Mutex::default(),
            work: Notify::new(),
            journal,
            merges_as,
            hash_key: Mutex::new(hash_key),
            daemon,
            nonces,
            unlimited: CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED),
        });
        let started = local.journal.start(file, clock.clone(), jobs, local.clone());
        started.map_err(|error| OpenError(format!("the store's thread cannot be started: {error}")))?;
        Ok(OpenedCounts { local, clock, hash_key })
    }

    /// Whether something of the customer's is counted here that the store does not know.
    pub fn decides(&self, customer: &str) -> bool {
        self.number.load(Ordering::Acquire) > 0 && self.customers.lock().contains_key(customer)
    }

    pub fn reserve(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipient: RecipientKey,
    ) -> LedgerAnswer {
        let (_customers, now, baseline) = self.open_accounts(parties);
        let answer = self.book.reserve(now, id, parties, &baseline.lower(limits), recipient);
        self.in_full(answer, &baseline, limits)
    }

    pub fn look(
        &self,
        except: Option<ReservationId>,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> LedgerAnswer {
        let (_customers, now, baseline) = self.open_accounts(parties);
        let answer = self.book.look(now, except, parties, &baseline.lower(limits), recipients);
        self.in_full(answer, &baseline, limits)
    }

    /// Counts a message that fits; it is on disk when this returns.
    ///
    /// # Errors
    /// The disk does not take it, and it is not counted.
    pub async fn commit(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: AcceptedRecipients<'_>,
        attempt: Attempt,
    ) -> Result<LedgerAnswer, LedgerError> {
        let (answer, written) = self.decide(id, parties, limits, kept, attempt);
        if let Some(written) = written {
            outcome(written).await.map_err(LedgerError::Unavailable)?;
        } else {
            self.release_later(attempt.transaction, parties);
        }
        Ok(answer)
    }

    fn decide(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: AcceptedRecipients<'_>,
        attempt: Attempt,
    ) -> (LedgerAnswer, Option<oneshot::Receiver<Outcome<()>>>) {
        let (mut customers, now, baseline) = self.open_accounts(parties);
        let (lowered, mut entry) = (baseline.lower(limits), None);
        let how = Counting::WhenSettled;
        let answer = self.book.commit(now, id, parties, &lowered, kept, how, |counted| entry = Some(counted));
        let answer = self.in_full(answer, &baseline, limits);
        let Some(entry) = entry else {
            attempt.nonce.into_iter().for_each(|nonce| self.nonces.settle(&parties.customer, nonce));
            return (answer, None);
        };
        *customers.entry(parties.customer.clone()).or_default() += 1;
        self.number.store(customers.len(), Ordering::Release);
        self.waiting.send_modify(|waiting| *waiting += 1);
        let (waiter, written) = oneshot::channel();
        let Entry { ticket, at, recipients, .. } = entry;
        let message = Message {
            id: 0,
            at,
            parties: parties.clone(),
            recipients,
            keys: kept.named.into(),
            transaction: attempt.transaction,
            nonce: attempt.nonce,
        };
        self.journal.push(Job::Message { message: Box::new(message), ticket, waiter });
        (answer, Some(written))
    }

    /// What is known of a transaction's accounts now. While the customers are locked nothing of it becomes the store's.
    fn open_accounts(&self, parties: &Parties) -> (MutexGuard<'_, HashMap<Arc<str>, u64>>, Moment, Baseline) {
        let (customers, now) = (self.customers.lock(), self.clock.now());
        let baseline = self.known.lock().baseline(parties, now);
        (customers, now, baseline)
    }

    /// The store holds a recipient: if it goes away, that is known here.
    pub fn is_held(&self, id: ReservationId, parties: &Parties, recipient: RecipientKey) {
        self.book.reserve(self.clock.now(), id, parties, &self.unlimited, recipient);
    }

    /// Nothing is held here for a transaction any more.
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        self.book.release(id, parties);
    }

    /// The store may hold something for a transaction that is over.
    pub fn release_later(&self, transaction: [u8; 12], parties: &Parties) {
        let mut releases = self.releases.lock();
        if releases.len() < MOST_RELEASES {
            releases.push((transaction, parties.clone()));
            drop(releases);
            self.work.notify_one();
        }
    }

    /// What the store told of some limits of a transaction.
    pub fn note(&self, parties: &Parties, answer: &LedgerAnswer, used: &[(LimitName, u64)]) {
        let now = self.clock.now();
        let refused = answer.over.iter().chain(&answer.shadow_over);
        // Of different recipients a refusal usage_report only those that the transaction does not name.
        let is_whole = |limit| !matches!(limit, LimitName::UserUniques | LimitName::LoginUniques);
        let of_refusal = refused.filter(|standing| is_whole(standing.limit));
        let all = used.iter().copied().chain(of_refusal.map(|standing| (standing.limit, standing.used)));
        let mut known = self.known.lock();
        for (limit, used) in all {
            let kind = SubjectKind::of(limit);
            let name = match kind {
                SubjectKind::Customer => Some(&parties.customer),
                SubjectKind::User => parties.user.as_ref(),
                SubjectKind::Login => parties.login.as_ref(),
            };
            if let Some(name) = name {
                let subject = Subject { kind, customer: parties.customer.clone(), name: name.clone() };
                known.note(&subject, limit, used, answer.at, now);
            }
        }
    }

    /// The store has forgotten what was counted for a subject.
    pub fn forget(&self, subject: &Subject) {
        self.known.lock().forget(subject);
    }

    /// As far as it is known here.
    pub fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Vec<LimitUsage> {
        let _customers = self.customers.lock();
        let now = self.clock.now();
        let baseline = self.known.lock().base_of(subject, now);
        let mut usage = self.book.usage(now, subject, limits);
        for usage in &mut usage {
            let known = baseline.used(usage.limit);
            usage.used += known;
            let is_full = usage.max.is_some_and(|max| max > 0 && usage.used >= max);
            let resets_at = usage.resets_at.unwrap_or_else(|| baseline.ends(usage.limit));
            usage.resets_at = is_full.then(|| self.on_the_wall(resets_at));
        }
        usage
    }

    /// How many messages are to be merged, and changes of that.
    pub fn waiting(&self) -> watch::Receiver<u64> {
        self.waiting.subscribe()
    }

    /// How many messages were merged since the start.
    pub fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Whether the store has to be told anything about the customers of whom it can be told.
    pub(in crate::ledger::shared) fn has_work(&self, can_be_told: impl Fn(&str) -> bool) -> bool {
        // Looked at without the locks: nobody waits for that.
        let customers: Vec<Arc<str>> = self.customers.lock().keys().cloned().collect();
        let is_to_be_merged = customers.iter().any(|customer| can_be_told(customer));
        let of_releases =
            || self.releases.lock().iter().map(|(_, parties)| parties.customer.clone()).collect::<Vec<_>>();
        is_to_be_merged || of_releases().iter().any(|customer| can_be_told(customer))
    }

    pub(in crate::ledger::shared) fn take_releases(&self) -> Vec<([u8; 12], Parties)> {
        std::mem::take(&mut self.releases.lock())
    }

    /// These are merged, and that is on disk.
    pub(in crate::ledger::shared) fn are_merged(&self, messages: &[Message]) {
        let mut customers = self.customers.lock();
        for message in messages {
            self.settle_nonce(message);
            self.count_down(&mut customers, &message.parties.customer);
        }
        self.merged.fetch_add(messages.len() as u64, Ordering::Relaxed);
    }

    /// Customers of which nothing is to be merged: their counts are the store's again.
    pub(in crate::ledger::shared) fn finish_idle(&self) {
        let mut customers = self.customers.lock();
        let idle: Vec<_> = customers.iter().filter(|(_, left)| **left == 0).map(|(name, _)| name.clone()).collect();
        idle.iter().for_each(|customer| self.finish(&mut customers, customer));
    }

    /// The key that recipients' addresses are hashed with, for the next start.
    pub(in crate::ledger::shared) fn keep_hash_key(&self, key: [u8; 16]) {
        if std::mem::replace(&mut *self.hash_key.lock(), key) != key {
            self.journal.push(Job::HashKey(key));
        }
    }

    /// Has it written what is known, and lets go what is as good as new.
    pub(in crate::ledger::shared) fn keep_known(&self) {
        let new = self.known.lock().take_new();
        if !new.is_empty() {
            self.journal.push(Job::LastKnown(new));
        }
        self.book.sweep(self.clock.now());
    }

    /// Waits until everything is on disk, and takes no more.
    pub fn close(&self) {
        self.keep_known();
        self.journal.close();
    }

    fn count_down(&self, customers: &mut HashMap<Arc<str>, u64>, customer: &Arc<str>) {
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
        let Some(left) = customers.get_mut(customer) else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.finish(customers, customer);
        }
    }

    /// What was counted here for a customer is merged: it is known now, and the store decides.
    fn finish(&self, customers: &mut HashMap<Arc<str>, u64>, customer: &Arc<str>) {
        let now = self.clock.now();
        let mut known = self.known.lock();
        let counted = self.book.take_counted(now, customer);
        let counted = counted.into_iter().map(|(subject, used)| {
            let counts = known.add(&subject, used, now);
            (subject, counts)
        });
        let counted: Vec<_> = counted.collect();
        if !counted.is_empty() {
            self.journal.push(Job::Settled { customer: customer.clone(), known: counted });
        }
        customers.remove(customer);
        self.number.store(customers.len(), Ordering::Release);
    }

    fn settle_nonce(&self, message: &Message) {
        if let Some(nonce) = message.nonce
            && message.transaction.starts_with(&self.daemon)
        {
            self.nonces.settle(&message.parties.customer, nonce);
        }
    }

    /// The answer to lowered limits, in terms of the limits themselves and of the store's time line.
    fn in_full(&self, mut answer: LedgerAnswer, baseline: &Baseline, limits: &CustomerLimits) -> LedgerAnswer {
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

impl Counted for LocalCounts {
    fn written(&self, message: &Message, ticket: Ticket) {
        self.book.settle(ticket, message.at);
        self.work.notify_one();
    }

    fn not_written(&self, message: &Message, ticket: Ticket) {
        self.book.give_up(ticket);
        self.settle_nonce(message);
        self.count_down(&mut self.customers.lock(), &message.parties.customer);
    }
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
