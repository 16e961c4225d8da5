//! Systems that cannot be had play what is known of their dialogue; it stands in `dialogues/SYSTEM.toml`.

use crate::relay::{Front, Relay, Setup};
use crate::smtp::{Client, Reply, new_id};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How a system talks to its smart host.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Dialogue {
    system: String,
    /// Its page in docs/clients.
    page: String,
    greeting: Greeting,
    /// MAIL and all RCPT in one write.
    pipelining: bool,
    content: Content,
    /// How many recipients it names in one message.
    recipients_per_message: usize,
    /// Where a recipient that got a 4xx goes while the others were accepted.
    deferred_recipients: Deferred,
    /// Minutes from one attempt to the next, the last again and again.
    retry_minutes: Vec<u64>,
    /// The shortest time that it waits for any reply.
    patience_seconds: u64,
}

#[derive(serde::Deserialize)]
enum Greeting {
    #[serde(rename = "EHLO")]
    Ehlo,
    #[serde(rename = "HELO")]
    Helo,
}

#[derive(serde::Deserialize)]
enum Content {
    #[serde(rename = "DATA")]
    Data,
    /// RFC 3030.
    #[serde(rename = "BDAT")]
    Bdat,
}

#[derive(Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Deferred {
    SameConnection,
    NextAttempt,
}

/// The longest that relaykeeper takes for a reply, in seconds: 20 to load the store, 20 for room in the queue, 50 for the
/// disk (relaykeeper(8), LIMITS AND BOUNDS).
const LONGEST_REPLY: u64 = 90;

/// Three recipients a message and eight in ten minutes.
fn customer(name: &str) -> String {
    format!(
        "name = \"{name}\"\ndomains = [\"{name}.example\"]\nlicenses = 1\nlimits.transaction.recipients = 3\n\
         limits.customer.recipients_per_day = 100\nlimits.customer.recipients_per_10_min = 8\n\
         [[setting]]\nname = \"its server\"\nallowed_senders = \"own-domains\"\n[[setting.ip]]\nrange = \"192.0.2.0/24\"\n"
    )
}

/// A system at work.
struct Player<'a> {
    name: &'a str,
    dialogue: &'a Dialogue,
    relay: &'a Relay,
    connection: Option<Client>,
}

impl Player<'_> {
    fn connection(&mut self) -> &mut Client {
        let (relay, dialogue, name) = (self.relay, self.dialogue, self.name);
        self.connection.get_or_insert_with(|| {
            let mut client = relay.connect("192.0.2.7");
            let verb = match dialogue.greeting {
                Greeting::Ehlo => "EHLO",
                Greeting::Helo => "HELO",
            };
            assert_eq!(client.command(&format!("{verb} mx.{name}.example")).code, 250);
            client
        })
    }

    fn hang_up(&mut self) {
        if let Some(client) = self.connection.take() {
            client.quit();
        }
    }

    /// Sends one message, in as many transactions as the relay and the system's own ways make of it. Gives the first
    /// refusal of a message as a whole.
    fn send(&mut self, id: &str, sender: &str, recipients: &[&str]) -> Option<Reply> {
        let mut left: Vec<&str> = recipients.to_vec();
        while !left.is_empty() {
            let now: Vec<&str> = left.iter().copied().take(self.dialogue.recipients_per_message).collect();
            let replies = self.envelope(sender, &now);
            let refused: Vec<_> = replies.iter().filter(|reply| !reply.accepted()).collect();
            assert!(
                refused.iter().all(|reply| (400..500).contains(&reply.code)),
                "{}: {refused:?}",
                self.dialogue.system
            );
            if refused.len() == now.len() {
                let first = refused[0].clone();
                self.connection().command("RSET");
                return Some(first);
            }
            assert!(self.content(id).accepted(), "{}", self.connection().transcript());
            let taken: BTreeSet<&str> =
                now.iter().zip(&replies).filter(|(_, reply)| reply.accepted()).map(|(to, _)| *to).collect();
            if taken.len() < now.len() && self.dialogue.deferred_recipients == Deferred::NextAttempt {
                self.hang_up();
            }
            left.retain(|recipient| !taken.contains(recipient));
        }
        None
    }

    /// MAIL and RCPT; the replies to the latter.
    fn envelope(&mut self, sender: &str, recipients: &[&str]) -> Vec<Reply> {
        let mail = format!("MAIL FROM:<{sender}>");
        let lines: Vec<String> = recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")).collect();
        if self.dialogue.pipelining {
            let all: Vec<&str> = std::iter::once(mail.as_str()).chain(lines.iter().map(String::as_str)).collect();
            let mut replies = self.connection().pipeline(&all);
            assert!(replies.remove(0).accepted());
            return replies;
        }
        assert!(self.connection().command(&mail).accepted());
        lines.iter().map(|line| self.connection().command(line)).collect()
    }

    fn content(&mut self, id: &str) -> Reply {
        let is_bdat = matches!(self.dialogue.content, Content::Bdat);
        let client = self.connection();
        if is_bdat {
            return client.chunk(id);
        }
        assert_eq!(client.command("DATA").code, 354);
        client.content(id)
    }

    /// Awaits that each recipient has the message, and none has it twice.
    fn assert_delivered(&self, id: &str, sender: &str, recipients: &[&str]) {
        let what = format!("{}: all of {recipients:?} get it once", self.dialogue.system);
        crate::bed::eventually(&what, || {
            let envelopes = self.relay.sink.with_id(id);
            assert!(envelopes.iter().all(|envelope| envelope.sender == sender), "{envelopes:?}");
            let mut all: Vec<_> = envelopes.into_iter().flat_map(|envelope| envelope.recipients).collect();
            all.sort();
            assert!(all.len() <= recipients.len(), "{}: twice: {all:?}", self.dialogue.system);
            (all == recipients).then_some(())
        });
    }
}

#[test]
fn every_dialogue_comes_to_a_good_end() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mta/clients/dialogues");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let dialogues: Vec<(String, Dialogue)> = files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let dialogue = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            (file.file_stem().unwrap().to_str().unwrap().to_owned(), dialogue)
        })
        .collect();
    assert!(dialogues.len() >= 6, "the dialogues are not where they should be");
    let setup = dialogues.iter().fold(Setup::new(), |setup, (name, _)| setup.customer(name, &customer(name)));
    let mut relay = setup.start(Front::PostfixBoth);
    for (name, dialogue) in &dialogues {
        eprintln!("{}", dialogue.system);
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients").join(&dialogue.page);
        assert!(page.is_file(), "{} is missing", page.display());
        assert!(dialogue.patience_seconds > LONGEST_REPLY, "{} would not wait for every reply", dialogue.system);
        play(name, dialogue, &mut relay);
    }
}

fn play(name: &str, dialogue: &Dialogue, relay: &mut Relay) {
    let recipients = ["r1@dest.example", "r2@dest.example", "r3@dest.example", "r4@dest.example", "r5@dest.example"];
    let sender = format!("ann@{name}.example");
    let mut player = Player { name, dialogue, relay: &*relay, connection: None };
    // The fourth recipient of a message gets 452 4.5.3, in the midst of the others.
    let many = new_id();
    assert_eq!(player.send(&many, &sender, &recipients), None);
    player.assert_delivered(&many, &sender, &recipients);
    // A bounce: known by the HELO name; the second recipient gets 452 4.5.3.
    let bounce = new_id();
    assert_eq!(player.send(&bounce, "", &recipients[..2]), None);
    player.assert_delivered(&bounce, "", &recipients[..2]);
    player.relay.daemon.await_line(&["verdict=accept", &format!("customer={name}"), "by=helo", "sender=<>"]);
    player.hang_up();
    player.relay.daemon.await_counts(name, "customer.recipients_per_day", 7, 0);

    // The ninth recipient in ten minutes gets 450 4.2.1, and comes again until it is accepted.
    let last = new_id();
    assert_eq!(player.send(&new_id(), &sender, &recipients[..1]), None);
    let mut waited = 0;
    let mut waits = dialogue.retry_minutes.iter().chain(std::iter::repeat(dialogue.retry_minutes.last().unwrap()));
    loop {
        let mut player = Player { name, dialogue, relay: &*relay, connection: None };
        let Some(refusal) = player.send(&last, &sender, &recipients[..1]) else { break };
        relay.assert_reply(&refusal, "450 4.2.1", "Peak SMTP relay limit exceeded for customer");
        player.hang_up();
        let wait = *waits.next().unwrap();
        assert!(waited <= 10, "{}: not accepted after {waited} minutes", dialogue.system);
        waited += wait;
        relay.daemon.let_pass(Duration::from_secs(wait * 60));
    }
    assert!(waited > 0, "{}: the limit was not there", dialogue.system);
    Player { name, dialogue, relay: &*relay, connection: None }.assert_delivered(&last, &sender, &recipients[..1]);
}
