//! What a decision costs with the shared store, beside the embedded one and beside what the server can do at best: prints tables.
//!
//! ```text
//! cargo bench --bench shared_store                     # all of it: two minutes
//! cargo bench --bench shared_store -- shared bare 16   # some of: embedded shared bare floor; and how many sessions
//! ```
//!
//! Starts a private server on a unix socket in `$TMPDIR`, or `/var/tmp`: `redis-server`, or what `REDIS_SERVER` names.

use redis::aio::MultiplexedConnection;
use relaykeeper::config::{OnOutage, Sync};
use relaykeeper::directory::{CustomerLimits, Limit, LimitName};
use relaykeeper::ledger::{Kept, Ledger, Parties, RecipientKey};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RESERVATION_TIMEOUT: Duration = Duration::from_secs(600);
const USERS: usize = 1_000;
const USERS_PER_CUSTOMER: usize = 10;
const REMEMBERED: usize = 20;
const MEASURED: Duration = Duration::from_secs(4);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let sessions = if numbers.is_empty() { vec![1, 16, 64] } else { numbers };
    let names: Vec<&String> = words.iter().filter(|word| word.parse::<usize>().is_err()).collect();
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    println!(
        "calls: a reservation, then the commit of its message, each with a user and every limit set; {USERS} users with \
         {REMEMBERED} remembered recipients or more, half of the recipients new"
    );
    println!(
        "{:>9} {:>8} {:>10} {:>8} {:>8} {:>13} {:>13}",
        "store", "sessions", "calls/s", "p50 µs", "p99 µs", "client µs/call", "server µs/call"
    );
    // As the daemon: one thread for two cores.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime");
    for sessions in sessions {
        let mut rates = [None; 4];
        for (place, name) in ["embedded", "shared", "bare", "floor"].into_iter().enumerate() {
            if is_wanted(name) {
                rates[place] = Some(runtime.block_on(measure(name, sessions)));
            }
        }
        for (place, name) in [(2, "the bare call's rate"), (3, "the rate of its reads and writes alone")] {
            if let (Some(shared), Some(other)) = (rates[1], rates[place]) {
                println!("{sessions} sessions: the shared store has {:.2} of {name}", shared / other);
            }
        }
    }
}

/// Calls a second.
async fn measure(name: &str, sessions: usize) -> f64 {
    let folder = Folder::new();
    if name == "embedded" {
        let ledger = Ledger::open(&folder.0, Sync::Full, RESERVATION_TIMEOUT).expect("the store opens");
        ledger.ready().await.expect("the store is ready");
        fill(&ledger).await;
        return run(name, sessions, None, Arc::new(Calls::Ledger(ledger))).await;
    }
    let server = Server::start(&folder);
    let connection = server.connection().await;
    let calls = match name {
        "shared" => {
            let ledger = Ledger::open_shared(&[server.url()], OnOutage::Defer, RESERVATION_TIMEOUT).expect("a URL");
            ledger.ready().await.expect("the server answers");
            fill(&ledger).await;
            Calls::Ledger(ledger)
        }
        _ => Calls::bare(connection.clone(), name == "floor").await,
    };
    run(name, sessions, Some(connection), Arc::new(calls)).await
}

async fn run(name: &str, sessions: usize, server: Option<MultiplexedConnection>, calls: Arc<Calls>) -> f64 {
    if let Some(server) = &server {
        let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut server.clone()).await.expect("reset");
    }
    let parties = Arc::new((0..USERS).map(party).collect::<Vec<_>>());
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
    println!("{name:>9} {sessions:>8} {rate:>10.0} {:>8} {:>8} {cpu:>13.1} {served:>13}", at(0.5), at(0.99));
    rate
}

/// What the server says that scripts take in all, without reading the questions and writing the answers.
async fn server_microseconds(mut server: MultiplexedConnection) -> f64 {
    let text: String = redis::cmd("INFO").arg("commandstats").query_async(&mut server).await.expect("statistics");
    let line = text.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("scripts ran");
    let number = line.split("usec=").nth(1).and_then(|rest| rest.split(',').next());
    number.and_then(|number| number.parse().ok()).expect("a number")
}

/// What is called.
enum Calls {
    Ledger(Ledger),
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
            Calls::Ledger(ledger) => {
                let id = ledger.new_reservation();
                let began = Instant::now();
                assert!(ledger.reserve(id, parties, limits, recipient).await.is_ok_and(|answer| answer.fits()));
                note(began);
                let kept = Kept { named: &[recipient], unnamed: 0 };
                let began = Instant::now();
                assert!(ledger.commit(id, parties, limits, kept).await.is_ok_and(|answer| answer.fits()));
                note(began);
            }
            Calls::Bare(connection, digests) => {
                let user = parties.user.as_deref().unwrap_or_default();
                let tag = format!("rk:{{{}}}", parties.customer);
                let keys = [format!("{tag}:c"), format!("{tag}:u:{user}"), format!("{tag}:ur:{user}")];
                let id = [&recipient.0.to_be_bytes()[..], &[0; 4]].concat();
                for (digest, further) in digests.iter().zip([&[][..], &[22, 6]]) {
                    let began = Instant::now();
                    let mut command = redis::cmd("EVALSHA");
                    command.arg(digest).arg(3).arg(&keys).arg(&[0; 44]).arg(&id).arg(&recipient.0.to_be_bytes());
                    for &size in further {
                        command.arg(&[0; 22][..size]);
                    }
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
    local call, c, a, id, key = redis.call, KEYS[1], KEYS[2], ARGV[2], ARGV[3]
    call('TIME')
    call('HMGET', c, 's', 'o' .. id)
    call('HMGET', a, 's', 'u', 'm' .. id, 'k' .. key)
    call('HSET', c, 's', string.rep('s', 60), 'o' .. id, string.rep('o', 14))
    call('HSET', a, 's', string.rep('s', 32), 'u', string.rep('u', 37), 'm' .. id, 'mmmmmm', 'k' .. key, 'kkkkkkkkkk')
    return 1700000000000";

/// What a commit reads and writes.
const COMMIT: &str = "
    local call, c, a, id, key = redis.call, KEYS[1], KEYS[2], ARGV[2], ARGV[3]
    call('TIME')
    call('HMGET', c, 's', 'o' .. id, 'D' .. ARGV[5])
    call('HMGET', a, 's', 'u', 'm' .. id, 'k' .. key)
    local shard = string.byte(key) % 2
    call('HGET', KEYS[3], shard)
    call('HSET', c, 's', string.rep('s', 60), 'D' .. ARGV[5], 'dddddddddd')
    call('HDEL', c, 'o' .. id)
    call('HSET', a, 's', string.rep('s', 32), 'u', string.rep('u', 37))
    call('HDEL', a, 'm' .. id, 'k' .. key)
    call('HSET', KEYS[3], shard, string.rep('r', 180))
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

fn party(user: usize) -> Parties {
    let customer = user / USERS_PER_CUSTOMER;
    Parties {
        customer: format!("customer{customer}").into(),
        user: Some(format!("user{user}@customer{customer}.example").into()),
        login: None,
    }
}

/// Each user has sent to [`REMEMBERED`] recipients.
async fn fill(ledger: &Ledger) {
    let limits = limits();
    for user in 0..USERS {
        let named: Vec<_> = (0..REMEMBERED).map(|nth| key(user, nth)).collect();
        let kept = Kept { named: &named, unnamed: 0 };
        let answer = ledger.commit(ledger.new_reservation(), &party(user), &limits, kept).await;
        assert!(answer.is_ok_and(|answer| answer.fits()));
    }
}

/// The user's n-th recipient.
fn key(user: usize, n: usize) -> RecipientKey {
    RecipientKey(Random((user * 1_000_003 + n) as u64).next())
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A folder that goes when the bench is done with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let folder = base.join(format!("relaykeeper-shared-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What this process has used of all CPUs.
fn cpu_seconds() -> f64 {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("getrusage(2) works");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(used.user_time()) + seconds(used.system_time())
}
