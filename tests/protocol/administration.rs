//! The control socket, in process: what is counted for logins, and who hears of an order how soon.

use crate::common::installation::{Installation, Running};
use crate::common::smtpd::Mail;
use crate::common::soon;
use crate::main_file;
use relaykeeper::control::ControlService;
use relaykeeper::listen::{Origin, Peer, Process};
use serde_json::{Value, json};
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

struct Administrator {
    stream: BufReader<DuplexStream>,
}

impl Administrator {
    fn of(running: &Running) -> Administrator {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (reload, _) = mpsc::channel(1);
        let service = ControlService::new(running.engine.clone(), reload);
        let process = Some(Process { pid: None, uid: 4711 });
        let origin = Origin { process, ..Peer::Local.into() };
        tokio::spawn(async move { service.serve_connection(theirs, origin).await });
        Administrator { stream: BufReader::new(ours) }
    }

    async fn ask(&mut self, command: Value) -> Value {
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
    Installation::of(&main_file("policy.count_at = \"end-of-message\""), [("acme.toml", ACME)]).run()
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
    assert_eq!(administrator.ask(reset).await["words"], "login ann: its counts begin anew");
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
        (json!({ "command": "suspend", "kind": "login", "name": "login:ann", "why": "x" }), "write its user's address"),
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
