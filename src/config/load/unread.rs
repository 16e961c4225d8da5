//! What is in the folder of customer files and is not read: a file that was meant to be a customer, but is called
//! otherwise, would shut that customer out without a word.

use super::candidates::{Candidate, Choice};
use crate::config::reading::{Diagnostic, Location, Problems, how_many, quoted};
use hashbrown::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// So many are named.
const MAX_NAMED: usize = 20;

/// Warns of files and folders in `folder` that no customer names. `others`: their names.
pub(super) fn warn_of_unread(folder: &Path, others: &[OsString], candidates: &[Candidate], problems: &mut Problems) {
    if others.is_empty() {
        return;
    }
    let named = candidates.iter().flat_map(|candidate| candidate.read_files().iter().chain(candidate.named_before()));
    let named: HashSet<&OsStr> = named.filter_map(|file| file.path.strip_prefix(folder).ok()?.iter().next()).collect();
    // A file that cannot be read names nothing: what is called like it is probably its own.
    let bad = candidates.iter().filter(|candidate| candidate.choice != Choice::New);
    let bad: HashSet<&OsStr> = bad.filter_map(|candidate| candidate.file.file_stem()).collect();
    let is_unread = |name: &&OsString| {
        let is_customer_like = Path::new(name).extension().is_some_and(looks_like_toml);
        !named.contains(&***name)
            && (is_customer_like || !Path::new(name).file_stem().is_some_and(|stem| bad.contains(stem)))
    };
    let mut unread = others.iter().filter(is_unread);
    for name in unread.by_ref().take(MAX_NAMED) {
        let path = folder.join(name);
        let shown = quoted(&name.to_string_lossy());
        let (title, help) = match path.is_dir() {
            true => {
                (format!("the folder {shown} is not read"), "customer files must be directly in the folder above it")
            }
            false => (format!("{shown} is not read: its name does not end in .toml, and no customer names it"), RENAME),
        };
        problems.push(Diagnostic::warning(title).at(Location::file(path.into(), "")).help(help));
    }
    let more = unread.count();
    if more > 0 {
        let title = format!("{} in the folder of customer files are not read either", how_many(more, "more file"));
        problems.push(Diagnostic::warning(title).at(Location::file(folder.into(), "")));
    }
}

const RENAME: &str = "rename it, or move it out of this folder";

/// `TOML`, `Toml`, `conf`, …: what a customer's file may have been called.
fn looks_like_toml(extension: &OsStr) -> bool {
    ["toml", "conf", "cfg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}
