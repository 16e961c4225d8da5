//! Why the ledger cannot answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why the ledger cannot answer.
#[derive(Clone, Debug)]
pub enum LedgerError {
    /// What was counted before the start is still being read.
    Loading,
    /// The store cannot be read or written now. Nothing was counted.
    Unavailable(StoreError),
}

impl LedgerError {
    /// Whether the same request may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            LedgerError::Loading => true,
            LedgerError::Unavailable(error) => error.is_transient(),
        }
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::Loading => f.write_str("the store is still loading"),
            LedgerError::Unavailable(error) => write!(f, "the store is unavailable: {error}"),
        }
    }
}

impl Error for LedgerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LedgerError::Loading => None,
            LedgerError::Unavailable(error) => error.source(),
        }
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> LedgerError {
        LedgerError::Unavailable(error)
    }
}

/// Why a store cannot be read or written. One cause can fail many requests, so a clone shares it.
#[derive(Clone, Debug)]
pub struct StoreError(Arc<Cause>);

#[derive(Debug)]
struct Cause {
    /// One line, with what an administrator can do.
    message: Arc<str>,
    is_transient: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// May go away by itself: a server that restarts, a slow disk, a full one.
    pub(in crate::ledger) fn transient(message: impl Into<Arc<str>>) -> StoreError {
        StoreError(Arc::new(Cause { message: message.into(), is_transient: true, source: None }))
    }

    /// Stays until somebody changes something: a damaged file, a closed store.
    pub(in crate::ledger) fn permanent(message: impl Into<Arc<str>>) -> StoreError {
        StoreError(Arc::new(Cause { message: message.into(), is_transient: false, source: None }))
    }

    /// What another library reported.
    pub(in crate::ledger) fn caused_by(
        source: impl Error + Send + Sync + 'static,
        message: impl Into<Arc<str>>,
        is_transient: bool,
    ) -> StoreError {
        StoreError(Arc::new(Cause { message: message.into(), is_transient, source: Some(Box::new(source)) }))
    }

    /// Whether the same request may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        self.0.is_transient
    }

    /// As displayed.
    pub fn message(&self) -> Arc<str> {
        self.0.message.clone()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Why a store cannot be opened: one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub(super) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_cause_and_says_whether_to_retry() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = LedgerError::from(StoreError::caused_by(refused, "10.0.0.5:6379: connection refused", true));
        assert_eq!(error.to_string(), "the store is unavailable: 10.0.0.5:6379: connection refused");
        assert!(error.is_transient() && !LedgerError::from(StoreError::permanent("closed")).is_transient());
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::ConnectionRefused));
    }
}
