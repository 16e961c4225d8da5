//! Where letters wait for the postman.

use super::Letter;
use crate::envelope::Address;
use crate::report::{Level, LogLine, Logger, OncePer};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Letters that may wait for the postman.
const WAITING: usize = 128;

/// Recipients of own mail that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// How long the MTA may take until it asks us about our own mail: sendmail(1) leaves it in a queue first.
const ON_ITS_WAY: Duration = Duration::from_secs(3_600);

/// Takes letters. A clone is the same outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    waiting: mpsc::Sender<Letter>,
    on_its_way: Arc<OnItsWay>,
    trouble: Arc<Trouble>,
    full: Arc<OncePer<()>>,
}

/// Why the MTA took no letter the last time.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<String>>);

/// To whom own mail was handed over lately.
#[derive(Debug)]
pub(super) struct OnItsWay(Mutex<LruCache<Box<str>, Instant>>);

impl Outbox {
    /// The outbox, and what the postman takes letters from.
    pub(super) fn new() -> (Outbox, mpsc::Receiver<Letter>, Arc<OnItsWay>, Arc<Trouble>) {
        let (waiting, letters) = mpsc::channel(WAITING);
        let on_its_way = Arc::new(OnItsWay(Mutex::new(LruCache::new(REMEMBERED))));
        let full = Arc::new(OncePer::new(Duration::from_secs(3_600), 1));
        let trouble = Arc::<Trouble>::default();
        let outbox = Outbox { waiting, on_its_way: on_its_way.clone(), trouble: trouble.clone(), full };
        (outbox, letters, on_its_way, trouble)
    }

    /// Whether there is room for so many letters. If not, the log says so.
    pub fn has_room(&self, letters: usize, about: &'static str, log: &Logger) -> bool {
        let has_room = self.waiting.capacity() >= letters;
        if !has_room && let Some(more) = self.full.check((), Instant::now()) {
            log.write(Level::Error, LogLine::event("mail-dropped").field("about", about).field("more", more));
        }
        has_room
    }

    /// Hands over a letter; never waits. One for which there is no room is dropped, and the log says so.
    pub fn post(&self, letter: Letter, log: &Logger) {
        if self.has_room(1, letter.about, log) {
            // Only one task posts letters: the room is still there.
            let _ = self.waiting.try_send(letter);
        }
    }

    /// Why own mail cannot be sent at the moment, as far as that was tried.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.0.lock().clone()
    }

    /// Whether own mail to this recipient is on its way: what comes from this host with the empty sender may be it.
    pub fn sends_now(&self, recipient: &Address) -> bool {
        self.on_its_way.0.lock().peek(recipient.as_str()).is_some_and(|at| at.elapsed() < ON_ITS_WAY)
    }
}

impl OnItsWay {
    pub fn remember(&self, recipients: &[Address]) {
        let mut on_its_way = self.0.lock();
        for recipient in recipients {
            on_its_way.put(recipient.as_str().into(), Instant::now());
        }
    }
}

impl Trouble {
    /// Returns whether it is news.
    pub fn begins(&self, why: &str) -> bool {
        self.0.lock().replace(why.to_owned()).is_none()
    }

    /// Returns whether there was any.
    pub fn ends(&self) -> bool {
        self.0.lock().take().is_some()
    }
}
