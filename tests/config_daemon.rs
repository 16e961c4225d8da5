//! The daemon and its commands around a configuration that goes bad: while it runs, and over a restart.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each request is a transaction of its own.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

/// A configuration in a folder of its own, and perhaps a daemon that runs with it.
struct Site {
    folder: TempDir,
    daemon: Option<Daemon>,
}

struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
    lines: Vec<String>,
}

impl Site {
    fn new() -> Site {
        let site = Site { folder: tempfile::tempdir().unwrap(), daemon: None };
        for folder in ["customers.d", "store"] {
            fs::create_dir(site.path(folder)).unwrap();
        }
        site.write("relaykeeper.toml", &site.main());
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn main(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            "[listen]\npolicy = [\"unix:{folder}/policy.sock\"]\ncontrol = \"unix:{folder}/control.sock\"\n\
             [relay]\nhostname = \"relay.example.net\"\ndrain = \"0s\"\n[log]\nto = \"stderr\"\n[store]\npath = \"{folder}/store\"\n"
        )
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn write_customer(&self, name: &str, rest: &str) {
        self.write(&format!("customers.d/{name}.toml"), &customer(name, rest));
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relaykeeper"));
        command.arg("serve").arg("--config").arg(self.path("relaykeeper.toml"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Daemon { child, log, lines: Vec::new() };
        daemon.await_line("ready");
        self.daemon = Some(daemon);
    }

    fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.terminate();
        assert!(daemon.child.wait().unwrap().success());
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// A line of the log since the last start.
    fn await_line(&mut self, part: &str) -> String {
        self.daemon.as_mut().unwrap().await_line(part)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relaykeeper"));
        command.args(arguments).arg("--config").arg(self.path("relaykeeper.toml")).output().unwrap()
    }

    /// What a command says on both outputs, and its exit code.
    fn says(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let output = self.run(arguments);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (text.replace(&format!("{}/", self.folder.path().display()), ""), output.status.code())
    }

    /// The action of the policy service for mail of a sender who logged in over TLS.
    fn action(&self, sender: &str) -> String {
        let mut stream = UnixStream::connect(self.path("policy.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let instance = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=192.0.2.7\n\
             client_port=4711\nhelo_name=mx.example\nsender={sender}\nrecipient=bob@dest.example\ninstance=1.2.3.{instance}\n\
             sasl_method=PLAIN\nsasl_username={sender}\nencryption_protocol=TLSv1.3\n\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(&mut stream).read_line(&mut answer).unwrap();
        answer.trim_end().trim_start_matches("action=").to_owned()
    }
}

impl Daemon {
    fn await_line(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.lines.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let mut line = String::new();
            let length = self.log.read_line(&mut line).unwrap();
            assert!(length > 0 && Instant::now() < deadline, "no {part:?} in {:#?}", self.lines);
            self.lines.push(line.trim_end().to_owned());
        }
    }

    fn terminate(&mut self) {
        // SAFETY: a number; the child was not waited for, so nobody else has its ID.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.log.read_to_end(&mut Vec::new());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn customer(name: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\ndomains = [\"{name}.example\"]\nlicenses = 1\n{rest}\n\
         [[setting]]\nname = \"login\"\nallowed_senders = \"own-domains\"\nrequire_auth = true\n"
    )
}

#[test]
fn commands_reach_the_daemon_whatever_is_wrong_with_the_main_file() {
    let mut site = Site::new();
    site.write_customer("acme", "[[user]]\naddress = \"ann@acme.example\"");
    site.start();
    let good = site.main();
    for bad in [
        good.replace("[relay]", "[relay"),
        good.replace("hostname", "hostnam"),
        good.replace("[listen]\n", "[listen]\nmilter = [\n"),
    ] {
        site.write("relaykeeper.toml", &bad);
        let (words, code) = site.says(&["user", "suspend", "ann@acme.example", "--why", "spam"]);
        assert_eq!(code, Some(0), "{words}");
        assert!(site.action("ann@acme.example").contains("spam"), "{}", site.action("ann@acme.example"));
        let (words, code) = site.says(&["user", "resume", "ann@acme.example"]);
        assert_eq!(code, Some(0), "{words}");
        let (words, code) = site.says(&["status"]);
        assert!(code == Some(0) && words.contains("customers"), "{words}");

        let (words, code) = site.says(&["reload", "--why", "a change"]);
        assert!(
            code == Some(1) && words.contains("relaykeeper.toml:") && words.contains("nothing has changed"),
            "{words}"
        );
        let (audit, code) = site.says(&["audit"]);
        assert!(code == Some(0) && audit.contains("a change"), "{audit}");
    }
    let (audit, _) = site.says(&["audit"]);
    assert_eq!(audit.matches("rejected").count(), 3, "{audit}");
}

#[test]
fn what_the_running_daemon_holds_is_no_error_of_check() {
    let mut site = Site::new();
    site.write_customer("acme", "");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let main = site.main() + "[mail]\nsendmail = \"/bin/true\"\n";
    let main = main.replace("[relay]", &format!("socketmap = [\"inet:localhost:{port}\"]\n[relay]"));
    site.write("relaykeeper.toml", &main);
    site.start();
    let (words, code) = site.says(&["check"]);
    assert!(code == Some(0) && words.starts_with("configuration is good"), "{words}");
    // The same port, otherwise called.
    site.write("relaykeeper.toml", &main.replace("localhost", "127.0.0.1"));
    assert_eq!(site.says(&["check"]).1, Some(0));
    // Another configuration would not get it.
    site.write("relaykeeper.toml", &main.replace("control.sock", "other.sock"));
    let (words, code) = site.says(&["check"]);
    assert!(code == Some(1) && words.contains("in use"), "{words}");
}

#[test]
fn the_last_good_copy_of_a_customer_survives_a_restart() {
    let mut site = Site::new();
    site.write_customer("acme", "users_file = \"acme.users\"");
    site.write("customers.d/acme.users", "ann@acme.example\n");
    site.write_customer("bolt", "");
    site.start();
    assert_eq!((site.action("x@acme.example"), site.action("x@bolt.example")), ("DUNNO".into(), "DUNNO".into()));

    // Broken, reloaded, restarted; and once more, as the copy is not lost by being used.
    site.write_customer("acme", "licences = 5");
    assert_eq!(site.says(&["reload"]).1, Some(1));
    for _ in 0..2 {
        site.restart();
        assert_eq!(site.action("x@acme.example"), "DUNNO");
        let line = site.await_line("the last good copy of customer");
        assert!(line.contains("acme.toml"), "{line}");
        let (status, _) = site.says(&["status"]);
        assert!(status.contains("acme.toml: the last good copy of customer \"acme\""), "{status}");
        // Without a user of its users file it would not be the same customer.
        assert!(site.says(&["quota", "show", "ann@acme.example"]).0.contains("ann@acme.example"));
    }

    // Broken while the daemon is down, and a users file that is gone.
    site.write_customer("acme", "users_file = \"acme.users\"");
    assert_eq!(site.says(&["reload"]).1, Some(0));
    site.stop();
    site.remove("customers.d/acme.users");
    site.write("customers.d/bolt.toml", "name = \"bolt");
    site.start();
    assert_eq!((site.action("x@acme.example"), site.action("x@bolt.example")), ("DUNNO".into(), "DUNNO".into()));

    // It dies with its file, also while the daemon is down.
    site.stop();
    site.remove("customers.d/bolt.toml");
    site.start();
    assert!(site.action("x@bolt.example").starts_with("550"), "{}", site.action("x@bolt.example"));
    site.write("customers.d/bolt.toml", "name = \"bolt\"\ndomains = [\"bolt.example\"]\n");
    site.restart();
    assert!(site.action("x@bolt.example").starts_with("451"), "{}", site.action("x@bolt.example"));

    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(site.path("store/last-good.db")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn who_had_a_domain_has_it_after_a_restart_too() {
    let mut site = Site::new();
    site.write_customer("m", "");
    site.start();
    site.stop();
    // First by name, so at a first start it would be theirs.
    site.write("customers.d/a.toml", &customer("a", "").replace("\"a.example\"", "\"a.example\", \"m.example\""));
    site.start();
    assert_eq!(site.action("x@m.example"), "DUNNO");
    assert!(site.action("x@a.example").starts_with("451"), "{}", site.action("x@a.example"));
}

#[test]
fn no_customers_are_left_by_mistake() {
    let mut site = Site::new();
    site.start();
    assert!(
        site.action("x@acme.example").starts_with("550"),
        "a fresh installation starts: {}",
        site.action("x@acme.example")
    );
    site.write_customer("acme", "");
    assert_eq!(site.says(&["reload"]).1, Some(0));
    site.remove("customers.d/acme.toml");
    let (words, code) = site.says(&["reload"]);
    assert!(
        code == Some(1) && words.contains("no customer would be left") && words.contains("--allow-no-customers"),
        "{words}"
    );
    assert_eq!(site.action("x@acme.example"), "DUNNO");

    site.restart();
    site.await_line("all customer files are gone");
    assert!(site.action("x@acme.example").starts_with("451"), "{}", site.action("x@acme.example"));
    assert!(site.says(&["status"]).0.contains("all customer files are gone"));
    // It is still not known whether that is right.
    site.says(&["reload"]);
    assert!(site.action("x@acme.example").starts_with("451"), "{}", site.action("x@acme.example"));
    site.restart();
    assert!(site.action("x@acme.example").starts_with("451"), "{}", site.action("x@acme.example"));

    let (words, code) = site.says(&["reload", "--allow-no-customers"]);
    assert_eq!(code, Some(0), "{words}");
    assert!(site.action("x@acme.example").starts_with("550"), "{}", site.action("x@acme.example"));
    site.restart();
    assert!(site.action("x@acme.example").starts_with("550"), "{}", site.action("x@acme.example"));
}
