//! A customer's file: TOML → [`Customer`]. All errors are reported; what can be read in spite of them is told, too.

use super::customer_users::{CustomerUsers, SENDER, USER, UsersReader};
use super::diagnostic::{Diagnostic, Problems, Severity};
use super::gateway::gateway;
use super::limits::{LimitTable, Scope};
use super::networks;
use super::reader::{Item, Spec, Table};
use super::report::{Complaint, Report};
use super::source::{Source, quoted};
use super::values;
use crate::directory::{
    AddressRanges, AllowedSenders, ArchiveAddress, Billing, Customer, OwnDomains, Range, Setting, User,
};
use crate::envelope::{Domain, is_public_suffix};
use hashbrown::HashMap;
use ipnet::IpNet;
use std::path::{Path, PathBuf};

pub(super) static CUSTOMER: Spec = Spec {
    what: "the customer's top level",
    prefix: "",
    keys: &[
        "name",
        "domains",
        "licenses",
        "billing",
        "admins",
        "users_file",
        "archive_to",
        "user_gateways",
        "outbound_gateway",
        "limits",
        "user",
        "setting",
    ],
    neighbours: &[&SETTING, &IP, &USER, &SENDER],
};
pub(super) static SETTING: Spec = Spec {
    what: "[[setting]]",
    prefix: "setting.",
    keys: &["name", "enabled", "allowed_senders", "require_auth", "require_tls", "shadow", "ip"],
    neighbours: &[&CUSTOMER, &IP, &USER],
};
static IP: Spec = Spec {
    what: "[[setting.ip]]",
    prefix: "setting.ip.",
    keys: &["description", "range", "enabled"],
    neighbours: &[&CUSTOMER, &SETTING, &USER],
};

/// What of the main file a customer's file depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Surroundings {
    pub limits: LimitTable,
    pub max_range_addresses: u64,
    /// `relay.private_gateways`
    pub private_gateways: Vec<IpNet>,
    /// Whether any milter socket is there (`listen.milter`).
    pub has_milter: bool,
    /// Whether anybody can ask for gateways (`listen.socketmap`).
    pub has_socketmap: bool,
}

/// What came of a customer's file.
#[derive(Debug)]
pub(super) struct ParsedFile {
    /// `None` if there is any error.
    pub customer: Option<Customer>,
    pub salvage: Salvage,
    pub problems: Problems,
    /// The other files that were looked at.
    pub others: Vec<PathBuf>,
}

/// What is known of a customer whose file has errors.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    pub domains: Vec<Domain>,
    /// Whether there may be domains besides.
    pub is_doubtful: bool,
    pub logins: Vec<Box<str>>,
    /// Further sender addresses.
    pub senders: Vec<Box<str>>,
}

impl ParsedFile {
    pub fn unreadable(problem: Diagnostic) -> ParsedFile {
        let mut problems = Problems::default();
        problems.push(problem);
        let salvage = Salvage { is_doubtful: true, ..Salvage::default() };
        ParsedFile { customer: None, salvage, problems, others: Vec::new() }
    }
}

pub(super) fn read_customer(source: &Source, surroundings: &Surroundings) -> ParsedFile {
    let (report, root) = Report::parse(source);
    let table = Table::new(&report, root.get_ref(), 0..0, &CUSTOMER);
    let reader = Reader { report: &report };

    let name = table.required("name", "name = \"acme\"").and_then(|item| item.parsed("acme", values::customer_name));
    let (domains, is_doubtful) = reader.domains(&table);
    let licenses = table.required("licenses", "licenses = 250").and_then(|item| item.number(1..=1_000_000_000, "250"));
    let billing = table.get("billing").map_or(Some(Billing::Paid), |item| {
        item.choice(&[("paid", Billing::Paid), ("unpaid", Billing::Unpaid), ("trial", Billing::Trial)])
    });
    let admins = table.get("admins").map(|item| item.parsed_list("it@acme.example", values::address));
    let archive_to = table.get("archive_to").and_then(|item| reader.archive_to(&item, surroundings));
    let user_gateways = table.get("user_gateways").and_then(|item| item.boolean()).unwrap_or(false);
    let outbound_gateway =
        table.get("outbound_gateway").and_then(|item| next_hop(&item, "[mx.acme.example]:25", surroundings));
    let limits = LimitTable::read(&table, Scope::Customer);
    let settings = reader.settings(&table, surroundings.max_range_addresses);
    let CustomerUsers { users, problems: users_problems, others } = {
        let (folder, domains) = (folder_of(&source.path), &OwnDomains::new(&domains));
        UsersReader { report: &report, folder, domains, user_gateways, surroundings, others: Vec::new() }.read(&table)
    };

    let is_good = !report.has_errors() && users_problems.errors() == 0;
    let mut problems = report.into_problems();
    problems.append(users_problems);
    let (Some(name), Some(licenses), Some(billing), true) = (name, licenses, billing, is_good) else {
        let logins = users.iter().flat_map(|user| user.logins.clone()).collect();
        let senders = users.iter().flat_map(further_addresses).collect();
        let salvage = Salvage { domains, is_doubtful, logins, senders };
        return ParsedFile { customer: None, salvage, problems, others };
    };
    let limits = limits.over(&surroundings.limits).rules().for_customer(licenses as u32, billing);
    let customer = Customer {
        name,
        domains,
        licenses: licenses as u32,
        billing,
        admins: admins.unwrap_or_default(),
        archive_to,
        user_gateways,
        outbound_gateway,
        limits,
        settings,
        users,
    };
    ParsedFile { customer: Some(customer), salvage: Salvage::default(), problems, others }
}

pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// A gateway. Postfix learns of it by socketmap only.
pub(super) fn next_hop(item: &Item<'_>, example: &str, surroundings: &Surroundings) -> Option<String> {
    let hop = item.parsed(example, |text| gateway(text, &surroundings.private_gateways))?;
    if !surroundings.has_socketmap {
        let label = "nobody asks: mail goes straight to its recipients";
        let help = "name a socket in listen.socketmap of the main file, and have Postfix ask there";
        item.warning(Complaint::new("this has no effect", label).help(help));
    }
    Some(hop)
}

pub(super) fn further_addresses(user: &User) -> impl Iterator<Item = Box<str>> {
    user.senders.iter().map(|sender| sender.address.clone())
}

struct Reader<'t> {
    report: &'t Report<'t>,
}

impl<'t> Reader<'t> {
    /// The domains, and whether there may be others that could not be read.
    fn domains(&self, table: &Table<'t>) -> (Vec<Domain>, bool) {
        let Some(item) = table.required("domains", "domains = [\"acme.example\"]") else { return (Vec::new(), true) };
        let mut domains = Vec::new();
        let mut seen: HashMap<Domain, Item<'_>> = HashMap::new();
        let entries = item.list("\"acme.example\"");
        let mut is_doubtful = entries.is_empty() || self.report.is_doubtful(item.span());
        for entry in &entries {
            let Some(domain) = entry.parsed("acme.example", values::domain) else {
                is_doubtful = true;
                continue;
            };
            if let Some(first) = seen.get(&domain) {
                self.twice(format!("the domain {domain} is listed twice"), entry, first);
                continue;
            }
            if entries.len() > 1 {
                seen.insert(domain.clone(), *entry);
            }
            if is_public_suffix(domain.as_str()) {
                let label = "others register names below it";
                entry.warning(
                    Complaint::new(format!("subdomains of {domain} are not included"), label)
                        .help("list the names below it that are this customer's, too"),
                );
            }
            domains.push(domain);
        }
        if entries.is_empty() && !self.report.has_errors() {
            item.error(Complaint::new("a customer needs a domain", "empty").help("write domains = [\"acme.example\"]"));
        }
        (domains, is_doubtful)
    }

    fn archive_to(&self, item: &Item<'_>, surroundings: &Surroundings) -> Option<ArchiveAddress> {
        let address = item.parsed("vault@acme.example", values::archive_address)?;
        if !surroundings.has_milter {
            let complaint = Complaint::new("this has no effect", "only a milter can add a recipient");
            item.warning(complaint.help("name a socket in listen.milter of the main file, and have the MTA ask there"));
        }
        Some(address)
    }

    fn twice(&self, title: String, second: &Item<'_>, first: &Item<'_>) {
        self.report.add(Severity::Error, second.span().start, |source| {
            Diagnostic::error(title)
                .at(source.place(second.span(), "the second time"))
                .at(source.place(first.span(), "the first time"))
        });
    }

    fn settings(&self, customer: &Table<'t>, max_range_addresses: u64) -> Vec<Setting> {
        let tables = customer.tables("setting", &SETTING);
        if tables.is_empty() && !self.report.has_syntax_errors() && !customer.entries.contains_key("setting") {
            let complaint = Complaint::new("the customer has no [[setting]]", "none of its mail will be relayed");
            self.report.warning(
                0..0,
                complaint.help("add a [[setting]] with allowed_senders and [[setting.ip]] or require_auth"),
            );
        }
        let mut names: HashMap<&str, Item<'_>> = HashMap::new();
        let mut settings = Vec::with_capacity(tables.len());
        for table in &tables {
            if let Some(name) = table.get("name")
                && let toml::de::DeValue::String(text) = name.value()
                && let Some(first) = names.insert(text.trim(), name)
            {
                self.twice(format!("two settings are called {}", quoted(text)), &name, &first);
            }
            settings.extend(self.setting(table, max_range_addresses));
        }
        settings
    }

    fn setting(&self, table: &Table<'t>, max_range_addresses: u64) -> Option<Setting> {
        let name = table.required("name", "name = \"head office\"");
        let name = name.and_then(|item| item.parsed("head office", |text| values::name(text).map(str::to_owned)));
        let enabled = boolean(table, "enabled", true);
        let allowed_senders =
            table.required("allowed_senders", "allowed_senders = \"registered-users\"").and_then(|item| {
                let words = [AllowedSenders::RegisteredUsers, AllowedSenders::OwnDomains, AllowedSenders::Any];
                item.choice(&words.map(|word| (word.key(), word)))
            });
        let require_auth = boolean(table, "require_auth", false);
        let require_tls = boolean(table, "require_tls", false);
        let shadow = boolean(table, "shadow", false);
        let ip_tables = table.tables("ip", &IP);
        let ranges: Vec<Range> = ip_tables.iter().filter_map(|ip| self.range(ip, max_range_addresses)).collect();
        if require_auth == Some(false) && !table.entries.contains_key("ip") && !self.report.has_syntax_errors() {
            let complaint = Complaint::new("the setting chooses no authentication", "this would admit anybody");
            let help = "add a [[setting.ip]] with the client's addresses, or require_auth = true, or both";
            self.report.error(table.span(), complaint.help(help));
        }
        let is_empty = !ranges.is_empty() && ranges.iter().all(|range| !range.enabled);
        if is_empty && enabled == Some(true) {
            let complaint = Complaint::new("no range of the setting is enabled", "it admits nobody");
            self.report
                .warning(table.span(), complaint.help("enable a [[setting.ip]], or write enabled = false here, too"));
        }
        if let (Some(true), Some(item)) = (require_auth, table.get("require_tls"))
            && require_tls == Some(false)
        {
            let label = "AUTH is taken over TLS only, so this has no effect";
            item.warning(Complaint::new("require_auth needs TLS in any case", label).help("leave this line out"));
        }
        Some(Setting {
            name: name?.into(),
            enabled: enabled?,
            allowed_senders: allowed_senders?,
            require_auth: require_auth?,
            require_tls: require_tls?,
            enabled_ranges: AddressRanges::new(ranges.iter().filter(|range| range.enabled).map(|range| range.net)),
            ranges,
            shadow: shadow?,
        })
    }

    fn range(&self, table: &Table<'t>, max_addresses: u64) -> Option<Range> {
        let description = match table.get("description") {
            Some(item) => item.string("HQ, both uplinks")?.into(),
            None => String::new(),
        };
        let enabled = boolean(table, "enabled", true);
        let range = table.required("range", "range = \"192.0.2.0/24\"");
        let net = range.and_then(|item| item.parsed("192.0.2.0/24", |text| networks::range(text, max_addresses)));
        Some(Range { description, net: net?, enabled: enabled? })
    }
}

fn boolean(table: &Table<'_>, key: &'static str, default: bool) -> Option<bool> {
    table.get(key).map_or(Some(default), |item| item.boolean())
}
