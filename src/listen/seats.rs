//! The connections that are open on one listener, and how many may be.

use super::Origin;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// How many connections one listener holds open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// In all. More wait until one ends.
    pub connections: usize,
    /// Of one peer: a process of this machine, or the address of another. More are closed at once.
    pub connections_per_peer: usize,
}

impl Shares {
    /// `connections` in all, half of them for one peer.
    pub const fn of(connections: usize) -> Shares {
        Shares { connections, connections_per_peer: connections.div_ceil(2) }
    }
}

/// All seats of a listener.
#[derive(Debug)]
pub(super) struct Seats {
    shares: Shares,
    table: Mutex<Table>,
    /// A seat has become free.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    seats: HashMap<u64, Arc<Seat>>,
    connections: HashMap<Origin, usize>,
    next: u64,
}

/// One connection's seat.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    origin: Origin,
    is_closing: AtomicBool,
    closing: Notify,
}

/// A seat that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Seated {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// All are taken.
    Full,
    /// The peer has all that one may have.
    ShareTaken,
}

impl Seats {
    pub fn new(shares: Shares) -> Arc<Seats> {
        Arc::new(Seats { shares, table: Mutex::default(), freed: Notify::new() })
    }

    pub fn take(self: &Arc<Self>, origin: Origin) -> Result<Seated, NoSeat> {
        let mut table = self.table.lock();
        let of_peer = table.connections.get(&origin).copied().unwrap_or(0);
        if of_peer >= self.shares.connections_per_peer {
            return Err(NoSeat::ShareTaken);
        }
        if table.seats.len() >= self.shares.connections {
            return Err(NoSeat::Full);
        }
        table.next += 1;
        let seat = Seat { number: table.next, origin, is_closing: AtomicBool::new(false), closing: Notify::new() };
        let seat = Arc::new(seat);
        table.connections.insert(origin, of_peer + 1);
        table.seats.insert(seat.number, seat.clone());
        Ok(Seated { seats: self.clone(), seat })
    }

    /// Resolves when a seat has become free since the last call, or becomes free.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Has every connection closed, between two requests.
    pub fn close(&self) {
        for seat in self.table.lock().seats.values() {
            seat.close();
        }
    }

    /// Resolves when no seat is taken any more.
    pub async fn all_free(&self) {
        while !self.table.lock().seats.is_empty() {
            self.freed().await;
        }
    }
}

impl Seat {
    fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.closing.notify_one();
    }

    /// Resolves when the connection must be closed.
    pub async fn closed(&self) {
        while !self.is_closing.load(Ordering::Acquire) {
            self.closing.notified().await;
        }
    }
}

impl Seated {
    pub fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut table = self.seats.table.lock();
        table.seats.remove(&self.seat.number);
        if let Some(of_peer) = table.connections.get_mut(&self.seat.origin) {
            *of_peer -= 1;
            if *of_peer == 0 {
                table.connections.remove(&self.seat.origin);
            }
        }
        drop(table);
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::Peer;

    fn peer(number: u8) -> Origin {
        Peer::Ip([192, 0, 2, number].into()).into()
    }

    #[tokio::test]
    async fn a_peer_has_its_share_and_the_others_theirs() {
        let seats = Seats::new(Shares::of(4));
        let mut first = vec![seats.take(peer(1)).unwrap(), seats.take(peer(1)).unwrap()];
        assert_eq!(seats.take(peer(1)).err(), Some(NoSeat::ShareTaken));
        let _others = [seats.take(peer(2)).unwrap(), seats.take(peer(3)).unwrap()];
        assert_eq!(seats.take(peer(4)).err(), Some(NoSeat::Full));
        first.pop();
        seats.freed().await;
        drop(seats.take(peer(4)).unwrap());
        drop(seats.take(peer(1)).unwrap());
    }

    #[tokio::test]
    async fn closing_reaches_every_connection() {
        let seats = Seats::new(Shares::of(8));
        for number in 0..4 {
            let seated = seats.take(peer(number)).unwrap();
            tokio::spawn(async move { seated.seat().closed().await });
        }
        seats.close();
        seats.all_free().await;
    }
}
