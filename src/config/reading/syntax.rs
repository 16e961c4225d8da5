//! Syntax errors of TOML, in words.

use super::diagnostic::Diagnostic;
use super::source::{Location, Source, quoted};

/// A syntax error, with what to write instead where that can be guessed.
pub(super) fn syntax_error(error: &toml::de::Error, source: &Source) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let found = source.text.get(span.clone()).unwrap_or("");
    let message = error.message();
    let at = |label: &str| -> Location { source.place(span.clone(), label) };
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
