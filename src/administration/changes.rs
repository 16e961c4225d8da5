//! Changing what is ordered: one change after the other, each on disk before anybody is told.

use super::actor::Instruction;
use super::orders::{Orders, Suspension};
use super::state_file::{StateError, StateFile};
use super::{MAX_REASON, MAX_SUSPENSIONS};
use crate::ledger::{Subject, SubjectKind};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("a reason is missing; write --why 'TEXT', the client is told it")]
    NoReason,
    #[error("the reason has {0} characters, at most {MAX_REASON} are kept; write it shorter")]
    ReasonTooLong(usize),
    #[error("a login is not suspended by itself; write its user's address")]
    Login,
    #[error("{} {} is not suspended", .0.kind.key(), .0.name)]
    NotSuspended(Box<Subject>),
    #[error(
        "{MAX_SUSPENSIONS} users and customers are suspended already; resume some, or remove them from the configuration"
    )]
    TooMany,
    #[error(transparent)]
    State(#[from] StateError),
    #[error("nothing was changed: the thread that writes it ended")]
    NoThread,
}

/// The administration of one daemon. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Administration {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    orders: ArcSwap<Orders>,
    /// Held while something is changed. `None`: nothing outlives the process.
    file: Mutex<Option<StateFile>>,
}

impl Administration {
    /// Forgets everything when it ends: for tests.
    pub fn in_memory() -> Administration {
        Administration::with(Orders::default(), None)
    }

    /// Goes on with what is ordered in a store's folder.
    ///
    /// # Errors
    /// What was ordered cannot be read.
    pub fn open(folder: &Path) -> Result<Administration, StateError> {
        let file = StateFile::in_folder(folder);
        let orders = file.read()?.unwrap_or_default();
        Ok(Administration::with(orders, Some(file)))
    }

    /// What is ordered in a store's folder, for commands that work without the daemon.
    ///
    /// # Errors
    /// As [`Administration::open`].
    pub fn read(folder: &Path) -> Result<Orders, StateError> {
        Ok(StateFile::in_folder(folder).read()?.unwrap_or_default())
    }

    fn with(orders: Orders, file: Option<StateFile>) -> Administration {
        Administration { inner: Arc::new(Inner { orders: ArcSwap::from_pointee(orders), file: Mutex::new(file) }) }
    }

    /// What is ordered now. Keep it no longer than one decision takes.
    pub fn orders(&self) -> Arc<Orders> {
        self.inner.orders.load_full()
    }

    /// Refuses all mail of a user or customer from now on, also of transactions that are open; the client is told why.
    /// When this returns, it is on disk. Returns the suspension that it replaces.
    ///
    /// # Errors
    /// There is no reason, or it cannot be written; then nothing has changed.
    pub async fn suspend(&self, subject: Subject, order: Instruction) -> Result<Option<Arc<Suspension>>, OrderError> {
        let why: Arc<str> = reason(&order.why)?.ok_or(OrderError::NoReason)?.into();
        if subject.kind == SubjectKind::Login {
            return Err(OrderError::Login);
        }
        self.change(move |orders| {
            let before = orders.suspension_of(&subject).cloned();
            if before.is_none() && orders.suspensions().len() >= MAX_SUSPENSIONS {
                return Err(OrderError::TooMany);
            }
            // One that is suspended already keeps the time since when.
            let since = before.as_ref().map_or(order.at, |before| before.since);
            orders.suspend(Suspension { subject, why, by: order.by.to_string().into(), since });
            Ok(before)
        })
        .await
    }

    /// Lets mail of a user or customer pass again. Returns the suspension that ended.
    ///
    /// # Errors
    /// It is not suspended, or the change cannot be written; then nothing has changed.
    pub async fn resume(&self, subject: Subject, order: Instruction) -> Result<Arc<Suspension>, OrderError> {
        reason(&order.why)?;
        self.change(move |orders| {
            let before = orders.suspension_of(&subject).cloned();
            let before = before.ok_or_else(|| OrderError::NotSuspended(Box::new(subject.clone())))?;
            orders.resume(&subject);
            Ok(before)
        })
        .await
    }

    /// Writes files, on a thread that may wait for the disk.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Orders) -> Result<T, OrderError> + Send + 'static,
    ) -> Result<T, OrderError> {
        let inner = self.inner.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let file = inner.file.lock();
            let mut orders = Orders::clone(&inner.orders.load());
            let outcome = change(&mut orders)?;
            if let Some(file) = &*file {
                file.write(&orders)?;
            }
            inner.orders.store(Arc::new(orders));
            Ok(outcome)
        });
        changed.await.unwrap_or(Err(OrderError::NoThread))
    }
}

/// A reason that can be kept; `None` if there is none.
fn reason(why: &str) -> Result<Option<&str>, OrderError> {
    let why = why.trim();
    match why.chars().count() {
        0 => Ok(None),
        1..=MAX_REASON => Ok(Some(why)),
        length => Err(OrderError::ReasonTooLong(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::administration::Actor;

    fn order(why: &str) -> Instruction {
        Instruction { by: Actor::Daemon, at: "2026-11-21T14:32:00Z".parse().unwrap(), why: why.to_owned() }
    }

    fn user(address: &str) -> Subject {
        Subject { kind: SubjectKind::User, customer: "acme".into(), name: address.into() }
    }

    #[tokio::test]
    async fn a_suspension_survives_a_restart_and_ends_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Administration::open(folder.path()).unwrap();
        let administration = open();
        assert!(administration.suspend(user("ann@acme.example"), order("spam")).await.unwrap().is_none());
        let again = administration.suspend(user("ann@acme.example"), order("worse")).await.unwrap();
        assert_eq!(&*again.unwrap().why, "spam");
        let suspended = |administration: &Administration| {
            administration.orders().suspended_user("ann@acme.example").map(|found| found.why.to_string())
        };
        assert_eq!(suspended(&open()).as_deref(), Some("worse"));
        open().resume(user("ann@acme.example"), order("")).await.unwrap();
        assert_eq!(suspended(&open()), None);
        let error = open().resume(user("ann@acme.example"), order("")).await.unwrap_err();
        assert_eq!(error.to_string(), "user ann@acme.example is not suspended");
    }

    #[tokio::test]
    async fn what_cannot_be_written_does_not_apply() {
        let folder = tempfile::tempdir().unwrap();
        let administration = Administration::open(folder.path()).unwrap();
        drop(folder);
        let error = administration.suspend(user("ann@acme.example"), order("spam")).await.unwrap_err();
        assert!(matches!(error, OrderError::State(StateError::Unwritable { .. })), "{error}");
        assert!(administration.orders().is_empty());
    }

    #[tokio::test]
    async fn a_reason_is_required_and_bounded() {
        let administration = Administration::in_memory();
        for (why, expected) in [(" ", "a reason is missing"), (&*"x".repeat(501), "has 501 characters")] {
            let error = administration.suspend(user("ann@acme.example"), order(why)).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(administration.orders().is_empty());
    }
}
