//! What is ordered now, as decisions read it.

use super::actor::Actor;
use crate::audit::{Action, Record};
use crate::ledger::{Subject, SubjectKind};
use hashbrown::HashMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Nothing of a user or a customer is relayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    #[serde(flatten)]
    pub subject: Subject,
    pub why: Arc<str>,
    /// Who ordered it.
    pub by: Arc<str>,
    pub since: Timestamp,
}

/// All that is ordered: an immutable snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// By name.
    customers: HashMap<Arc<str>, Arc<Suspension>>,
    /// By address: an installation has no address twice.
    users: HashMap<Arc<str>, Arc<Suspension>>,
}

impl Orders {
    /// Nothing is ordered.
    pub fn is_empty(&self) -> bool {
        self.customers.is_empty() && self.users.is_empty()
    }

    pub fn suspended_customer(&self, name: &str) -> Option<&Arc<Suspension>> {
        self.customers.get(name)
    }

    /// By the user's address.
    pub fn suspended_user(&self, address: &str) -> Option<&Arc<Suspension>> {
        self.users.get(address)
    }

    pub fn suspension_of(&self, subject: &Subject) -> Option<&Arc<Suspension>> {
        match subject.kind {
            SubjectKind::Customer => self.suspended_customer(&subject.name),
            SubjectKind::User => self.suspended_user(&subject.name),
            SubjectKind::Login => None,
        }
    }

    /// Customers first, then users, each by name.
    pub fn suspensions(&self) -> Vec<&Arc<Suspension>> {
        let mut all: Vec<_> = self.customers.values().chain(self.users.values()).collect();
        all.sort_by(|a, b| (a.subject.kind, &a.subject.name).cmp(&(b.subject.kind, &b.subject.name)));
        all
    }

    /// Carries out what the audit log says was ordered.
    pub(super) fn apply(&mut self, record: &Record) {
        self.carry_out(&record.action, &record.by, record.at, &record.why);
    }

    /// Carries out what is ordered; other actions change nothing here.
    pub(super) fn carry_out(&mut self, action: &Action, by: &Actor, at: Timestamp, why: &str) {
        match action {
            Action::Suspend { subject } => {
                // One that is suspended already keeps the time since when.
                let since = self.suspension_of(subject).map_or(at, |before| before.since);
                self.suspend(Suspension {
                    subject: subject.clone(),
                    why: why.into(),
                    by: by.to_string().into(),
                    since,
                });
            }
            Action::Resume { subject } => self.resume(subject),
            _ => {}
        }
    }

    pub(super) fn suspend(&mut self, suspension: Suspension) {
        let name = suspension.subject.name.clone();
        if let Some(kept) = self.suspended(suspension.subject.kind) {
            kept.insert(name, Arc::new(suspension));
        }
    }

    fn resume(&mut self, subject: &Subject) {
        if let Some(kept) = self.suspended(subject.kind) {
            kept.remove(&subject.name);
        }
    }

    /// Logins are not suspended by themselves: their users are.
    fn suspended(&mut self, kind: SubjectKind) -> Option<&mut HashMap<Arc<str>, Arc<Suspension>>> {
        match kind {
            SubjectKind::Customer => Some(&mut self.customers),
            SubjectKind::User => Some(&mut self.users),
            SubjectKind::Login => None,
        }
    }
}
