//! What comes out of a decision. All that anybody reads about it is made from this one value.

use super::reply::Refusal;
use super::rules::IdentifiedBy;
use crate::envelope::{Address, ReplyClass};
use std::sync::Arc;

/// The verdict on one recipient of a transaction, or on the transaction as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Whose mail it is.
    pub customer: Option<Arc<str>>,
    pub identified_by: Option<IdentifiedBy>,
    /// The setting that admitted it.
    pub setting: Option<Arc<str>>,
    /// The registered user that the envelope sender is.
    pub user: Option<Arc<str>>,
    /// The envelope sender has to become this one.
    pub rewrite_sender_to: Option<Address>,
    /// A copy goes there, if a milter sees the message.
    pub archive_to: Option<Address>,
    /// What shadow limits and settings would have refused.
    pub shadow: Vec<Refusal>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Accept,
    /// Not ours to judge: passed, counted nowhere.
    Exempt(Exemption),
    Refuse(Box<Refusal>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// `exempt_clients`, without a login.
    Client,
    /// `exempt_recipient_domains`.
    RecipientDomain,
    /// relaykeeper's own mail on its way to an administrator.
    OwnMail,
    /// The store or the configuration is out of order, and `on_failure = "accept"`.
    OnFailure,
    /// The end of the message was reported before, over the other protocol or by another connection, and counted then.
    AlreadyCounted,
}

impl Verdict {
    /// A verdict about nobody in particular yet.
    pub fn of(outcome: Outcome) -> Verdict {
        Verdict {
            outcome,
            customer: None,
            identified_by: None,
            setting: None,
            user: None,
            rewrite_sender_to: None,
            archive_to: None,
            shadow: Vec::new(),
        }
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Refuse(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The rules in shadow that would have refused, each once, as in logs.
    pub fn shadow_keys(&self) -> Vec<&'static str> {
        let mut keys: Vec<_> = self.shadow.iter().map(Refusal::key).collect();
        let mut seen = Vec::new();
        keys.retain(|key| {
            !seen.contains(key) && {
                seen.push(*key);
                true
            }
        });
        keys
    }

    pub fn passes(&self) -> bool {
        self.refusal().is_none()
    }

    /// `accept`, `defer` or `reject`, as in logs and JSON.
    pub fn word(&self) -> &'static str {
        match self.refusal().map(Refusal::class) {
            None => "accept",
            Some(ReplyClass::Transient) => "defer",
            Some(ReplyClass::Permanent) => "reject",
        }
    }
}

impl Exemption {
    /// As `reason=` in logs.
    pub fn key(self) -> &'static str {
        match self {
            Exemption::Client => "exempt-client",
            Exemption::RecipientDomain => "exempt-recipient-domain",
            Exemption::OwnMail => "own-mail",
            Exemption::OnFailure => "on-failure",
            Exemption::AlreadyCounted => "already-counted",
        }
    }
}
