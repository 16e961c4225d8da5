//! The real `relaykeeper serve` with its configuration, clock and command line.

use crate::bed::{DEADLINE, Process, eventually, within};
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

pub struct Daemon {
    folder: PathBuf,
    process: Option<Process>,
    shift: u64,
}

impl Daemon {
    /// Writes the main file (`extra` is merged over the harness's own settings) and starts nothing.
    pub fn configure(folder: &Path, extra: &str, customers: &[(String, String)]) -> Self {
        let daemon = Daemon { folder: folder.join("relaykeeper"), process: None, shift: 0 };
        for folder in ["customers.d", "store"] {
            fs::create_dir_all(daemon.path(folder)).unwrap();
        }
        daemon.write_main(extra);
        for (name, text) in customers {
            daemon.write_customer(name, text);
        }
        daemon.write_clock();
        daemon
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn milter_socket(&self) -> PathBuf {
        self.path("milter.sock")
    }

    pub fn policy_socket(&self) -> PathBuf {
        self.path("policy.sock")
    }

    /// Replaces the main file; a running daemon reads it at `reload`.
    pub fn write_main(&self, extra: &str) {
        let folder = self.folder.display();
        let base = format!(
            r#"
            [listen]
            milter = ["unix:{folder}/milter.sock"]
            policy = ["unix:{folder}/policy.sock"]
            control = "unix:{folder}/control.sock"
            socket_mode = "0660"
            socket_group = "postfix"
            [relay]
            hostname = "mx.test.example"
            customers = "customers.d"
            exempt_clients = []
            [log]
            to = "stderr"
            level = "info"
            [store]
            backend = "embedded"
            path = "{folder}/store"
            "#
        );
        let mut main: toml::Table = base.parse().unwrap();
        merge(&mut main, extra.parse().unwrap());
        self.replace("relaykeeper.toml", &main.to_string());
    }

    /// Replaces `customers.d/NAME.toml`; the text need not be good.
    pub fn write_customer(&self, name: &str, text: &str) {
        self.replace(&format!("customers.d/{name}.toml"), text);
    }

    fn replace(&self, name: &str, text: &str) {
        let new = self.path(".new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.path(name)).unwrap();
    }

    /// Starts the daemon and awaits that it listens.
    pub fn start(&mut self) {
        self.start_by(self.command());
    }

    /// As [`Daemon::start`], with a umask in octal.
    pub fn start_with_umask(&mut self, umask: &str) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_relaykeeper")]);
        command.env("RELAYKEEPER_CLOCK", self.path("clock"));
        self.start_by(command);
    }

    fn start_by(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "relaykeeper runs already");
        command.arg("serve").arg("--config").arg(self.path("relaykeeper.toml"));
        let mut process = Process::guarded(&command, &self.path("log"));
        eventually("relaykeeper listens", || {
            if let Some(status) = process.ended() {
                panic!("relaykeeper serve: {status}\n{}", self.log());
            }
            ["milter.sock", "policy.sock", "control.sock"].iter().all(|socket| self.listens(socket)).then_some(())
        });
        self.process = Some(process);
    }

    fn listens(&self, socket: &str) -> bool {
        UnixStream::connect(self.path(socket)).is_ok()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relaykeeper"));
        command.env("RELAYKEEPER_CLOCK", self.path("clock"));
        command
    }

    /// SIGTERM while a transaction is open; the caller awaits the end.
    pub fn ask_to_stop(&self) {
        self.process().signal(libc::SIGTERM);
        self.await_line(&["stopping"]);
    }

    pub fn await_end(&mut self) -> ExitStatus {
        self.process.take().expect("relaykeeper runs").await_end()
    }

    /// Stops gracefully.
    pub fn stop(&mut self) {
        self.process().signal(libc::SIGTERM);
        let status = self.await_end();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// SIGKILL: as if the power had gone.
    pub fn kill(&mut self) {
        self.process().signal(libc::SIGKILL);
        self.await_end();
    }

    pub fn ask_to_reload(&self) {
        self.process().signal(libc::SIGHUP);
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("relaykeeper runs")
    }

    /// All log lines so far, of all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Awaits a log line that holds all of `words`.
    pub fn await_line(&self, words: &[&str]) -> String {
        eventually(&format!("a log line with {words:?}"), || {
            self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Lets time pass for relaykeeper (feature `test-clock`).
    pub fn let_pass(&mut self, time: Duration) {
        if !cfg!(feature = "test-clock") {
            panic!("needs `cargo test --features test-clock`, as tests/run.sh does");
        }
        self.shift += time.as_secs();
        self.write_clock();
    }

    fn write_clock(&self) {
        self.replace("clock", &format!("{}\n", self.shift));
    }

    /// Runs one of the other commands with this configuration.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).arg("--config").arg(self.path("relaykeeper.toml")).output().unwrap()
    }

    /// The same, and it must succeed.
    pub fn cli_text(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "relaykeeper {arguments:?}: {}\n{text}{errors}", output.status);
        text.into_owned()
    }

    /// What `quota show NAME --json` says of one limit (`messages_per_day`, …).
    pub fn quota(&self, name: &str, limit: &str) -> Quota {
        let text = self.cli_text(&["quota", "show", name, "--json"]);
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let of_name = json.as_array().expect("an array").iter().find(|entry| entry["name"] == name);
        let limits =
            of_name.unwrap_or_else(|| panic!("nothing about {name}: {text}"))["limits"].as_array().expect("an array");
        let entry = limits.iter().find(|entry| entry["limit"].as_str().expect("a name").ends_with(limit));
        let entry = entry.unwrap_or_else(|| panic!("no limit {limit}: {text}"));
        let number = |key: &str| entry[key].as_u64().unwrap_or_else(|| panic!("{key} is no number: {text}"));
        Quota {
            used: number("used"),
            reserved: number("reserved"),
            max: number("max"),
            window_seconds: number("window_seconds"),
            resets_at: entry["resets_at"].as_str().map(str::to_owned),
        }
    }

    /// Awaits what is counted and what is held by open transactions.
    pub fn await_counts(&self, name: &str, limit: &str, used: u64, reserved: u64) {
        let mut last = (0, 0);
        let reached = within(DEADLINE, || {
            let quota = self.quota(name, limit);
            last = (quota.used, quota.reserved);
            (last == (used, reserved)).then_some(())
        });
        assert!(reached.is_some(), "{limit} of {name}: (used, reserved) is {last:?} and not {:?}", (used, reserved));
    }
}

/// One limit of one user or customer.
#[derive(Debug, PartialEq)]
pub struct Quota {
    pub used: u64,
    pub reserved: u64,
    pub max: u64,
    pub window_seconds: u64,
    pub resets_at: Option<String>,
}

/// Puts every value of `over` into `table`, table by table.
fn merge(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}
