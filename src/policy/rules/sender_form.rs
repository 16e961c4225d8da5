//! Spellings of a user's address: with a tag, signed (BATV), or rewritten by a forwarder (SRS).

use crate::config::SenderForm;
use crate::envelope::Address;

/// The address without what the configured forms allow to be added to it; `None` where they add nothing.
pub(in crate::policy) fn bare_spelling(address: &Address, forms: &[SenderForm]) -> Option<String> {
    let (mut local, mut domain) = (address.local_part(), address.domain());
    if forms.contains(&SenderForm::Srs) {
        (local, domain) = without_srs(local).unwrap_or((local, domain));
    }
    if forms.contains(&SenderForm::Batv) {
        local = without_batv(local);
    }
    if forms.contains(&SenderForm::Plus) {
        local = local.split_once('+').map_or(local, |(user, _tag)| user);
    }
    (!local.is_empty() && local.len() != address.local_part().len()).then(|| format!("{local}@{domain}"))
}

/// The address that was forwarded: `SRS0=HASH=TT=DOMAIN=user`, or `SRS1=HASH=FORWARDER==HASH=TT=DOMAIN=user` when that
/// happened twice (Sender Rewriting Scheme). In canonical form all is in lower case.
fn without_srs(local: &str) -> Option<(&str, &str)> {
    const SEPARATORS: [char; 3] = ['=', '+', '-'];
    let opaque = match local.strip_prefix("srs1").and_then(|rest| rest.strip_prefix(SEPARATORS)) {
        Some(rest) => rest.splitn(3, '=').nth(2)?.strip_prefix(SEPARATORS)?,
        None => local.strip_prefix("srs0")?.strip_prefix(SEPARATORS)?,
    };
    let mut parts = opaque.splitn(4, '=').skip(2);
    let (domain, user) = (parts.next()?, parts.next()?);
    Some((user, domain))
}

/// `prvs=TAG=user` (draft-levine-smtp-batv)
fn without_batv(local: &str) -> &str {
    match local.strip_prefix("prvs=").and_then(|rest| rest.split_once('=')) {
        Some((tag, user)) if tag.len() == 10 => user,
        _ => local,
    }
}
