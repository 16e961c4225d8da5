//! All accounts that did something lately.

use super::activity::Activity;
use super::rules::{OnAbuse, Rules};
use super::sign::{Signs, signs, signs_of_customer};
use crate::clock::Moment;
use crate::directory::{Parties, Subject, SubjectKind};
use crate::ledger::RecipientKey;
use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::Duration;

/// So many users and customers are watched, each with about 1 KB. Of more, those that did nothing for longest are
/// forgotten.
const WATCHED: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();

/// Before that nobody knows what is usual.
const LEARNING: Duration = Duration::from_secs(86_400);

/// Watches users and customers.
#[derive(Debug)]
pub struct Watch {
    accounts: Mutex<LruCache<Subject, Activity>>,
    since: OnceLock<Moment>,
}

/// An accepted message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub parties: &'a Parties,
    pub client: Option<IpAddr>,
    pub recipients: &'a [RecipientKey],
    /// A filter took it for spam or a virus.
    pub is_marked: bool,
}

/// Somebody with signs of abuse.
#[derive(Clone, Debug)]
pub struct Found {
    pub subject: Subject,
    pub signs: Signs,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { accounts: Mutex::new(LruCache::new(WATCHED)), since: OnceLock::new() }
    }
}

impl Watch {
    /// A message was accepted. Tells who has signs of abuse now. With [`OnAbuse::Suspend`] it begins anew for a user
    /// that was found: whoever may send again later is not judged by what was before.
    pub fn accepted(&self, message: &Message, rules: &Rules, now: Moment) -> SmallVec<[Found; 2]> {
        let is_known = self.knows_what_is_usual(now);
        let mut found = SmallVec::new();
        let Message { parties, client, recipients, is_marked } = *message;
        let user = user(parties);
        let customer =
            Subject { kind: SubjectKind::Customer, customer: parties.customer.clone(), name: parties.customer.clone() };
        let mut accounts = self.accounts.lock();
        for subject in user.into_iter().chain([customer]) {
            let account = account(&mut accounts, &subject, rules, now);
            account.accepted(now, is_marked, client, recipients.iter().map(|key| key.0));
            let traits = account.traits(now, is_known);
            let signs = match subject.kind {
                SubjectKind::Customer => signs_of_customer(&traits, &rules.thresholds),
                _ => signs(&traits, &rules.thresholds),
            };
            note(&mut found, &mut accounts, subject, signs, rules);
        }
        found
    }

    /// A recipient was refused here.
    pub fn refused(&self, parties: &Parties, rules: &Rules, now: Moment) -> Option<Found> {
        let subject = user(parties)?;
        let is_known = self.knows_what_is_usual(now);
        let mut accounts = self.accounts.lock();
        let account = account(&mut accounts, &subject, rules, now);
        account.refused(now, 1);
        let signs = signs(&account.traits(now, is_known), &rules.thresholds);
        let mut found = SmallVec::new();
        note(&mut found, &mut accounts, subject, signs, rules);
        found.pop()
    }

    /// The signs that a user has now.
    pub fn signs_of(&self, parties: &Parties, rules: &Rules, now: Moment) -> Signs {
        let Some(subject) = user(parties) else { return Signs::new() };
        let is_known = self.knows_what_is_usual(now);
        let mut accounts = self.accounts.lock();
        let account = accounts.peek_mut(&subject).filter(|account| account.is_of(rules.window));
        account.map_or_else(Signs::new, |account| signs(&account.traits(now, is_known), &rules.thresholds))
    }

    fn knows_what_is_usual(&self, now: Moment) -> bool {
        now.since(*self.since.get_or_init(|| now)) >= LEARNING
    }
}

fn user(parties: &Parties) -> Option<Subject> {
    let (customer, name) = (parties.customer.clone(), parties.user.clone()?);
    Some(Subject { kind: SubjectKind::User, customer, name })
}

fn account<'a>(
    accounts: &'a mut LruCache<Subject, Activity>,
    subject: &Subject,
    rules: &Rules,
    now: Moment,
) -> &'a mut Activity {
    let account = accounts.get_or_insert_mut_ref(subject, || Activity::new(now, rules.window));
    if !account.is_of(rules.window) {
        *account = Activity::new(now, rules.window);
    }
    account
}

fn note(
    found: &mut SmallVec<[Found; 2]>,
    accounts: &mut LruCache<Subject, Activity>,
    subject: Subject,
    signs: Signs,
    rules: &Rules,
) {
    if signs.is_empty() {
        return;
    }
    if rules.on_abuse == OnAbuse::Suspend && subject.kind == SubjectKind::User {
        accounts.pop(&subject);
    }
    found.push(Found { subject, signs });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abuse::{Marks, Sign, Thresholds};

    const NOON: Moment = Moment::from_seconds(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn rules(on_abuse: OnAbuse) -> Rules {
        let thresholds = Thresholds {
            spam_count: 5,
            customer_spam_count: 8,
            spam_share: 50,
            recipients_rise: 10,
            recipients_least: 50,
            refused_recipients: 5,
            networks: 3,
        };
        Rules { marks: Marks::default(), window: HOUR, thresholds, on_abuse }
    }

    fn parties(user: Option<&str>) -> Parties {
        Parties { customer: "acme".into(), user: user.map(Into::into), login: None }
    }

    /// Sends so many messages to one recipient each; who was found, the last time that anybody was.
    fn send(
        watch: &Watch,
        user: Option<&str>,
        number: u64,
        is_marked: bool,
        on_abuse: OnAbuse,
        at: Moment,
    ) -> Vec<String> {
        let (rules, parties) = (rules(on_abuse), parties(user));
        let mut last = Vec::new();
        for n in 0..number {
            let recipients = [RecipientKey(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9)];
            let client = Some("192.0.2.7".parse().unwrap());
            let message = Message { parties: &parties, client, recipients: &recipients, is_marked };
            let found = watch.accepted(&message, &rules, at);
            if !found.is_empty() {
                last = found.iter().map(|found| format!("{} {}", found.subject.name, found.signs[0].key())).collect();
            }
        }
        last
    }

    #[test]
    fn users_are_found_before_their_customer() {
        let (watch, notify) = (Watch::default(), OnAbuse::Notify);
        assert!(send(&watch, Some("ann"), 4, true, notify, NOON).is_empty());
        assert_eq!(send(&watch, Some("ann"), 1, true, notify, NOON), ["ann spam"]);
        assert!(send(&watch, Some("bob"), 2, true, notify, NOON).is_empty());
        assert_eq!(send(&watch, None, 1, true, notify, NOON), ["acme spam"], "senders that are no users count for it");
        assert_eq!(
            watch.signs_of(&parties(Some("ann")), &rules(notify), NOON)[0],
            Sign::Spam { marked: 5, messages: 5 }
        );
        assert!(watch.signs_of(&parties(Some("ann")), &rules(notify), NOON.plus(HOUR)).is_empty(), "an hour later");
        assert!(watch.signs_of(&parties(None), &rules(notify), NOON).is_empty());
    }

    #[test]
    fn good_mail_makes_the_share_small() {
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
        let (watch, rules, ann) = (Watch::default(), rules(OnAbuse::Notify), parties(Some("ann")));
        assert!((0..4).all(|_| watch.refused(&ann, &rules, NOON).is_none()));
        assert_eq!(watch.refused(&ann, &rules, NOON).unwrap().signs[0], Sign::Refused { recipients: 5 });
        assert!(watch.refused(&parties(None), &rules, NOON).is_none());
    }

    #[test]
    fn who_was_suspended_begins_anew() {
        let (watch, suspend) = (Watch::default(), OnAbuse::Suspend);
        assert_eq!(send(&watch, Some("ann"), 5, true, suspend, NOON), ["ann spam"]);
        assert!(send(&watch, Some("ann"), 2, true, suspend, NOON).is_empty());
        assert!(watch.signs_of(&parties(Some("ann")), &rules(suspend), NOON).is_empty());
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
