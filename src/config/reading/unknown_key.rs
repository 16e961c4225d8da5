//! Keys that no table has: what was probably meant, and where a key belongs.

use super::diagnostic::Severity;
use super::file_report::{Complaint, FileReport};
use super::source::quoted;
use std::borrow::Cow;
use toml::Spanned;

/// The keys that a table may have.
#[derive(Debug)]
pub(in crate::config) struct TableSpec {
    /// As it is called in messages: `[relay]`; [`TOP_LEVEL`] for what is above the first header.
    pub what: &'static str,
    /// What comes before a key's name in messages: `relay.`.
    pub prefix: &'static str,
    pub keys: &'static [&'static str],
}

/// The tables of one kind of file.
#[derive(Debug)]
pub(in crate::config) struct FileSpec {
    /// As it is called in messages.
    pub what: &'static str,
    pub tables: &'static [&'static TableSpec],
    /// The other kind of file: a key may have been meant to be there.
    pub other: Option<&'static FileSpec>,
}

/// The name of the table above the first header.
pub(in crate::config) const TOP_LEVEL: &str = "the top level";

/// At most so many homes of a key are named.
const MAX_HOMES: usize = 3;

impl TableSpec {
    fn holds(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    fn is_top_level(&self) -> bool {
        self.what == TOP_LEVEL
    }

    /// `in [relay]`, `at the top level`
    fn in_words(&self) -> String {
        format!("{} {}", if self.is_top_level() { "at" } else { "in" }, self.what)
    }

    pub(super) fn report_unknown(&'static self, key: &Spanned<Cow<'_, str>>, report: &FileReport<'_>) {
        if !report.has_room(Severity::Error) {
            return report.count(Severity::Error);
        }
        let name = &**key.get_ref();
        let title = format!("unknown key {} {}", quoted(name), self.in_words());
        let is_dotted = name.split_once('.').is_some_and(|(first, _)| self.holds(first));
        if is_dotted {
            let complaint = Complaint::new(title, "inside quotes a dot is part of the name");
            return report.error(key.span(), complaint.help(format!("write {name} without quotes")));
        }
        let file = report.spec();
        let homes: Vec<_> = file.tables.iter().filter(|table| table.holds(name)).take(MAX_HOMES).collect();
        if !homes.is_empty() {
            if !report.is_below_broken_header(key.span().start) {
                report.error(key.span(), self.belongs_elsewhere(title, name, &homes));
            }
            return;
        }
        let in_other_file =
            file.other.and_then(|other| Some((other, other.tables.iter().find(|table| table.holds(name))?)));
        let complaint = if let Some((other, home)) = in_other_file {
            let help = match home.is_top_level() {
                true => format!("move it to {}", other.what),
                false => format!("move it to {} in {}", home.what, other.what),
            };
            Complaint::new(title, format!("this is a key of {}", other.what)).help(help)
        } else if let Some((home, meant)) = self.probably_meant(name, file) {
            let complaint = Complaint::new(title, format!("did you mean `{meant}`?"));
            match std::ptr::eq(home, self) {
                true => complaint,
                false => complaint.help(format!("`{meant}` is a key of {}", home.what)),
            }
        } else {
            Complaint::new(title, "there is no such key").help(format!(
                "the keys {} are {}",
                self.in_words(),
                self.keys.join(", ")
            ))
        };
        report.error(key.span(), complaint);
    }

    /// For a key that other tables of the file have.
    fn belongs_elsewhere(&self, title: String, name: &str, homes: &[&&'static TableSpec]) -> Complaint {
        let list = |words: Vec<String>| words.join(" or ");
        // `user.messages_per_day` below `[limits]`
        let below: Vec<String> = homes
            .iter()
            .filter(|home| !home.what.starts_with('[') && !home.is_top_level())
            .filter_map(|home| Some(format!("{}{name}", home.prefix.strip_prefix(self.prefix)?)))
            .collect();
        let is_top_level = homes.first().is_some_and(|home| home.is_top_level());
        let help = match (below.is_empty(), is_top_level) {
            (false, _) => format!("write {}", list(below)),
            (true, true) => "move it above the first [header]: a key below a header belongs to that table".into(),
            (true, false) => format!("move it to {}", list(homes.iter().map(|home| home.what.to_owned()).collect())),
        };
        let homes = homes.iter().map(|home| home.what.to_owned()).collect();
        Complaint::new(title, format!("this is a key of {}", list(homes))).help(help)
    }

    /// The nearest key of the file; where two are as near, that of this table.
    fn probably_meant(&'static self, name: &str, file: &FileSpec) -> Option<(&'static TableSpec, &'static str)> {
        let near = |home: &'static TableSpec| {
            let (distance, key) = nearest_with_distance(name, home.keys.iter().copied())?;
            Some((distance, home, key))
        };
        let others = file.tables.iter().copied().filter(|home| !std::ptr::eq(*home, self));
        let candidates = std::iter::once(self).chain(others).filter_map(near);
        candidates.min_by_key(|(distance, ..)| *distance).map(|(_, home, key)| (home, key))
    }
}

/// The word that was probably meant: few letters apart, whatever the case, `-` for `_`.
pub(super) fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    nearest_with_distance(word, words).map(|(_, nearest)| nearest)
}

fn nearest_with_distance<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<(usize, &'w str)> {
    if word.len() > 100 {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let word = plain(word);
    let distance = |candidate: &str| {
        let candidate = plain(candidate);
        // `warning` for `warn`, `licence` for `per_license`.
        let is_longer = candidate.len() > 3 && (word.starts_with(&candidate) || candidate.starts_with(&word));
        let last = candidate.rsplit_once('_').map_or(usize::MAX, |(_, last)| {
            if last.len() < 5 { usize::MAX } else { 1 + strsim::osa_distance(&word, last) }
        });
        let whole = strsim::osa_distance(&word, &candidate);
        if is_longer && word.len() > 3 { whole.min(1) } else { whole.min(last) }
    };
    let (distance, nearest) = words.map(|candidate| (distance(candidate), candidate)).min_by_key(|(d, _)| *d)?;
    (distance <= nearest.chars().count().div_ceil(3)).then_some((distance, nearest))
}
