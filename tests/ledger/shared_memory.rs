//! How much memory the shared store takes, as `docs/redis.md` says: run with `--nocapture` to see the table.

use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, START, runtime};
use relaykeeper::clock::ManualClock;
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, Parties};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, RecipientKey};
use std::sync::Arc;
use std::time::Duration;

const SPREAD_OVER: u64 = 80_000_000;

fn open(servers: &Servers, prefix: &str) -> (Arc<ManualClock>, Ledger) {
    let clock = Arc::new(ManualClock::at(START));
    let opened =
        Ledger::open_shared_with_clock(&servers.urls(), prefix, OnOutage::Defer, RESERVATION_TIMEOUT, clock.clone());
    (clock, opened.unwrap())
}

/// Messages of one user to a new recipient each, spread over most of a day.
async fn send(ledger: &Ledger, clock: &ManualClock, customer: &str, user: &str, messages: u64, to_each: u64) {
    let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
    let parties = Parties { customer: customer.into(), user: Some(user.into()), login: None };
    for n in 0..messages {
        clock.set(START.plus(Duration::from_millis(n * SPREAD_OVER / messages)));
        let named: Vec<_> = (0..to_each).map(|nth| ledger.recipient_key(&format!("{n}.{nth}@dest.example"))).collect();
        let id = ledger.new_reservation();
        let kept = AcceptedRecipients { named: &named, unnamed: 0 };
        assert!(ledger.commit(id, &parties, &unlimited, kept).await.unwrap().fits());
    }
}

fn usage(servers: &Servers, key: &str) -> u64 {
    servers.cli(0, &["memory", "usage", key, "samples", "0"]).parse().expect("it is there")
}

#[test]
fn a_user_and_a_recipient_take_what_the_documentation_says() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let servers = Servers::start(flavour, Kind::Single, &[]);
        let mut sizes = Vec::new();
        println!("{flavour:?}: messages x recipients: bytes of the customer, of the user, of the user's second key");
        for (messages, to_each) in [(1, 1), (20, 1), (100, 1), (1000, 1), (1000, 10)] {
            let (customer, user) = (format!("customer{messages}x{to_each}"), "ann@customer.example");
            runtime().block_on(async {
                let (clock, ledger) = open(&servers, "rk:");
                send(&ledger, &clock, &customer, user, messages, to_each).await;
            });
            let of = |what: &str| usage(&servers, &format!("rk:{{{customer}}}:{what}"));
            let [of_customer, of_user, of_recipients] =
                [of("c") + of("c+"), of(&format!("u:{user}")), of(&format!("u+:{user}"))];
            println!("{messages:>6} x {to_each:<3} {of_customer:>8} {of_user:>8} {of_recipients:>8}");
            sizes.push((messages * to_each, of_customer, of_user, of_recipients));
        }
        // Windows are bounded, however much was sent; recipients are what grows.
        let (recipients, of_customer, of_user, of_recipients) = sizes[4];
        assert!(of_customer < 5_000 && of_user < 6_000, "{of_customer} {of_user}");
        assert!(of_recipients < 27 * recipients, "{of_recipients}");
        let (_, of_customer, of_user, of_recipients) = sizes[0];
        assert!(of_customer + of_user + of_recipients < 900, "{of_customer} {of_user} {of_recipients}");
    }
}

#[test]
fn many_users_take_what_the_documentation_says() {
    const USERS: u64 = 1000;
    for options in [&[][..], &["--hash-max-listpack-value", "2048"]] {
        let servers = Servers::start(Flavour::Redis, Kind::Single, options);
        let used = || -> u64 {
            let text = servers.cli(0, &["info", "memory"]);
            text.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
        };
        let each = runtime().block_on(async {
            let (clock, ledger) = open(&servers, "rk:");
            ledger.ready().await.unwrap();
            let before = used();
            let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
            for n in 0..20u64 {
                for user in 0..USERS {
                    clock.set(START.plus(Duration::from_millis((n * USERS + user) * SPREAD_OVER / (20 * USERS))));
                    let customer = format!("customer{}", user / 10);
                    let name = format!("user{user}@{customer}.example");
                    let parties = Parties { customer: customer.into(), user: Some(name.into()), login: None };
                    let recipient = RecipientKey((user * 100 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let kept = AcceptedRecipients { named: &[recipient], unnamed: 0 };
                    let id = ledger.new_reservation();
                    assert!(ledger.commit(id, &parties, &unlimited, kept).await.unwrap().fits());
                }
            }
            (used() - before) / USERS
        });
        println!("{options:?}: {each} bytes a user with 20 messages to 20 recipients, a tenth of a customer included");
        assert!(each < 2_500, "{each}");
    }
}

/// Keys that nobody uses go by themselves, and those of what counts must not: whatever uses an account has it kept for longer.
#[test]
fn what_is_in_use_is_kept_for_as_long_as_it_counts() {
    const A_DAY_AND_A_QUARTER_HOUR: u64 = 87_300;
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    let keys = || -> Vec<String> {
        let all = servers.cli(0, &["keys", "rk:{*"]);
        all.lines().map(str::to_owned).collect()
    };
    let age = || keys().iter().for_each(|key| drop(servers.cli(0, &["expire", key, "1000"])));
    let youngest = || -> u64 { keys().iter().map(|key| servers.cli(0, &["ttl", key]).parse().unwrap()).min().unwrap() };
    let clock = Arc::new(ManualClock::at(START));
    let timeout = Duration::from_secs(86_400);
    let opened = Ledger::open_shared_with_clock(&servers.urls(), "rk:", OnOutage::Defer, timeout, clock.clone());
    runtime().block_on(async {
        let ledger = opened.unwrap();
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        let parties =
            Parties { customer: "acme".into(), user: Some("ann@acme.example".into()), login: Some("ann".into()) };
        let wait = |seconds| clock.advance(Duration::from_secs(seconds));
        // The first goes the long way, the others the short one.
        for n in 0..3 {
            wait(4_000);
            age();
            let (id, recipient) = (ledger.new_reservation(), RecipientKey(n));
            assert!(ledger.reserve(id, &parties, &unlimited, recipient).await.unwrap().fits());
            // The second keys of user and login come with what is counted first.
            assert_eq!(keys().len(), if n == 0 { 4 } else { 6 });
            assert!(youngest() > A_DAY_AND_A_QUARTER_HOUR, "after a reservation: {}", youngest());
            wait(4_000 * n);
            if n == 2 {
                age();
            }
            let kept = AcceptedRecipients { named: &[recipient], unnamed: 0 };
            assert!(ledger.commit(id, &parties, &unlimited, kept).await.unwrap().fits());
            assert!(youngest() > 86_400, "after a commit: {}", youngest());
        }
    });
}

/// Each start of a daemon brings a name of its own, which the server remembers to tell retries apart.
#[test]
fn the_starts_of_many_daemons_take_no_more_than_those_of_a_few() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let servers = Servers::start(flavour, Kind::Single, &[]);
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        let parties = Parties { customer: "acme".into(), user: Some("ann@acme.example".into()), login: None };
        let length = || -> u64 { servers.cli(0, &["strlen", "rk:{acme}:c"]).parse().unwrap() };
        let mut lengths = Vec::new();
        for start in 0..100 {
            runtime().block_on(async {
                let (clock, ledger) = open(&servers, "rk:");
                clock.set(START.plus(Duration::from_secs(start)));
                let (id, named) = (ledger.new_reservation(), [ledger.recipient_key("one@dest.example")]);
                assert!(ledger.reserve(id, &parties, &unlimited, named[0]).await.unwrap().fits());
                let accepted = AcceptedRecipients { named: &named, unnamed: 0 };
                assert!(ledger.commit(id, &parties, &unlimited, accepted).await.unwrap().fits());
                ledger.close().await;
            });
            lengths.push(length());
        }
        assert!(lengths[39] > lengths[9], "{lengths:?}");
        assert!(lengths[99] <= lengths[39] && lengths[99] < 1_000, "{lengths:?}");
    }
}
