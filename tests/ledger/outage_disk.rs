//! `on_outage = "local"` on a disk in trouble: what is counted locally is refused in time, and nothing that was accepted is lost.

use crate::disk::{Disk, set_read_only};
use crate::outage::{ON_DISK, of_customer, on_the_server, open, send, try_to_send, until, until_ready};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::OnOutage;
use relaykeeper::ledger::{Ledger, LedgerError, Readiness};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

#[test]
fn a_folder_that_turns_read_only_during_an_outage_refuses_counts_and_recovers() {
    let Some(disk) = Disk::new() else { return };
    let (servers, folder) = (Servers::start(Flavour::Redis, Kind::Single, &ON_DISK), disk.path().join("store"));
    std::fs::create_dir(&folder).unwrap();
    runtime().block_on(async {
        let ledger = open(&servers.urls(), &folder);
        assert_eq!(send(&ledger, "ann", 0..2).await, Some(2));
        servers.kill(0);
        assert_eq!(send(&ledger, "ann", 2..3).await, Some(1));
        set_read_only(&folder, true);
        for _ in 0..3 {
            let LedgerError::Unavailable(error) = try_to_send(&ledger, "ann", 3..4).await.unwrap_err() else {
                panic!("it is loaded")
            };
            assert!(error.message().contains("; check ") && error.is_transient(), "{error}");
            let Readiness::Degraded(why) = ledger.health().readiness else { panic!("{:?}", ledger.health()) };
            assert!(why.contains("cannot count locally: ") && why.contains("; check "), "{why}");
        }
        assert_eq!(of_customer(&ledger).await, (3, 0), "what was refused is neither counted nor reserved");
        // Nothing can be merged either: that it was could not be written down.
        servers.start_again(0);
        until("it is reachable", async || ledger.outage().unwrap().borrow().is_none()).await;
        assert!(try_to_send(&ledger, "ann", 3..4).await.is_err());
        set_read_only(&folder, false);
        until_ready(&ledger).await;
        assert_eq!(on_the_server(&servers).await, (3, 0));
        assert_eq!(send(&ledger, "ann", 3..4).await, Some(1));
        assert_eq!(on_the_server(&servers).await, (4, 0));
    });
}

/// A daemon that has just read the store's secret saves it. A disk must not turn read-only in the middle of that: SQLite writes to
/// mapped memory then (SIGBUS), whatever was found out before it began.
async fn until_the_secret_is_saved(servers: &Servers, folder: &Path) {
    let connection = Connection::open_with_flags(folder.join("outage.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    until("the secret is saved", async || {
        let saved: String =
            connection.query_row("SELECT lower(hex(hash_key)) FROM store", [], |row| row.get(0)).unwrap();
        servers.cli(0, &["get", "rk:store"]).ends_with(&saved)
    })
    .await;
}

#[test]
fn usage_that_could_not_be_saved_for_an_outage_is_saved_later() {
    let Some(disk) = Disk::new() else { return };
    let (servers, folder) = (Servers::start(Flavour::Valkey, Kind::Single, &[]), disk.path().join("store"));
    std::fs::create_dir(&folder).unwrap();
    runtime().block_on(async {
        let ledger = open(&servers.urls(), &folder);
        until_ready(&ledger).await;
        until_the_secret_is_saved(&servers, &folder).await;
        set_read_only(&folder, true);
        assert_eq!(send(&ledger, "ann", 0..3).await, Some(3), "the server counts it");
        until("saving fails", async || match ledger.health().readiness {
            Readiness::Degraded(why) => why.contains("usage cannot be saved for an outage: "),
            _ => false,
        })
        .await;
        set_read_only(&folder, false);
        until("saving is retried", async || ledger.health().readiness == Readiness::Ready).await;
        ledger.close().await;
        drop(ledger);
        servers.kill(0);
        let again = open(&servers.urls(), &folder);
        assert_eq!(of_customer(&again).await, (3, 0));
    });
}

/// Time only passes for those who wait for nothing else, so that nobody waits 50 s for the disk.
#[test]
fn while_the_disk_hangs_during_an_outage_acceptance_is_refused_in_time() {
    let Some(disk) = Disk::new() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // Nobody listens there.
        let urls = ["redis://127.0.0.1:1".to_owned()];
        let ledger =
            Ledger::open_shared_with_folder(&urls, OnOutage::Local, &disk.path(), RESERVATION_TIMEOUT).unwrap();
        let _ = ledger.ready().await;
        let frozen = disk.freeze();
        let began = tokio::time::Instant::now();
        let LedgerError::Unavailable(error) = try_to_send(&ledger, "ann", 0..1).await.unwrap_err() else {
            panic!("it is loaded")
        };
        assert_eq!(&*error.message(), "the disk did not respond within 50 s");
        assert!((50..60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        drop(frozen);
    });
}
