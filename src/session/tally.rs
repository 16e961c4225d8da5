//! How many decisions of each kind, since the start.

use crate::policy::{Exemption, Outcome, Refusal, Verdict};
use crate::report::Logger;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters for `status`.
#[derive(Debug, Default)]
pub struct Tally {
    recipients: AtomicU64,
    messages: AtomicU64,
    exempt: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    would_have_refused: Mutex<BTreeMap<&'static str, u64>>,
    warned_no_end: AtomicBool,
    warned_listed_twice: AtomicBool,
}

impl Tally {
    /// Counts a verdict; `at_end`: on a whole message.
    pub fn count(&self, verdict: &Verdict, at_end: bool) {
        // What a recipient was let through in spite of is in shadow at the end of its message, too; sizes are known then.
        self.count_shadow(verdict, |refusal| !at_end || matches!(refusal, Refusal::Size(_)));
        let counter = match &verdict.outcome {
            Outcome::Refuse(_) => return self.count_refusal(verdict),
            Outcome::Exempt(Exemption::AlreadyCounted) => return,
            Outcome::Exempt(_) => &self.exempt,
            Outcome::Accept if at_end => &self.messages,
            Outcome::Accept => &self.recipients,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a verdict on a whole SMTP session, if it refuses or shadow alone lets it pass.
    pub fn count_session(&self, verdict: &Verdict) {
        self.count_shadow(verdict, |_| true);
        self.count_refusal(verdict);
    }

    /// Something that is refused anyway is none that shadow let through.
    fn count_shadow(&self, verdict: &Verdict, is_new: impl Fn(&Refusal) -> bool) {
        if !verdict.passes() || verdict.shadow.is_empty() {
            return;
        }
        let mut counts = self.would_have_refused.lock();
        for refusal in verdict.shadow.iter().filter(|refusal| is_new(refusal)) {
            *counts.entry(refusal.key()).or_default() += 1;
        }
    }

    fn count_refusal(&self, verdict: &Verdict) {
        if let Some(refusal) = verdict.refusal() {
            *self.refusals.lock().entry(refusal.key()).or_default() += 1;
        }
    }

    pub fn recipients(&self) -> u64 {
        self.recipients.load(Ordering::Relaxed)
    }

    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub fn exempt(&self) -> u64 {
        self.exempt.load(Ordering::Relaxed)
    }

    /// By reason.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.lock().clone()
    }

    /// What limits and settings in shadow would have refused, by reason.
    pub fn would_have_refused(&self) -> BTreeMap<&'static str, u64> {
        self.would_have_refused.lock().clone()
    }

    /// Says once that an MTA asks twice about each message.
    pub fn warn_listed_twice(&self, log: &Logger) {
        if !self.warned_listed_twice.swap(true, Ordering::Relaxed) {
            log.warn(
                "an MTA asks the milter twice about one message, which counts once all the same: relaykeeper is listed \
                 twice among its milters; list it once, last, in smtpd_milters (Postfix) or by one INPUT_MAIL_FILTER (Sendmail)",
            );
        }
    }

    /// Says once that counts rest on guesses, because no MTA asks at the end of a message.
    pub fn warn_no_end_of_message(&self, log: &Logger) {
        if !self.warned_no_end.swap(true, Ordering::Relaxed) {
            log.warn(
                "no END-OF-MESSAGE request has come yet: messages count although nobody says whether they were accepted; \
                 add check_policy_service to smtpd_end_of_data_restrictions",
            );
        }
    }
}
