//! The files that the daemon creates, with a umask that takes nothing away.

use crate::bed::{Folder, eventually};
use crate::customers::ACME;
use crate::daemon::Daemon;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn nobody_else_can_read_them_whatever_the_umask() {
    let folder = Folder::new();
    let mut daemon = Daemon::configure(folder.path(), "", &[("acme".to_owned(), ACME.to_owned())]);
    daemon.start_with_umask("000");
    daemon.cli_text(&["customer", "suspend", "acme", "--why", "unpaid"]);
    let modes = || -> BTreeMap<String, u32> {
        let files = fs::read_dir(daemon.path("store")).unwrap().map(Result::unwrap);
        files
            .map(|file| {
                (file.file_name().into_string().unwrap(), file.metadata().unwrap().permissions().mode() & 0o7777)
            })
            .collect()
    };
    let expected = [
        "administration.json",
        "audit.log",
        "configuration.db",
        "decisions.log",
        "ledger.db",
        "ledger.db-shm",
        "ledger.db-wal",
        "ledger.lock",
        "told.jsonl",
    ];
    let modes = eventually("all files are there", || {
        let modes = modes();
        expected.iter().all(|name| modes.contains_key(*name)).then_some(modes)
    });
    let open: Vec<_> = modes.iter().filter(|&(_, mode)| mode & !0o640 != 0).collect();
    assert!(open.is_empty(), "{open:?}");
    let control = fs::metadata(daemon.path("control.sock")).unwrap().permissions().mode() & 0o777;
    assert_eq!(control, 0o600);
    daemon.stop();
}
