//! A customer's file: TOML → [`Customer`]. All errors are reported; what can be read in spite of them is told, too.

use super::diagnostic::{Diagnostic, MAX_SHOWN_OF_FILE, Problems, Severity};
use super::gateway::{gateway, password_file};
use super::limits::{LimitTable, Scope};
use super::locate;
use super::reader::{Item, Spec, Table};
use super::report::{Complaint, Report};
use super::source::{MAX_USERS_FILE, Place, Source, quoted};
use super::unreadable::describe;
use super::users_file::{FileUsers, foreign_domain, read_users};
use super::values;
use crate::directory::{
    AddressRanges, AllowedSenders, Billing, Customer, FurtherSender, OwnDomains, Range, Setting, User, UserId, Users,
};
use crate::envelope::{Address, Domain, is_public_suffix};
use hashbrown::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

static CUSTOMER: Spec = Spec {
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
static SETTING: Spec = Spec {
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
static USER: Spec = Spec {
    what: "[[user]]",
    prefix: "user.",
    keys: &["address", "aliases", "logins", "sender"],
    neighbours: &[&CUSTOMER, &SENDER, &SETTING],
};
static SENDER: Spec = Spec {
    what: "[[user.sender]]",
    prefix: "user.sender.",
    keys: &["address", "gateway", "username", "password_file"],
    neighbours: &[&CUSTOMER, &USER, &SETTING],
};

/// What of the main file a customer's file depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Surroundings {
    pub limits: LimitTable,
    pub max_range_addresses: u64,
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
    let mut reader = Reader { report: &report, folder: folder_of(&source.path), others: Vec::new() };

    let name = table.required("name", "name = \"acme\"").and_then(|item| item.parsed("acme", values::customer_name));
    let (domains, is_doubtful) = reader.domains(&table);
    let licenses = table.required("licenses", "licenses = 250").and_then(|item| item.number(1..=1_000_000_000, "250"));
    let billing = table.get("billing").map_or(Some(Billing::Paid), |item| {
        item.choice(&[("paid", Billing::Paid), ("unpaid", Billing::Unpaid), ("trial", Billing::Trial)])
    });
    let admins = table.get("admins").map(|item| item.parsed_list("it@acme.example", values::address));
    let archive_to = table.get("archive_to").and_then(|item| item.parsed("vault@acme.example", values::address));
    let user_gateways = table.get("user_gateways").and_then(|item| item.boolean()).unwrap_or(false);
    let outbound_gateway = table.get("outbound_gateway").and_then(|item| item.parsed("[mx.acme.example]:25", gateway));
    let limits = LimitTable::read(&table, Scope::Customer);
    let settings = reader.settings(&table, surroundings.max_range_addresses);
    let (users, users_problems) = reader.users(&table, &OwnDomains::new(&domains), user_gateways);

    let others = reader.others;
    let is_good = !report.has_errors() && users_problems.errors() == 0;
    let mut problems = report.into_problems();
    problems.append(users_problems);
    let (Some(name), Some(licenses), Some(billing), true) = (name, licenses, billing, is_good) else {
        let logins = users.iter().flat_map(|user| user.logins.clone()).collect();
        return ParsedFile { customer: None, salvage: Salvage { domains, is_doubtful, logins }, problems, others };
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

struct Reader<'t> {
    report: &'t Report<'t>,
    folder: &'t Path,
    others: Vec<PathBuf>,
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
        let net = range.and_then(|item| item.parsed("192.0.2.0/24", |text| values::range(text, max_addresses)));
        Some(Range { description, net: net?, enabled: enabled? })
    }

    /// Inline users first, then those of the file. The problems are those of the users file.
    fn users(&mut self, customer: &Table<'t>, domains: &OwnDomains<'_>, user_gateways: bool) -> (Users, Problems) {
        let tables = customer.tables("user", &USER);
        let mut list = Vec::with_capacity(tables.len());
        let mut tables_of = Vec::with_capacity(tables.len());
        for table in &tables {
            if let Some(user) = self.user(table, domains, user_gateways) {
                list.push(user);
                tables_of.push(*table);
            }
        }
        let file = customer.get("users_file").and_then(|item| self.users_source(&item));
        let mut from_file = match &file {
            Some(source) => read_users(source, domains),
            None => FileUsers::default(),
        };
        list.append(&mut from_file.users);
        let origins = Origins { inline: tables_of, file: file.as_ref(), offsets: from_file.offsets };
        let mut problems = from_file.problems;
        report_double_logins(self.report, &list, &origins);
        let (users, duplicates) = Users::with_duplicates(list);
        for duplicate in duplicates {
            if !problems.has_room_within(Severity::Error, MAX_SHOWN_OF_FILE) {
                problems.count(Severity::Error);
                continue;
            }
            let (first, second) = (duplicate.first, duplicate.second);
            let nth = usize::from(first == second);
            let error = Diagnostic::error(format!("the address {} is registered twice", duplicate.address))
                .at(origins.place(self.report, second, &duplicate.address, nth, "the second time"))
                .at(origins.place(self.report, first, &duplicate.address, 0, "the first time"));
            problems.push_within(error, MAX_SHOWN_OF_FILE);
        }
        (users, problems)
    }

    fn users_source(&mut self, item: &Item<'_>) -> Option<Source> {
        let path: Arc<Path> = self.folder.join(item.string("acme.users")?).into();
        self.others.push(path.to_path_buf());
        match Source::read(path.clone(), MAX_USERS_FILE) {
            Ok(source) => Some(source),
            Err(error) => {
                self.report.add(Severity::Error, item.span().start, |source| {
                    let error = describe(error, path, "users_file").at(source.place(item.span(), "named here"));
                    error.help("the path is relative to the file that names it")
                });
                None
            }
        }
    }

    fn user(&mut self, table: &Table<'t>, domains: &OwnDomains<'_>, user_gateways: bool) -> Option<User> {
        let address =
            table.required("address", "address = \"kim@acme.example\"").and_then(|item| own_address(&item, domains));
        let mut aliases = Vec::new();
        if let Some(item) = table.get("aliases") {
            let entries = item.list("\"k.im@acme.example\"");
            aliases.reserve_exact(entries.len());
            aliases.extend(entries.iter().filter_map(|item| Some(own_address(item, domains)?.as_str().into())));
        }
        let mut logins: Vec<Box<str>> = Vec::new();
        if let Some(item) = table.get("logins") {
            logins = item.parsed_list("kim", |text| Ok(values::login(text)?.into()));
        }
        let mut senders = Vec::new();
        if table.entries.contains_key("sender") {
            let tables = table.tables("sender", &SENDER);
            senders = tables.iter().filter_map(|sender| self.sender(sender, domains, user_gateways)).collect();
        }
        Some(User { address: address?.as_str().into(), aliases, logins, senders })
    }

    fn sender(&mut self, table: &Table<'t>, domains: &OwnDomains<'_>, user_gateways: bool) -> Option<FurtherSender> {
        let address = table.required("address", "address = \"kim@partner.example\"").and_then(|item| {
            let address = item.parsed("kim@partner.example", values::address)?;
            if domains.hold(address.domain()) {
                let complaint =
                    Complaint::new(format!("{address} is in the customer's own domain"), "not a further sender");
                item.error(complaint.help("list it among the user's `aliases`"));
                return None;
            }
            Some(address)
        });
        let gateway_item = table.get("gateway");
        let gateway = gateway_item.and_then(|item| item.parsed("[smtp.partner.example]:587", gateway));
        if let (Some(item), false) = (gateway_item, user_gateways) {
            let complaint = Complaint::new("users of this customer may not have gateways", "not allowed");
            item.error(complaint.help("write `user_gateways = true` above the first header, or leave the gateway out"));
        }
        let username_item = table.get("username");
        let username = username_item.and_then(|item| item.string("kim").map(str::to_owned));
        let password_item = table.get("password_file");
        let password_file = password_item.and_then(|item| {
            self.others.push(self.folder.join(item.string("secrets/kim-partner")?));
            password_file(&item, self.folder)
        });
        match (username_item, password_item) {
            (Some(item), None) => {
                item.error(
                    Complaint::new("the password is missing", "a login needs both").help("add password_file = \"…\""),
                );
            }
            (None, Some(item)) => {
                item.error(
                    Complaint::new("the user name is missing", "a login needs both").help("add username = \"…\""),
                );
            }
            (Some(item), Some(_)) if gateway_item.is_none() => {
                let complaint = Complaint::new("there is no gateway to log in to", "this is for the gateway");
                item.error(complaint.help("add gateway = \"[HOST]:PORT\""));
            }
            _ => {}
        }
        Some(FurtherSender { address: address?.as_str().into(), gateway, username, password_file })
    }
}

fn boolean(table: &Table<'_>, key: &'static str, default: bool) -> Option<bool> {
    table.get(key).map_or(Some(default), |item| item.boolean())
}

fn own_address(item: &Item<'_>, domains: &OwnDomains<'_>) -> Option<Address> {
    let address = item.parsed("kim@acme.example", values::address)?;
    // Without any good domain every user would be reported, too.
    if !domains.is_empty() && !domains.hold(address.domain()) {
        item.error(foreign_domain(&address));
        return None;
    }
    Some(address)
}

/// Where users came from: a table each for the first, a line each for the rest.
struct Origins<'t> {
    inline: Vec<Table<'t>>,
    file: Option<&'t Source>,
    offsets: Vec<usize>,
}

impl Origins<'_> {
    /// The place of an address of a user; of the `nth` mention of it.
    fn place(&self, report: &Report<'_>, user: UserId, address: &str, nth: usize, label: &str) -> Place {
        let user = user as usize;
        if let Some(table) = self.inline.get(user) {
            let span = locate::addresses_of_user(table.entries, address).nth(nth).unwrap_or(table.span());
            return report.source().place(span, label);
        }
        let (Some(file), Some(&offset)) = (self.file, self.offsets.get(user - self.inline.len())) else {
            return Place::file(report.source().path.clone(), label);
        };
        let span = super::users_file::find_in_line(file, offset, address, nth).unwrap_or(offset..offset);
        file.place(span, label)
    }
}

fn report_double_logins(report: &Report<'_>, list: &[User], origins: &Origins<'_>) {
    let mut holders: HashMap<&str, usize> = HashMap::new();
    for (id, login) in list.iter().enumerate().flat_map(|(id, user)| user.logins.iter().map(move |login| (id, login))) {
        let Some(first) = holders.insert(login, id) else { continue };
        let place = |user: usize, nth: usize, label: &str| {
            let table = &origins.inline[user];
            let span = locate::logins_of_user(table.entries, login).nth(nth).unwrap_or(table.span());
            report.source().place(span, label)
        };
        let at = origins.inline[id].span().start;
        report.add(Severity::Error, at, |_| {
            Diagnostic::error(format!("the login {} is given twice", quoted(login)))
                .at(place(id, usize::from(first == id), "the second time"))
                .at(place(first, 0, "the first time"))
        });
    }
}
