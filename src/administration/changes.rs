//! Gives orders: one after the other, each in the audit log before the command is answered.

use super::carry_out::{carry_out, replay};
use super::configuration::AppliedConfiguration;
use super::state_file::{StateError, StateFile};
use super::{MAX_GRANT, MAX_GRANT_DAYS, MAX_GRANTS, MAX_REASON, MAX_SUSPENSIONS};
use crate::audit::{Action, Actor, Anchor, AuditError, AuditLog, Break, ConfigurationLog, Instruction};
use crate::directory::{LimitName, Subject, SubjectKind};
use crate::orders::{Grant, Orders, Suspension, Target};
use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("a reason is missing; write --why 'TEXT': replies to the client contain it")]
    NoReason,
    #[error("a reason is missing; write --why 'TEXT'")]
    NoGrantReason,
    #[error("the reason has {0} characters; write at most {MAX_REASON}")]
    ReasonTooLong(usize),
    #[error("{} {} is not suspended", .0.kind.key(), .0.name)]
    NotSuspended(Box<Target>),
    #[error("there are {MAX_SUSPENSIONS} suspensions already; resume some first")]
    TooMany,
    #[error("there are {MAX_GRANTS} grants already; take some back first")]
    TooManyGrants,
    #[error("{limit} is a limit of the {}: write the name of the {0}, not that of {} {}", SubjectKind::of(*.limit).key(), .subject.kind.key(), .subject.name)]
    NotItsLimit { limit: LimitName, subject: Box<Subject> },
    #[error("+{0} is more than {MAX_GRANT}; set the limit to \"unlimited\" in the configuration instead")]
    TooMuch(u64),
    #[error("{0} is in the past; write a time in the future")]
    Over(Timestamp),
    #[error("{0} is more than {MAX_GRANT_DAYS} days away; for longer, change the limit in the configuration")]
    TooLong(Timestamp),
    #[error("there is no grant of {limit} to {} {}", .subject.kind.key(), .subject.name)]
    NoGrant { limit: LimitName, subject: Box<Subject> },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// What was configured before cannot be read or written.
    #[error("{0}")]
    Configuration(String),
    #[error("nothing was changed: the thread that writes it ended")]
    NoThread,
}

/// The record of the audit log that says what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(Anchor);

/// `12:5b1f0c9d22e7a8b4`: number and beginning of the hash, so that a log kept elsewhere vouches for the audit log.
impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.records, self.0.hash.get(..16).unwrap_or_default())
    }
}

/// An order that was carried out, and its record.
#[derive(Clone, Debug)]
pub struct Completed<T> {
    pub outcome: T,
    pub receipt: Receipt,
}

/// The orders given to one daemon. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Administration {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    orders: ArcSwap<Orders>,
    /// Held while something is changed. `None`: nothing outlives the process.
    files: Mutex<Option<Files>>,
    /// Taken before `files`.
    configuration: Mutex<Option<ConfigurationLog>>,
    /// Where the audit log was broken when the daemon started.
    breaks: Vec<Break>,
    /// Why the state file could not be written the last time; the audit log has the order all the same.
    state_error: Mutex<Option<String>>,
}

#[derive(Debug)]
pub(super) struct Files {
    state: StateFile,
    audit: AuditLog,
}

impl Administration {
    /// Nothing outlives the process: for tests.
    pub fn in_memory() -> Administration {
        Administration::with(Orders::default(), None, None)
    }

    /// Goes on with what is ordered in a store's folder. What the audit log has, but the state file has not, is carried
    /// out; without a state file that is everything.
    ///
    /// # Errors
    /// What was ordered cannot be read, or the audit log cannot be written.
    pub fn open(folder: &Path) -> Result<Administration, OrderError> {
        let state = StateFile::in_folder(folder);
        let (mut orders, anchor) = state.read()?.unwrap_or_default();
        let audit = AuditLog::open(folder, &anchor, |record| replay(&mut orders, &record))?;
        if *audit.last() != anchor {
            state.write(&orders, audit.last())?;
        }
        let configuration = ConfigurationLog::open(folder).map_err(OrderError::Configuration)?;
        Ok(Administration::with(orders, Some(Files { state, audit }), Some(configuration)))
    }

    /// What is ordered in a store's folder, for commands that work without the daemon.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(folder: &Path) -> Result<Orders, StateError> {
        Ok(StateFile::in_folder(folder).read()?.map_or_else(Orders::default, |(orders, _)| orders))
    }

    fn with(orders: Orders, files: Option<Files>, configuration: Option<ConfigurationLog>) -> Administration {
        let breaks = files.as_ref().map_or_else(Vec::new, |files| files.audit.breaks().to_vec());
        let orders = ArcSwap::from_pointee(orders);
        let (files, configuration) = (Mutex::new(files), Mutex::new(configuration));
        Administration {
            inner: Arc::new(Inner { orders, files, configuration, breaks, state_error: Mutex::default() }),
        }
    }

    /// What is ordered now. Keep it no longer than one decision takes.
    pub fn orders(&self) -> Arc<Orders> {
        self.inner.orders.load_full()
    }

    /// What is wrong, if anything: breaks of the audit log when the daemon started, files that cannot be written.
    pub fn problems(&self) -> Vec<String> {
        let breaks = self.inner.breaks.iter().map(|at| format!("{}: {at}", crate::audit::FILE_NAME));
        breaks.chain(self.inner.state_error.lock().clone()).collect()
    }

    /// Refuses all mail of a target from now on, also of open transactions; the replies contain the reason. `until`: when
    /// that ends by itself. When this returns, it is on disk. Returns the suspension that it replaces.
    ///
    /// # Errors
    /// There is no reason, its end is in the past, or it cannot be written; then nothing has changed.
    pub async fn suspend(
        &self,
        target: Target,
        until: Option<Timestamp>,
        order: Instruction,
    ) -> Result<Completed<Option<Arc<Suspension>>>, OrderError> {
        if reason(&order.why)?.is_none() {
            return Err(OrderError::NoReason);
        }
        if let Some(until) = until.filter(|&until| until <= order.at) {
            return Err(OrderError::Over(until));
        }
        let at = order.at;
        self.carry_out(order, move |orders| {
            let before = orders.suspension_of(&target, at).cloned();
            if before.is_none() && orders.suspensions().len() >= MAX_SUSPENSIONS {
                return Err(OrderError::TooMany);
            }
            Ok((vec![Action::Suspend { subject: target, until }], before))
        })
        .await
    }

    /// Lets mail of a target pass again. Returns the suspension that ended.
    ///
    /// # Errors
    /// It is not suspended, or the change cannot be written; then nothing has changed.
    pub async fn resume(&self, target: Target, order: Instruction) -> Result<Completed<Arc<Suspension>>, OrderError> {
        let at = order.at;
        self.carry_out(order, move |orders| {
            let before = orders.suspension_of(&target, at).cloned();
            let before = before.ok_or_else(|| OrderError::NotSuspended(Box::new(target.clone())))?;
            Ok((vec![Action::Resume { subject: target }], before))
        })
        .await
    }

    /// Raises a limit until a time, in place of an earlier grant of it.
    ///
    /// # Errors
    /// It is not such a subject's limit, too much, too long or over already; or it cannot be written.
    pub async fn grant(
        &self,
        subject: Subject,
        limit: LimitName,
        more: u64,
        until: Timestamp,
        order: Instruction,
    ) -> Result<Receipt, OrderError> {
        if reason(&order.why)?.is_none() {
            return Err(OrderError::NoGrantReason);
        }
        if subject.kind == SubjectKind::Login || (subject.kind == SubjectKind::User && is_of_customer(limit)) {
            return Err(OrderError::NotItsLimit { limit, subject: Box::new(subject) });
        }
        if more > MAX_GRANT {
            return Err(OrderError::TooMuch(more));
        }
        if until <= order.at {
            return Err(OrderError::Over(until));
        }
        if until.duration_since(order.at) > SignedDuration::from_hours(24 * MAX_GRANT_DAYS) {
            return Err(OrderError::TooLong(until));
        }
        let grant = move |orders: &Orders| {
            if orders.grant_of(&subject, limit).is_none() && orders.grants().len() >= MAX_GRANTS {
                return Err(OrderError::TooManyGrants);
            }
            Ok((vec![Action::Grant { subject, limit, more, until }], ()))
        };
        Ok(self.carry_out(order, grant).await?.receipt)
    }

    /// Takes a grant back before its time.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub async fn take_back(
        &self,
        subject: Subject,
        limit: LimitName,
        order: Instruction,
    ) -> Result<Receipt, OrderError> {
        let take_back = move |orders: &Orders| match orders.grant_of(&subject, limit) {
            Some(grant) => Ok((vec![ended(grant)], ())),
            None => Err(OrderError::NoGrant { limit, subject: Box::new(subject) }),
        };
        Ok(self.carry_out(order, take_back).await?.receipt)
    }

    /// Removes grants and suspensions whose time is over, and records that; they have no effect any more whether this is
    /// called or not.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn end_expired(&self, at: Timestamp) -> Result<(), OrderError> {
        if expired(&self.orders(), at).is_empty() {
            return Ok(());
        }
        let order = Instruction { by: Actor::Daemon, at, why: "its time is over".to_owned() };
        self.carry_out(order, move |orders| Ok((expired(orders, at), ()))).await.map(|_| ())
    }

    /// Records what somebody else carries out, before it is done.
    ///
    /// # Errors
    /// It cannot be written; then it must not be done.
    pub async fn record(&self, order: Instruction, action: Action) -> Result<Receipt, OrderError> {
        Ok(self.carry_out(order, move |_| Ok((vec![action], ()))).await?.receipt)
    }

    /// Records that what a receipt is for was not done after all.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn record_failure(&self, order: Instruction, of: &Receipt, error: String) -> Result<Receipt, OrderError> {
        self.record(order, Action::Failed { of: of.0.records, error }).await
    }

    /// Records a configuration that took effect, with all that is different from the one before.
    ///
    /// # Errors
    /// It cannot be compared, or not be written.
    pub async fn record_configuration(
        &self,
        order: Instruction,
        applied: AppliedConfiguration,
    ) -> Result<Receipt, OrderError> {
        let inner = self.inner.clone();
        on_a_thread_of_its_own(move || {
            let mut log = inner.configuration.lock();
            let mut receipt = Receipt(Anchor::default());
            let mut record = |mut actions: Vec<Action>, files| {
                actions.insert(0, applied.action(files));
                receipt = inner.carry_out(&order, |_| Ok((actions, ()))).map_err(|error| error.to_string())?.receipt;
                Ok(())
            };
            match &mut *log {
                Some(log) => log.compare(&applied.files(), record),
                None => record(Vec::new(), 0),
            }
            .map_err(OrderError::Configuration)?;
            Ok(receipt)
        })
        .await
    }

    async fn carry_out<T: Send + 'static>(
        &self,
        order: Instruction,
        decide: impl FnOnce(&Orders) -> Result<(Vec<Action>, T), OrderError> + Send + 'static,
    ) -> Result<Completed<T>, OrderError> {
        let inner = self.inner.clone();
        on_a_thread_of_its_own(move || inner.carry_out(&order, decide)).await
    }
}

impl Inner {
    /// Waits for the disk.
    fn carry_out<T>(
        &self,
        order: &Instruction,
        decide: impl FnOnce(&Orders) -> Result<(Vec<Action>, T), OrderError>,
    ) -> Result<Completed<T>, OrderError> {
        reason(&order.why)?;
        let mut files = self.files.lock();
        let before = self.orders.load();
        let (actions, outcome) = decide(&before)?;
        let mut orders = Orders::clone(&before);
        let why = order.why.trim();
        actions.iter().for_each(|action| carry_out(&mut orders, action, &order.by, order.at, why));
        let mut last = Anchor::default();
        if let Some(Files { state, audit }) = &mut *files {
            last = audit.append(order, &actions)?;
            // From here on it is ordered, whatever happens: the next start carries out what the audit log has.
            *self.state_error.lock() = state.write(&orders, &last).err().map(|error| error.to_string());
        }
        self.orders.store(Arc::new(orders));
        Ok(Completed { outcome, receipt: Receipt(last) })
    }
}

/// Where waiting for the disk holds up nobody.
async fn on_a_thread_of_its_own<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OrderError> + Send + 'static,
) -> Result<T, OrderError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(OrderError::NoThread))
}

fn is_of_customer(limit: LimitName) -> bool {
    SubjectKind::of(limit) == SubjectKind::Customer
}

/// The ends of what is over.
fn expired(orders: &Orders, at: Timestamp) -> Vec<Action> {
    let grants = orders.grants().into_iter().filter(|grant| grant.until <= at).map(ended);
    let suspensions = orders.suspensions().into_iter().filter(|suspension| !suspension.stands(at));
    let resumed = suspensions.map(|suspension| Action::Resume { subject: suspension.target.clone() });
    grants.chain(resumed).collect()
}

fn ended(grant: &Grant) -> Action {
    let Grant { subject, limit, more, until, .. } = grant;
    Action::GrantEnded { subject: subject.clone(), limit: *limit, more: *more, until: *until }
}

/// A reason that is not too long; `None` if there is none.
fn reason(why: &str) -> Result<Option<&str>, OrderError> {
    let why = why.trim();
    match why.chars().count() {
        0 => Ok(None),
        1..=MAX_REASON => Ok(Some(why)),
        length => Err(OrderError::ReasonTooLong(length)),
    }
}

#[cfg(test)]
mod tests;
