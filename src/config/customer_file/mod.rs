//! A customer's file: TOML → [`Customer`]. All errors are reported, together with what can be read in spite of them.

mod mentions;
mod named_file;
mod password_file;
mod setting;
mod users;
mod users_file;

pub(super) use mentions::{addresses_of_user, elements, logins_of_user};
pub(super) use named_file::{FileIdentity, NamedFile, NamedKind};
pub use password_file::{MAX_PASSWORD, Password, PasswordFileError, read_password};
pub(super) use users_file::find_in_file;

use super::defaults::customer as default;
use super::limits::{self, LimitTable, Scope};
use super::reading::{Complaint, Diagnostic, FileReport, FileSpec, Item, Problems, Severity, Source, TOP_LEVEL};
use super::reading::{Table, TableSpec};
use super::values::{self, gateway::gateway};
use crate::directory::{ArchiveAddress, Billing, Customer, OwnDomains, User};
use crate::envelope::{Domain, is_public_suffix};
use hashbrown::HashMap;
use ipnet::IpNet;
use setting::{IP, SETTING, read_settings};
use std::path::Path;
use users::{CustomerUsers, SENDER, USER, UsersReader};

static CUSTOMER: TableSpec = TableSpec {
    what: TOP_LEVEL,
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
};

/// Every table of a customer's file.
pub(super) static CUSTOMER_FILE: FileSpec = FileSpec {
    what: "a customer's file",
    tables: &[
        &CUSTOMER,
        &SETTING,
        &IP,
        &USER,
        &SENDER,
        &limits::LIMITS,
        &limits::TRANSACTION,
        &limits::USER,
        &limits::CUSTOMER,
        &limits::UNPAID,
        &limits::LOGIN,
        &limits::MESSAGE,
    ],
    other: Some(&super::main_file::MAIN_FILE),
};

/// What of the main file a customer's file depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CustomerContext {
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
    pub named_files: Vec<NamedFile>,
    /// Of the users file.
    pub users_text: Option<String>,
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
        ParsedFile { customer: None, salvage, problems, named_files: Vec::new(), users_text: None }
    }
}

/// Where the files that a customer's file names are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum NamedFilesFrom<'u> {
    Disk,
    /// A copy of what was good once: its users file, and no password.
    Copy(Option<&'u str>),
}

pub(super) fn read_customer(source: &Source, context: &CustomerContext, from: NamedFilesFrom<'_>) -> ParsedFile {
    let (report, root) = FileReport::parse(source, &CUSTOMER_FILE);
    let table = Table::new(&report, root.get_ref(), 0..0, &CUSTOMER);
    let reader = CustomerReader { report: &report };

    let name = table.required("name", "name = \"acme\"").and_then(|item| item.parsed("acme", values::customer_name));
    let (domains, is_doubtful) = reader.domains(&table);
    let licenses = table.required("licenses", "licenses = 250").and_then(|item| item.number(1..=1_000_000_000, "250"));
    let billing = table.get("billing").map_or(Some(default::BILLING), |item| {
        item.choice(&[("paid", Billing::Paid), ("unpaid", Billing::Unpaid), ("trial", Billing::Trial)])
    });
    let admins = table.get("admins").map(|item| item.parsed_list("it@acme.example", values::address));
    let archive_to = table.get("archive_to").and_then(|item| reader.archive_to(&item, context));
    let user_gateways = table.get("user_gateways").and_then(|item| item.boolean()).unwrap_or(default::USER_GATEWAYS);
    let outbound_gateway =
        table.get("outbound_gateway").and_then(|item| next_hop(&item, "[mx.acme.example]:25", context));
    let limits = LimitTable::read(&table, Scope::Customer);
    let settings = read_settings(&table, context.max_range_addresses);
    let CustomerUsers { users, problems: users_problems, users_text, named_files } = {
        let (folder, domains) = (folder_of(&source.path), &OwnDomains::new(&domains));
        let named_files = Vec::new();
        UsersReader { report: &report, folder, domains, user_gateways, context, from, named_files }.read(&table)
    };

    let is_good = !report.has_errors() && users_problems.errors() == 0;
    let mut problems = report.into_problems();
    problems.append(users_problems);
    let (Some(name), Some(licenses), Some(billing), true) = (name, licenses, billing, is_good) else {
        let logins = users.iter().flat_map(|user| user.logins.clone()).collect();
        let senders = users.iter().flat_map(further_addresses).collect();
        let salvage = Salvage { domains, is_doubtful, logins, senders };
        return ParsedFile { customer: None, salvage, problems, named_files, users_text };
    };
    let limits = limits.over(&context.limits).rules().for_customer(licenses as u32, billing);
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
    ParsedFile { customer: Some(customer), salvage: Salvage::default(), problems, named_files, users_text }
}

pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// A gateway. Postfix learns of it by socketmap only.
fn next_hop(item: &Item<'_>, example: &str, context: &CustomerContext) -> Option<String> {
    let hop = item.parsed(example, |text| gateway(text, &context.private_gateways))?;
    if !context.has_socketmap {
        let label = "no MTA asks for gateways: mail goes directly to its recipients";
        let help = "set listen.socketmap in the main file, and make Postfix use it";
        item.warning(Complaint::new("this has no effect", label).help(help));
    }
    Some(hop)
}

pub(super) fn further_addresses(user: &User) -> impl Iterator<Item = Box<str>> {
    user.senders.iter().map(|sender| sender.address.clone())
}

struct CustomerReader<'t> {
    report: &'t FileReport<'t>,
}

impl<'t> CustomerReader<'t> {
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
                report_twice(self.report, format!("the domain {domain} is listed twice"), entry, first);
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

    fn archive_to(&self, item: &Item<'_>, context: &CustomerContext) -> Option<ArchiveAddress> {
        let address = item.parsed("vault@acme.example", values::archive_address)?;
        if !context.has_milter {
            let complaint = Complaint::new("this has no effect", "only a milter can add a recipient");
            item.warning(complaint.help("set listen.milter in the main file, and make the MTA use it"));
        }
        Some(address)
    }
}

/// Two items that must differ.
fn report_twice(report: &FileReport<'_>, title: String, second: &Item<'_>, first: &Item<'_>) {
    report.add(Severity::Error, second.span().start, |source| {
        Diagnostic::error(title)
            .at(source.place(second.span(), "the second time"))
            .at(source.place(first.span(), "the first time"))
    });
}
