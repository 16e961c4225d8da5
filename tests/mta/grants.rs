//! More for a while, and what of the quotas is shown.

use crate::bed::eventually;
use crate::relay::{Front, Setup, on};
use serde_json::Value;
use std::time::Duration;

fn more_for_a_while(front: Front) {
    let limited = "licenses = 250\nlimits.user.messages_per_day = 1\nlimits.login.messages_per_day = 5";
    let mut relay = Setup::with_customers()
        .customer("acme", &crate::customers::ACME.replace("licenses = 250", limited))
        .start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user: 1 messages");

    let cli = |arguments: &[&str]| {
        let output = relay.daemon.cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), text)
    };
    let grant = ["grant", "annie@acme.example", "user.messages_per_day"];
    let (code, text) = cli(&[&grant[..], &["+2", "--until", "2d", "--why", "fair"]].concat());
    assert!(code == 0 && text.contains("user.messages_per_day of user ann@acme.example is 3 until"), "{code} {text}");
    for (rest, expected, says) in [
        (&["+2", "--until", "soon", "--why", "fair"][..], 2, "is not a time"),
        (&["+2", "--until", "2001-01-01", "--why", "fair"], 1, "is in the past"),
        (&["+2", "--until", "500d", "--why", "fair"], 1, "days away"),
        (&["+2", "--until", "2d", "--why", " "], 1, "reason is missing"),
        (&["+2", "--why", "fair"], 2, "--until is missing"),
        (&["many", "--until", "2d", "--why", "fair"], 2, "write +5000"),
        (&["5_000", "--until", "2d", "--why", "fair"], 2, "a grant adds to the limit: write +5000 for 5000 more"),
    ] {
        let (code, text) = cli(&[&grant[..], rest].concat());
        assert!(code == expected && text.contains(says), "{rest:?}: {code} {text}");
    }
    let rest = ["+2", "--until", "2d", "--why", "fair"];
    for (name, limit, expected, says) in [
        ("ann@acme.example", "user.mesages_per_day", 2, "is no limit that counts; write one of user.messages_per_day,"),
        ("ann@acme.example", "customer.recipients_per_day", 1, "write the name of the customer"),
        ("nobody@acme.example", "user.messages_per_day", 1, "not an address or alias"),
        ("hooli", "login.messages_per_day", 1, "unlimited"),
    ] {
        let (code, text) = cli(&[&["grant", name, limit][..], &rest].concat());
        assert!(code == expected && text.contains(says), "{name} {limit}: {code} {text}");
    }

    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    relay.daemon.await_counts("ann@acme.example", "user.messages_per_day", 2, 0);
    assert_eq!(relay.daemon.quota("ann@acme.example", "user.messages_per_day").max, 3);
    assert!(relay.daemon.cli_text(&["quota", "show", "ann@acme.example"]).contains("2 of 3 (2 of it granted)"));
    let top = relay.daemon.cli_text(&["quota", "top", "--limit", "user.messages_per_day"]);
    assert!(top.contains("2 of 3         (66%)  user ann@acme.example (acme)"), "{top}");
    let top: Value = serde_json::from_str(&relay.daemon.cli_text(&["quota", "top", "--json"])).unwrap();
    assert!(
        top["top"].as_array().unwrap().iter().any(|entry| entry["name"] == "acme" && entry["kind"] == "customer"),
        "{top}"
    );
    let login = relay.daemon.cli_text(&["quota", "show", "login:BOB@acme.example"]);
    assert!(login.contains("login bob@acme.example\n") && login.contains("0 of 5"), "{login}");

    // It outlasts the daemon, and ends by itself.
    relay.daemon.kill();
    relay.daemon.start();
    let grants: Value = serde_json::from_str(&relay.daemon.cli_text(&["grants", "--json"])).unwrap();
    let grant = &grants.as_array().unwrap()[0];
    assert_eq!(
        (&grant["name"], &grant["more"], &grant["why"]),
        (&"ann@acme.example".into(), &2.into(), &"fair".into())
    );
    assert!(relay.daemon.cli_text(&["grants"]).contains("user ann@acme.example: user.messages_per_day +2 until"));
    relay.daemon.let_pass(Duration::from_secs(2 * 86_400 + 1));
    assert!(relay.daemon.cli_text(&["grants"]).is_empty());
    assert_eq!(relay.daemon.quota("ann@acme.example", "user.messages_per_day").max, 1);
    eventually("the audit log tells of its end", || {
        relay
            .daemon
            .cli_text(&["audit"])
            .contains("relaykeeper: the end of a grant to user ann@acme.example")
            .then_some(())
    });
    let taken_back = relay.daemon.cli(&["grant", "ann@acme.example", "user.messages_per_day", "+0", "--why", "over"]);
    assert_eq!(taken_back.status.code(), Some(1), "there is none");
    client.quit();
}
on!(more_for_a_while: postfix_both);
