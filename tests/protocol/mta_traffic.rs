//! What `status` says of each MTA, and what a watch on the control socket sees.

use crate::administration::Administrator;
use crate::common::mta::{Client, Kind, Mta};
use crate::common::smtpd::Mail;
use crate::{ACME, installation, main_file};
use relaykeeper::control::Status;
use relaykeeper::listen::{Origin, Peer, Process};
use serde_json::{Value, json};

async fn mtas(administrator: &mut Administrator) -> Vec<Value> {
    let status = administrator.ask(json!({ "command": "status" })).await;
    status["status"]["mta"].as_array().unwrap_or_else(|| panic!("{status}")).clone()
}

fn numbers(mta: &Value, keys: &[&str]) -> Vec<u64> {
    keys.iter().map(|key| mta[key].as_u64().unwrap_or_else(|| panic!("{key} in {mta}"))).collect()
}

#[tokio::test]
async fn status_counts_what_each_mta_asks() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut administrator = Administrator::of(&running);
    assert!(mtas(&mut administrator).await.is_empty());

    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client { server_port: 587, ..Client::default() }).await;
    for _ in 0..2 {
        mta.mail("ann@acme.example").await;
        mta.recipient("a@dest.example").await;
        mta.content("Subject: x\r\n\r\nhello\r\n").await;
        mta.end().await;
    }
    mta.mail("ann@acme.example").await;
    mta.recipient("a@dest.example").await;
    mta.abort().await;
    mta.quit().await;
    running.settle().await;

    let mut smtpd = running.smtpd(1);
    let mail = smtpd.next_mail();
    smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    smtpd.ask(&mail.at_recipient("b@dest.example")).await;
    smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await;
    let given_up = smtpd.next_mail();
    smtpd.ask(&given_up.at_recipient("a@dest.example")).await;
    let stranger = Mail { client: "203.0.113.9".into(), helo: "localhost".into(), ..smtpd.next_mail() };
    let refused = smtpd.ask(&stranger.at_recipient("a@dest.example")).await;
    assert!(refused.starts_with("550"), "{refused}");

    let all = mtas(&mut administrator).await;
    assert_eq!(all.len(), 2, "{all:?}");
    let (smtp, submission) = (&all[0], &all[1]);
    let name = |mta: &Value| (mta["peer"].clone(), mta["server_address"].clone(), mta["server_port"].clone());
    assert_eq!(name(smtp), (json!("local"), json!("198.51.100.25"), json!(25)));
    assert_eq!(name(submission), (json!("local"), json!("198.51.100.25"), json!(587)));
    let milter = ["milter_sessions", "milter_recipients", "milter_ends"];
    let policy = ["policy_sessions", "policy_recipients", "policy_ends"];
    assert_eq!((numbers(submission, &milter), numbers(submission, &policy)), (vec![1, 3, 2], vec![0, 0, 0]));
    assert_eq!((numbers(smtp, &milter), numbers(smtp, &policy)), (vec![0, 0, 0], vec![1, 3, 1]));
    assert_eq!((smtp["given_up"].clone(), submission["given_up"].clone()), (json!(1), json!(1)));
    assert_eq!(submission["only_client"], "192.0.2.7");
    assert_eq!(numbers(submission, &["helo_names", "own_helo_names", "helo_customers"]), [1, 1, 1]);
}

#[tokio::test]
async fn many_names_from_one_private_address_are_noticed() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut administrator = Administrator::of(&running);
    for session in 0..20 {
        let helo = format!("mx{}.acme.example", session % 5);
        let client = Client { address: "172.17.0.1".into(), port: 4711 + session, helo, ..Client::default() };
        Mta::open(&milter.path, Kind::Postfix, client).await.quit().await;
    }
    running.settle().await;
    let status = administrator.ask(json!({ "command": "status" })).await["status"].clone();
    let status: Status = serde_json::from_value(status).unwrap();
    assert!(status.mta[0].has_one_address(), "{:?}", status.mta);
    assert_eq!((status.mta[0].own_helo_names, status.mta[0].helo_customers), (5, 1));
}

#[tokio::test]
async fn two_processes_of_one_process_id_are_noticed() {
    let running = installation("").run();
    let mut administrator = Administrator::of(&running);
    // Containers on one socket: the kernel does not say which process it is.
    let origin = Origin { peer: Peer::Local, process: Some(Process { pid: None, uid: 33 }) };
    let (mut first, mut second) = (running.smtpd_of(origin, 7), running.smtpd_of(origin, 7));
    let of_first = Mail { instance: "7.1.1.0".into(), server: "172.18.0.2".into(), ..first.next_mail() };
    let of_second = Mail { instance: "7.2.2.0".into(), server: "172.18.0.3".into(), ..second.next_mail() };
    first.ask(&of_first.at_recipient("a@dest.example")).await;
    second.ask(&of_second.at_recipient("a@dest.example")).await;
    assert!(mtas(&mut administrator).await.iter().all(|mta| mta["shared_process_ids"] == 0));
    first.ask(&of_first.at_recipient("b@dest.example")).await;
    let shared: u64 =
        mtas(&mut administrator).await.iter().map(|mta| mta["shared_process_ids"].as_u64().unwrap()).sum();
    assert_eq!(shared, 1);
}

#[tokio::test]
async fn a_watch_sees_both_protocols_under_one_name_and_nothing_else() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut administrator = Administrator::of(&running);
    let watch = json!({ "command": "watch", "filter": { "helo": "canary.relay.example.net" }, "seconds": 60 });
    let name = administrator.ask(watch).await["watch"].clone();

    let client = |helo: &str| Client { helo: helo.into(), ..Client::default() };
    let mut other = Mta::open(&milter.path, Kind::Sendmail, client("mx.acme.example")).await;
    other.mail("ann@acme.example").await;
    let mut mta = Mta::open(&milter.path, Kind::Postfix, client("canary.relay.example.net")).await;
    mta.mail("secret-sender@acme.example").await;
    mta.recipient("secret-recipient@dest.example").await;
    let mut smtpd = running.smtpd(1);
    let mail = Mail { helo: "Canary.relay.example.net".into(), ..smtpd.next_mail() };
    smtpd.ask(&mail.request("RCPT", "secret-recipient@dest.example", 0, "relay")).await;

    let fetch = json!({ "command": "events", "watch": name, "wait_seconds": 1 });
    let answer = administrator.ask(fetch.clone()).await;
    let events = answer["events"].as_array().unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event["protocol"].as_str(), event["stage"].as_str())).collect();
    let expected =
        [("milter", "CONNECT"), ("milter", "HELO"), ("milter", "MAIL"), ("milter", "RCPT"), ("policy", "RCPT")];
    assert_eq!(seen, expected.map(|(protocol, stage)| (Some(protocol), Some(stage))));
    let milter_name = format!("unix:{}", milter.path.display());
    assert_eq!((events[0]["listener"].as_str(), events[4]["context"].as_str()), (Some(&*milter_name), Some("relay")));
    for event in events {
        let who = (event["client_address"].clone(), event["client_port"].clone(), event["server_port"].clone());
        assert_eq!(who, (json!("192.0.2.7"), json!(4711), json!(25)));
    }
    assert!(!answer.to_string().contains("secret"), "{answer}");
    assert_eq!(administrator.ask(json!({ "command": "events", "watch": 4711 })).await["ended"], true);
}

#[tokio::test]
async fn a_watch_asks_for_what_this_version_can_filter() {
    let running = crate::common::installation::Installation::of(&main_file(""), [("acme.toml", ACME)]).run();
    let mut administrator = Administrator::of(&running);
    let answer =
        administrator.ask(json!({ "command": "watch", "filter": { "customer": "acme" }, "seconds": 60 })).await;
    assert_eq!(answer["answer"], "no", "{answer}");
}
