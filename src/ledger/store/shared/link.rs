//! The one connection, and what to do when it fails: deadline, retry, circuit breaker.
//!
//! A question has [`DEADLINE`] in all and [`TRY`] each time it is asked. When a server could not be reached it counts as
//! away: questions fail at once, while a task of its own tries again and again. What a question changes may be asked for
//! twice (see the module above), so it is asked again whenever it is not known what became of it.

use super::lane::Lane;
use super::question::Question;
use super::scripts::{self, Asked, Script};
use super::server::{Connection, Servers, in_words, is_unknown_command};
use super::shared_store::ServerTime;
use arc_swap::ArcSwap;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a question may take in all.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long an answer may take.
pub(super) const TRY: Duration = Duration::from_secs(1);
/// How long a new connection may take, greeting included; and what of that can be done without.
const CONNECT: Duration = Duration::from_secs(4);
const PREPARE: Duration = Duration::from_millis(500);
/// Between two attempts to connect, and between two attempts to ask: first and longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// A cluster is given up after so many failures without a success.
const FAILURES: u32 = 4;
/// A cluster of which a part does not answer is looked at afresh, while the rest goes on; so long between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The key that tells whose data these are, their version, and the secret that recipients' addresses are hashed with.
const STORE: &str = "store";
const VERSION: &str = "relaykeeper 1 ";

/// Why the store cannot be asked.
pub(super) type Trouble = Arc<str>;

/// A connection that is kept open.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    servers: Servers,
    prefix: String,
    time: ServerTime,
    state: watch::Sender<State>,
    broken: Notify,
    doubted: Notify,
    failures: AtomicU32,
    connections: AtomicU64,
    /// What is wrong, for people.
    trouble: watch::Sender<Option<Trouble>>,
    has_trouble: AtomicBool,
    /// What an administrator should change.
    advice: watch::Sender<Option<Arc<str>>>,
    /// Until the store told its own: ours, which becomes the store's if it is the first.
    hash_key: ArcSwap<[u8; 16]>,
}

#[derive(Clone)]
enum State {
    Connecting,
    Up(u64, Arc<Lane>),
    Away(Trouble),
}

impl Link {
    pub fn new(servers: Servers, prefix: String, time: ServerTime, hash_key: [u8; 16]) -> Link {
        let shared = Shared {
            servers,
            prefix,
            time,
            state: watch::Sender::new(State::Connecting),
            broken: Notify::new(),
            doubted: Notify::new(),
            failures: AtomicU32::new(0),
            connections: AtomicU64::new(0),
            trouble: watch::Sender::new(None),
            has_trouble: AtomicBool::new(false),
            advice: watch::Sender::new(None),
            hash_key: ArcSwap::from_pointee(hash_key),
        };
        Link { shared: Arc::new(shared), task: OnceLock::new() }
    }

    /// Has a script answer a question.
    ///
    /// # Errors
    /// The servers are away, or refuse. Whether the script ran is not known then.
    pub async fn ask(&self, script: &'static Script, question: Question) -> Result<Value, Trouble> {
        self.retrying(&Arc::new(Asked { script, question })).await
    }

    /// Waits until the servers can be asked.
    ///
    /// # Errors
    /// They are away.
    pub async fn ready(&self) -> Result<(), Trouble> {
        self.connection(Instant::now() + DEADLINE).await.map(drop)
    }

    /// Waits until the servers can be asked, however long that takes.
    pub async fn up(&self) {
        self.start();
        let mut state = self.shared.state.subscribe();
        let _ = state.wait_for(|state| matches!(state, State::Up(..))).await;
    }

    /// Whether the servers are known to be away, so that nothing is asked.
    pub fn is_away(&self) -> bool {
        self.start();
        matches!(*self.shared.state.borrow(), State::Away(_))
    }

    /// For commands other than scripts.
    pub async fn connected(&self) -> Result<Connection, Trouble> {
        self.connection(Instant::now() + DEADLINE).await.map(|(_, lane)| lane.connection().clone())
    }

    /// What is wrong, and changes of it.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.shared.trouble.subscribe()
    }

    /// What an administrator should change at the servers, and changes of it.
    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.advice.subscribe()
    }

    pub fn is_connecting(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Connecting)
    }

    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.shared.hash_key.load_full()
    }

    async fn retrying(&self, asked: &Arc<Asked>) -> Result<Value, Trouble> {
        let deadline = Instant::now() + DEADLINE;
        let mut pause = ASK_AGAIN.0;
        loop {
            let (id, lane) = self.connection(deadline).await?;
            let answer = within_try(deadline, lane.ask(asked)).await;
            let failure = match answer {
                Ok(value) => {
                    self.shared.works();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            let why: Trouble = failure.in_words().into();
            if failure.is_final() || Instant::now() + pause >= deadline {
                self.shared.note_trouble(Some(why.clone()));
                if !failure.is_final() {
                    self.shared.failed(id, lane.connection(), &failure);
                }
                return Err(why);
            }
            self.shared.failed(id, lane.connection(), &failure);
            sleep(pause).await;
            pause = (pause * 2).min(ASK_AGAIN.1);
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<(u64, Arc<Lane>), Trouble> {
        self.start();
        match &*self.shared.state.borrow() {
            State::Up(id, lane) => return Ok((*id, lane.clone())),
            State::Away(why) => return Err(why.clone()),
            State::Connecting => {}
        }
        let mut state = self.shared.state.subscribe();
        let known = timeout_at(deadline, state.wait_for(|state| !matches!(state, State::Connecting))).await;
        let Ok(Ok(state)) = known else { return Err("no connection to the servers".into()) };
        match &*state {
            State::Up(id, lane) => Ok((*id, lane.clone())),
            State::Away(why) => Err(why.clone()),
            State::Connecting => Err("no connection to the servers".into()),
        }
    }

    fn start(&self) {
        self.task.get_or_init(|| tokio::spawn(keep_connected(self.shared.clone())).abort_handle());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Shared {
    fn works(&self) {
        self.failures.store(0, Ordering::Relaxed);
        if self.has_trouble.load(Ordering::Relaxed) {
            self.note_trouble(None);
        }
    }

    fn note_trouble(&self, trouble: Option<Trouble>) {
        self.has_trouble.store(trouble.is_some(), Ordering::Relaxed);
        self.trouble.send_if_modified(|before| {
            let is_news = before.is_some() != trouble.is_some();
            *before = trouble;
            is_news
        });
    }

    fn note_advice(&self, advice: Option<Arc<str>>) {
        self.advice.send_if_modified(|before| {
            let is_news = *before != advice;
            *before = advice;
            is_news
        });
    }

    /// A connection on which a question failed.
    fn failed(&self, id: u64, connection: &Connection, failure: &Failure) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if !failure.breaks() {
            return;
        }
        // In a cluster most servers may be well.
        if connection.is_cluster() && failures < FAILURES {
            // Its client finds out by itself what has moved, but not that a server does not answer any more.
            if matches!(*self.state.borrow(), State::Up(current, _) if current == id) {
                self.doubted.notify_one();
            }
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        let was_open = self.state.send_if_modified(|state| {
            let is_it = matches!(state, State::Up(current, _) if *current == id);
            if is_it {
                *state = State::Connecting;
            }
            is_it
        });
        if was_open {
            self.broken.notify_one();
        }
    }

    /// Connects, and learns or decides what the store's secret is.
    async fn establish(&self) -> Result<Connection, String> {
        let connection = self.servers.connect().await?;
        let key = format!("{}{STORE}", self.prefix);
        let own: String = self.hash_key.load().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(format!("{VERSION}{own}")).arg("NX");
        connection.ask(&set).await.map_err(|error| in_words(&error))?;
        let found = connection.ask(redis::cmd("GET").arg(&key)).await.map_err(|error| in_words(&error))?;
        let found: String = redis::from_redis_value(found).map_err(|error| error.to_string())?;
        let hash_key = found.strip_prefix(VERSION).and_then(read_hash_key);
        let hash_key =
            hash_key.ok_or_else(|| format!("{key}: another version of relaykeeper, or another program, uses it"))?;
        self.hash_key.store(Arc::new(hash_key));
        // Of no script: a server that runs scripts says that it does not know this one.
        let none = redis::cmd("EVALSHA").arg("0".repeat(40)).arg(1).arg(&key).to_owned();
        if let Err(error) = connection.ask(&none).await
            && is_unknown_command(&error)
        {
            return Err("the server runs no scripts: it does not know EVALSHA".to_owned());
        }
        // Questions then arrive in the order in which they were asked. A server that does not know a script, or does not let
        // us load it, is told the script with the question.
        let _ = timeout(PREPARE, async {
            for load in scripts::load() {
                let _ = connection.ask_all(load).await;
            }
            let evicts = connection.evicts().await;
            let advice = evicts.map(|policy| {
                format!(
                    "the store may forget counts when its memory is full (maxmemory-policy {policy}): set noeviction"
                )
            });
            self.note_advice(advice.map(Into::into));
        })
        .await;
        Ok(connection)
    }

    fn up(&self, connection: Connection) {
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        let lane = Lane::new(connection, self.time.clone());
        self.state.send_replace(State::Up(id, Arc::new(lane)));
    }

    /// Returns when the connection is broken.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.broken.notified() => return,
                () = self.doubted.notified() => {
                    if let Ok(Ok(connection)) = timeout(CONNECT, self.establish()).await {
                        self.up(connection);
                    }
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("trouble", &*self.trouble.borrow()).finish_non_exhaustive()
    }
}

async fn keep_connected(shared: Arc<Shared>) {
    let mut pause = RECONNECT.0;
    loop {
        let established = timeout(CONNECT, shared.establish()).await;
        match established.unwrap_or_else(|_| Err("the server does not answer".to_owned())) {
            Ok(connection) => {
                shared.up(connection);
                shared.note_trouble(None);
                pause = RECONNECT.0;
                shared.watch().await;
            }
            Err(why) => {
                let why: Trouble = why.into();
                shared.state.send_replace(State::Away(why.clone()));
                shared.note_trouble(Some(why));
                sleep(pause).await;
                pause = (pause * 2).min(RECONNECT.1);
            }
        }
    }
}

fn read_hash_key(hex: &str) -> Option<[u8; 16]> {
    let mut key = [0; 16];
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (place, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(key)
}

/// What became of one attempt.
enum Failure {
    Error(RedisError),
    NoAnswer,
}

impl Failure {
    /// Asking again would not help.
    fn is_final(&self) -> bool {
        let Failure::Error(error) = self else { return false };
        match error.kind() {
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::Parse => false,
            ErrorKind::Server(kind) => !matches!(
                kind,
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
            ),
            _ => !error.is_io_error(),
        }
    }

    /// Another connection may help.
    fn breaks(&self) -> bool {
        match self {
            Failure::NoAnswer => true,
            Failure::Error(error) => {
                let server = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown, ServerErrorKind::ClusterDown];
                let is_unreached = error.is_io_error() || error.kind() == ErrorKind::ClusterConnectionNotFound;
                is_unreached || server.iter().any(|kind| error.kind() == ErrorKind::Server(*kind))
            }
        }
    }

    fn in_words(&self) -> String {
        match self {
            Failure::Error(error) => in_words(error),
            Failure::NoAnswer => "the server does not answer".to_owned(),
        }
    }
}

async fn within_try(
    deadline: Instant,
    answer: impl Future<Output = redis::RedisResult<Value>>,
) -> Result<Value, Failure> {
    match timeout_at(deadline.min(Instant::now() + TRY), answer).await {
        Ok(answer) => answer.map_err(Failure::Error),
        Err(_) => Err(Failure::NoAnswer),
    }
}
