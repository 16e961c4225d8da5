//! The control socket, in process: what is counted for logins, and who hears of an order how soon.

use crate::common::installation::{Installation, Running};
use crate::common::smtpd::{Mail, Smtpd};
use crate::common::soon;
use crate::main_file;
use relaykeeper::control::ControlService;
use relaykeeper::listen::{Origin, Peer, Process};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::mpsc;

const ACME: &str = r#"
    name = "acme"
    domains = ["acme.example"]
    licenses = 100
    limits.login.messages_per_day = 10
    [[user]]
    address = "ann@acme.example"
    logins = ["ann"]
    [[setting]]
    name = "roaming"
    allowed_senders = "own-domains"
    require_auth = true
"#;

pub(crate) struct Administrator {
    stream: BufReader<DuplexStream>,
}

impl Administrator {
    pub(crate) fn of(running: &Running) -> Administrator {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (reload, _) = mpsc::channel(1);
        let service = ControlService::new(running.engine.clone(), reload);
        let process = Some(Process { pid: None, uid: 4711 });
        let origin = Origin { process, ..Peer::Local.into() };
        tokio::spawn(async move { service.serve_connection(theirs, origin).await });
        Administrator { stream: BufReader::new(ours) }
    }

    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        self.say(&command.to_string()).await
    }

    async fn say(&mut self, line: &str) -> Value {
        soon("an answer", async {
            self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            self.stream.read_line(&mut answer).await.unwrap();
            serde_json::from_str(&answer).unwrap()
        })
        .await
    }
}

fn running() -> Running {
    running_with(ACME, "")
}

/// With a second customer, if there is a text for it.
fn running_with(acme: &str, bolt: &str) -> Running {
    let customers = [("acme.toml", acme), ("bolt.toml", bolt)].into_iter().filter(|(_, text)| !text.is_empty());
    Installation::of(&main_file("policy.count_at = \"end-of-message\""), customers).run()
}

#[tokio::test]
async fn what_a_login_used_is_shown_and_reset() {
    let running = running();
    let (mut smtpd, mut administrator) = (running.smtpd(1), Administrator::of(&running));
    for login in ["ANN", "x@acme.example", "ann"] {
        let mail = Mail { login: login.into(), tls: "TLSv1.3".into(), ..smtpd.next_mail() };
        assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
        assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    }
    let show = json!({ "command": "quota-show", "names": ["login:Ann", "login:x@acme.example"] });
    let used = async |administrator: &mut Administrator| -> Vec<Value> {
        let answer = administrator.ask(show.clone()).await;
        let usage = answer["usage"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        assert_eq!((&usage[0]["kind"], &usage[0]["name"]), (&"login".into(), &"ann".into()));
        usage.iter().map(|usage| usage["limits"][0]["used"].clone()).collect()
    };
    assert_eq!(used(&mut administrator).await, [2, 1]);
    let top = json!({ "command": "quota-top", "limits": ["login.messages_per_day"], "most": 1 });
    let top = administrator.ask(top).await["top"].clone();
    assert_eq!((top.as_array().unwrap().len(), &top[0]["name"], &top[0]["max"]), (1, &"ann".into(), &10.into()));
    let reset = json!({ "command": "quota-reset", "name": "login:ann", "why": "" });
    assert_eq!(administrator.ask(reset).await["words"], "login ann: its usage was reset");
    assert_eq!(used(&mut administrator).await, [0, 1]);
    let stranger = administrator.ask(json!({ "command": "quota-show", "names": ["login:stranger"] })).await;
    assert_eq!(stranger["words"], "the login \"stranger\" belongs to no customer");
}

#[tokio::test]
async fn an_order_is_known_to_the_next_question() {
    let running = running();
    let (mut smtpd, mut administrator) = (running.smtpd(1), Administrator::of(&running));
    let mail = Mail { login: "ann".into(), tls: "TLSv1.3".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
    let suspend = json!({ "command": "suspend", "kind": "customer", "name": "acme", "why": "unpaid" });
    assert_eq!(administrator.ask(suspend).await["answer"], "done");
    for request in
        [mail.at_recipient("a@dest.example"), mail.at_recipient("b@dest.example"), mail.at_end(&["a@dest.example"])]
    {
        let action = smtpd.ask(&request).await;
        assert!(action.starts_with("550 5.7.1 SMTP relay suspended for customer: acme (unpaid)"), "{action}");
    }
    assert!(running.holds_nothing().await);
    assert!(running.log_lines().iter().any(|line| line.contains("event=suspend") && line.contains("by=\"uid 4711\"")));
    let status = administrator.ask(json!({ "command": "status" })).await;
    assert_eq!(status["status"]["suspended"][0]["by"], "uid 4711");
}

#[tokio::test]
async fn a_suspension_with_an_end_ends_by_itself() {
    let running = running();
    let (mut smtpd, mut administrator) = (running.smtpd(1), Administrator::of(&running));
    let until = (running.engine.wall_time() + Duration::from_secs(3_600)).to_string();
    for (kind, name) in [("login", "ANN"), ("client", "192.0.2.7/24"), ("customer", "acme")] {
        let suspend = json!({ "command": "suspend", "kind": kind, "name": name, "why": "x", "until": until });
        let words = administrator.ask(suspend).await["words"].as_str().unwrap().to_owned();
        assert!(words.contains(&format!("is suspended until {until}: all ")), "{words}");
    }
    let status = administrator.ask(json!({ "command": "status" })).await["status"].clone();
    let suspended: Vec<_> = status["suspended"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(suspended, ["acme", "ann", "192.0.2.0/24"]);
    assert_eq!(status["suspended"][2]["until"], until.as_str());
    let mail = |smtpd: &mut Smtpd| Mail {
        login: "ann".into(),
        tls: "TLSv1.3".into(),
        client: "192.0.2.200".into(),
        ..smtpd.next_mail()
    };
    let before = mail(&mut smtpd);
    let action = smtpd.ask(&before.at_recipient("a@dest.example")).await;
    assert!(action.starts_with("550 5.7.1 SMTP relay suspended for IP address: 192.0.2.200 (x)"), "{action}");
    running.pass_time(Duration::from_secs(3_601));
    let after = mail(&mut smtpd);
    assert_eq!(smtpd.ask(&after.at_recipient("a@dest.example")).await, "DUNNO");
    let status = administrator.ask(json!({ "command": "status" })).await["status"].clone();
    assert_eq!(status["suspended"], json!([]));
    let resume = json!({ "command": "resume", "kind": "customer", "name": "acme", "why": "" });
    assert!(administrator.ask(resume).await["words"].as_str().unwrap().contains("is not suspended"));
}

#[tokio::test]
async fn a_grant_for_a_login_is_one_for_its_user() {
    let running = running();
    let mut administrator = Administrator::of(&running);
    let until = (running.engine.wall_time() + Duration::from_secs(3_600)).to_string();
    for (name, limit, expected) in [
        ("login:ANN", "login.messages_per_day", "login.messages_per_day of the logins of user ann@acme.example is 15"),
        ("login:ann", "user.messages_per_day", "is a limit of users, not of logins: write ann@acme.example"),
        ("login:ann", "customer.recipients_per_day", "is a limit of customers, not of logins: write acme"),
        ("login:x@acme.example", "login.messages_per_day", "only for everybody of customer acme"),
        (
            "ann@acme.example",
            "customer.recipients_per_day",
            "is a limit of the customer: write the name of the customer",
        ),
    ] {
        let grant = json!({ "command": "grant", "name": name, "limit": limit, "more": 5, "until": until, "why": "x" });
        let words = administrator.ask(grant).await["words"].as_str().unwrap().to_owned();
        assert!(words.contains(expected), "{name} {limit}: {words}");
    }
}

#[tokio::test]
async fn the_top_is_by_share_of_the_limit() {
    let running = running_with(
        &ACME.replace("limits.login.messages_per_day = 10", "limits.user.messages_per_day = 15_000"),
        &ACME
            .replace("acme", "bolt")
            .replace("limits.login.messages_per_day = 10", "limits.user.messages_per_day = 3")
            .replace("logins = [\"ann\"]", ""),
    );
    let (mut smtpd, mut administrator) = (running.smtpd(1), Administrator::of(&running));
    for (sender, messages) in [("ann@acme.example", 10), ("ann@bolt.example", 3)] {
        for _ in 0..messages {
            let mail = Mail { sender: sender.into(), login: sender.into(), tls: "TLSv1.3".into(), ..smtpd.next_mail() };
            assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
            assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
        }
    }
    let mut top = async |by: Value| -> Vec<String> {
        let mut command = json!({ "command": "quota-top", "limits": ["user.messages_per_day"], "most": 1, "by": by });
        if by.is_null() {
            command.as_object_mut().unwrap().remove("by");
        }
        let answer = administrator.ask(command).await;
        let top = answer["top"].as_array().unwrap_or_else(|| panic!("{answer}"));
        top.iter()
            .map(|entry| format!("{} {} of {}", entry["name"].as_str().unwrap(), entry["used"], entry["max"]))
            .collect()
    };
    assert_eq!(top(Value::Null).await, ["ann@bolt.example 3 of 3"]);
    assert_eq!(top("share".into()).await, ["ann@bolt.example 3 of 3"]);
    assert_eq!(top("used".into()).await, ["ann@acme.example 10 of 15000"]);
}

#[tokio::test]
async fn an_edit_that_was_not_reloaded_shows() {
    let installation = Installation::of(&main_file(""), [("acme.toml", ACME)]);
    let running = installation.run();
    let mut administrator = Administrator::of(&running);
    let mut differences =
        async || administrator.ask(json!({ "command": "status" })).await["status"]["differs_on_disk"].clone();
    assert_eq!(differences().await, json!([]));
    let snapshot = installation.with_customer("acme.toml", &ACME.replace("licenses = 100", "licenses = 2000"));
    let edited = differences().await;
    assert!(edited[0].as_str().unwrap().ends_with("acme.toml has changed since it was read"), "{edited}");
    running.engine.replace_snapshot(snapshot);
    assert_eq!(differences().await, json!([]));
}

#[tokio::test]
async fn a_wrong_command_is_told_and_harms_nothing() {
    let running = running();
    let mut administrator = Administrator::of(&running);
    for line in [
        "",
        "suspend",
        "{}",
        "[]",
        r#"{"command":"suspend","kind":"everybody","name":"acme","why":"x"}"#,
        r#"{"command":"grant","name":"acme","limit":"no.limit","more":1,"until":null,"why":"x"}"#,
        r#"{"command":"grant","name":"acme","limit":"customer.recipients_per_day","more":-1,"until":null,"why":"x"}"#,
    ] {
        let answer = administrator.say(line).await;
        assert!(answer["words"].as_str().unwrap().starts_with("not a command of this version: "), "{line}: {answer}");
    }
    let refused = [
        (json!({ "command": "suspend", "kind": "user", "name": "acme", "why": "x" }), "is a customer"),
        (json!({ "command": "suspend", "kind": "customer", "name": "ann@acme.example", "why": "x" }), "is a user"),
        (json!({ "command": "suspend", "kind": "user", "name": "ann", "why": "x" }), "`relaykeeper login suspend ann`"),
        (
            json!({ "command": "suspend", "kind": "user", "name": "login:bob", "why": "x" }),
            "is not a user; write `relay",
        ),
        (json!({ "command": "suspend", "kind": "customer", "name": "login:ann", "why": "x" }), "is not a customer;"),
        (json!({ "command": "suspend", "kind": "login", "name": "login:", "why": "x" }), "not a login"),
        (json!({ "command": "suspend", "kind": "client", "name": "127.0.0.1", "why": "x" }), "loopback"),
        (json!({ "command": "suspend", "kind": "client", "name": "mail.example", "why": "x" }), "is not an IP address"),
        (
            json!({ "command": "suspend", "kind": "client", "name": "192.0.2.7", "why": "x", "until": "2001-01-01T00:00:00Z" }),
            "is in the past",
        ),
        (json!({ "command": "resume", "kind": "client", "name": "192.0.2.7", "why": "" }), "is not suspended"),
        (json!({ "command": "suspend", "kind": "customer", "name": "acme", "why": " " }), "a reason is missing"),
        (json!({ "command": "resume", "kind": "customer", "name": "acme", "why": "" }), "is not suspended"),
    ];
    for (command, expected) in refused {
        let answer = administrator.ask(command).await;
        assert!(
            answer["answer"] == "no" && answer["words"].as_str().unwrap().contains(expected),
            "{expected}: {answer}"
        );
    }
    assert!(running.engine.administration.orders().suspends_nobody());
}
