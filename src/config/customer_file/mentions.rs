//! Where a `[[user]]` mentions an address or a login.

use crate::config::values;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Where a `[[user]]` mentions an address as its own, an alias or a further sender.
pub(in crate::config) fn addresses_of_user<'t>(
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
pub(in crate::config) fn logins_of_user<'t>(
    user: &'t DeTable<'t>,
    login: &'t str,
) -> impl Iterator<Item = Range<usize>> + 't {
    let is_it = move |text: &str| values::login(text).is_ok_and(|found| found == login);
    user.get("logins").into_iter().flat_map(move |logins| elements(logins.get_ref(), is_it))
}

/// The strings of a list that are meant.
pub(in crate::config) fn elements<'t>(
    list: &'t DeValue<'t>,
    is_it: impl Fn(&str) -> bool + 't,
) -> impl Iterator<Item = Range<usize>> + 't {
    let values = list.as_array().into_iter().flat_map(|values| values.iter());
    values.filter(move |value| value.get_ref().as_str().is_some_and(&is_it)).map(|value| value.span())
}
