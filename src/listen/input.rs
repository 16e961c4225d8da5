//! The bytes of a connection that were received and not yet answered.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The most that is read at once.
const LARGE_READ: usize = 64 * 1024;

/// A buffer that is small while it is empty.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Vec<u8>,
    /// Up to here requests were answered.
    consumed: usize,
    /// So many of the bytes that are left were searched for the end of a request.
    searched: usize,
    /// Capacity while the buffer is empty.
    idle: usize,
}

impl Input {
    /// `idle`: the bytes that an idle connection may take.
    pub fn new(idle: usize) -> Input {
        Input { buffer: Vec::with_capacity(idle), consumed: 0, searched: 0, idle }
    }

    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.consumed..]
    }

    /// How many of the unread bytes were searched before.
    pub fn searched(&self) -> usize {
        self.searched
    }

    /// A request was answered.
    pub fn consume(&mut self, length: usize) {
        self.consumed += length;
        self.searched = 0;
    }

    /// Whether every byte was part of a complete request, so that the peer owes nothing.
    pub fn is_empty(&self) -> bool {
        self.consumed == self.buffer.len()
    }

    /// Makes room for the next read. All that is unread has been searched; at least `missing` bytes are missing for the
    /// next request.
    pub fn make_room(&mut self, missing: usize) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.searched = self.buffer.len();
        if self.buffer.is_empty() {
            self.buffer.shrink_to(self.idle);
        }
        self.buffer.reserve_exact(missing.clamp(self.idle / 2, LARGE_READ));
    }

    /// The bytes that the buffer takes beyond those of an idle one.
    pub fn beyond_idle(&self) -> usize {
        self.buffer.capacity().saturating_sub(self.idle)
    }

    /// Reads once; 0 is the end. Dropping the future loses nothing.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        stream.read_buf(&mut self.buffer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_request_leaves_no_large_buffer() {
        let mut input = Input::new(1_024);
        for _ in 0..10 {
            input.make_room(200_000);
            input.buffer.extend_from_slice(&[b'x'; 20_000]);
        }
        assert_eq!(input.unread().len(), 200_000);
        input.consume(200_000);
        assert!(input.is_empty());
        input.make_room(1);
        assert!(input.buffer.capacity() <= 1_024, "{}", input.buffer.capacity());
    }

    #[test]
    fn growing_takes_no_more_than_what_is_asked_for() {
        let mut input = Input::new(1_024);
        while input.unread().len() < 500_000 {
            input.make_room(usize::MAX);
            let room = input.buffer.capacity() - input.buffer.len();
            assert!(room <= LARGE_READ, "{room}");
            input.buffer.extend(std::iter::repeat_n(b'x', room));
        }
    }
}
