//! The problems of one file, collected while it is read.

use super::diagnostic::{Diagnostic, MAX_SHOWN_OF_FILE, Problems, Severity};
use super::source::{Place, Source, quoted};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeTable;

/// Collects problems. Only so many are described: a file of a million errors costs no more than one of a hundred.
#[derive(Debug)]
pub(super) struct Report<'t> {
    source: &'t Source,
    problems: RefCell<Problems>,
    /// Lines with syntax errors: what is read from them is a guess.
    doubtful_lines: BTreeSet<u32>,
    /// Where a header is not closed: what follows seems to belong to another table.
    broken_header: Option<usize>,
}

/// Why a value cannot be what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
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

impl<'t> Report<'t> {
    /// For a file that is not TOML.
    pub fn of_text(source: &'t Source) -> Report<'t> {
        Report { source, problems: RefCell::default(), doubtful_lines: BTreeSet::new(), broken_header: None }
    }

    /// Parses the file. Syntax errors are reported, and what can be made out of the rest is returned.
    pub fn parse(source: &'t Source) -> (Report<'t>, Spanned<DeTable<'t>>) {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        let mut report = Report::of_text(source);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let is_echo = !report.doubtful_lines.insert(source.line(span.start));
            if !is_echo && report.has_room(Severity::Error) {
                report.push(syntax_error(error, source));
            } else if !is_echo {
                report.count(Severity::Error);
            }
            if error.message().starts_with("unclosed table") || error.message().starts_with("unclosed array table") {
                report.broken_header.get_or_insert(span.start);
            }
        }
        (report, table)
    }

    pub fn source(&self) -> &'t Source {
        self.source
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
        self.add(severity, span.start, |source| Diagnostic {
            severity,
            title: complaint.title,
            places: vec![source.place(span, complaint.label)],
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

    /// Whether a further problem would be kept.
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

/// A syntax error, with what to write instead where that can be guessed.
fn syntax_error(error: &toml::de::Error, source: &Source) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let found = source.text.get(span.clone()).unwrap_or("");
    let message = error.message();
    let at = |label: &str| -> Place { source.place(span.clone(), label) };
    if message == "duplicate key" {
        let title = format!("the key {} is there twice", quoted(found));
        return Diagnostic::error(title).at(at("the second time")).help("leave out one of the two");
    }
    let diagnostic = Diagnostic::error("this is not TOML");
    let is_bare_word = found.starts_with(|c: char| c.is_alphabetic()) && !found.contains(['"', '\'']);
    if is_bare_word && (message.contains("must be quoted") || message.starts_with("invalid")) {
        return diagnostic.at(at("text stands in quotes")).help(format!("write {}", quoted(found)));
    }
    if message.starts_with("invalid basic string") {
        return diagnostic.at(at("the quote that ends the text is missing"));
    }
    diagnostic.at(at(message))
}
