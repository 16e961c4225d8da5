//! `[limits]`: the installation's, and over them a customer's own.

use super::model::{ConnectionLimits, LimitRule, LimitRules, MaxRule};
use super::networks;
use super::reader::{Item, Spec, Table};
use super::report::Complaint;
use super::source::quoted;
use crate::directory::Action;
use std::borrow::Cow;
use toml::de::DeValue;

/// No limit is larger, so that sums never overflow.
const LARGEST: u64 = 1_000_000_000_000_000;
const ACTIONS: &[(&str, Action)] = &[("defer", Action::Defer), ("reject", Action::Reject)];

macro_rules! spec {
    ($name:ident, $what:literal, $prefix:literal, $keys:expr) => {
        static $name: Spec = Spec { what: $what, prefix: $prefix, keys: $keys, neighbours: &[] };
    };
}

/// The keys of `[limits]`; most hold a table of limits.
pub(super) static LIMITS: Spec = Spec {
    what: "[limits]",
    prefix: "limits.",
    keys: &["action", "warn_at", "transaction", "user", "customer", "unpaid", "login", "connection", "message"],
    neighbours: &[&TRANSACTION, &USER, &CUSTOMER, &LOGIN, &CONNECTION, &MESSAGE],
};
spec!(TRANSACTION, "limits.transaction", "limits.transaction.", &["recipients"]);
spec!(USER, "limits.user", "limits.user.", &["messages_per_day", "unique_recipients_per_day"]);
spec!(CUSTOMER, "limits.customer", "limits.customer.", &["recipients_per_day", "recipients_per_10_min"]);
spec!(UNPAID, "limits.unpaid", "limits.unpaid.", &["recipients_per_day", "recipients_per_10_min"]);
spec!(LOGIN, "limits.login", "limits.login.", &["messages_per_day", "unique_recipients_per_day"]);
spec!(
    CONNECTION,
    "limits.connection",
    "limits.connection.",
    &["per_minute", "simultaneous", "generic_helo_per_minute", "ipv6_prefix", "exempt"]
);
spec!(MESSAGE, "limits.message", "limits.message.", &["bytes", "attachments_bytes"]);
spec!(RULE, "a limit", "", &["max", "per_license", "cap", "action", "shadow"]);

/// What a file says about one limit; what it does not say is inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Entry {
    max: Option<MaxRule>,
    action: Option<Action>,
    shadow: Option<bool>,
}

/// The places of the limits in a [`LimitTable`].
#[derive(Clone, Copy)]
enum Key {
    TransactionRecipients,
    UserMessages,
    UserUniques,
    LoginMessages,
    LoginUniques,
    CustomerDay,
    CustomerPeak,
    UnpaidDay,
    UnpaidPeak,
    MessageBytes,
    AttachmentsBytes,
    ConnectionsPerMinute,
    ConnectionsSimultaneous,
    GenericHelo,
}

const COUNT: usize = Key::GenericHelo as usize + 1;

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
    entries: [Entry; COUNT],
    warn_at: Option<Vec<u8>>,
    ipv6_prefix: u8,
    exempt: Vec<ipnet::IpNet>,
}

impl Default for LimitTable {
    fn default() -> LimitTable {
        LimitTable { action: None, entries: Default::default(), warn_at: None, ipv6_prefix: 64, exempt: Vec::new() }
    }
}

impl LimitTable {
    /// Reads the key `limits` of a file.
    pub fn read(file: &Table<'_>, scope: Scope) -> LimitTable {
        let mut limits = LimitTable::default();
        let Some(table) = file.table("limits", &LIMITS) else { return limits };
        limits.action = table.get("action").and_then(|item| item.choice(ACTIONS));
        limits.warn_at = table.get("warn_at").map(|item| read_levels(&item));
        if let Some(transaction) = table.table("transaction", &TRANSACTION) {
            limits.entry(&transaction, "recipients", Key::TransactionRecipients);
        }
        if let Some(user) = table.table("user", &USER) {
            limits.entry(&user, "messages_per_day", Key::UserMessages);
            limits.entry(&user, "unique_recipients_per_day", Key::UserUniques);
        }
        if let Some(login) = table.table("login", &LOGIN) {
            limits.entry(&login, "messages_per_day", Key::LoginMessages);
            limits.entry(&login, "unique_recipients_per_day", Key::LoginUniques);
        }
        if let Some(customer) = table.table("customer", &CUSTOMER) {
            limits.entry(&customer, "recipients_per_day", Key::CustomerDay);
            limits.entry(&customer, "recipients_per_10_min", Key::CustomerPeak);
        }
        if let Some(unpaid) = table.table("unpaid", &UNPAID) {
            limits.entry(&unpaid, "recipients_per_day", Key::UnpaidDay);
            limits.entry(&unpaid, "recipients_per_10_min", Key::UnpaidPeak);
        }
        if let Some(message) = table.table("message", &MESSAGE) {
            limits.entry(&message, "bytes", Key::MessageBytes);
            limits.entry(&message, "attachments_bytes", Key::AttachmentsBytes);
        }
        match scope {
            Scope::Installation => limits.read_connection(&table),
            Scope::Customer => {
                if let Some(item) = table.get("connection") {
                    let title = "`limits.connection` cannot be set for one customer";
                    let label = "connections are limited before the customer is known";
                    item.report.error(item.span(), Complaint::new(title, label).help("set it in the main file"));
                }
            }
        }
        limits
    }

    fn read_connection(&mut self, limits: &Table<'_>) {
        let Some(connection) = limits.table("connection", &CONNECTION) else { return };
        self.entry(&connection, "per_minute", Key::ConnectionsPerMinute);
        self.entry(&connection, "simultaneous", Key::ConnectionsSimultaneous);
        self.entry(&connection, "generic_helo_per_minute", Key::GenericHelo);
        if let Some(length) = connection.get("ipv6_prefix").and_then(|item| item.number(1..=128, "64")) {
            self.ipv6_prefix = length as u8;
        }
        if let Some(item) = connection.get("exempt") {
            self.exempt = item.parsed_list("192.0.2.0/24", networks::net);
        }
    }

    fn entry(&mut self, table: &Table<'_>, name: &'static str, key: Key) {
        if let Some(item) = table.get(name) {
            self.entries[key as usize] = read_entry(&item, key);
        }
    }

    /// A customer's limits, filled up with the installation's. For one limit the customer's own words come first, then
    /// the customer's `limits.action`, then what the installation says about the limit, then its `limits.action`.
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

    fn rule(&self, key: Key) -> LimitRule {
        let entry = &self.entries[key as usize];
        LimitRule {
            max: entry.max.unwrap_or(default_max(key)),
            action: entry.action.or(self.action).unwrap_or_default(),
            shadow: entry.shadow.unwrap_or(false),
        }
    }

    pub fn rules(&self) -> LimitRules {
        LimitRules {
            transaction_recipients: self.rule(Key::TransactionRecipients),
            user_messages: self.rule(Key::UserMessages),
            user_uniques: self.rule(Key::UserUniques),
            login_messages: self.rule(Key::LoginMessages),
            login_uniques: self.rule(Key::LoginUniques),
            customer_day: self.rule(Key::CustomerDay),
            customer_peak: self.rule(Key::CustomerPeak),
            unpaid_day: self.rule(Key::UnpaidDay),
            unpaid_peak: self.rule(Key::UnpaidPeak),
            message_bytes: self.rule(Key::MessageBytes),
            attachments_bytes: self.rule(Key::AttachmentsBytes),
            warn_at: self.warn_at.clone().unwrap_or_else(|| vec![80, 90, 100]),
        }
    }

    pub fn connection(&self) -> ConnectionLimits {
        ConnectionLimits {
            per_minute: self.rule(Key::ConnectionsPerMinute),
            simultaneous: self.rule(Key::ConnectionsSimultaneous),
            generic_helo_per_minute: self.rule(Key::GenericHelo),
            ipv6_prefix: self.ipv6_prefix,
            exempt: self.exempt.clone(),
        }
    }
}

/// The numbers of the hosted service.
fn default_max(key: Key) -> MaxRule {
    match key {
        Key::TransactionRecipients => MaxRule::Number(100),
        Key::UserMessages | Key::UserUniques => MaxRule::Number(10_000),
        Key::CustomerDay => MaxRule::PerLicense { per_license: 130, cap: Some(4_600_000) },
        Key::CustomerPeak => MaxRule::PerLicense { per_license: 9, cap: Some(319_444) },
        Key::UnpaidDay => MaxRule::Number(100),
        Key::UnpaidPeak => MaxRule::Number(50),
        Key::LoginMessages | Key::LoginUniques | Key::MessageBytes => MaxRule::Unlimited,
        Key::AttachmentsBytes => MaxRule::Number(26_214_400),
        Key::ConnectionsPerMinute => MaxRule::Number(120),
        Key::ConnectionsSimultaneous => MaxRule::Number(50),
        Key::GenericHelo => MaxRule::Number(10),
    }
}

/// `N`, `"unlimited"`, or a table.
fn read_entry(item: &Item<'_>, key: Key) -> Entry {
    match item.value() {
        DeValue::Table(entries) => read_rule(&Table::new(item.report, entries, item.span(), &RULE), key, &item.name()),
        DeValue::Integer(_) | DeValue::String(_) => Entry { max: read_max(item), ..Entry::default() },
        _ => {
            item.wrong_type("a number, \"unlimited\" or a table", "1000");
            Entry::default()
        }
    }
}

fn read_rule(table: &Table<'_>, key: Key, name: &str) -> Entry {
    let max = table.get("max").map(|item| (item, read_max(&item)));
    let per_license = table.get("per_license").map(|item| (item, item.number(1..=LARGEST, "130")));
    let cap = table.get("cap").map(|item| (item, item.number(1..=LARGEST, "4_600_000")));
    if let (Some(_), Some((item, _))) = (&max, &per_license) {
        let title = format!("`{name}` has both `max` and `per_license`");
        item.report.error(item.span(), Complaint::new(title, "only one of the two can be").help("leave out one"));
    }
    if let (None, Some((item, _))) = (&per_license, &cap) {
        let title = format!("`{name}` has `cap` without `per_license`");
        let help = "write `max = N`, or `per_license = N, cap = N`";
        item.report.error(item.span(), Complaint::new(title, "it caps nothing").help(help));
    }
    if let Some((item, _)) = &per_license
        && !counts_for_customer(key)
    {
        let title = format!("`{name}` cannot be counted per licence");
        item.report.error(item.span(), Complaint::new(title, "it is one number for all").help("write `max = N`"));
    }
    let per_license = per_license
        .and_then(|(_, number)| Some(MaxRule::PerLicense { per_license: number?, cap: cap.and_then(|(_, cap)| cap) }));
    Entry {
        max: max.and_then(|(_, max)| max).or(per_license),
        action: table.get("action").and_then(|item| item.choice(ACTIONS)),
        shadow: table.get("shadow").and_then(|item| item.boolean()),
    }
}

fn counts_for_customer(key: Key) -> bool {
    !matches!(
        key,
        Key::MessageBytes
            | Key::AttachmentsBytes
            | Key::ConnectionsPerMinute
            | Key::ConnectionsSimultaneous
            | Key::GenericHelo
    )
}

fn read_max(item: &Item<'_>) -> Option<MaxRule> {
    if let DeValue::String(text) = item.value() {
        if text == "unlimited" {
            return Some(MaxRule::Unlimited);
        }
        let number = text.replace(['_', ',', ' '], "");
        let complaint =
            Complaint::new(format!("{} is no limit", quoted(text)), "the only word for a limit is \"unlimited\"");
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

/// Percentages at which the customer's administrators are told.
fn read_levels(item: &Item<'_>) -> Vec<u8> {
    let mut levels: Vec<u8> =
        item.list("80, 90, 100").iter().filter_map(|level| Some(level.number(1..=100, "80")? as u8)).collect();
    levels.sort_unstable();
    levels.dedup();
    levels
}
