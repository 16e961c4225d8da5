//! The program as systemd and root start it: what it tells the service manager, and whose rights it keeps.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Group, Pid, Uid, User, geteuid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Whatever takes longer hangs.
const TIME: Duration = Duration::from_secs(60);

/// A configuration, and a socket that plays systemd's.
struct Service {
    folder: TempDir,
    systemd: UnixDatagram,
}

struct Daemon<'a> {
    service: &'a Service,
    child: Child,
}

impl Service {
    fn new(relay: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        // Another user must get through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["customers.d", "sockets"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let systemd = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        fs::set_permissions(folder.path().join("notify"), Permissions::from_mode(0o777)).unwrap();
        systemd.set_read_timeout(Some(TIME)).unwrap();
        let service = Service { folder, systemd };
        service.configure(relay, "");
        service
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, relay: &str, more: &str) {
        let place = self.folder.path().display();
        let main = format!(
            "[listen]\nmilter = [\"unix:{place}/sockets/milter\"]\npolicy = [\"unix:{place}/sockets/policy\"]\n\
             control = \"unix:{place}/sockets/control\"\n{more}\n[relay]\nhostname = \"relay.example.net\"\n{relay}\n\
             [store]\npath = \"{place}/store\"\n[log]\nto = \"stderr\"\n"
        );
        fs::write(self.path("relaykeeper.toml"), main).unwrap();
    }

    fn make_store(&self) {
        fs::create_dir(self.path("store")).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relaykeeper"));
        command.args(["serve", "--config"]).arg(self.path("relaykeeper.toml"));
        command.env("NOTIFY_SOCKET", self.path("notify")).env("WATCHDOG_USEC", "2000000").env_remove("WATCHDOG_PID");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(self.path("log")).unwrap());
        command
    }

    fn start(&self) -> Daemon<'_> {
        Daemon { service: self, child: self.command().spawn().unwrap() }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// What a daemon that cannot start says.
    fn refusal(&self) -> String {
        self.read_all();
        let mut daemon = self.start();
        assert_eq!(daemon.end().code(), Some(1), "{}", self.log());
        assert!(self.read_all().iter().all(|message| !message.contains("READY=1")));
        self.log()
    }

    /// Every message that came. The sockets that came with them are closed, as by a systemd that keeps none.
    fn read_all(&self) -> Vec<String> {
        let (mut messages, mut bytes) = (Vec::new(), [0; 4_096]);
        self.systemd.set_nonblocking(true).unwrap();
        while let Ok(length) = self.systemd.recv(&mut bytes) {
            messages.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
        }
        self.systemd.set_nonblocking(false).unwrap();
        messages
    }

    /// The next message that has such a line.
    fn await_message(&self, line: &str) -> String {
        loop {
            let mut bytes = [0; 4_096];
            let length = match self.systemd.recv(&mut bytes) {
                Ok(length) => length,
                Err(error) => panic!("no {line}: {error}\n{}", self.log()),
            };
            let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    }
}

impl Daemon<'_> {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = std::time::Instant::now() + TIME;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(std::time::Instant::now() < deadline, "it does not end: {}", self.service.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.end().code(), Some(0), "{}", self.service.log());
    }

    /// The numbers of a line of /proc/PID/status.
    fn ids(&self, key: &str) -> Vec<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn owner_of(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[test]
fn systemd_knows_when_it_is_ready_reloads_lives_and_stops() {
    let service = Service::new("");
    service.make_store();
    let daemon = service.start();
    let message = service.await_message("READY=1");
    for name in ["milter", "policy", "control"] {
        UnixStream::connect(service.path("sockets").join(name)).unwrap();
    }
    assert!(message.contains("STATUS=serving 0 customers"), "{message}");

    daemon.signal(Signal::SIGHUP);
    let message = service.await_message("RELOADING=1");
    assert!(message.contains("MONOTONIC_USEC="), "{message}");
    service.await_message("READY=1");
    service.await_message("WATCHDOG=1");
    service.await_message("WATCHDOG=1");

    daemon.signal(Signal::SIGTERM);
    let message = service.await_message("STOPPING=1");
    assert!(message.contains("STATUS=stopping"), "{message}");
    daemon.stop();
}

#[test]
fn what_cannot_start_is_never_ready() {
    let service = Service::new("");
    service.configure("", "milte = []");
    assert!(service.refusal().contains("milte"), "{}", service.log());
    service.configure("", "");
    assert!(service.refusal().contains("the store's folder cannot be opened"), "{}", service.log());
    service.make_store();
    let blocked = service.path("sockets/milter");
    fs::write(&blocked, "a file").unwrap();
    assert!(service.refusal().contains("a file is there already"), "{}", service.log());
}

/// The account that stands for relaykeeper's own.
const USER: &str = "nobody";

#[test]
fn root_binds_and_then_becomes_the_user() {
    let service = Service::new(&format!("user = \"{USER}\""));
    service.configure(&format!("user = \"{USER}\""), "socket_group = \"daemon\"");
    if !geteuid().is_root() {
        // It stays who it is, and may not give sockets to that group.
        service.make_store();
        assert!(service.refusal().contains("listen.socket_group"), "{}", service.log());
        return;
    }
    let user = User::from_name(USER).unwrap().unwrap();
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let daemon = service.start();
    service.await_message("READY=1");
    assert_eq!(daemon.ids("Uid:"), [uid; 4]);
    assert_eq!(daemon.ids("Gid:"), [gid; 4]);
    assert!(!daemon.ids("Groups:").contains(&0), "root's groups are gone, too");
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{status}");
    }
    let group = Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
    assert_eq!(owner_of(&service.path("sockets/policy")), (uid, group, 0o660));
    assert_eq!(owner_of(&service.path("sockets/control")), (uid, 0, 0o600));
    // The store was made for the user.
    assert_eq!(owner_of(&service.path("store")), (uid, gid, 0o750));
    daemon.signal(Signal::SIGHUP);
    service.await_message("RELOADING=1");
    service.await_message("READY=1");
    daemon.stop();
    for entry in fs::read_dir(service.path("store")).unwrap() {
        assert_eq!(owner_of(&entry.unwrap().path()).0, uid);
    }
}

#[test]
fn root_does_not_leave_files_that_the_user_cannot_read() {
    if !geteuid().is_root() {
        return; // Nobody else can leave any.
    }
    let user = User::from_name(USER).unwrap().unwrap();
    let service = Service::new("");
    service.make_store();
    nix::unistd::chown(&service.path("store"), Some(user.uid), Some(user.gid)).unwrap();
    let words = service.refusal();
    assert!(words.contains(&format!("belongs to user {USER}")), "{words}");
    assert!(words.contains(&format!("set relay.user = \"{USER}\"")), "{words}");
    assert_eq!(fs::read_dir(service.path("store")).unwrap().count(), 0);

    // If somebody did before, the error says how to mend it, file by file.
    service.configure(&format!("user = \"{USER}\""), "");
    let first = service.start();
    service.await_message("READY=1");
    first.stop();
    for name in ["administration.json", "audit.log", "ledger.db", "ledger.lock"] {
        let path = service.path("store").join(name);
        nix::unistd::chown(&path, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).unwrap();
        let words = service.refusal();
        let command = format!("run: chown {USER}: {}", path.display());
        assert!(words.contains(&command) && words.contains("belongs to user root"), "{name}: {words}");
        nix::unistd::chown(&path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

#[test]
fn an_unknown_user_is_an_error() {
    let service = Service::new("user = \"no-such-user\"");
    service.make_store();
    if geteuid().is_root() {
        let words = service.refusal();
        assert!(words.contains("relay.user: there is no user \"no-such-user\""), "{words}");
    } else {
        let daemon = service.start();
        service.await_message("READY=1");
        daemon.stop();
    }
}
