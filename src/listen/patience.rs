//! How long the other end of a connection may take.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Bounds the time for something that has begun to come, and the time of silence, with one timer that is not touched as
/// long as all goes well.
#[derive(Debug)]
pub struct Patience {
    timer: Pin<Box<Sleep>>,
    rest: Duration,
    silence: Duration,
    /// The rest of something is due when the timer ends. Otherwise that only says when to look whether all was silent.
    is_due: bool,
    was_silent: bool,
}

/// Why to wait no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impatience {
    /// What had begun was not completed in time.
    TooSlow,
    /// Nothing was heard for a long time, and nothing was due.
    Silence,
}

impl Patience {
    /// What has begun has to be complete after `rest`. Nothing has to begin for `silence`, which may be up to twice as long.
    pub fn new(rest: Duration, silence: Duration) -> Patience {
        let timer = Box::pin(sleep_until(Instant::now() + silence));
        Patience { timer, rest, silence, is_due: false, was_silent: true }
    }

    /// Tells before each wait whether something has begun and is not complete; `anew`: it is not what had begun before
    /// the last wait.
    pub fn expect(&mut self, has_begun: bool, anew: bool) {
        if has_begun && (anew || !self.is_due) {
            self.start(self.rest);
        } else if !has_begun && self.is_due {
            self.start(self.silence);
        }
        self.is_due = has_begun;
    }

    /// Tells that the other end has said something.
    pub fn heard(&mut self) {
        self.was_silent = false;
    }

    /// Resolves when there is nothing more to wait for. Dropping the future changes nothing.
    pub async fn end(&mut self) -> Impatience {
        loop {
            self.timer.as_mut().await;
            if self.is_due {
                return Impatience::TooSlow;
            }
            if std::mem::replace(&mut self.was_silent, true) {
                return Impatience::Silence;
            }
            self.start(self.silence);
        }
    }

    fn start(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

/// Writes everything; `None` when the other end does not take it in time.
pub async fn write_in_time(
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

    /// After how many seconds patience ends, if every second something happens that `step` tells.
    async fn seconds(mut patience: Patience, mut step: impl FnMut(&mut Patience, u64)) -> (Impatience, u64) {
        for second in 0.. {
            step(&mut patience, second);
            tokio::select! {
                why = patience.end() => return (why, second),
                () = sleep(SECOND) => {}
            }
        }
        unreachable!()
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_has_to_end_however_it_trickles() {
        let patience = Patience::new(10 * SECOND, 100 * SECOND);
        let trickle = |patience: &mut Patience, second: u64| {
            patience.heard();
            patience.expect(second >= 50, false);
        };
        let (why, second) = seconds(patience, trickle).await;
        assert!(why == Impatience::TooSlow && (59..=60).contains(&second), "{why:?} after {second}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_always_completes_something_may_go_on() {
        let patience = Patience::new(10 * SECOND, 100 * SECOND);
        let (why, second) =
            seconds(patience, |patience, second| patience.expect(second < 500, second.is_multiple_of(9))).await;
        assert!(why == Impatience::Silence && (599..=600).contains(&second), "{why:?} after {second}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_time_or_at_most_twice_that() {
        let patience = Patience::new(10 * SECOND, 100 * SECOND);
        let speak = |patience: &mut Patience, second: u64| {
            patience.expect(false, false);
            if second.is_multiple_of(90) && second < 1_000 {
                patience.heard();
            }
        };
        let (why, second) = seconds(patience, speak).await;
        assert!(why == Impatience::Silence && (1_090..=1_190).contains(&second), "{why:?} after {second}");
    }
}
