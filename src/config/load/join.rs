//! Puts the customers together, and settles who has what two of them claim.

use super::candidates::{Candidate, Choice};
use super::conflicts::describe_conflict;
use super::file_owners::settle_files;
use crate::config::customer_file::{Salvage, further_addresses};
use crate::config::reading::{Problems, Severity};
use crate::directory::{Conflict, Customer, Directory, DirectoryBuilder};
use crate::envelope::Domain;

/// Puts the customers together. What two of them claim stays with the one that had it; among new ones, with the first.
///
/// `is_emptied`: there were customers, so whoever is unknown may be one of them.
pub(super) fn join(
    candidates: &mut [Candidate],
    is_start: bool,
    is_emptied: bool,
    problems: &mut Problems,
) -> Directory {
    let mut builder = loop {
        while settle_files(candidates, is_start, problems) {}
        let mut builder = DirectoryBuilder::new();
        // Copies that were in use together agree.
        for n in add_each(&mut builder, candidates, problems, Candidate::is_as_before) {
            candidates[n].choice = Choice::Unusable;
        }
        let changed = |candidate: &Candidate| candidate.previous.is_some() && !candidate.is_as_before();
        // First those that only claim what they had: it stays theirs.
        let modest = |candidate: &Candidate| changed(candidate) && !candidate.claims_more();
        let mut rejected = add_each(&mut builder, candidates, problems, modest);
        rejected.extend(add_each(&mut builder, candidates, problems, |candidate| {
            changed(candidate) && candidate.claims_more()
        }));
        if rejected.is_empty() {
            break builder;
        }
        for n in rejected {
            candidates[n].choice = Choice::Previous;
        }
    };
    for n in add_each(&mut builder, candidates, problems, |candidate| candidate.previous.is_none()) {
        candidates[n].choice = Choice::Unusable;
    }
    for candidate in candidates.iter_mut().filter(|candidate| candidate.choice == Choice::Unusable) {
        if let Some(customer) = candidate.new.take() {
            let logins = customer.users.iter().flat_map(|user| user.logins.iter().cloned()).collect();
            let senders = customer.users.iter().flat_map(further_addresses).collect();
            candidate.salvage = Salvage { domains: customer.domains.clone(), is_doubtful: false, logins, senders };
        }
        let salvage = &candidate.salvage;
        builder.add_unusable(salvage.domains.iter().map(Domain::as_str));
        if salvage.is_doubtful {
            builder.add_unusable([]);
        }
        builder.add_unusable_logins(salvage.logins.iter().map(|login| &**login));
        builder.add_unusable_senders(salvage.senders.iter().map(|sender| &**sender));
    }
    if is_emptied {
        builder.add_unusable([]);
    }
    builder.build()
}

/// Adds the chosen copies of some candidates. Those that conflict with what is there are reported and returned.
fn add_each(
    builder: &mut DirectoryBuilder,
    candidates: &[Candidate],
    problems: &mut Problems,
    which: impl Fn(&Candidate) -> bool,
) -> Vec<usize> {
    let mut rejected = Vec::new();
    for (n, candidate) in candidates.iter().enumerate() {
        let Some(customer) = candidate.chosen().filter(|_| which(candidate)) else { continue };
        let Err(conflicts) = builder.add(customer.clone()) else { continue };
        rejected.push(n);
        for conflict in conflicts {
            report_conflict(&conflict, n, customer, candidates, problems);
        }
    }
    rejected
}

fn report_conflict(
    conflict: &Conflict,
    loser: usize,
    customer: &Customer,
    candidates: &[Candidate],
    problems: &mut Problems,
) {
    if !problems.has_room(Severity::Error) {
        return problems.count(Severity::Error);
    }
    let name = conflict.holder().unwrap_or(&customer.name);
    let holder = candidates
        .iter()
        .enumerate()
        .find(|(n, candidate)| *n != loser && candidate.chosen().is_some_and(|customer| *customer.name == *name));
    let holder = holder.map(|(_, candidate)| (&candidate.file, candidate.is_current()));
    problems.push(describe_conflict(conflict, &candidates[loser].file, holder));
}
