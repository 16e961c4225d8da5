//! What two files say against each other, with both locations.

use super::candidates::Candidate;
use super::locate::{Target, locate};
use crate::config::reading::{Diagnostic, Location, Problems, Severity, quoted};
use crate::directory::{Conflict, Customer};
use hashbrown::HashSet;
use ipnet::IpNet;
use std::path::Path;
use std::sync::Arc;

/// A conflict of `file` with the holder's file. `is_current` tells whether that file still says what is in use.
pub(super) fn describe_conflict(
    conflict: &Conflict,
    file: &Arc<Path>,
    holder: Option<(&Arc<Path>, bool)>,
) -> Diagnostic {
    let (title, target, held, help) = match conflict {
        Conflict::Name => (
            "two customers have the same name".to_owned(),
            Target::Name,
            Target::Name,
            "give each customer a name of its own".to_owned(),
        ),
        Conflict::Domain { domain, .. } => (
            format!("the domain {domain} is claimed by two customers"),
            Target::Domain(domain),
            Target::Domain(domain),
            "remove it from one of the two files".into(),
        ),
        Conflict::Login { login, .. } => (
            format!("the login {} is claimed by two customers", quoted(login)),
            Target::Login(login),
            Target::Login(login),
            "remove it from one of the two files".into(),
        ),
        Conflict::Sender { address, .. } => (
            format!("the sender {address} is claimed by users of two customers"),
            Target::Address(address),
            Target::Address(address),
            "a further sender address belongs to one user".into(),
        ),
        Conflict::AddressInForeignDomain { address, domain, .. } => (
            format!("{address} is in a domain of another customer"),
            Target::Address(address),
            Target::Domain(domain),
            format!("only the customer that registered {domain} can have it"),
        ),
        Conflict::DomainOfForeignAddress { domain, address, .. } => (
            format!("the domain {domain} contains an address of another customer's user"),
            Target::Domain(domain),
            Target::Address(address),
            format!("first remove {address} there"),
        ),
    };
    let mut diagnostic = Diagnostic::error(title).at(locate(file, target, "claimed here"));
    match holder {
        Some((holder, true)) => diagnostic = diagnostic.at(locate(holder, held, "already claimed here")),
        Some((holder, false)) => {
            let label = "claimed by the last good copy of this file, which is in use";
            diagnostic = diagnostic.at(Location::file(holder.clone(), label));
        }
        None => {}
    }
    diagnostic.help(help)
}

/// An enabled range, and where it was written.
struct EnabledRange<'c> {
    net: IpNet,
    candidate: usize,
    customer: &'c Arc<Customer>,
    setting: usize,
    ip: usize,
}

/// Warns of ranges that lie in a range of another customer: of each range only the nearest around it, and of each two
/// customers once.
pub(super) fn warn_of_overlaps(candidates: &[Candidate], problems: &mut Problems) {
    let mut used = Vec::new();
    for (n, candidate) in candidates.iter().enumerate() {
        let Some(customer) = candidate.chosen() else { continue };
        for (setting_index, setting) in customer.settings.iter().enumerate().filter(|(_, setting)| setting.enabled) {
            for (ip, range) in setting.ranges.iter().enumerate().filter(|(_, range)| range.enabled) {
                used.push(EnabledRange { net: range.net, candidate: n, customer, setting: setting_index, ip });
            }
        }
    }
    // Ranges contain each other or have nothing in common, so those around a range are a stack.
    used.sort_by_key(|used| (used.net, used.candidate));
    let mut around: Vec<&EnabledRange<'_>> = Vec::new();
    let mut reported: HashSet<(usize, usize)> = HashSet::new();
    for inner in &used {
        while around.pop_if(|outer| !outer.net.contains(&inner.net)).is_some() {}
        let other = around.iter().rev().find(|outer| outer.candidate != inner.candidate);
        if let Some(outer) = other
            && reported.insert((outer.candidate, inner.candidate))
        {
            if problems.has_room(Severity::Warning) {
                problems.push(describe_overlap(inner, outer, candidates));
            } else {
                problems.count(Severity::Warning);
            }
        }
        // A customer that repeats a range within its own does not deepen the stack, so that looking through it is quick.
        if around.last().is_none_or(|last| last.candidate != inner.candidate) {
            around.push(inner);
        }
    }
}

fn describe_overlap(inner: &EnabledRange<'_>, outer: &EnabledRange<'_>, candidates: &[Candidate]) -> Diagnostic {
    let title = if inner.net == outer.net {
        format!("the range {} belongs to two customers", inner.net)
    } else {
        format!("the range {} is inside {} of another customer", inner.net, outer.net)
    };
    let place = |used: &EnabledRange<'_>| {
        let candidate = &candidates[used.candidate];
        let label = format!("customer {}", quoted(&used.customer.name));
        match candidate.is_current() {
            true => locate(&candidate.file, Target::Range { setting: used.setting, ip: used.ip }, &label),
            false => Location::file(candidate.file.clone(), label),
        }
    };
    Diagnostic::warning(title)
        .at(place(inner))
        .at(place(outer))
        .help("only login, sender domain or HELO name tell clients in it apart; check that this is intended")
}
