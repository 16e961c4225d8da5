//! Servers die, hang, and migrate slots while daemons send. Whatever the server kept is counted, and nothing twice.

use crate::crash::{folder_of_worker, worker_by};
use crate::load::{CUSTOMERS, Load, Sent, counted, daemon, recipients_counted};
use crate::redis::{Flavour, Kind, Servers};
use relaykeeper::ledger::Ledger;
use std::io::Read;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Waits until the replica has all that the master has counted so far.
pub fn await_replica(servers: &Servers, master: usize, replica: usize) {
    let offset = |node, field: &str| -> u64 {
        let text = servers.cli(node, &["info", "replication"]);
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|number| number.trim().parse().ok()).expect("it tells how far it is")
    };
    let target = offset(master, "master_repl_offset");
    let deadline = Instant::now() + Duration::from_secs(30);
    while offset(replica, "slave_repl_offset") < target {
        assert!(Instant::now() < deadline, "the replica stays behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn balance(daemon: &Ledger, kept: &[Sent], sent: &[Sent]) {
    for (customer, (kept, sent)) in CUSTOMERS.iter().zip(kept.iter().zip(sent)) {
        let counted = counted(daemon, customer).await;
        let (least, most) = (kept.before + sent.after, sent.before + sent.after + sent.unsure);
        assert!((least..=most).contains(&counted), "{customer}: {counted} counted; {kept:?}, then {sent:?}");
    }
}

/// The master 0 goes, by `end`, and its replica takes over. How long nothing was decided.
async fn replica_takes_over(servers: &Servers, replica: usize, end: impl FnOnce(), back: impl FnOnce()) {
    let urls = servers.urls();
    let daemons = [daemon(&urls), daemon(&urls)];
    let load = Load::start(&daemons, 4, CUSTOMERS.len(), None);
    load.until("all send", |sent| sent.before >= 30, CUSTOMERS.len()).await;
    let kept = load.sent();
    await_replica(servers, 0, replica);
    end();
    load.mark();
    let took = load.until("decisions go on", |sent| sent.after >= 30, CUSTOMERS.len()).await;
    println!("all customers are decided on again, 30 messages each, after {took:.1?}");
    back();
    let sent = load.sent();
    load.until("they still go on", |now| now.after >= sent[0].after + 60, 1).await;
    let sent = load.stop().await;
    balance(&daemons[0], &kept, &sent).await;
    // Who comes new sees the same.
    balance(&daemon(&urls), &kept, &sent).await;
}

#[test]
fn sentinel_promotes_the_replica_of_a_master_that_was_killed() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let servers = Servers::start(flavour, Kind::Sentinel, &[]);
        run(replica_takes_over(&servers, 1, || servers.kill(0), || servers.start_again(0)));
    }
}

#[test]
fn a_master_that_was_cut_off_and_comes_back_counts_nothing_twice() {
    let servers = Servers::start(Flavour::Redis, Kind::Sentinel, &[]);
    run(replica_takes_over(&servers, 1, || servers.pause(0), || servers.resume(0)));
}

#[test]
fn a_cluster_that_loses_a_master_goes_on() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let servers = Servers::start(flavour, Kind::Cluster, &[]);
        run(replica_takes_over(&servers, 3, || servers.kill(0), || servers.start_again(0)));
    }
}

#[test]
fn a_cluster_whose_master_was_cut_off_goes_on() {
    let servers = Servers::start(Flavour::Valkey, Kind::Cluster, &[]);
    run(replica_takes_over(&servers, 3, || servers.pause(0), || servers.resume(0)));
}

/// Moves the slot of the first customer to another master, key by key, as redis-cli(1) does with `--cluster reshard`.
fn move_slot(servers: &Servers, from: usize, to: usize) {
    let slot = servers.cli(0, &["cluster", "keyslot", &format!("rk:{{{}}}:c", CUSTOMERS[0])]);
    begin_to_move(servers, &slot, from, to);
    move_all(servers, &slot, from, to);
}

/// From now on the keys of a slot are on either master.
pub fn begin_to_move(servers: &Servers, slot: &str, from: usize, to: usize) {
    let [id_of_from, id_of_to] = [from, to].map(|node| servers.cli(node, &["cluster", "myid"]));
    servers.cli(to, &["cluster", "setslot", slot, "importing", &id_of_from]);
    servers.cli(from, &["cluster", "setslot", slot, "migrating", &id_of_to]);
}

/// Moves what is left, and the slot with it.
pub fn move_all(servers: &Servers, slot: &str, from: usize, to: usize) {
    let id_of_to = servers.cli(to, &["cluster", "myid"]);
    let port = servers.port(to).to_string();
    loop {
        // Whoever asks between these two has one key here and another there.
        let keys = servers.cli(from, &["cluster", "getkeysinslot", slot, "1"]);
        if keys.is_empty() {
            break;
        }
        servers.cli(from, &["migrate", "127.0.0.1", &port, keys.trim(), "0", "5000"]);
    }
    for node in [to, from, 3 - from - to] {
        servers.cli(node, &["cluster", "setslot", slot, "node", &id_of_to]);
    }
}

#[test]
fn slots_that_move_under_load_take_all_counts_with_them() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let servers = Servers::start(flavour, Kind::Cluster, &[]);
        let urls = servers.urls();
        run(async {
            let daemons = [daemon(&urls), daemon(&urls)];
            let load = Load::start(&daemons, 4, 1, None);
            load.until("they send", |sent| sent.before >= 50, 1).await;
            let slot = servers.cli(0, &["cluster", "keyslot", &format!("rk:{{{}}}:c", CUSTOMERS[0])]);
            let first = slot.parse::<usize>().unwrap() * 3 / 16384;
            for step in 0..6 {
                let (from, to) = ((first + step) % 3, (first + step + 1) % 3);
                let before = load.sent()[0].before;
                move_slot(&servers, from, to);
                load.until("it goes on", |sent| sent.before >= before + 50, 1).await;
            }
            let sent = load.stop().await[0];
            assert_eq!(sent.unsure, 0, "every request was answered");
            assert_eq!(counted(&daemons[0], CUSTOMERS[0]).await, sent.before);
        });
    }
}

#[test]
fn a_limit_holds_while_its_slot_moves() {
    let servers = Servers::start(Flavour::Redis, Kind::Cluster, &[]);
    let urls = servers.urls();
    run(async {
        let daemons = [daemon(&urls), daemon(&urls), daemon(&urls)];
        let max = 1500;
        let load = Load::start(&daemons, 3, 1, Some(max));
        load.until("they send", |sent| sent.before >= 20, 1).await;
        let slot = servers.cli(0, &["cluster", "keyslot", &format!("rk:{{{}}}:c", CUSTOMERS[0])]);
        let first = slot.parse::<usize>().unwrap() * 3 / 16384;
        move_slot(&servers, first, (first + 1) % 3);
        move_slot(&servers, (first + 1) % 3, (first + 2) % 3);
        load.until_refused().await;
        // Whoever had reserved some of it when another was refused has ended by now, or retries.
        load.until("all of it", |sent| sent.before + sent.unsure >= max, 1).await;
        let sent = load.stop().await[0];
        assert_eq!((sent.before, sent.unsure), (max, 0), "all of it, and not one more");
        assert_eq!(counted(&daemons[0], CUSTOMERS[0]).await, max);
    });
}

const MAX_OF_PROCESSES: u64 = 3000;

#[test]
fn processes_that_race_for_one_limit_reach_it_and_never_pass_it_while_the_server_hangs() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("urls"), servers.urls().join("\n")).unwrap();
    let mut workers: Vec<Child> = (0..3)
        .map(|_| worker_by(Command::new("env"), "failover::worker_that_races_for_a_limit", folder.path()))
        .collect();
    run(async {
        let watcher = daemon(&servers.urls());
        // Longer than a daemon waits for an answer: what the server has still to read is asked a second time.
        for part in 1..=2 {
            let deadline = Instant::now() + Duration::from_secs(60);
            while recipients_counted(&watcher, CUSTOMERS[0]).await < part * MAX_OF_PROCESSES / 4 {
                assert!(Instant::now() < deadline, "nobody sends");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            servers.pause(0);
            tokio::time::sleep(Duration::from_millis(1300)).await;
            servers.resume(0);
        }
        let (mut accepted, mut unsure) = (0, 0);
        for worker in &mut workers {
            let mut text = String::new();
            worker.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            assert!(worker.wait().unwrap().success(), "{text}");
            let line = text.lines().find_map(|line| line.strip_prefix("sent ")).unwrap_or_else(|| panic!("{text}"));
            let (of_worker, unsure_of_worker) = line.split_once(' ').unwrap();
            accepted += of_worker.parse::<u64>().unwrap();
            unsure += unsure_of_worker.parse::<u64>().unwrap();
        }
        assert_eq!(counted(&watcher, CUSTOMERS[0]).await, MAX_OF_PROCESSES, "all of it, and not one more");
        assert!((MAX_OF_PROCESSES - unsure..=MAX_OF_PROCESSES).contains(&accepted), "{accepted} {unsure}");
    });
}

#[test]
#[ignore = "the process that the one above starts"]
fn worker_that_races_for_a_limit() {
    let Some(folder) = folder_of_worker() else { return };
    let urls: Vec<String> = std::fs::read_to_string(folder.join("urls")).unwrap().lines().map(str::to_owned).collect();
    run(async {
        let ledger = daemon(&urls);
        let load = Load::start(std::slice::from_ref(&ledger), 8, 1, Some(MAX_OF_PROCESSES));
        let deadline = Instant::now() + Duration::from_secs(60);
        while recipients_counted(&ledger, CUSTOMERS[0]).await < MAX_OF_PROCESSES {
            assert!(Instant::now() < deadline, "the limit is never reached");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sent = load.stop().await[0];
        println!("\nsent {} {}", sent.before, sent.unsure);
    });
}
