//! What the daemon knows of the servers' clocks.

use super::clock_line::ClockLine;
use crate::clock::{Anchor, Clock, Moment};
use crate::ledger::shared::protocol::ServerTime;
use parking_lot::Mutex;
use std::sync::Arc;

/// The clocks of all servers: they agree, within what [`TOLERANCE`](super::clock_line::TOLERANCE) allows.
#[derive(Debug)]
pub(in crate::ledger::shared) struct StoreClock {
    pub time: ServerTime,
    /// Of the server that was read last.
    line: Mutex<Option<ClockLine>>,
}

/// One server's clock.
#[derive(Debug, Default)]
pub(in crate::ledger::shared) struct NodeClock(Mutex<Option<ClockLine>>);

impl StoreClock {
    pub fn new(time: ServerTime) -> StoreClock {
        StoreClock { time, line: Mutex::default() }
    }

    /// What the servers' clocks must show now; as long as none was read, this machine's wall clock.
    pub fn expected(&self) -> Moment {
        let line = *self.line.lock();
        line.map_or_else(|| Moment(self.time.wall().max(0) as u64), |line| line.expected(self.time.elapsed()))
    }

    /// What this machine's wall clock shows when the servers' clocks show a moment: milliseconds since 1970.
    pub fn wall(&self, moment: Moment) -> i64 {
        self.time.wall() + (moment.0 as i64 - self.expected().0 as i64)
    }

    /// What a node's clock must show. `None`: no server's clock was read yet.
    pub fn line_of(&self, node: &NodeClock) -> Option<ClockLine> {
        let of_node = *node.0.lock();
        of_node.or_else(|| *self.line.lock())
    }

    /// A node's reading was accepted.
    pub fn follow(&self, node: &NodeClock, line: ClockLine) {
        *node.0.lock() = Some(line);
        *self.line.lock() = Some(line);
    }

    /// The scripts' argument: between which times, in the server's milliseconds, a node may serve a request that is sent now.
    /// Twice six bytes, big-endian.
    pub fn bounds_for(&self, node: &NodeClock) -> [u8; 12] {
        let mut bounds = [0; 12];
        let (earliest, latest) = match *node.0.lock() {
            Some(line) => line.bounds(self.time.elapsed()),
            None => (Moment(0), Moment(u64::MAX)),
        };
        for (part, moment) in bounds.chunks_exact_mut(6).zip([earliest, latest]) {
            part.copy_from_slice(&moment.0.min((1 << 48) - 1).to_be_bytes()[2..]);
        }
        bounds
    }
}

/// The daemon's own time line, on whose wall the servers' clocks hang: what is counted locally is told in their time.
#[derive(Debug)]
pub(in crate::ledger::shared) struct LocalClock {
    pub own: Arc<dyn Clock>,
    pub servers: Arc<StoreClock>,
}

impl Clock for LocalClock {
    fn now(&self) -> Moment {
        self.own.now()
    }

    fn wall(&self, moment: Moment) -> i64 {
        self.servers.expected().0 as i64 + (moment.0 as i64 - self.own.now().0 as i64)
    }

    fn anchor(&self) -> Anchor {
        self.own.anchor()
    }
}
