//! A transaction that does not happen, for `explain`: it drives the same evaluation as the daemon, and looks at the ledger where a
//! transaction reserves or counts.

use super::ask::ask_without_counting;
use super::engine::Snapshot;
use super::transaction::context;
use crate::clock::Moment;
use crate::directory::Subject;
use crate::envelope::{Address, AddressError, BadAddress, Envelope, Read, Sender};
use crate::ledger::{Ledger, RecipientKey};
use crate::orders::Orders;
use crate::policy::{
    Context, CountedBy, Evaluation, FrontEnd, LiveFacts, ReportedRecipients, Stage, Step, Trace, Verdict,
};
use crate::size::MessageSize;
use jiff::Timestamp;

/// Through which protocols the MTA asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Milter,
    Policy,
    /// The policy service is asked about each recipient while a milter session is open, and then the milter: what both pass is
    /// accepted.
    Both,
}

impl Via {
    /// As in `explain --via`.
    pub const fn key(self) -> &'static str {
        match self {
            Via::Milter => "milter",
            Via::Policy => "policy",
            Via::Both => "both",
        }
    }

    /// Reads a sender as the MTA passes it on: to a milter as the client typed it, to a policy service in its internal form.
    pub fn read_sender(self, text: &str) -> Read<Sender> {
        let sender = if self == Via::Policy { Sender::from_internal(text) } else { Sender::from_path(text) };
        sender.map_err(|error| BadAddress::new(text, error))
    }

    /// The same for a recipient.
    pub fn read_recipient(self, text: &str) -> Read<Address> {
        let recipient = if self == Via::Policy { Address::from_internal(text) } else { Address::from_path(text) };
        recipient.map_err(|error| BadAddress::new(text, error))
    }

    pub const fn words(self) -> &'static str {
        match self {
            Via::Milter => "the milter",
            Via::Policy => "the policy service alone: nothing can be rewritten or archived",
            Via::Both => "the policy service and the milter",
        }
    }
}

/// What would happen to a transaction.
#[derive(Debug)]
pub struct Rehearsal {
    /// The steps that concern the transaction, and MAIL.
    pub steps: Vec<Step>,
    /// MAIL would be refused, and nothing else asked.
    pub mail: Option<Verdict>,
    /// One for each recipient, in the order given.
    pub recipients: Vec<RehearsedStage>,
    /// The end of the message; `None` if no recipient is accepted.
    pub end: Option<RehearsedStage>,
}

/// What would be answered to a recipient, or to the end of the message.
#[derive(Debug)]
pub struct RehearsedStage {
    /// As it was named; empty at the end of the message.
    pub recipient: Box<str>,
    pub verdict: Verdict,
    pub steps: Vec<Step>,
}

/// What a transaction is rehearsed against.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub snapshot: &'a Snapshot,
    pub ledger: &'a Ledger,
    pub orders: &'a Orders,
    pub live: &'a dyn LiveFacts,
}

/// Without a daemon: nobody has signs of abuse, and no mail of relaykeeper's own is on its way.
pub struct OfflineFacts<'a> {
    pub ledger: &'a Ledger,
}

impl Rehearsal {
    /// Goes through the whole transaction. `size`: how large the message turns out to be.
    pub async fn of(
        envelope: &Envelope,
        recipients: &[&str],
        size: MessageSize,
        via: Via,
        surroundings: Surroundings<'_>,
    ) -> Rehearsal {
        let on_rewrite = surroundings.snapshot.settings.policy.on_rewrite;
        let (front_end, size) = match via {
            Via::Milter | Via::Both => (FrontEnd::milter(true, true), size),
            // It sees no content.
            Via::Policy => (FrontEnd::policy_service(on_rewrite, false), MessageSize { attachments: None, ..size }),
        };
        let mut asker = Asker::new(envelope, front_end, surroundings);
        // Restrictions come before the milter's RCPT. At MAIL, and at the end, the milter alone decides.
        let policy_first = (via == Via::Both).then(|| FrontEnd::policy_service(on_rewrite, true));
        let as_postfix_reads_it = Envelope { sender: read_by_postfix(&envelope.sender), ..envelope.clone() };
        let mut policy_first = policy_first.map(|front_end| Asker::new(&as_postfix_reads_it, front_end, surroundings));
        let mail = if via == Via::Policy { None } else { asker.mail() };
        let mut rehearsal =
            Rehearsal { steps: std::mem::take(&mut asker.steps), mail, recipients: Vec::new(), end: None };
        for &recipient in recipients {
            let named = via.read_recipient(recipient);
            let (verdict, steps) = match (&rehearsal.mail, &mut policy_first) {
                (Some(refused), _) => (refused.clone(), Vec::new()),
                (None, None) => asker.recipient(named, CountedBy::Itself).await,
                (None, Some(policy)) => {
                    let as_postfix_reads_it = match &named {
                        Ok(_) => named.clone(),
                        Err(_) => Via::Policy.read_recipient(&postfix_form(recipient)),
                    };
                    match policy.recipient(as_postfix_reads_it, CountedBy::Milter(None)).await {
                        (verdict, _) if verdict.passes() => asker.recipient(named, CountedBy::Itself).await,
                        refused => refused,
                    }
                }
            };
            rehearsal.recipients.push(RehearsedStage { recipient: recipient.into(), verdict, steps });
        }
        let accepted = || rehearsal.recipients.iter().filter(|recipient| recipient.verdict.passes());
        let lone = accepted().next().and_then(|lone| via.read_recipient(&lone.recipient).ok());
        let reported = match (via, accepted().count()) {
            (_, 0) => return rehearsal,
            (Via::Policy, 1) => ReportedRecipients::Number { recipients: 1, lone: lone.as_ref() },
            (Via::Policy, number) => ReportedRecipients::Number { recipients: number as u64, lone: None },
            (Via::Milter | Via::Both, _) => ReportedRecipients::All,
        };
        let (verdict, steps) = asker.end(reported, size).await;
        rehearsal.end = Some(RehearsedStage { recipient: Box::default(), verdict, steps });
        rehearsal
    }

    /// The verdict that stands for the transaction: the first that refuses, else that on the first recipient.
    pub fn decisive(&self) -> Option<&RehearsedStage> {
        let mut all = self.recipients.iter().chain(&self.end);
        all.find(|stage| !stage.verdict.passes()).or(self.recipients.first())
    }
}

/// What is malformed to a milter may still be an address to Postfix, which tells the policy service its own reading.
fn read_by_postfix(sender: &Read<Sender>) -> Read<Sender> {
    match sender {
        Err(bad) if *bad.error() != AddressError::TooLong => Via::Policy.read_sender(&postfix_form(bad.written())),
        _ => sender.clone(),
    }
}

/// A path as Postfix reads it (`extract_addr` in smtpd.c): without source route, comments and quotes.
fn postfix_form(typed: &str) -> String {
    let path = typed.strip_prefix('<').map_or(typed, |inner| inner.strip_suffix('>').unwrap_or(inner));
    let mailbox = path.strip_prefix('@').and_then(|route| route.split_once(':')).map_or(path, |(_, mailbox)| mailbox);
    let (mut form, mut is_quoted, mut comments) = (String::new(), false, 0_u32);
    let mut characters = mailbox.chars();
    while let Some(c) = characters.next() {
        match c {
            '(' if !is_quoted => comments += 1,
            ')' if comments > 0 => comments -= 1,
            _ if comments > 0 => {}
            '"' => is_quoted = !is_quoted,
            '\\' => form.extend(characters.next()),
            c => form.push(c),
        }
    }
    form
}

/// One protocol that asks about the transaction.
struct Asker<'a> {
    envelope: &'a Envelope,
    front_end: FrontEnd,
    surroundings: Surroundings<'a>,
    evaluation: Evaluation,
    /// Those of MAIL.
    steps: Vec<Step>,
}

impl<'a> Asker<'a> {
    fn new(envelope: &'a Envelope, front_end: FrontEnd, surroundings: Surroundings<'a>) -> Asker<'a> {
        let mut trace = Trace::on();
        let evaluation = Evaluation::begin(&surroundings.context(envelope, front_end), &mut trace);
        Asker { envelope, front_end, surroundings, evaluation, steps: trace.into_steps() }
    }

    fn mail(&mut self) -> Option<Verdict> {
        let cx = self.surroundings.context(self.envelope, self.front_end);
        let mut trace = Trace::on();
        let refused = self.evaluation.mail(&cx, &mut trace)?;
        self.steps.extend(trace.into_steps());
        Some(refused)
    }

    async fn recipient(&mut self, named: Read<Address>, counted_by: CountedBy) -> (Verdict, Vec<Step>) {
        let cx = self.surroundings.context(self.envelope, self.front_end);
        let mut trace = Trace::on();
        let decision = match self.evaluation.recipient(named, counted_by, &cx, &mut trace) {
            Stage::Decided(decision) => decision,
            Stage::AskLedger(pending) => {
                let answer =
                    ask_without_counting(self.surroundings.ledger, self.evaluation.recipient_question(&pending)).await;
                self.evaluation.recipient_answered(pending, &answer, &cx, &mut trace)
            }
        };
        (decision.verdict, trace.into_steps())
    }

    async fn end(&mut self, reported: ReportedRecipients<'_>, size: MessageSize) -> (Verdict, Vec<Step>) {
        let cx = self.surroundings.context(self.envelope, self.front_end);
        let mut trace = Trace::on();
        let decision = match self.evaluation.end(reported, &size, &cx, &mut trace) {
            Stage::Decided(decision) => decision,
            Stage::AskLedger(pending) => {
                let answer =
                    ask_without_counting(self.surroundings.ledger, self.evaluation.end_question(&pending)).await;
                self.evaluation.end_answered(pending, &answer, &cx, &mut trace)
            }
        };
        (decision.verdict, trace.into_steps())
    }
}

impl<'a> Surroundings<'a> {
    fn context(self, envelope: &'a Envelope, front_end: FrontEnd) -> Context<'a> {
        context(envelope, self.snapshot, front_end, self.orders, self.live)
    }
}

impl LiveFacts for OfflineFacts<'_> {
    fn now(&self) -> Timestamp {
        self.ledger.wall_time()
    }

    fn wall_clock(&self, moment: Moment) -> i64 {
        self.ledger.wall(moment)
    }

    fn recipient_key(&self, canonical_address: &str) -> RecipientKey {
        self.ledger.recipient_key(canonical_address)
    }

    fn signs_of_abuse(&self, _: &Subject) -> Option<Box<str>> {
        None
    }

    fn has_own_mail_for(&self, _: &Address) -> bool {
        false
    }
}
