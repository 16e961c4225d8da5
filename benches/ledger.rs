//! What the ledger costs, at scale: prints tables.
//!
//! ```text
//! cargo bench --bench ledger                         # everything: some minutes, 4 GB of memory, 3 GB of disk
//! cargo bench --bench ledger -- decision commit      # some of: decision memory tail commit restart
//! ```
//!
//! The store is made in `$TMPDIR`, or `/var/tmp`: it has to be on a real disk for `commit` to mean anything.

mod common;

use common::{Folder, Random};
use mimalloc::MiMalloc;
use relaykeeper::clock::{ManualClock, Moment};
use relaykeeper::config::Sync;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties};
use relaykeeper::ledger::{AcceptedRecipients, Foreseen, Ledger, RecipientKey};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const START: Moment = Moment(1_700_000_000_000);
const RESERVATION_TIMEOUT: Duration = Duration::from_secs(600);
const USERS_PER_CUSTOMER: usize = 10;
const REMEMBERED: usize = 20;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let benches: [(&str, fn()); 5] =
        [("decision", decision), ("memory", memory), ("tail", tail), ("commit", commit), ("restart", restart)];
    for (name, bench) in benches {
        if wanted == [name] {
            bench();
        } else if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            // Each in a process of its own, which has nothing in memory yet.
            let program = std::env::current_exe().expect("this program has a path");
            let ended = std::process::Command::new(program).arg(name).status().expect("it can be started again");
            assert!(ended.success(), "{name}: {ended}");
            println!();
        }
    }
}

/// One decision with all limits, by how many users there are.
fn decision() {
    println!("decision (medians of 2,000 rounds of 100): every limit set, {REMEMBERED} remembered recipients a user,");
    println!("users at random, one thread; all in nanoseconds");
    println!(
        "  reserve alone: nothing is known of the accounts before. reserve: they are foreseen, as the daemon does, in two"
    );
    println!(
        "  steps with other work between, which are counted. access: to memory as large as the ledger's, one after the other"
    );
    println!(
        "{:>10} {:>14} {:>8} {:>8} {:>8} {:>8}",
        "users", "reserve alone", "reserve", "commit", "release", "access"
    );
    let mut first = None;
    for users in [1_000, 10_000, 100_000, 1_000_000] {
        let (clock, ledger) = in_memory();
        let parties = directory(users);
        fill(&ledger, &clock, &parties);
        let Costs { alone, foreseen, commit, release } = time_decisions(&ledger, &parties);
        let access = time_access(users * BYTES_PER_USER);
        println!("{users:>10} {alone:>14.0} {foreseen:>8.0} {commit:>8.0} {release:>8.0} {access:>8.0}");
        let (first_alone, first_foreseen) = *first.get_or_insert((alone, foreseen));
        if users == 1_000_000 {
            println!(
                "a reservation at 1,000,000 users takes {:.2} times what it takes at 1,000; alone {:.2} times",
                foreseen / first_foreseen,
                alone / first_alone
            );
        }
    }
}

/// The medians of some rounds, in nanoseconds for each call.
struct Costs {
    alone: f64,
    foreseen: f64,
    commit: f64,
    release: f64,
}

/// About what [`memory`] says.
const BYTES_PER_USER: usize = 700;

fn time_decisions(ledger: &Ledger, parties: &[Parties]) -> Costs {
    const ROUNDS: usize = 2_000;
    const AT_ONCE: usize = 100;
    /// So many other decisions are made between the steps of one.
    const BETWEEN: usize = 4;
    let limits = limits();
    let mut random = Random(7);
    let mut spent: [Vec<Duration>; 4] = Default::default();
    block_on(async {
        for round in 0..2 * ROUNDS {
            let asked: Vec<_> = (0..AT_ONCE)
                .map(|n| {
                    let user = random.below(parties.len());
                    // Half of them were sent to before.
                    let key =
                        if n % 2 == 0 { key(user, random.below(REMEMBERED)) } else { RecipientKey(random.next()) };
                    (ledger.new_reservation(), &parties[user], key)
                })
                .collect();
            // The transaction has just found them in the directory.
            let names =
                asked.iter().map(|(_, parties, _)| bytes(&Some(parties.customer.clone())) + bytes(&parties.user));
            std::hint::black_box(names.sum::<usize>());
            let foresees = round % 2 == 1;
            let began = Instant::now();
            for n in 0..AT_ONCE + 2 * BETWEEN {
                if foresees {
                    for (ahead, when) in [(n, Foreseen::Soon), (n.wrapping_sub(BETWEEN), Foreseen::Next)] {
                        asked.get(ahead).iter().for_each(|(_, parties, _)| ledger.foresee(parties, when));
                    }
                }
                if let Some((id, parties, key)) = asked.get(n.wrapping_sub(2 * BETWEEN)) {
                    assert!(ledger.reserve(*id, parties, &limits, *key).await.is_ok_and(|answer| answer.fits()));
                }
            }
            spent[usize::from(foresees)].push(began.elapsed());
            let (committed, released) = asked.split_at(AT_ONCE / 2);
            let began = Instant::now();
            for (id, parties, key) in committed {
                let kept = AcceptedRecipients { named: &[*key], unnamed: 0 };
                assert!(ledger.commit(*id, parties, &limits, kept).await.is_ok_and(|answer| answer.fits()));
            }
            spent[2].push(began.elapsed());
            let began = Instant::now();
            for (id, parties, _) in released {
                ledger.release(*id, parties);
            }
            spent[3].push(began.elapsed());
        }
    });
    // The median round: what else the machine does in a few of them does not matter.
    let each = |spent: &mut Vec<Duration>, calls: usize| {
        spent.sort_unstable();
        spent[spent.len() / 2].as_nanos() as f64 / calls as f64
    };
    let [alone, foreseen, commit, release] = &mut spent;
    Costs {
        alone: each(alone, AT_ONCE),
        foreseen: each(foreseen, AT_ONCE),
        commit: each(commit, AT_ONCE / 2),
        release: each(release, AT_ONCE / 2),
    }
}

/// How long it takes to read what can be found only by reading something else first.
fn time_access(bytes: usize) -> f64 {
    const STEPS: usize = 1_000_000;
    let lines = bytes / 64;
    let mut random = Random(1);
    // One round through all of it, in a random order (Sattolo).
    let mut order: Vec<u32> = (0..lines as u32).collect();
    (1..lines).rev().for_each(|n| order.swap(n, random.below(n)));
    let mut memory = vec![[0u32; 16]; lines];
    for (n, &line) in order.iter().enumerate() {
        memory[line as usize][0] = order[(n + 1) % lines];
    }
    let mut at = 0;
    let began = Instant::now();
    for _ in 0..STEPS {
        at = memory[at as usize][0];
    }
    let spent = began.elapsed();
    std::hint::black_box(at);
    spent.as_nanos() as f64 / STEPS as f64
}

fn bytes(name: &Option<Arc<str>>) -> usize {
    name.iter().flat_map(|name| name.bytes()).map(usize::from).sum()
}

/// What a remembered recipient takes, all in: names, windows, tables, what malloc adds.
fn memory() {
    println!("memory, all in, names included; as the kernel sees it, and what of it was asked of the allocator");
    let (live, resident) = (live_bytes(), resident_bytes());
    let (clock, ledger) = in_memory();
    let users = 1_000_000;
    fill_with_own_names(&ledger, &clock, users);
    let (live, resident) = (live_bytes() - live, resident_bytes() - resident);
    let remembered = (users * REMEMBERED) as f64;
    println!(
        "{users} users, {REMEMBERED} each: {:.1} bytes a recipient ({:.1} asked for), {:.0} a user",
        resident as f64 / remembered,
        live as f64 / remembered,
        resident as f64 / users as f64
    );
    drop(ledger);
    for recipients in [1_000, 10_000, 100_000] {
        let live = live_bytes();
        let (clock, ledger) = in_memory();
        let empty = live_bytes() - live;
        let parties = directory(1);
        let live = live_bytes();
        let limits = limits();
        block_on(async {
            for n in 0..recipients {
                clock.set(START.plus(Duration::from_millis(n * 80_000_000 / recipients)));
                send(&ledger, &parties[0], &limits, key(0, n as usize)).await;
            }
        });
        let live = live_bytes() - live;
        println!(
            "one user, {recipients} recipients: {:.1} bytes each (an empty ledger: {empty})",
            live as f64 / recipients as f64
        );
    }
}

/// How long decisions take while everything expires at the pace at which it comes.
fn tail() {
    println!("tail: a day passes in the run, so that all that is remembered expires; 2 threads; in nanoseconds");
    println!(
        "undisturbed: without those in which the kernel gave the processor to somebody else (getrusage(2), RUSAGE_THREAD)"
    );
    println!(
        "{:>10} {:>12} {:>10} {:>7} {:>7} {:>8} {:>8} {:>9} {:>10}",
        "users", "", "decisions", "p50", "p99", "p99.9", "p99.99", "max", "p99.9/p50"
    );
    for users in [1_000, 1_000_000] {
        let (clock, ledger) = in_memory();
        let parties = directory(users);
        let now = fill(&ledger, &clock, &parties);
        let messages = 2_000_000;
        let passed = AtomicU64::new(0);
        let mut times: Vec<(u32, bool)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|thread| {
                    let (ledger, parties, clock, passed) = (&ledger, &parties, &clock, &passed);
                    scope.spawn(move || {
                        let limits = limits();
                        let mut random = Random(thread + 1);
                        let mut times = Vec::with_capacity(messages);
                        block_on(async {
                            for _ in 0..messages / 2 {
                                let done = passed.fetch_add(1, Ordering::Relaxed);
                                clock.set(now.plus(Duration::from_millis(done * 86_400_000 / messages as u64)));
                                let parties = &parties[random.below(parties.len())];
                                let key = RecipientKey(random.next());
                                let id = ledger.new_reservation();
                                let switches = context_switches();
                                let began = Instant::now();
                                let answer = ledger.reserve(id, parties, &limits, key).await;
                                let spent = began.elapsed().as_nanos() as u32;
                                times.push((spent, context_switches() != switches));
                                assert!(answer.is_ok_and(|answer| answer.fits()));
                                let kept = AcceptedRecipients { named: &[key], unnamed: 0 };
                                assert!(ledger.commit(id, parties, &limits, kept).await.is_ok());
                            }
                        });
                        times
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("the load runs")).collect()
        });
        times.sort_unstable();
        for (what, with_disturbed) in [("all", true), ("undisturbed", false)] {
            times.retain(|(_, disturbed)| with_disturbed || !disturbed);
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].0;
            println!(
                "{users:>10} {what:>12} {:>10} {:>7} {:>7} {:>8} {:>8} {:>9} {:>10.1}",
                times.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(0.9999),
                at(1.0),
                f64::from(at(0.999)) / f64::from(at(0.5))
            );
        }
    }
}

/// How often this thread had to leave the processor, or left it to wait.
fn context_switches() -> i64 {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).expect("getrusage(2) works");
    used.voluntary_context_switches() + used.involuntary_context_switches()
}

/// Commits on disk, by how many sessions wait for them.
fn commit() {
    println!("commit: sync = \"full\", one recipient a message, 2 worker threads");
    println!(
        "{:>10} {:>12} {:>10} {:>10} {:>10} {:>14}",
        "sessions", "commits/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/commit"
    );
    let mut alone = 0.0;
    for sessions in [1, 2, 4, 8, 16, 20, 32, 64, 128] {
        let folder = Folder::new();
        let ledger = Ledger::open(&folder.0, Sync::Full, RESERVATION_TIMEOUT).expect("the store opens");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let total = (3_000 * sessions).min(100_000);
        let parties = Arc::new(directory(1_000));
        let (rate, cpu, times) = runtime.block_on(async {
            ledger.ready().await.expect("the store is ready");
            let (began, cpu) = (Instant::now(), cpu_seconds());
            let tasks: Vec<_> = (0..sessions)
                .map(|session| {
                    let (ledger, parties) = (ledger.clone(), parties.clone());
                    tokio::spawn(async move {
                        let limits = limits();
                        let mut random = Random(session as u64 + 1);
                        let mut times = Vec::new();
                        for _ in 0..total / sessions {
                            let parties = &parties[random.below(parties.len())];
                            let key = RecipientKey(random.next());
                            let id = ledger.new_reservation();
                            assert!(ledger.reserve(id, parties, &limits, key).await.is_ok_and(|answer| answer.fits()));
                            let began = Instant::now();
                            let kept = AcceptedRecipients { named: &[key], unnamed: 0 };
                            assert!(ledger.commit(id, parties, &limits, kept).await.is_ok_and(|answer| answer.fits()));
                            times.push(began.elapsed().as_micros() as u32);
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
            ledger.close().await;
            (rate, cpu, times)
        });
        let mut times = times;
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!("{sessions:>10} {rate:>12.0} {:>10} {:>10} {:>10} {cpu:>14.1}", at(0.5), at(0.99), at(0.999));
        if sessions == 1 {
            alone = rate;
        }
        if sessions == 64 {
            println!("64 sessions commit {:.1} times what one does alone", rate / alone);
        }
    }
}

/// From opening the store to the first answer.
fn restart() {
    let users = 1_000_000;
    for recipients in [1, REMEMBERED] {
        let folder = Folder::new();
        let messages = users * REMEMBERED / recipients;
        let clock = Arc::new(ManualClock::at(START));
        let open = || {
            let clock = clock.clone();
            Ledger::open_with_clock(&folder.0, Sync::Normal, RESERVATION_TIMEOUT, |_| clock).expect("the store opens")
        };
        let ledger = open();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let began = Instant::now();
        runtime.block_on(async {
            ledger.ready().await.expect("the store is ready");
            let limits = limits();
            for n in 0..messages {
                clock.set(START.plus(Duration::from_millis((n as u64 * 80_000_000) / messages as u64)));
                let user = n % users;
                let named: Vec<_> = (0..recipients).map(|nth| key(user, n / users * recipients + nth)).collect();
                let kept = AcceptedRecipients { named: &named, unnamed: 0 };
                let parties = party(user);
                let answer = ledger.commit(ledger.new_reservation(), &parties, &limits, kept).await;
                assert!(answer.is_ok_and(|answer| answer.fits()));
            }
            ledger.close().await;
        });
        drop(ledger);
        let wrote = began.elapsed().as_secs_f64();
        let size = std::fs::metadata(folder.0.join("ledger.db")).map_or(0, |file| file.len()) / 1_000_000;
        println!(
            "restart: {messages} messages of {users} users, {} recipients remembered, {size} MB; sync = \"normal\" took {:.0} messages/s",
            users * REMEMBERED,
            messages as f64 / wrote
        );
        for cached in [true, false] {
            if !cached && std::fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
                continue;
            }
            let (began, cpu) = (Instant::now(), cpu_seconds());
            let ledger = open();
            runtime.block_on(async { while ledger.ready().await.is_err() {} });
            println!(
                "ready after {:.2} s, {:.2} s of CPU ({})",
                began.elapsed().as_secs_f64(),
                cpu_seconds() - cpu,
                if cached { "the file is in the page cache" } else { "from disk" }
            );
        }
    }
}

fn in_memory() -> (Arc<ManualClock>, Ledger) {
    let clock = Arc::new(ManualClock::at(START));
    (clock.clone(), Ledger::in_memory(clock, RESERVATION_TIMEOUT))
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

/// Users of one customer share its name, as in the directory.
fn directory(users: usize) -> Vec<Parties> {
    let mut parties: Vec<Parties> = (0..users).map(party).collect();
    for of_customer in parties.chunks_mut(USERS_PER_CUSTOMER) {
        let name = of_customer[0].customer.clone();
        of_customer.iter_mut().for_each(|parties| parties.customer = name.clone());
    }
    parties
}

/// Each user sends single messages to [`REMEMBERED`] recipients, spread over most of a day.
fn fill(ledger: &Ledger, clock: &ManualClock, parties: &[Parties]) -> Moment {
    fill_by(ledger, clock, parties.len(), |user| parties[user].clone())
}

/// As a restart leaves it: no names are shared with a directory.
fn fill_with_own_names(ledger: &Ledger, clock: &ManualClock, users: usize) {
    fill_by(ledger, clock, users, party);
}

fn fill_by(ledger: &Ledger, clock: &ManualClock, users: usize, parties: impl Fn(usize) -> Parties) -> Moment {
    let limits = limits();
    let messages = users * REMEMBERED;
    block_on(async {
        for n in 0..messages {
            clock.set(START.plus(Duration::from_millis(n as u64 * 80_000_000 / messages as u64)));
            send(ledger, &parties(n % users), &limits, key(n % users, n / users)).await;
        }
    });
    clock.set(START.plus(Duration::from_secs(80_000)));
    START.plus(Duration::from_secs(80_000))
}

async fn send(ledger: &Ledger, parties: &Parties, limits: &CustomerLimits, key: RecipientKey) {
    let kept = AcceptedRecipients { named: &[key], unnamed: 0 };
    let answer = ledger.commit(ledger.new_reservation(), parties, limits, kept).await;
    assert!(answer.is_ok_and(|answer| answer.fits()));
}

/// The user's n-th recipient.
fn key(user: usize, n: usize) -> RecipientKey {
    RecipientKey(Random((user * 1_000_003 + n) as u64).next())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// The program's own allocator, which also counts what is asked of it.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is handed on to the allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller promised what the allocator asks for.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller promised what the allocator asks for.
        unsafe { MiMalloc.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as isize - layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller promised what the allocator asks for.
        unsafe { MiMalloc.realloc(place, layout, size) }
    }
}

fn live_bytes() -> isize {
    LIVE.load(Ordering::Relaxed)
}

/// What the whole process has used of all CPUs.
fn cpu_seconds() -> f64 {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("getrusage(2) works");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(used.user_time()) + seconds(used.system_time())
}

fn resident_bytes() -> isize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<isize>().ok()));
    pages.unwrap_or(0) * 4096
}
