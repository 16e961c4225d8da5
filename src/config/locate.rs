//! Finds again where a file says something. Positions are not kept with a hundred thousand customers: the file is read
//! once more when a message needs one.

use super::customer_file::folder_of;
use super::source::{MAX_CUSTOMER_FILE, MAX_USERS_FILE, Place, Source};
use super::users_file::find_in_file;
use super::values;
use crate::envelope::Domain;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// What is looked for in a customer's file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sought<'a> {
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
}

/// The place of `sought` in the file; the file as a whole where it is not found.
pub(super) fn locate(file: &Arc<Path>, sought: Sought<'_>, label: &str) -> Place {
    find(file, sought, label).unwrap_or_else(|| Place::file(file.clone(), label))
}

fn find(file: &Arc<Path>, sought: Sought<'_>, label: &str) -> Option<Place> {
    let source = Source::read(file.clone(), MAX_CUSTOMER_FILE).ok()?;
    let (root, _) = DeTable::parse_recoverable(&source.text);
    let root = root.get_ref();
    let span = match sought {
        Sought::Name => root.get("name").map(|value| value.span()),
        Sought::Domain(domain) => elements(root.get("domains")?.get_ref(), |text| {
            Domain::parse(text).is_ok_and(|found| found.as_str() == domain)
        })
        .next(),
        Sought::Login(login) => users(root).find_map(|user| logins_of_user(user, login).next()),
        Sought::Address(address) => {
            users(root).find_map(|user| addresses_of_user(user, address).chain(logins_of_user(user, address)).next())
        }
        Sought::Range { setting, ip } => (|| {
            let setting = root.get("setting")?.get_ref().get(setting)?;
            Some(setting.get_ref().get("ip")?.get_ref().get(ip)?.get_ref().get("range")?.span())
        })(),
    };
    match (span, sought) {
        (Some(span), _) => Some(source.place(span, label)),
        (None, Sought::Address(address)) => {
            let path = folder_of(file).join(root.get("users_file")?.get_ref().as_str()?);
            let users = Source::read(path.into(), MAX_USERS_FILE).ok()?;
            Some(users.place(find_in_file(&users, address)?, label))
        }
        _ => None,
    }
}

/// Where a `[[user]]` mentions an address as its own, an alias or a further sender.
pub(super) fn addresses_of_user<'t>(
    user: &'t DeTable<'t>,
    address: &'t str,
) -> impl Iterator<Item = Range<usize>> + 't {
    let is_it = move |text: &str| values::address(text).is_ok_and(|found| found.as_str() == address);
    let own = user.get("address").into_iter();
    let senders =
        user.get("sender").and_then(|senders| senders.get_ref().as_array()).into_iter().flat_map(|list| list.iter());
    let senders = senders.filter_map(|sender| sender.get_ref().get("address"));
    let aliases = user.get("aliases").into_iter().flat_map(move |aliases| elements(aliases.get_ref(), is_it));
    let is_span = move |value: &&toml::Spanned<DeValue<'_>>| value.get_ref().as_str().is_some_and(is_it);
    own.filter(is_span)
        .map(|value| value.span())
        .chain(aliases)
        .chain(senders.filter(is_span).map(|value| value.span()))
}

/// Where a `[[user]]` mentions a login.
pub(super) fn logins_of_user<'t>(user: &'t DeTable<'t>, login: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let is_it = move |text: &str| values::login(text).is_ok_and(|found| found == login);
    user.get("logins").into_iter().flat_map(move |logins| elements(logins.get_ref(), is_it))
}

/// The strings of a list that are meant.
fn elements<'t>(list: &'t DeValue<'t>, is_it: impl Fn(&str) -> bool + 't) -> impl Iterator<Item = Range<usize>> + 't {
    let values = list.as_array().into_iter().flat_map(|values| values.iter());
    values.filter(move |value| value.get_ref().as_str().is_some_and(&is_it)).map(|value| value.span())
}

fn users<'t>(root: &'t DeTable<'t>) -> impl Iterator<Item = &'t DeTable<'t>> {
    let users = root.get("user").and_then(|users| users.get_ref().as_array());
    users.into_iter().flat_map(|users| users.iter()).filter_map(|user| user.get_ref().as_table())
}
