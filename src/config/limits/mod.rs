//! `[limits]`: the installation's, and over them a customer's own.

mod keys;
mod rules;

pub use keys::LimitKey;
pub(super) use keys::{CONNECTION, CUSTOMER, LIMITS, LOGIN, MESSAGE, TRANSACTION, UNPAID, USER};
pub use rules::{ConnectionLimits, LimitRule, LimitRules, MaxRule};

use super::defaults::limits as default;
use super::reading::{Complaint, Item, Table, TableSpec, quoted};
use super::values::networks;
use crate::directory::Action;
use keys::SECTIONS;
use std::borrow::Cow;
use toml::de::DeValue;

/// No limit is larger, so that sums never overflow.
const LARGEST: u64 = 1_000_000_000_000_000;
pub(super) const ACTIONS: &[(&str, Action)] = &[("defer", Action::Defer), ("reject", Action::Reject)];

/// A limit that is written as a table.
static RULE: TableSpec =
    TableSpec { what: "a limit", prefix: "", keys: &["max", "per_license", "cap", "action", "shadow"] };

/// What a file says about one limit; what it does not say is inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Entry {
    max: Option<MaxRule>,
    action: Option<Action>,
    shadow: Option<bool>,
}

/// Whose limits are read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scope {
    Installation,
    Customer,
}

/// `[limits]` as a file has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LimitTable {
    action: Option<Action>,
    entries: [Entry; LimitKey::COUNT],
    warn_at: Option<Vec<u8>>,
    ipv6_prefix: u8,
    exempt: Vec<ipnet::IpNet>,
}

impl Default for LimitTable {
    fn default() -> LimitTable {
        LimitTable {
            action: None,
            entries: Default::default(),
            warn_at: None,
            ipv6_prefix: default::CONNECTION_IPV6_PREFIX,
            exempt: Vec::new(),
        }
    }
}

impl LimitTable {
    /// Reads the key `limits` of a file.
    pub fn read(file: &Table<'_>, scope: Scope) -> LimitTable {
        let mut limits = LimitTable::default();
        let Some(table) = file.table("limits", &LIMITS) else { return limits };
        limits.action = table.get("action").and_then(|item| item.choice(ACTIONS));
        limits.warn_at = table.get("warn_at").map(|item| read_levels(&item));
        if let (Scope::Customer, Some(item)) = (scope, table.get("connection")) {
            let title = "`limits.connection` cannot be set for one customer";
            let label = "connections are limited before the customer is known";
            item.report.error(item.span(), Complaint::new(title, label).help("set it in the main file"));
        }
        for section in SECTIONS.iter().filter(|section| scope == Scope::Installation || section.key != "connection") {
            let Some(limits_of_section) = table.table(section.key, section.spec) else { continue };
            for &(name, key) in section.limits {
                if let Some(item) = limits_of_section.get(name) {
                    limits.entries[key as usize] = read_entry(&item, key);
                }
            }
            if section.key == "connection" {
                limits.read_connection(&limits_of_section);
            }
        }
        limits
    }

    /// What `limits.connection` has besides limits.
    fn read_connection(&mut self, connection: &Table<'_>) {
        if let Some(length) = connection.get("ipv6_prefix").and_then(|item| item.number(1..=128, "64")) {
            self.ipv6_prefix = length as u8;
        }
        if let Some(item) = connection.get("exempt") {
            self.exempt = item.parsed_list("192.0.2.0/24", networks::net);
        }
    }

    /// A customer's limits, with the installation's where the customer has none. An action is looked up in this order:
    /// the customer's limit, the customer's `limits.action`, the installation's limit, its `limits.action`.
    pub fn over<'l>(&'l self, installation: &'l LimitTable) -> Cow<'l, LimitTable> {
        if *self == LimitTable::default() {
            return Cow::Borrowed(installation);
        }
        let mut merged = installation.clone();
        for (entry, own) in merged.entries.iter_mut().zip(&self.entries) {
            entry.max = own.max.or(entry.max);
            entry.action = own.action.or(self.action).or(entry.action);
            entry.shadow = own.shadow.or(entry.shadow);
        }
        if self.warn_at.is_some() {
            merged.warn_at.clone_from(&self.warn_at);
        }
        Cow::Owned(merged)
    }

    fn rule(&self, key: LimitKey) -> LimitRule {
        let entry = &self.entries[key as usize];
        LimitRule {
            max: entry.max.unwrap_or(default::max(key)),
            action: entry.action.or(self.action).unwrap_or(default::ACTION),
            shadow: entry.shadow.unwrap_or(false),
        }
    }

    pub fn rules(&self) -> LimitRules {
        LimitRules {
            rules: std::array::from_fn(|n| self.rule(LimitKey::ALL[n])),
            warn_at: self.warn_at.clone().unwrap_or_else(|| default::WARN_AT.to_vec()),
        }
    }

    pub fn connection(&self) -> ConnectionLimits {
        ConnectionLimits {
            per_minute: self.rule(LimitKey::ConnectionsPerMinute),
            simultaneous: self.rule(LimitKey::ConnectionsSimultaneous),
            generic_helo_per_minute: self.rule(LimitKey::GenericHeloPerMinute),
            ipv6_prefix: self.ipv6_prefix,
            exempt: self.exempt.clone(),
        }
    }
}

/// `N`, `"unlimited"`, or a table.
fn read_entry(item: &Item<'_>, key: LimitKey) -> Entry {
    match item.value() {
        DeValue::Table(entries) => read_rule(&Table::new(item.report, entries, item.span(), &RULE), key, &item.name()),
        DeValue::Integer(_) | DeValue::String(_) => Entry { max: read_max(item), ..Entry::default() },
        _ => {
            item.wrong_type("a number, \"unlimited\" or a table", "1000");
            Entry::default()
        }
    }
}

fn read_rule(table: &Table<'_>, key: LimitKey, name: &str) -> Entry {
    let max = table.get("max").map(|item| (item, read_max(&item)));
    let per_license = table.get("per_license").map(|item| (item, item.number(1..=LARGEST, "130")));
    let cap = table.get("cap").map(|item| (item, item.number(1..=LARGEST, "4_600_000")));
    if let (Some(_), Some((item, _))) = (&max, &per_license) {
        let title = format!("`{name}` has both `max` and `per_license`");
        item.report.error(item.span(), Complaint::new(title, "only one of the two is allowed").help("remove one"));
    }
    if let (None, Some((item, _))) = (&per_license, &cap) {
        let title = format!("`{name}` has `cap` without `per_license`");
        let help = "write `max = N`, or `per_license = N, cap = N`";
        item.report.error(item.span(), Complaint::new(title, "there is nothing to cap").help(help));
    }
    if let Some((item, _)) = &per_license
        && !key.can_be_per_license()
    {
        let title = format!("`{name}` cannot be set per licence");
        item.report
            .error(item.span(), Complaint::new(title, "it is the same for all customers").help("write `max = N`"));
    }
    let per_license = per_license
        .and_then(|(_, number)| Some(MaxRule::PerLicense { per_license: number?, cap: cap.and_then(|(_, cap)| cap) }));
    Entry {
        max: max.and_then(|(_, max)| max).or(per_license),
        action: table.get("action").and_then(|item| item.choice(ACTIONS)),
        shadow: table.get("shadow").and_then(|item| item.boolean()),
    }
}

fn read_max(item: &Item<'_>) -> Option<MaxRule> {
    if let DeValue::String(text) = item.value() {
        if text == "unlimited" {
            return Some(MaxRule::Unlimited);
        }
        let number = text.replace(['_', ',', ' '], "");
        let complaint =
            Complaint::new(format!("{} is not a valid limit", quoted(text)), "expected a number or \"unlimited\"");
        item.error(match number.parse::<u64>() {
            Ok(number) => complaint.help(format!("write the number without quotes: {number}")),
            Err(_) => complaint.help("write a number, \"unlimited\", or { per_license = N, cap = N }"),
        });
        return None;
    }
    let number = item.number(0..=LARGEST, "1000")?;
    if number == 0 {
        let label = "nothing passes a limit of 0";
        item.warning(Complaint::new("this refuses all mail", label).help("to have no limit, write \"unlimited\""));
    }
    Some(MaxRule::Number(number))
}

/// Percentages at which the customer's administrators get mail.
fn read_levels(item: &Item<'_>) -> Vec<u8> {
    let mut levels: Vec<u8> =
        item.list("80, 90, 100").iter().filter_map(|level| Some(level.number(1..=100, "80")? as u8)).collect();
    levels.sort_unstable();
    levels.dedup();
    levels
}
