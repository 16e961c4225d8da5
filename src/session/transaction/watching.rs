//! What of a transaction people may have to be told: limits that are nearly used up, signs of abuse. And our own mail.

use super::Transaction;
use crate::abuse::{Found, Message, OnAbuse, Rules, in_words};
use crate::envelope::Sender;
use crate::ledger::{AcceptedRecipients, LedgerAnswer};
use crate::policy::{Admission, Admitted, Outcome, Refusal, Verdict};
use crate::session::Envelope;

impl Transaction {
    /// A header of the message, before its end: it may be a filter's verdict.
    pub fn hear_header(&mut self, name: &[u8], value: &[u8]) {
        let Some(abuse) = &self.snapshot.settings.abuse else { return };
        self.is_marked |= abuse.marks.say(name, value);
        if abuse.marks.secret().is_some_and(|secret| secret.as_bytes().eq_ignore_ascii_case(name)) {
            self.secret_headers = self.secret_headers.saturating_add(1);
        }
    }

    /// The header that nobody outside may learn of, and how many of it the message has: they have to be taken out.
    pub fn secret_headers(&self) -> Option<(&str, u16)> {
        let name = self.abuse()?.marks.secret()?;
        (self.secret_headers > 0).then_some((name, self.secret_headers))
    }

    /// Limits that are used up, or nearly.
    pub(super) fn take_notice(&self, answer: &LedgerAnswer) {
        let Admission::Admitted(admitted) = &self.admission else { return };
        let (notices, customer, parties) = (&self.engine.notices, &admitted.customer, &admitted.parties);
        if !answer.near.is_empty() {
            notices.after_commit(customer, parties, &answer.near, answer.at);
        }
        if !answer.over.is_empty() {
            notices.after_refusal(customer, parties, &answer.over, answer.at);
        }
    }

    /// A message was accepted, or not.
    pub(super) fn watch_end(&self, verdict: &Verdict, kept: AcceptedRecipients<'_>) {
        let (Some(abuse), Admission::Admitted(admitted)) = (self.abuse(), &self.admission) else { return };
        if verdict.outcome != Outcome::Accept {
            return;
        }
        let message = Message {
            parties: &admitted.parties,
            client: self.envelope.client,
            recipients: kept.named,
            is_marked: self.is_marked,
        };
        for found in self.engine.watch.accepted(&message, abuse, self.engine.ledger.now()) {
            self.tell_of_abuse(admitted, found, abuse);
        }
    }

    /// A recipient was decided.
    pub(super) fn watch_recipient(&self, verdict: &Verdict) {
        let (Some(abuse), Admission::Admitted(admitted)) = (self.abuse(), &self.admission) else { return };
        let is_sign = verdict.refusal().is_some_and(|refusal| {
            // A client that comes again and again while it is held back must not keep itself held back.
            !matches!(refusal, Refusal::HeldBack { .. } | Refusal::Suspended { .. }) && !refusal.is_failure()
        });
        if is_sign && let Some(found) = self.engine.watch.refused(&admitted.parties, abuse, self.engine.ledger.now()) {
            self.tell_of_abuse(admitted, found, abuse);
        }
    }

    fn tell_of_abuse(&self, admitted: &Admitted, found: Found, abuse: &Rules) {
        self.engine.notices.abuse(&admitted.customer, found, abuse, self.engine.ledger.now());
    }

    /// The refusal, if the user has signs of abuse and is deferred because of them.
    pub(super) fn held_back(&self, admitted: &Admitted) -> Option<Refusal> {
        let abuse = self.abuse().filter(|abuse| abuse.on_abuse == OnAbuse::Defer)?;
        let signs = self.engine.watch.signs_of(&admitted.parties, abuse, self.engine.ledger.now());
        let user = admitted.parties.user.clone().filter(|_| !signs.is_empty())?;
        Some(Refusal::HeldBack { user, why: in_words(&signs, abuse.window).into() })
    }

    /// A letter of ours that the MTA asks about comes from this host with the empty sender.
    pub(super) fn may_be_own_mail(&self) -> bool {
        let Envelope { client, login, sender, .. } = &self.envelope;
        *sender == Ok(Sender::Empty) && login.is_empty() && client.is_some_and(|client| client.is_loopback())
    }

    fn abuse(&self) -> Option<&Rules> {
        self.snapshot.settings.abuse.as_ref()
    }
}
