//! What is ordered now, as decisions read it.

use super::grant::Grant;
use crate::directory::{LimitName, Subject, SubjectKind};
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
    /// By the name of the user or the customer.
    grants: HashMap<Arc<str>, Vec<Grant>>,
}

impl Orders {
    /// Nobody is suspended.
    pub fn suspends_nobody(&self) -> bool {
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

    /// In place of an earlier one of the same subject.
    pub fn suspend(&mut self, suspension: Suspension) {
        let name = suspension.subject.name.clone();
        if let Some(kept) = self.suspended(suspension.subject.kind) {
            kept.insert(name, Arc::new(suspension));
        }
    }

    pub fn resume(&mut self, subject: &Subject) {
        if let Some(kept) = self.suspended(subject.kind) {
            kept.remove(&subject.name);
        }
    }

    pub fn has_grants(&self) -> bool {
        !self.grants.is_empty()
    }

    /// All grants, those that are over too until somebody [ends](crate::administration::Administration::end_grants)
    /// them; by name.
    pub fn grants(&self) -> Vec<&Grant> {
        let mut all: Vec<_> = self.grants.values().flatten().collect();
        all.sort_by(|a, b| (&a.subject, a.limit).cmp(&(&b.subject, b.limit)));
        all
    }

    pub(super) fn grants_by_name(&self, name: &str) -> &[Grant] {
        self.grants.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn grant_of(&self, subject: &Subject, limit: LimitName) -> Option<&Grant> {
        self.grants_by_name(&subject.name).iter().find(|grant| grant.subject == *subject && grant.limit == limit)
    }

    /// In place of an earlier one for the same limit.
    pub fn grant(&mut self, grant: Grant) {
        self.end_grant(&grant.subject, grant.limit);
        self.grants.entry(grant.subject.name.clone()).or_default().push(grant);
    }

    pub fn end_grant(&mut self, subject: &Subject, limit: LimitName) {
        let Some(grants) = self.grants.get_mut(&subject.name) else { return };
        grants.retain(|grant| grant.subject != *subject || grant.limit != limit);
        if grants.is_empty() {
            self.grants.remove(&subject.name);
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
