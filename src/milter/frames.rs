//! Milter frames on their way in: bounded in length and time, checked, and with Sendmail's IPv6 addresses respelled.
//!
//! A frame is a length of four bytes (network order), then a command byte and its data.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The longest frame. Body chunks have 64 KiB; Postfix bounds a header by `header_size_limit` (100 KiB by default), and
/// one command can hold no more than that.
const MAX_FRAME: usize = 512 * 1024;

/// How long an MTA may take for a frame from its first byte to its last, and for the first frame of all after it
/// has connected.
const FRAME_TIME: Duration = Duration::from_secs(30);

/// The milter library ends sessions that are silent for two hours; after half of that, silence is why one ends.
const LONG_SILENCE: Duration = Duration::from_secs(3_600);

/// Read at once.
const CHUNK: usize = 4 * 1024;

/// The commands of protocol version 6 (and of all before).
const COMMANDS: &[u8] = b"ABCDEHKLMNOQRTU";

/// Passes a milter connection through, frame by frame.
pub struct Frames<S> {
    stream: S,
    /// What was read: up to `passed` it is passed on, up to `ready` it may be.
    buffer: Vec<u8>,
    passed: usize,
    ready: usize,
    /// So much more of a checked frame may pass as it comes.
    passing: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The MTA said QUIT, closed the connection, or made trouble that was told.
    is_over: bool,
    last_read: Instant,
    on_trouble: Box<dyn FnMut(&str) + Send>,
}

impl<S> Frames<S> {
    /// `on_trouble` is told, once, why the connection is dropped.
    pub fn new(stream: S, on_trouble: impl FnMut(&str) + Send + 'static) -> Frames<S> {
        Frames {
            stream,
            buffer: Vec::with_capacity(CHUNK),
            passed: 0,
            ready: 0,
            passing: 0,
            deadline: Some(Box::pin(sleep_until(Instant::now() + FRAME_TIME))),
            is_over: false,
            last_read: Instant::now(),
            on_trouble: Box::new(on_trouble),
        }
    }

    fn trouble(&mut self, what: &str) -> io::Error {
        if !std::mem::replace(&mut self.is_over, true) {
            (self.on_trouble)(what);
        }
        io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
    }

    /// Finds out how much of the buffer may be passed on.
    fn inspect(&mut self) -> io::Result<()> {
        loop {
            let step = self.passing.min(self.buffer.len() - self.ready);
            self.ready += step;
            self.passing -= step;
            let Some((length, [command, data @ ..])) = self.buffer[self.ready..].split_first_chunk::<4>() else {
                return Ok(());
            };
            let length = u32::from_be_bytes(*length) as usize;
            if length == 0 || length > MAX_FRAME {
                return Err(self.trouble("a frame of impossible length; is this a milter client?"));
            }
            if !COMMANDS.contains(command) {
                return Err(self.trouble("an unknown command; is this a milter client?"));
            }
            self.is_over |= *command == b'Q';
            self.passing = 4 + length;
            if *command == b'C' {
                if data.len() < length - 1 {
                    self.passing = 0;
                    return Ok(());
                }
                let frame = self.ready..self.ready + 4 + length;
                if let Some(respelled) = respell_connect(&self.buffer[frame.clone()]) {
                    self.passing = respelled.len();
                    self.buffer.splice(frame, respelled);
                }
            }
        }
    }

    fn is_between_frames(&self) -> bool {
        self.passing == 0 && self.ready == self.buffer.len()
    }
}

const IPV6_TAG: &[u8] = b"IPv6:";

/// CONNECT is host name, NUL, family, port, address, NUL. Sendmail writes `IPv6:0:0:0:0:0:0:0:1` where indymilter expects
/// `0:0:0:0:0:0:0:1`.
fn respell_connect(frame: &[u8]) -> Option<Vec<u8>> {
    let host_end = 5 + frame.get(5..)?.iter().position(|&byte| byte == 0)?;
    let address_at = host_end + 4;
    let tag = frame.get(address_at..address_at + IPV6_TAG.len())?;
    if frame.get(host_end + 1) != Some(&b'6') || !tag.eq_ignore_ascii_case(IPV6_TAG) {
        return None;
    }
    let length = (frame.len() - 4 - IPV6_TAG.len()) as u32;
    let mut respelled = length.to_be_bytes().to_vec();
    respelled.extend_from_slice(&frame[4..address_at]);
    respelled.extend_from_slice(&frame[address_at + IPV6_TAG.len()..]);
    Some(respelled)
}

impl<S: AsyncRead + Unpin> Frames<S> {
    /// Reads once from the stream. `Ok(0)` is its end, between frames.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK, 0);
        let mut read = ReadBuf::new(&mut self.buffer[before..]);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, &mut read);
        let got = read.filled().len();
        self.buffer.truncate(before + got);
        match outcome {
            Poll::Ready(Ok(())) if got == 0 && !self.is_between_frames() => {
                Poll::Ready(Err(self.trouble("the connection was closed in the midst of a frame")))
            }
            Poll::Ready(outcome) => {
                self.is_over |= got == 0;
                self.last_read = Instant::now();
                Poll::Ready(outcome.map(|()| got))
            }
            Poll::Pending => {
                let Some(deadline) = &mut self.deadline else { return Poll::Pending };
                ready!(deadline.as_mut().poll(cx));
                Poll::Ready(Err(self.trouble("a frame was not completed in time")))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.passed == this.ready {
            this.buffer.drain(..this.passed);
            (this.passed, this.ready) = (0, 0);
            if ready!(this.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
            this.inspect()?;
            if this.is_between_frames() {
                this.deadline = None;
            } else if this.deadline.is_none() {
                this.deadline = Some(Box::pin(sleep_until(Instant::now() + FRAME_TIME)));
            }
        }
        let end = this.ready.min(this.passed + out.remaining());
        out.put_slice(&this.buffer[this.passed..end]);
        this.passed = end;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The milter library says nothing when it ends a session whose frames are good but what is in them is not.
impl<S> Drop for Frames<S> {
    fn drop(&mut self) {
        if !self.is_over && self.last_read.elapsed() < LONG_SILENCE {
            (self.on_trouble)("a command that makes no sense; is this a milter client?");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut frame = (content.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(content);
        frame
    }

    /// What comes out, or the trouble, when `input` comes in in pieces of `piece` bytes.
    async fn through(input: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let (mut mta, stream) = tokio::io::duplex(piece);
        let told = Arc::new(Mutex::new(String::new()));
        let teller = told.clone();
        let mut frames = Frames::new(stream, move |what| teller.lock().unwrap().push_str(what));
        let input = input.to_vec();
        let writer = tokio::spawn(async move {
            let _ = mta.write_all(&input).await;
        });
        let mut out = Vec::new();
        let result = frames.read_to_end(&mut out).await;
        writer.abort();
        result.map(|_| out).map_err(|_| told.lock().unwrap().clone())
    }

    #[tokio::test]
    async fn sendmails_ipv6_is_respelled_and_all_else_passes_as_it_is() {
        let negotiation = frame(b"O\0\0\0\x06\0\0\0\0\0\0\0\0");
        let body = [b"B".as_slice(), &[b'x'; 3 * CHUNK]].concat();
        let others = [frame(b"Hmx.acme.example\0"), frame(b"N"), frame(&body), frame(b"Q")].concat();
        let sendmail = frame(b"Chost\x006\x12\x67IPv6:0:0:0:0:0:0:0:1\0");
        let respelled = frame(b"Chost\x006\x12\x670:0:0:0:0:0:0:1\0");
        let input = [negotiation.clone(), sendmail, others.clone()].concat();
        let expected = [negotiation, respelled, others].concat();
        for piece in [1, 2, 7, 4096, 1 << 20] {
            assert!(through(&input, piece).await.unwrap() == expected, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn garbage_is_dropped() {
        assert!(through(b"GET / HTTP/1.1\r\n\r\n", 64).await.unwrap_err().contains("impossible length"));
        assert!(through(&frame(b"zz"), 64).await.unwrap_err().contains("unknown command"));
        assert!(through(b"\0\0\0\0M", 64).await.unwrap_err().contains("impossible length"));
        assert!(through(&frame(b"Mabc")[..6], 64).await.unwrap_err().contains("midst"));
        assert_eq!(through(&frame(b"C"), 64).await.unwrap(), frame(b"C"), "indymilter judges what is inside");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_has_to_be_completed_in_time() {
        let (mut mta, stream) = tokio::io::duplex(64);
        let mut frames = Frames::new(stream, |_| {});
        mta.write_all(&frame(b"Mabc")[..6]).await.unwrap();
        let error = frames.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "a frame was not completed in time");
    }
}
