//! What a released version wrote, today's daemon goes on with: counts, orders, audit log, decisions, configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When the files of 0.1.0 were written, in seconds since 1970.
const WRITTEN: i64 = 1_795_837_930;

/// When the grant in them ends.
const GRANT_ENDS: i64 = 1_797_811_200;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

struct Daemon {
    folder: tempfile::TempDir,
    process: Child,
}

impl Daemon {
    fn upgraded_from(version: &str) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(version), folder.path());
        let main = folder.path().join("relaykeeper.toml");
        let text = fs::read_to_string(&main).unwrap().replace("/tmp/mk010", folder.path().to_str().unwrap());
        fs::write(&main, text).unwrap();
        // As if it had been written ten minutes ago, before the machine was started.
        let by = now() - 600 - WRITTEN;
        let ledger = rusqlite::Connection::open(folder.path().join("store/ledger.db")).unwrap();
        ledger
            .execute_batch(&format!(
                "UPDATE message SET at = at + {by}; UPDATE store SET moment_ms = moment_ms + {by} * 1000, boot_id = ''"
            ))
            .unwrap();
        ledger.close().unwrap();
        let mut command = relaykeeper(folder.path(), "serve", &[]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let daemon = Daemon { folder, process };
        let started = Instant::now();
        while !daemon.ask("status", &[]).status.success() {
            assert!(started.elapsed() < Duration::from_secs(60), "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn ask(&self, command: &str, arguments: &[&str]) -> Output {
        relaykeeper(self.folder.path(), command, arguments).output().unwrap()
    }

    fn told(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.ask(command, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `quota show` and the like: `command` is one or more words.
fn relaykeeper(folder: &Path, command: &str, arguments: &[&str]) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_relaykeeper"));
    process.args(command.split(' ')).arg("--config").arg(folder.join("relaykeeper.toml")).args(arguments);
    process
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn version_0_1_0() {
    let daemon = Daemon::upgraded_from("0.1.0");
    let shown = daemon.told("quota show", &["--json", "ann@acme.example", "ben@acme.example", "acme"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let limit = |name: usize, limit: &str| {
        let limits = shown[name]["limits"].as_array().unwrap();
        limits.iter().find(|found| found["limit"] == limit).unwrap_or_else(|| panic!("{limit}: {shown}")).clone()
    };
    let messages = limit(0, "user.messages_per_day");
    assert_eq!(messages["used"], 3, "{shown}");
    assert_eq!(messages["max"], if now() < GRANT_ENDS { 150 } else { 100 }, "{shown}");
    assert_eq!(limit(0, "user.unique_recipients_per_day")["used"], 2, "{shown}");
    assert_eq!(limit(2, "customer.recipients_per_day")["used"], 6, "{shown}");
    assert_eq!(limit(2, "customer.recipients_per_10_min")["max"], 180, "9 x 20 licences: {shown}");
    assert_eq!(shown[1]["suspended"]["why"], "stolen password", "{shown}");
    // Exits with 0 only if the chain is whole.
    let audit = daemon.told("audit", &[]);
    assert!(audit.starts_with("1 2026-11-28T03:52:06") && audit.contains("licenses: 10 -> 20"), "{audit}");
    assert!(audit.contains("grant user ann@acme.example: user.messages_per_day +50"), "{audit}");
    let explained = daemon.told("explain", &["CN4Z-58W7-M6"]);
    assert!(explained.contains("x@acme.example"), "{explained}");
}
