//! Copies for the archive (relay service, section 9): of which messages, to which address, and that they count for nobody.

use crate::common::installation::{Installation, Running};
use crate::common::mta::{ADD_RECIPIENT, ADD_RECIPIENT_WITH_ARGUMENTS, Answer, Client, Kind, Mta, Offer};
use crate::common::smtpd::Mail;
use crate::main_file;
use relaykeeper::config::Severity;
use relaykeeper::directory::LimitName;

fn acme(archive_to: &str) -> String {
    format!(
        r#"
        name = "acme"
        domains = ["acme.example"]
        licenses = 100
        archive_to = "{archive_to}"
        limits.customer.recipients_per_day = 10
        [[user]]
        address = "ann@acme.example"
        aliases = ["annie@acme.example"]
        [[user.sender]]
        address = "ann@partner.example"
        [[setting]]
        name = "office"
        allowed_senders = "any"
        ip = [{{ range = "192.0.2.0/24" }}]
        "#
    )
}

fn running(archive_to: &str, more: &str) -> Running {
    Installation::of(
        &main_file(&format!("listen.milter = [\"inet:127.0.0.1:3\"]\n{more}")),
        [("acme.toml", acme(archive_to).as_str())],
    )
    .run()
}

/// Sends a message; gives what was added to it.
async fn send(mta: &mut Mta, sender: &str, recipients: &[&str]) -> Vec<String> {
    mta.mail(sender).await;
    for recipient in recipients {
        assert_eq!(mta.recipient(recipient).await, Answer::Continue, "{recipient}");
    }
    assert_eq!(mta.end().await.1, Answer::Continue);
    mta.added.clone()
}

#[tokio::test]
async fn each_relayed_message_is_copied_once_and_the_copy_counts_for_nobody() {
    for kind in [Kind::Postfix, Kind::Sendmail] {
        let running = running("Vault@Archive.example", "");
        let milter = running.start_milter();
        let mut mta = Mta::open(&milter.path, kind, Client::default()).await;
        let vault = ["<vault@archive.example> NOTIFY=NEVER"];
        assert_eq!(send(&mut mta, "ann@acme.example", &["a@dest.example", "b@dest.example"]).await, vault);
        // Applications, rewritten senders and bounces, too.
        assert_eq!(send(&mut mta, "app@acme.example", &["a@dest.example"]).await, vault);
        assert_eq!(send(&mut mta, "x@stranger.example", &["a@dest.example"]).await, vault);
        assert_eq!(send(&mut mta, "", &["a@dest.example"]).await, vault);
        assert_eq!(running.counted_and_reserved("acme").await, (5, 0));
        assert_eq!(running.used("ann@acme.example", LimitName::UserUniques).await, 2);
        // Who writes to the archive need not be copied there.
        assert_eq!(send(&mut mta, "ann@acme.example", &["VAULT@archive.example"]).await, [""; 0]);
        let lines = running.log_lines();
        assert!(lines.iter().any(|line| line.contains(" archived=vault@archive.example proto=milter ")), "{lines:#?}");
    }
}

#[tokio::test]
async fn where_the_mta_cannot_add_a_recipient_no_copy_is_made_and_none_is_logged() {
    let running = running("vault@archive.example", "");
    let milter = running.start_milter();
    let cannot_add = !(ADD_RECIPIENT | ADD_RECIPIENT_WITH_ARGUMENTS);
    let offer = Offer { actions: Offer::V6.actions & cannot_add, ..Offer::V6 };
    let mut mta = Mta::negotiate(&milter.path, Kind::Postfix, offer).await;
    mta.begin(Client::default()).await;
    assert_eq!(send(&mut mta, "ann@acme.example", &["a@dest.example"]).await, [""; 0]);
    let lines = running.log_lines();
    assert!(lines.iter().any(|line| line.contains("verdict=accept customer=acme")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("archived=")), "{lines:#?}");
}

/// `on_rewrite = "continue"`: the policy service alone rewrites nothing, and archives nothing.
#[tokio::test]
async fn what_the_policy_service_cannot_do_is_not_logged() {
    let running = running("vault@archive.example", "policy.on_rewrite = \"continue\"");
    let mut smtpd = running.smtpd(1);
    let mail = Mail { sender: "x@stranger.example".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    let lines = running.log_lines();
    let line = lines.iter().find(|line| line.contains("verdict=accept customer=acme")).expect("a line");
    assert!(!line.contains("rewritten=") && !line.contains("archived="), "{line}");
}

#[tokio::test]
async fn copies_are_filed_under_whose_mail_it_is() {
    let running = running("{local}.{domain}@archive.example", "");
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    for (sender, filed_under) in [
        ("ann@acme.example", "ann.acme.example"),
        ("Annie@acme.example", "ann.acme.example"),
        ("ann+tag@acme.example", "ann.acme.example"),
        ("ann@partner.example", "ann.acme.example"),
        ("app@printers.acme.example", "app.printers.acme.example"),
        ("x@stranger.example", "x.stranger.example"),
        ("", "postmaster.acme.example"),
        ("root", "postmaster.acme.example"),
    ] {
        let added = send(&mut mta, sender, &["a@dest.example"]).await;
        assert_eq!(added, [format!("<{filed_under}@archive.example> NOTIFY=NEVER")], "{sender}");
    }
}

#[tokio::test]
async fn what_is_not_relayed_is_not_copied() {
    let running = running("vault@archive.example", "relay.exempt_recipient_domains = [\"inbound.example\"]");
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    assert_eq!(send(&mut mta, "ann@acme.example", &["a@inbound.example"]).await, [""; 0]);
    let exempt = Client { address: "127.0.0.1".into(), ..Client::default() };
    let mut local = Mta::open(&milter.path, Kind::Postfix, exempt).await;
    assert_eq!(send(&mut local, "ann@acme.example", &["a@dest.example"]).await, [""; 0]);
    // Over the limit by the end: another transaction was faster after the reservation had run out.
    mta.mail("ann@acme.example").await;
    assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
    running.pass_time(std::time::Duration::from_secs(601));
    let mut other = Mta::open(&milter.path, Kind::Postfix, Client { port: 4712, ..Client::default() }).await;
    let all: Vec<String> = (0..10).map(|n| format!("r{n}@dest.example")).collect();
    send(&mut other, "ann@acme.example", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(matches!(mta.end().await.1, Answer::Reply(_)));
    assert_eq!(mta.added, [""; 0]);
}

#[tokio::test]
async fn mail_of_suspended_users_is_not_copied() {
    let running = running("vault@archive.example", "");
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    mta.mail("ann@acme.example").await;
    assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
    running.suspend("ann@acme.example", "spam").await;
    assert!(matches!(mta.end().await.1, Answer::Reply(_)));
    assert_eq!(mta.added, [""; 0]);
    assert_eq!(send(&mut mta, "app@acme.example", &["a@dest.example"]).await.len(), 1, "nobody else is concerned");
}

#[tokio::test]
async fn a_session_goes_on_with_what_a_reload_brings() {
    let installation = Installation::of(
        &main_file("listen.milter = [\"inet:127.0.0.1:3\"]"),
        [("acme.toml", acme("vault@archive.example").replace("archive_to", "#").as_str())],
    );
    let running = installation.run();
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    assert_eq!(send(&mut mta, "ann@acme.example", &["a@dest.example"]).await, [""; 0]);
    running.engine.replace_snapshot(installation.with_customer("acme.toml", &acme("new@archive.example")));
    let copy = send(&mut mta, "ann@acme.example", &["a@dest.example"]).await;
    assert_eq!(copy, ["<new@archive.example> NOTIFY=NEVER"]);
}

#[tokio::test]
async fn an_mta_that_takes_no_arguments_gets_none() {
    let running = running("vault@archive.example", "");
    let milter = running.start_milter();
    for offer in [Offer { actions: 0x1ff & !ADD_RECIPIENT_WITH_ARGUMENTS, ..Offer::V6 }, Offer::V2] {
        let mut mta = Mta::negotiate(&milter.path, Kind::Sendmail, offer).await;
        mta.begin(Client::default()).await;
        assert_eq!(send(&mut mta, "ann@acme.example", &["a@dest.example"]).await, ["<vault@archive.example>"]);
    }
}

#[test]
fn without_a_milter_there_is_a_warning() {
    let installation = Installation::of(&main_file(""), [("acme.toml", acme("vault@archive.example").as_str())]);
    let mut warnings = installation.loaded.problems.iter().filter(|problem| problem.severity == Severity::Warning);
    assert!(warnings.any(|problem| problem.to_string().contains("only a milter can add a recipient")));
}
