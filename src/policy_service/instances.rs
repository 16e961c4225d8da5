//! The transactions of smtpd processes. Postfix tells of a transaction's end only when it is accepted; of all others
//! only a new instance of the same smtpd tells, or silence.

use super::action::Action;
use super::request::BadRequest;
use crate::config::CountAt;
use crate::listen::Peer;
use crate::session::{Engine, Transaction};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Smtpd processes that are remembered at once. Postfix runs 100 by default.
const MAX_SMTPDS: usize = 65_536;

/// MTAs that are remembered for having sent an END-OF-MESSAGE.
const MAX_MTAS: usize = 65_536;

/// An smtpd process: its host and its process ID, as it tells it.
type Smtpd = (Peer, Box<str>);

/// Looks up an [`Smtpd`] without a copy of its process ID. Hashes as it does.
#[derive(Hash)]
struct SmtpdRef<'a>(Peer, &'a str);

impl hashbrown::Equivalent<Smtpd> for SmtpdRef<'_> {
    fn equivalent(&self, (peer, process): &Smtpd) -> bool {
        self.0 == *peer && *self.1 == **process
    }
}

pub(super) type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

/// All smtpd processes that have asked lately, by host and process.
pub(super) struct Instances {
    engine: Arc<Engine>,
    slots: Mutex<HashMap<Smtpd, SharedSlot>>,
    /// MTAs that have sent an END-OF-MESSAGE.
    with_end: Mutex<HashSet<Peer>>,
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
    Ended(Action),
}

impl Instances {
    pub fn new(engine: Arc<Engine>) -> Instances {
        Instances { engine, slots: Mutex::default(), with_end: Mutex::default() }
    }

    /// The slot of an smtpd process.
    pub fn slot(&self, peer: Peer, process: &str) -> Result<SharedSlot, BadRequest> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&SmtpdRef(peer, process)) {
            return Ok(slot.clone());
        }
        if slots.len() >= MAX_SMTPDS {
            return Err(BadRequest::TooManyInstances);
        }
        let slot = SharedSlot::default();
        slots.insert((peer, process.into()), slot.clone());
        Ok(slot)
    }

    pub fn saw_end(&self, peer: Peer) {
        let mut with_end = self.with_end.lock();
        if with_end.len() < MAX_MTAS {
            with_end.insert(peer);
        }
    }

    /// Ends what an smtpd left behind: it counts or is given back.
    pub async fn finish(&self, peer: Peer, slot: &mut Slot, why: &'static str) {
        let State::Open(mut transaction) = std::mem::take(&mut slot.state) else { return };
        if self.counts_abandoned(peer, &transaction) {
            transaction.count_unended().await;
        } else {
            transaction.abandon(why, None);
        }
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
        for (key, shared) in all {
            // A slot in use is not silent.
            let Ok(mut slot) = shared.try_lock() else { continue };
            if slot.touched.is_some_and(|touched| touched.elapsed() >= timeout) && self.forget(&key, &shared) {
                self.finish(key.0, &mut slot, "time-out").await;
            }
        }
    }

    /// Takes a slot out, unless a request has it in hand by now: what it puts into the slot would be lost.
    fn forget(&self, key: &Smtpd, slot: &SharedSlot) -> bool {
        let mut slots = self.slots.lock();
        // Ours and the table's. More come only under the table's lock.
        let is_idle = Arc::strong_count(slot) == 2;
        if is_idle {
            slots.remove(key);
        }
        is_idle
    }

    /// At the end of the daemon: what counts without an END-OF-MESSAGE is counted, all else given back.
    pub async fn finish_all(&self) {
        self.sweep(Duration::ZERO).await;
    }
}
