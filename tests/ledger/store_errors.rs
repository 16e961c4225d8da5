//! What can be wrong with a disk, and how it is reported.

use crate::crash::{folder_of_worker, worker_by};
use crate::stores::{Bench, RESERVATION_TIMEOUT, StoreKind, runtime};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relaykeeper::config::Sync;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Readiness, RecipientKey};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DAY: u64 = 86_400;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub fn open(folder: &Path) -> Result<Ledger, String> {
    Ledger::open(folder, Sync::Full, RESERVATION_TIMEOUT).map_err(|error| error.to_string())
}

pub fn file(folder: &Path) -> PathBuf {
    folder.join("ledger.db")
}

pub fn parties() -> Parties {
    Parties { customer: "acme".into(), user: Some("ann@acme.example".into()), login: None }
}

pub fn unlimited() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED)
}

/// A message to `recipients` others than any before.
pub async fn send(ledger: &Ledger, n: u64, recipients: u64) -> Result<(), LedgerError> {
    let key = |nth: u64| RecipientKey((n * 1_000_003 + nth).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let named: Vec<RecipientKey> = (0..recipients).map(key).collect();
    let id = ledger.new_reservation();
    ledger.reserve(id, &parties(), &unlimited(), named[0]).await?;
    let answer = ledger.commit(id, &parties(), &unlimited(), AcceptedRecipients { named: &named, unnamed: 0 }).await?;
    assert!(answer.fits());
    Ok(())
}

/// Messages and recipients of the one user, used and reserved.
pub async fn usage(ledger: &Ledger) -> Result<[(u64, u64); 2], LedgerError> {
    let subject = Subject { kind: SubjectKind::User, customer: "acme".into(), name: "ann@acme.example".into() };
    let usage = ledger.usage(&subject, &unlimited()).await?;
    Ok([0, 1].map(|nth: usize| (usage[nth].used, usage[nth].reserved)))
}

/// Polls until it holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn count(folder: &Path, query: &str) -> i64 {
    let connection = Connection::open(file(folder)).expect("an administrator can open it");
    connection.query_row(query, [], |row| row.get(0)).expect("an administrator can read it")
}

#[test]
fn a_missing_folder_is_named() {
    let folder = folder();
    let missing = folder.path().join("missing");
    let error = open(&missing).unwrap_err();
    assert_eq!(
        error,
        format!("{}: the store's folder cannot be opened: No such file or directory (os error 2)", missing.display())
    );
}

#[test]
fn a_file_is_no_folder() {
    let folder = folder();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    assert_eq!(open(&plain).unwrap_err(), format!("{}: is not a folder", plain.display()));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    // Not even root can make a file there.
    let error = open(Path::new("/proc/self")).unwrap_err();
    assert!(error.starts_with("/proc/self/ledger.lock: cannot be written: "), "{error}");
}

#[test]
fn a_second_daemon_is_turned_away_until_the_first_has_ended() {
    let folder = folder();
    let first = open(folder.path()).unwrap();
    let error = open(folder.path()).unwrap_err();
    let process = std::process::id();
    assert_eq!(error, format!("{}: is in use by another relaykeeper (process {process})", folder.path().display()));
    drop(first);
    open(folder.path()).unwrap();
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let folder = folder();
    drop(open(folder.path()).unwrap());
    Connection::open(file(folder.path())).unwrap().pragma_update(None, "user_version", 3).unwrap();
    let expected =
        format!("{}: was written by a newer relaykeeper (schema 3, this one knows 1)", file(folder.path()).display());
    assert_eq!(open(folder.path()).unwrap_err(), expected);
    assert_eq!(Ledger::open_read_only(folder.path()).unwrap_err().to_string(), expected);
}

#[test]
fn another_programs_database_is_left_alone() {
    let folder = folder();
    let other = Connection::open(file(folder.path())).unwrap();
    other.execute_batch("CREATE TABLE theirs (a)").unwrap();
    let error = open(folder.path()).unwrap_err();
    assert_eq!(error, format!("{}: is another program's database", file(folder.path()).display()));
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let folder = folder();
    std::fs::write(file(folder.path()), "It was a dark and stormy night; the rain fell in torrents.".repeat(100))
        .unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(error.contains("file is not a database; the file is damaged: restore it"), "{error}");
}

#[test]
fn a_damaged_file_fails_and_says_so() {
    let folder = folder();
    runtime().block_on(async {
        let ledger = open(folder.path()).unwrap();
        for n in 0..200 {
            send(&ledger, n, 100).await.unwrap();
        }
        ledger.close().await;
        drop(ledger);
        let mut bytes = std::fs::read(file(folder.path())).unwrap();
        let half = bytes.len() / 2;
        bytes[half..].fill(0xff);
        std::fs::write(file(folder.path()), bytes).unwrap();
        // Either shows at once or when it is read.
        match open(folder.path()) {
            Err(error) => assert!(error.contains("the file is damaged"), "{error}"),
            Ok(ledger) => {
                let LedgerError::Unavailable(reason) = usage(&ledger).await.unwrap_err() else { panic!("not loaded") };
                assert!(reason.message().contains("the file is damaged") && !reason.is_transient(), "{reason}");
                assert_eq!(ledger.health().readiness, Readiness::Failed(reason.message()));
                assert!(send(&ledger, 1000, 1).await.is_err());
            }
        }
    });
}

#[test]
fn a_log_with_a_torn_end_loses_nothing_that_was_accepted() {
    let (folder, copy) = (folder(), folder());
    runtime().block_on(async {
        let ledger = open(folder.path()).unwrap();
        for n in 0..50 {
            send(&ledger, n, 3).await.unwrap();
        }
        // As after a crash: the file and its log as they are, and the log with half of a page more.
        for name in ["ledger.db", "ledger.db-wal"] {
            std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
        }
        let wal = copy.path().join("ledger.db-wal");
        let mut bytes = std::fs::read(&wal).unwrap();
        let last_frame = bytes[bytes.len() - 4120..].to_vec();
        bytes.extend_from_slice(&last_frame[..2000]);
        std::fs::write(&wal, bytes).unwrap();
        let again = open(copy.path()).unwrap();
        assert_eq!(usage(&again).await.unwrap(), [(50, 0), (150, 0)]);
    });
}

/// Has a worker meet a full disk; what it accepted must be counted afterwards.
fn check_on_a_full_disk(worker: &str) {
    let folder = folder();
    // Files may not grow beyond some 600 KB, until the worker is allowed more. What is over fails, as on a full disk.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 1200; exec \"$0\" \"$@\""]);
    let mut worker = worker_by(command, worker, folder.path());
    assert!(worker.wait().unwrap().success());
    runtime().block_on(async {
        let accepted: u64 = std::fs::read_to_string(folder.path().join("accepted")).unwrap().parse().unwrap();
        let ledger = open(folder.path()).unwrap();
        assert_eq!(usage(&ledger).await.unwrap(), [(accepted, 0), (accepted * 100, 0)]);
    });
}

#[test]
fn a_full_disk_refuses_counts_and_recovers() {
    check_on_a_full_disk("store_errors::worker_with_a_full_disk");
}

#[test]
#[ignore = "the process that the one above starts"]
fn worker_with_a_full_disk() {
    let Some(folder) = folder_of_worker() else { return };
    runtime().block_on(async {
        let ledger = open(&folder).unwrap();
        let mut accepted = 0;
        let mut refused = 0;
        for n in 0..3000 {
            match send(&ledger, n, 100).await {
                Ok(()) => accepted += 1,
                Err(LedgerError::Unavailable(reason)) => {
                    refused += 1;
                    assert_eq!(ledger.health().readiness, Readiness::Degraded(reason.message()));
                }
                Err(other) => panic!("{other}"),
            }
            if refused == 20 {
                break;
            }
        }
        assert!(accepted > 0 && refused == 20, "{accepted} {refused}");
        assert_eq!(
            usage(&ledger).await.unwrap(),
            [(accepted, 0), (accepted * 100, 0)],
            "what was refused is not counted"
        );
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        for n in 10_000..10_100 {
            send(&ledger, n, 100).await.unwrap();
            accepted += 1;
        }
        assert_eq!(ledger.health().readiness, Readiness::Ready);
        assert_eq!(usage(&ledger).await.unwrap(), [(accepted, 0), (accepted * 100, 0)]);
        std::fs::write(folder.join("accepted"), accepted.to_string()).unwrap();
        ledger.close().await;
    });
}

#[test]
fn with_sync_normal_a_full_disk_refuses_too_and_nothing_accepted_is_lost() {
    check_on_a_full_disk("store_errors::worker_with_a_full_disk_and_sync_normal");
}

#[test]
#[ignore = "the process that the one above starts"]
fn worker_with_a_full_disk_and_sync_normal() {
    let Some(folder) = folder_of_worker() else { return };
    runtime().block_on(async {
        let ledger = Ledger::open(&folder, Sync::Normal, RESERVATION_TIMEOUT).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut accepted = 0;
        while send(&ledger, accepted, 100).await.is_ok() {
            accepted += 1;
            assert!(Instant::now() < deadline, "the disk is full at some time");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(matches!(ledger.health().readiness, Readiness::Degraded(_)));
        assert_eq!(usage(&ledger).await.unwrap(), [(accepted, 0), (accepted * 100, 0)]);
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        until("the writer tries again by itself", || ledger.health().readiness == Readiness::Ready).await;
        assert_eq!(count(&folder, "SELECT count(*) FROM message"), accepted as i64);
        send(&ledger, 1_000_000, 100).await.unwrap();
        accepted += 1;
        std::fs::write(folder.join("accepted"), accepted.to_string()).unwrap();
        ledger.close().await;
    });
}

#[test]
fn a_commit_that_nobody_waits_for_leaves_the_books_balanced() {
    let folder = folder();
    runtime().block_on(async {
        let ledger = open(folder.path()).unwrap();
        ledger.ready().await.unwrap();
        for n in 0..100 {
            let sending = send(&ledger, n, 2);
            // Polled to the point where it waits for the disk, then dropped.
            let _ = tokio::time::timeout(Duration::ZERO, sending).await;
        }
        send(&ledger, 1000, 2).await.unwrap();
        let [(messages, held), (recipients, keys_held)] = usage(&ledger).await.unwrap();
        assert!((1..=101).contains(&messages));
        assert_eq!((recipients, held, keys_held), (2 * messages, 0, 0));
        ledger.close().await;
        assert_eq!(count(folder.path(), "SELECT count(*) FROM message"), messages as i64);
    });
}

#[test]
fn after_close_nothing_is_taken() {
    let folder = folder();
    runtime().block_on(async {
        let ledger = open(folder.path()).unwrap();
        send(&ledger, 1, 1).await.unwrap();
        ledger.close().await;
        ledger.close().await;
        assert!(matches!(send(&ledger, 2, 1).await, Err(LedgerError::Unavailable(_))));
        assert_eq!(count(folder.path(), "SELECT count(*) FROM message"), 1);
        assert!(!folder.path().join("ledger.db-wal").exists(), "one plain file is left");
        open(folder.path()).unwrap();
    });
}

#[test]
fn it_can_be_read_while_a_daemon_runs_and_when_none_does() {
    let folder = folder();
    assert!(Ledger::open_read_only(folder.path()).unwrap_err().to_string().contains("there is no store yet"));
    runtime().block_on(async {
        let daemon = open(folder.path()).unwrap();
        send(&daemon, 1, 3).await.unwrap();
        for closed in [false, true] {
            if closed {
                daemon.close().await;
            }
            let reader = Ledger::open_read_only(folder.path()).unwrap();
            assert_eq!(usage(&reader).await.unwrap(), [(1, 0), (3, 0)]);
            assert_eq!(reader.recipient_key("a@x.example"), daemon.recipient_key("a@x.example"));
            assert!(reader.look(None, &parties(), &unlimited(), &[RecipientKey(5)]).await.unwrap().fits());
            assert!(matches!(send(&reader, 2, 1).await, Err(LedgerError::Unavailable(_))));
        }
    });
}

#[test]
fn an_administrator_can_read_it() {
    let folder = folder();
    runtime().block_on(async {
        let ledger = open(folder.path()).unwrap();
        send(&ledger, 1, 3).await.unwrap();
        send(&ledger, 2, 2).await.unwrap();
        let text = |query: &str| {
            let connection = Connection::open(file(folder.path())).unwrap();
            connection.query_row(query, [], |row| row.get::<_, String>(0)).unwrap()
        };
        let query =
            "SELECT customer || ' ' || user || ' ' || recipients FROM messages WHERE utc LIKE '____-__-__ __:__:__'";
        assert_eq!(text(query), "acme ann@acme.example 3");
        let query = "SELECT customer || ' ' || recipients_per_day || ' ' || recipients_per_10_min FROM customer_usage";
        assert_eq!(text(query), "acme 5 5");
        let query = "SELECT user || ' ' || messages_per_day || ' ' || unique_recipients_per_day FROM user_usage";
        assert_eq!(text(query), "ann@acme.example 2 5");
        let user = Subject { kind: SubjectKind::User, customer: "acme".into(), name: "ann@acme.example".into() };
        ledger.reset(&user, "they asked").await.unwrap();
        assert_eq!(count(folder.path(), "SELECT count(*) FROM user_usage"), 0);
        assert_eq!(text("SELECT name || ': ' || why FROM resets"), "ann@acme.example: they asked");
    });
}

#[test]
fn what_counts_no_longer_goes_from_disk_and_from_memory() {
    let mut bench = Bench::new(StoreKind::Full);
    runtime().block_on(async {
        let of_many = |first, last| {
            let ledger = bench.ledger.clone();
            async move {
                for n in first..last {
                    let user = format!("user{n}@acme.example");
                    let parties = Parties { customer: "acme".into(), user: Some(user.into()), login: None };
                    let kept = AcceptedRecipients { named: &[RecipientKey(n)], unnamed: 0 };
                    let id = ledger.new_reservation();
                    ledger.commit(id, &parties, &unlimited(), kept).await.unwrap();
                }
            }
        };
        of_many(0, 1000).await;
        assert_eq!(count(bench.path(), "SELECT count(*) FROM account"), 1001);
        bench.wait(2 * DAY);
        // Who opens an account looks whether others can be dropped.
        of_many(1000, 1300).await;
        let folder = bench.path().to_owned();
        until("old messages are deleted", || count(&folder, "SELECT count(*) FROM message") == 300).await;
        until("accounts of nobody are dropped", || count(&folder, "SELECT count(*) FROM account") == 301).await;
        bench.restart().await;
        send(&bench.ledger, 1, 1).await.unwrap();
        assert_eq!(usage(&bench.ledger).await.unwrap(), [(1, 0), (1, 0)]);
        assert_eq!(count(&folder, "SELECT count(*) FROM account"), 302);
    });
}

#[test]
fn with_sync_normal_a_count_is_on_disk_soon() {
    let bench = Bench::new(StoreKind::Normal);
    runtime().block_on(async {
        send(&bench.ledger, 1, 1).await.unwrap();
        assert_eq!(usage(&bench.ledger).await.unwrap(), [(1, 0), (1, 0)]);
        until("it is written by itself", || count(bench.path(), "SELECT count(*) FROM message") == 1).await;
    });
}

#[test]
fn concurrent_sessions_never_pass_a_limit() {
    let folder = folder();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = open(folder.path()).unwrap();
        let max = 500;
        let sessions: Vec<_> = (0..32u64)
            .map(|session| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    let limits = CustomerLimits::new(Limit::UNLIMITED, |name| match name {
                        LimitName::CustomerDay => Limit::of(max),
                        _ => Limit::UNLIMITED,
                    });
                    let mut accepted = 0;
                    for n in 0..200 {
                        let id = ledger.new_reservation();
                        let keys = [1, 2].map(|nth| RecipientKey(session * 1000 + n * 2 + nth));
                        let mut held = Vec::new();
                        for key in keys {
                            let answer = ledger.reserve(id, &parties(), &limits, key).await.unwrap();
                            if answer.fits() {
                                held.push(key);
                            }
                        }
                        let kept = AcceptedRecipients { named: &held, unnamed: 0 };
                        if n % 7 == 0 || held.is_empty() {
                            ledger.release(id, &parties());
                        } else if ledger.commit(id, &parties(), &limits, kept).await.unwrap().fits() {
                            accepted += held.len() as u64;
                        }
                    }
                    accepted
                })
            })
            .collect();
        let mut accepted = 0;
        for session in sessions {
            accepted += session.await.unwrap();
        }
        assert_eq!(accepted, max, "all of it, and not one more");
        assert_eq!(usage(&ledger).await.unwrap()[1], (max, 0));
    });
}
