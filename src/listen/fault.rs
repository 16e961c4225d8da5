//! Why a connection was closed by relaykeeper, and the log line about it.

use super::seats::NoRoom;
use super::{Origin, Peer};
use crate::report::{Logger, OncePer, and_more};
use std::fmt;
use std::time::{Duration, Instant};

/// One line per peer and period.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Peers whose last report is remembered. With more than these, some are reported again too early.
const MAX_PEERS: usize = 1_024;

/// What is wrong with a connection. `E` is the protocol's own error: a malformed request, mostly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault<E> {
    #[error("{0}")]
    Protocol(E),
    #[error("timed out: a request was not completed within {} s", .0.as_secs())]
    RequestTimeout(Duration),
    #[error("timed out: a response was not read within {} s", .0.as_secs())]
    ResponseTimeout(Duration),
    #[error("connection closed by peer in the middle of a request")]
    ClosedEarly,
    #[error("{0}")]
    NoRoom(#[from] NoRoom),
    /// The peer closed the connection while a response was on its way: no fault of the protocol, and not reported.
    #[error("connection closed by peer")]
    Gone,
}

/// The peer is not an MTA that may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this address is not in listen.allow")]
pub(super) struct NotAllowed;

/// Reports faults, at most once a minute for each peer.
#[derive(Debug)]
pub struct FaultLog {
    protocol: &'static str,
    log: Logger,
    once: OncePer<Peer>,
    full: OncePer<()>,
}

impl FaultLog {
    /// `protocol` as in "milter connection".
    pub fn new(protocol: &'static str, log: &Logger) -> FaultLog {
        FaultLog {
            protocol,
            log: log.clone(),
            once: OncePer::new(REPORT_EVERY, MAX_PEERS),
            full: OncePer::new(REPORT_EVERY, 1),
        }
    }

    /// New connections wait.
    pub(super) fn report_full(&self, connections: usize) {
        if self.full.check((), Instant::now()).is_some() {
            let protocol = self.protocol;
            self.log.warn(format_args!("all {connections} {protocol} connections are in use; new ones wait"));
        }
    }

    pub(super) fn report<E: fmt::Display>(&self, origin: Origin, fault: &Fault<E>) {
        if !matches!(fault, Fault::Gone)
            && let Some(suppressed) = self.once.check(origin.peer, Instant::now())
        {
            let (protocol, more) = (self.protocol, and_more(suppressed));
            self.log.warn(format_args!("{protocol} connection from {origin} closed: {fault}{more}"));
        }
    }
}
