//! `backup` and `restore`: the store in one file, and back.

use relaykeeper::administration::{Administration, read_anchor};
use relaykeeper::audit::{Action, Actor, Anchor, Instruction, Record, verify};
use relaykeeper::backup::{restore, save};
use relaykeeper::ledger::lock_store;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A store with a database whose last rows are in the write-ahead log of a writer that is still at work.
fn store() -> (tempfile::TempDir, rusqlite::Connection) {
    let folder = tempfile::tempdir().unwrap();
    drop(Administration::open(folder.path()).unwrap());
    let database = rusqlite::Connection::open(folder.path().join("configuration.db")).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (n); INSERT INTO t VALUES (7);",
        )
        .unwrap();
    fs::create_dir(folder.path().join("decisions")).unwrap();
    fs::write(folder.path().join("decisions/0001"), "a decision\n").unwrap();
    fs::write(folder.path().join("ledger.lock"), "1\n").unwrap();
    (folder, database)
}

fn order() -> Instruction {
    Instruction { by: Actor::of_uid(0), at: "2026-11-28T07:00:00Z".parse().unwrap(), why: "disk replaced".to_owned() }
}

/// The records of a store's audit log, which must be whole.
fn audit_log(folder: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    let text = fs::read(folder.join("audit.log")).unwrap();
    let verified = verify(&text[..], &read_anchor(folder).unwrap(), |record| records.push(record)).unwrap();
    assert!(verified.is_good(), "{:?}", verified.breaks);
    records
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_store_comes_back_as_it_was_while_it_was_written() {
    let (store, writer) = store();
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup");
    let saved = save(store.path(), &backup).unwrap();
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(elsewhere.path()), ["backup"], "nothing is left over");
    let state = fs::read(store.path().join("administration.json")).ok();
    writer.execute_batch("INSERT INTO t VALUES (8)").unwrap();
    drop(writer);
    fs::write(store.path().join("decisions/0002"), "a later one\n").unwrap();

    let restored = restore(store.path(), &backup, &order()).unwrap();
    assert_eq!(restored.files, saved.files);
    let database = rusqlite::Connection::open(store.path().join("configuration.db")).unwrap();
    let rows: i64 = database.query_row("SELECT sum(n) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 7);
    assert_eq!(names(&store.path().join("decisions")), ["0001"]);
    assert_eq!(fs::read(store.path().join("administration.json")).ok(), state);
    let before = restored.before.expect("what was there before");
    assert_eq!(names(&before.join("decisions")), ["0001", "0002"]);
    // A second backup has nothing of that, and replaces the first.
    assert_eq!(save(store.path(), &backup).unwrap().files, saved.files);
    Administration::open(store.path()).unwrap();
}

#[test]
fn nothing_is_restored_beside_a_daemon() {
    let (store, _writer) = store();
    let backup = store.path().with_extension("backup");
    save(store.path(), &backup).unwrap();
    let daemon = lock_store(store.path()).unwrap();
    let before = names(store.path());
    let error = restore(store.path(), &backup, &order()).unwrap_err().to_string();
    assert!(error.contains("is in use by another relaykeeper") && error.ends_with("; stop it first"), "{error}");
    assert_eq!(names(store.path()), before);
    drop(daemon);
    restore(store.path(), &backup, &order()).unwrap();
    fs::remove_file(&backup).unwrap();
}

#[test]
fn a_damaged_backup_changes_nothing() {
    let (store, _writer) = store();
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup");
    save(store.path(), &backup).unwrap();
    let good = fs::read(&backup).unwrap();
    let before = names(store.path());
    let at = good.windows(10).position(|bytes| bytes == b"a decision").unwrap();
    let mut flipped = good.clone();
    flipped[at] ^= 1;
    let damaged = [
        (flipped, "its checksums do not match"),
        (good[..at + 512].to_vec(), "its end is missing"),
        (b"something else".to_vec(), ""),
        (Vec::new(), "its end is missing"),
    ];
    for (bytes, why) in damaged {
        fs::write(&backup, bytes).unwrap();
        let error = restore(store.path(), &backup, &order()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(names(store.path()), before);
    }
}

#[test]
fn other_files_are_not_overwritten() {
    let (store, _writer) = store();
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    let error = save(store.path(), &precious).unwrap_err().to_string();
    assert!(error.ends_with("exists and is no backup; choose another name"), "{error}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    let error = save(elsewhere.path().join("empty").as_path(), &elsewhere.path().join("b")).unwrap_err().to_string();
    assert!(error.contains("the store cannot be read"), "{error}");
}

/// A name that leads out of the store is refused before anything is written.
#[test]
fn names_stay_within_the_store() {
    let (store, _writer) = store();
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup");
    for name in ["../evil", "a/b/c", "ledger.lock", ".hidden", "before-restore-x/y"] {
        let mut archive = tar::Builder::new(fs::File::create(&backup).unwrap());
        let marker = r#"{"form":1,"relaykeeper":"x","made":"y"}"#;
        for (name, text) in [("relaykeeper-backup.json", marker), (name, "x"), ("SHA256SUMS", "")] {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        let error = restore(store.path(), &backup, &order()).unwrap_err().to_string();
        assert!(error.contains("is not a file of a store"), "{name}: {error}");
        assert!(!store.path().parent().unwrap().join("evil").exists());
    }
    fs::write(&backup, "").unwrap();
}

/// The audit log of a restored store says that it was restored, by whom, why, and where the log that it replaces ended; and a
/// daemon goes on behind that.
#[tokio::test]
async fn a_restore_is_in_the_audit_log() {
    let (store, _writer) = store();
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup");
    let act = async |files| {
        let administration = Administration::open(store.path()).unwrap();
        administration.record(order(), Action::ConfigurationUnknown { files }).await.unwrap();
    };
    act(1).await;
    save(store.path(), &backup).unwrap();
    act(2).await;
    act(3).await;
    assert_eq!(audit_log(store.path()).len(), 3);

    let restored = restore(store.path(), &backup, &order()).unwrap();
    let records = audit_log(store.path());
    assert_eq!(records.len(), 2);
    let Action::Restore { made, version, replaced: Some(Anchor { records: 3, hash }) } = &records[1].action else {
        panic!("{:?}", records[1].action)
    };
    assert_eq!((made, version), (&restored.made, &restored.by));
    let last = fs::read_to_string(restored.before.unwrap().join("audit.log")).unwrap();
    assert!(last.ends_with(&format!("{hash}\"}}\n")), "{last}");
    assert_eq!((&records[1].by, records[1].why.as_str()), (&order().by, "disk replaced"));
    act(4).await;
    assert_eq!(audit_log(store.path()).len(), 3);
}
