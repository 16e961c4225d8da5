//! Where letters wait to be sent.

use super::Letter;
use crate::report::{Level, LogLine, Logger, OncePer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Letters that may wait.
const CAPACITY: usize = 128;

/// Takes letters. A clone is the same outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    letters: mpsc::Sender<Letter>,
    full: Arc<OncePer<()>>,
}

impl Outbox {
    /// The outbox, and the queue that it fills.
    pub(super) fn new() -> (Outbox, mpsc::Receiver<Letter>) {
        let (letters, queue) = mpsc::channel(CAPACITY);
        (Outbox { letters, full: Arc::new(OncePer::new(Duration::from_secs(3_600), 1)) }, queue)
    }

    /// Whether there is room for this many letters. If not, the log says so, at most once an hour.
    pub fn has_room(&self, letters: usize, about: &'static str, log: &Logger) -> bool {
        let has_room = self.letters.capacity() >= letters;
        if !has_room {
            self.report_full(about, log);
        }
        has_room
    }

    /// Hands over a letter without waiting. If there is no room it is dropped, and the log says so.
    pub fn post(&self, letter: Letter, log: &Logger) {
        let about = letter.about;
        if self.letters.try_send(letter).is_err() {
            self.report_full(about, log);
        }
    }

    fn report_full(&self, about: &'static str, log: &Logger) {
        if let Some(more) = self.full.check((), Instant::now()) {
            log.write(Level::Error, LogLine::event("mail-dropped").field("about", about).field("more", more));
        }
    }
}
