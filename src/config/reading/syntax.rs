//! Syntax errors of TOML, in words.

use super::diagnostic::Diagnostic;
use super::source::{Location, Source, quoted};
use super::unclosed::{Kind, Unclosed};

/// A bracket or quote without its counterpart.
pub(super) fn describe_unclosed(unclosed: &Unclosed, source: &Source) -> Diagnostic {
    let found = source.text.get(unclosed.at.clone()).unwrap_or("");
    let (title, label, help) = match unclosed.kind {
        Kind::List => ("this list is never closed", "opened here", "add ] after its last element".to_owned()),
        Kind::InlineTable => ("this inline table is never closed", "opened here", "add } after its last value".into()),
        Kind::Text => {
            let label = "this quote has no counterpart on the line";
            ("a quote is missing", label, format!("text begins and ends with {found}, on one line"))
        }
        Kind::LongText => ("this text is never closed", "opened here", format!("write {found} where the text ends")),
        Kind::NoOpeningQuote => {
            let before = source.text.get(unclosed.statement.start..unclosed.at.start).unwrap_or("");
            let help = match before.contains(['"', '\'']) {
                true => format!("write {}, or close the text before it", quoted(found)),
                false => format!("write {}", quoted(found)),
            };
            ("a quote is missing", "text begins with a quote", help)
        }
        Kind::NoEqualsSign => {
            let line = source.text.get(unclosed.statement.clone()).unwrap_or("");
            let help = match found {
                _ if found.ends_with(':') => "write = in place of the colon",
                _ if found.starts_with([';', '/', '-', '!', '%']) => "a comment begins with #",
                _ if line.contains('=') => "write key = value, with the key first",
                _ => "write key = value; a comment begins with #",
            };
            ("this line is neither key = value nor a [header]", "= is expected after this", help.to_owned())
        }
    };
    invalid(title).at(source.place(unclosed.at.clone(), label)).help(help)
}

/// An error of the parser, with what to write instead where that can be guessed.
pub(super) fn describe_error(error: &toml::de::Error, source: &Source) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let found = source.text.get(span.clone()).unwrap_or("");
    let before = source.text.get(..span.start).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let before = &before[line_start..];
    let line = source.text[line_start..].lines().next().unwrap_or("");
    let at = |label: &str| -> Location { source.place(span.clone(), label) };
    let message = error.message();
    match message {
        "duplicate key" => {
            let title = format!("the key {} is set twice", quoted(found));
            return Diagnostic::error(title).at(at("the second time")).help("remove one of the two");
        }
        _ if message.starts_with("unclosed table") || message.starts_with("unclosed array table") => {
            let header = line.split('#').next().unwrap_or("").trim();
            let (brackets, name) =
                (if header.starts_with("[[") { 2 } else { 1 }, header.trim_matches(['[', ']']).trim());
            let start = line_start + (line.len() - line.trim_start().len());
            let help = format!("write {}{name}{}", "[".repeat(brackets), "]".repeat(brackets));
            let place = source.place(start..start + brackets, "opened here");
            return invalid("this header is never closed").at(place).help(help);
        }
        _ if message.starts_with("missing comma between array") => {
            return invalid("a comma is missing in this list").at(at("before this element"));
        }
        _ if message.starts_with("missing comma between key") => {
            return invalid("a comma is missing in this inline table").at(at("before this key"));
        }
        _ if message.starts_with("unexpected key or value") => {
            if line.trim_start().starts_with('[') {
                let name = line.split('#').next().unwrap_or("").trim().trim_matches(['[', ']']).trim();
                let help = format!("write [{name}], or [[{name}]] where there may be several");
                return invalid("this header has one bracket too many").at(at("here")).help(help);
            }
            let label = "the line must end after the value";
            return invalid("there is something after the value").at(at(label)).help(after_value(line, before.len()));
        }
        _ if message.starts_with("extra `=`") => {
            return invalid("there is one = too many").at(at("the second one")).help("remove it");
        }
        _ if message.starts_with("unexpected leading zero") => {
            let digits = line.get(before.len()..).unwrap_or("").trim_start_matches('0');
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            let error = invalid("this number begins with 0").at(at("leading zeros are not allowed"));
            return if end > 0 { error.help(format!("write {}", &digits[..end])) } else { error };
        }
        _ if message.starts_with("unquoted keys cannot be empty") => {
            return invalid("a name is missing").at(at("a key or section is expected here"));
        }
        _ if message.starts_with("invalid literal string") && found.is_empty() && before.contains('{') => {
            let help = "a list is written in brackets: [\"a\", \"b\"]";
            return invalid("an inline table holds key = value").at(at("= is expected here")).help(help);
        }
        _ if message.contains("escaped value") => {
            let help = r"write \\ for a backslash, or put the text in single quotes";
            return invalid("a backslash begins an escape that does not exist")
                .at(at("after the backslash"))
                .help(help);
        }
        _ => {}
    }
    let is_value = before.contains('=');
    match value_instead_of(found) {
        Some(value) if is_value => {
            let label = if value.starts_with('"') { "text must be in quotes" } else { "not a value" };
            invalid("this is not a value").at(at(label)).help(format!("write {value}"))
        }
        _ if is_value && found.trim().is_empty() && before.trim_end().ends_with('=') => {
            invalid("the value is missing").at(at("after the ="))
        }
        _ if is_value && found.starts_with(|c: char| c.is_ascii_digit()) => {
            let help = "write a number in digits only, and text in quotes";
            invalid("this is not a value").at(at("neither a number nor text in quotes")).help(help)
        }
        _ if is_value && message.contains("must be quoted") => {
            let help = "write text in quotes, a number in digits only, or true or false";
            invalid("this is not a value").at(at("neither text in quotes, nor a number, true or false")).help(help)
        }
        _ => invalid(message).at(at("")),
    }
}

fn invalid(title: &str) -> Diagnostic {
    Diagnostic::error(format!("invalid TOML: {title}"))
}

/// What was probably meant by a value without quotes.
fn value_instead_of(found: &str) -> Option<String> {
    match found.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => return Some("true".into()),
        "false" | "no" | "off" => return Some("false".into()),
        _ => {}
    }
    if let Some(inner) = found.strip_prefix(['“', '”', '„', '‘', '’', '«']) {
        return Some(quoted(inner.trim_end_matches(['“', '”', '‘', '’', '»'])));
    }
    let is_word = found.starts_with(|c: char| c.is_alphabetic()) && !found.contains(['"', '\'', '=']);
    is_word.then(|| quoted(found))
}

/// What to do about the rest of a line.
fn after_value(line: &str, column: usize) -> &'static str {
    let rest = line.get(column..).unwrap_or("").trim_start();
    let before = line.get(..column).unwrap_or("").trim_end();
    match rest.bytes().next() {
        Some(b',')
            if before.ends_with(|c: char| c.is_ascii_digit())
                && rest[1..].starts_with(|c: char| c.is_ascii_digit()) =>
        {
            "write the number without commas"
        }
        Some(b',' | b';' | b']' | b'}') => "remove it",
        Some(b'/' | b'-') => "a comment begins with #",
        _ => "a list is written in brackets: [\"a\", \"b\"]; a comment begins with #",
    }
}
