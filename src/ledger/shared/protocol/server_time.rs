//! The clock that decides, and how tests move it.

use crate::clock::Clock;
use std::sync::Arc;

/// Whose clock the scripts go by.
#[derive(Clone, Debug)]
pub(in crate::ledger) enum ServerTime {
    /// The server's; with the shift of a test, if there is one.
    Server,
    /// A clock that a test moves.
    #[cfg_attr(not(feature = "test-clock"), expect(dead_code, reason = "for tests"))]
    Told(Arc<dyn Clock>),
}

impl ServerTime {
    /// What the scripts take in tests: their last argument.
    pub fn as_told(&self) -> Option<Vec<u8>> {
        if !cfg!(feature = "test-clock") {
            return None;
        }
        let told = match self {
            ServerTime::Server => format!("+{}", crate::clock::test_shift_ms()),
            ServerTime::Told(clock) => format!("={}", clock.now().0),
        };
        Some(told.into_bytes())
    }
}
