//! Milter frames on their way in, bounded in length.
//!
//! A frame is a length of four bytes (network order), then a command byte and its data.

use super::trouble::Trouble;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest frame. Body chunks have 64 KiB; Postfix bounds a header by `header_size_limit` (100 KiB by default), and
/// one command can hold no more than that.
const MAX_FRAME: usize = 512 * 1024;

/// Room for one read. Envelopes are small; in the midst of a body chunk there is room for the rest of it.
const SMALL_READ: usize = 4 * 1024;
const LARGE_READ: usize = 64 * 1024;

/// The commands of protocol version 6 (and of all before).
const COMMANDS: &[u8] = b"ABCDEHKLMNOQRTU";

/// One command as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub command: u8,
    pub data: &'a [u8],
}

/// What was read and not yet taken.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    /// Up to here it was taken.
    taken: usize,
}

impl Incoming {
    pub fn new() -> Incoming {
        Incoming { buffer: Vec::with_capacity(SMALL_READ), taken: 0 }
    }

    /// The next frame, if all of it is there.
    ///
    /// # Errors
    /// Its length or its command is none of the protocol.
    pub fn take(&mut self) -> Result<Option<Frame<'_>>, Trouble> {
        let Some((length, rest)) = self.buffer[self.taken..].split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_FRAME {
            return Err(Trouble::Length);
        }
        let Some(&command) = rest.first() else { return Ok(None) };
        if !COMMANDS.contains(&command) {
            return Err(Trouble::UnknownCommand);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let data_at = self.taken + 5;
        self.taken += 4 + length;
        Ok(Some(Frame { command, data: &self.buffer[data_at..self.taken] }))
    }

    /// Whether everything was taken, so that the MTA owes nothing.
    pub fn is_empty(&self) -> bool {
        self.taken == self.buffer.len()
    }

    /// Reads once; 0 is the end. Dropping the future loses nothing.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        self.make_room();
        stream.read_buf(&mut self.buffer).await
    }

    fn make_room(&mut self) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(SMALL_READ);
        }
        let missing = match self.buffer.first_chunk::<4>() {
            Some(length) => (4 + u32::from_be_bytes(*length) as usize).saturating_sub(self.buffer.len()),
            None => 0,
        };
        self.buffer.reserve(missing.clamp(SMALL_READ / 2, LARGE_READ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut frame = (content.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(content);
        frame
    }

    /// The frames that come out, or the trouble, when `input` comes in in pieces of `piece` bytes.
    async fn through(input: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, Trouble> {
        let (mut mta, mut stream) = tokio::io::duplex(piece);
        let input = input.to_vec();
        tokio::spawn(async move {
            let _ = mta.write_all(&input).await;
        });
        let (mut incoming, mut out) = (Incoming::new(), Vec::new());
        loop {
            while let Some(Frame { command, data }) = incoming.take()? {
                out.push([&[command], data].concat());
            }
            if incoming.read(&mut stream).await.unwrap() == 0 {
                return Ok(out);
            }
        }
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let body = [b"B".as_slice(), &[b'x'; 65_535]].concat();
        let longest = [b"L".as_slice(), &[b'x'; MAX_FRAME - 1]].concat();
        let frames =
            [b"O\0\0\0\x06".to_vec(), b"Hmx.acme.example\0".to_vec(), b"N".to_vec(), body, longest, b"Q".to_vec()];
        let input: Vec<u8> = frames.iter().flat_map(|content| frame(content)).collect();
        for piece in [1, 2, 7, 4096, 1 << 20] {
            assert!(through(&input, piece).await.unwrap() == frames, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_found_at_its_first_bytes() {
        assert_eq!(through(b"GET / HTTP/1.1\r\n\r\n", 64).await, Err(Trouble::Length));
        assert_eq!(through(b"\0\0\0\0M", 64).await, Err(Trouble::Length));
        assert_eq!(through(&frame(b"zz")[..5], 64).await, Err(Trouble::UnknownCommand));
        assert_eq!(through(&((MAX_FRAME + 1) as u32).to_be_bytes(), 64).await, Err(Trouble::Length));
    }

    #[tokio::test]
    async fn a_large_frame_leaves_no_large_buffer() {
        let (mut mta, mut stream) = tokio::io::duplex(1 << 20);
        mta.write_all(&frame(&[b'B'; 200_000])).await.unwrap();
        let mut incoming = Incoming::new();
        while incoming.take().unwrap().is_none() {
            incoming.read(&mut stream).await.unwrap();
        }
        assert!(incoming.is_empty());
        incoming.make_room();
        assert!(incoming.buffer.capacity() <= SMALL_READ, "{}", incoming.buffer.capacity());
    }
}
