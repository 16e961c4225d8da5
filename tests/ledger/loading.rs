//! Requests while the store is still being loaded.

use crate::store_errors::{file, parties, unlimited, usage};
use crate::stores::RESERVATION_TIMEOUT;
use relaykeeper::config::Sync;
use relaykeeper::ledger::{Ledger, LedgerError, Readiness, RecipientKey};
use rusqlite::Connection;
use std::time::Duration;

/// So many that loading them takes a good part of a second, which is as nothing beside the 20 s that the clock here jumps.
const MESSAGES: u64 = 200_000;

/// Time does not pass here but when everybody waits: 20 s of waiting are over at once.
#[test]
fn who_asks_waits_twenty_seconds_then_is_told_and_once_it_is_loaded_is_answered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || Ledger::open(folder.path(), Sync::Full, RESERVATION_TIMEOUT).expect("the store opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    drop(open());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let earlier = Connection::open(file(folder.path())).expect("the store");
    let fill = format!(
        "INSERT INTO account VALUES (1, 'customer', 'acme', 'acme'), (2, 'user', 'acme', 'ann@acme.example');
         INSERT INTO message
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {MESSAGES})
         SELECT n, {now}, 1, 2, NULL, 1, zeroblob(8) FROM n;"
    );
    earlier.execute_batch(&fill).expect("messages");
    drop(earlier);
    let ledger = open();
    runtime.block_on(async {
        let began = tokio::time::Instant::now();
        let asked = ledger.reserve(ledger.new_reservation(), &parties(), &unlimited(), RecipientKey(1)).await;
        assert!(matches!(asked, Err(LedgerError::Loading)), "{asked:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(20));
        assert!(matches!(ledger.health().readiness, Readiness::Loading { .. }));
    });
    crate::stores::runtime().block_on(async {
        // Waits, and is answered.
        let counted = usage(&ledger).await.expect("it is loaded within 20 s");
        assert_eq!(counted, [(MESSAGES, 0), (1, 0)]);
        assert_eq!(ledger.health().readiness, Readiness::Ready);
    });
}
