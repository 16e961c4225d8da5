//! Signs of abuse: what filters before us said, and what comes of it.

use crate::common::installation::{Installation, Milter, Running};
use crate::common::mta::{Answer, Client, Kind, Mta, NO_HEADER};
use crate::common::smtp_sink::SmtpSink;
use crate::main_file;
use relaykeeper::daemon;
use std::time::Duration;
use tempfile::TempDir;

const ACME: &str = r#"
    name = "acme"
    domains = ["acme.example"]
    licenses = 100
    admins = ["it@acme.example"]
    [[user]]
    address = "ann@acme.example"
    [[user]]
    address = "bob@acme.example"
    [[setting]]
    name = "office"
    allowed_senders = "any"
    ip = [{ range = "192.0.2.0/24" }, { range = "198.51.0.0/16" }]
"#;

/// A header that outsiders cannot know.
const SECRET: &str = "X-Relay-Verdict-e04b77d1c2";

struct Watching {
    running: Running,
    milter: Milter,
    sink: SmtpSink,
    _folder: TempDir,
}

async fn watching(abuse: &str) -> Watching {
    watching_with(ACME, abuse).await
}

async fn watching_with(acme: &str, abuse: &str) -> Watching {
    let (sink, folder) = (SmtpSink::start().await, tempfile::tempdir().unwrap());
    let main = main_file(&format!(
        "limits.message.attachments_bytes = \"unlimited\"\nstore.path = \"{}\"\nmail.smtp = \"{}\"\n[abuse]\nspam_count = 3\nspam_share = 50\n{abuse}",
        folder.path().display(),
        sink.address
    ));
    let running = Installation::of(&main, [("acme.toml", acme)]).run();
    let milter = running.start_milter();
    tokio::spawn(daemon::observe(&running.engine));
    Watching { running, milter, sink, _folder: folder }
}

impl Watching {
    /// One message with these headers; the first answer that refuses, if any.
    async fn send(&self, kind: Kind, client: &str, sender: &str, headers: &[(&str, &str)]) -> Answer {
        let client = Client { address: client.into(), ..Client::default() };
        let mut mta = Mta::open(&self.milter.path, kind, client).await;
        mta.mail(sender).await;
        let answer = mta.recipient("you@dest.example").await;
        if answer != Answer::Continue {
            return answer;
        }
        for (name, value) in headers {
            assert_eq!(mta.header(name, value).await, Answer::Continue);
        }
        assert_eq!(mta.end_of_headers().await, Answer::Continue);
        let answer = mta.end().await.1;
        let secrets = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(SECRET)).count() as u32;
        let expected: Vec<_> = (1..=secrets).rev().map(|nth| (nth, SECRET.to_owned())).collect();
        if answer == Answer::Continue {
            assert_eq!(mta.removed, expected, "nobody outside learns of the header");
        }
        answer
    }

    async fn ann_sends(&self, headers: &[(&str, &str)]) -> Answer {
        self.send(Kind::Postfix, "192.0.2.7", "ann@acme.example", headers).await
    }
}

#[tokio::test]
async fn a_flood_marked_as_spam_suspends_the_user() {
    let watching = watching(&format!("header = \"{SECRET}\"\non_abuse = \"suspend\"")).await;
    for n in 0..3 {
        assert_eq!(
            watching.ann_sends(&[("Subject", "hello"), (SECRET, "Yes, score=12")]).await,
            Answer::Continue,
            "{n}"
        );
    }
    let mails = watching.sink.await_mails(1).await;
    assert_eq!(mails[0].recipients, ["<it@acme.example>"]);
    assert!(mails[0].header("Subject").contains("ann@acme.example: suspended: signs of abuse (3 of 3 messages"));
    assert_eq!(mails[0].header("X-Relaykeeper-Notice"), "abuse");
    assert!(mails[0].text.contains("the operator of the relay lifts the suspension"), "{}", mails[0].text);
    let refused = watching.ann_sends(&[]).await;
    let reply = refused.reply();
    assert!(reply.starts_with("550 5.7.1") && reply.contains("signs of abuse: 3 of 3 messages were marked"), "{reply}");
    // Others go on, and nobody is told twice.
    let bob = async |headers: &'static [(&str, &str)]| {
        watching.send(Kind::Sendmail, "192.0.2.7", "bob@acme.example", headers).await
    };
    for _ in 0..2 {
        assert_eq!(bob(&[(SECRET, "yes")]).await, Answer::Continue);
    }
    let lines = watching.running.log_lines();
    let abuse: Vec<_> = lines.iter().filter(|line| line.contains("event=abuse")).collect();
    assert_eq!(abuse.len(), 1, "{lines:#?}");
    assert!(abuse[0].contains("user=ann@acme.example signs=spam done=suspended told=1"), "{abuse:?}");
    // The third message of bob's is the next letter.
    assert_eq!(bob(&[(SECRET, "yes")]).await, Answer::Continue);
    let mails = watching.sink.await_mails(2).await;
    assert!(mails[1].header("Subject").contains("bob@acme.example"));
}

#[tokio::test]
async fn what_clients_write_themselves_is_not_believed() {
    let watching = watching(&format!("header = \"{SECRET}\"\non_abuse = \"suspend\"")).await;
    for _ in 0..5 {
        let forged =
            [("X-Spam", "Yes"), ("X-Spam-Flag", "YES"), ("X-Relay-Verdict-", "yes"), ("X-Virus-Status", "Infected")];
        assert_eq!(watching.ann_sends(&forged).await, Answer::Continue);
        let lower_case = SECRET.to_lowercase();
        let headers = [(SECRET, "no"), ("Subject", "hello"), (lower_case.as_str(), "no")];
        assert_eq!(watching.ann_sends(&headers).await, Answer::Continue);
    }
    let lines = watching.running.log_lines();
    assert!(!lines.iter().any(|line| line.contains("event=abuse")), "{lines:#?}");
}

#[tokio::test]
async fn where_copies_are_taken_out_the_filters_own_names_do() {
    let watching = watching("stripped = true").await;
    for header in [("X-Spam", "Yes"), ("X-Spam-Status", "Yes, score=17"), ("X-Virus-Status", "Infected (Eicar)")] {
        assert_eq!(watching.ann_sends(&[header]).await, Answer::Continue);
    }
    let mails = watching.sink.await_mails(1).await;
    assert!(mails[0].text.contains("No mail was stopped"), "{}", mails[0].text);
    // Once in a window; the customer as a whole has not enough of it.
    for _ in 0..5 {
        assert_eq!(watching.ann_sends(&[("X-Spam", "Yes")]).await, Answer::Continue);
    }
    watching.running.pass_time(Duration::from_secs(3_700));
    for _ in 0..3 {
        assert_eq!(watching.ann_sends(&[("X-Spam", "Yes")]).await, Answer::Continue);
    }
    watching.sink.await_mails(2).await;
}

#[tokio::test]
async fn mail_is_deferred_until_the_signs_are_gone() {
    let watching = watching("verdicts = []\nnetworks = 3\non_abuse = \"defer\"").await;
    for network in 0..3 {
        let client = format!("198.51.{network}.7");
        let sent = watching.send(Kind::Postfix, &client, "ann@acme.example", &[]).await;
        assert_eq!(sent, Answer::Continue);
    }
    let mails = watching.sink.await_mails(1).await;
    assert!(mails[0].header("Subject").contains("deferred: signs of abuse (mail from 3 different networks in 1 hour)"));
    for _ in 0..5 {
        let reply = watching.ann_sends(&[]).await.reply().to_owned();
        assert!(reply.starts_with("450 4.7.1 Mail of ann@acme.example is held back"), "{reply}");
        assert!(reply.contains("mail came from 3 different networks (in 1 hour)"), "{reply}");
        watching.running.pass_time(Duration::from_secs(600));
    }
    watching.running.pass_time(Duration::from_secs(900));
    assert_eq!(watching.ann_sends(&[]).await, Answer::Continue);
    watching.sink.await_mails(1).await;
}

/// One transaction with far more recipients than fit, a message that is too large: the client is told, and nobody is suspected.
#[tokio::test]
async fn what_limits_and_sizes_refuse_is_no_sign() {
    let acme = ACME.replace(
        "licenses = 100",
        "licenses = 100\nlimits.transaction.recipients = 300\nlimits.customer.recipients_per_10_min = 90\n\
         limits.message.bytes = 1500",
    );
    let signs = "verdicts = []\nrefused_recipients = 3\ncustomer_refused_recipients = 3\non_abuse = \"suspend\"";
    let watching = watching_with(&acme, signs).await;
    let mut mta = Mta::open(&watching.milter.path, Kind::Postfix, Client::default()).await;
    mta.mail("ann@acme.example").await;
    let mut refused = std::collections::BTreeSet::new();
    for n in 0..605 {
        if let Answer::Reply(reply) = mta.recipient(&format!("r{n}@dest.example")).await {
            refused.insert(reply[4..].split(':').next().unwrap_or_default().to_owned());
        }
    }
    let refused: Vec<_> = refused.iter().map(|reply| reply.split_once(' ').unwrap().1).collect();
    assert_eq!(refused, ["Peak SMTP relay limit exceeded for customer"]);
    for _ in 0..5 {
        let mut mta = Mta::open(&watching.milter.path, Kind::Postfix, Client::default()).await;
        assert!(mta.mail_declaring(b"<ann@acme.example>", 2_000).await.reply().starts_with("552 5.3.4"));
    }
    let lines = watching.running.log_lines();
    assert!(!lines.iter().any(|line| line.contains("event=abuse")), "{lines:#?}");
    assert!(watching.running.engine.administration.orders().suspends_nobody());
}

const REGISTERED: &str = r#"
    name = "acme"
    domains = ["acme.example"]
    licenses = 100
    admins = ["it@acme.example"]
    [[user]]
    address = "ann@acme.example"
    [[user]]
    address = "bob@acme.example"
    [[setting]]
    name = "office"
    allowed_senders = "registered-users"
    ip = [{ range = "192.0.2.0/24" }]
    [[setting]]
    name = "roaming"
    allowed_senders = "registered-users"
    require_auth = true
"#;

/// A sender that is not allowed burdens the user who logged in, else the customer, but never a sender that is merely claimed.
#[tokio::test]
async fn refused_senders_burden_who_logged_in_else_the_customer() {
    let signs = "verdicts = []\nrefused_recipients = 3\ncustomer_refused_recipients = 4\non_abuse = \"suspend\"";
    let watching = watching_with(REGISTERED, signs).await;
    let refuse = async |address: &str, login: &str, sender: &str, expected: &str| {
        let tls = if login.is_empty() { String::new() } else { "TLSv1.3".to_owned() };
        let client = Client { address: address.into(), login: login.into(), tls, ..Client::default() };
        let mut mta = Mta::open(&watching.milter.path, Kind::Postfix, client).await;
        mta.mail(sender).await;
        let answer = mta.recipient("you@dest.example").await;
        assert!(answer.reply().starts_with(expected), "{answer:?}");
    };
    // Nobody identified the customer: anybody can claim to be ann.
    for _ in 0..10 {
        refuse("198.18.0.1", "", "ann@acme.example", "530 5.7.0").await;
    }
    for _ in 0..3 {
        refuse("192.0.2.7", "", "ceo@acme.example", "550 5.7.1 Sender ceo@acme.example not allowed").await;
    }
    for _ in 0..2 {
        refuse("198.18.0.1", "ann@acme.example", "ceo@acme.example", "550 5.7.1 Sender").await;
    }
    assert!(!watching.running.log_lines().iter().any(|line| line.contains("event=abuse")));
    refuse("192.0.2.7", "", "ceo@acme.example", "550 5.7.1 Sender").await;
    let mails = watching.sink.await_mails(1).await;
    assert!(mails[0].header("Subject").contains("] acme: signs of abuse (4 recipients refused in 1 hour)"));
    assert!(mails[0].text.contains("No mail was stopped"), "a customer is only notified: {}", mails[0].text);
    refuse("198.18.0.1", "ann@acme.example", "bob@stranger.example", "550 5.7.1 Sender").await;
    let mails = watching.sink.await_mails(2).await;
    assert!(mails[1].header("Subject").contains("ann@acme.example: suspended: signs of abuse (3 recipients refused"));
    let orders = watching.running.engine.administration.orders();
    let suspended: Vec<_> = orders.suspensions().iter().map(|one| one.target.name.to_string()).collect();
    assert_eq!(suspended, ["ann@acme.example"]);
}

#[tokio::test]
async fn headers_are_asked_for_only_where_they_are_looked_at() {
    let without = watching("verdicts = []").await;
    let mta = Mta::connect(&without.milter.path, Kind::Postfix).await;
    assert_ne!(mta.agreed.steps & NO_HEADER, 0);
    let with = watching("stripped = true").await;
    let mta = Mta::connect(&with.milter.path, Kind::Postfix).await;
    assert_eq!(mta.agreed.steps & NO_HEADER, 0);
}
