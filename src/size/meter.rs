//! Follows the structure of a message as it comes, and counts what is attached.

use super::AttachmentSizes;
use super::decoder::Decoder;
use super::fields::{Content, Fields, MAX_BOUNDARY};
use memchr::{memchr, memmem, memrchr};

/// Multiparts within multiparts are followed so deep.
pub const MAX_DEPTH: usize = 32;

/// A line that may be a delimiter is looked at so far: `--`, the boundary, `--`, a few blanks.
const MAX_DELIMITER: usize = MAX_BOUNDARY + 16;

/// A header field is kept up to this length, which is that of most mail programs' and Postfix's longest lines.
const MAX_FIELD: usize = 4_096;

/// Counts the attachments of one message: first its [headers](Self::header), then its [body](Self::body), piece by
/// piece.
#[derive(Clone, Debug, Default)]
pub struct AttachmentMeter {
    place: Place,
    /// The header of the part, or of the message.
    fields: Fields,
    /// The multiparts around this place, the outermost first.
    around: Vec<Multipart>,
    /// This place lies within an attached message, which counts as a whole.
    in_message: bool,
    /// What the attached message has come to.
    message: u64,
    /// The line at hand, of a header or what may be a delimiter.
    line: Vec<u8>,
    /// The header field before it.
    field: Vec<u8>,
    /// Nothing of the line at hand has been looked at but what is in `line`.
    at_line_start: bool,
    sizes: AttachmentSizes,
}

#[derive(Clone, Debug, Default)]
enum Place {
    /// The message's own headers are being handed over.
    #[default]
    BeforeBody,
    /// The header of a part or of an attached message.
    Header,
    /// Before the first delimiter of the innermost multipart: what it holds is counted in case none comes.
    Preamble(u64),
    /// The body of a part that counts.
    Counted(Decoder),
    /// What counts as nothing.
    Ignored,
}

#[derive(Clone, Debug)]
struct Multipart {
    boundary: Vec<u8>,
    is_digest: bool,
    in_message: bool,
    /// It is attached as a whole, so each of its parts is.
    attached: bool,
}

impl AttachmentMeter {
    pub fn new() -> AttachmentMeter {
        AttachmentMeter::default()
    }

    /// A header of the message.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        self.fields.take(name, &value[..value.len().min(MAX_FIELD)]);
    }

    /// The next piece of the body, of any length.
    pub fn body(&mut self, mut piece: &[u8]) {
        if matches!(self.place, Place::BeforeBody) {
            self.at_line_start = true;
            self.end_header();
        }
        while !piece.is_empty() {
            let is_header = matches!(self.place, Place::Header);
            piece = if is_header { self.header_bytes(piece) } else { self.content_bytes(piece) };
        }
    }

    /// The message is complete.
    pub fn finish(mut self) -> AttachmentSizes {
        let line = std::mem::take(&mut self.line);
        match self.delimiter(&line) {
            Some(level) => self.at_delimiter(level, &line),
            None => self.content(&line),
        }
        self.end_part(false);
        self.end_message();
        self.sizes
    }

    /// Takes from a part's header up to the end of a line.
    fn header_bytes<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        let end = memchr(b'\n', piece).map_or(piece.len(), |n| n + 1);
        let (taken, rest) = piece.split_at(end);
        if self.in_message {
            self.message += taken.len() as u64;
        }
        let room = MAX_FIELD - self.line.len();
        self.line.extend_from_slice(&taken[..taken.len().min(room)]);
        if taken.ends_with(b"\n") {
            self.header_line();
        }
        rest
    }

    /// A line of a part's header is complete. What is no field is skipped.
    fn header_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // It goes on with the field before it.
            let room = MAX_FIELD - self.field.len();
            self.field.extend_from_slice(&line[..line.len().min(room)]);
        } else {
            self.take_field();
            if let Some(level) = self.delimiter(&line) {
                // The part has no body at all.
                self.end_header();
                self.at_delimiter(level, &line);
            } else if matches!(&*line, b"\r\n" | b"\n" | b"") {
                self.end_header();
            } else {
                std::mem::swap(&mut self.field, &mut line);
            }
        }
        line.clear();
        self.line = line;
    }

    fn take_field(&mut self) {
        if let Some(colon) = memchr(b':', &self.field) {
            self.fields.take(self.field[..colon].trim_ascii_end(), &self.field[colon + 1..]);
        }
        self.field.clear();
    }

    /// A header is complete: what follows is the body that it tells of.
    fn end_header(&mut self) {
        let around = self.around.last();
        // The digest's messages are no digests themselves.
        let in_digest = around.is_some_and(|multipart| multipart.is_digest && multipart.in_message == self.in_message);
        let (content, decoder, attached) = std::mem::take(&mut self.fields).told(in_digest);
        let attached = attached || around.is_some_and(|multipart| multipart.attached);
        self.place = match content {
            Content::Multipart { boundary, is_digest } if !boundary.is_empty() && self.around.len() < MAX_DEPTH => {
                self.around.push(Multipart { boundary, is_digest, in_message: self.in_message, attached });
                Place::Preamble(0)
            }
            // As it stands.
            Content::Multipart { .. } => Place::Counted(Decoder::identity()),
            Content::Message if decoder.is_identity() => {
                self.in_message = true;
                Place::Header
            }
            Content::Text if !attached && !self.in_message => Place::Ignored,
            _ => Place::Counted(decoder),
        };
        self.at_line_start = true;
    }

    /// Takes from a body up to where a delimiter may begin, or to the end of a line that may be one.
    fn content_bytes<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        if self.around.is_empty() {
            self.content(piece);
            return &[];
        }
        if !self.at_line_start {
            let Some(end) = next_line_to_look_at(piece) else {
                self.content(piece);
                return &[];
            };
            self.content(&piece[..end]);
            self.at_line_start = true;
            return &piece[end..];
        }
        if self.line.is_empty() && piece[0] != b'-' {
            self.at_line_start = false;
            return piece;
        }
        let end = memchr(b'\n', piece).map_or(piece.len(), |n| n + 1).min(MAX_DELIMITER - self.line.len());
        let (taken, rest) = piece.split_at(end);
        self.line.extend_from_slice(taken);
        let is_complete = self.line.ends_with(b"\n") || self.line.len() >= MAX_DELIMITER;
        let may_be_one = self.line.starts_with(b"--") || *self.line == *b"-";
        if may_be_one && !is_complete {
            return rest;
        }
        let mut line = std::mem::take(&mut self.line);
        match self.delimiter(&line) {
            Some(level) => self.at_delimiter(level, &line),
            None => {
                self.at_line_start = line.ends_with(b"\n");
                self.content(&line);
            }
        }
        line.clear();
        self.line = line;
        rest
    }

    /// The multipart whose delimiter the line is. RFC 2046, 5.1.1: whatever begins with it is one; but a line that is
    /// exactly one is that one, where one boundary begins with another.
    fn delimiter(&self, line: &[u8]) -> Option<usize> {
        let after = line.strip_prefix(b"--")?;
        let is_exact = |multipart: &Multipart| {
            let rest = after.strip_prefix(&*multipart.boundary);
            rest.is_some_and(|rest| rest.strip_prefix(b"--").unwrap_or(rest).trim_ascii().is_empty())
        };
        self.around
            .iter()
            .rposition(is_exact)
            .or_else(|| self.around.iter().rposition(|multipart| after.starts_with(&multipart.boundary)))
    }

    /// Ends the part, and goes on behind the delimiter: with the next part, or after the last one with what counts as
    /// nothing. Should yet another part follow, it counts like all others.
    fn at_delimiter(&mut self, level: usize, line: &[u8]) {
        if matches!(self.place, Place::Preamble(_)) && level + 1 == self.around.len() {
            self.place = Place::Ignored;
        }
        self.end_part(true);
        self.around.truncate(level + 1);
        if !self.around[level].in_message {
            self.end_message();
        }
        let is_last = line[2 + self.around[level].boundary.len()..].starts_with(b"--");
        self.place = if is_last { Place::Ignored } else { Place::Header };
        // What is left of a line longer than any delimiter passes for a line of the header that is no field.
        self.at_line_start = line.ends_with(b"\n");
    }

    fn content(&mut self, piece: &[u8]) {
        match &mut self.place {
            Place::Counted(decoder) => decoder.push(piece),
            Place::Preamble(bytes) => *bytes += piece.len() as u64,
            Place::BeforeBody | Place::Header | Place::Ignored => {}
        }
    }

    fn end_part(&mut self, before_delimiter: bool) {
        let size = match std::mem::replace(&mut self.place, Place::Ignored) {
            Place::Counted(mut decoder) => decoder.finish(before_delimiter),
            // A multipart whose delimiter never came.
            Place::Preamble(bytes) => bytes,
            Place::BeforeBody | Place::Header | Place::Ignored => return,
        };
        if self.in_message {
            self.message += size;
        } else {
            self.count(size);
        }
    }

    fn end_message(&mut self) {
        if std::mem::take(&mut self.in_message) {
            let size = std::mem::take(&mut self.message);
            self.count(size);
        }
    }

    fn count(&mut self, size: u64) {
        if size > 0 {
            self.sizes.count += 1;
            self.sizes.total += size;
            self.sizes.largest = self.sizes.largest.max(size);
        }
    }
}

/// Where the next line begins that may be a delimiter, as far as the piece tells.
fn next_line_to_look_at(piece: &[u8]) -> Option<usize> {
    if let Some(line_break) = memmem::find(piece, b"\n--") {
        return Some(line_break + 1);
    }
    // `\n` or `\n-` at the very end.
    let tail = piece.len().saturating_sub(2);
    let line_break = tail + memrchr(b'\n', &piece[tail..])?;
    (piece[line_break + 1..].iter().all(|&byte| byte == b'-')).then_some(line_break + 1)
}

#[cfg(test)]
mod tests;
