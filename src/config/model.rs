//! The main file, checked. What a key means: relaykeeper.toml(5).

use crate::directory::{Action, Billing, CustomerLimits, Limit, LimitName};
use crate::listen::ListenAddress;
use crate::report::{Destination, Level};
use ipnet::IpNet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `relaykeeper.toml`, every value checked and every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub listen: Listen,
    pub relay: Relay,
    pub log: Log,
    pub store: Store,
    pub policy: PolicyOptions,
    pub limits: LimitRules,
    pub connection: ConnectionLimits,
    pub mail: Mail,
    /// `None`: nobody is watched.
    pub abuse: Option<crate::abuse::AbuseSettings>,
}

/// `[listen]`. Whether the addresses can be bound shows at the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    pub milter: Vec<ListenAddress>,
    pub policy: Vec<ListenAddress>,
    pub socketmap: Vec<ListenAddress>,
    pub http: Option<ListenAddress>,
    pub control: Option<ListenAddress>,
    /// Permission bits of unix sockets.
    pub socket_mode: u32,
    pub socket_group: Option<String>,
}

impl Listen {
    /// Keys that are set, but not served by this version.
    pub fn unserved(&self) -> Vec<&'static str> {
        self.http.is_some().then_some("listen.http").into_iter().collect()
    }
}

/// `[relay]`
#[derive(Clone, Debug, PartialEq)]
pub struct Relay {
    /// In lower case.
    pub hostname: String,
    /// The folder of customer files, absolute.
    pub customers: PathBuf,
    pub on_failure: OnFailure,
    /// How long a stop waits for transactions.
    pub drain: Duration,
    pub reservation_timeout: Duration,
    pub exempt_clients: Vec<IpNet>,
    /// In canonical form, as in [`crate::envelope::canonical_domain`].
    pub exempt_recipient_domains: Vec<String>,
    pub sender_forms: Vec<SenderForm>,
    pub identify_by_address: bool,
    pub sender_must_match_login: bool,
    /// At least 1; in IPv6 a /64 counts as one address.
    pub max_range_addresses: u64,
    /// Loopback and private networks in which gateways may be.
    pub private_gateways: Vec<IpNet>,
    /// Postfix's transport (master(5)) for users' gateways.
    pub gateway_transport: String,
}

/// What happens to mail when no decision can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Defer,
    Accept,
}

/// Spellings of a user's address that are that user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderForm {
    /// `user+tag@` is `user@`.
    Plus,
    /// `prvs=TAG=user@` is `user@`.
    Batv,
    /// `SRS0=HASH=TT=DOMAIN=user@relay` is `user@DOMAIN`.
    Srs,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub to: Destination,
    pub level: Level,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    Embedded { path: PathBuf, sync: Sync },
    Redis { urls: Vec<String>, on_outage: OnOutage, path: PathBuf },
}

impl Store {
    /// The folder of everything that is kept on this machine.
    pub fn path(&self) -> &Path {
        match self {
            Store::Embedded { path, .. } | Store::Redis { path, .. } => path,
        }
    }
}

/// When a count is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before the reply.
    Full,
    /// Within a second.
    Normal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    Local,
    Defer,
    Accept,
}

/// `[policy]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyOptions {
    pub count_at: CountAt,
    pub on_rewrite: OnRewrite,
}

/// When a message seen by the policy service only counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountAt {
    EndOfMessage,
    Rcpt,
    /// At the end of the message; but until an MTA has sent its first END-OF-MESSAGE, its abandoned instances count.
    Auto,
}

/// What the policy service, which cannot rewrite, says to mail whose sender has to be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRewrite {
    Continue,
    Defer,
    Reject,
    /// `Continue` where a milter session is open for the client, else `Defer`.
    Auto,
}

/// One limit as configured: a number or so many per licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRule {
    pub max: MaxRule,
    pub action: Action,
    pub shadow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxRule {
    Unlimited,
    Number(u64),
    PerLicense { per_license: u64, cap: Option<u64> },
}

impl LimitRule {
    pub fn in_force(&self, licenses: u32) -> Limit {
        let max = match self.max {
            MaxRule::Unlimited => None,
            MaxRule::Number(max) => Some(max),
            MaxRule::PerLicense { per_license, cap } => {
                Some(per_license.saturating_mul(licenses.into()).min(cap.unwrap_or(u64::MAX)))
            }
        };
        Limit { max, action: self.action, shadow: self.shadow }
    }
}

/// `[limits]`, or a customer's with the installation's filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRules {
    pub transaction_recipients: LimitRule,
    pub user_messages: LimitRule,
    pub user_uniques: LimitRule,
    pub login_messages: LimitRule,
    pub login_uniques: LimitRule,
    pub customer_day: LimitRule,
    pub customer_peak: LimitRule,
    pub unpaid_day: LimitRule,
    pub unpaid_peak: LimitRule,
    pub message_bytes: LimitRule,
    pub attachments_bytes: LimitRule,
    /// Percent, ascending, each 1 to 100.
    pub warn_at: Vec<u8>,
}

impl LimitRules {
    /// The limits in force for a customer. Without a paid bill the smaller of a customer limit and its `unpaid.*`
    /// counterpart holds; one of the two in shadow never puts the other out of force.
    pub fn for_customer(&self, licenses: u32, billing: Billing) -> CustomerLimits {
        let customer = |paid: &LimitRule, unpaid: &LimitRule| match billing {
            Billing::Paid => paid.in_force(licenses),
            Billing::Unpaid | Billing::Trial => stricter(paid.in_force(licenses), unpaid.in_force(licenses)),
        };
        let counted = |name| match name {
            LimitName::UserMessages => self.user_messages.in_force(licenses),
            LimitName::UserUniques => self.user_uniques.in_force(licenses),
            LimitName::LoginMessages => self.login_messages.in_force(licenses),
            LimitName::LoginUniques => self.login_uniques.in_force(licenses),
            LimitName::CustomerDay => customer(&self.customer_day, &self.unpaid_day),
            LimitName::CustomerPeak => customer(&self.customer_peak, &self.unpaid_peak),
        };
        CustomerLimits::new(self.transaction_recipients.in_force(licenses), counted)
            .with_sizes(self.message_bytes.in_force(licenses), self.attachments_bytes.in_force(licenses))
            .with_warnings(&self.warn_at)
    }
}

/// The smaller of two limits; if only one of them is enforced, that one.
fn stricter(a: Limit, b: Limit) -> Limit {
    let rank = |limit: &Limit| (limit.shadow || limit.max.is_none(), limit.max.unwrap_or(u64::MAX));
    if rank(&b) <= rank(&a) { b } else { a }
}

/// `[limits] connection.*`: per client address, for the whole installation.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionLimits {
    pub per_minute: LimitRule,
    pub simultaneous: LimitRule,
    pub generic_helo_per_minute: LimitRule,
    /// IPv6 clients are told apart by this many leading bits, 1 to 128.
    pub ipv6_prefix: u8,
    pub exempt: Vec<IpNet>,
}

impl ConnectionLimits {
    /// Whether connections are limited at all; else nobody need count them.
    pub fn limit_anything(&self) -> bool {
        let limits = [&self.per_minute, &self.simultaneous, &self.generic_helo_per_minute];
        limits.into_iter().any(|limit| limit.max != MaxRule::Unlimited)
    }
}

/// `[mail]`: how relaykeeper sends its own mail.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub from: Option<String>,
    pub route: MailRoute,
    /// Users are told of their own limits, too.
    pub warn_users: bool,
}

impl Mail {
    /// The address in `From:`.
    pub fn sender(&self, hostname: &str) -> String {
        self.from.clone().unwrap_or_else(|| format!("postmaster@{hostname}"))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum MailRoute {
    Sendmail(PathBuf),
    Smtp(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max: u64, shadow: bool) -> Limit {
        Limit { max: Some(max), action: Action::Defer, shadow }
    }

    #[test]
    fn the_smaller_enforced_limit_holds() {
        assert_eq!(stricter(limit(45, false), limit(50, false)), limit(45, false));
        assert_eq!(stricter(limit(650, false), limit(100, false)), limit(100, false));
        assert_eq!(stricter(limit(650, false), limit(100, true)), limit(650, false), "shadow refuses nothing");
        assert_eq!(stricter(limit(45, true), limit(50, false)), limit(50, false));
        assert_eq!(stricter(Limit::UNLIMITED, limit(50, true)), limit(50, true));
        assert_eq!(stricter(limit(45, true), limit(50, true)), limit(45, true));
        assert_eq!(stricter(limit(45, false), Limit::UNLIMITED), limit(45, false));
    }
}
