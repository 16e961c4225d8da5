//! Every store that a ledger can have, behind one face.

#[cfg(feature = "test-clock")]
use crate::redis::{Flavour, Kind, Servers};
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
    #[cfg(feature = "test-clock")]
    Shared(Flavour, Kind),
}

#[cfg(feature = "test-clock")]
impl StoreKind {
    pub const REDIS: StoreKind = StoreKind::Shared(Flavour::Redis, Kind::Single);
    pub const REDIS_CLUSTER: StoreKind = StoreKind::Shared(Flavour::Redis, Kind::Cluster);
    pub const VALKEY: StoreKind = StoreKind::Shared(Flavour::Valkey, Kind::Single);
    pub const VALKEY_CLUSTER: StoreKind = StoreKind::Shared(Flavour::Valkey, Kind::Cluster);
}

/// A ledger that can be restarted, and a clock that only advances on demand.
pub struct Bench {
    kind: StoreKind,
    pub clock: Arc<ManualClock>,
    pub ledger: Ledger,
    place: Place,
}

/// Where a store is.
enum Place {
    Memory,
    Folder(TempDir),
    /// Servers that other tests use, too; all keys begin with something of our own.
    #[cfg(feature = "test-clock")]
    Servers(Arc<Servers>, String),
}

impl Bench {
    pub fn new(kind: StoreKind) -> Bench {
        let clock = Arc::new(ManualClock::at(START));
        let place = match kind {
            StoreKind::Memory => Place::Memory,
            StoreKind::Full | StoreKind::Normal => Place::Folder(tempfile::tempdir().expect("a temporary folder")),
            #[cfg(feature = "test-clock")]
            StoreKind::Shared(flavour, kind) => Place::Servers(Servers::shared(flavour, kind), own_prefix()),
        };
        let ledger = open(kind, &clock, &place);
        Bench { kind, clock, ledger, place }
    }

    /// Another daemon that uses the same store; `None` if only one can.
    pub fn another(&self) -> Option<Ledger> {
        match &self.place {
            #[cfg(feature = "test-clock")]
            Place::Servers(..) => Some(open(self.kind, &self.clock, &self.place)),
            _ => None,
        }
    }

    /// False: this store forgets, so nothing was done.
    pub async fn restart(&mut self) -> bool {
        if matches!(self.place, Place::Memory) {
            return false;
        }
        self.ledger.close().await;
        self.ledger = open(self.kind, &self.clock, &self.place);
        true
    }

    /// Whether what was open when the daemon ended stays reserved until it expires.
    pub fn holds_over_restarts(&self) -> bool {
        !matches!(self.place, Place::Memory | Place::Folder(_))
    }

    /// Where a store on disk is.
    pub fn path(&self) -> &Path {
        let Place::Folder(folder) = &self.place else { panic!("{:?} has no folder", self.kind) };
        folder.path()
    }

    pub fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn open(kind: StoreKind, clock: &Arc<ManualClock>, place: &Place) -> Ledger {
    let sync = if matches!(kind, StoreKind::Normal) { Sync::Normal } else { Sync::Full };
    match place {
        Place::Memory => Ledger::in_memory(clock.clone(), RESERVATION_TIMEOUT),
        Place::Folder(folder) => {
            let opened = Ledger::open_with_clock(folder.path(), sync, RESERVATION_TIMEOUT, |_| clock.clone());
            opened.expect("the store opens")
        }
        #[cfg(feature = "test-clock")]
        Place::Servers(servers, prefix) => {
            let on_outage = relaykeeper::config::OnOutage::Defer;
            let urls = servers.urls();
            let opened = Ledger::open_shared_with_clock(&urls, prefix, on_outage, RESERVATION_TIMEOUT, clock.clone());
            opened.expect("the URLs can be read")
        }
    }
}

/// Keys that no other test uses.
#[cfg(feature = "test-clock")]
fn own_prefix() -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!("rk{}:", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
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
        #[cfg(feature = "test-clock")]
        over_every_store!(@ redis REDIS $($test)*);
        #[cfg(feature = "test-clock")]
        over_every_store!(@ redis_cluster REDIS_CLUSTER $($test)*);
        #[cfg(feature = "test-clock")]
        over_every_store!(@ valkey VALKEY $($test)*);
        #[cfg(feature = "test-clock")]
        over_every_store!(@ valkey_cluster VALKEY_CLUSTER $($test)*);
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
