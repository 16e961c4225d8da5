//! Whose clock the scripts use, and how tests set it.

use crate::clock::Clock;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(in crate::ledger) enum ServerTime {
    /// The server's own; shifted, if a test wants that.
    Server,
    /// A clock that a test sets.
    #[cfg_attr(not(feature = "test-clock"), expect(dead_code, reason = "for tests"))]
    Test(Arc<dyn Clock>),
}

impl ServerTime {
    /// The scripts' last argument in tests.
    pub(in crate::ledger::shared) fn as_argument(&self) -> Option<Vec<u8>> {
        if !cfg!(feature = "test-clock") {
            return None;
        }
        let argument = match self {
            ServerTime::Server => format!("+{}", crate::clock::test_shift_ms()),
            ServerTime::Test(clock) => format!("={}", clock.now().0),
        };
        Some(argument.into_bytes())
    }
}
