//! One line of the log, `key=value` after `key=value`.
//!
//! The form is made for `grep` and `awk`, and so that nothing that came from outside can pass for ours:
//!
//! - a value of plain printable characters stands as it is: `sender=ann@acme.example`;
//! - any other value is quoted: `helo="two words"`. Within the quotes `"` and `\` have a backslash before them,
//!   a newline is `\n` (likewise `\r`, `\t`), other control characters, bytes that are not UTF-8 and the equals
//!   sign are `\xNN`, other characters outside ASCII are `\u{N}`;
//! - a value is cut after [`MAX_VALUE`] bytes, and the number of bytes left out follows the quotes:
//!   `helo="aaaa…aaaa"+744` (without the dots);
//! - an empty value is `key=""`, as an empty sender is a fact; what is not known has no field at all.
//!
//! So a line is ASCII, has no line break, and every `=` in it belongs to a key of ours.

use std::fmt::{self, Display, Write as _};

/// The longest value that is logged in full, in bytes before escaping.
pub const MAX_VALUE: usize = 256;

/// The longest text of [`LogLine::text`] that is logged in full, in bytes before escaping.
pub const MAX_TEXT: usize = 2048;

/// No line is longer (bytes): with the header of syslog it fits the 8 KiB that rsyslog takes by default.
pub const MAX_LINE: usize = 8000;

/// Fields stop here, which leaves room to say how many were left out.
const FIELDS_END: usize = MAX_LINE - 40;

/// Queue IDs are 8 to 20 letters and digits (Postfix, `enable_long_queue_ids`; Sendmail has 14).
const MAX_QUEUE_ID: usize = 64;

/// A line of the log while it is being built; [`Logger::write`](super::Logger::write) takes it.
#[derive(Debug, Clone)]
pub struct LogLine {
    text: String,
    omitted_fields: usize,
}

impl LogLine {
    /// A line about a transaction: the MTA's queue ID and a colon first, so that a search for the queue ID over
    /// the mail log finds the MTA's lines and ours; `NOQUEUE` when there is none, as Postfix writes it.
    pub fn transaction(queue_id: Option<&str>) -> LogLine {
        match queue_id.filter(|id| !id.is_empty()) {
            None => LogLine::starting_with("NOQUEUE:"),
            Some(id) if is_queue_id(id) => {
                let mut line = LogLine::starting_with(id);
                line.text.push(':');
                line
            }
            Some(strange) => LogLine::starting_with("NOQUEUE:").field("queue_id", strange),
        }
    }

    /// A line about something else that happened: `event=NAME` and what belongs to it.
    pub fn event(name: &'static str) -> LogLine {
        LogLine::starting_with("").field("event", name)
    }

    /// A line of words. What a client said belongs in a field; here only line breaks, control characters and
    /// characters outside ASCII are escaped.
    pub fn text(text: impl Display) -> LogLine {
        let mut line = LogLine::starting_with("");
        let mut value = Value::new(&mut line.text, MAX_TEXT, Form::Text);
        let _ = write!(value, "{text}");
        value.finish();
        line
    }

    /// Adds `key=value`. A field that would make the line longer than [`MAX_LINE`] is left out, and the line
    /// says at its end how many were.
    pub fn field(self, key: &'static str, value: impl Display) -> LogLine {
        self.append(key, |writer| {
            let _ = write!(writer, "{value}");
        })
    }

    /// Adds `key=value` for a word of our own, which stands as it is: plain printable characters.
    pub fn word(self, key: &'static str, word: &'static str) -> LogLine {
        debug_assert!(is_plain_word(word) && !word.is_empty());
        self.append(key, |writer| writer.text.push_str(word))
    }

    /// Adds `key=value` when there is a value.
    pub fn optional(self, key: &'static str, value: Option<impl Display>) -> LogLine {
        match value {
            Some(value) => self.field(key, value),
            None => self,
        }
    }

    /// Adds `key=value` for bytes that may be anything; those that are not UTF-8 become `\xNN`.
    pub fn bytes(self, key: &'static str, value: &[u8]) -> LogLine {
        self.append(key, |writer| {
            for chunk in value.utf8_chunks() {
                let _ = writer.write_str(chunk.valid());
                for byte in chunk.invalid() {
                    writer.push_invalid(*byte);
                }
            }
        })
    }

    /// The finished line, without a line break.
    pub fn finish(mut self) -> String {
        if self.omitted_fields > 0 {
            let _ = write!(self.text, " omitted_fields={}", self.omitted_fields);
        }
        self.text
    }

    fn starting_with(text: &str) -> LogLine {
        let mut line = LogLine { text: String::with_capacity(384), omitted_fields: 0 };
        line.text.push_str(text);
        line
    }

    fn append(mut self, key: &'static str, write: impl FnOnce(&mut Value<'_>)) -> LogLine {
        let before = self.text.len();
        if before > 0 {
            self.text.push(' ');
        }
        self.text.push_str(key);
        self.text.push('=');
        let mut value = Value::new(&mut self.text, MAX_VALUE, Form::Bare);
        write(&mut value);
        value.finish();
        if self.text.len() > FIELDS_END {
            self.text.truncate(before);
            self.omitted_fields += 1;
        }
        self
    }
}

fn is_queue_id(text: &str) -> bool {
    text.len() <= MAX_QUEUE_ID && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// How a value stands in the line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Without quotes, so far.
    Bare,
    /// Within quotes.
    Quoted,
    /// As words that are no value.
    Text,
}

impl Form {
    /// Whether a byte stands as it is.
    fn has_plain(self, byte: u8) -> bool {
        match self {
            Form::Bare => is_plain(byte),
            Form::Quoted => is_plain(byte) || byte == b' ',
            Form::Text => (b' '..=b'~').contains(&byte),
        }
    }
}

/// Whether a byte stands as it is in every form.
fn is_plain(byte: u8) -> bool {
    // No branches, so that the processor takes many bytes at once.
    (byte > b' ') & (byte <= b'~') & (byte != b'"') & (byte != b'=') & (byte != b'\\')
}

/// Whether all bytes do, as in nearly every value. Looks at all of them whatever comes.
fn is_plain_word(text: &str) -> bool {
    text.bytes().fold(true, |so_far, byte| so_far & is_plain(byte))
}

/// Writes one value in place, and puts it in quotes as soon as the first character needs them.
struct Value<'a> {
    text: &'a mut String,
    start: usize,
    room: usize,
    left_out: usize,
    form: Form,
}

impl<'a> Value<'a> {
    fn new(text: &'a mut String, room: usize, form: Form) -> Value<'a> {
        Value { start: text.len(), text, room, left_out: 0, form }
    }

    fn finish(mut self) {
        if self.left_out > 0 || self.text.len() == self.start {
            self.quote();
        }
        if self.form == Form::Quoted {
            self.text.push('"');
        }
        if self.left_out > 0 {
            let _ = write!(self.text, "+{}", self.left_out);
        }
    }

    fn quote(&mut self) {
        if self.form == Form::Bare {
            self.text.insert(self.start, '"');
            self.form = Form::Quoted;
        }
    }

    fn push(&mut self, mut rest: &str) {
        if is_plain_word(rest) {
            return self.text.push_str(rest);
        }
        loop {
            let plain = rest.bytes().position(|byte| !self.form.has_plain(byte)).unwrap_or(rest.len());
            let (copied, special) = rest.split_at(plain);
            self.text.push_str(copied);
            let Some(character) = special.chars().next() else { return };
            self.quote();
            self.push_special(character);
            rest = &special[character.len_utf8()..];
        }
    }

    fn push_special(&mut self, character: char) {
        let _ = match character {
            ' ' => self.text.write_char(' '),
            '"' => self.text.write_str("\\\""),
            '\\' => self.text.write_str("\\\\"),
            '\n' => self.text.write_str("\\n"),
            '\r' => self.text.write_str("\\r"),
            '\t' => self.text.write_str("\\t"),
            ascii if ascii.is_ascii() => write!(self.text, "\\x{:02x}", ascii as u32),
            other => write!(self.text, "\\u{{{:x}}}", other as u32),
        };
    }

    fn push_invalid(&mut self, byte: u8) {
        if self.left_out > 0 || self.room == 0 {
            self.left_out += 1;
            return;
        }
        self.room -= 1;
        self.quote();
        let _ = write!(self.text, "\\x{byte:02x}");
    }
}

impl fmt::Write for Value<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.left_out > 0 {
            self.left_out += text.len();
            return Ok(());
        }
        let mut end = text.len().min(self.room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.push(&text[..end]);
        self.room -= end;
        self.left_out = text.len() - end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
