//! What all transactions share: the configuration in force, the ledger, the log.

use super::correlation::OpenSessions;
use super::counted_messages::CountedMessages;
use super::event_feed::EventFeed;
use super::mta_traffic::MtaTraffic;
use super::observer::Observer;
use super::open_count::OpenCount;
use super::recorded::{DecisionToRecord, RecordedDecision};
use super::tally::Tally;
use crate::abuse::Watch;
use crate::administration::Administration;
use crate::config::{BadFile, Configuration, LoadedFiles, Settings};
use crate::connections::Connections;
use crate::directory::{Customer, CustomerLimits, Directory, Subject, SubjectKind};
use crate::ledger::Ledger;
use crate::mail::OwnMail;
use crate::orders::Grantees;
use crate::policy::Rules;
use crate::report::{DecisionLog, Logger};
use arc_swap::ArcSwap;
use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The configuration that a transaction begins with, and keeps.
#[derive(Debug)]
pub struct Snapshot {
    pub settings: Arc<Settings>,
    pub directory: Arc<Directory>,
    /// Customer files that are not in use as they are.
    pub bad_files: Vec<BadFile>,
    /// What it was loaded from.
    pub files: Arc<LoadedFiles>,
    /// When it was put in force.
    pub configured_at: jiff::Timestamp,
}

impl From<&Configuration> for Snapshot {
    fn from(loaded: &Configuration) -> Snapshot {
        Snapshot {
            settings: loaded.settings.clone(),
            directory: loaded.directory.clone(),
            bad_files: loaded.bad_files.clone(),
            files: loaded.files.clone(),
            configured_at: jiff::Timestamp::now(),
        }
    }
}

impl Snapshot {
    pub fn rules(&self) -> Rules<'_> {
        Rules { relay: &self.settings.relay, directory: &self.directory }
    }
}

/// The heart of the daemon.
pub struct Engine {
    snapshot: ArcSwap<Snapshot>,
    pub ledger: Ledger,
    /// What administrators ordered: suspensions, grants.
    pub administration: Administration,
    pub log: Logger,
    /// SMTP sessions that have a milter session open.
    pub sessions: OpenSessions,
    /// Messages that were counted lately, so that nothing counts twice.
    pub counted_messages: CountedMessages,
    pub connections: Connections,
    pub tally: Tally,
    /// What each MTA asks about.
    pub traffic: MtaTraffic,
    /// For those who watch what clients say.
    pub events: EventFeed,
    pub open_transactions: OpenCount,
    /// Own mail, which the MTA asks about like any other.
    pub own_mail: Arc<OwnMail>,
    /// Whose account may be abused.
    pub watch: Watch,
    /// Nobody watches until it is set.
    observer: OnceLock<Arc<dyn Observer>>,
    /// The decisions behind references; none are recorded until it is started.
    decisions: OnceLock<DecisionLog<DecisionToRecord>>,
}

impl Engine {
    pub fn new(snapshot: Snapshot, ledger: Ledger, administration: Administration, log: Logger) -> Arc<Engine> {
        Arc::new(Engine {
            snapshot: ArcSwap::from_pointee(snapshot),
            ledger,
            administration,
            log,
            sessions: OpenSessions::default(),
            counted_messages: CountedMessages::default(),
            connections: Connections::default(),
            tally: Tally::default(),
            traffic: MtaTraffic::default(),
            events: EventFeed::default(),
            open_transactions: OpenCount::default(),
            own_mail: Arc::default(),
            watch: Watch::default(),
            observer: OnceLock::new(),
            decisions: OnceLock::new(),
        })
    }

    /// Reports to an observer from now on. A second one is ignored.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    pub(super) fn observer(&self) -> Option<&dyn Observer> {
        self.observer.get().map(|observer| &**observer)
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The time on the wall clock, as the ledger knows it.
    pub fn wall_time(&self) -> jiff::Timestamp {
        self.ledger.wall_time()
    }

    /// The limits of a user, a login or a customer with what is granted now.
    pub fn limits_of<'c>(&self, subject: &Subject, customer: &'c Customer) -> Cow<'c, CustomerLimits> {
        let snapshot = self.snapshot();
        let login_user = match subject.kind {
            SubjectKind::Login => match snapshot.directory.owner_of_login(&subject.name) {
                Some((owner, user)) => owner.users.get(user),
                None => customer.users.find(&subject.name),
            },
            _ => None,
        };
        let user = (subject.kind == SubjectKind::User).then_some(&*subject.name);
        // A user's limits are those of its logins, too.
        let login_user = login_user.map(|user| &*user.address).or(user);
        let grantees = Grantees { customer: &subject.customer, user, login_user };
        self.administration.orders().raised(&customer.limits, grantees, self.wall_time())
    }

    /// Records decisions in a folder from now on.
    ///
    /// # Errors
    /// The files cannot be opened, or the system gives no thread.
    pub fn record_decisions(&self, folder: &Path) -> std::io::Result<()> {
        let render = |reference, decided: &DecisionToRecord| {
            serde_json::to_string(&RecordedDecision::of(reference, decided)).unwrap_or_else(|_| "{}".to_owned())
        };
        let log = DecisionLog::start(folder, render, self.log.clone())?;
        // A second start changes nothing.
        let _ = self.decisions.set(log);
        Ok(())
    }

    /// Where decisions are recorded, if they are.
    pub fn decisions(&self) -> Option<&DecisionLog<DecisionToRecord>> {
        self.decisions.get()
    }

    /// Puts another configuration in force; transactions that are open keep theirs.
    pub fn replace_snapshot(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }
}
