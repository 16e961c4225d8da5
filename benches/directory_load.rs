//! How long a large configuration takes to load and to reload, how much memory its users take, and what look-ups cost
//! with few and with many customers.
//!
//! `cargo bench --bench directory_load [-- CUSTOMERS]` writes so many customer files (100,000 if not said otherwise),
//! ten users each, into a temporary folder and prints a table.

use relaykeeper::config::{self, Configuration, NoCustomers};
use relaykeeper::directory::Directory;
use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const USERS: usize = 10;
const LOOK_UPS: usize = 1_000_000;
/// Files that only just changed are read again at a reload: their time stamps cannot be trusted yet.
const SETTLING: Duration = Duration::from_secs(4);

fn main() {
    let most = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    println!(
        "{:>9} {:>9} {:>8} {:>8} {:>9} {:>10} | {:>7} {:>7} {:>9} {:>7} {:>7}",
        "customers",
        "users",
        "load s",
        "reload s",
        "unchanged",
        "bytes/user",
        "login",
        "domain",
        "subdomain",
        "user",
        "nobody"
    );
    for customers in [10, most] {
        measure(customers);
    }
    println!("look-ups in nanoseconds, each of a random one of all customers");
}

fn measure(customers: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_files(folder.path(), customers);
    let main = folder.path().join("relaykeeper.toml");

    let before = resident_bytes();
    let (loaded, load) = timed(|| config::load(&main).expect("a good main file"));
    let memory = resident_bytes().saturating_sub(before);
    assert_eq!(loaded.problems.errors() + loaded.problems.warnings(), 0, "{}", loaded.problems.summary());
    assert_eq!(loaded.directory.customers().len(), customers);

    let (loaded, reload) = timed(|| reloaded(&loaded, &main));
    std::thread::sleep(SETTLING);
    let loaded = reloaded(&loaded, &main);
    let (loaded, unchanged) = timed(|| reloaded(&loaded, &main));

    let directory = &loaded.directory;
    let numbers = random_numbers(customers);
    let keys = |key: fn(usize, usize) -> String| -> Vec<String> { numbers.iter().map(|&(c, u)| key(c, u)).collect() };
    let login = look_ups(&keys(|c, _| format!("login{c}.0")), |key| directory.owner_of_login(key).is_some());
    let domain = look_ups(&keys(|c, _| format!("customer{c}.example")), |key| owned(directory, key));
    let subdomain = look_ups(&keys(|c, _| format!("a.mx.customer{c}.example")), |key| owned(directory, key));
    let nobody = look_ups(&keys(|c, _| format!("mx.stranger{c}.example")), |key| !owned(directory, key));
    let user = look_ups(&keys(|c, u| format!("alias{u}@customer{c}.example")), |key| {
        let domain = key.rsplit_once('@').map_or("", |(_, domain)| domain);
        let Some(relaykeeper::directory::Owner::Customer(customer)) =
            directory.owner_of_domain(domain).map(|claim| claim.owner)
        else {
            return false;
        };
        customer.users.find(key).is_some()
    });
    println!(
        "{customers:>9} {:>9} {:>8.3} {:>8.3} {:>9.3} {:>10} | {login:>7.0} {domain:>7.0} {subdomain:>9.0} {user:>7.0} {nobody:>7.0}",
        customers * USERS,
        load.as_secs_f64(),
        reload.as_secs_f64(),
        unchanged.as_secs_f64(),
        memory / (customers * USERS),
    );
}

fn reloaded(previous: &Configuration, main: &Path) -> Configuration {
    config::reload(previous, main, NoCustomers::Refuse).expect("a good main file").0
}

fn owned(directory: &Directory, domain: &str) -> bool {
    directory.owner_of_domain(domain).is_some()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Nanoseconds a look-up.
fn look_ups(keys: &[String], finds: impl Fn(&str) -> bool) -> f64 {
    let (found, time) = timed(|| keys.iter().filter(|key| black_box(finds(black_box(key)))).count());
    assert_eq!(found, keys.len());
    time.as_nanos() as f64 / keys.len() as f64
}

/// A customer and one of its users, by xorshift: the same each time.
fn random_numbers(customers: usize) -> Vec<(usize, usize)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    (0..LOOK_UPS).map(|_| (next() % customers, next() % USERS)).collect()
}

/// Half of the customers have their users inline, half in a users file.
fn write_files(folder: &Path, customers: usize) {
    let customers_d = folder.join("customers.d");
    fs::create_dir(&customers_d).expect("a folder");
    let main = "[listen]\npolicy = [\"inet:127.0.0.1:10023\"]\n[relay]\nhostname = \"relay.example.net\"\n";
    fs::write(folder.join("relaykeeper.toml"), main).expect("the main file");
    let mut text = String::new();
    for c in 0..customers {
        text.clear();
        let _ = write!(
            text,
            "name = \"customer{c}\"\ndomains = [\"customer{c}.example\", \"second{c}.example\"]\nlicenses = 250\n\
             admins = [\"it@customer{c}.example\"]\nlimits.user.messages_per_day = 2000\n"
        );
        if c % 2 == 1 {
            let _ = writeln!(text, "users_file = \"customer{c}.users\"");
        }
        let _ = write!(
            text,
            "[[setting]]\nname = \"office\"\nallowed_senders = \"registered-users\"\n[[setting.ip]]\n\
             description = \"uplink\"\nrange = \"{}.{}.{}.0/28\"\n[[setting.ip]]\nrange = \"2001:db8:{:x}:{:x}::/64\"\n\
             [[setting]]\nname = \"field\"\nallowed_senders = \"own-domains\"\nrequire_auth = true\n",
            100 + c / 65_536,
            c / 256 % 256,
            c % 256,
            c / 65_536,
            c % 65_536
        );
        let mut users = String::new();
        for u in 0..USERS {
            let (address, alias) = (format!("user{u}@customer{c}.example"), format!("alias{u}@customer{c}.example"));
            let (login, inline) = (format!("login{c}.{u}"), c % 2 == 0);
            if inline || u == 0 {
                let _ = write!(
                    text,
                    "[[user]]\naddress = \"{address}\"\naliases = [\"{alias}\"]\nlogins = [\"{login}\"]\n"
                );
            } else {
                let _ = writeln!(users, "{address} {alias}");
            }
        }
        fs::write(customers_d.join(format!("customer{c}.toml")), &text).expect("a customer file");
        if c % 2 == 1 {
            fs::write(customers_d.join(format!("customer{c}.users")), &users).expect("a users file");
        }
    }
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4_096
}
