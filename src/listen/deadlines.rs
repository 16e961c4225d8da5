//! Time limits of a connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Limits the time that a request may take and the time that a connection may be idle, with one timer that is not
/// touched as long as all goes well.
#[derive(Debug)]
pub(super) struct Deadlines {
    timer: Pin<Box<Sleep>>,
    request: Duration,
    idle: Duration,
    /// The timer is that of a request. Otherwise it only says when to look whether the connection was idle.
    is_pending: bool,
    was_idle: bool,
}

/// Which deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// A request has begun, and did not end in time.
    Request,
    /// Nothing was received for a long time, and nothing was due.
    Idle,
}

impl Deadlines {
    /// A request must be complete `request` after it began. Between requests a connection may be idle for `idle`, and is
    /// let go after twice that at the latest.
    pub fn new(request: Duration, idle: Duration) -> Deadlines {
        let timer = Box::pin(sleep_until(Instant::now() + idle));
        Deadlines { timer, request, idle, is_pending: false, was_idle: true }
    }

    /// To be called before each wait. `is_pending`: a request is due; `is_new`: it is not the one that was due at the
    /// last wait.
    pub fn before_wait(&mut self, is_pending: bool, is_new: bool) {
        if is_pending && (is_new || !self.is_pending) {
            self.start(self.request);
        } else if !is_pending && self.is_pending {
            self.start(self.idle);
        }
        self.is_pending = is_pending;
    }

    /// Something was received.
    pub fn received(&mut self) {
        self.was_idle = false;
    }

    /// Resolves when a deadline has passed. Dropping the future changes nothing.
    pub async fn expired(&mut self) -> Expired {
        loop {
            self.timer.as_mut().await;
            if self.is_pending {
                return Expired::Request;
            }
            if std::mem::replace(&mut self.was_idle, true) {
                return Expired::Idle;
            }
            self.start(self.idle);
        }
    }

    fn start(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

/// Writes everything; `None` when the peer does not read it in time.
pub(super) async fn write_in_time(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    time: Duration,
) -> Option<io::Result<()>> {
    let mut writing = pin!(stream.write_all(bytes));
    // Nearly always there is room, and no need for a timer.
    if let Poll::Ready(written) = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
        return Some(written);
    }
    timeout(time, writing).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    /// Which deadline passes, and after how many seconds, if `step` is called every second.
    async fn seconds(mut deadlines: Deadlines, mut step: impl FnMut(&mut Deadlines, u64)) -> (Expired, u64) {
        for second in 0.. {
            step(&mut deadlines, second);
            tokio::select! {
                expired = deadlines.expired() => return (expired, second),
                () = sleep(SECOND) => {}
            }
        }
        unreachable!()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_a_deadline_however_it_trickles() {
        let deadlines = Deadlines::new(10 * SECOND, 100 * SECOND);
        let trickle = |deadlines: &mut Deadlines, second: u64| {
            deadlines.received();
            deadlines.before_wait(second >= 50, false);
        };
        let (expired, second) = seconds(deadlines, trickle).await;
        assert!(expired == Expired::Request && (59..=60).contains(&second), "{expired:?} after {second}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_completes_request_after_request_may_go_on() {
        let deadlines = Deadlines::new(10 * SECOND, 100 * SECOND);
        let step =
            |deadlines: &mut Deadlines, second: u64| deadlines.before_wait(second < 500, second.is_multiple_of(9));
        let (expired, second) = seconds(deadlines, step).await;
        assert!(expired == Expired::Idle && (599..=600).contains(&second), "{expired:?} after {second}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_after_its_time_or_at_most_twice_that() {
        let deadlines = Deadlines::new(10 * SECOND, 100 * SECOND);
        let step = |deadlines: &mut Deadlines, second: u64| {
            deadlines.before_wait(false, false);
            if second.is_multiple_of(90) && second < 1_000 {
                deadlines.received();
            }
        };
        let (expired, second) = seconds(deadlines, step).await;
        assert!(expired == Expired::Idle && (1_090..=1_190).contains(&second), "{expired:?} after {second}");
    }
}
