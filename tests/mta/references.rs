//! The decision behind a reference: what the client was told leads the operator to why.

use crate::bed::eventually;
use crate::relay::{Front, Setup, on};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

fn a_reply_leads_to_its_decision(front: Front) {
    let limits = "licenses = 250\nlimits.user.messages_per_day = { max = 0, action = \"reject\" }\n\
                  limits.user.unique_recipients_per_day = { max = 0, shadow = true }";
    let acme = crate::customers::ACME.replace("licenses = 250", limits);
    let mut relay = Setup::with_customers().customer("acme", &acme).start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let reference_of = |text: &str| text.rsplit_once('[').unwrap().1.trim_end_matches(']').to_owned();

    let sent = client.send("stranger@acme.example", &["one@dest.example"]);
    let refused = relay.assert_refused(&sent, "550 5.7.1", "Sender stranger@acme.example not allowed");
    let reference = reference_of(&refused);
    // As somebody on the phone spells it.
    let spelled = reference.replace('-', "").to_lowercase();
    let text = eventually("the decision is recorded", || {
        let output = relay.daemon.cli(&["explain", &spelled]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    let address = relay.address("192.0.2.7").to_string();
    for part in [
        &*format!("reference  {reference}\n"),
        "verdict    reject\n",
        "reason     sender-not-allowed\n",
        &format!("client     {address}\n"),
        "helo       mail.acme.example\n",
        "sender     stranger@acme.example\n",
        "recipient  one@dest.example\n",
        "customer   acme\n",
        "  identify   sender  acme.example (MAIL FROM) belongs to customer acme (acme.example)",
        "  setting    no      \"head office\": it does not allow the sender stranger@acme.example",
        "Sender stranger@acme.example not allowed: the setting \"head office\" allows registered users",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }

    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    let refused = relay.assert_refused(&sent, "550 5.4.5", "Daily SMTP relay limit exceeded for user: 0 messages");
    client.quit();
    // It is there also when the daemon is not.
    relay.daemon.stop();
    let json: Value =
        serde_json::from_str(&relay.daemon.cli_text(&["explain", "--json", &reference_of(&refused)])).unwrap();
    assert_eq!((&json["verdict"], &json["reason"]), (&"reject".into(), &"user-message-limit".into()));
    assert!(json["reply"].as_str().unwrap().starts_with("550 5.4.5 Daily SMTP relay limit exceeded"), "{json}");
    assert!(json["shadow"][0].as_str().unwrap().starts_with("user-recipient-limit: Daily"), "{json}");
    let last = json["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["step"], &last["outcome"]), (&"limit".into(), &"refuse".into()));
    assert!(last["because"].as_str().unwrap().starts_with("Daily SMTP relay limit exceeded for user"), "{json}");

    let unknown = relay.daemon.cli(&["explain", "0000-0000-00"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no decision is recorded under 0000-0000-00"));
    for bad in ["K7Q2", "K7Q2-9FTM-X!"] {
        let output = relay.daemon.cli(&["explain", bad]);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(relay.daemon.cli(&["explain", "--sender", "x@acme.example"]).status.code(), Some(2));
    let mode = std::fs::metadata(relay.daemon.path("store/decisions.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
on!(a_reply_leads_to_its_decision: postfix_both, sendmail_milter);

/// What shadow lets pass is told of, by the log, by `status`, and under its reference.
fn shadow_shows(front: Front) {
    let limits = "licenses = 250\nlimits.user.messages_per_day = { max = 0, shadow = true }";
    let acme = crate::customers::ACME.replace("licenses = 250", limits);
    let relay = Setup::with_customers().customer("acme", &acme).start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
    let line = relay.daemon.await_line(&["verdict=accept", "shadow=user-message-limit"]);
    let status: Value = serde_json::from_str(&relay.daemon.cli_text(&["status", "--json"])).unwrap();
    let decisions = &status["decisions"];
    assert!(decisions["would_have_refused"]["user-message-limit"].as_u64() >= Some(1), "{status}");
    assert!(decisions["refused"].as_object().unwrap().is_empty(), "{status}");
    assert!(relay.daemon.cli_text(&["status"]).contains("user-message-limit (shadow)"));
    let reference = line.split(" ref=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let text = eventually("the decision is recorded", || {
        let output = relay.daemon.cli(&["explain", &reference]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(text.contains("verdict    accept\n") && text.contains("shadow     user-message-limit: Daily"), "{text}");
}
on!(shadow_shows: postfix_both, sendmail_milter);
