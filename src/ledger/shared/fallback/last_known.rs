//! The usage that the servers last reported.

use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::LedgerAnswer;
use crate::ledger::api::limits_of;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::Duration;

/// How many customers, users and logins are remembered: those that sent most recently. Some 30 MB at most.
const MAX_SUBJECTS: NonZeroUsize = NonZeroUsize::new(200_000).unwrap();

/// By how much an older response may arrive after a newer one, by the server's clock.
const MAX_OVERTAKING: Duration = Duration::from_secs(30);

/// How much of a subject's two limits was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ledger::shared) struct Counts {
    pub used: [u64; 2],
    /// When, on the daemon's own time line. It counts for a whole window from then on: when it was counted is
    /// unknown.
    pub at: [Moment; 2],
    /// The same by the server's clock: responses may arrive in another order.
    reported: [Moment; 2],
    /// Not on disk yet.
    is_new: bool,
}

impl Counts {
    pub fn stored(used: [u64; 2], at: [Moment; 2]) -> Counts {
        Counts { used, at, ..Counts::default() }
    }
}

#[derive(Debug)]
pub(in crate::ledger::shared) struct LastKnown {
    subjects: LruCache<Subject, Counts>,
    /// Those that are not on disk yet.
    new: Vec<Subject>,
}

/// The usage that counts for a transaction in addition to what was counted locally.
#[derive(Clone, Debug, Default)]
pub(in crate::ledger::shared) struct Baseline {
    used: [u64; LimitName::COUNT],
    ends: [Moment; LimitName::COUNT],
}

impl Default for LastKnown {
    fn default() -> Self {
        LastKnown { subjects: LruCache::new(MAX_SUBJECTS), new: Vec::new() }
    }
}

impl LastKnown {
    /// As it was saved.
    pub fn load(&mut self, subject: Subject, counts: Counts) {
        self.subjects.put(subject, counts);
    }

    /// A server reported, at a time of its own clock, how much of a limit is used.
    pub fn note(&mut self, subject: &Subject, limit: LimitName, used: u64, reported: Moment, now: Moment) {
        let Some(place) = limits_of(subject.kind).iter().position(|&other| other == limit) else { return };
        self.change(subject, |counts| {
            let before = counts.reported[place];
            // Responses overtake each other by seconds; by more, the server's clock was set back.
            let is_later = (reported, used) >= (before, counts.used[place]) || before.since(reported) > MAX_OVERTAKING;
            if is_later {
                (counts.used[place], counts.at[place], counts.reported[place]) = (used, now, reported);
            }
            is_later
        });
    }

    /// What was counted locally for a subject is merged: at least that much is used.
    pub fn add(&mut self, subject: &Subject, used: [u64; 2], now: Moment) -> Counts {
        self.change(subject, |counts| {
            for (place, limit) in limits_of(subject.kind).iter().enumerate() {
                counts.used[place] = used[place] + left(counts, place, *limit, now);
                (counts.at[place], counts.reported[place]) = (now, Moment(0));
            }
            true
        });
        self.subjects.peek(subject).copied().unwrap_or_default()
    }

    /// An administrator reset it.
    pub fn forget(&mut self, subject: &Subject) {
        self.change(subject, |counts| {
            counts.used = [0; 2];
            true
        });
    }

    /// Those that changed since the last call.
    pub fn take_new(&mut self) -> Vec<(Subject, Counts)> {
        let new = std::mem::take(&mut self.new);
        let with_counts = |subject: Subject| {
            let counts = self.subjects.peek_mut(&subject)?;
            counts.is_new = false;
            Some((subject, *counts))
        };
        new.into_iter().filter_map(with_counts).collect()
    }

    pub fn baseline(&mut self, parties: &Parties, now: Moment) -> Baseline {
        let mut baseline = Baseline::default();
        let customer =
            Subject { kind: SubjectKind::Customer, customer: parties.customer.clone(), name: parties.customer.clone() };
        let of_sender = |kind, name: &Option<std::sync::Arc<str>>| {
            name.as_ref().map(|name| Subject { kind, customer: parties.customer.clone(), name: name.clone() })
        };
        let user = of_sender(SubjectKind::User, &parties.user);
        let login = of_sender(SubjectKind::Login, &parties.login);
        for subject in [Some(customer), user, login].into_iter().flatten() {
            self.add_to(&mut baseline, &subject, now);
        }
        baseline
    }

    pub fn baseline_of(&mut self, subject: &Subject, now: Moment) -> Baseline {
        let mut baseline = Baseline::default();
        self.add_to(&mut baseline, subject, now);
        baseline
    }

    fn add_to(&mut self, baseline: &mut Baseline, subject: &Subject, now: Moment) {
        let Some(counts) = self.subjects.get(subject) else { return };
        for (place, &limit) in limits_of(subject.kind).iter().enumerate() {
            baseline.used[limit as usize] = left(counts, place, limit, now);
            baseline.ends[limit as usize] = end(counts, place, limit);
        }
    }

    fn change(&mut self, subject: &Subject, change: impl FnOnce(&mut Counts) -> bool) {
        if self.subjects.get(subject).is_none() {
            self.subjects.put(subject.clone(), Counts::default());
        }
        if let Some(counts) = self.subjects.get_mut(subject)
            && change(counts)
            && !std::mem::replace(&mut counts.is_new, true)
        {
            self.new.push(subject.clone());
        }
    }
}

/// How much of it is still in the window, as far as is known.
fn left(counts: &Counts, place: usize, limit: LimitName, now: Moment) -> u64 {
    if now < end(counts, place, limit) { counts.used[place] } else { 0 }
}

fn end(counts: &Counts, place: usize, limit: LimitName) -> Moment {
    counts.at[place].plus(Duration::from_secs(limit.window().seconds().into()))
}

impl Baseline {
    /// What the limits leave above it.
    pub fn lower(&self, limits: &CustomerLimits) -> CustomerLimits {
        limits.lowered(|limit| self.used[limit as usize])
    }

    pub fn used(&self, limit: LimitName) -> u64 {
        self.used[limit as usize]
    }

    pub fn ends(&self, limit: LimitName) -> Moment {
        self.ends[limit as usize]
    }

    /// Turns an answer to the lowered limits into one to the limits themselves.
    pub fn raise(&self, answer: &mut LedgerAnswer, limits: &CustomerLimits) {
        for standing in answer.over.iter_mut().chain(&mut answer.shadow_over) {
            standing.used += self.used(standing.limit);
            standing.max = limits.counted(standing.limit).max.unwrap_or(u64::MAX);
            if standing.fits_at.is_none() && !standing.never_fits() {
                standing.fits_at = Some(self.ends(standing.limit));
            }
        }
        for near in &mut answer.near {
            near.taken += self.used(near.limit);
            near.max = limits.counted(near.limit).max.unwrap_or(u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Limit;

    const NOW: Moment = Moment::from_seconds(1_800_000_000);

    fn acme() -> Subject {
        Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() }
    }

    #[test]
    fn reported_usage_counts_for_its_window_and_the_latest_wins() {
        let mut known = LastKnown::default();
        known.note(&acme(), LimitName::CustomerPeak, 7, Moment(20), NOW);
        known.note(&acme(), LimitName::CustomerPeak, 6, Moment(10), NOW);
        known.note(&acme(), LimitName::CustomerDay, 9, Moment(20), NOW);
        let parties = Parties { customer: "acme".into(), user: None, login: None };
        let used = |known: &mut LastKnown, seconds| {
            let baseline = known.baseline(&parties, NOW.plus(Duration::from_secs(seconds)));
            [LimitName::CustomerPeak, LimitName::CustomerDay, LimitName::UserMessages].map(|limit| baseline.used(limit))
        };
        assert_eq!(used(&mut known, 599), [7, 9, 0]);
        assert_eq!(used(&mut known, 600), [0, 9, 0]);
        known.add(&acme(), [5, 5], NOW.plus(Duration::from_secs(600)));
        assert_eq!(used(&mut known, 601), [5, 14, 0]);
        known.note(&acme(), LimitName::CustomerDay, 12, Moment(5), NOW.plus(Duration::from_secs(601)));
        assert_eq!(used(&mut known, 602), [5, 12, 0]);
        assert_eq!(known.take_new().len(), 1);
        assert_eq!(known.take_new().len(), 0);
        // The server's clock was set back by an hour.
        for (used, reported) in [(3, 3_600_000), (4, 0), (5, 1000)] {
            known.note(&acme(), LimitName::CustomerDay, used, Moment(reported), NOW);
        }
        assert_eq!(known.baseline_of(&acme(), NOW).used(LimitName::CustomerDay), 5);
    }

    #[test]
    fn a_refusal_states_the_whole_limit() {
        let limits = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::of(10)).with_warnings(&[80]);
        let mut known = LastKnown::default();
        known.note(&acme(), LimitName::CustomerDay, 9, Moment(20), NOW);
        let baseline = known.baseline_of(&acme(), NOW);
        let lowered = baseline.lower(&limits);
        assert_eq!(lowered.counted(LimitName::CustomerDay).max, Some(1));
        assert_eq!(lowered.counted(LimitName::UserMessages).max, Some(10));
        assert_eq!(lowered.warned_from(LimitName::CustomerDay), 0);
        let standing = |own| crate::ledger::LimitStanding {
            limit: LimitName::CustomerDay,
            max: 1,
            used: 0,
            reserved: 0,
            own,
            fits_at: None,
        };
        let mut answer = LedgerAnswer { over: vec![standing(2), standing(11)], ..LedgerAnswer::fitting(NOW) };
        baseline.raise(&mut answer, &limits);
        let [fits_later, never_fits] = [0, 1].map(|nth: usize| answer.over[nth]);
        assert_eq!((fits_later.max, fits_later.used), (10, 9));
        assert_eq!(fits_later.fits_at, Some(NOW.plus(Duration::from_secs(86_400))));
        assert!(never_fits.never_fits() && never_fits.fits_at.is_none());
    }
}
