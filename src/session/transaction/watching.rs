//! What a transaction reports to the observer: limits that are near or exceeded, signs of abuse.

use super::Transaction;
use crate::abuse::{AcceptedMessage, Suspect, is_marked};
use crate::config::AbuseSettings;
use crate::directory::Customer;
use crate::ledger::{AcceptedRecipients, LedgerAnswer};
use crate::policy::{Outcome, Verdict};
use std::sync::Arc;

impl Transaction {
    /// A header of the message, before its end: it may be a filter's verdict.
    pub fn hear_header(&mut self, name: &[u8], value: &[u8]) {
        let Some(abuse) = &self.snapshot.settings.abuse else { return };
        self.is_marked |= is_marked(&abuse.verdict_headers, name, value);
        if abuse.verdict_headers.secret().is_some_and(|secret| secret.as_bytes().eq_ignore_ascii_case(name)) {
            self.secret_headers = self.secret_headers.saturating_add(1);
        }
    }

    /// The header that nobody outside may learn of, and how many of it the message has: they have to be taken out.
    pub fn secret_headers(&self) -> Option<(&str, u16)> {
        let name = self.abuse()?.verdict_headers.secret()?;
        (self.secret_headers > 0).then_some((name, self.secret_headers))
    }

    /// Limits that are near or exceeded.
    pub(super) fn take_notice(&self, answer: &LedgerAnswer) {
        let Some(admitted) = self.evaluation.admitted() else { return };
        let Some(observer) = self.engine.observer() else { return };
        let (customer, parties) = (&admitted.customer, &admitted.parties);
        if !answer.near.is_empty() {
            observer.limits_near(customer, parties, &answer.near, answer.at);
        }
        if !answer.over.is_empty() {
            observer.limits_exceeded(customer, parties, &answer.over, answer.at);
        }
    }

    /// A message was accepted, or not.
    pub(super) fn watch_end(&self, verdict: &Verdict, kept: AcceptedRecipients<'_>) {
        let (Some(abuse), Some(admitted)) = (self.abuse(), self.evaluation.admitted()) else { return };
        if verdict.outcome != Outcome::Accept {
            return;
        }
        let (parties, client) = (&admitted.parties, self.envelope.client);
        let message = AcceptedMessage { parties, client, is_marked: self.is_marked };
        let recipients = kept.named.iter().map(|key| key.0);
        for suspect in self.engine.watch.accepted(&message, recipients, abuse, self.engine.ledger.now()) {
            self.report_abuse(&admitted.customer, suspect, abuse);
        }
    }

    /// A recipient was decided.
    pub(super) fn watch_recipient(&self, verdict: &Verdict) {
        let (Some(abuse), Some(refusal)) = (self.abuse(), verdict.refusal()) else { return };
        let Some(burdened) = self.evaluation.burdened_by(refusal) else { return };
        if let Some(suspect) = self.engine.watch.refused(burdened, abuse, self.engine.ledger.now())
            && let Some(customer) = self.snapshot.directory.customer(&suspect.subject.customer)
        {
            self.report_abuse(customer, suspect, abuse);
        }
    }

    fn report_abuse(&self, customer: &Arc<Customer>, suspect: Suspect, abuse: &AbuseSettings) {
        if let Some(observer) = self.engine.observer() {
            observer.signs_of_abuse(customer, suspect, abuse, self.engine.ledger.now());
        }
    }

    fn abuse(&self) -> Option<&AbuseSettings> {
        self.snapshot.settings.abuse.as_ref()
    }
}
