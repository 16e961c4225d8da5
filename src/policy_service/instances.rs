//! The transactions of smtpd processes. Postfix tells of a transaction's end only when it is accepted; of all others
//! only a new instance of the same smtpd tells, or silence.

use super::action::Action;
use super::request::{BadRequest, Request};
use super::smtpds::{Caller, Found, Key, SharedSlot, Slot, Smtpds, State};
use crate::config::CountAt;
use crate::listen::Peer;
use crate::session::{Engine, MtaSign, Transaction};
use hashbrown::HashSet;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// MTAs that are remembered for having sent an END-OF-MESSAGE.
const MAX_MTAS: usize = 65_536;

/// What has been silent for longer is forgotten altogether. No smtpd takes so long for one message.
const FORGET: Duration = Duration::from_secs(7_200);

/// All transactions that were asked about lately.
pub(super) struct Instances {
    engine: Arc<Engine>,
    smtpds: Mutex<Smtpds>,
    /// MTAs that have sent an END-OF-MESSAGE.
    with_end: Mutex<HashSet<Peer>>,
}

impl Instances {
    pub fn new(engine: Arc<Engine>) -> Instances {
        Instances { engine, smtpds: Mutex::default(), with_end: Mutex::default() }
    }

    /// Finds the slot of the SMTP session that a request is about. Ends what the same smtpd process left behind in others.
    ///
    /// # Errors
    /// The process has too many open transactions, or all have together.
    pub async fn find(&self, caller: &Caller, request: &Request<'_>) -> Result<Found, BadRequest> {
        let found = self.smtpds.lock().slot(caller, request.smtpd(), request.smtpd_session())?;
        for slot in &found.over {
            self.finish(caller.origin.peer, &mut *slot.lock().await, "given-up").await;
        }
        Ok(found)
    }

    pub fn saw_end(&self, peer: Peer) {
        let mut with_end = self.with_end.lock();
        if with_end.len() < MAX_MTAS {
            with_end.insert(peer);
        }
    }

    /// Ends an abandoned transaction: it counts, or its reservation is released.
    pub async fn finish(&self, peer: Peer, slot: &mut Slot, why: &'static str) {
        let State::Open(mut transaction) = std::mem::take(&mut slot.state) else { return };
        if transaction.reserves()
            && let Some(traffic) = &slot.traffic
        {
            traffic.count(MtaSign::GivenUp);
        }
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

    /// Ends the reservations of what has been silent for longer than `timeout`. A message whose contents take longer still ends,
    /// so what is known of it is kept until the same smtpd asks about another one, or [`FORGET`] has passed.
    pub async fn sweep(&self, timeout: Duration) {
        for (key, shared, silent) in self.silent(timeout) {
            let Ok(mut slot) = shared.try_lock() else { continue };
            if silent >= timeout.max(FORGET) {
                if self.smtpds.lock().forget(&key, &shared) {
                    self.finish(key.origin.peer, &mut slot, "time-out").await;
                }
            } else if !std::mem::replace(&mut slot.expired, true) {
                self.expire(key.origin.peer, &mut slot).await;
            }
        }
    }

    async fn expire(&self, peer: Peer, slot: &mut Slot) {
        let State::Open(transaction) = &mut slot.state else { return };
        if self.counts_abandoned(peer, transaction) {
            transaction.count_unended().await;
            slot.state = State::CountedUnended;
        } else {
            transaction.expire();
        }
    }

    /// A slot in use is not silent.
    fn silent(&self, least: Duration) -> Vec<(Key, SharedSlot, Duration)> {
        let all = self.smtpds.lock().all().into_iter();
        let silence = |slot: &SharedSlot| Some(slot.try_lock().ok()?.touched?.elapsed());
        let silent = all.filter_map(|(key, slot)| silence(&slot).map(|silence| (key, slot, silence)));
        silent.filter(|(_, _, silence)| *silence >= least).collect()
    }

    /// At the end of the daemon: what counts without an END-OF-MESSAGE is counted, all else is released.
    pub async fn finish_all(&self) {
        for (key, shared, _) in self.silent(Duration::ZERO) {
            let Ok(mut slot) = shared.try_lock() else { continue };
            if self.smtpds.lock().forget(&key, &shared) {
                self.finish(key.origin.peer, &mut slot, "time-out").await;
            }
        }
    }
}

/// The END-OF-MESSAGE of `instance` was answered so before: it is answered so again when Postfix did not get it.
pub(super) fn answered_before(slot: &Slot, instance: &str) -> Option<Action> {
    match &slot.state {
        State::Ended(action) if *slot.instance == *instance => Some(action.clone()),
        State::CountedUnended if *slot.instance == *instance => Some(Action::Dunno),
        _ => None,
    }
}
