//! Limits in force for a customer, worked out once when the directory is built.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The limits that the ledger counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LimitName {
    UserMessages,
    UserUniques,
    CustomerDay,
    CustomerPeak,
    LoginMessages,
    LoginUniques,
}

/// A rolling window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    Day,
    TenMinutes,
}

impl Window {
    pub const fn seconds(self) -> u32 {
        match self {
            Window::Day => 86_400,
            Window::TenMinutes => 600,
        }
    }
}

impl LimitName {
    pub const COUNT: usize = 6;
    /// In the order in which a refusal is looked for: the narrowest first.
    pub const ALL: [LimitName; LimitName::COUNT] = [
        LimitName::UserMessages,
        LimitName::UserUniques,
        LimitName::LoginMessages,
        LimitName::LoginUniques,
        LimitName::CustomerPeak,
        LimitName::CustomerDay,
    ];

    pub const fn window(self) -> Window {
        match self {
            LimitName::CustomerPeak => Window::TenMinutes,
            _ => Window::Day,
        }
    }

    /// As in the configuration and in `quota show --json`.
    pub const fn key(self) -> &'static str {
        match self {
            LimitName::UserMessages => "user.messages_per_day",
            LimitName::UserUniques => "user.unique_recipients_per_day",
            LimitName::CustomerDay => "customer.recipients_per_day",
            LimitName::CustomerPeak => "customer.recipients_per_10_min",
            LimitName::LoginMessages => "login.messages_per_day",
            LimitName::LoginUniques => "login.unique_recipients_per_day",
        }
    }
}

/// A name that is no limit that counts; says which there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is no limit that counts; write one of {}", .0.escape_debug(), LimitName::ALL.map(LimitName::key).join(", "))]
pub struct NoSuchLimit(String);

impl FromStr for LimitName {
    type Err = NoSuchLimit;

    fn from_str(text: &str) -> Result<LimitName, NoSuchLimit> {
        let name = LimitName::ALL.into_iter().find(|name| name.key() == text.trim());
        name.ok_or_else(|| NoSuchLimit(text.chars().take(64).collect()))
    }
}

impl Serialize for LimitName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.key())
    }
}

impl<'de> Deserialize<'de> for LimitName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LimitName, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// What a client is told when a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Action {
    /// Class 4: the client keeps the mail queued.
    #[default]
    Defer,
    /// Class 5, where the service's own reply is of class 5.
    Reject,
}

/// A limit in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// `None` is unlimited.
    pub max: Option<u64>,
    pub action: Action,
    /// Decided, logged and counted as "would have refused", never enforced.
    pub shadow: bool,
}

impl Limit {
    pub const UNLIMITED: Limit = Limit { max: None, action: Action::Defer, shadow: false };

    pub const fn of(max: u64) -> Limit {
        Limit { max: Some(max), action: Action::Defer, shadow: false }
    }
}

/// All limits of one customer: the installation's, the customer's own, licences and billing taken into account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerLimits {
    pub transaction_recipients: Limit,
    /// Of a whole message.
    pub message_bytes: Limit,
    /// Of all attachments of a message together, decoded.
    pub attachments_bytes: Limit,
    /// Percent, ascending, each 1 to 100: when the customer's administrators are told.
    pub warn_at: SmallVec<[u8; 8]>,
    counted: [Limit; LimitName::COUNT],
    /// Further limits on the same counts, all of them in shadow: `unpaid.*` beside `customer.*`.
    also_in_shadow: Option<Arc<CustomerLimits>>,
    /// Whether the maximum is that of `unpaid.*`, and a paid customer would have a higher one.
    lowered_by_billing: [bool; LimitName::COUNT],
    /// Where the lowest of `warn_at` is; `u64::MAX` where nobody is told.
    warned_from: [u64; LimitName::COUNT],
}

impl CustomerLimits {
    /// Without limits on sizes, and without warnings.
    pub fn new(transaction_recipients: Limit, counted: impl Fn(LimitName) -> Limit) -> CustomerLimits {
        let mut limits = CustomerLimits {
            transaction_recipients,
            message_bytes: Limit::UNLIMITED,
            attachments_bytes: Limit::UNLIMITED,
            warn_at: SmallVec::new(),
            counted: [Limit::UNLIMITED; LimitName::COUNT],
            also_in_shadow: None,
            lowered_by_billing: [false; LimitName::COUNT],
            warned_from: [u64::MAX; LimitName::COUNT],
        };
        for name in LimitName::ALL {
            limits.counted[name as usize] = counted(name);
        }
        limits
    }

    pub fn with_sizes(self, message_bytes: Limit, attachments_bytes: Limit) -> CustomerLimits {
        CustomerLimits { message_bytes, attachments_bytes, ..self }
    }

    /// With further limits on the same counts, in shadow whatever they say.
    pub fn with_also_in_shadow(self, further: impl Fn(LimitName) -> Option<u64>) -> CustomerLimits {
        let in_shadow = |name| Limit { max: further(name), action: Action::Defer, shadow: true };
        let further = CustomerLimits::new(Limit::UNLIMITED, in_shadow);
        let has_any = LimitName::ALL.iter().any(|&name| further.counted(name).max.is_some());
        CustomerLimits { also_in_shadow: has_any.then(|| Arc::new(further)), ..self }
    }

    /// With a note of which maxima are as low as they are because the customer has not paid.
    pub fn with_lowered_by_billing(mut self, lowered: impl Fn(LimitName) -> bool) -> CustomerLimits {
        for name in LimitName::ALL {
            self.lowered_by_billing[name as usize] = lowered(name);
        }
        self
    }

    /// Whether the maximum is that of `unpaid.*`, and a paid customer would have a higher one.
    pub fn is_lowered_by_billing(&self, name: LimitName) -> bool {
        self.lowered_by_billing[name as usize]
    }

    /// Further limits on the same counts, all of them in shadow; the rest of it is unlimited.
    pub fn also_in_shadow(&self) -> Option<&CustomerLimits> {
        self.also_in_shadow.as_deref()
    }

    /// Whether there is any limit on the size of messages or attachments.
    pub fn limit_sizes(&self) -> bool {
        self.message_bytes.max.is_some() || self.attachments_bytes.max.is_some()
    }

    pub fn with_warnings(mut self, percent: &[u8]) -> CustomerLimits {
        self.warn_at = SmallVec::from_slice(percent);
        for name in LimitName::ALL {
            let limit = self.counted(name);
            let max = limit.max.filter(|&max| max > 0 && !limit.shadow);
            self.warned_from[name as usize] = match (self.warn_at.first(), max) {
                (Some(&lowest), Some(max)) => percent_of(max, lowest),
                _ => u64::MAX,
            };
        }
        self
    }

    /// From how much on somebody is told that a limit is being used up; `u64::MAX`: never. Nobody is told of limits in
    /// shadow.
    pub fn warned_from(&self, name: LimitName) -> u64 {
        self.warned_from[name as usize]
    }

    /// Whether anybody is ever told.
    pub fn warn(&self) -> bool {
        !self.warn_at.is_empty()
    }

    /// The highest of `warn_at` that so much of a limit reaches.
    pub fn level_reached(&self, used: u64, max: u64) -> Option<u8> {
        self.warn_at.iter().rev().copied().find(|&level| max > 0 && used >= percent_of(max, level))
    }

    /// One limit raised by so many; without a maximum it stays without.
    pub fn raise(&mut self, name: LimitName, more: u64) {
        if let Some(max) = &mut self.counted[name as usize].max {
            *max = max.saturating_add(more);
        }
        if let Some(further) = &mut self.also_in_shadow {
            Arc::make_mut(further).raise(name, more);
        }
    }

    /// What is left of each limit when so much of it is used; people are told from the same point on.
    pub fn lowered(&self, used: impl Fn(LimitName) -> u64) -> CustomerLimits {
        let mut left = self.clone();
        for name in LimitName::ALL {
            let (used, place) = (used(name), name as usize);
            left.counted[place].max = left.counted[place].max.map(|max| max.saturating_sub(used));
            if left.warned_from[place] < u64::MAX {
                left.warned_from[place] = left.warned_from[place].saturating_sub(used);
            }
        }
        left
    }

    pub fn counted(&self, name: LimitName) -> &Limit {
        &self.counted[name as usize]
    }
}

/// The least whole number that is so many percent of a limit.
fn percent_of(max: u64, percent: u8) -> u64 {
    max.saturating_mul(percent.into()).div_ceil(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_from_the_first_whole_number_on() {
        let of = |limit: Limit| CustomerLimits::new(Limit::UNLIMITED, |_| limit).with_warnings(&[80, 90, 100]);
        let limits = of(Limit::of(7));
        assert_eq!(limits.warned_from(LimitName::UserMessages), 6, "80 % of 7 are 5.6");
        assert_eq!([5, 6, 7, 9].map(|used| limits.level_reached(used, 7)), [None, Some(80), Some(100), Some(100)]);
        assert_eq!(of(Limit::of(1)).warned_from(LimitName::CustomerDay), 1);
        let shadow = Limit { shadow: true, ..Limit::of(7) };
        for never in [Limit::UNLIMITED, Limit::of(0), shadow] {
            assert_eq!(of(never).warned_from(LimitName::CustomerDay), u64::MAX, "{never:?}");
        }
        assert!(!CustomerLimits::new(Limit::UNLIMITED, |_| Limit::of(7)).with_warnings(&[]).warn());
    }
}
