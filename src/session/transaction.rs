//! One transaction, from MAIL to its end, over either protocol: carries what the MTA says to the [evaluation](Evaluation), the
//! evaluation's questions to the ledger, and what comes of it to the log. Whatever way a transaction ends without acceptance, its
//! reservation is released.

use super::ask::ask;
use super::correlation::Server;
use super::counted_messages::{CountClaim, MessageName, Reporter};
use super::engine::{Engine, Snapshot};
use super::live::Live;
use super::log::{self, LoggedDecision};
use super::open_count::UnderWay;
use super::replay::{Replay, ReplayedStage, ReportedAtEnd};
use crate::envelope::{Address, Envelope, Read, Reply};
use crate::ledger::{Foreseen, LedgerAnswer, LedgerError, ReservationId};
use crate::orders::Orders;
use crate::policy::{
    Context, CountedBy, EndDecision, Evaluation, FrontEnd, LiveFacts, MtaProtocol, Outcome, RecipientDecision,
    ReportedRecipients, Stage, Trace, Verdict,
};
use crate::report::Reference;
use crate::size::MessageSize;
use std::sync::Arc;

mod watching;

/// A verdict, and what the client is answered if it refuses.
#[derive(Clone, Debug)]
pub struct Decision {
    pub verdict: Verdict,
    pub reply: Option<Reply>,
}

/// The end of a message, as an MTA reports it.
#[derive(Clone, Debug)]
pub struct EndReport<'a> {
    pub recipients: ReportedRecipients<'a>,
    pub queue_id: Option<&'a str>,
    /// 0 is unknown.
    pub client_port: u16,
    pub server: Server,
    pub reporter: Reporter,
    /// The MTA asks both protocols about each message, and the milter session of this one is not open.
    pub milter_is_missing: bool,
}

/// An open transaction.
pub struct Transaction {
    engine: Arc<Engine>,
    snapshot: Arc<Snapshot>,
    front_end: FrontEnd,
    envelope: Envelope,
    evaluation: Evaluation,
    reservation: ReservationId,
    /// A filter before us marked it as spam or virus.
    is_marked: bool,
    secret_headers: u16,
    /// Of the message, when it is complete.
    size: MessageSize,
    /// The reservation may hold something.
    reserved: bool,
    /// Neither ended nor given up.
    open: bool,
    /// From its first accepted recipient on, as long as a stop must wait for it. What was only refused has nothing to lose, and
    /// its end is reported late (Postfix keeps ABORT in its buffer) or never (policy protocol, where the same is true of
    /// exempt recipients). Nor does a stop wait here for a message that a milter session counts: it waits for that session.
    under_way: Option<UnderWay>,
}

impl Transaction {
    pub fn begin(
        engine: &Arc<Engine>,
        snapshot: Arc<Snapshot>,
        front_end: FrontEnd,
        envelope: Envelope,
    ) -> Transaction {
        let orders = engine.administration.orders();
        let live = Live { engine, snapshot: &snapshot };
        let cx = context(&envelope, &snapshot, front_end, &orders, &live);
        let evaluation = Evaluation::begin(&cx, &mut Trace::off());
        if let Some(admitted) = evaluation.admitted() {
            engine.ledger.foresee(&admitted.parties, Foreseen::Soon);
        }
        Transaction {
            reservation: engine.ledger.new_reservation(),
            engine: engine.clone(),
            snapshot,
            front_end,
            envelope,
            evaluation,
            is_marked: false,
            secret_headers: 0,
            size: MessageSize::default(),
            reserved: false,
            open: true,
            under_way: None,
        }
    }

    pub fn reservation(&self) -> ReservationId {
        self.reservation
    }

    /// Whether a stop must wait for it.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The configuration that it began with.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether it holds anything that must be counted or released.
    pub fn reserves(&self) -> bool {
        self.open && self.reserved
    }

    /// Whether it matters how large the message turns out to be.
    pub fn limits_size(&self) -> bool {
        self.evaluation.limits_size()
    }

    /// How large the message turned out to be, before its end.
    pub fn measured(&mut self, size: MessageSize) {
        self.size = size;
    }

    /// Decides about MAIL itself. What is not refused here is decided at each recipient.
    pub fn mail(&self, queue_id: Option<&str>) -> Option<Reply> {
        let orders = self.engine.administration.orders();
        let live = Live { engine: &self.engine, snapshot: &self.snapshot };
        let cx = context(&self.envelope, &self.snapshot, self.front_end, &orders, &live);
        let verdict = self.evaluation.mail(&cx, &mut Trace::off())?;
        let replay = || self.replay(ReplayedStage::Mail, &orders, None);
        self.decided(verdict, LogDetails { queue_id, ..LogDetails::default() }, replay).reply
    }

    /// Decides about a recipient, and reserves it against all limits, unless a milter session counts it.
    pub async fn recipient(
        &mut self,
        recipient: Read<Address>,
        queue_id: Option<&str>,
        counted_by: CountedBy,
    ) -> Decision {
        if let Some(admitted) = self.evaluation.admitted() {
            self.engine.ledger.foresee(&admitted.parties, Foreseen::Next);
        }
        let counts_here = counted_by == CountedBy::Itself;
        if !counts_here {
            self.release();
        }
        let orders = self.engine.administration.orders();
        let live = Live { engine: &self.engine, snapshot: &self.snapshot };
        let cx = context(&self.envelope, &self.snapshot, self.front_end, &orders, &live);
        let mut answered = None;
        let RecipientDecision { verdict, recipient, is_repeated } =
            match self.evaluation.recipient(recipient, counted_by, &cx, &mut Trace::off()) {
                Stage::Decided(decision) => decision,
                Stage::AskLedger(pending) => {
                    let question = self.evaluation.recipient_question(&pending);
                    let answer = ask(&self.engine.ledger, self.reservation, question, true).await;
                    let answer = answered.insert(answer);
                    self.evaluation.recipient_answered(pending, answer, &cx, &mut Trace::off())
                }
            };
        if let Some(Ok(answer)) = &answered {
            self.take_notice(answer);
        }
        self.watch_recipient(&verdict);
        self.reserved |= verdict.outcome == Outcome::Accept && counts_here;
        let is_said_at_end = self.front_end.is_local && !verdict.passes();
        if is_repeated || is_said_at_end {
            // Everything was said the first time, or is said at the end of the message.
            return Decision { verdict, reply: None };
        }
        let has_something_to_lose = match self.front_end.protocol {
            MtaProtocol::Milter => verdict.passes(),
            MtaProtocol::Policy => !self.evaluation.counted().is_empty(),
        };
        if has_something_to_lose && self.under_way.is_none() && counts_here {
            self.under_way = Some(self.engine.open_transactions.enter());
        }
        let details = LogDetails { recipient: recipient.as_ref().ok(), queue_id, recipients: None };
        let replay =
            || self.replay(ReplayedStage::Recipient { recipient: recipient.clone(), counted_by }, &orders, answered);
        self.decided(verdict, details, replay)
    }

    /// The message was accepted as far as everybody before us is concerned: counts it, or refuses it.
    pub async fn end(&mut self, report: EndReport<'_>) -> Decision {
        let EndReport { recipients: reported, queue_id, milter_is_missing, .. } = report;
        // Under way until it is decided: a stop waits for that.
        let _under_way = self.under_way.take();
        self.open = false;
        let orders = self.engine.administration.orders();
        let live = Live { engine: &self.engine, snapshot: &self.snapshot };
        let cx = context(&self.envelope, &self.snapshot, self.front_end, &orders, &live);
        let mut answered = None;
        let decision = match self.evaluation.end(reported, &self.size, &cx, &mut Trace::off()) {
            Stage::Decided(decision) => decision,
            Stage::AskLedger(pending) if milter_is_missing => {
                self.evaluation.without_milter(pending, &cx, &mut Trace::off())
            }
            Stage::AskLedger(pending) => match self.claim(&report) {
                CountClaim::First => {
                    let question = self.evaluation.end_question(&pending);
                    let answer = ask(&self.engine.ledger, self.reservation, question, true).await;
                    // A commit ends the reservation, however it is answered.
                    self.reserved = false;
                    if !answer.as_ref().is_ok_and(LedgerAnswer::fits) {
                        self.take_claim_back(&report);
                    }
                    let answer = answered.insert(answer);
                    self.evaluation.end_answered(pending, answer, &cx, &mut Trace::off())
                }
                claim => {
                    let by_twin = claim == CountClaim::CountedByTwin;
                    self.evaluation.already_counted(pending, by_twin, &cx, &mut Trace::off())
                }
            },
        };
        self.release();
        let replay = || {
            let (reported, size) = (ReportedAtEnd::of(reported), self.size);
            self.replay(ReplayedStage::End { reported, size, milter_is_missing }, &orders, answered.clone())
        };
        self.ended(decision, answered.as_ref(), queue_id, replay)
    }

    /// Nobody will report how the message ended: counts it as if it had been accepted. No client waits for that.
    pub async fn count_unended(&mut self) {
        let _under_way = self.under_way.take();
        self.open = false;
        let orders = self.engine.administration.orders();
        let live = Live { engine: &self.engine, snapshot: &self.snapshot };
        let cx = context(&self.envelope, &self.snapshot, self.front_end, &orders, &live);
        let Some(pending) = self.evaluation.count_unended(&cx, &mut Trace::off()) else { return };
        let answer = ask(&self.engine.ledger, self.reservation, self.evaluation.end_question(&pending), false).await;
        self.reserved = false;
        let decision = self.evaluation.end_answered(pending, &answer, &cx, &mut Trace::off());
        let replay = || self.replay(ReplayedStage::Unended, &orders, Some(answer.clone()));
        self.ended(decision, Some(&answer), None, replay);
    }

    /// The transaction is over without acceptance. `why` and the queue ID are for the log.
    pub fn abandon(&mut self, why: &'static str, queue_id: Option<&str>) {
        let _under_way = self.under_way.take();
        if !std::mem::take(&mut self.open) {
            return;
        }
        if self.release() {
            self.log_abandoned(why, queue_id);
        }
    }

    fn log_abandoned(&self, why: &'static str, queue_id: Option<&str>) {
        let Some(admitted) = self.evaluation.admitted() else { return };
        let (customer, recipients) = (&admitted.parties.customer, self.evaluation.counted().len());
        log::abandoned(&self.engine.log, &self.envelope, customer, recipients, why, queue_id);
    }

    /// It was silent for longer than a reservation lasts. Its end, should it still come, is decided anew.
    pub fn expire(&mut self) {
        self.under_way = None;
        if self.release() {
            self.log_abandoned("time-out", None);
        }
    }

    /// The message is counted by the policy service, in the place of the milter session that this transaction is one of.
    pub fn leave_to_policy_service(&mut self) {
        self.under_way = None;
        self.open = false;
        self.reserved = false;
    }

    /// Counts in the place of the milter session, whose reservation this transaction ends: no milter hears of the end of the
    /// message. Nor can anything be rewritten then.
    pub fn count_in_place_of_milter(&mut self, reservation: ReservationId, front_end: FrontEnd) {
        self.reservation = reservation;
        self.reserved = true;
        self.front_end = front_end;
    }

    /// Where the MTA names no queue ID nobody else can report the same message.
    fn claim(&self, report: &EndReport) -> CountClaim {
        let Some(name) = self.name(report) else { return CountClaim::First };
        let lifetime = self.snapshot.settings.relay.reservation_timeout;
        let claim = self.engine.counted_messages.claim(&name, &report.reporter, lifetime);
        if claim == CountClaim::CountedByTwin {
            self.engine.tally.warn_listed_twice(&self.engine.log);
        }
        claim
    }

    fn take_claim_back(&self, report: &EndReport) {
        if let Some(name) = self.name(report) {
            self.engine.counted_messages.take_back(&name);
        }
    }

    fn name<'r>(&self, report: &EndReport<'r>) -> Option<MessageName<'r>> {
        let EndReport { client_port, server, queue_id, .. } = *report;
        Some(MessageName { client: self.envelope.client, client_port, server, queue_id: queue_id? })
    }

    /// Releases the reservation; whether there was one.
    fn release(&mut self) -> bool {
        let reserved = std::mem::take(&mut self.reserved);
        if reserved && let Some(admitted) = self.evaluation.admitted() {
            self.engine.ledger.release(self.reservation, &admitted.parties);
        }
        reserved
    }

    fn ended(
        &self,
        decision: EndDecision,
        answer: Option<&Result<LedgerAnswer, LedgerError>>,
        queue_id: Option<&str>,
        replay: impl FnOnce() -> Replay,
    ) -> Decision {
        if let Some(Ok(answer)) = answer {
            self.take_notice(answer);
        }
        self.watch_end(&decision.verdict, self.evaluation.counted_of(&decision));
        let details = LogDetails { recipient: None, queue_id, recipients: Some(decision.recipients) };
        self.decided(decision.verdict, details, replay)
    }

    /// Counts, logs and records a verdict, and turns it into what the client is answered. An accepted recipient is only counted,
    /// unless a rule in shadow would have refused it: its message has a line.
    fn decided(&self, verdict: Verdict, details: LogDetails, replay: impl FnOnce() -> Replay) -> Decision {
        self.engine.tally.count(&verdict, details.recipients.is_some());
        if details.recipients.is_none() && verdict.passes() && verdict.shadow.is_empty() {
            return Decision { verdict, reply: None };
        }
        let reference = Reference::generate();
        let decision = LoggedDecision {
            protocol: self.front_end.protocol,
            envelope: &self.envelope,
            verdict: &verdict,
            recipient: details.recipient,
            queue_id: details.queue_id,
            recipients: details.recipients,
            reference,
        };
        log::decided(&self.engine, &self.snapshot, &decision, || Some(replay()));
        let reply = verdict.refusal().map(|refusal| refusal.reply(reference));
        Decision { verdict, reply }
    }

    /// What the decision can be gone through again with, for the record.
    fn replay(
        &self,
        stage: ReplayedStage,
        orders: &Arc<Orders>,
        answer: Option<Result<LedgerAnswer, LedgerError>>,
    ) -> Replay {
        let wall_clock = answer.as_ref().and_then(|answer| answer.as_ref().ok()).map(|answer| answer.at);
        Replay {
            stage,
            front_end: self.front_end,
            orders: orders.clone(),
            counted: self.evaluation.counted().to_vec(),
            uncounted: self.evaluation.uncounted().to_vec(),
            refused_local: self.evaluation.refused_local().cloned(),
            answer,
            clock_offset: wall_clock.map_or(0, |at| self.engine.ledger.wall(at) - at.0 as i64),
        }
    }
}

/// What is logged beside a verdict.
#[derive(Default)]
struct LogDetails<'a> {
    recipient: Option<&'a Address>,
    queue_id: Option<&'a str>,
    /// At the end of a message: how many it went to.
    recipients: Option<u64>,
}

/// A vanished client, a dropped connection, a panic: all the same.
impl Drop for Transaction {
    fn drop(&mut self) {
        self.abandon("connection-lost", None);
    }
}

pub(super) fn context<'a>(
    envelope: &'a Envelope,
    snapshot: &'a Snapshot,
    front_end: FrontEnd,
    orders: &'a Orders,
    live: &'a dyn LiveFacts,
) -> Context<'a> {
    Context { envelope, rules: snapshot.rules(), front_end, orders, live }
}
