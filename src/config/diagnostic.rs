//! What is wrong with a configuration, in words: as a compiler would say it, or as one line for a log.

use super::source::Place;
use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};
use std::borrow::Cow;
use std::fmt;

/// How many errors, and how many warnings, are kept and shown; further ones are counted.
pub const MAX_SHOWN: usize = 1_000;
/// How many problems of one file are kept, so that a file of nothing but errors does not hide the others.
pub(super) const MAX_SHOWN_OF_FILE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; the configuration is used.
    Warning,
    /// The file cannot be used.
    Error,
}

/// One problem: what was found, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub title: String,
    /// The first is where it happened, others are what it conflicts with.
    pub places: Vec<Place>,
    pub help: Vec<String>,
}

impl Diagnostic {
    pub(super) fn error(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, title: title.into(), places: Vec::new(), help: Vec::new() }
    }

    pub(super) fn warning(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(title) }
    }

    pub(super) fn at(mut self, place: Place) -> Diagnostic {
        self.places.push(place);
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }

    /// As a compiler shows it, over several lines, without a final newline.
    pub fn render(&self, look: Look) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut elements = Vec::<Element<'_>>::new();
        for (n, place) in self.places.iter().enumerate() {
            let path = visible(&place.file.to_string_lossy()).into_owned();
            if place.line == 0 {
                elements.push(Origin::path(path).into());
                if !place.label.is_empty() {
                    elements.push(Level::NOTE.message(visible(&place.label)).into());
                }
                continue;
            }
            let kind = if n == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let mut annotation = kind.span(place.mark.clone());
            if !place.label.is_empty() {
                annotation = annotation.label(visible(&place.label));
            }
            let mut snippet = Snippet::source(&*place.excerpt).line_start(place.line as usize).annotation(annotation);
            if place.is_cut {
                // Counted in a part of a line, the column would be wrong.
                let origin = Origin::path(path).line(place.line as usize).char_column(place.column as usize);
                elements.push(origin.into());
            } else {
                snippet = snippet.path(path);
            }
            elements.push(snippet.into());
        }
        elements.extend(self.help.iter().map(|help| Level::HELP.message(visible(help)).into()));
        let report = level.primary_title(visible(&self.title)).elements(elements);
        let renderer = match look {
            Look::Plain => Renderer::plain(),
            Look::Terminal => Renderer::styled(),
        };
        let text = renderer.render(&[report]);
        if !self.places.iter().any(|place| place.is_cut) {
            return text;
        }
        text.lines().filter(|line| !is_bare_origin(line)).collect::<Vec<_>>().join("\n")
    }
}

/// Between a place and the part of its line, the renderer puts a `:::` with nothing after it.
fn is_bare_origin(line: &str) -> bool {
    let mut sequences = line.split("\u{1b}[");
    let first = sequences.next().unwrap_or("");
    let others = sequences.filter_map(|sequence| sequence.split_once('m').map(|(_, text)| text));
    std::iter::once(first).chain(others).collect::<String>().trim() == ":::"
}

/// One line for a log: `customers.d/acme.toml:3:12: error: …`, without control characters, whatever stands in the file.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        self.write_line(&mut line)?;
        f.write_str(&visible(&line))
    }
}

impl Diagnostic {
    fn write_line(&self, f: &mut impl fmt::Write) -> fmt::Result {
        if let Some(place) = self.places.first() {
            write_position(f, place)?;
            f.write_str(": ")?;
        }
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        f.write_str(&self.title)?;
        if let Some(place) = self.places.first().filter(|place| !place.label.is_empty()) {
            write!(f, ": {}", place.label)?;
        }
        for place in self.places.iter().skip(1) {
            f.write_str(" (")?;
            write_position(f, place)?;
            write!(f, ": {})", place.label)?;
        }
        for help in &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

fn write_position(f: &mut impl fmt::Write, place: &Place) -> fmt::Result {
    f.write_str(&place.file.to_string_lossy())?;
    if place.line > 0 {
        write!(f, ":{}:{}", place.line, place.column)?;
    }
    Ok(())
}

/// Without control characters: files, and their names, may hold what is meant for the terminal or for the log.
fn visible(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        true => Cow::Owned(text.replace(char::is_control, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// For whom problems are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Files, pipes, logs.
    Plain,
    /// A terminal: with colours.
    Terminal,
}

/// All problems of a configuration, bounded in number.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    kept: Vec<Diagnostic>,
    errors: Tally,
    warnings: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    seen: usize,
    kept: usize,
}

impl Problems {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.push_within(diagnostic, MAX_SHOWN);
    }

    pub(super) fn push_within(&mut self, diagnostic: Diagnostic, most: usize) {
        let tally = self.tally(diagnostic.severity);
        tally.seen += 1;
        if tally.kept < most {
            tally.kept += 1;
            self.kept.push(diagnostic);
        }
    }

    /// Takes over another file's problems.
    pub fn append(&mut self, other: Problems) {
        self.errors.seen += other.errors.seen - other.errors.kept;
        self.warnings.seen += other.warnings.seen - other.warnings.kept;
        for diagnostic in other.kept {
            self.push(diagnostic);
        }
    }

    /// Counts a problem that need not be described, because there is no room for it.
    pub(super) fn count(&mut self, severity: Severity) {
        self.tally(severity).seen += 1;
    }

    /// Whether a further problem of this kind would be kept.
    pub(super) fn has_room(&self, severity: Severity) -> bool {
        self.has_room_within(severity, MAX_SHOWN)
    }

    pub(super) fn has_room_within(&self, severity: Severity, most: usize) -> bool {
        match severity {
            Severity::Error => self.errors.kept < most,
            Severity::Warning => self.warnings.kept < most,
        }
    }

    fn tally(&mut self, severity: Severity) -> &mut Tally {
        match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        }
    }

    pub fn errors(&self) -> usize {
        self.errors.seen
    }

    pub fn warnings(&self) -> usize {
        self.warnings.seen
    }

    pub fn is_empty(&self) -> bool {
        self.errors.seen + self.warnings.seen == 0
    }

    /// The problems that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.kept.iter()
    }

    pub(super) fn sort_by_line(&mut self) {
        self.kept.sort_by_key(|diagnostic| diagnostic.places.first().map(|place| (place.line, place.column)));
    }

    /// All kept problems as a compiler shows them, and how many more there are.
    pub fn render(&self, look: Look) -> String {
        let mut out = String::new();
        for diagnostic in &self.kept {
            out.push_str(&diagnostic.render(look));
            out.push_str("\n\n");
        }
        let unseen = self.errors.seen + self.warnings.seen - self.kept.len();
        if unseen > 0 {
            out.push_str(&format!("… and {unseen} more\n\n"));
        }
        out
    }

    /// `2 errors, 1 warning`
    pub fn summary(&self) -> String {
        match (self.errors.seen, self.warnings.seen) {
            (0, 0) => "no errors".into(),
            (errors, 0) => how_many(errors, "error"),
            (0, warnings) => how_many(warnings, "warning"),
            (errors, warnings) => format!("{}, {}", how_many(errors, "error"), how_many(warnings, "warning")),
        }
    }
}

/// `1 customer`, `2 customers`
pub fn how_many(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;
    use std::path::Path;

    fn at(text: &str, what: &str) -> Place {
        let source = Source::new(Path::new("a.toml").into(), text.into());
        let start = text.find(what).unwrap();
        source.place(start..start + what.len(), "here")
    }

    #[test]
    fn a_part_of_a_very_long_line_has_the_right_column() {
        let text = format!("list = [{} HERE, {}]", "1, ".repeat(2_000), "1, ".repeat(2_000));
        let error = Diagnostic::error("wrong").at(at(&text, "HERE"));
        for look in [Look::Plain, Look::Terminal] {
            let shown = error.render(look);
            assert!(shown.contains("a.toml:1:6010") && shown.contains("HERE"), "{shown}");
            assert!(!shown.contains(":::") && shown.lines().count() == 5, "{shown}");
        }
        assert_eq!(error.to_string(), "a.toml:1:6010: error: wrong: here");
    }

    #[test]
    fn problems_beyond_the_most_are_counted() {
        let mut one_file = Problems::default();
        for _ in 0..150 {
            one_file.push_within(Diagnostic::error("wrong"), MAX_SHOWN_OF_FILE);
        }
        let mut all = Problems::default();
        for _ in 0..20 {
            all.append(one_file.clone());
        }
        all.push(Diagnostic::warning("odd"));
        assert_eq!((all.errors(), all.warnings(), all.iter().count()), (3_000, 1, MAX_SHOWN + 1));
        assert!(all.render(Look::Plain).ends_with("… and 2000 more\n\n"));
        assert_eq!(all.summary(), "3000 errors, 1 warning");
    }
}
