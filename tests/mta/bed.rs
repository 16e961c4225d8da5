//! Private folders, ports and processes; Postfix and Sendmail by the scripts in `tests/bed`.
//!
//! Whatever is started here ends when its value is dropped, and also when the test process dies in any
//! other way: each process has a guard that reads a pipe whose other end is ours.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Everything that a test awaits is a matter of milliseconds; this is for a machine that is very busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until `check` gives a value; panics with `what` when the deadline has passed.
pub fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, check).unwrap_or_else(|| panic!("not within {DEADLINE:?}: {what}"))
}

/// The same without a word when the deadline has passed.
pub fn within<T>(limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return Some(value);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The folder that all instances live below. No parent of it is writable for all: Sendmail refuses keys there.
fn bed() -> PathBuf {
    std::env::var_os("RELAYKEEPER_TESTS").map_or_else(|| "/var/cache/relaykeeper-tests".into(), PathBuf::from)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed").join(name)
}

/// A new folder for one test. It stays when the test fails, or when `RELAYKEEPER_KEEP` is set.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "an MTA must be started by root: run tests/run.sh with sudo");
        // Short: a unix socket's path has at most 107 bytes.
        let path = bed().join("run").join(format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&path).unwrap();
        for folder in [bed(), bed().join("run"), path.clone()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("RELAYKEEPER_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
        } else {
            // A process that was just killed may still hold an entry; what stays behind harms nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A TCP port that no other test has, in this or another process; below the kernel's ephemeral ports.
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    pub fn take() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(bed().join("ports")).unwrap();
        for _ in 0..10_000 {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = 20_000 + ((std::process::id().wrapping_mul(37).wrapping_add(step)) % 10_000) as u16;
            let lock = File::create(bed().join("ports").join(number.to_string())).unwrap();
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port between 20000 and 29999");
    }
}

/// A process that ends with this value at the latest.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command` under the guard: same process id, TERM and then KILL when we are gone.
    pub fn guarded(command: &Command, log: &Path) -> Self {
        let mut guarded = Command::new(script("guard.sh"));
        guarded.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            guarded.env(key, value.unwrap_or_default());
        }
        let output = File::options().create(true).append(true).open(log).unwrap();
        guarded.stdout(output.try_clone().unwrap()).stderr(output);
        Self::spawn(guarded, command.get_program().to_string_lossy().into_owned())
    }

    fn spawn(mut command: Command, name: String) -> Self {
        let child =
            command.stdin(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { child, name }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is shared.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(sent, 0, "{} is not there any more", self.name);
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn await_end(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let end = within(DEADLINE, || self.ended());
        if end.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if !std::thread::panicking() {
            let end = end.unwrap_or_else(|| panic!("{} had to be killed", self.name));
            assert!(
                !matches!(end.signal(), Some(libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS)),
                "{} crashed: {end}",
                self.name
            );
        }
    }
}

/// That of all MTAs of the bed: of mx.test.example, signed by itself.
pub fn certificate() -> PathBuf {
    bed().join("tls/cert.pem")
}

/// Begins a command that runs where customers' programs seem to be installed, with its files below `folder`.
pub fn client_command(folder: &Path) -> Command {
    let mut command = Command::new(script("client.sh"));
    command.arg(folder).env("RELAYKEEPER_TESTS", bed());
    command
}

/// What an MTA of the bed is to be. Each MTA takes what it knows.
#[derive(Default)]
pub struct MtaSetup {
    /// `unix:/PATH`: asked for permission to relay and at the end of data (Postfix).
    pub policy: Option<String>,
    /// Paths of the milters' unix sockets, in order.
    pub milters: Vec<PathBuf>,
    /// Value of `mynetworks` (Postfix without policy service).
    pub mynetworks: String,
    /// Lines of the access map (Sendmail).
    pub access: String,
    /// `name@realm:password`.
    pub logins: Vec<String>,
    /// Further lines for main.cf.
    pub main_cf: String,
    /// Further lines for master.cf.
    pub master_cf: String,
    /// Further lines for sendmail.mc.
    pub mc: String,
    pub sink_port: u16,
}

/// A running Postfix or Sendmail.
pub struct Mta {
    /// Listens on 127.0.0.1 and ::1.
    pub port: u16,
    dir: PathBuf,
    log: PathBuf,
    queue: Command,
    flush: Command,
    empty_queue: &'static str,
    _process: Process,
    _port: Port,
}

impl Mta {
    pub fn postfix(folder: &Path, setup: &MtaSetup) -> Self {
        let milters: Vec<_> = setup.milters.iter().map(|path| format!("unix:{}", path.display())).collect();
        let env = [
            ("POLICY", setup.policy.clone().unwrap_or_default()),
            ("MILTER", milters.join(" ")),
            ("MYNETWORKS", setup.mynetworks.clone()),
            ("MAIN_CF", setup.main_cf.clone()),
            ("MASTER_CF", setup.master_cf.clone()),
        ];
        Self::start("postfix.sh", folder.join("postfix"), "log/maillog", "", setup, &env)
    }

    pub fn sendmail(folder: &Path, setup: &MtaSetup) -> Self {
        let milters: Vec<_> = setup.milters.iter().map(|path| format!("local:{}", path.display())).collect();
        let env = [("MILTER", milters.join(" ")), ("ACCESS", setup.access.clone()), ("MC", setup.mc.clone())];
        Self::start("sendmail.sh", folder.join("sendmail"), "maillog", "Total requests: 0", setup, &env)
    }

    fn start(
        name: &str,
        dir: PathBuf,
        log: &str,
        empty_queue: &'static str,
        setup: &MtaSetup,
        env: &[(&str, String)],
    ) -> Self {
        let port = Port::take();
        let mut command = Command::new(script(name));
        command.env("SMTP_PORT", port.number.to_string()).env("SINK_PORT", setup.sink_port.to_string());
        command.env("SASL_USERS", setup.logins.join(" ")).env("RELAYKEEPER_TESTS", bed());
        command.envs(env.iter().map(|(key, value)| (key, value)));
        command.arg("run").arg(&dir).stdout(Stdio::piped());
        let mut process = Process::spawn(command, name.to_owned());
        await_ready(&mut process);
        let mut queue = Command::new(script(name));
        queue.arg("mailq").arg(&dir).env("RELAYKEEPER_TESTS", bed());
        let mut flush = Command::new(script(name));
        flush.arg("flush").arg(&dir).env("RELAYKEEPER_TESTS", bed());
        Mta { port: port.number, log: dir.join(log), dir, queue, flush, empty_queue, _process: process, _port: port }
    }

    /// The mail log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Has it try again what is in its queue (Postfix).
    pub fn flush_queue(&mut self) {
        assert!(self.flush.status().unwrap().success());
    }

    /// Hands a message in by sendmail(1) (Postfix).
    pub fn hand_in(&self, sender: &str, recipients: &[&str], id: &str) {
        let mut command = Command::new("/usr/sbin/sendmail");
        command.args(["-i", "-f", sender]).args(recipients).env("MAIL_CONFIG", self.dir.join("etc"));
        let mut sendmail = command.stdin(Stdio::piped()).spawn().unwrap();
        let text = format!("Subject: test\nX-Test-Id: {id}\n\nhello\n{}\n", crate::sink::LAST_LINE);
        std::io::Write::write_all(&mut sendmail.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(sendmail.wait().unwrap().success(), "sendmail(1) does not take the message");
    }

    /// Messages of sendmail(1) that Postfix has not taken into its queue.
    pub fn handed_in(&self) -> usize {
        fs::read_dir(self.dir.join("queue/maildrop")).unwrap().count()
    }

    /// Awaits a log line that holds all of `words`.
    pub fn await_line(&self, words: &[&str]) -> String {
        eventually(&format!("a line with {words:?} in the mail log"), || {
            self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// SIGKILL to all its processes: those that work in its folder.
    pub fn kill(&mut self) {
        eventually("the MTA is dead", || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<libc::pid_t>().ok());
            let of_mta = pids.filter(|pid| {
                fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.starts_with(&self.dir))
            });
            // SAFETY: no memory is shared.
            let killed = of_mta.filter(|pid| unsafe { libc::kill(*pid, libc::SIGKILL) } == 0).count();
            (killed == 0).then_some(())
        });
    }

    /// Awaits that nothing is left to deliver.
    pub fn await_empty_queue(&mut self) {
        let (queue, empty) = (&mut self.queue, self.empty_queue);
        eventually("the MTA's queue is empty", || {
            let output = queue.output().unwrap();
            let listing = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success()
                && if empty.is_empty() { listing.trim().is_empty() } else { listing.contains(empty) })
            .then_some(())
        });
    }
}

/// The scripts say "ready" when the MTA listens; what they say instead goes to our standard error.
fn await_ready(process: &mut Process) {
    let mut output = BufReader::new(process.child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = output.read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = receiver.recv_timeout(DEADLINE).unwrap_or_default();
    assert_eq!(
        line.trim(),
        "ready",
        "{} did not start (see above). Is it missing? run tests/run.sh, which installs it",
        process.name
    );
}
