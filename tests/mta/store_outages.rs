//! Redis becomes unreachable and reachable again under a running daemon: mail flows on, the log has one line each time, `status`
//! says so in between, and every message is counted once.

use crate::bed::eventually;
use crate::redis::{Flavour, Kind, Servers};
use crate::relay::{Front, Relay, Setup, on};
use serde_json::{Value, json};

/// What outlives a SIGKILL of the server.
const ON_DISK: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn lines(relay: &Relay, words: &str) -> Vec<String> {
    relay.daemon.log().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

fn status(relay: &Relay) -> String {
    relay.daemon.cli_text(&["status"])
}

/// Numbers of the store: nodes, unreachable nodes, messages that it does not count yet.
fn gauges(relay: &Relay) -> [u64; 3] {
    let status: Value = serde_json::from_str(&relay.daemon.cli_text(&["status", "--json"])).unwrap();
    let gauges = &status["shared_store"];
    ["parts", "parts_away", "messages_to_count"].map(|name| gauges[name].as_u64().unwrap())
}

fn counted_locally_and_merged(front: Front) {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &ON_DISK);
    let store = format!("[store]\nbackend = \"redis\"\nurls = {:?}", servers.urls());
    let mut relay = Setup::with_customers().main(&store).start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let mut deliver = |relay: &Relay, nth: u32| {
        relay.deliver(&mut client, "ann@acme.example", &[&format!("r{nth}@dest.example")]);
    };
    deliver(&relay, 0);
    for outage in 1..=2 {
        servers.kill(0);
        deliver(&relay, 2 * outage - 1);
        deliver(&relay, 2 * outage);
        eventually("a line that it is unreachable", || {
            (lines(&relay, "the store is unreachable").len() == outage as usize).then_some(())
        });
        let line = lines(&relay, "the store is unreachable").pop().unwrap();
        assert!(line.contains("mail is decided by the last known usage, and counted locally"), "{line}");
        let status = status(&relay);
        assert!(
            status.contains("decisions are based on the last known usage; messages counted locally: 2"),
            "{status}"
        );
        assert_eq!(gauges(&relay), [1, 1, 2]);
        relay.daemon.await_counts("acme", "customer.recipients_per_day", u64::from(1 + 2 * outage), 0);
        servers.start_again(0);
        let back = "the store is reachable again after";
        eventually("a line that it is reachable", || (lines(&relay, back).len() == outage as usize).then_some(()));
        let line = lines(&relay, back).pop().unwrap();
        assert!(line.contains("merged 2 messages counted locally"), "{line}");
    }
    assert!(!status(&relay).contains("counted locally"), "{}", status(&relay));
    assert_eq!(gauges(&relay), [1, 0, 0]);
    assert_eq!(lines(&relay, "the store is").len(), 4, "{}", relay.daemon.log());
    deliver(&relay, 5);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 6, 0);
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 6, 0);
    client.quit();
    relay.daemon.stop();
    // Another daemon sees the same on the server.
    relay.daemon.start();
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 6, 0);
}
on!(counted_locally_and_merged: postfix_both, sendmail_milter);

fn deferred_at_once(front: Front) {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &ON_DISK);
    let store = format!("[store]\nbackend = \"redis\"\non_outage = \"defer\"\nurls = {:?}", servers.urls());
    let relay = Setup::with_customers().main(&store).start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["r0@dest.example"]);
    servers.kill(0);
    let sent = client.send("ann@acme.example", &["r1@dest.example"]);
    relay.assert_refused(&sent, "451 4.3.0", "Cannot decide: the store is unavailable");
    let line = relay.daemon.await_line(&["the store is unreachable"]);
    assert!(line.contains("mail is deferred if a limit applies to it"), "{line}");
    let status = status(&relay);
    assert!(status.contains("failed: "), "{status}");
    assert_eq!(gauges(&relay), [1, 1, 0]);
    servers.start_again(0);
    relay.daemon.await_line(&["the store is reachable again"]);
    relay.deliver(&mut client, "ann@acme.example", &["r1@dest.example"]);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2, 0);
    client.quit();
}
on!(deferred_at_once: postfix_policy);

fn one_node_of_a_cluster(front: Front) {
    let in_parts = ["--cluster-require-full-coverage", "no", "--cluster-replica-no-failover", "yes"];
    let servers = Servers::start(Flavour::Redis, Kind::Cluster, &in_parts);
    let store = format!("[store]\nbackend = \"redis\"\nurls = {:?}", servers.urls());
    let relay = Setup::with_customers().main(&store).start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["r0@dest.example"]);
    let slot: usize = servers.cli(0, &["cluster", "keyslot", "rk:{acme}:c"]).parse().unwrap();
    servers.pause(slot * 3 / 16384);
    relay.deliver(&mut client, "ann@acme.example", &["r1@dest.example"]);
    let line = relay.daemon.await_line(&["part of the store is unreachable"]);
    assert!(line.contains("mail of its customers is decided by the last known usage, and counted locally"), "{line}");
    assert_eq!(gauges(&relay), [3, 1, 1]);
    let top = relay.daemon.cli(&["quota", "top", "--json"]);
    let (json, said) = (serde_json::from_slice::<Value>(&top.stdout).unwrap(), String::from_utf8_lossy(&top.stderr));
    let address = format!("127.0.0.1:{}", servers.port(slot * 3 / 16384));
    assert_eq!((&json["top"], &json["missing"][0]["address"]), (&json!([]), &json!(address)), "{json}");
    let missing = format!("part of the store is unreachable, and its customers are missing: {address}: ");
    assert!(said.contains(&missing) && top.status.code() == Some(1), "{said} {}", top.status);
    servers.resume(slot * 3 / 16384);
    let line = relay.daemon.await_line(&["the store is reachable again"]);
    assert!(line.ends_with("merged 1 message counted locally"), "{line}");
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2, 0);
    let top: Value = serde_json::from_str(&relay.daemon.cli_text(&["quota", "top", "--json"])).unwrap();
    assert_eq!((&top["missing"], &top["top"][0]["customer"]), (&json!([]), &"acme".into()), "{top}");
    client.quit();
}
on!(one_node_of_a_cluster: postfix_milter);
