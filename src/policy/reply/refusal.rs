//! Why a transaction is refused: the reason itself. Its words are in [`super::words`].

use crate::directory::{Action, AllowedSenders, Billing, Customer, LimitName, Setting};
use crate::envelope::{AddressError, ReplyClass, Sender, canonical_ip};
use crate::orders::TargetKind;
use crate::policy::rules::ConnectionRefusal;
use crate::policy::rules::SizeRefusal;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A reason to refuse (relay service, sections 5 and 12).
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// No customer was found by AUTH, sender or HELO.
    UnknownCustomer {
        client: Option<IpAddr>,
        looked_up: Vec<LookedUp>,
        helo: Box<str>,
    },
    /// The customer was found, but the client's address is not in its ranges.
    NotInRanges {
        client: Option<IpAddr>,
        domain: Box<str>,
        gap: RangeGap,
    },
    /// The customer has no setting that is switched on.
    NoSetting {
        client: Option<IpAddr>,
        domain: Box<str>,
    },
    AuthRequired,
    TlsRequired {
        /// Empty if the client did not log in.
        login: Box<str>,
    },
    SenderNotAllowed {
        sender: Sender,
        setting: Arc<str>,
        allowed: AllowedSenders,
        login: Box<str>,
    },
    /// `sender_must_match_login`: it is not the user that logged in.
    SenderNotOfLogin {
        sender: Sender,
        login: Box<str>,
    },
    /// An administrator ordered that nothing of the customer, user, login or client is relayed.
    Suspended {
        kind: TargetKind,
        /// The customer's name, the user's address, the login, or the client's IP address.
        whose: Arc<str>,
        /// The operator's own words.
        why: Arc<str>,
    },
    /// The user has signs of abuse, and `on_abuse` is "defer".
    HeldBack {
        user: Arc<str>,
        /// The signs.
        why: Box<str>,
    },
    /// The empty sender takes one recipient per transaction.
    EmptySenderRecipients,
    TooManyRecipients {
        max: u64,
    },
    Limit(LimitRefusal),
    Size(SizeRefusal),
    Connection(ConnectionRefusal),
    /// The customer's file is bad, and there is no good copy of it.
    CustomerUnusable {
        /// The domain or login that found the customer.
        whose: Box<str>,
    },
    /// Nobody is registered, but a customer's file cannot be read.
    DirectoryIncomplete,
    /// What a client would bring again for fewer recipients, of a message from sendmail(1), which never splits one.
    CannotSplit {
        refusal: Box<Refusal>,
    },
    /// The sender has to be rewritten, which the policy protocol cannot do.
    CannotRewrite {
        sender: Sender,
        reject: bool,
    },
    /// The sender breaks every bound.
    BadSender(AddressError),
    /// The recipient breaks every bound.
    BadRecipient(AddressError),
    /// The store is unavailable, or relaykeeper has an internal error.
    CannotDecide {
        why: Box<str>,
    },
}

/// Why no enabled range of a customer holds the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeGap {
    NotRegistered,
    /// A range that holds it is switched off, or its setting is.
    SwitchedOff,
    /// The client came over IPv6, and the customer has only IPv4 ranges.
    OnlyIpv4,
}

impl RangeGap {
    pub(in crate::policy) fn of(customer: &Customer, client: Option<IpAddr>) -> RangeGap {
        let Some(client) = client.map(canonical_ip) else { return RangeGap::NotRegistered };
        let mut nets = customer.settings.iter().flat_map(|setting| &setting.ranges).map(|range| range.net).peekable();
        let is_only_ipv4 = client.is_ipv6() && nets.peek().is_some() && nets.all(|net| net.addr().is_ipv4());
        let is_off = |setting: &Setting| {
            setting.ranges.iter().any(|range| !(setting.enabled && range.enabled) && range.net.contains(&client))
        };
        match customer.settings.iter().any(is_off) {
            true if !customer.holds_client(client) => RangeGap::SwitchedOff,
            _ if is_only_ipv4 => RangeGap::OnlyIpv4,
            _ => RangeGap::NotRegistered,
        }
    }
}

/// A limit is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRefusal {
    pub limit: LimitName,
    pub max: u64,
    pub action: Action,
    /// The action is that of the setting, not of the limit.
    pub is_settings_action: bool,
    /// The customer's name, the user's address or the login.
    pub whose: Arc<str>,
    pub cause: LimitCause,
    /// Not paid only where this is why the maximum is what it is.
    pub billing: Billing,
    /// When it would fit: milliseconds since 1970 on the wall clock.
    pub retry_at_ms: Option<i64>,
}

/// What leaves no room within a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitCause {
    /// Reservations of other transactions that are open.
    OpenReservations,
    /// The recipients that this transaction holds already: one alone would fit.
    OwnRecipients,
    /// What is counted.
    Usage,
    /// The message alone exceeds the maximum, and its recipients cannot be told apart.
    MessageAlone,
    /// The maximum is 0.
    NothingAllowed,
}

impl LimitCause {
    /// Whether it can never fit, however long the client waits.
    pub fn is_final(self) -> bool {
        matches!(self, LimitCause::MessageAlone | LimitCause::NothingAllowed)
    }
}

/// A name that was looked up among the registered domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    pub source: NameSource,
    pub name: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    Login,
    Sender,
    Helo,
}

impl fmt::Display for NameSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameSource::Login => "AUTH",
            NameSource::Sender => "MAIL FROM",
            NameSource::Helo => "HELO",
        })
    }
}

impl Refusal {
    /// As `reason=` in logs.
    pub fn key(&self) -> &'static str {
        match self {
            Refusal::UnknownCustomer { .. } => "unknown-customer",
            Refusal::NotInRanges { .. } => "address-not-in-ranges",
            Refusal::NoSetting { .. } => "no-setting",
            Refusal::AuthRequired => "auth-required",
            Refusal::TlsRequired { .. } => "tls-required",
            Refusal::SenderNotAllowed { .. } => "sender-not-allowed",
            Refusal::SenderNotOfLogin { .. } => "sender-not-of-login",
            Refusal::Suspended { kind: TargetKind::Customer, .. } => "customer-suspended",
            Refusal::Suspended { kind: TargetKind::User, .. } => "user-suspended",
            Refusal::Suspended { kind: TargetKind::Login, .. } => "login-suspended",
            Refusal::Suspended { kind: TargetKind::Client, .. } => "client-suspended",
            Refusal::HeldBack { .. } => "signs-of-abuse",
            Refusal::EmptySenderRecipients => "empty-sender-recipients",
            Refusal::TooManyRecipients { .. } => "transaction-recipients",
            Refusal::Limit(limit) => match limit.limit {
                LimitName::UserMessages => "user-message-limit",
                LimitName::UserUniques => "user-recipient-limit",
                LimitName::LoginMessages => "login-message-limit",
                LimitName::LoginUniques => "login-recipient-limit",
                LimitName::CustomerDay => "customer-day-limit",
                LimitName::CustomerPeak => "customer-peak-limit",
            },
            Refusal::Size(size) => size.what.key(),
            Refusal::Connection(connection) => connection.limit.key(),
            Refusal::CustomerUnusable { .. } => "customer-unusable",
            Refusal::DirectoryIncomplete => "directory-incomplete",
            Refusal::CannotSplit { refusal } => refusal.key(),
            Refusal::CannotRewrite { .. } => "cannot-rewrite",
            Refusal::BadSender(_) => "bad-sender",
            Refusal::BadRecipient(_) => "bad-recipient",
            Refusal::CannotDecide { .. } => "cannot-decide",
        }
    }

    /// Code and enhanced status (subject, detail) of the reply.
    pub fn codes(&self) -> (u16, (u16, u16)) {
        match self {
            Refusal::UnknownCustomer { .. } => (550, (7, 0)),
            Refusal::NotInRanges { .. }
            | Refusal::NoSetting { .. }
            | Refusal::SenderNotAllowed { .. }
            | Refusal::SenderNotOfLogin { .. }
            | Refusal::Suspended { .. } => (550, (7, 1)),
            Refusal::AuthRequired | Refusal::TlsRequired { .. } => (530, (7, 0)),
            Refusal::TooManyRecipients { max: 0 } => (550, (5, 3)),
            Refusal::EmptySenderRecipients | Refusal::TooManyRecipients { .. } => (452, (5, 3)),
            Refusal::Limit(limit) => limit.codes(),
            Refusal::Size(_) => (552, (3, 4)),
            Refusal::Connection(_) => (421, (7, 0)),
            Refusal::CannotSplit { refusal } => (550, refusal.codes().1),
            Refusal::CannotRewrite { reject: true, .. } => (550, (7, 1)),
            Refusal::CannotRewrite { reject: false, .. } | Refusal::HeldBack { .. } => (450, (7, 1)),
            // RFC 3463, 3.2
            Refusal::BadSender(_) => (501, (1, 7)),
            Refusal::BadRecipient(_) => (501, (1, 3)),
            Refusal::CustomerUnusable { .. } | Refusal::DirectoryIncomplete | Refusal::CannotDecide { .. } => {
                (451, (3, 0))
            }
        }
    }

    pub fn class(&self) -> ReplyClass {
        if self.codes().0 < 500 { ReplyClass::Transient } else { ReplyClass::Permanent }
    }

    /// Whether this is no judgement on the mail but trouble of ours, for which `on_failure` decides.
    pub fn is_failure(&self) -> bool {
        self.codes().0 == 451
    }
}

impl LimitRefusal {
    fn codes(&self) -> (u16, (u16, u16)) {
        // Open reservations may be released any moment, the transaction's own count only when it is accepted: never a final answer.
        let by_action = self.action == Action::Reject && self.cause == LimitCause::Usage;
        let class = if self.cause.is_final() || by_action { 550 } else { 450 };
        match self.limit {
            LimitName::CustomerDay => (class, (7, 1)),
            // The service's own reply to the peak limit is of class 4, also where others reject; but clients without a queue
            // would lose the mail silently.
            LimitName::CustomerPeak if !self.cause.is_final() && !self.is_settings_action => (450, (2, 1)),
            LimitName::CustomerPeak => (class, (2, 1)),
            _ => (class, (4, 5)),
        }
    }
}
