//! From figures to signs: a pure function.

use crate::config::Thresholds;
use smallvec::SmallVec;
use std::fmt;
use std::time::Duration;

/// What an account did within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Accepted messages.
    pub messages: u64,
    /// Those of them that a filter marked as spam or virus.
    pub marked: u64,
    /// Different recipients of accepted messages, within a few percent.
    pub recipients: u64,
    /// The most different recipients in any window of the week before; `None` while too little is known.
    pub usual_recipients: Option<u64>,
    /// Recipients that were refused here because of the sender.
    pub refused: u64,
    /// Different networks that its mail came from.
    pub networks: u64,
}

/// Something that honest accounts seldom do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Spam { marked: u64, messages: u64 },
    Recipients { now: u64, usual: u64 },
    Refused { recipients: u64 },
    Networks { number: u64 },
}

pub type Signs = SmallVec<[Sign; 4]>;

/// The signs of a user.
pub fn signs(traits: &Traits, thresholds: &Thresholds) -> Signs {
    let Traits { recipients, usual_recipients, refused, networks, .. } = *traits;
    let mut signs = Signs::new();
    signs.extend(spam(traits, thresholds.spam_count, thresholds.spam_share));
    if let Some(usual) = usual_recipients
        && reaches(recipients, thresholds.recipients_least)
        && reaches(recipients, thresholds.recipients_rise.saturating_mul(usual.max(1)))
    {
        signs.push(Sign::Recipients { now: recipients, usual });
    }
    signs.extend(refusals(refused, thresholds.refused_recipients));
    if reaches(networks, thresholds.networks) {
        signs.push(Sign::Networks { number: networks });
    }
    signs
}

/// The signs of a customer, all its users together: many recipients and networks are normal there.
pub(super) fn signs_of_customer(traits: &Traits, thresholds: &Thresholds) -> Signs {
    let spam = spam(traits, thresholds.customer_spam_count, thresholds.spam_share);
    spam.into_iter().chain(refusals(traits.refused, thresholds.customer_refused_recipients)).collect()
}

fn refusals(refused: u64, threshold: u64) -> Option<Sign> {
    reaches(refused, threshold).then_some(Sign::Refused { recipients: refused })
}

fn spam(traits: &Traits, count: u64, share: u64) -> Option<Sign> {
    let Traits { marked, messages, .. } = *traits;
    let is_much = reaches(marked, count) && marked.saturating_mul(100) >= share.saturating_mul(messages);
    is_much.then_some(Sign::Spam { marked, messages })
}

fn reaches(number: u64, threshold: u64) -> bool {
    threshold > 0 && number >= threshold
}

/// The signs for a reply or a reason: `42 of 50 messages were marked as spam or virus (in 1 hour)`.
pub fn describe(signs: &Signs, window: Duration) -> String {
    let words = signs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    format!("{words} (in {})", window_in_words(window))
}

/// `1 hour`, `90 minutes`
pub(crate) fn window_in_words(window: Duration) -> String {
    let minutes = window.as_secs() / 60;
    match minutes {
        60 => "1 hour".to_owned(),
        1_440 => "24 hours".to_owned(),
        minutes if minutes.is_multiple_of(60) => format!("{} hours", minutes / 60),
        minutes => format!("{minutes} minutes"),
    }
}

impl Sign {
    /// As in logs.
    pub fn key(&self) -> &'static str {
        match self {
            Sign::Spam { .. } => "spam",
            Sign::Recipients { .. } => "recipients",
            Sign::Refused { .. } => "refused",
            Sign::Networks { .. } => "networks",
        }
    }
}

/// In words, without the window.
impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Sign::Spam { marked, messages } => {
                write!(f, "{marked} of {messages} messages were marked as spam or virus")
            }
            Sign::Recipients { now, usual } => write!(f, "{now} different recipients, never more than {usual} before"),
            Sign::Refused { recipients } => write!(f, "{recipients} recipients were refused"),
            Sign::Networks { number } => write!(f, "mail came from {number} different networks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        spam_count: 20,
        customer_spam_count: 100,
        spam_share: 25,
        recipients_rise: 10,
        recipients_least: 500,
        refused_recipients: 300,
        customer_refused_recipients: 1_500,
        networks: 8,
    };

    const QUIET: Traits =
        Traits { messages: 40, marked: 0, recipients: 30, usual_recipients: Some(35), refused: 2, networks: 2 };

    fn keys(traits: Traits) -> Vec<&'static str> {
        signs(&traits, &THRESHOLDS).iter().map(Sign::key).collect()
    }

    #[test]
    fn stories() {
        let story = |name: &str, traits: Traits, expected: &[&str]| assert_eq!(keys(traits), expected, "{name}");
        story("a quiet account", QUIET, &[]);
        story("some of its mail looks like spam", Traits { messages: 200, marked: 20, ..QUIET }, &[]);
        story("few messages, all of them spam", Traits { messages: 19, marked: 19, ..QUIET }, &[]);
        story("a flood of spam", Traits { messages: 80, marked: 20, ..QUIET }, &["spam"]);
        story("a newsletter as every week", Traits { recipients: 4_000, usual_recipients: Some(3_900), ..QUIET }, &[]);
        story(
            "ten times as many as ever before",
            Traits { recipients: 500, usual_recipients: Some(50), ..QUIET },
            &["recipients"],
        );
        story("never sent before", Traits { recipients: 500, usual_recipients: Some(0), ..QUIET }, &["recipients"]);
        story("a small office wakes up", Traits { recipients: 100, usual_recipients: Some(1), ..QUIET }, &[]);
        story("nothing is known yet", Traits { recipients: 50_000, usual_recipients: None, ..QUIET }, &[]);
        story("an old list of addresses", Traits { refused: 300, ..QUIET }, &["refused"]);
        story("at home, at work, on the train", Traits { networks: 4, ..QUIET }, &[]);
        story("a botnet has the password", Traits { networks: 8, ..QUIET }, &["networks"]);
        let everything = Traits { marked: 40, recipients: 900, refused: 400, networks: 60, ..QUIET };
        story("all at once", everything, &["spam", "recipients", "refused", "networks"]);
    }

    #[test]
    fn signs_are_described_with_their_window() {
        let signs = Signs::from_iter([Sign::Spam { marked: 1_042, messages: 1_250 }, Sign::Networks { number: 14 }]);
        assert_eq!(
            describe(&signs, Duration::from_secs(5_400)),
            "1042 of 1250 messages were marked as spam or virus; mail came from 14 different networks (in 90 minutes)"
        );
    }

    #[test]
    fn zero_switches_a_sign_off() {
        let off = Thresholds { spam_count: 0, recipients_least: 0, refused_recipients: 0, networks: 0, ..THRESHOLDS };
        let everything = Traits { marked: 40, recipients: 900, refused: 400, networks: 60, ..QUIET };
        assert!(signs(&everything, &off).is_empty());
        assert!(signs(&Traits::default(), &THRESHOLDS).is_empty());
    }

    #[test]
    fn a_customer_is_judged_by_its_spam_and_by_refusals() {
        let busy = Traits { messages: 300, marked: 99, recipients: 90_000, refused: 1_499, networks: 60, ..QUIET };
        assert!(signs_of_customer(&busy, &THRESHOLDS).is_empty());
        let refused = Traits { refused: 1_500, ..busy };
        assert_eq!(signs_of_customer(&refused, &THRESHOLDS)[..], [Sign::Refused { recipients: 1_500 }]);
        let spammy = Traits { marked: 100, ..busy };
        assert_eq!(signs_of_customer(&spammy, &THRESHOLDS)[..], [Sign::Spam { marked: 100, messages: 300 }]);
    }
}
