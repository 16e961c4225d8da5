//! The problems of one file, collected while it is read.

use super::diagnostic::{Diagnostic, Severity};
use super::problems::{MAX_SHOWN_OF_FILE, Problems};
use super::source::Source;
use super::syntax::{describe_error, describe_unclosed};
use super::unclosed::{find_unclosed, without};
use super::unknown_key::FileSpec;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeTable;

/// The problems of one file. Only the first are described: a file with a million errors costs no more than one with a
/// hundred.
#[derive(Debug)]
pub(in crate::config) struct FileReport<'t> {
    source: &'t Source,
    spec: &'static FileSpec,
    problems: RefCell<Problems>,
    /// Lines with syntax errors: what is read from them is a guess.
    doubtful_lines: BTreeSet<u32>,
    /// Where a header is not closed: what follows seems to belong to another table.
    broken_header: Option<usize>,
}

/// A file that is not TOML.
static NO_TABLES: FileSpec = FileSpec { what: "", tables: &[], other: None };

/// What is wrong with a value or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Complaint {
    /// The title of the message, without the key.
    pub title: String,
    /// What is said at the value itself.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Complaint {
    pub fn new(title: impl Into<String>, label: impl Into<String>) -> Complaint {
        Complaint { title: title.into(), label: label.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Complaint {
        self.help = Some(help.into());
        self
    }
}

impl<'t> FileReport<'t> {
    /// For a file that is not TOML.
    pub fn of_text(source: &'t Source) -> FileReport<'t> {
        FileReport::of_file(source, &NO_TABLES)
    }

    fn of_file(source: &'t Source, spec: &'static FileSpec) -> FileReport<'t> {
        FileReport { source, spec, problems: RefCell::default(), doubtful_lines: BTreeSet::new(), broken_header: None }
    }

    /// Parses the file. Syntax errors are reported, one of each line, and what can be read in spite of them is returned.
    pub fn parse(source: &'t Source, spec: &'static FileSpec) -> (FileReport<'t>, Spanned<DeTable<'t>>) {
        let mut report = FileReport::of_file(source, spec);
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            return (report, table);
        }
        let unclosed = find_unclosed(&source.text);
        for unclosed in &unclosed {
            let (first, last) = (source.line(unclosed.statement.start), source.line(unclosed.statement.end));
            report.doubtful_lines.extend(first..=last);
            report.push_or_count(|| describe_unclosed(unclosed, source));
        }
        if unclosed.is_empty() {
            report.add_syntax_errors(&errors);
            return (report, table);
        }
        let (table, errors) = DeTable::parse_recoverable(source.repaired(|text| without(text, &unclosed)));
        report.add_syntax_errors(&errors);
        (report, table)
    }

    fn add_syntax_errors(&mut self, errors: &[toml::de::Error]) {
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            if self.doubtful_lines.insert(self.source.line(span.start)) {
                self.push_or_count(|| describe_error(error, self.source));
            }
            if error.message().starts_with("unclosed table") || error.message().starts_with("unclosed array table") {
                self.broken_header.get_or_insert(span.start);
            }
        }
    }

    fn push_or_count(&self, describe: impl FnOnce() -> Diagnostic) {
        match self.has_room(Severity::Error) {
            true => self.push(describe()),
            false => self.count(Severity::Error),
        }
    }

    pub fn source(&self) -> &'t Source {
        self.source
    }

    /// The keys that a file of this kind may have.
    pub fn spec(&self) -> &'static FileSpec {
        self.spec
    }

    pub fn has_syntax_errors(&self) -> bool {
        !self.doubtful_lines.is_empty()
    }

    /// Whether a syntax error lies on one of the lines of the span.
    pub fn is_doubtful(&self, span: Range<usize>) -> bool {
        self.has_syntax_errors()
            && self.doubtful_lines.range(self.source.line(span.start)..=self.source.line(span.end)).next().is_some()
    }

    /// Whether the place lies in a table whose header may have been meant otherwise.
    pub fn is_below_broken_header(&self, offset: usize) -> bool {
        self.broken_header.is_some_and(|header| header < offset)
    }

    /// Adds what `describe` says about a place, unless it lies where the syntax is wrong anyway.
    pub fn add(&self, severity: Severity, at: usize, describe: impl FnOnce(&'t Source) -> Diagnostic) {
        if self.has_syntax_errors() && self.doubtful_lines.contains(&self.source.line(at)) {
            return;
        }
        if self.has_room(severity) { self.push(describe(self.source)) } else { self.count(severity) }
    }

    pub fn error(&self, span: Range<usize>, complaint: Complaint) {
        self.complain(Severity::Error, span, complaint);
    }

    pub fn warning(&self, span: Range<usize>, complaint: Complaint) {
        self.complain(Severity::Warning, span, complaint);
    }

    fn complain(&self, severity: Severity, span: Range<usize>, complaint: Complaint) {
        // The parser's stand-in for a value that it could not read.
        if span.is_empty() && self.has_syntax_errors() {
            return;
        }
        self.add(severity, span.start, |source| Diagnostic {
            severity,
            title: complaint.title,
            locations: vec![source.place(span, complaint.label)],
            help: complaint.help.into_iter().collect(),
        });
    }

    fn push(&self, diagnostic: Diagnostic) {
        self.problems.borrow_mut().push_within(diagnostic, MAX_SHOWN_OF_FILE);
    }

    /// Counts a problem without describing it.
    pub fn count(&self, severity: Severity) {
        self.problems.borrow_mut().count(severity);
    }

    /// Whether a further problem would be shown.
    pub fn has_room(&self, severity: Severity) -> bool {
        self.problems.borrow().has_room_within(severity, MAX_SHOWN_OF_FILE)
    }

    pub fn has_errors(&self) -> bool {
        self.problems.borrow().errors() > 0
    }

    /// In the order of the file.
    pub fn into_problems(self) -> Problems {
        let mut problems = self.problems.into_inner();
        problems.sort_by_line();
        problems
    }
}
