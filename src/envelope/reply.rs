//! SMTP replies with enhanced status codes (RFC 5321, 4.2; RFC 3463).

use std::fmt::{self, Write};

/// The longest text of one reply line: 512 octets less `CRLF`, the codes, and what Postfix puts in front of a policy
/// reply (`<recipient>: Recipient address rejected: `).
pub const MAX_REPLY_LINE: usize = 400;

/// Whether the client should try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyClass {
    /// 4yz: the client keeps the mail queued.
    Transient,
    /// 5yz: the mail goes back to its sender.
    Permanent,
}

/// A reply that refuses: `450 4.2.1 Peak SMTP relay limit exceeded …`. Printable ASCII, one line, bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    /// Subject and detail of the enhanced status code; its class is that of `code`.
    status: (u16, u16),
    text: String,
}

impl Reply {
    /// A reply with the code `code` (400 to 599) and enhanced status `CLASS.status.0.status.1`. Whatever in `text` a client could have said
    /// is made harmless: anything but printable ASCII becomes `?`, and it is cut to [`MAX_REPLY_LINE`] bytes.
    pub fn new(code: u16, status: (u16, u16), text: &str) -> Reply {
        debug_assert!((400..600).contains(&code), "only refusals are spelled out");
        let text = text.chars().take(MAX_REPLY_LINE).map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
        Reply { code, status, text }
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    pub fn class(&self) -> ReplyClass {
        if self.code < 500 { ReplyClass::Transient } else { ReplyClass::Permanent }
    }

    /// `4.2.1`
    pub fn enhanced_status(&self) -> String {
        format!("{}.{}.{}", self.code / 100, self.status.0, self.status.1)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text as a milter has to hand it over: `%` doubled, or Postfix drops it and Sendmail replaces the reply.
    pub fn milter_text(&self) -> String {
        self.text.replace('%', "%%")
    }

    /// As one line in a policy answer or a log: `450 4.2.1 Peak …`.
    pub fn write_line(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, detail) = self.status;
        write!(f, "{} {}.{subject}.{detail} {}", self.code, self.code / 100, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_harmless_bounded_line() {
        let reply = Reply::new(550, (7, 1), &format!("no\r\n250 ok é {}", "x".repeat(1000)));
        assert!(reply.to_string().starts_with("550 5.7.1 no??250 ok ? xxx"));
        assert_eq!(reply.text().len(), MAX_REPLY_LINE);
        assert_eq!(reply.class(), ReplyClass::Permanent);
    }

    #[test]
    fn a_milter_doubles_percent_signs() {
        assert_eq!(Reply::new(452, (5, 3), "100% of a%b").milter_text(), "100%% of a%%b");
    }
}
