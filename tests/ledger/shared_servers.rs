//! Servers as operators set them up: users of few rights, Sentinel, memory that is used up.

use crate::crash::{folder_of_worker, worker_by};
use crate::failover::begin_to_move;
use crate::load::CUSTOMERS;
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Ranking, RecipientKey};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

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
            let kept = AcceptedRecipients { named: &[recipient], unnamed: 0 };
            assert!(ledger.commit(id, &parties, &limits, kept).await?.fits());
        }
    }
    let user = Subject { kind: SubjectKind::User, customer: "acme".into(), name: "ann@acme.example".into() };
    let usage = ledger.usage(&user, &limits).await?;
    assert_eq!(usage.iter().map(|usage| (usage.used, usage.reserved)).collect::<Vec<_>>(), [(20, 0), (20, 0)]);
    assert_eq!(ledger.top(LimitName::UserUniques, 3).await?.most, [(user.clone(), 20)]);
    ledger.reset(&user, "a test").await?;
    assert_eq!(ledger.top(LimitName::UserUniques, 3).await?, Ranking::default());
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
            for needed in ["~rk:*", "+evalsha", "+time", "+mget", "+setrange", "+hset", "+hdel", "+expire", "+scan"] {
                servers.cli(0, &["flushall"]);
                servers.cli(0, &["script", "flush"]);
                let others: Vec<&str> = rights().into_iter().filter(|right| *right != needed).collect();
                allow(&others);
                assert!(runtime().block_on(use_all(&open(&urls))).is_err(), "{needed} is needless");
            }
        } else {
            move_slot_and_ask(&servers, &urls).unwrap();
            let others: Vec<&str> = rights().into_iter().filter(|right| *right != "+asking").collect();
            allow(&others);
            assert!(move_slot_and_ask(&servers, &urls).is_err(), "+asking is needless");
        }
    }
}

/// Sends a request for a customer whose slot is migrating, with all its keys on the new master: it is redirected there.
fn move_slot_and_ask(servers: &Servers, urls: &[String]) -> Result<(), LedgerError> {
    let slot = servers.cli(0, &["cluster", "keyslot", "rk:{bolt}:c"]);
    let from = slot.parse::<usize>().unwrap() * 3 / 16384;
    let to = (from + 1) % 3;
    let reserved = runtime().block_on(async {
        let (ledger, parties) = (open(urls), Parties { customer: "bolt".into(), user: None, login: None });
        ledger.reserve(ledger.new_reservation(), &parties, &unlimited(), RecipientKey(1)).await
    });
    assert!(reserved?.fits());
    begin_to_move(servers, &slot, from, to);
    let port = servers.port(to).to_string();
    let all = ["rk:{bolt}:c", "rk:{bolt}:c+"];
    servers.cli(from, &[&["migrate", "127.0.0.1", &port, "", "0", "5000", "replace", "keys"], &all[..]].concat());
    let customer = Subject { kind: SubjectKind::Customer, customer: "bolt".into(), name: "bolt".into() };
    let usage = runtime().block_on(open(urls).usage(&customer, &unlimited()));
    for node in [from, to] {
        servers.cli(node, &["cluster", "setslot", &slot, "stable"]);
    }
    usage.map(|usage| assert_eq!(usage[0].used, 0))
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
        assert!(why.message().contains("OOM"), "{why}");
        servers.cli(0, &["config", "set", "maxmemory", "0"]);
        use_all(&ledger).await.unwrap();
    });
}

#[test]
fn a_server_that_evicts_is_warned_about() {
    let servers = Servers::start(Flavour::Valkey, Kind::Cluster, &[]);
    servers.cli(2, &["config", "set", "maxmemory-policy", "volatile-lru"]);
    runtime().block_on(async {
        let ledger = open(&servers.urls());
        ledger.ready().await.unwrap();
        assert_eq!(
            ledger.advice().unwrap().borrow().as_deref(),
            Some("the store may forget counts when its memory is full (maxmemory-policy volatile-lru): set noeviction")
        );
        servers.cli(2, &["config", "set", "maxmemory-policy", "noeviction"]);
        let ledger = open(&servers.urls());
        ledger.ready().await.unwrap();
        assert_eq!(ledger.advice().unwrap().borrow().as_deref(), None);
    });
}

/// Why the servers cannot be used.
fn why_not(urls: &[String]) -> String {
    let Err(LedgerError::Unavailable(why)) = runtime().block_on(open(urls).ready()) else { panic!("they can be") };
    why.to_string()
}

#[test]
fn a_server_without_scripts_says_so_in_one_line() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &["--rename-command", "EVALSHA", ""]);
    assert_eq!(why_not(&servers.urls()), "the server runs no scripts: it does not know EVALSHA");
}

#[test]
fn a_server_that_is_too_old_says_so_in_one_line() {
    let hello = |version: &str| {
        let words = ["server", "redis", "version", version, "mode", "standalone", "role", "master"];
        let strings: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        format!("*{}\r\n{strings}", words.len())
    };
    let answers = [
        (hello("6.2.14"), "Redis 6.2.14 is too old: it must be Redis 7.0 or newer, or Valkey"),
        (
            "-ERR unknown command `HELLO`, with args beginning with: \r\n".to_owned(),
            "the server is too old: it must be Redis 7.0 or newer, or Valkey",
        ),
    ];
    for (answer, expected) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let answer = answer.clone();
                std::thread::spawn(move || {
                    let mut question = [0; 4096];
                    while client.read(&mut question).is_ok_and(|size| size > 0) {
                        if client.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        assert_eq!(why_not(&[format!("redis://{address}")]), format!("{address}: {expected}"));
    }
}

/// What a server with TLS is told.
fn with_certificates(folder: &Path) -> Vec<String> {
    let certificates = Command::new("sh").current_dir(folder).arg("-ec").arg(CERTIFICATES).output().unwrap();
    assert!(certificates.status.success(), "{}", String::from_utf8_lossy(&certificates.stderr));
    let file = |name: &str| folder.join(name).display().to_string();
    let files = [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")];
    let files = files.iter().flat_map(|(what, name)| [format!("--tls-{what}-file"), file(name)]);
    files.chain(["--tls-auth-clients".to_owned(), "no".to_owned()]).collect()
}

/// A daemon that trusts the servers' authority uses them; one that trusts another does not.
fn only_for_who_trusts_them(urls: &[String], folder: &Path) {
    std::fs::write(folder.join("urls"), urls.join("\n")).unwrap();
    for (authority, expected) in [("ca.pem", "it works"), ("other.pem", "invalid peer certificate: UnknownIssuer")] {
        let mut command = Command::new("env");
        command.env("SSL_CERT_FILE", folder.join(authority));
        let worker = worker_by(command, "shared_servers::worker_that_uses_tls", folder);
        let output = worker.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{authority}: {text}");
    }
}

#[test]
fn tls_checks_who_the_server_is() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut options = with_certificates(folder.path());
    options.extend(["--tls-port".to_owned(), port.clone()]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let _servers = Servers::start(Flavour::Redis, Kind::Single, &options);
    only_for_who_trusts_them(&[format!("rediss://127.0.0.1:{port}")], folder.path());
}

#[test]
fn tls_reaches_all_nodes_of_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = with_certificates(folder.path());
    options.extend(["--tls-cluster", "yes", "--tls-replication", "yes"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    // The tests' Valkey is built without TLS.
    let servers = Servers::start(Flavour::Redis, Kind::Cluster, &options);
    only_for_who_trusts_them(&servers.tls_urls(), folder.path());
    // One seed does, and the other nodes are reached by TLS, too.
    only_for_who_trusts_them(&servers.tls_urls()[..1], folder.path());
    for node in 0..3 {
        assert_ne!(servers.cli(node, &["dbsize"]), "0", "node {node} was used");
    }
}

/// An authority, a server's certificate by it, and another authority.
const CERTIFICATES: &str = "
    for name in ca other; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$name -keyout $name.key -out $name.pem
    done
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=store -keyout server.key -out server.csr
    printf 'subjectAltName=IP:127.0.0.1\n' >extensions
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem";

#[test]
#[ignore = "the process that the one above starts"]
fn worker_that_uses_tls() {
    let Some(folder) = folder_of_worker() else { return };
    let urls: Vec<String> = std::fs::read_to_string(folder.join("urls")).unwrap().lines().map(str::to_owned).collect();
    let in_all_parts = async {
        let ledger = open(&urls);
        use_all(&ledger).await?;
        for customer in CUSTOMERS {
            let (id, parties) =
                (ledger.new_reservation(), Parties { customer: customer.into(), user: None, login: None });
            let kept = AcceptedRecipients { named: &[RecipientKey(1)], unnamed: 0 };
            assert!(ledger.commit(id, &parties, &unlimited(), kept).await?.fits());
        }
        Ok::<(), LedgerError>(())
    };
    match runtime().block_on(in_all_parts) {
        Ok(()) => println!("it works"),
        Err(error) => println!("{error:?}"),
    }
}
