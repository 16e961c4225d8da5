//! All accounts that were active lately.

use super::activity::Activity;
use super::sign::{Signs, signs, signs_of_customer};
use crate::clock::Moment;
use crate::config::{AbuseSettings, OnAbuse};
use crate::directory::{Parties, Subject, SubjectKind};
use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::Duration;

/// Users and customers that are watched, about 1 KB each. Beyond that, the one that was idle longest is forgotten.
const WATCHED: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();

/// How long the daemon must have watched before it knows what is usual.
const LEARNING: Duration = Duration::from_secs(86_400);

/// Watches users and customers.
#[derive(Debug)]
pub struct Watch {
    accounts: Mutex<LruCache<Subject, Activity>>,
    since: OnceLock<Moment>,
}

/// An accepted message.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedMessage<'a> {
    pub parties: &'a Parties,
    pub client: Option<IpAddr>,
    /// A filter marked it as spam or virus.
    pub is_marked: bool,
}

/// A user or customer with signs of abuse.
#[derive(Clone, Debug)]
pub struct Suspect {
    pub subject: Subject,
    pub signs: Signs,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { accounts: Mutex::new(LruCache::new(WATCHED)), since: OnceLock::new() }
    }
}

impl Watch {
    /// A message was accepted; `recipients` are keyed hashes. Returns those who have signs of abuse now. With
    /// [`OnAbuse::Suspend`] such a user starts anew: after a resumption it is not judged by what was before.
    pub fn accepted(
        &self,
        message: &AcceptedMessage,
        recipients: impl Iterator<Item = u64> + Clone,
        settings: &AbuseSettings,
        now: Moment,
    ) -> SmallVec<[Suspect; 2]> {
        let AcceptedMessage { parties, client, is_marked } = *message;
        let customer = Subject::customer(&parties.customer);
        let subjects = user_of(parties).into_iter().chain([customer]);
        let note = |activity: &mut Activity| activity.accepted(now, is_marked, client, recipients.clone());
        subjects.filter_map(|subject| self.note(subject, settings, now, note)).collect()
    }

    /// A recipient was refused here. Returns the user or customer that it counts against, if it has signs of abuse now.
    pub fn refused(&self, subject: Subject, settings: &AbuseSettings, now: Moment) -> Option<Suspect> {
        self.note(subject, settings, now, |activity| activity.refused(now, 1))
    }

    /// The signs that a user has now.
    pub fn signs_of(&self, user: &Subject, settings: &AbuseSettings, now: Moment) -> Signs {
        let knows_usual = self.knows_what_is_usual(now);
        let mut accounts = self.accounts.lock();
        let activity = accounts.peek_mut(user).filter(|activity| activity.is_of(settings.window));
        activity.map_or_else(Signs::new, |activity| signs(&activity.traits(now, knows_usual), &settings.thresholds))
    }

    /// Notes what a user or customer did, and looks for signs.
    fn note(
        &self,
        subject: Subject,
        settings: &AbuseSettings,
        now: Moment,
        note: impl FnOnce(&mut Activity),
    ) -> Option<Suspect> {
        let knows_usual = self.knows_what_is_usual(now);
        let mut accounts = self.accounts.lock();
        let activity = accounts.get_or_insert_mut_ref(&subject, || Activity::new(now, settings.window));
        if !activity.is_of(settings.window) {
            *activity = Activity::new(now, settings.window);
        }
        note(activity);
        let traits = activity.traits(now, knows_usual);
        let signs = match subject.kind {
            SubjectKind::Customer => signs_of_customer(&traits, &settings.thresholds),
            _ => signs(&traits, &settings.thresholds),
        };
        if signs.is_empty() {
            return None;
        }
        if settings.on_abuse == OnAbuse::Suspend && subject.kind == SubjectKind::User {
            accounts.pop(&subject);
        }
        Some(Suspect { subject, signs })
    }

    fn knows_what_is_usual(&self, now: Moment) -> bool {
        now.since(*self.since.get_or_init(|| now)) >= LEARNING
    }
}

fn user_of(parties: &Parties) -> Option<Subject> {
    let (customer, name) = (parties.customer.clone(), parties.user.clone()?);
    Some(Subject { kind: SubjectKind::User, customer, name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abuse::Sign;
    use crate::config::{Thresholds, VerdictHeaders};

    const NOON: Moment = Moment::from_seconds(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn settings(on_abuse: OnAbuse) -> AbuseSettings {
        let thresholds = Thresholds {
            spam_count: 5,
            customer_spam_count: 8,
            spam_share: 50,
            recipients_rise: 10,
            recipients_least: 50,
            refused_recipients: 5,
            customer_refused_recipients: 10,
            networks: 3,
        };
        AbuseSettings { verdict_headers: VerdictHeaders::default(), window: HOUR, thresholds, on_abuse }
    }

    fn ann() -> Subject {
        user_of(&parties(Some("ann"))).unwrap()
    }

    fn parties(user: Option<&str>) -> Parties {
        Parties { customer: "acme".into(), user: user.map(Into::into), login: None }
    }

    /// Sends messages to one recipient each; returns those who had signs of abuse, the last time that anybody had.
    fn send(
        watch: &Watch,
        user: Option<&str>,
        number: u64,
        is_marked: bool,
        on_abuse: OnAbuse,
        at: Moment,
    ) -> Vec<String> {
        let (settings, parties) = (settings(on_abuse), parties(user));
        let mut last = Vec::new();
        for n in 0..number {
            let recipients = [n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9].into_iter();
            let client = Some("192.0.2.7".parse().unwrap());
            let message = AcceptedMessage { parties: &parties, client, is_marked };
            let suspects = watch.accepted(&message, recipients, &settings, at);
            if !suspects.is_empty() {
                last = suspects.iter().map(|one| format!("{} {}", one.subject.name, one.signs[0].key())).collect();
            }
        }
        last
    }

    #[test]
    fn users_are_suspected_before_their_customer() {
        let (watch, notify) = (Watch::default(), OnAbuse::Notify);
        assert!(send(&watch, Some("ann"), 4, true, notify, NOON).is_empty());
        assert_eq!(send(&watch, Some("ann"), 1, true, notify, NOON), ["ann spam"]);
        assert!(send(&watch, Some("bob"), 2, true, notify, NOON).is_empty());
        assert_eq!(send(&watch, None, 1, true, notify, NOON), ["acme spam"], "senders that are no users count for it");
        assert_eq!(watch.signs_of(&ann(), &settings(notify), NOON)[0], Sign::Spam { marked: 5, messages: 5 });
        assert!(watch.signs_of(&ann(), &settings(notify), NOON.plus(HOUR)).is_empty(), "an hour later");
    }

    #[test]
    fn good_mail_lowers_the_share() {
        let watch = Watch::default();
        assert!(send(&watch, Some("ann"), 10, false, OnAbuse::Notify, NOON).is_empty());
        assert!(send(&watch, Some("ann"), 9, true, OnAbuse::Notify, NOON).is_empty());
        assert_eq!(send(&watch, Some("ann"), 1, true, OnAbuse::Notify, NOON), ["ann spam", "acme spam"]);
    }

    #[test]
    fn what_is_usual_has_to_be_learned_first() {
        let (watch, notify) = (Watch::default(), OnAbuse::Notify);
        assert!(send(&watch, Some("ann"), 60, false, notify, NOON).is_empty());
        let later = NOON.plus(LEARNING + HOUR);
        assert!(send(&watch, Some("ann"), 60, false, notify, later).is_empty(), "as many as the day before");
        assert_eq!(send(&watch, Some("bob"), 60, false, notify, later), ["bob recipients"]);
    }

    #[test]
    fn refused_recipients_are_a_sign() {
        let (watch, settings) = (Watch::default(), settings(OnAbuse::Notify));
        let refused = || watch.refused(ann(), &settings, NOON);
        assert!((0..4).all(|_| refused().is_none()));
        assert_eq!(refused().unwrap().signs[0], Sign::Refused { recipients: 5 });
        // A customer has its own threshold, and starts no new count with "suspend": it is never suspended.
        let settings = AbuseSettings { on_abuse: OnAbuse::Suspend, ..settings };
        let refused = || watch.refused(Subject::customer(&"acme".into()), &settings, NOON);
        assert!((0..9).all(|_| refused().is_none()));
        assert_eq!(refused().unwrap().signs[0], Sign::Refused { recipients: 10 });
        assert_eq!(refused().unwrap().signs[0], Sign::Refused { recipients: 11 });
    }

    #[test]
    fn who_was_suspended_begins_anew() {
        let (watch, suspend) = (Watch::default(), OnAbuse::Suspend);
        assert_eq!(send(&watch, Some("ann"), 5, true, suspend, NOON), ["ann spam"]);
        assert!(send(&watch, Some("ann"), 2, true, suspend, NOON).is_empty());
        assert!(watch.signs_of(&ann(), &settings(suspend), NOON).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let watch = Watch::default();
        for n in 0..WATCHED.get() + 100 {
            send(&watch, Some(&format!("user{n}")), 1, false, OnAbuse::Notify, NOON);
        }
        assert_eq!(watch.accounts.lock().len(), WATCHED.get());
    }
}
