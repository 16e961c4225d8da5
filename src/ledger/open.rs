//! How a ledger is opened: in memory, in a folder, or with a store that several daemons share.

use super::ledger::{Ledger, Store};
use super::local::book::Book;
use super::local::sqlite::{Journal, StoreFile};
use super::shared::{ServerTime, SharedStore};
use crate::clock::{Anchor, Clock, SystemClock};
use crate::config;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Why a store cannot be opened: one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub(super) String);

impl Ledger {
    /// A ledger that forgets everything when it ends: for tests, and for `explain` without a store.
    pub fn in_memory(clock: Arc<dyn Clock>, reservation_timeout: Duration) -> Ledger {
        let book = Arc::new(Book::new(reservation_timeout));
        Ledger::with(book, clock, std::array::from_fn(|n| n as u8), Store::Memory)
    }

    /// Opens the embedded store in a folder. Returns soon; what was counted is loaded in the background, and who asks
    /// meanwhile waits.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, another daemon uses it, the store is damaged or of a newer version.
    pub fn open(folder: &Path, sync: config::Sync, reservation_timeout: Duration) -> Result<Ledger, OpenError> {
        Ledger::open_with_clock(folder, sync, reservation_timeout, |anchor| Arc::new(SystemClock::start(anchor)))
    }

    /// As [`Ledger::open`], with a clock made from where the store's time line stood.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_with_clock(
        folder: &Path,
        sync: config::Sync,
        reservation_timeout: Duration,
        clock: impl FnOnce(Option<&Anchor>) -> Arc<dyn Clock>,
    ) -> Result<Ledger, OpenError> {
        let file = StoreFile::open(folder)?;
        let book = Arc::new(Book::new(reservation_timeout));
        let clock = clock(file.anchor.as_ref());
        let hash_key = file.hash_key;
        let journal = Journal::start(file, sync, book.clone(), clock.clone()).map_err(no_thread)?;
        Ok(Ledger::with(book, clock, hash_key, Store::Embedded(journal)))
    }

    /// The counts as they are on disk, for `explain` with no daemon. Writes nothing, and commits nothing.
    ///
    /// # Errors
    /// There is no store, it cannot be read, or it is of another version.
    pub fn open_read_only(folder: &Path) -> Result<Ledger, OpenError> {
        let file = StoreFile::open_read_only(folder)?;
        let book = Arc::new(Book::new(Duration::from_secs(600)));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start(file.anchor.as_ref()));
        let hash_key = file.hash_key;
        let journal = Journal::start_read_only(file, book.clone(), clock.clone()).map_err(no_thread)?;
        Ok(Ledger::with(book, clock, hash_key, Store::Embedded(journal)))
    }

    /// Uses a store that several daemons share: Redis or Valkey, one server, with Sentinel, or a Cluster. It is connected to
    /// when it is asked for the first time, or at [`Ledger::ready`].
    ///
    /// # Errors
    /// A URL that cannot be read; [`config::OnOutage::Local`] needs a folder.
    pub fn open_shared(
        urls: &[String],
        on_outage: config::OnOutage,
        reservation_timeout: Duration,
    ) -> Result<Ledger, OpenError> {
        let store = SharedStore::open(urls, None, on_outage, None, reservation_timeout, ServerTime::Server)?;
        Ok(Ledger::sharing(store, reservation_timeout))
    }

    /// As [`Ledger::open_shared`]; with [`config::OnOutage::Local`] what is counted while the store is away is kept in a
    /// folder.
    ///
    /// # Errors
    /// A URL that cannot be read; of the folder, if it is needed, as [`Ledger::open`].
    pub fn open_shared_with_folder(
        urls: &[String],
        on_outage: config::OnOutage,
        folder: &Path,
        reservation_timeout: Duration,
    ) -> Result<Ledger, OpenError> {
        let folder = Some(folder);
        let store = SharedStore::open(urls, None, on_outage, folder, reservation_timeout, ServerTime::Server)?;
        Ok(Ledger::sharing(store, reservation_timeout))
    }

    /// As [`Ledger::open_shared`], on a clock that a test moves, and with keys that begin with `prefix`.
    ///
    /// # Errors
    /// As [`Ledger::open_shared`].
    #[cfg(feature = "test-clock")]
    pub fn open_shared_with_clock(
        urls: &[String],
        prefix: &str,
        on_outage: config::OnOutage,
        reservation_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Ledger, OpenError> {
        let time = ServerTime::Told(clock);
        let store = SharedStore::open(urls, Some(prefix), on_outage, None, reservation_timeout, time)?;
        Ok(Ledger::sharing(store, reservation_timeout))
    }

    /// As [`Ledger::open_shared_with_folder`] and [`config::OnOutage::Local`], on a clock that a test moves.
    ///
    /// # Errors
    /// As [`Ledger::open_shared_with_folder`].
    #[cfg(feature = "test-clock")]
    pub fn open_shared_or_local_with_clock(
        urls: &[String],
        folder: &Path,
        reservation_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Ledger, OpenError> {
        let (folder, time) = (Some(folder), ServerTime::Told(clock));
        let store = SharedStore::open(urls, None, config::OnOutage::Local, folder, reservation_timeout, time)?;
        Ok(Ledger::sharing(store, reservation_timeout))
    }

    fn sharing(store: SharedStore, reservation_timeout: Duration) -> Ledger {
        let (book, clock) = (Arc::new(Book::new(reservation_timeout)), store.clock());
        Ledger::with(book, clock, [0; 16], Store::Shared(store))
    }
}

fn no_thread(error: std::io::Error) -> OpenError {
    OpenError(format!("the store's thread cannot be started: {error}"))
}
