//! Finds the place where a file says something. Positions are not stored for a hundred thousand customers: the file is
//! read again when a message needs one.

use crate::config::customer_file::{
    NamedFile, NamedKind, addresses_of_user, elements, find_in_file, folder_of, logins_of_user,
};
use crate::config::reading::{Location, MAX_CUSTOMER_FILE, MAX_MAIN_FILE, MAX_USERS_FILE, Source};
use crate::envelope::Domain;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is looked for in a customer's file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    Name,
    /// In canonical form, as all of these.
    Domain(&'a str),
    Login(&'a str),
    /// Of a user, an alias, a further sender; or a login that looks like an address.
    Address(&'a str),
    Range {
        setting: usize,
        ip: usize,
    },
    /// A `users_file` or `password_file`.
    File(&'a NamedFile),
}

/// The place of `target` in the file; the file as a whole where it is not found.
pub(super) fn locate(file: &Arc<Path>, target: Target<'_>, label: &str) -> Location {
    find(file, target, label).unwrap_or_else(|| Location::file(file.clone(), label))
}

/// The place of a key of the main file, such as `listen.milter`, or of the `nth` element of its list; the file as a whole
/// where it is not set.
pub fn key_location(main: &Path, key: &str, nth: usize, label: &str) -> Location {
    let file: Arc<Path> = main.into();
    let find = || {
        let source = Source::read(file.clone(), MAX_MAIN_FILE).ok()?;
        let (root, _) = DeTable::parse_recoverable(&source.text);
        let (section, key) = key.split_once('.')?;
        let value = root.get_ref().get(section)?.get_ref().get(key)?;
        let element = value.get_ref().as_array().and_then(|list| list.get(nth));
        Some(source.place(element.unwrap_or(value).span(), label))
    };
    find().unwrap_or_else(|| Location::file(file.clone(), label))
}

fn find(file: &Arc<Path>, target: Target<'_>, label: &str) -> Option<Location> {
    let source = Source::read(file.clone(), MAX_CUSTOMER_FILE).ok()?;
    let (root, _) = DeTable::parse_recoverable(&source.text);
    let root = root.get_ref();
    let span = match target {
        Target::Name => root.get("name").map(|value| value.span()),
        Target::Domain(domain) => elements(root.get("domains")?.get_ref(), |text| {
            Domain::parse(text).is_ok_and(|found| found.as_str() == domain)
        })
        .next(),
        Target::Login(login) => users(root).find_map(|user| logins_of_user(user, login).next()),
        Target::Address(address) => {
            users(root).find_map(|user| addresses_of_user(user, address).chain(logins_of_user(user, address)).next())
        }
        Target::File(named) => {
            let names_it = |value: &Spanned<DeValue<'_>>| {
                value.get_ref().as_str().is_some_and(|text| folder_of(file).join(text) == *named.path)
            };
            let values = match named.kind {
                NamedKind::Users => Vec::from_iter(root.get(named.kind.key())),
                NamedKind::Password => users(root)
                    .filter_map(|user| user.get("sender")?.get_ref().as_array())
                    .flat_map(|senders| senders.iter())
                    .filter_map(|sender| sender.get_ref().get(named.kind.key()))
                    .collect(),
            };
            values.into_iter().find(|value| names_it(value)).map(|value| value.span())
        }
        Target::Range { setting, ip } => (|| {
            let setting = root.get("setting")?.get_ref().get(setting)?;
            Some(setting.get_ref().get("ip")?.get_ref().get(ip)?.get_ref().get("range")?.span())
        })(),
    };
    match (span, target) {
        (Some(span), _) => Some(source.place(span, label)),
        (None, Target::Address(address)) => {
            let path = folder_of(file).join(root.get("users_file")?.get_ref().as_str()?);
            let users = Source::read(path.into(), MAX_USERS_FILE).ok()?;
            Some(users.place(find_in_file(&users, address)?, label))
        }
        _ => None,
    }
}

fn users<'t>(root: &'t DeTable<'t>) -> impl Iterator<Item = &'t DeTable<'t>> {
    let users = root.get("user").and_then(|users| users.get_ref().as_array());
    users.into_iter().flat_map(|users| users.iter()).filter_map(|user| user.get_ref().as_table())
}
