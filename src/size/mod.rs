//! How large a message and its attachments are, counted while the content streams by.
//!
//! Nothing of the content is kept but the line or header field at hand, so a message of a gigabyte takes as little memory
//! as one of a line. The MIME structure is followed (RFC 2045, 2046), and what an attachment comes to is told without its
//! transfer encoding. The content is hostile: whatever does not add up counts rather than not.
//!
//! An *attachment* is a part that says so or has a file name (RFC 2183; `name` of `Content-Type` too), or whose type is
//! not `text`: pictures within the text, signatures and an encrypted message as a whole, too. An attached message
//! (`message/rfc822`) is one attachment: its headers, texts and attachments together, decoded. A `multipart` itself is
//! none, unless it cannot be taken apart (no usable boundary, one that never comes, or [too deep](MAX_DEPTH)): then it
//! is one as it stands. uuencode and yEnc within texts are texts.

mod decoder;
mod fields;
mod meter;

pub use meter::{AttachmentMeter, MAX_DEPTH};

/// What was attached to a message, decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachmentSizes {
    pub count: u64,
    /// Of all together, in bytes.
    pub total: u64,
    /// Of the largest one, in bytes.
    pub largest: u64,
}

/// How large a message was, as far as it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageSize {
    /// Headers and body as they came, in bytes.
    pub bytes: Option<u64>,
    pub attachments: Option<AttachmentSizes>,
}

/// Measures a message: first all its [headers](Self::header), then its [body](Self::body) in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct MessageMeter {
    bytes: u64,
    attachments: AttachmentMeter,
}

impl MessageMeter {
    pub fn new() -> MessageMeter {
        MessageMeter::default()
    }

    /// A header of the message, without the line break at its end; folded ones have line breaks within `value`.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        // Colon, blank, CRLF; Sendmail hands over the blank, Postfix does not. Folded values may have LF alone.
        let blank = !value.starts_with(b" ");
        let breaks = memchr::memchr_iter(b'\n', value).count() - memchr::memmem::find_iter(value, b"\r\n").count();
        self.bytes += (name.len() + value.len() + usize::from(blank) + breaks + 3) as u64;
        self.attachments.header(name, value);
    }

    /// The next piece of the body.
    pub fn body(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.attachments.body(piece);
    }

    /// The message is complete.
    pub fn finish(self) -> MessageSize {
        // The empty line between headers and body.
        MessageSize { bytes: Some(self.bytes + 2), attachments: Some(self.attachments.finish()) }
    }
}
