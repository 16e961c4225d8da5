//! The journal as its users see it: loading, ready, degraded, failed or closed.

use super::database::Database;
use super::queue::Queue;
use super::writer::{Job, Records, Writer};
use crate::clock::Clock;
use crate::ledger::{LedgerError, Readiness, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// How many jobs may be queued; callers wait before they add to more.
const MAX_QUEUED: usize = 65_536;

/// How long a request waits for the store to be loaded, or for room in the queue.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a caller waits for the disk. With twice [`PATIENCE`] before it that is less than the 100 s that Postfix waits for a
/// policy service (`smtpd_policy_service_timeout`), and than the 300 s for a milter at the end of a message.
const DISK_PATIENCE: Duration = Duration::from_secs(50);

/// Written, or why not.
pub(in crate::ledger) type Outcome<T> = Result<T, StoreError>;

/// A queue of jobs, and the thread that writes them.
#[derive(Debug)]
pub(in crate::ledger) struct Journal<J> {
    shared: Arc<Shared<J>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Options {
    /// The thread's name.
    pub name: &'static str,
    /// How long a job that nobody waits for may be delayed, to be written together with others.
    pub linger: Duration,
    /// Whether jobs are accepted while writing fails. The next one then finds out whether it works again.
    pub accepts_when_degraded: bool,
}

/// How far loading has got.
#[derive(Debug, Default)]
pub(in crate::ledger) struct LoadProgress {
    pub done: AtomicU64,
    pub of: AtomicU64,
    is_closing: AtomicBool,
}

impl LoadProgress {
    /// The journal is being closed: loading may stop anywhere.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }
}

/// What the thread does once everything is loaded.
pub(in crate::ledger) enum Start<R> {
    Write {
        database: Database,
        records: R,
        clock: Arc<dyn Clock>,
        /// An id that no row ever had, nor any after it.
        next_id: i64,
    },
    /// Nothing is ever written.
    ReadOnly,
}

/// What callers and the thread share.
#[derive(Debug)]
pub(super) struct Shared<J> {
    pub queue: Queue<J>,
    pub options: Options,
    progress: LoadProgress,
    /// Everything is loaded.
    ready: AtomicBool,
    /// Changes of `ready` and `state`.
    changed: Notify,
    state: Mutex<State>,
    is_degraded: AtomicBool,
}

#[derive(Clone, Debug)]
enum State {
    Loading,
    Ready,
    ReadOnly,
    /// Writing fails.
    Degraded(StoreError),
    /// Loading failed, or the thread crashed.
    Failed(StoreError),
    Closed,
}

impl<J: Job> Journal<J> {
    /// Starts the thread: `load` reads what is on disk, then the thread writes what is queued.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<R: Records<Job = J>>(
        options: Options,
        load: impl FnOnce(&LoadProgress) -> Result<Start<R>, StoreError> + Send + 'static,
    ) -> std::io::Result<Journal<J>> {
        let shared = Arc::new(Shared::new(options));
        let of_thread = EndOfThread(shared.clone());
        let thread = std::thread::Builder::new().name(options.name.into()).spawn(move || {
            let shared = &of_thread.0;
            match load(&shared.progress) {
                // Not everything may have been loaded: nobody may decide by that.
                Ok(Start::Write { .. }) if shared.progress.is_closing() => {}
                Ok(Start::Write { database, records, clock, next_id }) => {
                    shared.become_ready(State::Ready);
                    Writer::new(database, records, clock, next_id).run(shared);
                }
                Ok(Start::ReadOnly) => shared.become_ready(State::ReadOnly),
                Err(error) => shared.fail(error),
            }
        })?;
        Ok(Journal { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Waits until everything is loaded. Costs next to nothing from then on.
    pub async fn ready(&self) -> Result<(), LedgerError> {
        if self.shared.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        self.shared.ready_within(PATIENCE).await
    }

    /// Waits until there is room for a job. To be called before [`Journal::push`].
    pub async fn room(&self) -> Result<(), LedgerError> {
        match &*self.shared.state.lock() {
            State::Ready => {}
            State::Degraded(_) if self.shared.options.accepts_when_degraded => {}
            State::Degraded(error) | State::Failed(error) => return Err(error.clone().into()),
            State::ReadOnly => return Err(StoreError::permanent("the store is open for reading only").into()),
            State::Closed => return Err(closed().into()),
            State::Loading => return Err(LedgerError::Loading),
        }
        if self.shared.queue.has_room() {
            return Ok(());
        }
        let waited = timeout(PATIENCE, self.shared.queue.room()).await;
        let too_slow = || StoreError::transient("the disk does not keep up: too many messages wait for it");
        waited.map_err(|_| too_slow().into())
    }

    /// Queues a job. Quick: the caller may hold locks.
    ///
    /// # Errors
    /// The journal is closed: the job comes back.
    pub fn push(&self, job: J) -> Result<(), J> {
        self.shared.queue.push(job)
    }

    /// Why writing fails now.
    pub fn degraded(&self) -> Option<StoreError> {
        match &*self.shared.state.lock() {
            State::Degraded(error) | State::Failed(error) => Some(error.clone()),
            State::Loading | State::Ready | State::ReadOnly | State::Closed => None,
        }
    }

    pub fn readiness(&self) -> Readiness {
        match &*self.shared.state.lock() {
            State::Loading => Readiness::Loading {
                done: self.shared.progress.done.load(Ordering::Relaxed),
                of: self.shared.progress.of.load(Ordering::Relaxed),
            },
            State::Ready | State::ReadOnly => Readiness::Ready,
            State::Degraded(error) => Readiness::Degraded(error.message()),
            State::Failed(error) => Readiness::Failed(error.message()),
            State::Closed => Readiness::Failed(closed().message()),
        }
    }

    /// Waits until everything is written, and the file is closed.
    pub async fn close(&self) {
        self.shared.close();
        loop {
            let changed = self.shared.changed.notified();
            if matches!(*self.shared.state.lock(), State::Closed | State::ReadOnly | State::Failed(_)) {
                return;
            }
            changed.await;
        }
    }
}

impl<J> Journal<J> {
    /// As [`Journal::close`], for whoever cannot await it.
    pub fn close_blocking(&self) {
        self.shared.close();
        if let Some(thread) = self.thread.lock().take() {
            // Its panic, if any, would help nobody now.
            let _ = thread.join();
        }
    }
}

/// What is queued is still written.
impl<J> Drop for Journal<J> {
    fn drop(&mut self) {
        self.close_blocking();
    }
}

/// Waits for the disk.
///
/// # Errors
/// It was not written, or not within 50 s.
pub(in crate::ledger) async fn await_outcome<T>(receiver: oneshot::Receiver<Outcome<T>>) -> Outcome<T> {
    match timeout(DISK_PATIENCE, receiver).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(closed()),
        Err(_) => Err(StoreError::transient(format!("the disk did not respond within {} s", DISK_PATIENCE.as_secs()))),
    }
}

fn closed() -> StoreError {
    StoreError::permanent("the store is closed")
}

impl<J> Shared<J> {
    fn new(options: Options) -> Shared<J> {
        Shared {
            queue: Queue::new(MAX_QUEUED),
            options,
            progress: LoadProgress::default(),
            ready: AtomicBool::new(false),
            changed: Notify::new(),
            state: Mutex::new(State::Loading),
            is_degraded: AtomicBool::new(false),
        }
    }

    fn close(&self) {
        self.progress.is_closing.store(true, Ordering::Relaxed);
        self.queue.close();
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
                State::Failed(error) => return Err(error.clone().into()),
                State::Closed => return Err(closed().into()),
            }
            changed.await;
        }
    }

    fn become_ready(&self, state: State) {
        *self.state.lock() = state;
        self.ready.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn fail(&self, error: StoreError) {
        *self.state.lock() = State::Failed(error);
        self.ready.store(false, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Writing fails, or works again.
    pub fn set_degraded(&self, error: Option<StoreError>) {
        if error.is_none() && !self.is_degraded.load(Ordering::Relaxed) {
            return;
        }
        self.is_degraded.store(error.is_some(), Ordering::Relaxed);
        *self.state.lock() = error.map_or(State::Ready, State::Degraded);
    }
}

/// However the thread ends, nobody waits for it in vain.
struct EndOfThread<J>(Arc<Shared<J>>);

impl<J> Drop for EndOfThread<J> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        match *state {
            State::Failed(_) | State::ReadOnly => {}
            _ if std::thread::panicking() => {
                *state = State::Failed(StoreError::permanent("the store's writer crashed; restart relaykeeper"));
            }
            _ => *state = State::Closed,
        }
        drop(state);
        self.0.close();
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(shared: &Shared<()>, patience: Duration) -> Result<(), LedgerError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(shared.ready_within(patience))
    }

    const OPTIONS: Options = Options { name: "test", linger: Duration::ZERO, accepts_when_degraded: true };
    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_asks_while_it_loads_waits_and_is_told_in_the_end() {
        let shared = Shared::<()>::new(OPTIONS);
        assert!(matches!(wait(&shared, SHORT), Err(LedgerError::Loading)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&shared, LONG));
            shared.become_ready(State::Ready);
            assert!(waiting.join().unwrap().is_ok());
        });
    }

    #[test]
    fn what_cannot_be_loaded_is_unavailable_at_once() {
        let shared = Shared::<()>::new(OPTIONS);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&shared, LONG));
            shared.fail(StoreError::permanent("the file is damaged"));
            assert!(matches!(waiting.join().unwrap(), Err(LedgerError::Unavailable(_))));
        });
    }

    #[test]
    fn nobody_waits_in_vain_for_a_thread_that_has_ended() {
        let shared = Arc::new(Shared::<()>::new(OPTIONS));
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
