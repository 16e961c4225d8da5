//! Whose a `users_file` or `password_file` is: each belongs to one customer, however it is named. Else one customer could
//! have mail sent with another's password.

use super::candidates::{Candidate, Choice};
use super::locate::{Target, locate};
use crate::config::customer_file::{FileIdentity, NamedFile, NamedKind};
use crate::config::reading::{Diagnostic, Problems, quoted};
use hashbrown::{HashMap, HashSet};

/// A candidate whose chosen copy names a file.
struct FileClaim<'c> {
    candidate: usize,
    named: &'c NamedFile,
    /// Its copy before named the file, too.
    had: bool,
}

/// Settles files that several candidates name. The one that had it before keeps it; else, and always at a start, none of
/// them has it. Those that have to do without fall back to a copy that does not name the file, or to none. Returns whether
/// anything changed.
pub(super) fn settle_files(candidates: &mut [Candidate], is_start: bool, problems: &mut Problems) -> bool {
    let mut losers: Vec<(usize, FileIdentity)> = Vec::new();
    for (file, claims) in contested(candidates, is_start) {
        let mut holders = claims.iter().filter(|claim| claim.had);
        let holder = holders.next();
        if holders.next().is_some() {
            // A link was made after each was read on its own: nobody's mail stops for that.
            problems.push(describe(&claims[1], &claims[0], "it belongs to this customer, too", candidates));
            continue;
        }
        for (n, claim) in claims.iter().enumerate().filter(|(_, claim)| !claim.had) {
            problems.push(match holder {
                Some(holder) => describe(claim, holder, "it belongs to this customer", candidates),
                None => describe(claim, &claims[usize::from(n == 0)], "named here, too", candidates),
            });
            losers.push((claim.candidate, file.clone()));
        }
    }
    for (loser, file) in &losers {
        let candidate = &mut candidates[*loser];
        let named_before = candidate.named_before().iter().any(|named| FileIdentity::of(&named.path) == *file);
        candidate.choice = match (candidate.choice, &candidate.previous) {
            (Choice::New, Some(_)) if !named_before => Choice::Previous,
            _ => Choice::Unusable,
        };
    }
    !losers.is_empty()
}

/// The files that more than one candidate names, with one claim of each of these.
fn contested(candidates: &[Candidate], is_start: bool) -> Vec<(FileIdentity, Vec<FileClaim<'_>>)> {
    let mut claims: HashMap<FileIdentity, Vec<FileClaim<'_>>> = HashMap::new();
    for (n, candidate) in candidates.iter().enumerate() {
        let before: HashSet<FileIdentity> = match is_start || candidate.is_as_before() {
            true => HashSet::new(),
            false => candidate.named_before().iter().map(|named| FileIdentity::of(&named.path)).collect(),
        };
        for named in candidate.named_files() {
            let file = FileIdentity::of(&named.path);
            let had = !is_start && (candidate.is_as_before() || before.contains(&file));
            let of_file = claims.entry(file).or_default();
            if of_file.last().is_none_or(|last| last.candidate != n) {
                of_file.push(FileClaim { candidate: n, named, had });
            }
        }
    }
    let mut contested: Vec<_> = claims.into_iter().filter(|(_, claims)| claims.len() > 1).collect();
    contested.sort_by_key(|(_, claims)| claims[0].candidate);
    contested
}

fn describe(claim: &FileClaim<'_>, other: &FileClaim<'_>, label: &str, candidates: &[Candidate]) -> Diagnostic {
    let place = |claim: &FileClaim<'_>, label: &str| {
        locate(&candidates[claim.candidate].file, Target::File(claim.named), label)
    };
    let (key, path) = (claim.named.kind.key(), quoted(&claim.named.path.to_string_lossy()));
    Diagnostic::error(format!("the {key} {path} is named by two customers"))
        .at(place(claim, "named here"))
        .at(place(other, label))
        .help("each customer needs a file of its own")
}

/// Takes what is said about the content of a users file out of the problems of each candidate, where that file is
/// somebody's password file: messages quote what they are about.
pub(super) fn hide_passwords(candidates: &[Candidate], problems: &mut [Problems]) {
    let named = |kind: NamedKind| {
        let all = candidates
            .iter()
            .enumerate()
            .flat_map(|(n, candidate)| candidate.read_files().iter().map(move |file| (n, file)));
        all.filter(move |(_, file)| file.kind == kind)
    };
    let passwords: HashSet<FileIdentity> =
        named(NamedKind::Password).map(|(_, file)| FileIdentity::of(&file.path)).collect();
    if passwords.is_empty() {
        return;
    }
    for (n, users) in named(NamedKind::Users) {
        if !problems[n].is_empty() && passwords.contains(&FileIdentity::of(&users.path)) {
            problems[n].remove_those_of_file(&users.path);
        }
    }
}
