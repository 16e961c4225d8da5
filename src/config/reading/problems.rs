//! All problems of a configuration, bounded in number.

use super::diagnostic::{Diagnostic, Severity, Style};
use std::path::Path;

/// How many errors, and how many warnings, are shown; further ones are only counted.
pub const MAX_SHOWN: usize = 1_000;
/// How many problems of one file are shown, so that a file of nothing but errors does not hide the others.
pub(in crate::config) const MAX_SHOWN_OF_FILE: usize = 100;

/// All problems of a configuration, bounded in number.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    shown: Vec<Diagnostic>,
    errors: Counts,
    warnings: Counts,
    notes: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    seen: usize,
    shown: usize,
}

impl Problems {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.push_within(diagnostic, MAX_SHOWN);
    }

    pub(in crate::config) fn push_within(&mut self, diagnostic: Diagnostic, most: usize) {
        let counts = self.counts(diagnostic.severity);
        counts.seen += 1;
        if counts.shown < most {
            counts.shown += 1;
            self.shown.push(diagnostic);
        }
    }

    /// Takes over another file's problems.
    pub fn append(&mut self, other: Problems) {
        self.errors.seen += other.errors.seen - other.errors.shown;
        self.warnings.seen += other.warnings.seen - other.warnings.shown;
        self.notes.seen += other.notes.seen - other.notes.shown;
        for diagnostic in other.shown {
            self.push(diagnostic);
        }
    }

    /// Shows nothing more of what is wrong in a file. The problems are still counted.
    pub(in crate::config) fn remove_those_of_file(&mut self, file: &Path) {
        self.shown.retain(|diagnostic| diagnostic.locations.iter().all(|place| *place.file != *file));
        let shown = |severity| self.shown.iter().filter(|diagnostic| diagnostic.severity == severity).count();
        let shown = [Severity::Error, Severity::Warning, Severity::Note].map(shown);
        [self.errors.shown, self.warnings.shown, self.notes.shown] = shown;
    }

    /// Counts a problem that need not be described, because there is no room for it.
    pub(in crate::config) fn count(&mut self, severity: Severity) {
        self.counts(severity).seen += 1;
    }

    /// Whether a further problem of this kind would be shown.
    pub(in crate::config) fn has_room(&self, severity: Severity) -> bool {
        self.has_room_within(severity, MAX_SHOWN)
    }

    pub(in crate::config) fn has_room_within(&self, severity: Severity, most: usize) -> bool {
        match severity {
            Severity::Error => self.errors.shown < most,
            Severity::Warning => self.warnings.shown < most,
            Severity::Note => self.notes.shown < most,
        }
    }

    fn counts(&mut self, severity: Severity) -> &mut Counts {
        match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
            Severity::Note => &mut self.notes,
        }
    }

    pub fn errors(&self) -> usize {
        self.errors.seen
    }

    pub fn warnings(&self) -> usize {
        self.warnings.seen
    }

    /// Whether there is neither an error nor a warning.
    pub fn is_empty(&self) -> bool {
        self.errors.seen + self.warnings.seen == 0
    }

    /// The problems that are shown.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.shown.iter()
    }

    pub(in crate::config) fn sort_by_line(&mut self) {
        self.shown.sort_by_key(|diagnostic| diagnostic.locations.first().map(|place| (place.line, place.column)));
    }

    /// All problems as a compiler shows them, and how many more there are.
    pub fn render(&self, style: Style) -> String {
        let mut out = String::new();
        for diagnostic in &self.shown {
            out.push_str(&diagnostic.render(style));
            out.push_str("\n\n");
        }
        let unseen = self.errors.seen + self.warnings.seen + self.notes.seen - self.shown.len();
        if unseen > 0 {
            out.push_str(&format!("… and {unseen} more\n\n"));
        }
        out
    }

    /// `2 errors, 1 warning`; notes are not counted.
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
    use super::*;

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
        assert!(all.render(Style::Plain).ends_with("… and 2000 more\n\n"));
        assert_eq!(all.summary(), "3000 errors, 1 warning");
    }
}
