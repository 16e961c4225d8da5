//! `[[setting]]` and `[[setting.ip]]`: the ways in for a customer's mail.

use super::report_twice;
use crate::config::defaults::customer as default;
use crate::config::limits::ACTIONS;
use crate::config::reading::{Complaint, Item, Table, TableSpec, quoted};
use crate::config::values::{self, networks};
use crate::directory::{AddressRanges, AllowedSenders, Range, Setting};
use hashbrown::HashMap;
use toml::de::DeValue;

pub(super) static SETTING: TableSpec = TableSpec {
    what: "[[setting]]",
    prefix: "setting.",
    keys: &["name", "enabled", "allowed_senders", "require_auth", "require_tls", "action", "shadow", "ip"],
};
pub(super) static IP: TableSpec =
    TableSpec { what: "[[setting.ip]]", prefix: "setting.ip.", keys: &["description", "range", "enabled"] };

pub(super) fn read_settings<'t>(customer: &Table<'t>, max_range_addresses: u64) -> Vec<Setting> {
    let tables = customer.tables("setting", &SETTING);
    if tables.is_empty() && !customer.report.has_syntax_errors() && !customer.entries.contains_key("setting") {
        let complaint = Complaint::new("the customer has no [[setting]]", "none of its mail will be relayed");
        customer
            .report
            .warning(0..0, complaint.help("add a [[setting]] with allowed_senders and [[setting.ip]] or require_auth"));
    }
    let mut names: HashMap<&str, Item<'_>> = HashMap::new();
    let mut settings = Vec::with_capacity(tables.len());
    for table in &tables {
        if let Some(name) = table.get("name")
            && let DeValue::String(text) = name.value()
            && let Some(first) = names.insert(text.trim(), name)
        {
            report_twice(customer.report, format!("two settings are called {}", quoted(text)), &name, &first);
        }
        settings.extend(read_setting(table, max_range_addresses));
    }
    settings
}

fn read_setting(table: &Table<'_>, max_range_addresses: u64) -> Option<Setting> {
    let name = table.required("name", "name = \"head office\"");
    let name = name.and_then(|item| item.parsed("head office", |text| values::name(text).map(str::to_owned)));
    let enabled = boolean(table, "enabled", default::SETTING_ENABLED);
    let allowed_senders =
        table.required("allowed_senders", "allowed_senders = \"registered-users\"").and_then(|item| {
            let words = [AllowedSenders::RegisteredUsers, AllowedSenders::OwnDomains, AllowedSenders::Any];
            item.choice(&words.map(|word| (word.key(), word)))
        });
    let require_auth = boolean(table, "require_auth", default::REQUIRE_AUTH);
    let require_tls = boolean(table, "require_tls", default::REQUIRE_TLS);
    let action = table.get("action").and_then(|item| item.choice(ACTIONS));
    let shadow = boolean(table, "shadow", default::SHADOW);
    let ip_tables = table.tables("ip", &IP);
    let ranges: Vec<Range> = ip_tables.iter().filter_map(|ip| read_range(ip, max_range_addresses)).collect();
    // An empty list of ranges is none; one that is no list is an error already.
    let has_ip = !ip_tables.is_empty()
        || table.get("ip").is_some_and(|item| item.value().as_array().is_none_or(|list| !list.is_empty()));
    if require_auth == Some(false) && !has_ip && !table.report.has_syntax_errors() {
        let (span, label) = match table.get("ip") {
            Some(item) => (item.span(), "an empty list demands no address: anybody would be admitted"),
            None => (table.span(), "anybody would be admitted"),
        };
        let help = "add a [[setting.ip]] with the clients' addresses, or require_auth = true, or both";
        table.report.error(span, Complaint::new("the setting demands neither an address nor AUTH", label).help(help));
    }
    let none_enabled = !ranges.is_empty() && ranges.iter().all(|range| !range.enabled);
    if none_enabled && enabled == Some(true) {
        let complaint = Complaint::new("no range of the setting is enabled", "it admits nobody");
        table
            .report
            .warning(table.span(), complaint.help("enable a [[setting.ip]], or write enabled = false for the setting"));
    }
    if let (Some(true), Some(item)) = (require_auth, table.get("require_tls"))
        && require_tls == Some(false)
    {
        let label = "this has no effect: AUTH is accepted over TLS only";
        item.warning(Complaint::new("require_auth needs TLS in any case", label).help("remove this line"));
    }
    Some(Setting {
        name: name?.into(),
        enabled: enabled?,
        allowed_senders: allowed_senders?,
        require_auth: require_auth?,
        require_tls: require_tls?,
        action,
        enabled_ranges: AddressRanges::new(ranges.iter().filter(|range| range.enabled).map(|range| range.net)),
        ranges,
        shadow: shadow?,
    })
}

fn read_range(table: &Table<'_>, max_addresses: u64) -> Option<Range> {
    let description = match table.get("description") {
        Some(item) => item.string("HQ, both uplinks")?.into(),
        None => String::new(),
    };
    let enabled = boolean(table, "enabled", default::RANGE_ENABLED);
    let range = table.required("range", "range = \"192.0.2.0/24\"");
    let net = range.and_then(|item| item.parsed("192.0.2.0/24", |text| networks::range(text, max_addresses)));
    if let (Some(item), Some(net)) = (range, net)
        && net.prefix_len() == 0
    {
        let complaint =
            Complaint::new(format!("{net} is every IPv4 address"), "anybody would count as this customer's");
        item.warning(complaint.help("write the addresses of the customer's own clients"));
    }
    Some(Range { description, net: net?, enabled: enabled? })
}

fn boolean(table: &Table<'_>, key: &'static str, default: bool) -> Option<bool> {
    table.get(key).map_or(Some(default), |item| item.boolean())
}
