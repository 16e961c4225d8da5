//! Typed reading of TOML tables: each wrong key and value is reported where it stands, and reading goes on.

use super::diagnostic::Severity;
use super::report::{Complaint, Report};
use super::source::quoted;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys that a table may have.
#[derive(Debug)]
pub(super) struct Spec {
    /// As it is called in messages: `[relay]`.
    pub what: &'static str,
    /// What stands before a key's name in messages: `relay.`.
    pub prefix: &'static str,
    pub keys: &'static [&'static str],
    /// Other tables of the file, in which a key may have been meant to stand.
    pub neighbours: &'static [&'static Spec],
}

/// A table of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'t> {
    pub report: &'t Report<'t>,
    pub entries: &'t DeTable<'t>,
    spec: &'static Spec,
    span: (usize, usize),
}

/// A value of the file, with the name of its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'t> {
    pub report: &'t Report<'t>,
    prefix: &'static str,
    key: &'static str,
    /// Whether the value is an element of a list.
    is_element: bool,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Table<'t> {
    /// A table whose unknown keys are reported at once.
    pub fn new(report: &'t Report<'t>, entries: &'t DeTable<'t>, span: Range<usize>, spec: &'static Spec) -> Table<'t> {
        let table = Table { report, entries, spec, span: (span.start, span.end) };
        for key in entries.keys() {
            if !spec.keys.contains(&&**key.get_ref()) {
                table.report_unknown(key);
            }
        }
        table
    }

    pub fn span(&self) -> Range<usize> {
        self.span.0..self.span.1
    }

    pub fn get(&self, key: &'static str) -> Option<Item<'t>> {
        debug_assert!(self.spec.keys.contains(&key), "{key} is missing from the keys of {}", self.spec.what);
        let value = self.entries.get(key)?;
        Some(Item { report: self.report, prefix: self.spec.prefix, key, is_element: false, value })
    }

    /// As [`Table::get`], but it must be there. `example` is the line to add.
    pub fn required(&self, key: &'static str, example: &str) -> Option<Item<'t>> {
        let item = self.get(key);
        if item.is_none() && !self.report.has_syntax_errors() && !self.has_misspelt(key) {
            let title = format!("`{}{key}` is missing", self.spec.prefix);
            self.report.error(self.span(), Complaint::new(title, "").help(format!("add a line such as `{example}`")));
        }
        item
    }

    /// Whether an unknown key was probably meant to be this one: then that message is enough.
    fn has_misspelt(&self, key: &str) -> bool {
        let unknown = self.entries.keys().map(|name| &**name.get_ref()).filter(|name| !self.spec.keys.contains(name));
        unknown.into_iter().any(|name| nearest(name, self.spec.keys.iter().copied()) == Some(key))
    }

    /// The table `[KEY]`, if there is one.
    pub fn table(&self, key: &'static str, spec: &'static Spec) -> Option<Table<'t>> {
        let item = self.get(key)?;
        match item.value.get_ref() {
            DeValue::Table(entries) => Some(Table::new(self.report, entries, item.span(), spec)),
            other => {
                let help = match other {
                    DeValue::Array(_) => format!("write {} with one pair of brackets", spec.what),
                    _ => format!("write its keys, such as `{}{}`", spec.prefix, spec.keys.first().unwrap_or(&"")),
                };
                let title = format!("`{}{key}` must be a table", self.spec.prefix);
                self.report.error(item.span(), Complaint::new(title, found(other)).help(help));
                None
            }
        }
    }

    /// The tables `[[KEY]]`.
    pub fn tables(&self, key: &'static str, spec: &'static Spec) -> Vec<Table<'t>> {
        let Some(item) = self.get(key) else { return Vec::new() };
        let complain = |value: &Spanned<DeValue<'_>>| {
            let title = format!("`{key}` must be a list of tables");
            let help = format!("write {} with two pairs of brackets: there may be several", spec.what);
            self.report.error(value.span(), Complaint::new(title, found(value.get_ref())).help(help));
        };
        let DeValue::Array(values) = item.value.get_ref() else {
            complain(item.value);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(values.len());
        for value in values.iter() {
            match value.get_ref() {
                DeValue::Table(entries) => tables.push(Table::new(self.report, entries, value.span(), spec)),
                _ => complain(value),
            }
        }
        tables
    }

    fn report_unknown(&self, key: &Spanned<std::borrow::Cow<'_, str>>) {
        let spec = self.spec;
        let name = &**key.get_ref();
        if !self.report.has_room(Severity::Error) {
            return self.report.count(Severity::Error);
        }
        let title = format!("unknown key {} in {}", quoted(name), spec.what);
        let holds = |spec: &Spec, name: &str| spec.keys.contains(&name);
        let dotted = name.split_once('.').is_some_and(|(first, _)| holds(spec, first));
        let complaint = if dotted {
            Complaint::new(title, "in quotes, the dot is a part of the name")
                .help(format!("write {name} without quotes"))
        } else if let Some(home) = spec.neighbours.iter().find(|home| holds(home, name)) {
            if self.report.is_below_broken_header(key.span().start) {
                return;
            }
            let below = home.prefix.strip_prefix(spec.prefix).filter(|_| !home.what.starts_with('['));
            let help = match below {
                Some(below) => format!("write {below}{name}"),
                None if home.prefix.is_empty() => {
                    "move it above the first header: what follows a [header] belongs to that header's table".into()
                }
                None => format!("move it to {}", home.what),
            };
            Complaint::new(title, format!("this is a key of {}", home.what)).help(help)
        } else if let Some(nearest) = nearest(name, spec.keys.iter().copied()) {
            Complaint::new(title, format!("did you mean `{nearest}`?"))
        } else {
            let near = |home: &&'static Spec| nearest(name, home.keys.iter().copied());
            let elsewhere = spec.neighbours.iter().find_map(|home| Some((home, near(home)?)));
            let label = match elsewhere {
                Some((home, key)) => format!("did you mean `{key}` of {}?", home.what),
                None => "no such key".into(),
            };
            Complaint::new(title, label).help(format!("the keys of {} are {}", spec.what, spec.keys.join(", ")))
        };
        self.report.error(key.span(), complaint);
    }
}

impl<'t> Item<'t> {
    pub fn span(&self) -> Range<usize> {
        self.value.span()
    }

    pub fn value(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    /// As an administrator calls the key: `relay.drain`.
    pub fn name(&self) -> String {
        format!("{}{}", self.prefix, self.key)
    }

    pub fn error(&self, complaint: Complaint) {
        self.report
            .error(self.span(), Complaint { title: format!("`{}`: {}", self.name(), complaint.title), ..complaint });
    }

    pub fn warning(&self, complaint: Complaint) {
        self.report
            .warning(self.span(), Complaint { title: format!("`{}`: {}", self.name(), complaint.title), ..complaint });
    }

    /// Reports that the value is of the wrong type. `wanted`: "a string", `example`: how the value should look.
    pub fn wrong_type(&self, wanted: &str, example: &str) {
        let (title, help) = match self.is_element {
            true => (format!("an element of `{}` must be {wanted}", self.name()), format!("write {example}")),
            false => (format!("`{}` must be {wanted}", self.name()), format!("write `{} = {example}`", self.key)),
        };
        let complaint = Complaint::new(title, found(self.value())).help(help);
        self.report.error(self.span(), complaint);
    }

    pub fn boolean(&self) -> Option<bool> {
        match self.value() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type("true or false", "true");
                None
            }
        }
    }

    pub fn string(&self, example: &str) -> Option<&'t str> {
        match self.value() {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type("a string", &quoted(example));
                None
            }
        }
    }

    /// A string that `parse` understands.
    pub fn parsed<T>(&self, example: &str, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<T> {
        parse(self.string(example)?).map_err(|complaint| self.error(complaint)).ok()
    }

    /// A whole number within the bounds.
    pub fn number(&self, bounds: std::ops::RangeInclusive<u64>, example: &str) -> Option<u64> {
        let DeValue::Integer(integer) = self.value() else {
            self.wrong_type("a whole number", example);
            return None;
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|n| u64::try_from(n).ok()) {
            Some(number) if bounds.contains(&number) => Some(number),
            _ => {
                let (least, most) = (bounds.start(), bounds.end());
                let is_low = integer.as_str().starts_with('-') || integer.as_str() == "0";
                let label = if is_low { "too small" } else { "too large" };
                let help = format!("write a number from {least} to {most}");
                self.error(Complaint::new(format!("{} is out of bounds", integer.as_str()), label).help(help));
                None
            }
        }
    }

    /// One of the words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let list = || words.iter().map(|(word, _)| quoted(word)).collect::<Vec<_>>().join(", ");
        let DeValue::String(text) = self.value() else {
            let wanted = format!("one of {}", list());
            self.wrong_type(&wanted, &quoted(words[0].0));
            return None;
        };
        let chosen = words.iter().find(|(word, _)| *word == &**text);
        if chosen.is_none() {
            let label = match nearest(text, words.iter().map(|(word, _)| *word)) {
                Some(word) => format!("did you mean {}?", quoted(word)),
                None => "not one of the words it can be".into(),
            };
            self.error(
                Complaint::new(format!("{} is not known here", quoted(text)), label)
                    .help(format!("write one of {}", list())),
            );
        }
        chosen.map(|(_, value)| *value)
    }

    /// The elements of a list. One value alone is an error, too: it says how to write a list of one.
    pub fn list(&self, example: &str) -> Vec<Item<'t>> {
        match self.value() {
            DeValue::Array(values) => values.iter().map(|value| Item { value, is_element: true, ..*self }).collect(),
            other => {
                let help = match other {
                    DeValue::String(text) => format!("[{}]", quoted(text)),
                    _ => format!("[{example}]"),
                };
                self.wrong_type("a list", &help);
                Vec::new()
            }
        }
    }

    /// The elements of a list of strings that `parse` understands; the others are reported and left out.
    pub fn parsed_list<T>(&self, example: &str, parse: impl Fn(&str) -> Result<T, Complaint>) -> Vec<T> {
        let items = self.list(&quoted(example));
        let mut parsed = Vec::with_capacity(items.len());
        parsed.extend(items.iter().filter_map(|item| item.parsed(example, &parse)));
        parsed
    }
}

/// What stands there, in words.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "this is a string",
        DeValue::Integer(_) => "this is a number",
        DeValue::Float(_) => "this is a number with a fraction",
        DeValue::Boolean(_) => "this is true or false",
        DeValue::Datetime(_) => "this is a date or time",
        DeValue::Array(_) => "this is a list",
        DeValue::Table(_) => "this is a table",
    }
    .into()
}

/// The word that was probably meant: few letters apart, whatever the case, `-` for `_`.
fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
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
    (distance <= nearest.chars().count().div_ceil(3)).then_some(nearest)
}
