//! Suspensions: nothing of a customer, user, login or client is relayed.

use crate::directory::{Subject, SubjectKind};
use hashbrown::HashMap;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;

/// Who or what is suspended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    pub kind: TargetKind,
    /// Whose it is; empty for a client, and for a login that belongs to no customer.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub customer: Arc<str>,
    /// The customer's name, the user's address, the login in canonical form, or the client's IP address or range.
    pub name: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    Customer,
    User,
    Login,
    Client,
}

/// Nothing of its target is relayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    #[serde(flatten)]
    pub target: Target,
    /// The operator's own words, which replies contain.
    pub why: Arc<str>,
    /// Who ordered it.
    pub by: Arc<str>,
    pub since: Timestamp,
    /// When it ends by itself; `None`: it must be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl TargetKind {
    /// As in the command line, JSON and logs.
    pub const fn key(self) -> &'static str {
        match self {
            TargetKind::Customer => "customer",
            TargetKind::User => "user",
            TargetKind::Login => "login",
            TargetKind::Client => "client",
        }
    }
}

impl From<Subject> for Target {
    fn from(subject: Subject) -> Target {
        let kind = match subject.kind {
            SubjectKind::Customer => TargetKind::Customer,
            SubjectKind::User => TargetKind::User,
            SubjectKind::Login => TargetKind::Login,
        };
        Target { kind, customer: subject.customer, name: subject.name }
    }
}

impl Target {
    /// A client's address or range; without the bits of the host.
    pub fn client(net: IpNet) -> Target {
        let net = net.trunc();
        let is_single = net.prefix_len() == net.max_prefix_len();
        let name = if is_single { net.addr().to_string() } else { net.to_string() };
        Target { kind: TargetKind::Client, customer: "".into(), name: name.into() }
    }

    /// The addresses of a client.
    fn net(&self) -> Option<IpNet> {
        let address = self.name.parse::<IpAddr>().ok();
        address.map(IpNet::from).or_else(|| self.name.parse().ok()).map(|net| net.trunc())
    }
}

impl Suspension {
    /// Whether it still stands.
    pub fn stands(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

type ByName = HashMap<Arc<str>, Arc<Suspension>>;

/// All suspensions, also those that ended but were not removed yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Suspensions {
    /// By name.
    customers: ByName,
    /// By address: an installation has no address twice.
    users: ByName,
    /// By login in canonical form.
    logins: ByName,
    clients: HashMap<IpNet, Arc<Suspension>>,
    /// Of all clients' ranges, the longest first.
    prefix_lengths: SmallVec<[u8; 4]>,
}

impl Suspensions {
    pub fn len(&self) -> usize {
        self.customers.len() + self.users.len() + self.logins.len() + self.clients.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    pub fn has_logins(&self) -> bool {
        !self.logins.is_empty()
    }

    pub fn find(&self, kind: TargetKind, name: &str, now: Timestamp) -> Option<&Arc<Suspension>> {
        let found = match kind {
            TargetKind::Customer => self.customers.get(name),
            TargetKind::User => self.users.get(name),
            TargetKind::Login => self.logins.get(name),
            TargetKind::Client => self.clients.get(&Target { kind, customer: "".into(), name: name.into() }.net()?),
        };
        found.filter(|suspension| suspension.stands(now))
    }

    /// The suspension of the smallest range that contains the address.
    pub fn of_address(&self, address: IpAddr, now: Timestamp) -> Option<&Arc<Suspension>> {
        let ranges = self.prefix_lengths.iter().filter_map(|&length| IpNet::new(address, length).ok());
        let mut found = ranges.filter_map(|range| self.clients.get(&range.trunc()));
        found.find(|suspension| suspension.stands(now))
    }

    /// Customers first, then users, logins and clients, each by name.
    pub fn all(&self) -> Vec<&Arc<Suspension>> {
        let by_name = [&self.customers, &self.users, &self.logins].into_iter().flat_map(HashMap::values);
        let mut all: Vec<_> = by_name.chain(self.clients.values()).collect();
        let key = |suspension: &Suspension| (suspension.target.kind, suspension.target.name.clone());
        all.sort_by_cached_key(|suspension| key(suspension));
        all
    }

    /// In place of an earlier one of the same target.
    pub fn insert(&mut self, suspension: Suspension) {
        match self.by_name(suspension.target.kind) {
            Some(by_name) => {
                by_name.insert(suspension.target.name.clone(), Arc::new(suspension));
            }
            None => {
                if let Some(net) = suspension.target.net() {
                    self.clients.insert(net, Arc::new(suspension));
                    self.note_prefix_lengths();
                }
            }
        }
    }

    pub fn remove(&mut self, target: &Target) {
        match self.by_name(target.kind) {
            Some(by_name) => {
                by_name.remove(&target.name);
            }
            None => {
                if let Some(net) = target.net() {
                    self.clients.remove(&net);
                    self.note_prefix_lengths();
                }
            }
        }
    }

    fn by_name(&mut self, kind: TargetKind) -> Option<&mut ByName> {
        match kind {
            TargetKind::Customer => Some(&mut self.customers),
            TargetKind::User => Some(&mut self.users),
            TargetKind::Login => Some(&mut self.logins),
            TargetKind::Client => None,
        }
    }

    fn note_prefix_lengths(&mut self) {
        let mut lengths: SmallVec<[u8; 4]> = self.clients.keys().map(IpNet::prefix_len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        self.prefix_lengths = lengths;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn suspend(suspensions: &mut Suspensions, net: &str, until: Option<i64>) {
        let target = Target::client(net.parse().unwrap());
        let (why, by) = (net.into(), "root".into());
        suspensions.insert(Suspension { target, why, by, since: time(0), until: until.map(time) });
    }

    #[test]
    fn the_smallest_range_that_stands_is_found() {
        let mut suspensions = Suspensions::default();
        suspend(&mut suspensions, "192.0.2.0/24", None);
        suspend(&mut suspensions, "192.0.2.7/32", Some(10));
        suspend(&mut suspensions, "2001:db8::ffff/32", None);
        let find = |suspensions: &Suspensions, address: &str, at: i64| {
            suspensions.of_address(address.parse().unwrap(), time(at)).map(|found| found.target.name.to_string())
        };
        assert_eq!(find(&suspensions, "192.0.2.7", 9).as_deref(), Some("192.0.2.7"));
        assert_eq!(find(&suspensions, "192.0.2.7", 10).as_deref(), Some("192.0.2.0/24"), "the other one has ended");
        assert_eq!(find(&suspensions, "192.0.3.7", 0), None);
        assert_eq!(find(&suspensions, "2001:db8:1::1", 0).as_deref(), Some("2001:db8::/32"));
        suspensions.remove(&Target::client("192.0.2.99/24".parse().unwrap()));
        assert_eq!(find(&suspensions, "192.0.2.8", 0), None);
        assert_eq!(
            suspensions.all().iter().map(|one| &*one.target.name).collect::<Vec<_>>(),
            ["192.0.2.7", "2001:db8::/32"]
        );
    }

    #[test]
    fn suspensions_of_version_0_1_0_are_read() {
        let old = r#"{"kind":"user","customer":"acme","name":"ann@acme.example","why":"spam","by":"root","since":"2026-11-21T14:32:00Z"}"#;
        let read: Suspension = serde_json::from_str(old).unwrap();
        assert_eq!((read.target.kind, &*read.target.name, read.until), (TargetKind::User, "ann@acme.example", None));
        assert_eq!(serde_json::to_string(&read).unwrap(), old, "and written as they were");
    }
}
