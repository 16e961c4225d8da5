//! What is wrong with a configuration, in words: as a compiler would say it, or as one line for a log.

use super::source::Location;
use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};
use std::borrow::Cow;
use std::fmt;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// What could not be found out, or is only said.
    Note,
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
    pub locations: Vec<Location>,
    pub help: Vec<String>,
}

impl Diagnostic {
    pub fn error(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, title: title.into(), locations: Vec::new(), help: Vec::new() }
    }

    pub fn warning(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(title) }
    }

    pub fn note(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Note, ..Diagnostic::error(title) }
    }

    pub fn at(mut self, place: Location) -> Diagnostic {
        self.locations.push(place);
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }

    /// As a compiler shows it, over several lines, without a final newline.
    pub fn render(&self, style: Style) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let mut elements = Vec::<Element<'_>>::new();
        for (n, place) in self.locations.iter().enumerate() {
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
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Terminal => Renderer::styled(),
        };
        let text = renderer.render(&[report]);
        if !self.locations.iter().any(|place| place.is_cut) {
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
        if let Some(place) = self.locations.first() {
            write_position(f, place)?;
            f.write_str(": ")?;
        }
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        })?;
        f.write_str(&self.title)?;
        if let Some(place) = self.locations.first().filter(|place| !place.label.is_empty()) {
            write!(f, ": {}", place.label)?;
        }
        for place in self.locations.iter().skip(1) {
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

fn write_position(f: &mut impl fmt::Write, place: &Location) -> fmt::Result {
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
pub enum Style {
    /// Files, pipes, logs.
    Plain,
    /// A terminal: with colours.
    Terminal,
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;
    use std::path::Path;

    fn at(text: &str, what: &str) -> Location {
        let source = Source::new(Path::new("a.toml").into(), text.into());
        let start = text.find(what).unwrap();
        source.place(start..start + what.len(), "here")
    }

    #[test]
    fn a_part_of_a_very_long_line_has_the_right_column() {
        let text = format!("list = [{} HERE, {}]", "1, ".repeat(2_000), "1, ".repeat(2_000));
        let error = Diagnostic::error("wrong").at(at(&text, "HERE"));
        for style in [Style::Plain, Style::Terminal] {
            let shown = error.render(style);
            assert!(shown.contains("a.toml:1:6010") && shown.contains("HERE"), "{shown}");
            assert!(!shown.contains(":::") && shown.lines().count() == 5, "{shown}");
        }
        assert_eq!(error.to_string(), "a.toml:1:6010: error: wrong: here");
    }
}
