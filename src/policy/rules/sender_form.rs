//! Spellings of a user's address: with a tag, signed (BATV), or rewritten by a forwarder (SRS).

use crate::config::SenderForm;
use crate::envelope::Address;

/// The address without a tag or signature that the configured forms allow; `None` where there is none.
pub(in crate::policy) fn bare_spelling(address: &Address, forms: &[SenderForm]) -> Option<String> {
    let mut local = address.local_part();
    if forms.contains(&SenderForm::Batv) {
        local = without_batv(local);
    }
    if forms.contains(&SenderForm::Plus) {
        local = local.split_once('+').map_or(local, |(user, _tag)| user);
    }
    (!local.is_empty() && local.len() != address.local_part().len()).then(|| format!("{local}@{}", address.domain()))
}

/// The address within one that a forwarder has rewritten, if `srs` is configured. The hash is the forwarder's secret, and not checked:
/// whoever calls this makes sure that the forwarder, the domain outside, may speak for the sender.
pub(in crate::policy) fn forwarded_address(address: &Address, forms: &[SenderForm]) -> Option<Address> {
    if !forms.contains(&SenderForm::Srs) {
        return None;
    }
    let (local, domain) = without_srs(address.local_part())?;
    Address::from_internal(&format!("{local}@{domain}")).ok()
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
