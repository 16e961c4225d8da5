//! `explain` says what the daemon does: random configurations, transactions, orders and counts, over the milter protocol, the policy
//! protocol, and both. Verdict, reply and rewriting are compared at each stage, and the steps with those of the record.
//!
//! 2,000 transactions; `RANDOM_CASES=100000` for more. `RANDOM_SEED` goes through those of a failure again.

use crate::common::PATIENCE;
use crate::common::installation::{Installation, Milter, Running};
use crate::common::message::of_bytes;
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::rehearsal::{rehearse, reply_of, without_reference};
use crate::common::smtpd::{Mail, Smtpd};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use relaykeeper::envelope::{Envelope, parse_client};
use relaykeeper::session::{RecordedDecision, Rehearsal, Via};
use relaykeeper::size::MessageSize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

/// Transactions for one installation: counts and orders pile up.
const PER_INSTALLATION: u64 = 50;

struct Random(TestRng);

impl Random {
    fn new(seed: u64) -> Random {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Random(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u32() as usize) % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

fn limit(random: &mut Random, small: usize) -> String {
    let max = random.below(small);
    let action = random.one_of(&["defer", "reject"]);
    match random.below(4) {
        0 => "\"unlimited\"".into(),
        1 => format!("{{ max = {max}, shadow = true }}"),
        _ => format!("{{ max = {max}, action = \"{action}\" }}"),
    }
}

fn main_file(random: &mut Random) -> String {
    let on_rewrite = random.one_of(&["auto", "continue", "defer", "reject"]);
    let on_failure = random.one_of(&["defer", "accept"]);
    let forms = random.one_of(&["", "\"plus\"", "\"plus\", \"batv\", \"srs\""]);
    let inbound = random.one_of(&["", "\"inbound.example\""]);
    let exempt = random.one_of(&["", "\"127.0.0.0/8\", \"198.18.0.0/15\""]);
    let [by_address, match_login] = [random.once_in(3), random.once_in(3)];
    let on_abuse = random.one_of(&["defer", "notify"]);
    let customers = [8, 12].map(|small| limit(random, small));
    let users = [6, 8].map(|small| limit(random, small));
    let logins = [6, 8].map(|small| limit(random, small));
    let transaction = if random.once_in(2) { limit(random, 6) } else { "100".into() };
    let bytes = if random.once_in(2) { limit(random, 3_000) } else { "\"unlimited\"".into() };
    format!(
        "listen.policy = [\"inet:127.0.0.1:1\"]\n\
         [relay]\nhostname = \"relay.example.net\"\non_failure = \"{on_failure}\"\nsender_forms = [{forms}]\n\
         exempt_clients = [{exempt}]\nexempt_recipient_domains = [{inbound}]\n\
         identify_by_address = {by_address}\nsender_must_match_login = {match_login}\n\
         tls_assumed_from = [\"198.18.0.0/15\"]\ntrust_proxied_tls = {match_login}\n\
         [policy]\non_rewrite = \"{on_rewrite}\"\n\
         [abuse]\non_abuse = \"{on_abuse}\"\nspam_count = 1\nspam_share = 1\nverdicts = []\n\
         [limits]\ntransaction.recipients = {transaction}\nmessage.bytes = {bytes}\n\
         message.attachments_bytes = \"unlimited\"\n\
         customer.recipients_per_10_min = {}\ncustomer.recipients_per_day = {}\n\
         user.messages_per_day = {}\nuser.unique_recipients_per_day = {}\n\
         login.messages_per_day = {}\nlogin.unique_recipients_per_day = {}\n\
         unpaid.recipients_per_day = {}\nconnection.per_minute = \"unlimited\"\n\
         connection.simultaneous = \"unlimited\"\nconnection.generic_helo_per_minute = \"unlimited\"\n",
        customers[0],
        customers[1],
        users[0],
        users[1],
        logins[0],
        logins[1],
        limit(random, 8)
    )
}

fn customer(random: &mut Random, name: &str, range: &str) -> String {
    let archive = random.one_of(&["", "archive_to = \"vault@dest.example\"\n"]);
    let billing = random.one_of(&["paid", "paid", "unpaid"]);
    let mut text = format!(
        "name = \"{name}\"\ndomains = [\"{name}.example\"]\nlicenses = 10\nbilling = \"{billing}\"\n{archive}\
         [[user]]\naddress = \"ann@{name}.example\"\naliases = [\"a.nn@{name}.example\"]\nlogins = [\"ann-{name}\"]\n\
         [[user.sender]]\naddress = \"ann@partner-{name}.example\"\n\
         [[user]]\naddress = \"tom@{name}.example\"\n"
    );
    for nth in 0..=random.below(3) {
        let allowed = random.one_of(&["registered-users", "own-domains", "any"]);
        let [auth, tls, shadow, off] = [random.once_in(3), random.once_in(4), random.once_in(4), random.once_in(6)];
        let ranges =
            if auth && random.once_in(2) { String::new() } else { format!("ip = [{{ range = \"{range}\" }}]\n") };
        text.push_str(&format!(
            "[[setting]]\nname = \"setting {nth}\"\nallowed_senders = \"{allowed}\"\nenabled = {}\n\
             require_auth = {auth}\nrequire_tls = {tls}\nshadow = {shadow}\n{ranges}",
            !off
        ));
    }
    text
}

fn install(random: &mut Random) -> Installation {
    let (acme, bolt) = (customer(random, "acme", "192.0.2.0/24"), customer(random, "bolt", "198.51.100.0/24"));
    Installation::of(&main_file(random), [("acme.toml", acme.as_str()), ("bolt.toml", bolt.as_str())])
}

#[derive(Debug)]
struct Case {
    client: Client,
    sender: String,
    recipients: Vec<String>,
    declared: u64,
    bytes: u64,
    is_sent: bool,
}

const SENDERS: [&str; 15] = [
    "ann@acme.example",
    "ann@acme.example",
    "A.nn@ACME.example",
    "ann+tag@acme.example",
    "nobody@acme.example",
    "tom@sub.acme.example",
    "ann@partner-acme.example",
    "ann@bolt.example",
    "ann@partner-bolt.example",
    "x@foreign.example",
    "x@foreign.example",
    "",
    "",
    "root",
    "srs0=hash=tt=acme.example=ann@forwarder.example",
];

fn case(random: &mut Random, nth: u64) -> Case {
    let login = random.one_of(&[
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "ann-acme",
        "ann-acme",
        "tom@acme.example",
        "x@bolt.example",
        "nobody",
    ]);
    let clients =
        ["192.0.2.7", "192.0.2.7", "192.0.2.9", "198.51.100.1", "198.18.0.1", "127.0.0.1", "203.0.113.1", "unknown"];
    let client = Client {
        address: random.one_of(&clients).into(),
        port: 1 + (nth % 60_000) as u16,
        helo: random.one_of(&["mx.acme.example", "mx.acme.example", "mx.bolt.example", "localhost", ""]).into(),
        tls: random.one_of(&["", "TLSv1.3"]).into(),
        login: login.into(),
        sasl_method: random.one_of(&["PLAIN", "XCLIENT"]).into(),
        ..Client::default()
    };
    let sender = match random.below(40) {
        0 => format!("{}@acme.example", "l".repeat(1_100)),
        _ => random.one_of(&SENDERS).to_owned(),
    };
    let recipients = (0..=random.below(6)).map(|_| match random.below(40) {
        0 => format!("{}@dest.example", "l".repeat(1_100)),
        1..6 => format!("info{}@inbound.example", random.below(2)),
        6 => "vault@dest.example".into(),
        7..10 => "IT@acme.example".into(),
        _ => format!("r{}@dest.example", random.below(12)),
    });
    let recipients = recipients.collect();
    let declared = random.one_of(&[0, 0, 500, 2_000, 5_000]);
    Case {
        client,
        sender,
        recipients,
        declared,
        bytes: random.one_of(&[200, 1_000, 4_000]),
        is_sent: !random.once_in(3),
    }
}

/// What happens between transactions.
async fn happen(random: &mut Random, running: &Running) {
    let names =
        ["ann@acme.example", "acme", "ann@bolt.example", "login:ann-acme", "login:nobody", "client:192.0.2.8/31"];
    match random.below(24) {
        0 => running.suspend(random.one_of(&names), "spam").await,
        1..4 => {
            running.resume_all().await;
        }
        4 => {
            let limit = random.one_of(&["user.messages_per_day", "user.unique_recipients_per_day"]);
            running.grant("ann@acme.example", limit.parse().unwrap(), 5, Duration::from_secs(3_600)).await;
        }
        5 => running.grant("acme", "customer.recipients_per_day".parse().unwrap(), 3, Duration::from_secs(60)).await,
        6..9 => running.pass_time(Duration::from_secs(random.one_of(&[1, 300, 700, 90_000]))),
        9 => running.mark_as_spammer("ann@acme.example"),
        10 => running.hand_over_own_mail_to("it@acme.example"),
        _ => {}
    }
}

/// What was answered at each stage.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    mail: Option<String>,
    recipients: Vec<Option<String>>,
    /// The reply, and the new sender.
    end: Option<(Option<String>, Option<String>)>,
}

fn explained(rehearsal: &Rehearsal, is_sent: bool) -> Answers {
    let end = rehearsal.end.as_ref().filter(|_| is_sent).map(|end| {
        let new_sender = end.verdict.rewrite_sender_to.as_ref().filter(|_| end.verdict.passes());
        (reply_of(&end.verdict), new_sender.map(ToString::to_string))
    });
    Answers {
        mail: rehearsal.mail.as_ref().and_then(reply_of),
        recipients: match rehearsal.mail {
            Some(_) => Vec::new(),
            None => rehearsal.recipients.iter().map(|recipient| reply_of(&recipient.verdict)).collect(),
        },
        end,
    }
}

/// What the record must say of each refusal: its steps are those of `explain`.
fn expected_steps(rehearsal: &Rehearsal, answers: &Answers) -> Vec<(String, Vec<String>)> {
    let recipients = answers.recipients.iter().zip(rehearsal.recipients.iter().map(|recipient| &recipient.steps));
    let end = answers.end.iter().zip(&rehearsal.end).map(|((reply, _), end)| (reply, &end.steps));
    let mail = (&answers.mail, &Vec::new());
    let stages = [mail].into_iter().chain(recipients).chain(end);
    let refused = stages.filter_map(|(reply, steps)| Some((reply.as_deref()?, steps)));
    refused
        .map(|(reply, steps)| {
            let reference = reply.rsplit_once('[').unwrap().1.trim_end_matches(']').to_owned();
            let steps = rehearsal.steps.iter().chain(steps);
            (reference, steps.map(|step| format!("{} {} {}", step.step, step.outcome, step.because)).collect())
        })
        .collect()
}

fn recorded_steps(folder: &Path) -> HashMap<String, Vec<String>> {
    let text = std::fs::read_to_string(folder.join("decisions.log")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(reference, json)| {
            let decision: RecordedDecision = serde_json::from_str(json).unwrap();
            let steps = decision.steps.iter().map(|step| format!("{} {} {}", step.step, step.outcome, step.because));
            (reference.to_owned(), steps.collect())
        })
        .collect()
}

impl Answers {
    fn without_references(&self) -> Answers {
        let strip = |reply: &Option<String>| reply.as_deref().map(|reply| without_reference(reply).to_owned());
        Answers {
            mail: strip(&self.mail),
            recipients: self.recipients.iter().map(strip).collect(),
            end: self.end.as_ref().map(|(reply, new_sender)| (strip(reply), new_sender.clone())),
        }
    }
}

fn words(answer: Answer) -> Option<String> {
    match answer {
        Answer::Continue => None,
        answer => Some(answer.reply().to_owned()),
    }
}

fn words_of_action(action: String) -> Option<String> {
    (action != "DUNNO").then_some(action)
}

struct Daemon {
    running: Running,
    milter: Milter,
}

impl Daemon {
    async fn answers(&self, case: &Case, via: Via, pid: u32) -> Answers {
        let mut mta = match via {
            Via::Policy => None,
            Via::Milter | Via::Both => Some(Mta::open(&self.milter.path, Kind::Postfix, case.client.clone()).await),
        };
        let mut smtpd = match via {
            Via::Milter => None,
            Via::Policy | Via::Both => Some(self.running.smtpd(pid)),
        };
        let answers = self.transaction(case, mta.as_mut(), smtpd.as_mut()).await;
        if let Some(mta) = mta {
            mta.quit().await;
        }
        if let Some(mut smtpd) = smtpd {
            // Only a new transaction of the same process tells that this one was given up.
            let next =
                Mail { client: "203.0.113.99".into(), sender: "nobody@nowhere.example".into(), ..smtpd.next_mail() };
            smtpd.ask(&next.at_recipient("nobody@nowhere.example")).await;
        }
        self.running.settle().await;
        answers
    }

    async fn transaction(&self, case: &Case, mut mta: Option<&mut Mta>, mut smtpd: Option<&mut Smtpd>) -> Answers {
        let mut answers = Answers::default();
        if let Some(mta) = &mut mta {
            answers.mail = words(mta.mail_declaring(format!("<{}>", case.sender).as_bytes(), case.declared).await);
            if answers.mail.is_some() {
                return answers;
            }
        }
        let Client { address, port, server, server_port, helo, tls, login, sasl_method } = case.client.clone();
        let instance = smtpd.as_mut().map_or_else(String::new, |smtpd| smtpd.next_mail().instance);
        let (sender, size) = (case.sender.clone(), case.declared);
        let queue_id = mta.as_ref().map_or_else(|| format!("{port:X}"), |mta| mta.queue_id_of_message());
        let mail = Mail {
            client: address,
            port,
            server,
            server_port,
            helo,
            tls,
            login,
            sasl_method,
            sender,
            instance,
            size,
            queue_id,
        };
        let mut accepted = Vec::new();
        for recipient in &case.recipients {
            let mut refused = None;
            if let Some(smtpd) = &mut smtpd {
                refused = words_of_action(smtpd.ask(&mail.at_recipient(recipient)).await);
            }
            if let (Some(mta), None) = (&mut mta, &refused) {
                refused = words(mta.recipient(recipient).await);
            }
            if refused.is_none() {
                accepted.push(recipient.as_str());
            }
            answers.recipients.push(refused);
        }
        if accepted.is_empty() || !case.is_sent {
            return answers;
        }
        let mut refused = None;
        if let Some(smtpd) = &mut smtpd {
            let at_end = Mail { size: case.bytes, ..mail };
            refused = words_of_action(smtpd.ask(&at_end.at_end(&accepted)).await);
        }
        let mut new_sender = None;
        if let (Some(mta), None) = (&mut mta, &refused) {
            mta.content(&of_bytes(case.bytes)).await;
            let (senders, answer) = mta.end().await;
            new_sender = senders.into_iter().next();
            refused = words(answer);
        }
        answers.end = Some((refused, new_sender));
        answers
    }
}

/// How often each was answered: `milter accept`, `policy 452 4.5.3`, `both rewrite`.
type Seen = BTreeMap<String, u64>;

fn note(seen: &mut Seen, via: Via, answers: &Answers) {
    let mut note = |what: &str| *seen.entry(format!("{} {what}", via.key())).or_default() += 1;
    let code = |reply: &Option<String>| reply.as_deref().map_or("accept", |reply| &reply[..9]).to_owned();
    answers.recipients.iter().chain([&answers.mail]).for_each(|reply| note(&code(reply)));
    if let Some((reply, new_sender)) = &answers.end {
        note(&format!("{} at the end", code(reply)));
        if new_sender.is_some() {
            note("rewrite");
        }
    }
}

/// Whatever `explain` must agree about has happened.
fn assert_all_seen(seen: &Seen) {
    let everywhere = [
        "accept",
        "accept at the end",
        "450 4.2.1",
        "450 4.4.5",
        "450 4.7.1",
        "452 4.5.3",
        "501 5.1.3",
        "501 5.1.7",
        "530 5.7.0",
        "550 5.4.5",
        "550 5.7.0",
        "550 5.7.1",
        "552 5.3.4",
        "552 5.3.4 at the end",
    ];
    let all = ["milter", "policy", "both"].into_iter().flat_map(|via| everywhere.map(|what| format!("{via} {what}")));
    let missing: Vec<_> =
        all.chain(["milter rewrite".into(), "both rewrite".into()]).filter(|what| !seen.contains_key(what)).collect();
    assert!(missing.is_empty(), "{missing:?} is not among {seen:#?}");
}

async fn compare(seed: u64, seen: &mut Seen) {
    let mut random = Random::new(seed);
    let running = install(&mut random).run();
    let folder = tempfile::tempdir().unwrap();
    running.engine.record_decisions(folder.path()).unwrap();
    let mut expected = Vec::new();
    // An MTA that is known to ask at the end of messages.
    let known = Mail { client: "203.0.113.99".into(), ..Mail::default() };
    running.smtpd(u32::MAX).ask(&known.at_end(&[])).await;
    let daemon = Daemon { milter: running.start_milter(), running };
    for nth in 0..PER_INSTALLATION {
        happen(&mut random, &daemon.running).await;
        let case = case(&mut random, nth);
        let via = match random.one_of(&[Via::Milter, Via::Policy, Via::Both]) {
            // Nothing tells that both ask about one session: each counts for itself.
            Via::Both if case.client.address == "unknown" => Via::Policy,
            via => via,
        };
        let Client { address, helo, tls, login, sasl_method, .. } = &case.client;
        let declared = Some(case.declared);
        let sender = via.read_sender(&case.sender);
        let envelope = Envelope::new(parse_client(address), helo, tls, login, sender)
            .with_sasl_method(sasl_method)
            .declaring(declared);
        let size = MessageSize { bytes: Some(case.bytes), attachments: None };
        let rehearsal = rehearse(&daemon.running, &envelope, &case.recipients, size, via).await;
        let answers = daemon.answers(&case, via, nth as u32).await;
        assert_eq!(
            explained(&rehearsal, case.is_sent),
            answers.without_references(),
            "explain (left) and the daemon differ, RANDOM_SEED={seed}, transaction {nth}, via {via:?}: {case:#?}"
        );
        note(seen, via, &answers);
        if via != Via::Both {
            expected.extend(expected_steps(&rehearsal, &answers));
        }
    }
    daemon.running.engine.decisions().unwrap().flush(PATIENCE);
    let recorded = recorded_steps(folder.path());
    for (reference, steps) in expected {
        assert_eq!(recorded.get(&reference), Some(&steps), "the record (left) and explain, RANDOM_SEED={seed}");
    }
}

#[test]
fn explain_agrees_with_both_protocols() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RANDOM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RANDOM_CASES").unwrap_or(2_000).div_ceil(PER_INSTALLATION),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = Seen::new();
    for seed in seeds {
        runtime.block_on(compare(seed, &mut seen));
    }
    if number("RANDOM_SEED").is_none() {
        assert_all_seen(&seen);
    }
}
