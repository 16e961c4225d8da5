//! What is ordered now, as decisions read it.

use super::grant::Grant;
use super::suspension::{Suspension, Suspensions, Target, TargetKind};
use crate::directory::{LimitName, Subject};
use hashbrown::HashMap;
use jiff::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;

/// All that is ordered: an immutable snapshot. What has an end may still be in it afterwards, so lookups take the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    suspensions: Suspensions,
    /// By the name of the user or the customer.
    grants: HashMap<Arc<str>, Vec<Grant>>,
}

impl Orders {
    /// Nobody is suspended.
    pub fn suspends_nobody(&self) -> bool {
        self.suspensions.is_empty()
    }

    /// Whether any client is suspended, or was until lately.
    pub fn suspends_clients(&self) -> bool {
        self.suspensions.has_clients()
    }

    /// Whether any login is suspended, or was until lately.
    pub fn suspends_logins(&self) -> bool {
        self.suspensions.has_logins()
    }

    pub fn suspended_customer(&self, name: &str, now: Timestamp) -> Option<&Arc<Suspension>> {
        self.suspensions.find(TargetKind::Customer, name, now)
    }

    /// By the user's address.
    pub fn suspended_user(&self, address: &str, now: Timestamp) -> Option<&Arc<Suspension>> {
        self.suspensions.find(TargetKind::User, address, now)
    }

    /// By the login in canonical form.
    pub fn suspended_login(&self, login: &str, now: Timestamp) -> Option<&Arc<Suspension>> {
        self.suspensions.find(TargetKind::Login, login, now)
    }

    /// The suspension of the smallest range that contains the client's address.
    pub fn suspended_client(&self, address: IpAddr, now: Timestamp) -> Option<&Arc<Suspension>> {
        self.suspensions.of_address(address, now)
    }

    /// The suspension of exactly this target.
    pub fn suspension_of(&self, target: &Target, now: Timestamp) -> Option<&Arc<Suspension>> {
        self.suspensions.find(target.kind, &target.name, now)
    }

    /// All suspensions, those that ended too until somebody
    /// [removes](crate::administration::Administration::end_expired) them: customers first, then users, logins and clients,
    /// each by name.
    pub fn suspensions(&self) -> Vec<&Arc<Suspension>> {
        self.suspensions.all()
    }

    /// In place of an earlier one of the same target.
    pub fn suspend(&mut self, suspension: Suspension) {
        self.suspensions.insert(suspension);
    }

    pub fn resume(&mut self, target: &Target) {
        self.suspensions.remove(target);
    }

    pub fn has_grants(&self) -> bool {
        !self.grants.is_empty()
    }

    /// All grants, those that ended too until somebody [removes](crate::administration::Administration::end_expired)
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
}
