//! A configuration file's text, and locations in it.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The largest main file, in bytes.
pub const MAX_MAIN_FILE: u64 = 1 << 20;
/// The largest customer file, in bytes. A customer with more users than fit puts them into a `users_file`.
pub const MAX_CUSTOMER_FILE: u64 = 16 << 20;
/// The largest users file, in bytes: more than a million users.
pub const MAX_USERS_FILE: u64 = 128 << 20;

/// What of a very long line is kept for messages, in bytes around the place.
const MAX_EXCERPT: usize = 2_000;

/// A file's text while it is read.
#[derive(Debug)]
pub(in crate::config) struct Source {
    pub path: Arc<Path>,
    pub text: String,
    /// Where each line begins; made when it is first needed.
    line_starts: OnceCell<Vec<usize>>,
    /// The text without what makes the rest unreadable, of the same length.
    repaired: OnceCell<String>,
}

/// A place in a file, with the line itself: all that a message needs when the text is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub file: Arc<Path>,
    /// From 1; 0 is the file as a whole.
    pub line: u32,
    /// In characters, from 1; 0 is the file as a whole.
    pub column: u32,
    /// The line, with control characters other than tabs made visible.
    pub excerpt: String,
    /// What is meant, in bytes of `excerpt`.
    pub mark: Range<usize>,
    /// Whether `excerpt` is only a part of its line.
    pub is_cut: bool,
    /// What is said about it; may be empty.
    pub label: String,
}

impl Source {
    pub fn new(path: Arc<Path>, text: String) -> Source {
        Source { path, text, line_starts: OnceCell::new(), repaired: OnceCell::new() }
    }

    /// The text as `repair` changes it the first time; positions in it must be those in the text.
    pub fn repaired(&self, repair: impl FnOnce(&str) -> String) -> &str {
        self.repaired.get_or_init(|| repair(&self.text))
    }

    /// Reads a regular file of at most `max` bytes. The text of an error is complete but for the file's name.
    pub fn read(path: Arc<Path>, max: u64) -> Result<Source, Unreadable> {
        let mut file = open_regular(&path)?;
        let mut bytes = Vec::new();
        file.by_ref().take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(Unreadable::TooLarge { max });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source::new(path, text)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let place = Source::new(path, text).place(good..good + '\u{fffd}'.len_utf8(), "this is not UTF-8");
                Err(Unreadable::NotUtf8(Box::new(place)))
            }
        }
    }

    /// Where `span` begins, with the line it begins on. Spans that reach over several lines are cut at the first.
    pub fn place(&self, span: Range<usize>, label: impl Into<String>) -> Location {
        let start = floor_char_boundary(&self.text, span.start);
        let line = self.line(start);
        let line_start = self.line_starts()[line as usize - 1];
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let line_end = line_start.max(start + self.text[start..line_end].trim_end_matches('\r').len());
        let end = floor_char_boundary(&self.text, span.end.clamp(start, line_end));

        let mut from = line_start;
        let mut to = line_end;
        if to - from > MAX_EXCERPT {
            from = floor_char_boundary(&self.text, start.saturating_sub(MAX_EXCERPT / 4)).max(line_start);
            to = floor_char_boundary(&self.text, from + MAX_EXCERPT).min(line_end);
        }
        let mut excerpt = String::with_capacity(to - from);
        push_visible(&mut excerpt, &self.text[from..start]);
        let mark_start = excerpt.len();
        push_visible(&mut excerpt, &self.text[start..end.min(to)]);
        let mark_end = excerpt.len();
        push_visible(&mut excerpt, &self.text[end.min(to)..to]);
        excerpt.truncate(excerpt.trim_end().len().max(mark_end));

        Location {
            file: self.path.clone(),
            line,
            column: 1 + self.text[line_start..start].chars().count() as u32,
            excerpt,
            mark: mark_start..mark_end,
            is_cut: from > line_start || to < line_end,
            label: label.into(),
        }
    }

    /// The line, from 1, on which a byte of the text lies.
    pub fn line(&self, offset: usize) -> u32 {
        self.line_starts().partition_point(|&start| start <= offset) as u32
    }

    fn line_starts(&self) -> &[usize] {
        self.line_starts.get_or_init(|| {
            let newlines = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(newlines.map(|(n, _)| n + 1)).collect()
        })
    }
}

impl Location {
    /// A file as a whole.
    pub fn file(file: Arc<Path>, label: impl Into<String>) -> Location {
        Location { file, line: 0, column: 0, excerpt: String::new(), mark: 0..0, is_cut: false, label: label.into() }
    }
}

/// Why a file's text could not be had.
#[derive(Debug)]
pub(in crate::config) enum Unreadable {
    Io(io::Error),
    NotRegular,
    TooLarge { max: u64 },
    NotUtf8(Box<Location>),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        Unreadable::Io(error)
    }
}

/// A FIFO or a device named like a configuration file must not block the start.
fn open_regular(path: &Path) -> Result<File, Unreadable> {
    crate::files::open_regular(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => Unreadable::NotRegular,
        _ => Unreadable::Io(error),
    })
}

fn push_visible(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            // The renderer widens tabs; one character stays one, so that columns are right.
            '\t' => out.push(c),
            c if c.is_control() || is_invisible(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

/// Characters that change the direction of what follows could make a message lie.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Text found in a file, short and harmless enough to stand in a message, in quotes.
pub(in crate::config) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (n, c) in text.chars().enumerate() {
        if n == 80 {
            out.push('…');
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Path::new("a.toml").into(), text.into())
    }

    #[test]
    fn a_place_is_line_and_column_and_the_line_itself() {
        let text = "a = 1\r\nb\t= \"ü\" # end\r\nc = 3\n";
        let start = text.find("\"ü\"").unwrap();
        let place = source(text).place(start..start + 4, "here");
        assert_eq!((place.line, place.column), (2, 5));
        assert_eq!(place.excerpt, "b\t= \"ü\" # end");
        assert_eq!(&place.excerpt[place.mark], "\"ü\"");
    }

    #[test]
    fn places_beyond_the_end_and_over_lines_are_bounded() {
        let place = source("a = 1").place(99..200, "");
        assert_eq!((place.line, place.column, place.mark), (1, 6, 5..5));
        let place = source("a = [\n1\n]").place(4..9, "");
        assert_eq!(&place.excerpt[place.mark.clone()], "[");
        assert_eq!((place.line, place.column), (1, 5));
        assert_eq!(source("").place(0..0, "").line, 1);
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_place() {
        let text = format!("{}HERE{}", "é".repeat(50_000), "y".repeat(50_000));
        let start = text.find("HERE").unwrap();
        let place = source(&text).place(start..start + 4, "");
        assert!(place.is_cut && place.excerpt.len() <= MAX_EXCERPT + 8);
        assert_eq!(&place.excerpt[place.mark], "HERE");
        assert_eq!(place.column, 50_001);
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(source("a\u{1b}[31m\u{202e}").place(0..1, "").excerpt, "a\u{fffd}[31m\u{fffd}");
        assert_eq!(quoted("a\n\"\u{1b}"), "\"a\\n\\\"\\u{1b}\"");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo.toml");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(Source::read(fifo.as_path().into(), 10), Err(Unreadable::NotRegular)));
        assert!(matches!(Source::read(folder.path().into(), 10), Err(Unreadable::NotRegular)));
        std::fs::write(folder.path().join("a"), "0123456789").unwrap();
        assert!(Source::read(folder.path().join("a").into(), 10).is_ok());
        assert!(matches!(Source::read(folder.path().join("a").into(), 9), Err(Unreadable::TooLarge { max: 9 })));
    }
}
