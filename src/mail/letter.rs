//! A letter to administrators, and the message that it becomes (RFC 5322, RFC 3834).

use crate::envelope::Address;
use crate::report::Reference;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use std::fmt;
use std::time::SystemTime;

/// A plain text letter.
pub struct Letter {
    pub to: Vec<Address>,
    pub subject: String,
    pub text: String,
    /// Its topic in the log and in the header `X-Relaykeeper-Notice`, such as `limit-warning`.
    pub about: &'static str,
    pub(super) when_sent: Option<WhenSent>,
}

type WhenSent = Box<dyn FnOnce() + Send + Sync>;

/// Who sends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    pub address: &'a str,
    /// The relay's name.
    pub hostname: &'a str,
}

impl Letter {
    pub fn new(to: Vec<Address>, about: &'static str, subject: String, text: String) -> Letter {
        Letter { to, subject, text, about, when_sent: None }
    }

    /// `when_sent` is called once the MTA has accepted it.
    pub fn then(self, when_sent: impl FnOnce() + Send + Sync + 'static) -> Letter {
        Letter { when_sent: Some(Box::new(when_sent)), ..self }
    }

    /// The message with its envelope: the empty sender and these recipients.
    ///
    /// # Errors
    /// An address that cannot be used in a message.
    pub(super) fn message(&self, from: From<'_>) -> Result<Message, String> {
        let mailbox = |address: &str, name: Option<String>| match address.parse() {
            Ok(email) => Ok(Mailbox::new(name, email)),
            Err(error) => Err(format!("{address}: {error}")),
        };
        let recipients =
            self.to.iter().map(|address| mailbox(address.as_str(), None)).collect::<Result<Vec<_>, _>>()?;
        let envelope = Envelope::new(None, recipients.iter().map(|to| to.email.clone()).collect());
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let message = Message::builder()
            .envelope(envelope.map_err(|error| error.to_string())?)
            .from(mailbox(from.address, Some(format!("Mail relay {}", from.hostname)))?)
            .date_now()
            .message_id(Some(format!("<{}.{seconds}@{}>", Reference::generate(), from.hostname)))
            .subject(&self.subject)
            // RFC 3834: keeps out-of-office programs from replying.
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("Precedence", "bulk"))
            .raw_header(header("X-Relaykeeper-Notice", self.about))
            .header(ContentType::TEXT_PLAIN);
        let message = recipients.into_iter().fold(message, |message, to| message.to(to));
        message.body(self.text.clone()).map_err(|error| error.to_string())
    }
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter").field("to", &self.to).field("subject", &self.subject).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_a_proper_message() {
        let to = ["it@acme.example", "boss@acme.example"].map(|address| Address::from_path(address).unwrap());
        let text = "Ann has used 80 %.\n\nGrüße\n";
        let letter =
            Letter::new(to.into(), "limit-warning", "Müller & Co: 80 % used\r\nBcc: x@y.example".into(), text.into());
        let from = From { address: "postmaster@relay.example.net", hostname: "relay.example.net" };
        let message = letter.message(from).unwrap();
        assert_eq!(message.envelope().from(), None, "the empty sender");
        assert_eq!(message.envelope().to().len(), 2);
        let text = String::from_utf8(message.formatted()).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "From: \"Mail relay relay.example.net\" <postmaster@relay.example.net>",
            "Auto-Submitted: auto-generated",
            "X-Relaykeeper-Notice: limit-warning",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(headers.lines().any(|header| header == line), "{line} in\n{headers}");
        }
        for start in ["Date: ", "Message-ID: <", "Subject: =?utf-8?b?", "To: it@acme.example, boss@acme.example"] {
            assert!(headers.lines().any(|header| header.starts_with(start)), "{start} in\n{headers}");
        }
        assert!(!headers.lines().any(|header| header.starts_with("Bcc")), "no header can be smuggled in\n{headers}");
        assert!(body.contains("Ann has used 80 %."), "{body}");
        assert!(text.is_ascii() && headers.lines().all(|line| line.len() < 998));
    }
}
