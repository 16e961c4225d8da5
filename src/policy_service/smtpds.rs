//! The smtpd processes with recent requests, how they are distinguished, and how many sessions each peer may have.

use super::action::Action;
use super::request::BadRequest;
use crate::listen::Origin;
use crate::session::{TrafficOfMta, Transaction};
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::sync::{Arc, Weak};
use tokio::time::Instant;

/// SMTP sessions that are remembered at once. Postfix runs 100 smtpd processes by default, each with one session.
const MAX_SESSIONS: usize = 65_536;

/// The sessions of one peer: an MTA over TCP, or one process over a unix socket. Process IDs in requests can be made up.
const SHARE: usize = MAX_SESSIONS / 8;

/// Connections that are remembered for each session. An smtpd has one for each check_policy_service that differs.
const MAX_CARRIERS: usize = 8;

/// Who sends a request.
pub(super) struct Caller {
    pub origin: Origin,
    /// Lives as long as the connection.
    pub connection: Arc<()>,
}

/// The sessions of all smtpd processes.
#[derive(Default)]
pub(super) struct Smtpds {
    peers: HashMap<Origin, OfPeer>,
    sessions: usize,
    /// When making room last failed: it is not tried again for every request of a flood.
    futile: Option<Instant>,
}

#[derive(Default)]
struct OfPeer {
    /// By process ID, as the requests have it. One process has one session, but processes of several containers may have
    /// one process ID.
    processes: HashMap<Box<str>, SmallVec<[Session; 1]>>,
    sessions: usize,
}

struct Session {
    name: Box<str>,
    /// The connections that its requests came over.
    carriers: SmallVec<[Weak<()>; 2]>,
    slot: SharedSlot,
}

/// Where a slot is.
#[derive(Clone)]
pub(super) struct Key {
    pub origin: Origin,
    process: Box<str>,
    session: Box<str>,
}

/// The slot of a session, as it was found.
pub(super) struct Found {
    pub slot: SharedSlot,
    /// Slots of sessions that are over by that.
    pub over: SmallVec<[SharedSlot; 1]>,
    /// Nothing was known of the session. Its slot may be that of the process's last session, and still hold what that left.
    pub is_new: bool,
    /// The process has begun another session since, which goes on, too: there are two processes of its ID.
    pub is_interleaved: bool,
}

pub(super) type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

/// What is known of a session.
#[derive(Default)]
pub(super) struct Slot {
    pub instance: Box<str>,
    pub state: State,
    pub touched: Option<Instant>,
    pub milter: MilterSeen,
    /// Where it is counted that a transaction was given up.
    pub traffic: Option<Arc<TrafficOfMta>>,
    /// Its reservation has expired; the recipients are remembered, as the message may still end.
    pub expired: bool,
}

/// Whether a milter session was open for a transaction when it was asked about last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MilterSeen {
    /// Nothing was asked, or its beginning was missed: this daemon was started meanwhile.
    #[default]
    Unknown,
    Open,
    /// From its first recipient on there was none.
    NotOpen,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Nothing,
    Open(Box<Transaction>),
    /// The END-OF-MESSAGE was answered so.
    Ended(Action),
    /// It was counted at the time-out, without its END-OF-MESSAGE, which may still come.
    CountedUnended,
}

impl Slot {
    fn holds_nothing(&self) -> bool {
        !matches!(&self.state, State::Open(transaction) if transaction.reserves())
    }
}

impl Session {
    fn is_carried_by(&self, connection: &Arc<()>) -> bool {
        self.carriers.iter().any(|carrier| std::ptr::eq(carrier.as_ptr(), Arc::as_ptr(connection)))
    }

    fn carry(&mut self, connection: &Arc<()>) {
        self.carriers.retain(|carrier| carrier.strong_count() > 0);
        if self.carriers.len() < MAX_CARRIERS {
            self.carriers.push(Arc::downgrade(connection));
        }
    }

    /// Whether this session is over now that `caller` sends a request about another one with the same process ID.
    ///
    /// One smtpd has one session at a time and its own connections, so over the same connection it is the same process. It
    /// may have reconnected (Postfix closes idle connections): the kernel's process ID identifies it then, if none of the old
    /// connections is open. Otherwise it may be a process of another container whose mail continues, and only the reservation
    /// timeout ends it.
    fn is_over(&self, caller: &Caller) -> bool {
        let is_same_process = || caller.origin.process.is_some_and(|process| process.pid.is_some());
        let is_idle = Arc::strong_count(&self.slot) == 1;
        let is_disconnected = || self.carriers.iter().all(|carrier| carrier.strong_count() == 0);
        is_idle && (self.is_carried_by(&caller.connection) || (is_same_process() && is_disconnected()))
    }
}

impl Smtpds {
    /// The slot of a session, made if it is new.
    pub fn slot(&mut self, caller: &Caller, process: &str, session: &str) -> Result<Found, BadRequest> {
        if let Some(found) = self.lone_session(caller, process, session) {
            return Ok(found);
        }
        let mut over = SmallVec::new();
        let known = self.sessions_of(caller.origin, process);
        let is_new = !known.iter().any(|known| *known.name == *session);
        if is_new {
            self.make_room(caller.origin, &mut over)?;
        }
        let of_peer = self.peers.entry(caller.origin).or_default();
        let known = of_peer.processes.entry(process.into()).or_default();
        let before = known.len();
        known.retain(|known| {
            let is_over = *known.name != *session && known.is_over(caller);
            if is_over {
                over.push(known.slot.clone());
            }
            !is_over
        });
        let mut change = known.len() as isize - before as isize;
        let place = known.iter().position(|known| *known.name == *session).unwrap_or_else(|| {
            known.push(Session { name: session.into(), carriers: SmallVec::new(), slot: SharedSlot::default() });
            change += 1;
            known.len() - 1
        });
        let is_interleaved = !is_new && place + 1 < known.len();
        let found = &mut known[place];
        if !found.is_carried_by(&caller.connection) {
            found.carry(&caller.connection);
        }
        let slot = found.slot.clone();
        of_peer.sessions = of_peer.sessions.saturating_add_signed(change);
        self.sessions = self.sessions.saturating_add_signed(change);
        Ok(Found { slot, over, is_new, is_interleaved })
    }

    /// The usual case: the process has one connection, over which it asks about the session at hand, or about its next one.
    fn lone_session(&mut self, caller: &Caller, process: &str, session: &str) -> Option<Found> {
        let [known] = self.peers.get_mut(&caller.origin)?.processes.get_mut(process)?.as_mut_slice() else {
            return None;
        };
        if !known.is_carried_by(&caller.connection) {
            return None;
        }
        let is_new = *known.name != *session;
        if is_new {
            if !known.is_over(caller) {
                return None;
            }
            known.name = session.into();
        }
        Some(Found { slot: known.slot.clone(), over: SmallVec::new(), is_new, is_interleaved: false })
    }

    fn sessions_of(&self, origin: Origin, process: &str) -> &[Session] {
        self.peers.get(&origin).and_then(|of_peer| of_peer.processes.get(process)).map_or(&[], SmallVec::as_slice)
    }

    /// Makes sure that there is room for one session more. What holds no reservation makes room, the longest silent first.
    fn make_room(&mut self, origin: Origin, over: &mut SmallVec<[SharedSlot; 1]>) -> Result<(), BadRequest> {
        let of_peer = self.peers.get(&origin).map_or(0, |of_peer| of_peer.sessions);
        let within = if of_peer >= SHARE {
            Some(origin)
        } else if self.sessions >= MAX_SESSIONS {
            None
        } else {
            return Ok(());
        };
        let now = Instant::now();
        if self.futile.is_some_and(|futile| now.duration_since(futile).as_secs() < 1) {
            return Err(BadRequest::TooManySessions);
        }
        let mut idle: Vec<(Option<Instant>, Key, SharedSlot)> = Vec::new();
        for (key, shared) in self.all_of(within) {
            let Ok(slot) = shared.try_lock() else { continue };
            if slot.holds_nothing() {
                let touched = slot.touched;
                drop(slot);
                idle.push((touched, key, shared));
            }
        }
        // Several at once, so that a flood does not look through all of them each time.
        let most = (if within.is_some() { SHARE } else { MAX_SESSIONS }) / 4;
        idle.sort_unstable_by_key(|(touched, ..)| *touched);
        let before = self.sessions;
        for (_, key, shared) in idle.into_iter().take(most) {
            if self.forget(&key, &shared) {
                over.push(shared);
            }
        }
        if self.sessions == before {
            self.futile = Some(now);
            return Err(BadRequest::TooManySessions);
        }
        Ok(())
    }

    /// All slots.
    pub fn all(&self) -> Vec<(Key, SharedSlot)> {
        self.all_of(None)
    }

    fn all_of(&self, within: Option<Origin>) -> Vec<(Key, SharedSlot)> {
        let mut all = Vec::new();
        for (origin, of_peer) in self.peers.iter().filter(|(origin, _)| within.is_none_or(|within| within == **origin))
        {
            for (process, sessions) in &of_peer.processes {
                all.extend(sessions.iter().map(|session| {
                    let key = Key { origin: *origin, process: process.clone(), session: session.name.clone() };
                    (key, session.slot.clone())
                }));
            }
        }
        all
    }

    /// Takes a slot out, unless a request has it in hand by now: what it puts into the slot would be lost.
    pub fn forget(&mut self, key: &Key, slot: &SharedSlot) -> bool {
        // Ours and the table's. More come only through the table.
        if Arc::strong_count(slot) != 2 {
            return false;
        }
        let Some(of_peer) = self.peers.get_mut(&key.origin) else { return false };
        let Some(sessions) = of_peer.processes.get_mut(&key.process) else { return false };
        let before = sessions.len();
        sessions.retain(|session| *session.name != *key.session);
        let removed = before - sessions.len();
        if sessions.is_empty() {
            of_peer.processes.remove(&key.process);
        }
        of_peer.sessions -= removed;
        self.sessions -= removed;
        if of_peer.processes.is_empty() {
            self.peers.remove(&key.origin);
        }
        removed > 0
    }
}

#[cfg(test)]
mod tests;
