//! The process is killed under load, at random moments; then the books have to balance: whatever was accepted is counted,
//! and nothing is that was never sent.

use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::Sync;
use relaykeeper::directory::{CustomerLimits, Limit, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

const FOLDER: &str = "RELAYKEEPER_TEST_FOLDER";
const SESSIONS: usize = 16;
const USERS: usize = 5;

#[test]
fn killed_ten_times_nothing_accepted_is_uncounted() {
    kill_and_balance(10);
}

#[test]
#[ignore = "takes minutes: for releases"]
fn killed_a_hundred_times_nothing_accepted_is_uncounted() {
    kill_and_balance(100);
}

fn kill_and_balance(times: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut books = Books::default();
    for round in 0..times {
        Worker::start(folder.path()).end_at_random(round, &mut books, || {});
        books.balance(folder.path());
    }
    books.assert_load(times);
}

/// By user: how many messages were sent, and how many were accepted.
#[derive(Default)]
pub struct Books {
    sent: BTreeMap<usize, u64>,
    accepted: BTreeMap<usize, u64>,
}

/// A process that sends as fast as it can.
pub struct Worker(Child);

impl Worker {
    pub fn start(folder: &Path) -> Worker {
        Worker(worker_by(Command::new("env"), "crash::send_until_killed", folder))
    }

    /// Lets it send for a while, then has `strike` happen, and kills it.
    pub fn end_at_random(mut self, round: u64, books: &mut Books, strike: impl FnOnce()) {
        let output = BufReader::new(self.0.stdout.take().expect("the worker's output"));
        let (first_accepted, has_accepted) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for line in output.lines().map_while(Result::ok) {
                    let Some((what, user)) = line.split_once(' ') else { continue };
                    let Ok(user) = user.parse() else { continue };
                    match what {
                        "sent" => *books.sent.entry(user).or_default() += 1,
                        "accepted" => {
                            *books.accepted.entry(user).or_default() += 1;
                            // Only the first is waited for.
                            let _ = first_accepted.send(());
                        }
                        _ => {}
                    }
                }
            });
            has_accepted.recv_timeout(Duration::from_secs(60)).expect("something is accepted");
            // The random moment is the point here: nothing is awaited.
            let seed = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.0.id());
            std::thread::sleep(Duration::from_micros(seed % 400_000));
            strike();
            self.0.kill().expect("the worker is there");
        });
        self.0.wait().expect("the worker ended");
    }
}

impl Books {
    /// Whatever was accepted is counted, and nothing is that was never sent.
    pub fn balance(&self, folder: &Path) {
        runtime().block_on(async {
            let ledger = Ledger::open(folder, Sync::Full, RESERVATION_TIMEOUT).expect("the store opens after a crash");
            let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
            let mut recipients = 0;
            for (&user, &sent) in &self.sent {
                let accepted = self.accepted.get(&user).copied().unwrap_or(0);
                let subject = Subject { kind: SubjectKind::User, customer: "acme".into(), name: name(user).into() };
                let usage = ledger.usage(&subject, &unlimited).await.expect("the store loads after a crash");
                let (messages, uniques) = (usage[0].used, usage[1].used);
                assert!(accepted <= messages && messages <= sent, "{user}: {accepted} <= {messages} <= {sent}");
                assert_eq!(uniques, 2 * messages, "a message is there with all its recipients, or not at all");
                recipients += uniques;
            }
            let subject = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
            let usage = ledger.usage(&subject, &unlimited).await.expect("the store loads after a crash");
            assert_eq!(usage[0].used, recipients, "the customer's count is the sum of its users'");
            ledger.close().await;
        });
    }

    pub fn assert_load(&self, rounds: u64) {
        assert!(self.accepted.values().sum::<u64>() > rounds * 10, "the load was one: {:?}", self.accepted);
    }
}

/// Runs one of the ignored tests of this program as a process of its own, by a command that runs its further arguments.
pub fn worker_by(mut command: Command, test: &str, folder: &Path) -> Child {
    command
        .arg(this_program())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the worker starts")
}

/// The path of this program. In a namespace of mounts that was made since its start, in a container or chroot, the kernel
/// may name another one, as seen from outside: so whoever makes one asks before.
pub fn this_program() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| std::env::current_exe().expect("this program has a path"));
    &PATH
}

/// The folder that the process of a worker was started for; none if somebody just runs all ignored tests.
pub fn folder_of_worker() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(Into::into)
}

fn name(user: usize) -> String {
    format!("user{user}@acme.example")
}

/// Sends as fast as it can until it is killed.
#[test]
#[ignore = "the process that the others kill"]
fn send_until_killed() {
    let Some(folder) = folder_of_worker() else { return };
    say("\n"); // ends what the test harness has begun
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&folder, Sync::Full, RESERVATION_TIMEOUT).expect("the store opens");
        let sessions: Vec<_> =
            (0..SESSIONS).map(|session| tokio::spawn(send(ledger.clone(), session, std::process::id()))).collect();
        for session in sessions {
            session.await.expect("a session never ends");
        }
    });
}

async fn send(ledger: Ledger, session: usize, process: u32) {
    let limits = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
    for message in 0u64.. {
        let user = (message as usize + session) % USERS;
        let parties = Parties { customer: "acme".into(), user: Some(name(user).into()), login: None };
        let keys = [1, 2].map(|n| ledger.recipient_key(&format!("{process}.{session}.{message}.{n}@x.example")));
        let id = ledger.new_reservation();
        let reserved = ledger.reserve(id, &parties, &limits, keys[0]).await.expect("the store answers");
        assert!(reserved.fits());
        say(&format!("sent {user}\n"));
        let kept = AcceptedRecipients { named: &keys, unnamed: 0 };
        let answer = ledger.commit(id, &parties, &limits, kept).await.expect("the disk takes it");
        assert!(answer.fits());
        say(&format!("accepted {user}\n"));
    }
}

/// In one write(2), so that no line is ever cut.
fn say(line: &str) {
    std::io::stdout().write_all(line.as_bytes()).expect("somebody reads");
}
