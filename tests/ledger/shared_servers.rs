//! Servers as operators set them up: users of few rights, Sentinel, memory that is used up.

use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName};
use relaykeeper::ledger::{Kept, Ledger, LedgerError, Parties, RecipientKey, Subject, SubjectKind};

const MANUAL: &str = include_str!("../../man/relaykeeper.toml.5");

fn open(urls: &[String]) -> Ledger {
    Ledger::open_shared(urls, OnOutage::Defer, RESERVATION_TIMEOUT).unwrap()
}

fn unlimited() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED)
}

fn parties() -> Parties {
    Parties { customer: "acme".into(), user: Some("ann@acme.example".into()), login: Some("ann".into()) }
}

/// Everything that a ledger can be asked.
async fn use_all(ledger: &Ledger) -> Result<(), LedgerError> {
    let (parties, limits) = (parties(), unlimited());
    for n in 1..=40 {
        let id = ledger.new_reservation();
        let recipient = ledger.recipient_key(&format!("r{n}@dest.example"));
        assert!(ledger.reserve(id, &parties, &limits, recipient).await?.fits());
        assert!(ledger.look(Some(id), &parties, &limits, &[recipient]).await?.fits());
        if n % 2 == 0 {
            ledger.release(id, &parties);
        } else {
            let kept = Kept { named: &[recipient], unnamed: 0 };
            assert!(ledger.commit(id, &parties, &limits, kept).await?.fits());
        }
    }
    let user = Subject { kind: SubjectKind::User, customer: "acme".into(), name: "ann@acme.example".into() };
    let usage = ledger.usage(&user, &limits).await?;
    assert_eq!(usage.iter().map(|usage| (usage.used, usage.reserved)).collect::<Vec<_>>(), [(20, 0), (20, 0)]);
    assert_eq!(ledger.top(LimitName::UserUniques, 3).await?, [(user.clone(), 20)]);
    ledger.reset(&user, "a test").await?;
    assert_eq!(ledger.top(LimitName::UserUniques, 3).await?, []);
    Ok(())
}

/// The rights that the manual tells to give.
fn rights() -> Vec<&'static str> {
    let (_, rest) = MANUAL.split_once("ACL SETUSER relaykeeper on >SECRET ").unwrap();
    rest.split_once(".Ed").unwrap().0.split_whitespace().collect()
}

#[test]
fn the_rights_in_the_manual_are_enough_and_fewer_are_not() {
    for (flavour, kind, nodes) in [(Flavour::Redis, Kind::Single, 1), (Flavour::Valkey, Kind::Cluster, 6)] {
        let servers = Servers::start(flavour, kind, &[]);
        let allow = |rights: &[&str]| {
            for node in 0..nodes {
                servers.cli(node, &[&["acl", "setuser", "relaykeeper", "reset", "on", ">SECRET"], rights].concat());
            }
        };
        let urls: Vec<String> =
            servers.urls().iter().map(|url| url.replace("redis://", "redis://relaykeeper:SECRET@")).collect();
        allow(&rights());
        runtime().block_on(use_all(&open(&urls))).unwrap();
        if kind == Kind::Single {
            for needed in ["~rk:*", "+evalsha", "+time", "+hmget", "+hset", "+hdel", "+expire", "+scan"] {
                servers.cli(0, &["flushall"]);
                servers.cli(0, &["script", "flush"]);
                let others: Vec<&str> = rights().into_iter().filter(|right| *right != needed).collect();
                allow(&others);
                assert!(runtime().block_on(use_all(&open(&urls))).is_err(), "{needed} is needless");
            }
        }
    }
}

#[test]
fn sentinels_tell_where_the_master_is() {
    let servers = Servers::start(Flavour::Redis, Kind::Sentinel, &[]);
    runtime().block_on(use_all(&open(&servers.urls()))).unwrap();
    assert_ne!(servers.cli(0, &["dbsize"]), "0");
}

#[test]
fn a_replica_named_first_is_passed_over() {
    let servers = Servers::start(Flavour::Redis, Kind::Sentinel, &[]);
    let urls = [1, 0].map(|node| format!("redis://127.0.0.1:{}", servers.port(node)));
    runtime().block_on(use_all(&open(&urls))).unwrap();
}

#[test]
fn a_unix_socket_does() {
    let servers = Servers::start(Flavour::Valkey, Kind::Single, &[]);
    runtime().block_on(use_all(&open(&[format!("unix://{}", servers.socket().display())]))).unwrap();
}

#[test]
fn a_server_without_memory_counts_nothing_and_says_so() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    let ledger = open(&servers.urls());
    runtime().block_on(async {
        ledger.ready().await.unwrap();
        servers.cli(0, &["config", "set", "maxmemory", "1"]);
        let recipient = RecipientKey(1);
        let answer = ledger.reserve(ledger.new_reservation(), &parties(), &unlimited(), recipient).await;
        let Err(LedgerError::Unavailable(why)) = answer else { panic!("{answer:?}") };
        assert!(why.contains("OOM"), "{why}");
        servers.cli(0, &["config", "set", "maxmemory", "0"]);
        use_all(&ledger).await.unwrap();
    });
}
