//! The order of the rules, for MAIL, for each recipient and for the end of a message. It stands nowhere else.
//!
//! An [`Evaluation`] is a state machine. Each stage is either decided at once, or it needs the ledger: then it returns what is
//! [pending](Stage::AskLedger), [`Evaluation::question`] says what to ask, and the ledger's answer decides. Whoever drives it (the
//! transactions of both protocols, `explain`) chooses nothing: it supplies the facts and carries questions to the ledger.
//!
//! ```text
//! MAIL          mail.rs        exempt client, identification, setting, rewriting, archive; declared size
//! RCPT          recipient.rs   suspended client, exemptions, what MAIL found, suspension, recipients, size, abuse, rewriting, ledger
//! end of data   end.rs         which recipients count, suspended client, suspension, abuse, rewriting, size, ledger
//! ```

mod elsewhere;
mod end;
mod ledger;
mod mail;
mod recipient;

pub use end::{EndDecision, PendingEnd, ReportedRecipients};
pub use ledger::{CountedBy, LedgerQuestion, LedgerRequest};
pub use mail::{Admission, Admitted};
pub use recipient::{PendingRecipient, RecipientDecision};

use super::facts::Context;
use super::reply::Refusal;
use super::rules::{abuse, suspension};
use super::trace::Trace;
use super::verdict::Verdict;
use crate::directory::Subject;
use crate::ledger::RecipientKey;
use std::sync::Arc;

/// The evaluation of one transaction: what the rules said at MAIL, and the recipients that were accepted since.
#[derive(Clone, Debug)]
pub struct Evaluation {
    admission: Admission,
    /// Accepted recipients that count, each once.
    counted: Vec<RecipientKey>,
    /// Accepted recipients that do not count, each once.
    uncounted: Vec<RecipientKey>,
    /// A letter of relaykeeper's own to an administrator.
    is_own_mail: bool,
    /// sendmail(1) hands it in.
    is_local: bool,
    /// Of mail from sendmail(1): why a recipient cannot have it, which refuses the whole message at its end.
    refused_local: Option<Refusal>,
}

/// How far a stage has come.
#[derive(Debug)]
pub enum Stage<Decided, Pending> {
    Decided(Decided),
    /// The rules pass it; whether it fits is for the ledger to say.
    AskLedger(Pending),
}

impl Evaluation {
    pub fn admitted(&self) -> Option<&Arc<Admitted>> {
        match &self.admission {
            Admission::Admitted(admitted) => Some(admitted),
            _ => None,
        }
    }

    /// Accepted recipients that count, each once.
    pub fn counted(&self) -> &[RecipientKey] {
        &self.counted
    }

    /// Accepted recipients that do not count, each once.
    pub fn uncounted(&self) -> &[RecipientKey] {
        &self.uncounted
    }

    /// Whether any recipient was accepted.
    pub fn has_recipients(&self) -> bool {
        !self.counted.is_empty() || !self.uncounted.is_empty()
    }

    /// Of mail from sendmail(1): why a recipient cannot have it.
    pub fn refused_local(&self) -> Option<&Refusal> {
        self.refused_local.as_ref()
    }

    /// As it was after these recipients, to go through a decision again.
    pub fn after_recipients(
        self,
        counted: Vec<RecipientKey>,
        uncounted: Vec<RecipientKey>,
        refused_local: Option<Refusal>,
    ) -> Evaluation {
        Evaluation { counted, uncounted, refused_local, ..self }
    }

    /// The verdict, if the client is suspended. `exempt_clients` aside, that comes before anything else.
    fn client_suspended(&self, cx: &Context, trace: &mut Trace) -> Option<Verdict> {
        if let Admission::Exempt(_) = self.admission {
            return None;
        }
        suspension::suspended_client(cx, trace).map(|refusal| self.refused(refusal, cx))
    }

    /// Whom a refusal counts against as a sign of abuse; `None` if it is not a sign.
    pub fn burdened_by(&self, refusal: &Refusal) -> Option<Subject> {
        let (customer, login_user) = self.admission.identified()?;
        abuse::burdened_by(refusal, customer, login_user)
    }

    /// Whether it matters how large the message turns out to be.
    pub fn limits_size(&self) -> bool {
        !self.counted.is_empty() && self.admitted().is_some_and(|admitted| admitted.customer.limits.limit_sizes())
    }
}
