//! The connections that are open on one listener: how many there may be, how much of what they have sent may wait, and
//! which one must go when there is no room.

use super::Origin;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Limits on the connections of one listener: for all of them, and for one peer. A peer is a process on a unix socket, or an
/// IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    pub connections: usize,
    pub connections_per_peer: usize,
    /// Buffered bytes of requests that are not answered yet, beyond the buffer of an idle connection.
    pub bytes: usize,
    pub bytes_per_peer: usize,
}

impl Shares {
    /// `connections` and `bytes` for all, half of them for one peer.
    pub const fn of(connections: usize, bytes: usize) -> Shares {
        Shares { connections, connections_per_peer: connections.div_ceil(2), bytes, bytes_per_peer: bytes.div_ceil(2) }
    }
}

/// All seats of a listener.
#[derive(Debug)]
pub(super) struct Seats {
    shares: Shares,
    table: Mutex<Table>,
    /// Counts connections: the number at which a connection became idle orders them by idle time.
    turn: Arc<AtomicU64>,
    /// A seat has become free.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    seats: HashMap<u64, Arc<Seat>>,
    peers: HashMap<Origin, Taken>,
    bytes: usize,
}

/// What a peer has taken.
#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    bytes: usize,
}

/// One connection's seat.
#[derive(Debug)]
struct Seat {
    number: u64,
    origin: Origin,
    state: AtomicU64,
    /// Its buffered bytes. Changes only under the table's lock.
    bytes: AtomicUsize,
    turn: Arc<AtomicU64>,
    /// How far a stop has come: one of the [`Signal`]s.
    stop: AtomicU8,
    /// Something has changed that the connection must know.
    signal: Notify,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signal {
    /// The connection is closed once nothing is open on it and its peer is silent.
    Drain = 1,
    /// The connection is closed between two requests.
    Close = 2,
}

impl Signal {
    fn of(number: u8) -> Option<Signal> {
        match number {
            1 => Some(Signal::Drain),
            2 => Some(Signal::Close),
            _ => None,
        }
    }
}

/// A request is being answered, or a response written.
const BUSY: u64 = u64::MAX;
/// The connection must be closed: it was idle the longest.
const EVICTED_FOR_ROOM: u64 = u64::MAX - 1;
/// The connection must be closed: it holds the most buffered bytes.
const EVICTED_FOR_BYTES: u64 = u64::MAX - 2;

/// Why a connection must be closed, or was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoom {
    #[error("too many connections; this one was idle the longest")]
    Idle,
    #[error("too many bytes of incomplete requests; this connection had sent the most")]
    Bytes,
    #[error("too many connections from this peer, none of them idle")]
    ShareTaken,
}

/// A seat that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Seated {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
}

/// All seats are taken, and no connection is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Seats {
    pub fn new(shares: Shares) -> Arc<Seats> {
        Arc::new(Seats { shares, table: Mutex::default(), turn: Arc::default(), freed: Notify::new() })
    }

    /// Takes a seat. If there is none, a connection that is idle and holds nothing is closed: one of the same peer, if that
    /// has used up its share, else one of the peer with the most connections.
    pub fn take(self: &Arc<Self>, origin: Origin) -> Result<Result<Seated, NoRoom>, Full> {
        let mut table = self.table.lock();
        let of_peer = table.peers.get(&origin).map_or(0, |taken| taken.connections);
        if of_peer >= self.shares.connections_per_peer {
            if !table.evict_idle(Some(origin)) {
                return Ok(Err(NoRoom::ShareTaken));
            }
        } else if table.seats.len() >= self.shares.connections && !table.evict_idle(None) {
            return Err(Full);
        }
        let number = self.turn.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat {
            number,
            origin,
            state: AtomicU64::new(BUSY),
            bytes: AtomicUsize::new(0),
            turn: self.turn.clone(),
            stop: AtomicU8::new(0),
            signal: Notify::new(),
        });
        table.peers.entry(origin).or_default().connections += 1;
        table.seats.insert(number, seat.clone());
        Ok(Ok(Seated { seats: self.clone(), seat }))
    }

    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Resolves when a seat has become free since the last call, or becomes free.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Sends a signal to every connection.
    pub fn signal(&self, signal: Signal) {
        for seat in self.table.lock().seats.values() {
            seat.stop.store(signal as u8, Ordering::Release);
            seat.signal.notify_one();
        }
    }

    /// Resolves when no seat is taken any more.
    pub async fn all_free(&self) {
        while !self.table.lock().seats.is_empty() {
            self.freed().await;
        }
    }
}

impl Table {
    /// Closes the connection that has been idle the longest and holds nothing; whether there was one.
    fn evict_idle(&mut self, within: Option<Origin>) -> bool {
        loop {
            let candidates = self.seats.values().filter(|seat| within.is_none_or(|within| within == seat.origin));
            let idle = candidates.filter_map(|seat| Some((seat, seat.idle_since()?)));
            let victim = idle.min_by_key(|(seat, since)| {
                let of_peer = self.peers.get(&seat.origin).map_or(0, |taken| taken.connections);
                (std::cmp::Reverse(of_peer), *since)
            });
            let Some((victim, since)) = victim.map(|(seat, since)| (seat.clone(), since)) else { return false };
            // It may have become busy meanwhile.
            if victim.evict(since << 1, EVICTED_FOR_ROOM) {
                self.remove(&victim);
                return true;
            }
        }
    }

    /// Closes the connection with the most buffered bytes, if it has at least `least`; whether there was one.
    fn evict_largest(&mut self, within: Origin, least: usize) -> bool {
        loop {
            let candidates = self.seats.values().filter(|seat| seat.origin == within);
            let waiting = candidates.filter_map(|seat| {
                let state = seat.state.load(Ordering::Acquire);
                (state < EVICTED_FOR_BYTES).then_some((seat.bytes.load(Ordering::Relaxed), state, seat))
            });
            let largest = waiting.max_by_key(|(bytes, ..)| *bytes).filter(|(bytes, ..)| *bytes >= least);
            let Some((victim, state)) = largest.map(|(_, state, seat)| (seat.clone(), state)) else { return false };
            if victim.evict(state, EVICTED_FOR_BYTES) {
                self.remove(&victim);
                return true;
            }
        }
    }

    /// Sets the number of bytes that a seat takes.
    fn charge(&mut self, seat: &Seat, bytes: usize, shares: &Shares) -> Result<(), NoRoom> {
        let before = seat.bytes.load(Ordering::Relaxed);
        let more = bytes.saturating_sub(before);
        while more > 0 && self.bytes_of(seat.origin) + more > shares.bytes_per_peer {
            if !self.evict_largest(seat.origin, bytes.max(1)) {
                return Err(NoRoom::Bytes);
            }
        }
        while more > 0 && self.bytes + more > shares.bytes {
            let greediest = self.peers.iter().max_by_key(|(_, taken)| taken.bytes).map(|(origin, _)| *origin);
            let least = if greediest == Some(seat.origin) { bytes } else { 0 };
            if !greediest.is_some_and(|greediest| self.evict_largest(greediest, least.max(1))) {
                return Err(NoRoom::Bytes);
            }
        }
        seat.bytes.store(bytes, Ordering::Relaxed);
        self.bytes = self.bytes - before + bytes;
        if let Some(taken) = self.peers.get_mut(&seat.origin) {
            taken.bytes = taken.bytes - before + bytes;
        }
        Ok(())
    }

    fn bytes_of(&self, origin: Origin) -> usize {
        self.peers.get(&origin).map_or(0, |taken| taken.bytes)
    }

    fn remove(&mut self, seat: &Seat) {
        if self.seats.remove(&seat.number).is_none() {
            return;
        }
        let bytes = seat.bytes.swap(0, Ordering::Relaxed);
        self.bytes -= bytes;
        if let Some(taken) = self.peers.get_mut(&seat.origin) {
            taken.connections -= 1;
            taken.bytes -= bytes;
            if taken.connections == 0 {
                self.peers.remove(&seat.origin);
            }
        }
    }
}

impl Seat {
    /// The turn since which it waits for a request and holds nothing; none, if it does something else.
    fn idle_since(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Acquire);
        (state < EVICTED_FOR_BYTES && state & 1 == 0).then_some(state >> 1)
    }

    fn evict(&self, seen: u64, why: u64) -> bool {
        let evicted = self.state.compare_exchange(seen, why, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if evicted {
            self.signal.notify_one();
        }
        evicted
    }

    fn evicted(state: u64) -> Result<(), NoRoom> {
        match state {
            EVICTED_FOR_ROOM => Err(NoRoom::Idle),
            EVICTED_FOR_BYTES => Err(NoRoom::Bytes),
            _ => Ok(()),
        }
    }
}

impl Seated {
    /// The connection waits for a request from now on; `holds`: something would be lost if it were closed.
    pub fn wait(&self, holds: bool) {
        let turn = self.seat.turn.load(Ordering::Relaxed);
        self.seat.state.store(turn << 1 | u64::from(holds), Ordering::Release);
    }

    /// Something was received.
    ///
    /// # Errors
    /// The connection must be closed meanwhile.
    pub fn resume(&self) -> Result<(), NoRoom> {
        Seat::evicted(self.seat.state.swap(BUSY, Ordering::AcqRel))
    }

    /// Resolves with a signal beyond the one that is `known`.
    ///
    /// # Errors
    /// The connection must be closed, to make room.
    pub async fn signalled(&self, known: Option<Signal>) -> Result<Signal, NoRoom> {
        loop {
            Seat::evicted(self.seat.state.load(Ordering::Acquire))?;
            match Signal::of(self.seat.stop.load(Ordering::Acquire)) {
                Some(signal) if known.is_none_or(|known| known < signal) => return Ok(signal),
                _ => self.seat.signal.notified().await,
            }
        }
    }

    /// Sets the number of buffered bytes.
    ///
    /// # Errors
    /// There is no room for them, and no other connection holds more.
    pub fn take_bytes(&self, bytes: usize) -> Result<(), NoRoom> {
        if self.seat.bytes.load(Ordering::Relaxed) == bytes {
            return Ok(());
        }
        self.seats.table.lock().charge(&self.seat, bytes, &self.seats.shares)
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.seats.table.lock().remove(&self.seat);
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests;
