//! Finds what a file opens and never closes: lists, inline tables, texts; and lines that are no statement at all.
//!
//! The parser goes on to the end of the file for a closing bracket and reports every line on its way; where the bracket
//! was opened it does not say. Here a list ends at the latest where a line is a `key = …` or a `[header]`, which no list
//! holds. Only files that the parser rejects are looked at.

use std::ops::Range;

/// Something that is not closed, or a text that is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    pub kind: Kind,
    /// The bracket or quote, in bytes; of [`Kind::NoOpeningQuote`] the text, of [`Kind::NoEqualsSign`] the key.
    pub at: Range<usize>,
    /// The `key = value` that it is part of, without the line break at its end.
    pub statement: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[`
    List,
    /// `{`
    InlineTable,
    /// `"` or `'`
    Text,
    /// `"""` or `'''`
    LongText,
    /// A closing quote alone: `acme"`.
    NoOpeningQuote,
    /// A line that is neither a header nor `key = value`.
    NoEqualsSign,
}

/// All of them, in the order of the text; at most one of each statement.
pub(super) fn find_unclosed(text: &str) -> Vec<Unclosed> {
    let mut unclosed = Vec::new();
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at: 0 };
    while scanner.skip_to_statement() {
        let start = scanner.at;
        if !scanner.skip_to_value() {
            scanner.skip_line();
            let line = &text[start..scanner.at];
            if let Some((kind, length)) = what_is_no_statement(line) {
                unclosed.push(Unclosed { kind, at: start..start + length, statement: start..scanner.at });
            }
            continue;
        }
        if let Some((kind, at)) = scanner.skip_value() {
            unclosed.push(Unclosed { kind, at, statement: start..scanner.at });
        }
        scanner.skip_line();
    }
    unclosed
}

/// The text with these statements blanked out. Nothing else moves.
pub(super) fn without(text: &str, unclosed: &[Unclosed]) -> String {
    let mut rest = String::with_capacity(text.len());
    for Unclosed { statement, .. } in unclosed {
        rest.push_str(&text[rest.len()..statement.start]);
        let blanked = text[statement.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
        rest.extend(blanked);
    }
    rest.push_str(&text[rest.len()..]);
    rest
}

struct Scanner<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// To the end of the line; its line break stays.
    fn skip_line(&mut self) {
        self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
    }

    /// To the next line with something on it. False: there is none.
    fn skip_to_statement(&mut self) -> bool {
        while let Some(byte) = self.peek() {
            match byte {
                b'#' => self.skip_line(),
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                _ => return true,
            }
        }
        false
    }

    /// Behind the `=` of a `key = value`. False: this line has none.
    fn skip_to_value(&mut self) -> bool {
        match after_equals_sign(&self.text[self.at..]) {
            Some(offset) => {
                self.at += offset;
                true
            }
            None => false,
        }
    }

    /// Over a value, or as far as it seems to have been meant.
    fn skip_value(&mut self) -> Option<(Kind, Range<usize>)> {
        let mut open: Vec<(Kind, usize)> = Vec::new();
        // Whether what came last in an inline table lets a `key = value` follow.
        let mut after_separator = true;
        // Where a word without quotes began.
        let mut word = None;
        while let Some(byte) = self.peek() {
            let start = self.at;
            match byte {
                b'#' => self.skip_line(),
                b'\n' if open.is_empty() => return None,
                b'\n' => {
                    let &(kind, bracket) = open.last()?;
                    let line_end = self.at;
                    if !self.skip_to_statement() || self.ends(kind, after_separator) {
                        self.at = line_end;
                        return Some((kind, bracket..bracket + 1));
                    }
                    word = None;
                    continue;
                }
                b'"' | b'\'' => {
                    if let Some(word) = word {
                        self.skip_line();
                        return Some((Kind::NoOpeningQuote, word..start));
                    }
                    if let Some(kind) = self.skip_text(byte) {
                        let quotes = if kind == Kind::LongText { 3 } else { 1 };
                        return Some((kind, start..start + quotes));
                    }
                    after_separator = false;
                    continue;
                }
                b'[' => open.push((Kind::List, start)),
                b'{' => open.push((Kind::InlineTable, start)),
                b']' | b'}' => {
                    let kind = if byte == b']' { Kind::List } else { Kind::InlineTable };
                    match open.pop() {
                        Some((opened, bracket)) if opened != kind => {
                            self.skip_line();
                            return Some((opened, bracket..bracket + 1));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
            if self.at == start {
                self.at += 1;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'#' | b'\n' => word = None,
                b',' | b'{' | b'[' | b'=' => (after_separator, word) = (byte == b',' || byte == b'{', None),
                b']' | b'}' => (after_separator, word) = (false, None),
                _ => (after_separator, word) = (false, word.or(Some(start))),
            }
        }
        open.pop().map(|(kind, bracket)| (kind, bracket..bracket + 1))
    }

    /// Over a text in quotes. What it is if it has no end on its line, or none at all.
    fn skip_text(&mut self, quote: u8) -> Option<Kind> {
        let long = if quote == b'"' { "\"\"\"" } else { "'''" };
        if self.text[self.at..].starts_with(long) {
            let start = self.at + 3;
            let mut end = start;
            while end < self.bytes.len() {
                match self.bytes[end] {
                    b'\\' if quote == b'"' => end += 2,
                    _ if self.text.is_char_boundary(end) && self.text[end..].starts_with(long) => {
                        self.at = end + 3;
                        // The text itself may end in quotes.
                        while self.peek() == Some(quote) {
                            self.at += 1;
                        }
                        return None;
                    }
                    _ => end += 1,
                }
            }
            self.skip_line();
            return Some(Kind::LongText);
        }
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => return Some(Kind::Text),
                b'\\' if quote == b'"' && self.bytes.get(self.at + 1).is_some_and(|&next| next != b'\n') => {
                    self.at += 2
                }
                byte if byte == quote => {
                    self.at += 1;
                    return None;
                }
                _ => self.at += 1,
            }
        }
        Some(Kind::Text)
    }

    /// Whether the line here cannot be in a list or inline table.
    fn ends(&self, kind: Kind, after_separator: bool) -> bool {
        let line = self.text[self.at..].lines().next().unwrap_or("");
        is_header(line) || after_equals_sign(line).is_some() && !(kind == Kind::InlineTable && after_separator)
    }
}

/// What is wrong with a line that has no value, and the length of what is meant.
fn what_is_no_statement(line: &str) -> Option<(Kind, usize)> {
    match line.bytes().next()? {
        b'[' | b'=' => None,
        quote @ (b'"' | b'\'') if !line[1..].contains(char::from(quote)) => Some((Kind::Text, 1)),
        _ => Some((Kind::NoEqualsSign, line.find([' ', '\t', '\r']).unwrap_or(line.len()))),
    }
}

/// Where the value begins in a line that starts with a key.
fn after_equals_sign(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut any = false;
    for (n, byte) in line.bytes().enumerate() {
        match (byte, quote) {
            (b'\n', _) => return None,
            (_, Some(open)) => quote = (byte != open).then_some(open),
            (b'"' | b'\'', None) => (quote, any) = (Some(byte), true),
            (b'=', None) => return any.then_some(n + 1),
            (b'[' | b'{' | b']' | b'}' | b',' | b'#', None) => return None,
            _ => any = true,
        }
    }
    None
}

/// `[name]`, `[[name.name]]`: a list holds no word without quotes, but for a few values.
fn is_header(line: &str) -> bool {
    let Some(inner) = line.strip_prefix('[') else { return false };
    let name = inner.strip_prefix('[').unwrap_or(inner).trim_start();
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && !"_-.".contains(c)).unwrap_or(name.len());
    let name = &name[..end];
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !["true", "false", "inf", "nan"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(Kind, usize, usize)> {
        let line = |at: usize| text[..at].matches('\n').count() + 1;
        find_unclosed(text)
            .into_iter()
            .map(|found| (found.kind, line(found.at.start), line(found.statement.end)))
            .collect()
    }

    #[test]
    fn what_is_open_ends_before_the_next_key_or_header() {
        for (text, expected) in [
            ("a = [\"x\"\nb = 1\n[c]\nd = 2\n", (Kind::List, 1, 1)),
            ("a = [\n  \"x\", # y\n\n  \"z\",\n# comment\n[c]\nd = 2\n", (Kind::List, 1, 4)),
            ("a = [[1, 2], [3, 4]\n[[c]]\n", (Kind::List, 1, 1)),
            ("a = [\"x\")\nb = 1", (Kind::List, 1, 1)),
            ("a = [\"x\"}\nb = 1", (Kind::List, 1, 1)),
            ("a = [1,\n[2, 3],\n[true], [nan],\nb.c = 2", (Kind::List, 1, 3)),
            ("a = { b = 1, c = { d = 2 }\ne = 3", (Kind::InlineTable, 1, 1)),
            ("a = { b = 1,\nc = 2\ne = 3", (Kind::InlineTable, 1, 2)),
            ("a = [\"x]\nb = 1", (Kind::Text, 1, 1)),
            ("a = [\"x, \"y\"]\nb = 1", (Kind::NoOpeningQuote, 1, 1)),
            ("a = 'x\nb = 1", (Kind::Text, 1, 1)),
            ("a = \"x\\\"\nb = 1", (Kind::Text, 1, 1)),
            ("a = x\"\nb = 1", (Kind::NoOpeningQuote, 1, 1)),
            ("a = \"\"\"x\nb = 1", (Kind::LongText, 1, 1)),
            ("a = [1", (Kind::List, 1, 1)),
            ("a: [1\nb = 1", (Kind::NoEqualsSign, 1, 1)),
            ("; a\nb = 1", (Kind::NoEqualsSign, 1, 1)),
            ("\"a = 1\nb = 1", (Kind::Text, 1, 1)),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }

    #[test]
    fn what_is_closed_is_left_alone() {
        for text in [
            "a = [\n 1,\n [2],\n [true],\n]\nb = { c = 1,\n d = [2, 3] }\n",
            "a = \"\"\"\nb = [\n\\\"\"\" [c\n\"\"\"\"\nd = 'x\\'\n",
            "a = \"[\" # [ {\n'b = [' = \"{\"\n[c]\n",
            "[broken\n",
            "= [\n",
        ] {
            assert!(find_unclosed(text).is_empty(), "{text}: {:?}", find_unclosed(text));
        }
    }

    #[test]
    fn blanks_take_the_place_of_a_statement() {
        let text = "a = 1\nü = [\n  \"é\",\nb = 2\n";
        let rest = without(text, &find_unclosed(text));
        assert_eq!(rest, "a = 1\n      \n       \nb = 2\n");
        assert_eq!(rest.len(), text.len());
    }
}
