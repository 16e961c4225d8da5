//! The one place that prints. Whatever clients, files or administrators wrote is escaped here, so that it can neither
//! forge a line nor control a terminal.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "nothing else in the program prints")]

use crate::config::{Problems, Style};
use serde::Serialize;
use std::fmt::{self, Display, Write as _};
use std::io::{IsTerminal, Write as _};

/// A line on standard output. A line break in `text` is escaped, too.
pub(super) fn line(text: impl Display) {
    // A reader that has enough (`| head`) is no error.
    let _ = writeln!(std::io::stdout(), "{}", Escaped(&text.to_string()));
}

/// Lines on standard output, each on its own.
pub(super) fn lines(lines: &[String]) {
    let text = lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", Escaped(line));
        text
    });
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What is wrong, on standard error: one line.
pub(super) fn error(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "relaykeeper: {}", Escaped(&text.to_string()));
}

/// JSON on standard output, pretty. Characters that a terminal would act on are escaped as JSON has it. Returns whether
/// the value could be written as JSON.
pub(super) fn json(value: &impl Serialize) -> bool {
    let Ok(text) = serde_json::to_string_pretty(value) else { return false };
    let _ = writeln!(std::io::stdout(), "{}", escaped_json(&text));
    true
}

/// Problems of the configuration on standard error. They are escaped where they are rendered, as they quote whole lines.
pub(super) fn problems(problems: &Problems) {
    let style = if std::io::stderr().is_terminal() { Style::Terminal } else { Style::Plain };
    let _ = std::io::stderr().write_all(problems.render(style).as_bytes());
}

/// A table for another program on standard output, as it is.
///
/// # Errors
/// It cannot be written.
pub(super) fn table(text: &str) -> std::io::Result<()> {
    std::io::stdout().write_all(text.as_bytes())
}

/// Text of one line.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                c if is_harmless(c) => f.write_char(c)?,
                c => write!(f, "{}", c.escape_default())?,
            }
        }
        Ok(())
    }
}

/// Whether a terminal shows the character, and nothing else: no control character, none that changes the direction of
/// others or is invisible.
fn is_harmless(c: char) -> bool {
    let is_invisible = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !c.is_control() && !is_invisible
}

/// Such characters are found within strings only, the line breaks of the pretty form aside.
fn escaped_json(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if is_harmless(c) || c == '\n' {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\n2 root: suspend user bob\r\t\x1b[2J\u{9b}31m\u{202e}\u{e0041}büro\\ \"x\"";

    #[test]
    fn nothing_forges_a_line_or_controls_a_terminal() {
        let shown = Escaped(HOSTILE).to_string();
        assert_eq!(shown, "a\\n2 root: suspend user bob\\r\\t\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{e0041}büro\\ \"x\"");
    }

    #[test]
    fn json_stays_what_it_was() {
        let value = serde_json::json!({ "why": HOSTILE, "list": [1, 2] });
        let text = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| is_harmless(c) || c == '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
