//! What a decision costs with the shared store, compared with the embedded one and with the server's best: prints tables.
//!
//! ```text
//! cargo bench --bench shared_store                     # all of it: two minutes
//! cargo bench --bench shared_store -- shared bare 16   # some of: embedded shared bare floor; and how many sessions
//! cargo bench --bench shared_store -- shared starts 16 # beside a store that a thousand daemons have used
//! cargo bench --bench shared_store --features test-clock -- days 16 64
//! ```
//!
//! `starts`: as `shared`, after [`STARTS`] daemons that each counted a message of every customer and ended. Only when it is named.
//!
//! `days`: as `shared`, but days pass meanwhile, [`MESSAGES_A_DAY`] of each user, so that with nearly each message older ones
//! leave the windows.
//!
//! Starts a private server on a unix socket in `$TMPDIR`, or `/var/tmp`: `redis-server`, or what `REDIS_SERVER` names.

mod common;

use common::{Folder, Random};
use redis::aio::MultiplexedConnection;
#[cfg(feature = "test-clock")]
use relaykeeper::clock::{Clock, Moment};
use relaykeeper::config::{OnOutage, Sync};
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, RecipientKey};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const RESERVATION_TIMEOUT: Duration = Duration::from_secs(600);
const USERS: usize = 1_000;
const USERS_PER_CUSTOMER: usize = 10;
const REMEMBERED: usize = 20;
const MESSAGES_A_DAY: usize = 20;
const STARTS: usize = 1_000;
const MEASURED: Duration = Duration::from_secs(4);
/// One user in so many has also logged in.
const LOGINS: usize = 4;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let sessions = if numbers.is_empty() { vec![1, 16, 64] } else { numbers };
    let names: Vec<&String> = words.iter().filter(|word| word.parse::<usize>().is_err()).collect();
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    println!(
        "calls: a reservation, then the commit of its message, each with a user and every limit set; at first nobody has logged \
         in, then one in {LOGINS}; {USERS} users with {REMEMBERED} remembered recipients or more, half of the recipients new"
    );
    println!(
        "{:>9} {:>8} {:>6} {:>10} {:>8} {:>8} {:>13} {:>13}",
        "store", "sessions", "logins", "calls/s", "p50 µs", "p99 µs", "client µs/call", "server µs/call"
    );
    // As the daemon: one thread for two cores.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime");
    for (logins, sessions) in
        [0, LOGINS].into_iter().flat_map(|logins| sessions.iter().map(move |&sessions| (logins, sessions)))
    {
        let mut rates = [None; 6];
        for (place, name) in ["embedded", "shared", "bare", "floor", "days", "starts"].into_iter().enumerate() {
            let is_possible = match name {
                "days" => cfg!(feature = "test-clock"),
                "starts" => !names.is_empty(),
                _ => true,
            };
            if is_wanted(name) && is_possible {
                rates[place] = Some(runtime.block_on(measure(name, sessions, logins)));
            }
        }
        for (place, name) in [(2, "the bare call's rate"), (3, "the rate of its reads and writes alone")] {
            if let (Some(shared), Some(other)) = (rates[1], rates[place]) {
                println!("{sessions} sessions, logins {logins}: the shared store has {:.2} of {name}", shared / other);
            }
        }
    }
}

/// Calls a second.
async fn measure(name: &str, sessions: usize, logins: usize) -> f64 {
    let folder = Folder::new();
    if name == "embedded" {
        let ledger = Ledger::open(&folder.0, Sync::Full, RESERVATION_TIMEOUT).expect("the store opens");
        ledger.ready().await.expect("the store is ready");
        fill(&ledger, logins).await;
        return run(name, (sessions, logins), None, Arc::new(Calls::Ledger(ledger, Arc::default()))).await;
    }
    let server = Server::start(&folder);
    let connection = server.connection().await;
    let calls = match name {
        "shared" | "starts" => {
            if name == "starts" {
                start_often(&server.url()).await;
            }
            let ledger =
                Ledger::open_shared_with_folder(&[server.url()], OnOutage::Local, &folder.0, RESERVATION_TIMEOUT)
                    .expect("a URL");
            ledger.ready().await.expect("the server answers");
            fill(&ledger, logins).await;
            Calls::Ledger(ledger, Arc::default())
        }
        #[cfg(feature = "test-clock")]
        "days" => {
            let time = Arc::new(AtomicU64::new(1_800_000_000_000));
            let clock = Arc::new(FastClock(time.clone()));
            let ledger =
                Ledger::open_shared_or_local_with_clock(&[server.url()], &folder.0, RESERVATION_TIMEOUT, clock)
                    .expect("a URL");
            ledger.ready().await.expect("the server answers");
            fill(&ledger, logins).await;
            let calls = Calls::Ledger(ledger, time);
            a_day(&calls, logins).await;
            calls
        }
        _ => Calls::bare(connection.clone(), name == "floor").await,
    };
    run(name, (sessions, logins), Some(connection), Arc::new(calls)).await
}

async fn run(
    name: &str,
    (sessions, logins): (usize, usize),
    server: Option<MultiplexedConnection>,
    calls: Arc<Calls>,
) -> f64 {
    if let Some(server) = &server {
        let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut server.clone()).await.expect("reset");
    }
    let parties = Arc::new((0..USERS).map(|user| party(user, logins)).collect::<Vec<_>>());
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let tasks: Vec<_> = (0..sessions)
        .map(|session| {
            let (calls, parties) = (calls.clone(), parties.clone());
            tokio::spawn(async move {
                let limits = limits();
                let mut random = Random(session as u64 + 1);
                let mut times = Vec::new();
                while began.elapsed() < MEASURED {
                    let user = random.below(USERS);
                    let is_new = random.below(2) == 0;
                    let key = if is_new { RecipientKey(random.next()) } else { key(user, random.below(REMEMBERED)) };
                    calls.transaction(&parties[user], &limits, key, &mut times).await;
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("the session runs"));
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    let cpu = (cpu_seconds() - cpu) * 1e6 / times.len() as f64;
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let served = match server {
        Some(server) => format!("{:.1}", server_microseconds(server).await / times.len() as f64),
        None => "-".to_owned(),
    };
    println!(
        "{name:>9} {sessions:>8} {logins:>6} {rate:>10.0} {:>8} {:>8} {cpu:>13.1} {served:>13}",
        at(0.5),
        at(0.99)
    );
    rate
}

/// The time that the server reports for scripts, without reading requests and writing responses.
async fn server_microseconds(mut server: MultiplexedConnection) -> f64 {
    let text: String = redis::cmd("INFO").arg("commandstats").query_async(&mut server).await.expect("statistics");
    let line = text.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("scripts ran");
    let number = line.split("usec=").nth(1).and_then(|rest| rest.split(',').next());
    number.and_then(|number| number.parse().ok()).expect("a number")
}

/// What is called.
enum Calls {
    /// And the time, in milliseconds since 1970, where it is not the server's.
    Ledger(Ledger, Arc<AtomicU64>),
    /// Scripts with the keys, arguments and answers of a reservation and a commit, of the same sizes.
    Bare(MultiplexedConnection, [String; 2]),
}

impl Calls {
    async fn bare(mut connection: MultiplexedConnection, has_same_commands: bool) -> Calls {
        let texts = if has_same_commands { [RESERVE, COMMIT] } else { ["return 1700000000000"; 2] };
        let mut digests = [const { String::new() }; 2];
        for (digest, text) in digests.iter_mut().zip(texts) {
            *digest = redis::cmd("SCRIPT").arg("LOAD").arg(text).query_async(&mut connection).await.expect("it loads");
        }
        Calls::Bare(connection, digests)
    }

    async fn transaction(
        &self,
        parties: &Parties,
        limits: &CustomerLimits,
        recipient: RecipientKey,
        times: &mut Vec<u32>,
    ) {
        let mut note = |began: Instant| times.push(began.elapsed().as_micros() as u32);
        match self {
            Calls::Ledger(ledger, time) => {
                time.fetch_add(BETWEEN_MESSAGES, Ordering::Relaxed);
                let id = ledger.new_reservation();
                let began = Instant::now();
                assert!(ledger.reserve(id, parties, limits, recipient).await.is_ok_and(|answer| answer.fits()));
                note(began);
                let kept = AcceptedRecipients { named: &[recipient], unnamed: 0 };
                let began = Instant::now();
                assert!(ledger.commit(id, parties, limits, kept).await.is_ok_and(|answer| answer.fits()));
                note(began);
            }
            Calls::Bare(connection, digests) => {
                let tag = format!("rk:{{{}}}", parties.customer);
                let mut keys = vec![format!("{tag}:c"), format!("{tag}:c+")];
                for (letter, name) in [("u", &parties.user), ("l", &parties.login)] {
                    if let Some(name) = name {
                        keys.extend([format!("{tag}:{letter}:{name}"), format!("{tag}:{letter}+:{name}")]);
                    }
                }
                let id = [&recipient.0.to_be_bytes()[..], &[0; 4]].concat();
                for (digest, further) in digests.iter().zip([&[][..], &[22, 6]]) {
                    let began = Instant::now();
                    let mut command = redis::cmd("EVALSHA");
                    command
                        .arg(digest)
                        .arg(keys.len())
                        .arg(&keys)
                        .arg(&[0; 44])
                        .arg(&id)
                        .arg(&recipient.0.to_be_bytes());
                    for &size in further {
                        command.arg(&[0; 22][..size]);
                    }
                    command.arg(&[0; 3]);
                    let answer = connection.clone().send_packed_command(&command).await;
                    assert!(matches!(answer, Ok(redis::Value::Int(_))));
                    note(began);
                }
            }
        }
    }
}

/// What a reservation reads and writes.
const RESERVE: &str = "
    local call = redis.call
    call('TIME')
    if KEYS[5] then call('MGET', KEYS[1], KEYS[3], KEYS[5]) else call('MGET', KEYS[1], KEYS[3]) end
    call('SETRANGE', KEYS[1], '0', string.rep('c', 99))
    for place = 3, #KEYS, 2 do call('SETRANGE', KEYS[place], '0', string.rep('u', 129)) end
    return 1700000000000";

/// What a commit reads and writes.
const COMMIT: &str = "
    local call, shard = redis.call, string.byte(ARGV[3]) % 2 == 0 and '000' or '001'
    call('TIME')
    if KEYS[5] then call('MGET', KEYS[1], KEYS[3], KEYS[5]) else call('MGET', KEYS[1], KEYS[3]) end
    call('SETRANGE', KEYS[1], '0', string.rep('c', 89))
    for place = 3, #KEYS, 2 do
      call('HGET', KEYS[place + 1], shard)
      call('SETRANGE', KEYS[place], '0', string.rep('u', 77))
      call('HSET', KEYS[place + 1], shard, string.rep('r', 180))
    end
    return 1700000000000";

/// A server of our own.
struct Server {
    process: Child,
    socket: PathBuf,
}

impl Server {
    fn start(folder: &Folder) -> Server {
        let socket = folder.0.join("socket");
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--unixsocket").arg(&socket).arg("--dir").arg(&folder.0);
        let process = command.stdout(Stdio::null()).spawn().expect("the server starts");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the server makes no socket");
            std::thread::sleep(Duration::from_millis(10));
        }
        Server { process, socket }
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        client.get_multiplexed_async_connection().await.expect("the server answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// So high that they are looked at and never met.
fn limits() -> CustomerLimits {
    CustomerLimits::new(Limit::of(100), |name| match name {
        LimitName::UserMessages | LimitName::LoginMessages => Limit::of(1_000_000_000),
        _ => Limit::of(2_000_000_000),
    })
}

/// One in so many has also logged in; 0: none.
fn party(user: usize, logins: usize) -> Parties {
    let customer = user / USERS_PER_CUSTOMER;
    Parties {
        customer: format!("customer{customer}").into(),
        user: Some(format!("user{user}@customer{customer}.example").into()),
        login: (logins > 0 && user.is_multiple_of(logins)).then(|| format!("login{user}").into()),
    }
}

/// Each user has sent to [`REMEMBERED`] recipients.
async fn fill(ledger: &Ledger, logins: usize) {
    let limits = limits();
    for user in 0..USERS {
        let named: Vec<_> = (0..REMEMBERED).map(|nth| key(user, nth)).collect();
        let kept = AcceptedRecipients { named: &named, unnamed: 0 };
        let answer = ledger.commit(ledger.new_reservation(), &party(user, logins), &limits, kept).await;
        assert!(answer.is_ok_and(|answer| answer.fits()));
    }
}

/// Daemons start, count a message of every customer, and end.
async fn start_often(url: &str) {
    let limits = limits();
    for _ in 0..STARTS {
        let ledger = Ledger::open_shared(&[url.to_owned()], OnOutage::Defer, RESERVATION_TIMEOUT).expect("a URL");
        for user in (0..USERS).step_by(USERS_PER_CUSTOMER) {
            let kept = AcceptedRecipients { named: &[key(user, 0)], unnamed: 0 };
            let answer = ledger.commit(ledger.new_reservation(), &party(user, 0), &limits, kept).await;
            assert!(answer.is_ok_and(|answer| answer.fits()));
        }
    }
}

/// A day's messages, one after the other.
#[cfg(feature = "test-clock")]
async fn a_day(calls: &Calls, logins: usize) {
    let limits = limits();
    for nth in 0..USERS * MESSAGES_A_DAY {
        let user = nth % USERS;
        calls.transaction(&party(user, logins), &limits, key(user, nth / USERS), &mut Vec::new()).await;
    }
}

/// Milliseconds between two messages, of all users.
const BETWEEN_MESSAGES: u64 = 86_400_000 / (USERS * MESSAGES_A_DAY) as u64;

/// Goes on with each message.
#[cfg(feature = "test-clock")]
#[derive(Debug)]
struct FastClock(Arc<AtomicU64>);

#[cfg(feature = "test-clock")]
impl Clock for FastClock {
    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self, moment: Moment) -> i64 {
        moment.0 as i64
    }
}

/// The user's n-th recipient.
fn key(user: usize, n: usize) -> RecipientKey {
    RecipientKey(Random((user * 1_000_003 + n) as u64).next())
}

/// What this process has used of all CPUs.
fn cpu_seconds() -> f64 {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("getrusage(2) works");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(used.user_time()) + seconds(used.system_time())
}
