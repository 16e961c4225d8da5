//! The transactions of smtpd processes. Postfix tells of a transaction's end only when it is accepted; of all others
//! only a new instance of the same smtpd tells, or silence.

use super::answer::Answer;
use super::request::BadRequest;
use crate::config::CountAt;
use crate::listen::Peer;
use crate::session::{Accepted, Engine, Transaction};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Smtpd processes that are remembered at once. Postfix runs 100 by default.
const MAX_SMTPDS: usize = 65_536;

/// Messages of ended instances that wait for the disk at once; then their successors wait.
const MAX_COUNTING: usize = 4_096;

/// An smtpd process: its host and its process ID, as it tells it.
type Smtpd = (Peer, Box<str>);

pub(super) type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

/// All smtpd processes that have asked lately, by host and process.
pub(super) struct Instances {
    engine: Arc<Engine>,
    slots: Mutex<HashMap<Smtpd, SharedSlot>>,
    /// MTAs that have sent an END-OF-MESSAGE.
    with_end: Mutex<HashSet<Peer>>,
    counting: Arc<Semaphore>,
}

/// What an smtpd process is doing.
#[derive(Default)]
pub(super) struct Slot {
    pub instance: Box<str>,
    pub state: State,
    pub touched: Option<Instant>,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Nothing,
    Open(Box<Transaction>),
    /// The END-OF-MESSAGE was answered so: it is answered so again when Postfix did not get it.
    Ended(Answer),
}

impl Instances {
    pub fn new(engine: Arc<Engine>) -> Instances {
        Instances {
            engine,
            slots: Mutex::default(),
            with_end: Mutex::default(),
            counting: Arc::new(Semaphore::new(MAX_COUNTING)),
        }
    }

    /// The slot of an smtpd process.
    pub fn slot(&self, peer: Peer, smtpd: &str) -> Result<SharedSlot, BadRequest> {
        let mut slots = self.slots.lock();
        let full = slots.len() >= MAX_SMTPDS;
        match slots.entry((peer, smtpd.into())) {
            hashbrown::hash_map::Entry::Occupied(slot) => Ok(slot.get().clone()),
            hashbrown::hash_map::Entry::Vacant(_) if full => Err(BadRequest::TooManyInstances),
            hashbrown::hash_map::Entry::Vacant(place) => Ok(place.insert(Arc::default()).clone()),
        }
    }

    pub fn saw_end(&self, peer: Peer) {
        self.with_end.lock().insert(peer);
    }

    /// Ends what an smtpd left behind: it counts or is given back.
    pub async fn finish(&self, peer: Peer, slot: &mut Slot, why: &'static str) {
        let State::Open(mut transaction) = std::mem::take(&mut slot.state) else { return };
        if !self.counts_abandoned(peer, &transaction) {
            transaction.abandon(why);
            return;
        }
        // Never closed: acquiring cannot fail.
        let permit = self.counting.clone().acquire_owned().await;
        tokio::spawn(async move {
            transaction.end(Accepted::All, None).await;
            drop(permit);
        });
    }

    fn counts_abandoned(&self, peer: Peer, transaction: &Transaction) -> bool {
        if !transaction.reserves() {
            return false;
        }
        match transaction.snapshot().settings.policy.count_at {
            CountAt::Rcpt => true,
            CountAt::EndOfMessage => false,
            CountAt::Auto => {
                let blind = !self.with_end.lock().contains(&peer);
                if blind {
                    self.engine.tally.warn_no_end_of_message(&self.engine.log);
                }
                blind
            }
        }
    }

    /// Ends what has been silent for longer than `timeout`, and forgets it.
    pub async fn sweep(&self, timeout: Duration) {
        let all: Vec<_> = self.slots.lock().iter().map(|(key, slot)| (key.clone(), slot.clone())).collect();
        for (key, slot) in all {
            // A slot in use is not silent.
            let Ok(mut slot) = slot.try_lock() else { continue };
            if slot.touched.is_some_and(|touched| touched.elapsed() >= timeout) {
                self.finish(key.0, &mut slot, "time-out").await;
                self.slots.lock().remove(&key);
            }
        }
    }

    /// At the end of the daemon: what counts without an END-OF-MESSAGE is counted, all else given back.
    pub async fn finish_all(&self) {
        self.sweep(Duration::ZERO).await;
        // All permits back: everything is on disk.
        let _ = self.counting.acquire_many(MAX_COUNTING as u32).await;
    }
}
