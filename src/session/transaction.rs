//! One transaction, from MAIL to its end. Whatever way it ends without acceptance, what it had reserved is given back.

use super::engine::{Engine, Snapshot};
use super::envelope::{Envelope, FrontEnd};
use super::log;
use super::open_count::UnderWay;
use crate::config::OnFailure;
use crate::directory::CustomerLimits;
use crate::envelope::{Address, Reply};
use crate::ledger::{AcceptedRecipients, Foreseen, LedgerAnswer, LedgerError, RecipientKey, ReservationId};
use crate::orders::Orders;
use crate::policy::{
    Admission, Admitted, Exemption, Gate, Outcome, RecipientFacts, Refusal, Trace, Verdict, admit, conclude,
    is_exempt_client, is_exempt_recipient,
};
use crate::report::Reference;
use crate::size::MessageSize;
use std::borrow::Cow;
use std::sync::Arc;

mod watching;

/// A verdict, and what to tell the client if it refuses.
#[derive(Clone, Debug)]
pub struct Decision {
    pub verdict: Verdict,
    pub reply: Option<Reply>,
}

/// How a message ended, as the MTA tells it.
#[derive(Clone, Copy, Debug)]
pub enum Accepted<'a> {
    /// With every recipient that was let through here.
    All,
    /// With so many recipients; where it is one, the MTA names it. Fewer than were let through count as that number; of
    /// a message whose recipients were never seen (the daemon was restarted meanwhile) the number is all that counts.
    Count { recipients: u64, lone: Option<&'a str> },
}

/// An open transaction.
pub struct Transaction {
    engine: Arc<Engine>,
    snapshot: Arc<Snapshot>,
    front_end: FrontEnd,
    envelope: Envelope,
    admission: Admission,
    reservation: ReservationId,
    /// Accepted recipients that count, each once.
    counted: Vec<RecipientKey>,
    /// Accepted recipients that do not count, each once.
    exempt: Vec<RecipientKey>,
    /// A letter of ours to an administrator.
    is_own_mail: bool,
    /// A filter before us took it for spam or a virus.
    is_marked: bool,
    secret_headers: u16,
    rewriting: Rewriting,
    /// Of the message, when it is complete.
    size: MessageSize,
    /// The reservation may hold something.
    reserved: bool,
    /// Neither ended nor given up.
    open: bool,
    /// From its first recipient on, as long as a stop has to wait for it. What was only refused has nothing to lose, and
    /// its end is told late (Postfix keeps ABORT in its buffer) or never (policy protocol). Nor does a stop wait here
    /// for a message that a milter session counts: it waits for that session.
    under_way: Option<UnderWay>,
}

/// Whether the sender can be rewritten where this transaction is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewriting {
    Possible,
    /// It cannot, and the operator lets mail pass all the same; but not with the address of another customer's user.
    Waived,
    Impossible {
        reject: bool,
    },
}

impl Transaction {
    pub fn begin(
        engine: &Arc<Engine>,
        snapshot: Arc<Snapshot>,
        front_end: FrontEnd,
        envelope: Envelope,
        rewriting: Rewriting,
    ) -> Transaction {
        let admission = admission_of(&envelope, &snapshot, &mut Trace::off());
        if let Admission::Admitted(admitted) = &admission {
            engine.ledger.foresee(&admitted.parties, Foreseen::Soon);
        }
        Transaction {
            reservation: engine.ledger.new_reservation(),
            engine: engine.clone(),
            snapshot,
            front_end,
            envelope,
            admission,
            counted: Vec::new(),
            exempt: Vec::new(),
            is_own_mail: false,
            is_marked: false,
            secret_headers: 0,
            rewriting,
            size: MessageSize::default(),
            reserved: false,
            open: true,
            under_way: None,
        }
    }

    pub fn reservation(&self) -> ReservationId {
        self.reservation
    }

    /// The configuration that it began with.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether any recipient was let through.
    pub fn has_recipients(&self) -> bool {
        !self.counted.is_empty() || !self.exempt.is_empty()
    }

    /// Whether what has been let through counts for somebody.
    pub fn counts(&self) -> bool {
        !self.counted.is_empty()
    }

    /// Whether it holds anything that has to be counted or given back.
    pub fn reserves(&self) -> bool {
        self.open && self.reserved
    }

    /// Whether accepted mail needs another envelope sender.
    pub fn rewrite_sender_to(&self) -> Option<&Address> {
        match &self.admission {
            Admission::Admitted(admitted) if self.counts() => admitted.rewrite_sender_to.as_ref(),
            _ => None,
        }
    }

    /// Where a copy of accepted mail goes that does not go there anyway.
    pub fn archive_to(&self) -> Option<&Address> {
        let Admission::Admitted(admitted) = &self.admission else { return None };
        let address = admitted.archive_to.as_ref().filter(|_| self.counts())?;
        let key = self.engine.ledger.recipient_key(address.as_str());
        (!self.counted.contains(&key) && !self.exempt.contains(&key)).then_some(address)
    }

    /// Decides on MAIL itself. What is not refused here is decided at each recipient.
    pub fn mail(&self, queue_id: Option<&str>) -> Option<Reply> {
        let verdict = self.admission.at_mail(&self.envelope.facts()?, &self.snapshot.rules())?;
        self.decided(verdict, None, queue_id, None).reply
    }

    /// Whether it matters how large the message turns out to be.
    pub fn limits_size(&self) -> bool {
        let Admission::Admitted(admitted) = &self.admission else { return false };
        self.counts() && admitted.customer.limits.limit_sizes()
    }

    /// How large the message turned out to be, before its end.
    pub fn measured(&mut self, size: MessageSize) {
        self.size = size;
    }

    /// Decides on a recipient, and reserves it against all limits.
    pub async fn recipient(&mut self, recipient: &str, queue_id: Option<&str>) -> Decision {
        self.judge(recipient, queue_id, Counting::Reserve).await
    }

    /// Decides on a recipient of a transaction that somebody else counts, whose reservation is `theirs`.
    pub async fn recipient_counted_elsewhere(
        &mut self,
        recipient: &str,
        queue_id: Option<&str>,
        theirs: Option<ReservationId>,
    ) -> Decision {
        self.give_back();
        self.judge(recipient, queue_id, Counting::Elsewhere(theirs)).await
    }

    /// Nobody will say how the message ended: counts it as if it had been accepted. No client waits for that.
    pub async fn count_unended(&mut self) {
        let _under_way = self.under_way.take();
        self.open = false;
        let Admission::Admitted(admitted) = &self.admission else { return };
        let kept = AcceptedRecipients { named: &self.counted, unnamed: 0 };
        let orders = self.engine.administration.orders();
        let limits = self.limits(admitted, &orders, &mut Trace::off());
        let answer = self.engine.ledger.commit_unhurried(self.reservation, &admitted.parties, &limits, kept).await;
        let verdict = self.conclude(answer, &mut Trace::off());
        self.watch_end(&verdict, kept);
        self.decided(verdict, None, None, Some(kept.len()));
    }

    /// The message was accepted as far as everybody before us is concerned: counts it, or refuses it.
    pub async fn end(&mut self, accepted: Accepted<'_>, queue_id: Option<&str>) -> Decision {
        // Open until it is decided: a stop waits for that.
        let _under_way = self.under_way.take();
        self.open = false;
        let told = self.told_at_end(accepted);
        let kept = self.kept(&told);
        let mut is_committed = false;
        let verdict = match &self.admission {
            Admission::Admitted(admitted) if !kept.is_empty() => {
                let (too_large, shadow) = self.admission.judge_size(&self.size);
                let orders = self.engine.administration.orders();
                let mut verdict = match self.refusal_at_end(admitted, &orders).or(too_large) {
                    Some(refusal) => self.refused(refusal),
                    None => {
                        let limits = self.limits(admitted, &orders, &mut Trace::off());
                        let answer =
                            self.engine.ledger.commit(self.reservation, &admitted.parties, &limits, kept).await;
                        is_committed = true;
                        self.conclude(answer, &mut Trace::off())
                    }
                };
                verdict.shadow.extend(shadow);
                verdict
            }
            Admission::Refused { refusal, .. } if !kept.is_empty() && self.may_refuse_unseen(&told) => {
                self.refused(refusal.clone())
            }
            Admission::Exempt(exemption) => self.admission.verdict(Outcome::Exempt(*exemption)),
            _ if self.is_own_mail => Verdict::of(Outcome::Exempt(Exemption::OwnMail)),
            _ => Verdict::of(Outcome::Exempt(Exemption::RecipientDomain)),
        };
        self.watch_end(&verdict, kept);
        let recipients = Some(kept.len() + self.exempt.len() as u64);
        // A commit ends the reservation, however it is answered.
        self.reserved &= !is_committed;
        self.give_back();
        self.decided(verdict, None, queue_id, recipients)
    }

    /// Gives back what was reserved. `why` and the queue ID are for the log.
    pub fn abandon(&mut self, why: &'static str, queue_id: Option<&str>) {
        let _under_way = self.under_way.take();
        if !std::mem::take(&mut self.open) {
            return;
        }
        if let Some(admitted) = self.give_back() {
            let customer = admitted.parties.customer.clone();
            log::abandoned(&self.engine.log, &self.envelope, &customer, self.counted.len(), why, queue_id);
        }
    }

    /// Releases the reservation, if there is one.
    fn give_back(&mut self) -> Option<&Admitted> {
        let Admission::Admitted(admitted) = &self.admission else { return None };
        if !std::mem::take(&mut self.reserved) {
            return None;
        }
        self.engine.ledger.release(self.reservation, &admitted.parties);
        Some(admitted)
    }

    async fn judge(&mut self, recipient: &str, queue_id: Option<&str>, counting: Counting) -> Decision {
        if let Admission::Admitted(admitted) = &self.admission {
            self.engine.ledger.foresee(&admitted.parties, Foreseen::Next);
        }
        let address = match Address::parse(recipient) {
            Ok(address) => address,
            Err(error) => {
                if let Admission::Exempt(exemption) = &self.admission {
                    let verdict = self.admission.verdict(Outcome::Exempt(*exemption));
                    self.exempt.push(self.engine.ledger.recipient_key(recipient));
                    return self.decided(verdict, None, queue_id, None);
                }
                let refusal = Refusal::BadRecipient(error);
                return self.decided(Verdict::of(Outcome::Refuse(Box::new(refusal))), None, queue_id, None);
            }
        };
        let key = self.engine.ledger.recipient_key(address.as_str());
        let verdict = if self.may_be_own_mail() && self.engine.own_mail.is_on_its_way_to(&address) {
            self.is_own_mail = true;
            Verdict::of(Outcome::Exempt(Exemption::OwnMail))
        } else {
            self.verdict(&address, key, counting, &mut Trace::off()).await
        };
        self.watch_recipient(&verdict);
        self.reserved |= verdict.outcome == Outcome::Accept && matches!(counting, Counting::Reserve);
        let known = match &verdict.outcome {
            // Whether it fits could not be told; the end of the message asks again.
            Outcome::Accept | Outcome::Exempt(Exemption::OnFailure) => &mut self.counted,
            Outcome::Exempt(_) => &mut self.exempt,
            Outcome::Refuse(_) => return self.decided(verdict, Some(&address), queue_id, None),
        };
        if known.contains(&key) {
            // Postfix asks at each restriction stage: all there is to say was said the first time.
            return Decision { verdict, reply: None };
        }
        known.push(key);
        if self.under_way.is_none() && matches!(counting, Counting::Reserve) {
            self.under_way = Some(self.engine.open_transactions.enter());
        }
        self.decided(verdict, Some(&address), queue_id, None)
    }

    async fn verdict(&self, address: &Address, key: RecipientKey, counting: Counting, trace: &mut Trace) -> Verdict {
        let Some(facts) = self.envelope.facts() else {
            if let Admission::Exempt(exemption) = &self.admission {
                return self.admission.verdict(Outcome::Exempt(*exemption));
            }
            return self.refused(bad_sender(&self.envelope));
        };
        let repeated = self.counted.contains(&key);
        let recipient = RecipientFacts { recipient: address, accepted_before: self.counted.len() as u64, repeated };
        let (rules, orders) = (self.snapshot.rules(), self.engine.administration.orders());
        let (admitted, shadow) = match self.admission.gate(&facts, &recipient, &rules, &orders, trace) {
            Gate::Verdict(verdict) => return verdict,
            Gate::AskLedger { admitted, shadow } => (admitted, shadow),
        };
        if let Some(refusal) = self.held_back(admitted).or_else(|| self.cannot_rewrite(admitted)) {
            return self.refused(refusal);
        }
        let limits = self.limits(admitted, &orders, trace);
        let answer = self.ask_ledger(admitted, &limits, key, counting).await;
        let mut verdict = self.conclude(answer, trace);
        verdict.shadow.extend(shadow);
        verdict
    }

    /// As they are at this moment.
    fn limits<'a>(&self, admitted: &'a Admitted, orders: &Orders, trace: &mut Trace) -> Cow<'a, CustomerLimits> {
        admitted.limits(orders, || self.engine.wall_time(), trace)
    }

    /// What stands against a message at its end, although its recipients were let through or never seen.
    fn refusal_at_end(&self, admitted: &Admitted, orders: &Orders) -> Option<Refusal> {
        let suspended = self.admission.suspended(&self.envelope.facts()?, orders, &mut Trace::off());
        suspended.or_else(|| self.cannot_rewrite(admitted).filter(|_| !self.has_recipients()))
    }

    /// The refusal, if the sender has to be rewritten and that cannot be done here.
    fn cannot_rewrite(&self, admitted: &Admitted) -> Option<Refusal> {
        let reject = match self.rewriting {
            Rewriting::Impossible { reject } => reject,
            Rewriting::Waived if admitted.must_be_rewritten => false,
            Rewriting::Waived | Rewriting::Possible => return None,
        };
        admitted.rewrite_sender_to.as_ref()?;
        Some(Refusal::CannotRewrite { sender: self.envelope.sender.clone().ok()?, reject })
    }

    fn refused(&self, refusal: Refusal) -> Verdict {
        self.admission.verdict(Outcome::Refuse(Box::new(refusal)))
    }

    async fn ask_ledger(
        &self,
        admitted: &Admitted,
        limits: &CustomerLimits,
        key: RecipientKey,
        counting: Counting,
    ) -> Result<LedgerAnswer, LedgerError> {
        let (ledger, parties) = (&self.engine.ledger, &admitted.parties);
        match counting {
            Counting::Reserve => ledger.reserve(self.reservation, parties, limits, key).await,
            Counting::Elsewhere(theirs) => {
                let mut recipients = self.counted.clone();
                recipients.push(key);
                ledger.look(theirs, parties, limits, &recipients).await
            }
        }
    }

    fn conclude(&self, answer: Result<LedgerAnswer, LedgerError>, trace: &mut Trace) -> Verdict {
        let error = match answer {
            Ok(answer) => {
                self.take_notice(&answer);
                let ledger = &self.engine.ledger;
                return conclude(&self.admission, &answer, |moment| ledger.wall(moment), trace);
            }
            Err(error) => error,
        };
        match self.snapshot.settings.relay.on_failure {
            OnFailure::Accept => self.admission.verdict(Outcome::Exempt(Exemption::OnFailure)),
            OnFailure::Defer => self.refused(Refusal::CannotDecide { why: error.to_string().into() }),
        }
    }

    /// What the MTA tells of the recipients at the end.
    fn told_at_end(&self, accepted: Accepted<'_>) -> Told {
        let Accepted::Count { recipients, lone } = accepted else { return Told::All };
        match lone.map(Address::parse) {
            Some(Ok(lone)) if is_exempt_recipient(&lone, &self.snapshot.rules()) => Told::LoneExempt,
            Some(Ok(lone)) => Told::Lone([self.engine.ledger.recipient_key(lone.as_str())]),
            _ => Told::Number(recipients),
        }
    }

    /// The recipients that the MTA accepted, as far as they are known and count.
    fn kept<'a>(&'a self, told: &'a Told) -> AcceptedRecipients<'a> {
        let number = match told {
            Told::All => self.counted.len(),
            Told::LoneExempt => 0,
            Told::Lone(lone) if !self.has_recipients() || self.counted.contains(&lone[0]) => {
                return AcceptedRecipients { named: lone, unnamed: 0 };
            }
            Told::Lone(_) => 1,
            Told::Number(number) if !self.has_recipients() => {
                return AcceptedRecipients { named: &[], unnamed: u32::try_from(*number).unwrap_or(u32::MAX) };
            }
            Told::Number(number) => usize::try_from(*number).unwrap_or(usize::MAX),
        };
        // The MTA counts a recipient that was named twice as two, so more than were let through are never meant.
        AcceptedRecipients { named: &self.counted[..number.min(self.counted.len())], unnamed: 0 }
    }

    /// Whether a message whose recipients were never seen here can be judged by its sender alone.
    fn may_refuse_unseen(&self, told: &Told) -> bool {
        let may_be_exempt =
            matches!(told, Told::Number(_)) && !self.snapshot.settings.relay.exempt_recipient_domains.is_empty();
        !self.has_recipients() && !may_be_exempt
    }

    /// Counts and logs a verdict, and turns it into what the client is told. `recipients` at the end of a message only.
    fn decided(
        &self,
        verdict: Verdict,
        recipient: Option<&Address>,
        queue_id: Option<&str>,
        recipients: Option<u64>,
    ) -> Decision {
        self.engine.tally.count(&verdict, recipients.is_some());
        if recipients.is_none() && verdict.passes() && verdict.shadow.is_empty() {
            return Decision { verdict, reply: None };
        }
        let reference = Reference::generate();
        let (front_end, envelope) = (self.front_end, &self.envelope);
        let told = log::Told { front_end, envelope, verdict: &verdict, recipient, queue_id, recipients, reference };
        log::decided(&self.engine, &self.snapshot, &told);
        let reply = verdict.refusal().map(|refusal| refusal.reply(reference));
        Decision { verdict, reply }
    }
}

/// What the MTA tells of the recipients at the end of a message.
enum Told {
    All,
    Number(u64),
    Lone([RecipientKey; 1]),
    LoneExempt,
}

/// Who counts this recipient.
#[derive(Clone, Copy)]
enum Counting {
    Reserve,
    Elsewhere(Option<ReservationId>),
}

/// A vanished client, a dropped connection, a panic: all the same.
impl Drop for Transaction {
    fn drop(&mut self) {
        self.abandon("connection-lost", None);
    }
}

pub(super) fn admission_of(envelope: &Envelope, snapshot: &Snapshot, trace: &mut Trace) -> Admission {
    let rules = snapshot.rules();
    match envelope.facts() {
        Some(facts) => admit(&facts, &rules, trace),
        None if is_exempt_client(envelope.client, &envelope.login, &rules) => Admission::Exempt(Exemption::Client),
        None => Admission::Refused { refusal: bad_sender(envelope), customer: None, identified_by: None, user: None },
    }
}

fn bad_sender(envelope: &Envelope) -> Refusal {
    let error = envelope.sender.as_ref().err().copied().unwrap_or(crate::envelope::AddressError::Empty);
    Refusal::BadSender(error)
}
