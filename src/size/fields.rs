//! The header fields that tell what a part is: Content-Type, Content-Transfer-Encoding, Content-Disposition (RFC 2045,
//! 2183). Only what matters here is read, and nothing is too broken to be read somehow.

use super::decoder::Decoder;
use std::mem::discriminant;

/// The longest boundary that is recognised; RFC 2046, 5.1.1, allows 70.
pub(super) const MAX_BOUNDARY: usize = 200;

/// What a part is, as far as its header has told by now.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    content: Option<Content>,
    encoding: Option<Decoder>,
    /// The disposition or the name of a file says so.
    attached: bool,
}

/// What `Content-Type` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text,
    /// `boundary` is empty if it is missing or too long.
    Multipart {
        boundary: Vec<u8>,
        is_digest: bool,
    },
    /// A whole message, with headers of its own.
    Message,
    Other,
}

impl Fields {
    /// Takes in a header field. Of a field that comes twice, some mail programs believe the first and others the last: what
    /// makes the attachments largest holds.
    pub fn take(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"Content-Type") {
            let mut words = Words(value);
            let kind = words.word();
            let parameters = Parameters::read(words);
            self.attached |= parameters.has_file_name;
            let content = match parameters.has_two_boundaries {
                true => Content::Other,
                false => Content::of(&kind, parameters.boundary),
            };
            self.content = Some(match self.content.take() {
                Some(before) => before.or_worse(content),
                None => content,
            });
        } else if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") {
            let encoding = Decoder::for_encoding(&Words(value).word());
            // Nothing is longer than what has no encoding.
            self.encoding = Some(match self.encoding.take() {
                Some(before) if discriminant(&before) != discriminant(&encoding) => Decoder::identity(),
                _ => encoding,
            });
        } else if name.eq_ignore_ascii_case(b"Content-Disposition") {
            let mut words = Words(value);
            let kind = words.word();
            // What is neither is to be treated as an attachment (RFC 2183, 2.8).
            let attached = !kind.is_empty() && !kind.eq_ignore_ascii_case(b"inline");
            self.attached |= attached || Parameters::read(words).has_file_name;
        }
    }

    /// Content type, transfer encoding, and whether it is called an attachment. `in_digest`: what has no type is a
    /// message (RFC 2046, 5.1.5).
    pub fn told(self, in_digest: bool) -> (Content, Decoder, bool) {
        let default = if in_digest { Content::Message } else { Content::Text };
        (self.content.unwrap_or(default), self.encoding.unwrap_or_else(Decoder::identity), self.attached)
    }
}

impl Content {
    /// Of two types of one part, the one under which its attachments are larger.
    fn or_worse(self, other: Content) -> Content {
        match (self, other) {
            (Content::Text, content) | (content, Content::Text) => content,
            (one, other) if one == other => one,
            // As one attachment it is at least as large as the attachments in it.
            _ => Content::Other,
        }
    }

    fn of(kind: &[u8], boundary: Vec<u8>) -> Content {
        let (kind, subtype) = match memchr::memchr(b'/', kind) {
            Some(slash) => (&kind[..slash], &kind[slash + 1..]),
            None => (kind, &b""[..]),
        };
        let is = |name: &str| subtype.eq_ignore_ascii_case(name.as_bytes());
        if kind.eq_ignore_ascii_case(b"text") {
            Content::Text
        } else if kind.eq_ignore_ascii_case(b"multipart") {
            Content::Multipart { boundary, is_digest: is("digest") }
        } else if kind.eq_ignore_ascii_case(b"message") && (is("rfc822") || is("global")) {
            Content::Message
        } else {
            Content::Other
        }
    }
}

#[derive(Debug, Default)]
struct Parameters {
    boundary: Vec<u8>,
    has_two_boundaries: bool,
    /// `filename`, `name`, or a part of one (RFC 2231, 3).
    has_file_name: bool,
}

impl Parameters {
    fn read(mut words: Words) -> Parameters {
        let mut parameters = Parameters::default();
        while words.skip_past(b';') {
            let name = words.word();
            if !words.skip_if(b'=') {
                continue;
            }
            let value = words.word();
            let plain_name = name.split(|&byte| byte == b'*').next().unwrap_or_default();
            let is_file_name = plain_name.eq_ignore_ascii_case(b"filename") || plain_name.eq_ignore_ascii_case(b"name");
            parameters.has_file_name |= is_file_name && !value.is_empty();
            if name.eq_ignore_ascii_case(b"boundary") && value.len() <= MAX_BOUNDARY {
                // Blanks at its end are none of a boundary.
                let value = value.trim_ascii_end();
                parameters.has_two_boundaries |= !parameters.boundary.is_empty() && parameters.boundary != value;
                parameters.boundary = value.to_vec();
            }
        }
        parameters
    }
}

/// What is left of a field's value: words, quoted strings and comments (RFC 5322, 3.2).
#[derive(Clone, Copy)]
struct Words<'v>(&'v [u8]);

impl Words<'_> {
    /// The next word or quoted string; empty if none comes before the next separator.
    fn word(&mut self) -> Vec<u8> {
        self.skip_blanks_and_comments();
        if self.0.first() == Some(&b'"') {
            return self.quoted();
        }
        let end = self.0.iter().position(|byte| b" \t\r\n;=(\"".contains(byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word.to_vec()
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut word = Vec::new();
        let mut at = 1;
        while let Some(&byte) = self.0.get(at) {
            at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    word.extend(self.0.get(at));
                    at += 1;
                }
                b'\r' | b'\n' => {}
                _ => word.push(byte),
            }
        }
        self.0 = self.0.get(at..).unwrap_or_default();
        word
    }

    fn skip_blanks_and_comments(&mut self) {
        let mut depth = 0_u32;
        let mut at = 0;
        while let Some(&byte) = self.0.get(at) {
            match byte {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b'\\' if depth > 0 => at += 1,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if depth > 0 => {}
                _ => break,
            }
            at += 1;
        }
        self.0 = self.0.get(at..).unwrap_or_default();
    }

    fn skip_if(&mut self, separator: u8) -> bool {
        self.skip_blanks_and_comments();
        let is_next = self.0.first() == Some(&separator);
        if is_next {
            self.0 = &self.0[1..];
        }
        is_next
    }

    /// To behind the next separator, over whatever stands before it; false if there is none.
    fn skip_past(&mut self, separator: u8) -> bool {
        while !self.0.is_empty() {
            if self.skip_if(separator) {
                return true;
            }
            match self.0.first() {
                Some(b'"') => drop(self.quoted()),
                Some(_) => self.0 = &self.0[1..],
                None => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fields: &[(&str, &str)]) -> (Content, bool, bool) {
        let mut all = Fields::default();
        for (name, value) in fields {
            all.take(name.as_bytes(), value.as_bytes());
        }
        let (content, encoding, attached) = all.told(false);
        (content, encoding.is_identity(), attached)
    }

    fn boundary(value: &str) -> String {
        match told(&[("content-type", value)]).0 {
            Content::Multipart { boundary, .. } => String::from_utf8(boundary).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn boundaries_in_every_spelling() {
        for (value, expected) in [
            ("multipart/mixed; boundary=abc", "abc"),
            (" MULTIPART/Mixed;\r\n\tBoundary=\"a b;c\"; charset=x", "a b;c"),
            ("multipart/mixed (a; boundary=no) ; x=\"; boundary=no\"; boundary = (c) abc (d)", "abc"),
            ("multipart/mixed; boundary=\"a\\\"b\"", "a\"b"),
            ("multipart/mixed; boundary=\"abc  \"", "abc"),
            ("multipart/mixed; boundary=\"abc", "abc"),
            ("multipart/mixed; boundary=one; boundary=\"one \"", "one"),
            ("multipart/mixed; junk; =; boundary==_abc", ""),
            ("multipart/mixed; boundary=----=_Part_1", "----"),
            ("multipart/mixed", ""),
        ] {
            assert_eq!(boundary(value), expected, "{value}");
        }
        assert_eq!(boundary(&format!("multipart/mixed; boundary={}", "b".repeat(MAX_BOUNDARY + 1))), "");
    }

    #[test]
    fn what_is_an_attachment() {
        let attached = |name: &str, value: &str| told(&[(name, value)]).2;
        assert!(attached("Content-Disposition", "attachment"));
        assert!(attached("content-disposition", " ATTACHMENT ; size=3"));
        assert!(attached("Content-Disposition", "inline; filename=a.txt"));
        assert!(attached("Content-Disposition", "inline; filename*0*=utf-8''a; filename*1=b"));
        assert!(attached("Content-Disposition", "x-unknown"));
        assert!(attached("Content-Type", "text/plain; name=\"a.txt\""));
        assert!(!attached("Content-Disposition", "inline"));
        assert!(!attached("Content-Disposition", "inline; filename=\"\""));
        assert!(!attached("Content-Disposition", ""));
        assert!(!attached("Content-Type", "text/plain; charset=utf-8"));
        assert!(!attached("X-Content-Disposition", "attachment"));
    }

    #[test]
    fn types_and_encodings() {
        let content = |value: &str| told(&[("Content-Type", value)]).0;
        assert_eq!(content("text/html"), Content::Text);
        assert_eq!(content("image/png"), Content::Other);
        assert_eq!(content("Message/RFC822"), Content::Message);
        assert_eq!(content("message/delivery-status"), Content::Other);
        assert_eq!(content("nonsense"), Content::Other);
        assert_eq!(told(&[]).0, Content::Text);
        assert!(!told(&[("Content-Transfer-Encoding", " (so to say) base64 ")]).1);
        assert!(told(&[("Content-Transfer-Encoding", "base65")]).1);
    }

    #[test]
    fn of_two_types_or_encodings_what_makes_attachments_largest_holds() {
        let types = |one: &str, other: &str| {
            let [content, reversed] =
                [[one, other], [other, one]].map(|types| told(&types.map(|value| ("Content-Type", value))).0);
            assert_eq!(content, reversed, "{one} and {other}");
            content
        };
        let multipart = Content::Multipart { boundary: b"a".to_vec(), is_digest: false };
        assert_eq!(types("text/plain", "image/png"), Content::Other);
        assert_eq!(types("text/plain", "multipart/mixed; boundary=a"), multipart);
        assert_eq!(types("multipart/mixed; boundary=a", "multipart/mixed; boundary=\"a\""), multipart);
        assert_eq!(types("multipart/mixed; boundary=a", "multipart/mixed; boundary=b"), Content::Other);
        assert_eq!(types("message/rfc822", "multipart/mixed; boundary=b"), Content::Other);
        assert_eq!(told(&[("Content-Type", "multipart/mixed; boundary=one; boundary=two")]).0, Content::Other);
        let is_identity = |encodings: [&str; 2]| told(&encodings.map(|value| ("Content-Transfer-Encoding", value))).1;
        assert!(is_identity(["base64", "7bit"]) && is_identity(["7bit", "base64"]));
        assert!(is_identity(["base64", "quoted-printable"]));
        assert!(!is_identity(["base64", "BASE64"]));
    }
}
