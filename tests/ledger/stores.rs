//! Every store that a ledger can have, behind one face.

use relaykeeper::clock::{ManualClock, Moment};
use relaykeeper::config::Sync;
use relaykeeper::ledger::Ledger;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Where the tests' time begins: not on a full second, nor on the edge of a bucket.
pub const START: Moment = Moment(1_700_000_123_456);

pub const RESERVATION_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
pub enum StoreKind {
    Memory,
    Full,
    Normal,
}

/// A ledger that can be restarted, and a clock that stands still until told.
pub struct Bench {
    kind: StoreKind,
    pub clock: Arc<ManualClock>,
    pub ledger: Ledger,
    folder: Option<TempDir>,
}

impl Bench {
    pub fn new(kind: StoreKind) -> Bench {
        let clock = Arc::new(ManualClock::at(START));
        let folder = match kind {
            StoreKind::Memory => None,
            _ => Some(tempfile::tempdir().expect("a temporary folder")),
        };
        let ledger = open(kind, &clock, folder.as_ref());
        Bench { kind, clock, ledger, folder }
    }

    /// False: this store forgets, so nothing was done.
    pub async fn restart(&mut self) -> bool {
        if self.folder.is_none() {
            return false;
        }
        self.ledger.close().await;
        self.ledger = open(self.kind, &self.clock, self.folder.as_ref());
        true
    }

    /// Where a store on disk is.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().expect("stores on disk have a folder").path()
    }

    pub fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn open(kind: StoreKind, clock: &Arc<ManualClock>, folder: Option<&TempDir>) -> Ledger {
    let sync = match kind {
        StoreKind::Memory => return Ledger::in_memory(clock.clone(), RESERVATION_TIMEOUT),
        StoreKind::Full => Sync::Full,
        StoreKind::Normal => Sync::Normal,
    };
    let folder = folder.expect("stores on disk have a folder").path();
    Ledger::open_with_clock(folder, sync, RESERVATION_TIMEOUT, |_| clock.clone()).expect("the store opens")
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs each test, an `async fn(Bench)`, over every store.
#[macro_export]
macro_rules! over_every_store {
    ($($test:ident),* $(,)?) => {
        over_every_store!(@ memory Memory $($test)*);
        over_every_store!(@ full Full $($test)*);
        over_every_store!(@ normal Normal $($test)*);
    };
    (@ $module:ident $kind:ident $($test:ident)*) => {
        mod $module {
            use $crate::stores::{Bench, StoreKind, runtime};
            $(#[test]
            fn $test() {
                runtime().block_on(super::$test(Bench::new(StoreKind::$kind)));
            })*
        }
    };
}
