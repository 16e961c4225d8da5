//! What is known of relaykeeper's own mail: to whom it is on its way, and whether the MTA accepts it.

use crate::envelope::Address;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Recipients of own mail that are remembered.
const MAX_RECIPIENTS: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// How long the MTA may take to ask about our own mail: sendmail(1) leaves it in a queue first.
const IN_TRANSIT: Duration = Duration::from_secs(3_600);

/// Shared by the transactions, which must recognise own mail, and the task that sends it.
#[derive(Debug)]
pub struct OwnMail {
    /// When mail to each recipient was handed over last.
    handed_over: Mutex<LruCache<Box<str>, Instant>>,
    /// Why the MTA rejected or deferred the last attempt.
    problem: Mutex<Option<String>>,
}

impl Default for OwnMail {
    fn default() -> OwnMail {
        OwnMail { handed_over: Mutex::new(LruCache::new(MAX_RECIPIENTS)), problem: Mutex::default() }
    }
}

impl OwnMail {
    /// Whether own mail to this recipient is on its way: a message from this host with the empty sender may be it.
    pub fn is_on_its_way_to(&self, recipient: &Address) -> bool {
        self.handed_over.lock().peek(recipient.as_str()).is_some_and(|at| at.elapsed() < IN_TRANSIT)
    }

    /// Why own mail cannot be sent at the moment; `None` if nothing is wrong, or nothing was tried.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Own mail was handed over to the MTA, which will ask about it.
    pub fn note_handed_over(&self, recipients: &[Address]) {
        let mut handed_over = self.handed_over.lock();
        for recipient in recipients {
            handed_over.put(recipient.as_str().into(), Instant::now());
        }
    }

    /// An attempt failed. Returns whether this is the first failure in a row.
    pub(super) fn failed(&self, why: &str) -> bool {
        self.problem.lock().replace(why.to_owned()).is_none()
    }

    /// An attempt succeeded. Returns whether the one before had failed.
    pub(super) fn succeeded(&self) -> bool {
        self.problem.lock().take().is_some()
    }
}
