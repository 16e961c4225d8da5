//! Administrators are told by mail when a limit is nearly used up: once per limit, level and window.

use crate::common::installation::{Installation, Milter, Running, START};
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::smtp_sink::{Mail, SmtpSink};
use crate::main_file;
use relaykeeper::clock::ManualClock;
use relaykeeper::daemon;
use relaykeeper::ledger::Ledger;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

/// acme with limits so that only one of them is ever near.
fn acme(lines: &str) -> String {
    format!(
        r#"
        name = "acme"
        domains = ["acme.example"]
        licenses = 100
        admins = ["it@acme.example", "boss@acme.example"]
        {lines}
        [[user]]
        address = "ann@acme.example"
        [[setting]]
        name = "office"
        allowed_senders = "any"
        ip = [{{ range = "192.0.2.0/24" }}]
    "#
    )
}

const TEN_MESSAGES: &str = "limits.user.messages_per_day = 10";

/// An engine that writes letters, and where they go.
struct Writing {
    running: Running,
    milter: Milter,
    sink: SmtpSink,
    folder: TempDir,
    installation: Installation,
}

async fn writing(customer: &str, mail: &str) -> Writing {
    let (sink, folder) = (SmtpSink::start().await, tempfile::tempdir().unwrap());
    let main = main_file(&format!(
        "store.path = \"{}\"\nmail.smtp = \"{}\"\nrelay.exempt_clients = []\n{mail}",
        folder.path().display(),
        sink.address
    ));
    let installation = Installation::of(&main, [("acme.toml", acme(customer).as_str())]);
    let running = installation.run();
    let milter = running.start_milter();
    tokio::spawn(daemon::observe(&running.engine));
    Writing { running, milter, sink, folder, installation }
}

impl Writing {
    async fn send(&self, recipients: usize) -> Answer {
        send(&self.milter, "192.0.2.7", "ann@acme.example", &recipients_of(recipients)).await
    }

    /// Nothing more is written: whatever there was to say came before the letter about another limit.
    async fn assert_mails(&self, number: usize) -> Vec<Mail> {
        self.sink.await_mails(number).await
    }
}

fn recipients_of(number: usize) -> Vec<String> {
    (0..number).map(|n| format!("r{n}@dest.example")).collect()
}

async fn send(milter: &Milter, client: &str, sender: &str, recipients: &[String]) -> Answer {
    let client = Client { address: client.into(), ..Client::default() };
    let mut mta = Mta::open(&milter.path, Kind::Postfix, client).await;
    mta.mail(sender).await;
    for recipient in recipients {
        let answer = mta.recipient(recipient).await;
        if answer != Answer::Continue {
            return answer;
        }
    }
    mta.end().await.1
}

#[tokio::test]
async fn each_level_is_told_once() {
    let writing = writing(TEN_MESSAGES, "").await;
    for (sent, mails) in [(7, 0), (8, 1), (9, 2), (10, 3)] {
        while writing.running.used("ann@acme.example", relaykeeper::directory::LimitName::UserMessages).await < sent {
            assert_eq!(writing.send(1).await, Answer::Continue);
        }
        writing.assert_mails(mails).await;
    }
    // What is refused now is no news.
    for _ in 0..3 {
        assert!(writing.send(1).await.reply().starts_with("450 4.4.5"));
    }
    let mails = writing.assert_mails(3).await;
    for (mail, figures) in mails.iter().zip(["80 % of a limit (8 of", "90 % of a limit (9 of", "limit reached (10 of"])
    {
        let subject = mail.header("Subject");
        assert!(
            subject.starts_with("[relay.example.net] ann@acme.example: ") && subject.contains(figures),
            "{subject}"
        );
        assert_eq!(mail.sender.split(' ').next(), Some("<>"), "nothing is ever answered to it");
        assert_eq!(mail.recipients, ["<it@acme.example>", "<boss@acme.example>"]);
        assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
        assert!(mail.header("From").contains("<postmaster@relay.example.net>"));
    }
    assert!(mails[0].text.contains("8 of the 10 messages allowed in any 24 hours"), "{}", mails[0].text);
    // A day later it counts from the beginning, and so do the letters.
    writing.running.pass_time(DAY + Duration::from_secs(1));
    for _ in 0..8 {
        assert_eq!(writing.send(1).await, Answer::Continue);
    }
    writing.assert_mails(4).await;
}

#[tokio::test]
async fn of_several_levels_at_once_the_highest_is_told() {
    let writing = writing("limits.customer.recipients_per_day = 10", "").await;
    assert_eq!(writing.send(9).await, Answer::Continue);
    let mails = writing.assert_mails(1).await;
    assert!(mails[0].header("Subject").contains("acme: 90 % of a limit (9 of 10 recipients in 24 hours)"));
    // A message that does not fit is told as the limit itself: mail is held up because of it.
    assert!(writing.send(2).await.reply().starts_with("450 4.7.1"));
    let mails = writing.assert_mails(2).await;
    assert!(mails[1].header("Subject").contains("acme: limit reached (9 of 10 recipients in 24 hours)"));
}

#[tokio::test]
async fn what_was_told_is_not_told_again_after_a_restart() {
    let writing = writing(TEN_MESSAGES, "").await;
    let file = writing.folder.path().join("told.jsonl");
    for _ in 0..8 {
        writing.send(1).await;
    }
    writing.assert_mails(1).await;
    crate::common::until("it is on record", async || lines(&file) == 1).await;
    let clock = Arc::new(ManualClock::at(START));
    let ledger = Ledger::in_memory(clock.clone(), Duration::from_secs(600));
    let restarted = writing.installation.run_with(ledger, clock);
    let milter = restarted.start_milter();
    let serving = tokio::spawn(daemon::observe(&restarted.engine));
    // It reads the record before it waits for anything.
    tokio::task::yield_now().await;
    assert!(!serving.is_finished());
    for _ in 0..9 {
        send(&milter, "192.0.2.7", "ann@acme.example", &recipients_of(1)).await;
    }
    let mails = writing.assert_mails(2).await;
    assert!(mails[1].header("Subject").contains("90 % of a limit (9 of"), "80 % were told before the restart");
}

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn users_are_told_where_that_is_wanted() {
    let writing = writing(TEN_MESSAGES, "mail.warn_users = true\nlimits.warn_at = [50]").await;
    for _ in 0..5 {
        writing.send(1).await;
    }
    let mails = writing.assert_mails(2).await;
    assert_eq!(mails[1].recipients, ["<ann@acme.example>"]);
    assert!(!mails[1].text.contains("it@acme.example"));
}

#[tokio::test]
async fn nobody_is_told_of_limits_in_shadow_or_by_customers_without_warnings() {
    let writing = writing(
        "limits.user.messages_per_day = { max = 2, shadow = true }\nlimits.user.unique_recipients_per_day = 5",
        "",
    )
    .await;
    for _ in 0..4 {
        assert_eq!(writing.send(1).await, Answer::Continue);
    }
    // Once this one has come, the others would have.
    assert_eq!(writing.send(5).await, Answer::Continue);
    let mails = writing.assert_mails(1).await;
    assert!(mails[0].header("Subject").contains("different recipients"), "{mails:#?}");
}

/// The MTA asks about our own mail as about any other, and this host's mail is judged here.
#[tokio::test]
async fn own_mail_passes_and_counts_for_nobody() {
    let writing = writing(TEN_MESSAGES, "").await;
    let admins = ["it@acme.example".to_owned()];
    let refused = send(&writing.milter, "127.0.0.1", "", &admins).await;
    assert!(refused.reply().starts_with("550 5.7."), "nothing is on its way: {refused:?}");
    for _ in 0..8 {
        writing.send(1).await;
    }
    writing.assert_mails(1).await;
    assert_eq!(send(&writing.milter, "127.0.0.1", "", &admins).await, Answer::Continue);
    let lines = writing.running.log_lines();
    assert!(lines.iter().any(|line| line.contains("verdict=accept reason=own-mail")), "{lines:#?}");
    assert_eq!(writing.running.counted_and_reserved("acme").await, (8, 0));
    for (client, sender, recipient) in [
        ("127.0.0.1", "", "stranger@dest.example"),
        ("127.0.0.1", "x@stranger.example", "it@acme.example"),
        ("203.0.113.9", "", "it@acme.example"),
    ] {
        let answer = send(&writing.milter, client, sender, &[recipient.to_owned()]).await;
        assert_ne!(answer, Answer::Continue, "{client} {sender} {recipient}");
    }
}
