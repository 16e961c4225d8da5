//! Requests and responses over one connection, whatever the protocol.

use super::deadlines::{Deadlines, Expired, write_in_time};
use super::fault::Fault;
use super::input::Input;
use super::seats::{Seated, Signal};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::{Zeroize, Zeroizing};

/// No further request is answered while at least this many bytes of responses wait to be written, so that a peer that
/// reads no responses cannot fill the memory with them.
const MAX_OUTPUT: usize = 16 * 1024;

/// During a stop, a connection that is not busy is closed after this time without a request. An MTA whose client has another
/// message sends it within milliseconds.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// One end of a connection: finds requests in what is received, and answers them in their order.
pub trait Protocol: Send {
    /// Why the connection cannot go on, as it stands in the log: `malformed request: …`.
    type Error: fmt::Display + Send;

    const BOUNDS: Bounds;

    /// Finds the first request in `input`, of which the first `searched` bytes were seen before and held none.
    ///
    /// # Errors
    /// The request is malformed or too long. This is detected as early as possible, so that never more than the longest
    /// request is buffered.
    fn frame(input: &[u8], searched: usize) -> Result<Frame, Self::Error>;

    /// Answers one request; the response, if there is one, is appended to `output`. Not cancelled before it is done.
    ///
    /// # Errors
    /// The connection is closed without a response.
    fn respond(
        &mut self,
        request: &[u8],
        output: &mut Vec<u8>,
    ) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// Whether a stop waits for what is open, such as a message.
    fn is_busy(&self) -> bool {
        false
    }

    /// Whether the peer must send a request now, although none has begun.
    fn awaits_request(&self) -> bool {
        false
    }

    /// Whether something would be lost if the connection were closed now. What holds nothing makes room first when there are
    /// too many connections.
    fn holds_something(&self) -> bool {
        false
    }
}

/// How much time and memory a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For a request, from its first byte to its last.
    pub request_timeout: Duration,
    /// For the peer to read a response.
    pub response_timeout: Duration,
    /// Between requests. The connection is closed after it was idle for this long, or up to twice that.
    pub idle_timeout: Duration,
    /// The bytes that the buffer of an idle connection takes.
    pub idle_buffer: usize,
    /// Whether other connections are answered first, before a response is written, so that the MTA's host is woken once for
    /// all of them. Costs nothing if no others wait.
    pub gather_responses: bool,
    /// Whether a request is written in one piece and answered at once, so that the response may carry the
    /// acknowledgement (TCP).
    pub one_write_per_request: bool,
    /// Whether responses hold secrets: their buffer is wiped.
    pub secret_responses: bool,
}

/// Where the first request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `content` is what [`Protocol::respond`] sees; the next request begins after `length` bytes.
    Complete { content: Range<usize>, length: usize },
    /// At least `missing` more bytes are needed.
    Partial { missing: usize },
}

/// Whether the connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    Close,
}

/// Answers requests until either end closes the connection; `seat` knows when it must be closed from here, which happens
/// between requests only.
pub(super) async fn converse<P: Protocol>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    protocol: &mut P,
    seat: &Seated,
) -> Result<(), Fault<P::Error>> {
    let bounds = &P::BOUNDS;
    let mut input = Input::new(bounds.idle_buffer);
    let mut output = Zeroizing::new(Vec::new());
    let mut deadlines = Deadlines::new(bounds.request_timeout, bounds.idle_timeout);
    let mut signalled = pin!(seat.signalled(None));
    let mut is_draining = false;
    loop {
        let mut answered = false;
        let missing = loop {
            let (content, length) = match P::frame(input.unread(), input.searched()).map_err(Fault::Protocol)? {
                Frame::Complete { content, length } => (content, length),
                Frame::Partial { missing } => break missing,
            };
            answered = true;
            let next = protocol.respond(&input.unread()[content], &mut output).await.map_err(Fault::Protocol)?;
            input.consume(length);
            if output.len() >= MAX_OUTPUT || (next == Next::Close && !output.is_empty()) {
                write(&mut stream, &mut output, bounds).await?;
            }
            if next == Next::Close {
                return Ok(());
            }
        };
        if !output.is_empty() {
            if bounds.gather_responses {
                tokio::task::yield_now().await;
            }
            write(&mut stream, &mut output, bounds).await?;
        }
        deadlines.before_wait(!input.is_empty() || protocol.awaits_request(), answered);
        input.make_room(missing);
        seat.take_bytes(input.beyond_idle())?;
        seat.wait(protocol.holds_something());
        let may_end = is_draining && !protocol.is_busy() && input.is_empty();
        tokio::select! {
            biased;
            read = input.read(&mut stream) => match read {
                Ok(0) | Err(_) if input.is_empty() => return Ok(()),
                Ok(0) | Err(_) => return Err(Fault::ClosedEarly),
                Ok(_) => deadlines.received(),
            },
            signal = &mut signalled => match signal? {
                Signal::Close => return Ok(()),
                Signal::Drain => {
                    is_draining = true;
                    signalled.set(seat.signalled(Some(Signal::Drain)));
                }
            },
            () = async { tokio::time::sleep(LAST_CHANCE).await }, if may_end => return Ok(()),
            expired = deadlines.expired() => return match expired {
                Expired::Request => Err(Fault::RequestTimeout(bounds.request_timeout)),
                Expired::Idle => Ok(()),
            },
        }
        seat.resume()?;
    }
}

async fn write<E>(
    stream: &mut (impl AsyncWrite + Unpin),
    output: &mut Vec<u8>,
    bounds: &Bounds,
) -> Result<(), Fault<E>> {
    let written = write_in_time(stream, output, bounds.response_timeout).await;
    if bounds.secret_responses {
        output.zeroize();
    }
    output.clear();
    if output.capacity() > 2 * MAX_OUTPUT {
        *output = Vec::new();
    }
    match written {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => Err(Fault::Gone),
        None => Err(Fault::ResponseTimeout(bounds.response_timeout)),
    }
}
