//! A configuration made of text, and a daemon's heart that runs on it, with a clock that the test moves.

use super::smtpd::Smtpd;
use relaykeeper::abuse::AcceptedMessage;
use relaykeeper::administration::Administration;
use relaykeeper::audit::{Actor, Instruction};
use relaykeeper::clock::{ManualClock, Moment};
use relaykeeper::config::{self, Configuration};
use relaykeeper::control::find_subject;
use relaykeeper::directory::{LimitName, Parties, Subject, SubjectKind};
use relaykeeper::envelope::Address;
use relaykeeper::ledger::{Ledger, LimitUsage};
use relaykeeper::listen::{self, ListenAddress, Origin, Peer, Phase, SocketOptions, bind};
use relaykeeper::milter::MilterService;
use relaykeeper::orders::{Target, TargetKind};
use relaykeeper::policy_service::PolicyService;
use relaykeeper::report::sink::memory::{Memory, MemoryLines};
use relaykeeper::report::{Level, Logger};
use relaykeeper::session::{Engine, Snapshot};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

/// Where every test's time begins: 2027-01-15 08:00:00 UTC.
pub const START: Moment = Moment::from_seconds(1_800_000_000);

/// Configuration files, loaded.
pub struct Installation {
    folder: TempDir,
    pub loaded: Configuration,
}

impl Installation {
    /// `customers` are file names within `customers.d`, and texts; passwords may be among them (mode 0600).
    ///
    /// # Panics
    /// If the main file has errors. Those of customers' files are in [`Configuration::problems`].
    pub fn of<'a>(main: &str, customers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Installation {
        let folder = tempfile::tempdir().unwrap();
        let customers_d = folder.path().join("customers.d");
        std::fs::create_dir(&customers_d).unwrap();
        for (name, text) in customers {
            write_private(&customers_d.join(name), text);
        }
        std::fs::write(folder.path().join("relaykeeper.toml"), main).unwrap();
        let loaded = load(folder.path());
        Installation { folder, loaded }
    }

    /// As after a reload with another main file.
    pub fn with_main(&self, main: &str) -> Snapshot {
        std::fs::write(self.folder.path().join("relaykeeper.toml"), main).unwrap();
        Snapshot::from(&load(self.folder.path()))
    }

    /// As after a reload with another file of a customer.
    pub fn with_customer(&self, name: &str, text: &str) -> Snapshot {
        write_private(&self.folder.path().join("customers.d").join(name), text);
        Snapshot::from(&load(self.folder.path()))
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        let path = self.folder.path().join("customers.d").join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// With counts in memory.
    pub fn run(&self) -> Running {
        let clock = Arc::new(ManualClock::at(START));
        let timeout = self.loaded.settings.relay.reservation_timeout;
        self.run_with(Ledger::in_memory(clock.clone(), timeout), clock)
    }

    /// With a store that cannot be read.
    pub async fn run_with_unreadable_store(&self) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let store = Ledger::open(folder.path(), config::Sync::Full, Duration::from_secs(600)).unwrap();
        store.ready().await.unwrap();
        store.close().await;
        drop(store);
        let file = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
        file.execute_batch("DROP VIEW IF EXISTS messages; DROP TABLE message;").unwrap();
        let running = self.run_with(Ledger::open_read_only(folder.path()).unwrap(), Arc::new(ManualClock::default()));
        assert!(running.engine.ledger.ready().await.is_err());
        running
    }

    /// With a ledger of the test's own; the clock is that of the ledger, if it is one that tests move.
    pub fn run_with(&self, ledger: Ledger, clock: Arc<ManualClock>) -> Running {
        let (sink, log) = Memory::new();
        let logger = Logger::start(Level::Debug, Box::new(sink)).unwrap();
        let engine = Engine::new(Snapshot::from(&self.loaded), ledger, Administration::in_memory(), logger);
        Running {
            policy: PolicyService::new(engine.clone()),
            engine,
            clock,
            log,
            sockets: tempfile::tempdir().unwrap(),
        }
    }
}

fn write_private(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn load(folder: &Path) -> Configuration {
    match config::load(&folder.join("relaykeeper.toml")) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{}", problems.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n")),
    }
}

/// An engine with its services.
pub struct Running {
    pub engine: Arc<Engine>,
    pub clock: Arc<ManualClock>,
    pub policy: Arc<PolicyService>,
    log: MemoryLines,
    sockets: TempDir,
}

/// A milter service on a unix socket, until dropped.
pub struct Milter {
    pub path: PathBuf,
    pub port: Option<u16>,
    pub phase: watch::Sender<Phase>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub fn start_milter(&self) -> Milter {
        self.start_milter_with(true)
    }

    pub fn start_milter_with(&self, policy_too: bool) -> Milter {
        let path = self.sockets.path().join(format!("{}.sock", self.sockets.path().read_dir().unwrap().count()));
        let address = format!("unix:{}", path.display()).parse().unwrap();
        self.serve_milter(&address, path, policy_too)
    }

    /// On a free port of 127.0.0.1.
    pub fn start_milter_on_tcp(&self) -> (Milter, u16) {
        let milter = self.serve_milter(&"inet:127.0.0.1:0".parse().unwrap(), PathBuf::new(), true);
        let port = milter.port.unwrap();
        (milter, port)
    }

    fn serve_milter(&self, address: &ListenAddress, path: PathBuf, policy_too: bool) -> Milter {
        let listener = bind(address, &SocketOptions::default(), "listen.milter", &self.engine.log).unwrap();
        let port = listener.local_port();
        let service = MilterService::new(self.engine.clone(), policy_too);
        let phase = watch::Sender::default();
        let task = tokio::spawn(listen::serve(service, listener, phase.subscribe()));
        Milter { path, port, phase, task }
    }

    /// An smtpd process of this machine.
    pub fn smtpd(&self, pid: u32) -> Smtpd {
        self.smtpd_of(Peer::Local, pid)
    }

    pub fn smtpd_of(&self, origin: impl Into<Origin>, pid: u32) -> Smtpd {
        Smtpd::connect(&self.policy, origin, pid)
    }

    /// As an administrator: `client:RANGE`, `login:LOGIN`, a user by address, else a customer by name.
    pub async fn suspend(&self, name: &str, why: &str) {
        self.engine.administration.suspend(self.target(name), None, self.instruction(why)).await.unwrap();
    }

    pub async fn resume(&self, name: &str) {
        self.engine.administration.resume(self.target(name), self.instruction("")).await.unwrap();
    }

    pub async fn resume_all(&self) {
        for suspension in self.engine.administration.orders().suspensions() {
            let target = suspension.target.clone();
            self.engine.administration.resume(target, self.instruction("")).await.unwrap();
        }
    }

    fn target(&self, name: &str) -> Target {
        match name.split_once(':') {
            Some(("client", range)) => Target::client(range.parse().unwrap()),
            Some(("login", login)) => Target { kind: TargetKind::Login, customer: "".into(), name: login.into() },
            _ => find_subject(name, &self.engine.snapshot().directory).unwrap().0.into(),
        }
    }

    /// More for so long.
    pub async fn grant(&self, name: &str, limit: LimitName, more: u64, time: Duration) {
        let (subject, _) = find_subject(name, &self.engine.snapshot().directory).unwrap();
        let until = self.engine.wall_time() + time;
        self.engine.administration.grant(subject, limit, more, until, self.instruction("fair")).await.unwrap();
    }

    /// The user sent spam: enough for `spam_count = 1`.
    pub fn mark_as_spammer(&self, address: &str) {
        let snapshot = self.engine.snapshot();
        let (subject, _) = find_subject(address, &snapshot.directory).unwrap();
        let parties = Parties { customer: subject.customer, user: Some(subject.name), login: None };
        let message = AcceptedMessage { parties: &parties, client: None, is_marked: true };
        let settings = snapshot.settings.abuse.as_ref().expect("[abuse] is configured");
        self.engine.watch.accepted(&message, [1].into_iter(), settings, self.engine.ledger.now());
    }

    /// A letter of relaykeeper's own is on its way.
    pub fn hand_over_own_mail_to(&self, address: &str) {
        self.engine.own_mail.note_handed_over(&[Address::from_internal(address).unwrap()]);
    }

    fn instruction(&self, why: &str) -> Instruction {
        Instruction { by: Actor::Daemon, at: self.engine.wall_time(), why: why.to_owned() }
    }

    /// Every line logged so far.
    pub fn log_lines(&self) -> Vec<String> {
        assert!(self.engine.log.flush(super::PATIENCE), "the log is written");
        self.log.all().into_iter().map(|(_, line)| line).collect()
    }

    pub fn pass_time(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// What is counted and reserved: of a user for an address, else of a customer.
    pub async fn usage(&self, name: &str) -> Vec<LimitUsage> {
        let directory = self.engine.snapshot().directory.clone();
        let (subject, customer) = match name.rsplit_once('@') {
            None => {
                let customer = directory.customer(name).unwrap_or_else(|| panic!("no customer {name}"));
                (Subject { kind: SubjectKind::Customer, customer: name.into(), name: name.into() }, customer.clone())
            }
            Some(_) => {
                let customer = directory.customers().find(|customer| customer.users.find(name).is_some());
                let customer = customer.unwrap_or_else(|| panic!("no user {name}"));
                let subject = Subject { kind: SubjectKind::User, customer: customer.name.clone(), name: name.into() };
                (subject, customer.clone())
            }
        };
        self.engine.ledger.usage(&subject, &customer.limits).await.unwrap()
    }

    /// Counted within the window of one limit.
    pub async fn used(&self, name: &str, limit: LimitName) -> u64 {
        self.usage(name).await.iter().find(|usage| usage.limit == limit).unwrap().used
    }

    /// Recipients of a customer: counted within a day, and reserved.
    pub async fn counted_and_reserved(&self, customer: &str) -> (u64, u64) {
        let usage = self.usage(customer).await;
        let day = usage.iter().find(|usage| usage.limit == LimitName::CustomerDay).unwrap();
        (day.used, day.reserved)
    }

    /// Waits until every milter session is over and all that was given up is released.
    pub async fn settle(&self) {
        super::until("all sessions are over", async || self.engine.sessions.is_empty() && self.holds_nothing().await)
            .await;
    }

    /// Whether nobody holds a reservation.
    pub async fn holds_nothing(&self) -> bool {
        for customer in self.engine.snapshot().directory.customers() {
            let users = customer.users.iter().map(|user| user.address.clone());
            for name in users.chain([customer.name.clone()]) {
                if self.usage(&name).await.iter().any(|usage| usage.reserved > 0) {
                    return false;
                }
            }
        }
        self.engine.open_transactions.count() == 0
    }
}

impl Drop for Milter {
    fn drop(&mut self) {
        self.task.abort();
    }
}
