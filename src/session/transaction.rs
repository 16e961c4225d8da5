//! One transaction, from MAIL to its end. Whatever way it ends without acceptance, what it had reserved is given back.

use super::engine::{Engine, Snapshot};
use super::envelope::Envelope;
use super::log::{self, Told};
use super::open_count::UnderWay;
use crate::config::OnFailure;
use crate::envelope::{Address, Reply};
use crate::ledger::{Answer, Kept, LedgerError, RecipientKey, ReservationId};
use crate::policy::{
    Admission, Admitted, Exemption, Gate, Outcome, RecipientFacts, Refusal, Trace, Verdict, admit, conclude,
    is_exempt_client,
};
use crate::report::Reference;
use std::sync::Arc;

/// Through which protocol the MTA asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEnd {
    Milter,
    Policy,
}

impl FrontEnd {
    pub const fn key(self) -> &'static str {
        match self {
            FrontEnd::Milter => "milter",
            FrontEnd::Policy => "policy",
        }
    }
}

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
    rewriting: Rewriting,
    /// Somebody else counts this message: nothing is reserved here.
    elsewhere: bool,
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
    Impossible { reject: bool },
}

impl Transaction {
    pub fn begin(engine: &Arc<Engine>, front_end: FrontEnd, envelope: Envelope, rewriting: Rewriting) -> Transaction {
        let snapshot = engine.snapshot();
        let admission = admission_of(&envelope, &snapshot, &mut Trace::off());
        Transaction {
            reservation: engine.ledger.new_reservation(),
            engine: engine.clone(),
            snapshot,
            front_end,
            envelope,
            admission,
            counted: Vec::new(),
            exempt: Vec::new(),
            rewriting,
            elsewhere: false,
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
        self.open && self.counts() && !self.elsewhere
    }

    /// Whether accepted mail needs another envelope sender.
    pub fn rewrite_sender_to(&self) -> Option<&Address> {
        match &self.admission {
            Admission::Admitted(admitted) if self.counts() => admitted.rewrite_sender_to.as_ref(),
            _ => None,
        }
    }

    pub fn envelope(&self) -> &Envelope {
        &self.envelope
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
        self.elsewhere = true;
        self.judge(recipient, queue_id, Counting::Elsewhere(theirs)).await
    }

    /// Nobody will say how the message ended: counts it as if it had been accepted. No client waits for that.
    pub async fn count_unended(mut self) {
        let _under_way = self.under_way.take();
        self.open = false;
        let Admission::Admitted(admitted) = &self.admission else { return };
        let (limits, kept) = (&admitted.customer.limits, Kept { named: &self.counted, unnamed: 0 });
        let answer = self.engine.ledger.commit_unhurried(self.reservation, &admitted.parties, limits, kept).await;
        let verdict = self.conclude(answer, &mut Trace::off());
        self.decided(verdict, None, None, Some(kept.len()));
    }

    /// The message was accepted as far as everybody before us is concerned: counts it, or refuses it.
    pub async fn end(&mut self, accepted: Accepted<'_>, queue_id: Option<&str>) -> Decision {
        // Open until it is decided: a stop waits for that.
        let _under_way = self.under_way.take();
        self.open = false;
        let mut lone_key = None;
        if let Accepted::Count { lone: Some(lone), .. } = accepted {
            lone_key = Address::parse(lone).ok().map(|address| self.engine.ledger.recipient_key(address.as_str()));
        }
        let kept = self.kept(accepted, lone_key.as_slice());
        let verdict = match &self.admission {
            Admission::Admitted(admitted) if !kept.is_empty() => {
                let limits = &admitted.customer.limits;
                let answer = self.engine.ledger.commit(self.reservation, &admitted.parties, limits, kept).await;
                self.conclude(answer, &mut Trace::off())
            }
            Admission::Refused { refusal, .. } if !kept.is_empty() && self.may_refuse_unseen() => {
                self.admission.verdict(Outcome::Refuse(Box::new(refusal.clone())))
            }
            Admission::Exempt(exemption) => self.admission.verdict(Outcome::Exempt(*exemption)),
            _ => Verdict::of(Outcome::Exempt(Exemption::RecipientDomain)),
        };
        let recipients = Some(kept.len() + self.exempt.len() as u64);
        self.decided(verdict, None, queue_id, recipients)
    }

    /// Gives back what was reserved. `why` and the queue ID are for the log.
    pub fn abandon(&mut self, why: &'static str, queue_id: Option<&str>) {
        let _under_way = self.under_way.take();
        if !std::mem::take(&mut self.open) {
            return;
        }
        if let Admission::Admitted(admitted) = &self.admission
            && self.counts()
            && !self.elsewhere
        {
            self.engine.ledger.release(self.reservation, &admitted.parties);
            let customer = &admitted.parties.customer;
            log::abandoned(&self.engine.log, &self.envelope, customer, self.counted.len(), why, queue_id);
        }
    }

    async fn judge(&mut self, recipient: &str, queue_id: Option<&str>, counting: Counting) -> Decision {
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
        let verdict = self.verdict(&address, key, counting, &mut Trace::off()).await;
        match &verdict.outcome {
            Outcome::Accept if !self.counted.contains(&key) => self.counted.push(key),
            Outcome::Exempt(_) if !self.exempt.contains(&key) => self.exempt.push(key),
            _ => {}
        }
        if self.under_way.is_none() && self.has_recipients() && !self.elsewhere {
            self.under_way = Some(self.engine.open_transactions.enter());
        }
        self.decided(verdict, Some(&address), queue_id, None)
    }

    async fn verdict(&self, address: &Address, key: RecipientKey, counting: Counting, trace: &mut Trace) -> Verdict {
        let Some(facts) = self.envelope.facts() else {
            if let Admission::Exempt(exemption) = &self.admission {
                return self.admission.verdict(Outcome::Exempt(*exemption));
            }
            return self.admission.verdict(Outcome::Refuse(Box::new(bad_sender(&self.envelope))));
        };
        let repeated = self.counted.contains(&key);
        let recipient = RecipientFacts { recipient: address, accepted_before: self.counted.len() as u64, repeated };
        let (admitted, shadow) = match self.admission.gate(&facts, &recipient, &self.snapshot.rules(), trace) {
            Gate::Verdict(verdict) => return verdict,
            Gate::AskLedger { admitted, shadow } => (admitted, shadow),
        };
        if let Rewriting::Impossible { reject } = self.rewriting
            && admitted.rewrite_sender_to.is_some()
        {
            let refusal = Refusal::CannotRewrite { sender: facts.sender.clone(), reject };
            return self.admission.verdict(Outcome::Refuse(Box::new(refusal)));
        }
        let answer = self.ask_ledger(admitted, key, counting).await;
        let mut verdict = self.conclude(answer, trace);
        verdict.shadow.extend(shadow);
        verdict
    }

    async fn ask_ledger(
        &self,
        admitted: &Admitted,
        key: RecipientKey,
        counting: Counting,
    ) -> Result<Answer, LedgerError> {
        let (ledger, parties, limits) = (&self.engine.ledger, &admitted.parties, &admitted.customer.limits);
        match counting {
            Counting::Reserve => ledger.reserve(self.reservation, parties, limits, key).await,
            Counting::Elsewhere(theirs) => {
                let mut recipients = self.counted.clone();
                recipients.push(key);
                ledger.look(theirs, parties, limits, &recipients).await
            }
        }
    }

    fn conclude(&self, answer: Result<Answer, LedgerError>, trace: &mut Trace) -> Verdict {
        let error = match answer {
            Ok(answer) => {
                let ledger = &self.engine.ledger;
                return conclude(&self.admission, &answer, |moment| ledger.wall(moment), trace);
            }
            Err(error) => error,
        };
        match self.snapshot.settings.relay.on_failure {
            OnFailure::Accept => self.admission.verdict(Outcome::Exempt(Exemption::OnFailure)),
            OnFailure::Defer => {
                let refusal = Refusal::CannotDecide { why: error.to_string().into() };
                self.admission.verdict(Outcome::Refuse(Box::new(refusal)))
            }
        }
    }

    /// The recipients that the MTA accepted, as far as they are known.
    fn kept<'a>(&'a self, accepted: Accepted<'_>, lone: &'a [RecipientKey]) -> Kept<'a> {
        let Accepted::Count { recipients, .. } = accepted else { return Kept { named: &self.counted, unnamed: 0 } };
        if !self.has_recipients() {
            let unnamed = recipients.saturating_sub(lone.len() as u64);
            return Kept { named: lone, unnamed: u32::try_from(unnamed).unwrap_or(u32::MAX) };
        }
        // The MTA counts a recipient that was named twice as two, so more than were let through are never meant.
        let countable = recipients.saturating_sub(self.exempt.len() as u64);
        let named = self.counted.len().min(usize::try_from(countable).unwrap_or(usize::MAX));
        Kept { named: &self.counted[..named], unnamed: 0 }
    }

    /// Whether a message whose recipients were never seen here can be judged by its sender alone.
    fn may_refuse_unseen(&self) -> bool {
        !self.has_recipients() && self.snapshot.settings.relay.exempt_recipient_domains.is_empty()
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
        let told = Told { front_end, envelope, verdict: &verdict, recipient, queue_id, recipients, reference };
        log::decided(&self.engine.log, &told);
        let reply = verdict.refusal().map(|refusal| refusal.reply(reference));
        Decision { verdict, reply }
    }
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

fn admission_of(envelope: &Envelope, snapshot: &Snapshot, trace: &mut Trace) -> Admission {
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
