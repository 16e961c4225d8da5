//! Opening a ledger: in memory, in a folder, or with a store that several daemons share.

use super::local::book::Book;
use super::local::sqlite::StoreFile;
use super::local::{EmbeddedStore, MemoryStore};
#[cfg(feature = "test-clock")]
use super::shared::ServerTime;
use super::shared::{SharedStore, SharedStoreOptions};
use super::store::AnyStore;
use super::{Ledger, OpenError};
use crate::clock::{Anchor, Clock, SystemClock};
use crate::config;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

impl Ledger {
    /// A ledger that forgets everything when it ends: for tests, and for `explain` without a store.
    pub fn in_memory(clock: Arc<dyn Clock>, reservation_timeout: Duration) -> Ledger {
        Ledger::with(AnyStore::Memory(MemoryStore::new(clock, reservation_timeout)))
    }

    /// Opens the embedded store in a folder. Returns soon: what was counted before is loaded in the background, and calls wait
    /// for that.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, another daemon uses it, the store is damaged or of a newer version.
    pub fn open(folder: &Path, sync: config::Sync, reservation_timeout: Duration) -> Result<Ledger, OpenError> {
        Ledger::open_with_clock(folder, sync, reservation_timeout, |anchor| Arc::new(SystemClock::start(anchor)))
    }

    /// As [`Ledger::open`], with a clock that continues the store's time line.
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
        let (book, clock) = (Book::new(reservation_timeout), clock(file.anchor.as_ref()));
        let store = EmbeddedStore::start(file, sync, book, clock).map_err(no_thread)?;
        Ok(Ledger::with(AnyStore::Embedded(store)))
    }

    /// The counts as they are on disk, for `explain` without a daemon. Never writes; commits fail.
    ///
    /// # Errors
    /// There is no store, it cannot be read, or it is of another version.
    pub fn open_read_only(folder: &Path) -> Result<Ledger, OpenError> {
        let file = StoreFile::open_read_only(folder)?;
        let book = Book::new(Duration::from_secs(600));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start(file.anchor.as_ref()));
        let store = EmbeddedStore::start(file, config::Sync::Full, book, clock).map_err(no_thread)?;
        Ok(Ledger::with(AnyStore::Embedded(store)))
    }

    /// Uses a store that several daemons share: Redis or Valkey, one server, with Sentinel, or a Cluster. Connects with the
    /// first call, or with [`Ledger::ready`].
    ///
    /// # Errors
    /// A URL is invalid; [`config::OnOutage::Local`] needs a folder.
    pub fn open_shared(
        urls: &[String],
        on_outage: config::OnOutage,
        reservation_timeout: Duration,
    ) -> Result<Ledger, OpenError> {
        Ledger::sharing(SharedStoreOptions { urls, on_outage, reservation_timeout, ..SharedStoreOptions::default() })
    }

    /// As [`Ledger::open_shared`]; with [`config::OnOutage::Local`], what is counted during an outage is kept in the folder.
    ///
    /// # Errors
    /// A URL is invalid; or as [`Ledger::open`], if the folder is used.
    pub fn open_shared_with_folder(
        urls: &[String],
        on_outage: config::OnOutage,
        folder: &Path,
        reservation_timeout: Duration,
    ) -> Result<Ledger, OpenError> {
        let folder = Some(folder);
        Ledger::sharing(SharedStoreOptions {
            urls,
            on_outage,
            folder,
            reservation_timeout,
            ..SharedStoreOptions::default()
        })
    }

    /// As [`Ledger::open_shared`], with a clock that a test sets, and with keys that begin with `prefix`.
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
        let (prefix, time) = (Some(prefix), ServerTime::of(clock.clone(), clock));
        Ledger::sharing(SharedStoreOptions {
            urls,
            prefix,
            on_outage,
            reservation_timeout,
            time,
            ..SharedStoreOptions::default()
        })
    }

    /// As [`Ledger::open_shared_with_folder`] with [`config::OnOutage::Local`], with a clock that a test sets.
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
        let (folder, time, on_outage) = (Some(folder), ServerTime::of(clock.clone(), clock), config::OnOutage::Local);
        Ledger::sharing(SharedStoreOptions { urls, folder, on_outage, reservation_timeout, time, prefix: None })
    }

    /// As [`Ledger::open_shared`] or [`Ledger::open_shared_with_folder`], with clocks that a test sets: the servers', and the
    /// daemon's own.
    ///
    /// # Errors
    /// As these.
    #[cfg(feature = "test-clock")]
    pub fn open_shared_with_clocks(
        urls: &[String],
        on_outage: config::OnOutage,
        folder: Option<&Path>,
        reservation_timeout: Duration,
        [server, own]: [Arc<dyn Clock>; 2],
    ) -> Result<Ledger, OpenError> {
        let time = ServerTime::of(server, own);
        Ledger::sharing(SharedStoreOptions { urls, folder, on_outage, reservation_timeout, time, prefix: None })
    }

    fn sharing(options: SharedStoreOptions<'_>) -> Result<Ledger, OpenError> {
        Ok(Ledger::with(AnyStore::Shared(SharedStore::open(options)?)))
    }
}

fn no_thread(error: std::io::Error) -> OpenError {
    OpenError(format!("the store's thread cannot be started: {error}"))
}
