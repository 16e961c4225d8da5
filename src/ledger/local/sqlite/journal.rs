//! The store as the ledger sees it: loading, ready, or in trouble.

use super::file::StoreFile;
use super::job::{Job, Outcome, What};
use super::load;
use super::queue::Queue;
use super::writer::Writer;
use crate::clock::Clock;
use crate::config::Sync;
use crate::directory::Subject;
use crate::ledger::local::book::{Book, Counting, Entry};
use crate::ledger::{LedgerError, Readiness};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// More messages than so many waiting for the disk, and callers wait before they add to them.
const ROOM: usize = 65_536;

/// How long a request waits for the store to be loaded, or for room in the queue.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a commit waits for the disk. With twice [`PATIENCE`] before it that is less than the 100 s that Postfix waits for a
/// policy service (`smtpd_policy_service_timeout`), and than the 300 s for a milter at the end of a message.
const DISK_PATIENCE: Duration = Duration::from_secs(50);

/// The embedded store, with a thread of its own.
#[derive(Debug)]
pub(in crate::ledger) struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub queue: Queue<Job>,
    pub sync: Sync,
    /// Everything is in the books: the way is free.
    ready: AtomicBool,
    /// Changes of `ready` and `state`.
    changed: Notify,
    state: Mutex<State>,
    /// The store does not take counts now.
    degraded: AtomicBool,
    pub loaded: AtomicU64,
    pub to_load: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Loading,
    Ready,
    ReadOnly,
    Degraded(Arc<str>),
    Failed(Arc<str>),
    Closed,
}

impl Journal {
    /// Starts loading what the file holds into the books; then writes what is committed.
    pub fn start(file: StoreFile, sync: Sync, book: Arc<Book>, clock: Arc<dyn Clock>) -> std::io::Result<Journal> {
        Journal::spawn(sync, move |shared| {
            if let Err(error) = load::load(&file, &book, clock.now(), shared) {
                return shared.fail(super::file::in_words(&error).into());
            }
            match Writer::new(file, book, clock) {
                // Not all may have been loaded: nobody may decide by that.
                Ok(_) if shared.queue.is_closing() => {}
                Ok(writer) => {
                    shared.become_ready(State::Ready);
                    writer.run(shared);
                }
                Err(error) => shared.fail(super::file::in_words(&error).into()),
            }
        })
    }

    /// Loads only.
    pub fn start_read_only(file: StoreFile, book: Arc<Book>, clock: Arc<dyn Clock>) -> std::io::Result<Journal> {
        Journal::spawn(Sync::Full, move |shared| match load::load(&file, &book, clock.now(), shared) {
            Ok(()) => shared.become_ready(State::ReadOnly),
            Err(error) => shared.fail(super::file::in_words(&error).into()),
        })
    }

    fn spawn(sync: Sync, work: impl FnOnce(&Shared) + Send + 'static) -> std::io::Result<Journal> {
        let shared = Arc::new(Shared::new(sync));
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(move || {
            let shared = EndOfThread(of_thread);
            work(&shared.0);
        })?;
        Ok(Journal { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Waits until the books are loaded. Costs next to nothing when they are.
    pub async fn ready(&self) -> Result<(), LedgerError> {
        if self.shared.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        self.shared.ready_within(PATIENCE).await
    }

    /// How messages have to be counted that are handed to [`Journal::record`].
    pub fn counting(&self) -> Counting {
        match self.shared.sync {
            Sync::Full => Counting::WhenSettled,
            Sync::Normal => Counting::Now,
        }
    }

    /// Waits until there is room for a message. None is to be recorded before.
    pub async fn room(&self) -> Result<(), LedgerError> {
        match &*self.shared.state.lock() {
            State::Ready => {}
            // With `sync = "full"` the next commit finds out whether it works again. Without, it would be too late then.
            State::Degraded(_) if self.shared.sync == Sync::Full => {}
            State::Degraded(reason) | State::Failed(reason) => return Err(LedgerError::Unavailable(reason.clone())),
            State::ReadOnly => return Err(unavailable("it is open for reading only")),
            State::Closed => return Err(unavailable("it is closed")),
            State::Loading => return Err(LedgerError::Loading),
        }
        if self.shared.queue.has_room() {
            return Ok(());
        }
        let waited = timeout(PATIENCE, self.shared.queue.room()).await;
        waited.map_err(|_| unavailable("the disk does not keep up"))
    }

    /// Hands a message to the writer. Quick: the caller holds the customer's lock. `hurried`: a reply waits for it.
    pub fn record(&self, entry: Entry, hurried: bool) -> Recorded {
        let ticket = entry.ticket;
        let (waiter, outcome) = match self.shared.sync {
            Sync::Full if hurried => {
                let (waiter, outcome) = oneshot::channel();
                (Some(waiter), Some(outcome))
            }
            _ => (None, None),
        };
        if !self.shared.queue.push(Job { what: What::Message(entry), waiter }) {
            return Recorded::Closed(ticket);
        }
        outcome.map_or(Recorded::Done, Recorded::Waits)
    }

    /// Hands a reset to the writer.
    pub fn record_reset(&self, subject: Subject, why: String, done: Option<Option<u64>>) -> Recorded {
        let (waiter, outcome) = oneshot::channel();
        match self.shared.queue.push(Job { what: What::Reset { subject, why, done }, waiter: Some(waiter) }) {
            true => Recorded::Waits(outcome),
            false => Recorded::Done,
        }
    }

    pub fn readiness(&self) -> Readiness {
        match &*self.shared.state.lock() {
            State::Loading => Readiness::Loading {
                done: self.shared.loaded.load(Ordering::Relaxed),
                of: self.shared.to_load.load(Ordering::Relaxed),
            },
            State::Ready | State::ReadOnly => Readiness::Ready,
            State::Degraded(reason) => Readiness::Degraded(reason.clone()),
            State::Failed(reason) => Readiness::Failed(reason.clone()),
            State::Closed => Readiness::Failed("the store is closed".into()),
        }
    }

    /// Waits until everything is written, and the file is closed.
    pub async fn close(&self) {
        self.shared.queue.close();
        loop {
            let changed = self.shared.changed.notified();
            if matches!(*self.shared.state.lock(), State::Closed | State::ReadOnly | State::Failed(_)) {
                return;
            }
            changed.await;
        }
    }
}

/// The last clone of the ledger is gone: what is queued is written yet.
impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            // It has no panic to pass on that would help anybody now.
            let _ = thread.join();
        }
    }
}

/// What became of something that was handed to the writer.
#[derive(Debug)]
pub(in crate::ledger) enum Recorded {
    /// It will be written.
    Done,
    /// The outcome is still to come.
    Waits(oneshot::Receiver<Outcome>),
    /// The store is closed; the ticket has to be given up.
    Closed(crate::ledger::local::book::Ticket),
}

/// Waits for the disk.
pub(in crate::ledger) async fn outcome(receiver: oneshot::Receiver<Outcome>) -> Result<(), LedgerError> {
    match timeout(DISK_PATIENCE, receiver).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(reason))) => Err(LedgerError::Unavailable(reason)),
        Ok(Err(_)) => Err(unavailable("it is closed")),
        Err(_) => Err(unavailable("the disk does not answer")),
    }
}

pub(in crate::ledger) fn unavailable(reason: &str) -> LedgerError {
    LedgerError::Unavailable(reason.into())
}

impl Shared {
    fn new(sync: Sync) -> Shared {
        Shared {
            queue: Queue::new(ROOM),
            sync,
            ready: AtomicBool::new(false),
            changed: Notify::new(),
            state: Mutex::new(State::Loading),
            degraded: AtomicBool::new(false),
            loaded: AtomicU64::new(0),
            to_load: AtomicU64::new(0),
        }
    }

    async fn ready_within(&self, patience: Duration) -> Result<(), LedgerError> {
        timeout(patience, self.loaded()).await.unwrap_or(Err(LedgerError::Loading))
    }

    async fn loaded(&self) -> Result<(), LedgerError> {
        loop {
            let changed = self.changed.notified();
            match &*self.state.lock() {
                State::Loading => {}
                State::Ready | State::ReadOnly | State::Degraded(_) => return Ok(()),
                State::Failed(reason) => return Err(LedgerError::Unavailable(reason.clone())),
                State::Closed => return Err(unavailable("it is closed")),
            }
            changed.await;
        }
    }

    fn become_ready(&self, state: State) {
        *self.state.lock() = state;
        self.ready.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn fail(&self, reason: Arc<str>) {
        *self.state.lock() = State::Failed(reason);
        self.ready.store(false, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Writing failed, or works again.
    pub fn set_trouble(&self, trouble: Option<Arc<str>>) {
        if trouble.is_none() && !self.degraded.load(Ordering::Relaxed) {
            return;
        }
        self.degraded.store(trouble.is_some(), Ordering::Relaxed);
        *self.state.lock() = trouble.map_or(State::Ready, State::Degraded);
    }
}

/// However the thread ends, nobody waits for it in vain.
struct EndOfThread(Arc<Shared>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        match *state {
            State::Failed(_) | State::ReadOnly => {}
            _ if std::thread::panicking() => *state = State::Failed("its writer broke down".into()),
            _ => *state = State::Closed,
        }
        drop(state);
        self.0.queue.close();
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(shared: &Shared, patience: Duration) -> Result<(), LedgerError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(shared.ready_within(patience))
    }

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_asks_while_it_loads_waits_and_is_told_in_the_end() {
        let shared = Shared::new(Sync::Full);
        assert!(matches!(wait(&shared, SHORT), Err(LedgerError::Loading)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&shared, LONG));
            shared.become_ready(State::Ready);
            assert!(waiting.join().unwrap().is_ok());
        });
    }

    #[test]
    fn what_cannot_be_loaded_is_unavailable_at_once() {
        let shared = Shared::new(Sync::Full);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&shared, LONG));
            shared.fail("the file is damaged".into());
            assert!(matches!(waiting.join().unwrap(), Err(LedgerError::Unavailable(_))));
        });
    }

    #[test]
    fn nobody_waits_in_vain_for_a_thread_that_has_ended() {
        let shared = Arc::new(Shared::new(Sync::Full));
        let of_thread = shared.clone();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&shared, LONG));
            drop(EndOfThread(of_thread));
            assert!(matches!(waiting.join().unwrap(), Err(LedgerError::Unavailable(_))));
        });
        let of_thread = shared.clone();
        let _ = std::thread::spawn(move || {
            let _end = EndOfThread(of_thread);
            panic!("as a defect would");
        })
        .join();
        assert!(matches!(&*shared.state.lock(), State::Failed(_)));
    }
}
