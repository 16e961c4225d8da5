//! The users in a customer's file: `[[user]]` tables, and the `users_file`.

use super::mentions::{addresses_of_user, logins_of_user};
use super::password_file::password_file;
use super::users_file::{FileUsers, find_in_line, foreign_domain, read_users};
use super::{CustomerContext, FileIdentity, NamedFile, NamedFilesFrom, NamedKind, next_hop};
use crate::config::reading::{
    Complaint, Diagnostic, FileReport, Item, Location, MAX_SHOWN_OF_FILE, MAX_USERS_FILE, Problems, Severity, Source,
    Table, TableSpec, describe, quoted,
};
use crate::config::values;
use crate::directory::{FurtherSender, OwnDomains, User, UserId, Users};
use crate::envelope::Address;
use hashbrown::HashMap;
use std::path::Path;
use std::sync::Arc;

pub(super) static USER: TableSpec =
    TableSpec { what: "[[user]]", prefix: "user.", keys: &["address", "aliases", "logins", "sender"] };
pub(super) static SENDER: TableSpec = TableSpec {
    what: "[[user.sender]]",
    prefix: "user.sender.",
    keys: &["address", "gateway", "username", "password_file"],
};

/// What came of a customer's users.
#[derive(Debug)]
pub(super) struct CustomerUsers {
    /// Inline users first, then those of the users file.
    pub users: Users,
    /// Those of the users file; the others are in the report of the customer's file.
    pub problems: Problems,
    /// The other files that were looked at.
    pub named_files: Vec<NamedFile>,
    /// Of the users file.
    pub users_text: Option<String>,
}

/// Reads a customer's users.
pub(super) struct UsersReader<'t> {
    pub report: &'t FileReport<'t>,
    /// Of the customer's file: other files are relative to it.
    pub folder: &'t Path,
    pub domains: &'t OwnDomains<'t>,
    pub user_gateways: bool,
    pub context: &'t CustomerContext,
    pub from: NamedFilesFrom<'t>,
    /// The other files that were looked at.
    pub named_files: Vec<NamedFile>,
}

impl<'t> UsersReader<'t> {
    pub fn read(mut self, customer: &Table<'t>) -> CustomerUsers {
        let tables = customer.tables("user", &USER);
        let mut list = Vec::with_capacity(tables.len());
        let mut tables_of = Vec::with_capacity(tables.len());
        for table in &tables {
            if let Some(user) = self.user(table) {
                list.push(user);
                tables_of.push(*table);
            }
        }
        let file = customer.get("users_file").and_then(|item| self.users_source(&item));
        let mut from_file = match &file {
            Some(source) => read_users(source, self.domains),
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
        let users_text = file.map(|source| source.text);
        CustomerUsers { users, problems, named_files: self.named_files, users_text }
    }

    fn users_source(&mut self, item: &Item<'_>) -> Option<Source> {
        let path: Arc<Path> = self.folder.join(item.parsed("acme.users", values::file_below)?).into();
        // Errors in a users file are shown with what is in it.
        let file = FileIdentity::of(&path);
        let is_password = self.named_files.iter().any(|named| FileIdentity::of(&named.path) == file);
        self.named_files.push(NamedFile { kind: NamedKind::Users, path: path.clone() });
        if is_password {
            item.error(Complaint::new(
                format!("{} is a password_file, too", quoted(&path.to_string_lossy())),
                "named here",
            ));
            return None;
        }
        let read = match self.from {
            NamedFilesFrom::Copy(users) => return Some(Source::new(path, users.unwrap_or("").to_owned())),
            NamedFilesFrom::Disk => Source::read(path.clone(), MAX_USERS_FILE),
        };
        match read {
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

    fn user(&mut self, table: &Table<'t>) -> Option<User> {
        let address = table
            .required("address", "address = \"kim@acme.example\"")
            .and_then(|item| own_address(&item, self.domains));
        let mut aliases = Vec::new();
        if let Some(item) = table.get("aliases") {
            let entries = item.list("\"k.im@acme.example\"");
            aliases.reserve_exact(entries.len());
            aliases.extend(entries.iter().filter_map(|item| Some(own_address(item, self.domains)?.as_str().into())));
        }
        let mut logins: Vec<Box<str>> = Vec::new();
        if let Some(item) = table.get("logins") {
            logins = item.parsed_list("kim", |text| Ok(values::login(text)?.into()));
        }
        let mut senders = Vec::new();
        if table.entries.contains_key("sender") {
            let tables = table.tables("sender", &SENDER);
            senders = tables.iter().filter_map(|sender| self.sender(sender)).collect();
        }
        Some(User { address: address?.as_str().into(), aliases, logins, senders })
    }

    fn sender(&mut self, table: &Table<'t>) -> Option<FurtherSender> {
        let address = table.required("address", "address = \"kim@partner.example\"").and_then(|item| {
            let address = item.parsed("kim@partner.example", values::address)?;
            if self.domains.hold(address.domain()) {
                let complaint =
                    Complaint::new(format!("{address} is in the customer's own domain"), "not a further sender");
                item.error(complaint.help("add it to the user's `aliases`"));
                return None;
            }
            Some(address)
        });
        let gateway_item = table.get("gateway");
        let gateway = gateway_item.and_then(|item| next_hop(&item, "[smtp.partner.example]:587", self.context));
        if let (Some(item), false) = (gateway_item, self.user_gateways) {
            let complaint =
                Complaint::new("users of this customer may not have gateways", "not allowed without user_gateways");
            item.error(complaint.help("write `user_gateways = true` above the first header, or remove the gateway"));
        }
        let username_item = table.get("username");
        let username = username_item.and_then(|item| item.parsed("kim", values::gateway_username));
        let password_item = table.get("password_file");
        let password_file = password_item.and_then(|item| {
            let path: Arc<Path> = self.folder.join(item.parsed("secrets/kim-partner", values::file_below)?).into();
            self.named_files.push(NamedFile { kind: NamedKind::Password, path: path.clone() });
            match self.from {
                NamedFilesFrom::Copy(_) => Some(path.to_path_buf()),
                NamedFilesFrom::Disk => password_file(&item, &path),
            }
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
    fn place(&self, report: &FileReport<'_>, user: UserId, address: &str, nth: usize, label: &str) -> Location {
        let user = user as usize;
        if let Some(table) = self.inline.get(user) {
            let span = addresses_of_user(table.entries, address).nth(nth).unwrap_or(table.span());
            return report.source().place(span, label);
        }
        let (Some(file), Some(&offset)) = (self.file, self.offsets.get(user - self.inline.len())) else {
            return Location::file(report.source().path.clone(), label);
        };
        let span = find_in_line(file, offset, address, nth).unwrap_or(offset..offset);
        file.place(span, label)
    }
}

fn report_double_logins(report: &FileReport<'_>, list: &[User], origins: &Origins<'_>) {
    let mut holders: HashMap<&str, usize> = HashMap::new();
    for (id, login) in list.iter().enumerate().flat_map(|(id, user)| user.logins.iter().map(move |login| (id, login))) {
        let Some(first) = holders.insert(login, id) else { continue };
        let place = |user: usize, nth: usize, label: &str| {
            let table = &origins.inline[user];
            let span = logins_of_user(table.entries, login).nth(nth).unwrap_or(table.span());
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
