//! Limits as they are configured, and what they come to for a customer.

use super::keys::LimitKey;
use crate::directory::{Action, Billing, CustomerLimits, Limit, LimitName};
use ipnet::IpNet;

/// One limit as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRule {
    pub max: MaxRule,
    pub action: Action,
    pub shadow: bool,
}

/// A maximum as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxRule {
    Unlimited,
    Number(u64),
    /// Times the customer's licences, at most `cap`.
    PerLicense {
        per_license: u64,
        cap: Option<u64>,
    },
}

impl LimitRule {
    /// The limit for a customer with so many licences.
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
    pub(super) rules: [LimitRule; LimitKey::COUNT],
    /// Percent, ascending, each 1 to 100.
    pub warn_at: Vec<u8>,
}

impl LimitRules {
    pub fn rule(&self, key: LimitKey) -> &LimitRule {
        &self.rules[key as usize]
    }

    /// The limits in force for a customer. Without a paid bill a customer limit and its `unpaid.*` counterpart hold both: see
    /// `enforced_and_in_shadow`.
    pub fn for_customer(&self, licenses: u32, billing: Billing) -> CustomerLimits {
        let limit = |key| self.rule(key).in_force(licenses);
        let customer = |paid, unpaid| match billing {
            Billing::Paid => (limit(paid), None),
            Billing::Unpaid | Billing::Trial => enforced_and_in_shadow(limit(paid), limit(unpaid)),
        };
        let day = customer(LimitKey::CustomerDay, LimitKey::UnpaidDay);
        let peak = customer(LimitKey::CustomerPeak, LimitKey::UnpaidPeak);
        let counted = |name| match name {
            LimitName::UserMessages => limit(LimitKey::UserMessages),
            LimitName::UserUniques => limit(LimitKey::UserUniques),
            LimitName::LoginMessages => limit(LimitKey::LoginMessages),
            LimitName::LoginUniques => limit(LimitKey::LoginUniques),
            LimitName::CustomerDay => day.0,
            LimitName::CustomerPeak => peak.0,
        };
        let also_in_shadow = |name| match name {
            LimitName::CustomerDay => day.1,
            LimitName::CustomerPeak => peak.1,
            _ => None,
        };
        let max_of = |limit: Limit| limit.max.unwrap_or(u64::MAX);
        let is_lowered = |name| match name {
            LimitName::CustomerDay => max_of(day.0) < max_of(limit(LimitKey::CustomerDay)),
            LimitName::CustomerPeak => max_of(peak.0) < max_of(limit(LimitKey::CustomerPeak)),
            _ => false,
        };
        CustomerLimits::new(limit(LimitKey::TransactionRecipients), counted)
            .with_lowered_by_billing(is_lowered)
            .with_sizes(limit(LimitKey::MessageBytes), limit(LimitKey::AttachmentsBytes))
            .with_also_in_shadow(also_in_shadow)
            .with_warnings(&self.warn_at)
    }
}

/// Of two limits on one count the smaller one that is enforced, and the maximum in shadow that is reached before it refuses. If both are
/// in shadow, both are told: the smaller one and the larger one.
fn enforced_and_in_shadow(a: Limit, b: Limit) -> (Limit, Option<u64>) {
    let rank = |limit: &Limit| (limit.max.is_none(), limit.shadow, limit.max.unwrap_or(u64::MAX));
    let (first, second) = if rank(&b) <= rank(&a) { (b, a) } else { (a, b) };
    let is_told = second.shadow && (first.shadow || second.max < first.max);
    (first, second.max.filter(|_| is_told))
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
    /// Whether connections are limited at all; otherwise nothing has to be counted.
    pub fn limit_anything(&self) -> bool {
        let limits = [&self.per_minute, &self.simultaneous, &self.generic_helo_per_minute];
        limits.into_iter().any(|limit| limit.max != MaxRule::Unlimited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max: u64, shadow: bool) -> Limit {
        Limit { max: Some(max), action: Action::Defer, shadow }
    }

    #[test]
    fn the_smaller_enforced_limit_holds() {
        let both = enforced_and_in_shadow;
        assert_eq!(both(limit(45, false), limit(50, false)), (limit(45, false), None));
        assert_eq!(both(limit(650, false), limit(100, false)), (limit(100, false), None));
        assert_eq!(both(limit(45, false), Limit::UNLIMITED), (limit(45, false), None));
    }

    #[test]
    fn shadow_refuses_nothing_and_hides_nothing() {
        let both = enforced_and_in_shadow;
        assert_eq!(both(limit(650, false), limit(100, true)), (limit(650, false), Some(100)));
        assert_eq!(both(limit(100, true), limit(650, false)), (limit(650, false), Some(100)));
        assert_eq!(both(limit(45, false), limit(50, true)), (limit(45, false), None), "refused before");
        assert_eq!(both(Limit::UNLIMITED, limit(50, true)), (limit(50, true), None));
        assert_eq!(both(limit(650, true), limit(100, true)), (limit(100, true), Some(650)));
    }
}
