//! Whose clock the scripts use, the daemon's own ones beside it, and how tests set them.

use crate::clock::{Clock, Moment, since_boot, wall_time};
use redis::Value;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(in crate::ledger) enum ServerTime {
    /// The server's own; shifted, if a test wants that.
    Server,
    /// Clocks that a test sets: the servers', and the daemon's own.
    #[cfg_attr(not(feature = "test-clock"), expect(dead_code, reason = "for tests"))]
    Test { server: Arc<dyn Clock>, own: Arc<dyn Clock> },
}

impl ServerTime {
    #[cfg(feature = "test-clock")]
    pub fn of(server: Arc<dyn Clock>, own: Arc<dyn Clock>) -> ServerTime {
        ServerTime::Test { server, own }
    }

    /// The scripts' last argument in tests.
    pub(in crate::ledger::shared) fn as_argument(&self) -> Option<Vec<u8>> {
        if !cfg!(feature = "test-clock") {
            return None;
        }
        let argument = match self {
            ServerTime::Server => format!("+{}", crate::clock::test_shift_ms()),
            ServerTime::Test { server, .. } => format!("={}", server.now().0),
        };
        Some(argument.into_bytes())
    }

    /// The server's time, from a response to TIME.
    pub(in crate::ledger::shared) fn parse(&self, response: &Value) -> Option<Moment> {
        if let ServerTime::Test { server, .. } = self {
            return Some(server.now());
        }
        let (seconds, microseconds): (u64, u64) = redis::from_redis_value(response.clone()).ok()?;
        Some(Moment(seconds.checked_mul(1000)? + microseconds / 1000 + crate::clock::test_shift_ms()))
    }

    /// The time that passed on this machine: its beginning means nothing.
    pub(in crate::ledger::shared) fn elapsed(&self) -> Moment {
        match self {
            ServerTime::Server => since_boot(),
            ServerTime::Test { own, .. } => own.now(),
        }
    }

    /// This machine's wall clock: milliseconds since 1970.
    pub(in crate::ledger::shared) fn wall(&self) -> i64 {
        match self {
            ServerTime::Server => wall_time().as_millisecond(),
            ServerTime::Test { own, .. } => own.wall(own.now()),
        }
    }
}
