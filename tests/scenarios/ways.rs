//! The ways a transaction can go: through the decision itself, or through one of the protocols.

use crate::common::installation::{Milter, Running};
use crate::common::message::{of_bytes, with_attachments};
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::smtpd::{Mail, Smtpd, internal_form};
use crate::data::Step;
use relaykeeper::envelope::{Address, Envelope, parse_client};
use relaykeeper::policy::{CountedBy, FrontEnd, MtaProtocol, Outcome, ReportedRecipients, Verdict};
use relaykeeper::session::{Connection, Decision, EndReport, Rehearsal, Reporter, Server, Transaction, Via};
use relaykeeper::size::{AttachmentSizes, MessageSize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `explain`, and then the transaction itself: both have to come to the same.
    Decision,
    Milter(Kind),
    Policy,
    /// Postfix asks the policy service about each recipient, and then the milter.
    Both,
}

impl Way {
    pub fn via(self) -> Via {
        match self {
            Way::Decision | Way::Milter(_) => Via::Milter,
            Way::Policy => Via::Policy,
            Way::Both => Via::Both,
        }
    }
}

/// What was answered to a recipient, or to the end of a message, if it was refused.
pub type Reply = Option<String>;

/// What the decision itself says, beyond the reply.
#[derive(Debug, Default)]
pub struct Inside {
    pub reason: Option<String>,
    pub customer: Option<String>,
    pub by: Option<String>,
    pub setting: Option<String>,
    pub user: Option<String>,
    pub rewrite: Option<String>,
    pub shadow: Option<String>,
    /// Of `explain`: `step outcome`.
    pub steps: Vec<String>,
}

/// One way, set up.
pub enum Road<'r> {
    Decision(&'r Running),
    Milter { kind: Kind, milter: Milter, sessions: u16 },
    Policy { running: &'r Running, pids: u32 },
    Both { milter: Milter, running: &'r Running, pids: u32 },
}

impl<'r> Road<'r> {
    pub async fn open(way: Way, running: &'r Running) -> Road<'r> {
        match way {
            Way::Decision => Road::Decision(running),
            Way::Milter(kind) => Road::Milter { kind, milter: running.start_milter(), sessions: 0 },
            Way::Policy => {
                // An MTA that is known to ask at the end of messages.
                let mail = Mail { client: "127.0.0.1".into(), ..Mail::default() };
                running.smtpd(0).ask(&mail.at_end(&[])).await;
                Road::Policy { running, pids: 0 }
            }
            Way::Both => Road::Both { milter: running.start_milter(), running, pids: 0 },
        }
    }

    /// Opens a connection for transactions.
    pub async fn connect(&mut self, step: &Step) -> Open<'r> {
        let client = client_of(step);
        match self {
            Road::Decision(running) => {
                let address = parse_client(&client.address);
                let mut connection = Connection::begin(&running.engine, MtaProtocol::Milter, address, true);
                let refused = connection.judge(Some(&client.helo)).map(ToString::to_string);
                Open::Decision { running, _connection: connection, refused, transaction: None, inside: None }
            }
            Road::Milter { kind, milter, sessions } => {
                // Each session has a port of its own; 4711 is the first.
                *sessions += 1;
                let client = Client { port: 4710 + *sessions, ..client };
                let mut mta = Box::new(Mta::connect(&milter.path, *kind).await);
                let refused = refused(mta.greet(client).await);
                Open::Milter { mta, refused }
            }
            Road::Policy { running, pids } => {
                *pids += 1;
                let mut smtpd = running.smtpd(*pids);
                // Each session has a port of its own; 4711 is the first.
                let client = Client { port: 4710 + *pids as u16, ..client };
                let before_mail = Mail { instance: String::new(), ..mail_of(&client, "") };
                let refused = refused_action(smtpd.ask(&before_mail.request("EHLO", "", 0, "")).await);
                Open::Policy { refused, smtpd, client, mail: Mail::default(), accepted: Vec::new() }
            }
            Road::Both { milter, running, pids } => {
                *pids += 1;
                let client = Client { port: 4710 + *pids as u16, ..client };
                let mut mta = Box::new(Mta::connect(&milter.path, Kind::Postfix).await);
                let refused = refused(mta.greet(client.clone()).await);
                let (smtpd, mail) = (running.smtpd(*pids), Mail::default());
                Open::Both { mta, refused, smtpd, client, mail, accepted: Vec::new() }
            }
        }
    }
}

/// A connection, with or without a transaction.
pub enum Open<'r> {
    Decision {
        running: &'r Running,
        _connection: Connection,
        refused: Reply,
        transaction: Option<Box<Transaction>>,
        inside: Option<Inside>,
    },
    Milter {
        mta: Box<Mta>,
        refused: Reply,
    },
    Policy {
        refused: Reply,
        smtpd: Smtpd,
        client: Client,
        mail: Mail,
        accepted: Vec<String>,
    },
    Both {
        mta: Box<Mta>,
        refused: Reply,
        smtpd: Smtpd,
        client: Client,
        mail: Mail,
        accepted: Vec<String>,
    },
}

impl Open<'_> {
    /// Whether the session itself was refused.
    pub fn is_refused(&self) -> bool {
        match self {
            Open::Decision { refused, .. }
            | Open::Milter { refused, .. }
            | Open::Policy { refused, .. }
            | Open::Both { refused, .. } => refused.is_some(),
        }
    }

    /// MAIL and all RCPTs: what is answered to each of these. `rehearsal`: what `explain` says of them.
    pub async fn begin(&mut self, step: &Step, recipients: &[String], rehearsal: &Rehearsal) -> Vec<Reply> {
        let sender = &*Step::said(&step.sender, "ann@acme.example");
        let mut told = Vec::new();
        match self {
            Open::Decision { refused: refused @ Some(_), .. }
            | Open::Milter { refused: refused @ Some(_), .. }
            | Open::Both { refused: refused @ Some(_), .. } => {
                told.resize(recipients.len(), refused.clone());
            }
            Open::Decision { running, transaction, inside, .. } => {
                let envelope = envelope_of(step, Via::Milter);
                let front_end = FrontEnd::milter(true, true);
                let mut begun = Transaction::begin(&running.engine, running.engine.snapshot(), front_end, envelope);
                if let Some(reply) = begun.mail(None) {
                    assert!(rehearsal.mail.is_some(), "explain says so, too");
                    told.resize(recipients.len(), Some(reply.to_string()));
                    *transaction = Some(Box::new(begun));
                    return told;
                }
                let mut verdicts = Vec::new();
                for (rehearsed, recipient) in rehearsal.recipients.iter().zip(recipients) {
                    let decision =
                        begun.recipient(Via::Milter.read_recipient(recipient), None, CountedBy::Itself).await;
                    verdicts.push(decision.verdict.clone());
                    assert_eq!(rehearsed.verdict, decision.verdict, "explain has to say what happens");
                    told.push(reply_of(decision));
                }
                let mut all = Inside::of_all(&verdicts);
                let steps =
                    rehearsal.steps.iter().chain(rehearsal.decisive().into_iter().flat_map(|stage| &stage.steps));
                all.steps = steps.map(|step| format!("{} {}", step.step, step.outcome)).collect();
                *inside = Some(all);
                *transaction = Some(Box::new(begun));
            }
            Open::Milter { mta, .. } => {
                let at_mail = mta.mail_declaring(format!("<{sender}>").as_bytes(), step.size.unwrap_or(0)).await;
                if at_mail != Answer::Continue {
                    told.resize(recipients.len(), refused(at_mail));
                    return told;
                }
                for recipient in recipients {
                    told.push(refused(mta.recipient(recipient).await));
                }
            }
            Open::Both { mta, smtpd, client, mail, accepted, .. } => {
                let at_mail = mta.mail_declaring(format!("<{sender}>").as_bytes(), step.size.unwrap_or(0)).await;
                if at_mail != Answer::Continue {
                    told.resize(recipients.len(), refused(at_mail));
                    return told;
                }
                let instance = smtpd.next_mail().instance;
                *mail = Mail { instance, size: step.size.unwrap_or(0), ..mail_of(client, &internal_form(sender)) };
                accepted.clear();
                for recipient in recipients {
                    let internal = internal_form(recipient);
                    let answer = match ask_each_restriction(smtpd, mail, &internal).await {
                        None => refused(mta.recipient(recipient).await),
                        refused => refused,
                    };
                    if answer.is_none() {
                        accepted.push(internal);
                    }
                    told.push(answer);
                }
            }
            Open::Policy { smtpd, client, mail, accepted, .. } => {
                let instance = smtpd.next_mail().instance;
                *mail = Mail { instance, size: step.size.unwrap_or(0), ..mail_of(client, &internal_form(sender)) };
                accepted.clear();
                for recipient in recipients {
                    let recipient = internal_form(recipient);
                    let answer = ask_each_restriction(smtpd, mail, &recipient).await;
                    if answer.is_none() {
                        accepted.push(recipient);
                    }
                    told.push(answer);
                }
            }
        }
        told
    }

    /// The end of the message: the answer, and the senders it was given.
    pub async fn end(&mut self, step: &Step) -> (Reply, Vec<String>) {
        match self {
            Open::Decision { transaction, .. } => {
                let mut transaction = transaction.take().expect("a transaction is open");
                transaction.measured(size_of(step));
                let report = EndReport {
                    recipients: ReportedRecipients::All,
                    queue_id: None,
                    client_port: 0,
                    server: Server::default(),
                    reporter: Reporter::Policy,
                    milter_is_missing: false,
                };
                let decision = transaction.end(report).await;
                let senders = decision.verdict.rewrite_sender_to.iter().map(Address::to_string).collect();
                (reply_of(decision), senders)
            }
            Open::Milter { mta, .. } => {
                send_content(mta, step).await;
                let (senders, answer) = mta.end().await;
                (refused(answer), senders)
            }
            Open::Both { mta, smtpd, mail, accepted, .. } => {
                send_content(mta, step).await;
                let accepted: Vec<&str> = accepted.iter().map(String::as_str).collect();
                let mail = Mail { size: step.bytes.unwrap_or(0), ..mail.clone() };
                assert_eq!(smtpd.ask(&mail.at_end(&accepted)).await, "DUNNO", "the milter's end decides");
                let (senders, answer) = mta.end().await;
                (refused(answer), senders)
            }
            Open::Policy { smtpd, mail, accepted, .. } => {
                let accepted: Vec<&str> = accepted.iter().map(String::as_str).collect();
                let mail = Mail { size: step.bytes.unwrap_or(0), ..mail.clone() };
                (refused_action(smtpd.ask(&mail.at_end(&accepted)).await), Vec::new())
            }
        }
    }

    /// RSET.
    pub async fn give_up(&mut self) {
        match self {
            Open::Decision { transaction, .. } => *transaction = None,
            Open::Milter { mta, .. } => mta.abort().await,
            Open::Both { mta, accepted, .. } => {
                accepted.clear();
                mta.abort().await;
            }
            // The next instance of the same smtpd tells.
            Open::Policy { smtpd, accepted, .. } => {
                accepted.clear();
                let next = Mail { client: "127.0.0.1".into(), ..smtpd.next_mail() };
                smtpd.ask(&next.at_recipient("nobody@dest.example")).await;
            }
        }
    }

    pub async fn close(self) {
        match self {
            Open::Decision { .. } => {}
            Open::Milter { mta, .. } => mta.quit().await,
            Open::Both { mta, mut smtpd, .. } => {
                mta.quit().await;
                assert_eq!(smtpd.close_and_read_rest().await, b"");
            }
            Open::Policy { mut smtpd, .. } => {
                assert_eq!(smtpd.close_and_read_rest().await, b"");
            }
        }
    }

    /// What the decision says; the protocols show it in the log only.
    pub fn inside(&self) -> Option<&Inside> {
        match self {
            Open::Decision { inside, .. } => inside.as_ref(),
            _ => None,
        }
    }
}

fn mail_of(client: &Client, sender: &str) -> Mail {
    let Client { address, port, server, server_port, helo, tls, login, sasl_method } = client.clone();
    Mail {
        client: address,
        port,
        server,
        server_port,
        helo,
        tls,
        login,
        sasl_method,
        sender: sender.to_owned(),
        ..Mail::default()
    }
}

pub fn envelope_of(step: &Step, via: Via) -> Envelope {
    let client = client_of(step);
    let sender = Step::said(&step.sender, "ann@acme.example");
    let sender = via.read_sender(&if via == Via::Policy { internal_form(&sender) } else { sender });
    Envelope::new(parse_client(&client.address), &client.helo, &client.tls, &client.login, sender)
        .with_sasl_method(&client.sasl_method)
        .declaring(step.size)
}

fn client_of(step: &Step) -> Client {
    Client {
        address: Step::said(&step.client, "192.0.2.7"),
        helo: Step::said(&step.helo, "mx.acme.example"),
        tls: Step::said(&step.tls, ""),
        login: Step::said(&step.login, ""),
        sasl_method: Step::said(&step.sasl_method, "PLAIN"),
        ..Client::default()
    }
}

/// As the milter measures it.
pub fn size_of(step: &Step) -> MessageSize {
    let attachments = step.attachments.as_ref().map(|sizes| AttachmentSizes {
        count: sizes.len() as u64,
        total: sizes.iter().sum(),
        largest: sizes.iter().copied().max().unwrap_or(0),
    });
    MessageSize { bytes: step.bytes, attachments }
}

async fn send_content(mta: &mut Mta, step: &Step) {
    match (&step.attachments, step.bytes) {
        (Some(sizes), _) => mta.content(&with_attachments(sizes)).await,
        (None, Some(bytes)) => mta.content(&of_bytes(bytes)).await,
        (None, None) => {}
    }
}

/// Postfix asks at each restriction stage until one refuses. In `smtpd_relay_restrictions` it wants to know more.
async fn ask_each_restriction(smtpd: &mut Smtpd, mail: &Mail, recipient: &str) -> Reply {
    for _ in ["client", "helo", "sender"] {
        match smtpd.ask(&mail.at_recipient(recipient)).await.as_str() {
            "DUNNO" => {}
            action => return refused_action(action.to_owned()),
        }
    }
    match smtpd.ask(&mail.request("RCPT", recipient, 0, "relay")).await.as_str() {
        // Inbound mail gets no permission to relay.
        "DUNNO" if recipient.ends_with("@inbound.example") => {}
        "OK" => {}
        action => return refused_action(action.to_owned()),
    }
    refused_action(smtpd.ask(&mail.at_recipient(recipient)).await)
}

fn refused_action(action: String) -> Reply {
    match action.as_str() {
        "DUNNO" => None,
        _ => Some(action),
    }
}

fn refused(answer: Answer) -> Reply {
    match answer {
        Answer::Continue => None,
        Answer::Reply(reply) => Some(reply),
        other => panic!("no words of ours: {other:?}"),
    }
}

fn reply_of(decision: Decision) -> Reply {
    assert_eq!(decision.verdict.passes(), decision.reply.is_none());
    let reply: Option<String> = decision.reply.as_ref().map(ToString::to_string);
    let word = match reply.as_deref().map(|reply| reply.starts_with('4')) {
        None => "accept",
        Some(true) => "defer",
        Some(false) => "reject",
    };
    assert_eq!(decision.verdict.word(), word);
    reply
}

impl Inside {
    /// Of the first refusal, else of the first acceptance, else of the first exemption.
    fn of_all(verdicts: &[Verdict]) -> Inside {
        let first = |is: fn(&Outcome) -> bool| verdicts.iter().find(|verdict| is(&verdict.outcome));
        let refusal = first(|outcome| matches!(outcome, Outcome::Refuse(_)));
        let decisive = refusal.or(first(|outcome| *outcome == Outcome::Accept)).or(verdicts.first());
        let shadow = verdicts.iter().find_map(|verdict| Inside::of(verdict).shadow);
        Inside { shadow, ..Inside::of(decisive.expect("a recipient")) }
    }

    fn of(verdict: &Verdict) -> Inside {
        let reason = match &verdict.outcome {
            Outcome::Accept => None,
            Outcome::Exempt(exemption) => Some(exemption.key()),
            Outcome::Refuse(refusal) => Some(refusal.key()),
        };
        Inside {
            reason: reason.map(str::to_owned),
            customer: verdict.customer.as_deref().map(str::to_owned),
            by: verdict.identified_by.map(|by| by.key().to_owned()),
            setting: verdict.setting.as_deref().map(str::to_owned),
            user: verdict.user.as_deref().map(str::to_owned),
            rewrite: verdict.rewrite_sender_to.as_ref().map(Address::to_string),
            shadow: Some(verdict.shadow_keys().join(",")).filter(|keys| !keys.is_empty()),
            steps: Vec::new(),
        }
    }

    /// From lines of the log: the refusal, else the last word.
    pub fn of_log(lines: &[String]) -> Option<Inside> {
        let decisions = || lines.iter().filter(|line| line.contains(" ref="));
        let refusal = decisions().find(|line| !line.contains("verdict=accept"));
        let inside = Inside::of_log_line(refusal.or(decisions().next_back())?);
        let shadow = decisions().find_map(|line| Inside::of_log_line(line).shadow);
        Some(Inside { shadow, ..inside })
    }

    fn of_log_line(line: &str) -> Inside {
        let value = |key: &str| {
            let at = line.find(&format!(" {key}="))?;
            let rest = &line[at + key.len() + 2..];
            Some(match rest.strip_prefix('"') {
                Some(quoted) => unescaped(quoted.split('"').next()?),
                None => rest.split(' ').next()?.to_owned(),
            })
        };
        Inside {
            reason: value("reason"),
            customer: value("customer"),
            by: value("by"),
            setting: value("setting"),
            user: value("user"),
            rewrite: value("rewritten"),
            shadow: value("shadow"),
            steps: Vec::new(),
        }
    }
}

/// `\u{f6}` is ö.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').expect("an escape ends");
        out.extend(char::from_u32(u32::from_str_radix(code, 16).unwrap()));
        out.push_str(rest);
    }
    out
}
