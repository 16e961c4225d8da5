//! How many bytes a part's body comes to without its transfer encoding (RFC 2045, section 6).

/// Counts a body that comes in pieces.
#[derive(Clone, Debug)]
pub(super) enum Decoder {
    /// 7bit, 8bit, binary, and encodings that nobody knows.
    Identity(Identity),
    Base64(Base64),
    QuotedPrintable(QuotedPrintable),
}

impl Decoder {
    pub fn identity() -> Decoder {
        Decoder::Identity(Identity::default())
    }

    /// For the value of `Content-Transfer-Encoding`, without comments.
    pub fn for_encoding(name: &[u8]) -> Decoder {
        if name.eq_ignore_ascii_case(b"base64") {
            Decoder::Base64(Base64::default())
        } else if name.eq_ignore_ascii_case(b"quoted-printable") {
            Decoder::QuotedPrintable(QuotedPrintable::default())
        } else {
            Decoder::identity()
        }
    }

    pub fn is_identity(&self) -> bool {
        matches!(self, Decoder::Identity(_))
    }

    pub fn push(&mut self, piece: &[u8]) {
        match self {
            Decoder::Identity(decoder) => decoder.push(piece),
            Decoder::Base64(decoder) => decoder.push(piece),
            Decoder::QuotedPrintable(decoder) => decoder.push(piece),
        }
    }

    /// The number of bytes. `before_delimiter`: the line break at the end belongs to the delimiter that follows (RFC 2046,
    /// 5.1.1).
    pub fn finish(&mut self, before_delimiter: bool) -> u64 {
        let (bytes, line_break) = match self {
            Decoder::Identity(decoder) => (decoder.bytes, decoder.line_break),
            Decoder::Base64(decoder) => (decoder.finish(), 0),
            Decoder::QuotedPrintable(decoder) => (decoder.finish(), decoder.line_break),
        };
        if before_delimiter { bytes - line_break } else { bytes }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    bytes: u64,
    /// The length of the line break that came last, if nothing came after it.
    line_break: u64,
    ends_with_cr: bool,
}

impl Identity {
    fn push(&mut self, piece: &[u8]) {
        let Some(last) = piece.last() else { return };
        self.bytes += piece.len() as u64;
        let cr_before = piece.len().checked_sub(2).map_or(self.ends_with_cr, |n| piece[n] == b'\r');
        self.line_break = if *last == b'\n' { 1 + u64::from(cr_before) } else { 0 };
        self.ends_with_cr = *last == b'\r';
    }
}

/// Four letters are three bytes; whatever is no letter is skipped (RFC 2045, 6.8). What comes after padding is decoded
/// anew: some programs join pieces that were encoded one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct Base64 {
    bytes: u64,
    /// Since the last padding.
    letters: u64,
}

impl Base64 {
    fn push(&mut self, piece: &[u8]) {
        let mut pieces = memchr::memchr_iter(b'=', piece);
        let mut from = 0;
        loop {
            let padding = pieces.next();
            self.letters += letters(&piece[from..padding.unwrap_or(piece.len())]);
            let Some(padding) = padding else { return };
            self.bytes = self.finish();
            self.letters = 0;
            from = padding + 1;
        }
    }

    fn finish(&self) -> u64 {
        self.bytes + self.letters / 4 * 3 + self.letters % 4 * 3 / 4
    }
}

/// Without branches, so that the compiler can take many bytes at a time.
fn letters(piece: &[u8]) -> u64 {
    let is_letter = |byte: u8| {
        (byte | 0x20).wrapping_sub(b'a') < 26 || byte.wrapping_sub(b'0') < 10 || byte == b'+' || byte == b'/'
    };
    piece.chunks(128).map(|chunk| u64::from(chunk.iter().map(|&byte| u8::from(is_letter(byte))).sum::<u8>())).sum()
}

/// `=` and two hexadecimal digits are one byte, `=` at the end of a line joins it with the next, blanks there are none of
/// the content (RFC 2045, 6.7). Anything else after `=` stands for itself.
#[derive(Clone, Debug, Default)]
pub(super) struct QuotedPrintable {
    bytes: u64,
    state: State,
    /// Blanks, and a CR after them, that count only if the line goes on.
    blanks: u64,
    ends_with_cr: bool,
    line_break: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Text,
    Equals,
    /// `=` and one digit.
    EqualsDigit,
    /// `=` and blanks.
    EqualsBlanks,
}

impl QuotedPrintable {
    fn push(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.next(byte);
        }
    }

    fn next(&mut self, byte: u8) {
        match (self.state, byte) {
            (State::Equals, byte) if byte.is_ascii_hexdigit() => self.state = State::EqualsDigit,
            (State::EqualsDigit, byte) if byte.is_ascii_hexdigit() => {
                self.state = State::Text;
                self.content(1);
            }
            (State::Equals | State::EqualsBlanks, b'\n') => {
                (self.state, self.blanks, self.ends_with_cr) = (State::Text, 0, false);
            }
            (State::Equals | State::EqualsBlanks, b' ' | b'\t' | b'\r') => {
                self.state = State::EqualsBlanks;
                self.blanks += 1;
            }
            (State::Text, byte) => self.text(byte),
            _ => {
                self.literally();
                self.text(byte);
            }
        }
    }

    fn text(&mut self, byte: u8) {
        match byte {
            b'=' => {
                self.content(0);
                self.state = State::Equals;
            }
            b' ' | b'\t' | b'\r' => {
                self.blanks += 1;
                self.ends_with_cr = byte == b'\r';
            }
            b'\n' => {
                self.line_break = 1 + u64::from(self.ends_with_cr);
                self.bytes += self.line_break;
                (self.blanks, self.ends_with_cr) = (0, false);
            }
            _ => self.content(1),
        }
    }

    /// What was held back counts, and so do `bytes` more.
    fn content(&mut self, bytes: u64) {
        self.bytes += self.blanks + bytes;
        (self.blanks, self.ends_with_cr, self.line_break) = (0, false, 0);
    }

    /// It was no encoding after all.
    fn literally(&mut self) {
        let bytes = if self.state == State::EqualsDigit { 2 } else { 1 };
        self.content(bytes);
        self.state = State::Text;
    }

    fn finish(&mut self) -> u64 {
        if self.state != State::Text {
            self.literally();
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(encoding: &str, body: &str, before_delimiter: bool) -> u64 {
        let mut whole = Decoder::for_encoding(encoding.as_bytes());
        whole.push(body.as_bytes());
        let mut bytewise = Decoder::for_encoding(encoding.as_bytes());
        body.as_bytes().chunks(1).for_each(|byte| bytewise.push(byte));
        let size = whole.finish(before_delimiter);
        assert_eq!(bytewise.finish(before_delimiter), size, "{encoding} {body:?}");
        size
    }

    #[test]
    fn base64_counts_what_is_encoded() {
        for (body, bytes) in [
            ("", 0),
            ("QQ==", 1),
            ("QUI=", 2),
            ("QUJD", 3),
            ("QU\r\nJD\r\n", 3),
            ("QUJDRA==\r\n", 4),
            ("QQ==QQ==", 2), // encoded one by one
            ("QUI", 2),      // without padding
            ("Q", 0),
            ("Q!U J\tD-_", 3), // the rest is no alphabet
        ] {
            assert_eq!(size("BASE64", body, true), bytes, "{body:?}");
        }
    }

    #[test]
    fn base64_counts_long_pieces() {
        let body = "QUJD".repeat(10_000);
        assert_eq!(size("base64", &body, false), 30_000);
    }

    #[test]
    fn quoted_printable_counts_what_is_encoded() {
        for (body, bytes) in [
            ("", 0),
            ("abc", 3),
            ("a=3Db", 3),
            ("a=3db=\r\nc", 4), // a soft line break
            ("a= \t\r\nb", 2),  // with blanks that were added on the way
            ("a \t\r\nb", 4),   // blanks at the end of a line are dropped
            ("a \t b", 5),
            ("a\nb", 3),
            ("a=", 2), // no encoding
            ("a=G1", 4),
            ("a=4", 3),
            ("a=4G", 4),
            ("a==41", 3),
            ("a= b", 4),
            ("\r\r\n", 2),
            ("a\rb", 3),
        ] {
            assert_eq!(size("Quoted-Printable", body, false), bytes, "{body:?}");
        }
    }

    #[test]
    fn the_line_break_before_a_delimiter_is_not_content() {
        for (encoding, body, bytes) in [
            ("7bit", "abc\r\n", 3),
            ("8bit", "abc\n", 3),
            ("binary", "\r\n", 0),
            ("", "abc\r\n\r\n", 5),
            ("", "abc\r", 4),
            ("x-unknown", "abc", 3),
            ("quoted-printable", "abc\r\n", 3),
            ("quoted-printable", "abc=\r\n", 3),
            ("quoted-printable", "abc  \n", 3),
        ] {
            assert_eq!(size(encoding, body, true), bytes, "{encoding} {body:?}");
        }
        assert_eq!(size("7bit", "abc\r\n", false), 5);
    }
}
