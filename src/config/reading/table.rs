//! Typed reading of TOML tables: each wrong key and value is reported where it stands, and reading goes on.

use super::file_report::{Complaint, FileReport};
use super::source::quoted;
use super::unknown_key::{TableSpec, nearest};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table of the file.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Table<'t> {
    pub report: &'t FileReport<'t>,
    pub entries: &'t DeTable<'t>,
    spec: &'static TableSpec,
    span: (usize, usize),
}

/// A value of the file, with the name of its key.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Item<'t> {
    pub report: &'t FileReport<'t>,
    prefix: &'static str,
    key: &'static str,
    /// Whether the value is an element of a list.
    is_element: bool,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Table<'t> {
    /// A table whose unknown keys are reported at once.
    pub fn new(
        report: &'t FileReport<'t>,
        entries: &'t DeTable<'t>,
        span: Range<usize>,
        spec: &'static TableSpec,
    ) -> Table<'t> {
        let table = Table { report, entries, spec, span: (span.start, span.end) };
        for key in entries.keys() {
            if !spec.keys.contains(&&**key.get_ref()) {
                spec.report_unknown(key, report);
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
    pub fn table(&self, key: &'static str, spec: &'static TableSpec) -> Option<Table<'t>> {
        let item = self.get(key)?;
        match item.value.get_ref() {
            DeValue::Table(entries) => Some(Table::new(self.report, entries, item.span(), spec)),
            other => {
                let help = match other {
                    DeValue::Array(_) => format!("write {} with one pair of brackets", spec.what),
                    _ => format!("write its keys, such as `{}{}`", spec.prefix, spec.keys.first().unwrap_or(&"")),
                };
                let title = format!("`{}{key}` must be a table", self.spec.prefix);
                self.report.error(item.span(), Complaint::new(title, type_of(other)).help(help));
                None
            }
        }
    }

    /// The tables `[[KEY]]`.
    pub fn tables(&self, key: &'static str, spec: &'static TableSpec) -> Vec<Table<'t>> {
        let Some(item) = self.get(key) else { return Vec::new() };
        let complain = |value: &Spanned<DeValue<'_>>| {
            let title = format!("`{key}` must be a list of tables");
            let help = format!("write {} with two pairs of brackets: there may be several", spec.what);
            self.report.error(value.span(), Complaint::new(title, type_of(value.get_ref())).help(help));
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
        let complaint = Complaint::new(title, type_of(self.value())).help(help);
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
                self.error(Complaint::new(format!("{} is out of range", integer.as_str()), label).help(help));
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
                None => "expected one of the values below".into(),
            };
            self.error(
                Complaint::new(format!("{} is not a valid value", quoted(text)), label)
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

/// The type of a value, in words.
fn type_of(value: &DeValue<'_>) -> String {
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
