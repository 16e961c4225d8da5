//! What each MTA asks about, in numbers: whether it asks at all, at which stages, and for whom. An MTA that is not set up well
//! shows here, and nowhere else: whose messages never end, or all of whose clients have one address.

use super::correlation::Server;
use crate::envelope::bounded;
use crate::listen::Peer;
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// MTAs that are remembered; of more the longest silent is forgotten. Addresses and ports come from the MTA, who can invent
/// any: they cost about 20 KB each.
const MAX_MTAS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Different client addresses and HELO names that are remembered of each MTA.
pub const MAX_DISTINCT: usize = 64;

/// All MTAs that ask, by who connects and by the address and port that the SMTP client connected to.
#[derive(Debug)]
pub struct MtaTraffic(Mutex<LruCache<MtaName, Arc<TrafficOfMta>>>);

/// Names an MTA's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MtaName {
    pub peer: Peer,
    pub server: Server,
}

/// One of them, since the start.
#[derive(Debug, Default)]
pub struct TrafficOfMta {
    milter_sessions: AtomicU64,
    milter_recipients: AtomicU64,
    milter_ends: AtomicU64,
    policy_sessions: AtomicU64,
    policy_recipients: AtomicU64,
    policy_ends: AtomicU64,
    given_up: AtomicU64,
    interleaved: AtomicU64,
    clients: Few<IpAddr>,
    helo_names: Few<Box<str>>,
}

/// What an MTA says that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtaSign {
    MilterSession,
    /// RCPT, of a recipient that was let through.
    MilterRecipient,
    MilterEnd,
    /// A session that the policy service was asked about and that no milter session is open for.
    PolicySession,
    /// RCPT, of a recipient that was let through.
    PolicyRecipient,
    PolicyEnd,
    /// A transaction whose recipients were reserved, and whose end nobody reported.
    GivenUp,
    /// One process ID has two sessions at once: two smtpd processes are taken for one.
    Interleaved,
}

/// The numbers of one MTA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtaNumbers {
    pub name: MtaName,
    pub milter_sessions: u64,
    pub milter_recipients: u64,
    pub milter_ends: u64,
    pub policy_sessions: u64,
    pub policy_recipients: u64,
    pub policy_ends: u64,
    pub given_up: u64,
    pub interleaved: u64,
    /// At most [`MAX_DISTINCT`].
    pub clients: Vec<IpAddr>,
    /// At most [`MAX_DISTINCT`].
    pub helo_names: Vec<Box<str>>,
}

/// A few different values.
#[derive(Debug)]
struct Few<T> {
    values: Mutex<HashSet<T>>,
    is_full: AtomicBool,
}

impl Default for MtaTraffic {
    fn default() -> MtaTraffic {
        MtaTraffic(Mutex::new(LruCache::new(MAX_MTAS)))
    }
}

impl MtaTraffic {
    /// The traffic of an MTA, to be counted in.
    pub fn of(&self, peer: Peer, server: Server) -> Arc<TrafficOfMta> {
        self.0.lock().get_or_insert(MtaName { peer, server }, Arc::default).clone()
    }

    /// The numbers of all, in the order of their names.
    pub fn numbers(&self) -> Vec<MtaNumbers> {
        let all: Vec<_> = self.0.lock().iter().map(|(name, traffic)| (*name, traffic.clone())).collect();
        let mut numbers: Vec<_> = all.into_iter().map(|(name, traffic)| traffic.numbers(name)).collect();
        numbers.sort_unstable_by_key(|numbers| numbers.name);
        numbers
    }
}

impl TrafficOfMta {
    pub fn count(&self, sign: MtaSign) {
        let counter = match sign {
            MtaSign::MilterSession => &self.milter_sessions,
            MtaSign::MilterRecipient => &self.milter_recipients,
            MtaSign::MilterEnd => &self.milter_ends,
            MtaSign::PolicySession => &self.policy_sessions,
            MtaSign::PolicyRecipient => &self.policy_recipients,
            MtaSign::PolicyEnd => &self.policy_ends,
            MtaSign::GivenUp => &self.given_up,
            MtaSign::Interleaved => &self.interleaved,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A client, and the name that it gave; empty: none.
    pub fn saw_client(&self, client: Option<IpAddr>, helo: &str) {
        if let Some(client) = client {
            self.clients.add(&client, IpAddr::clone);
        }
        if !helo.is_empty() {
            self.helo_names.add(helo, bounded);
        }
    }

    fn numbers(&self, name: MtaName) -> MtaNumbers {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MtaNumbers {
            name,
            milter_sessions: load(&self.milter_sessions),
            milter_recipients: load(&self.milter_recipients),
            milter_ends: load(&self.milter_ends),
            policy_sessions: load(&self.policy_sessions),
            policy_recipients: load(&self.policy_recipients),
            policy_ends: load(&self.policy_ends),
            given_up: load(&self.given_up),
            interleaved: load(&self.interleaved),
            clients: self.clients.values(),
            helo_names: self.helo_names.values(),
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few { values: Mutex::default(), is_full: AtomicBool::new(false) }
    }
}

impl<T: Hash + Eq + Clone + Ord> Few<T> {
    fn add<B: Hash + Eq + ?Sized>(&self, value: &B, own: impl FnOnce(&B) -> T)
    where
        T: std::borrow::Borrow<B>,
    {
        if self.is_full.load(Ordering::Relaxed) {
            return;
        }
        let mut values = self.values.lock();
        if values.len() < MAX_DISTINCT && !values.contains(value) {
            values.insert(own(value));
        }
        self.is_full.store(values.len() >= MAX_DISTINCT, Ordering::Relaxed);
    }

    fn values(&self) -> Vec<T> {
        let mut values: Vec<T> = self.values.lock().iter().cloned().collect();
        values.sort_unstable();
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_by_peer_and_server() {
        let traffic = MtaTraffic::default();
        let (smtp, submission) = (Server::parse("192.0.2.25", "25"), Server::parse("192.0.2.25", "587"));
        traffic.of(Peer::Local, smtp).count(MtaSign::PolicyRecipient);
        traffic.of(Peer::Local, smtp).count(MtaSign::PolicyEnd);
        let other = traffic.of(Peer::Local, submission);
        other.count(MtaSign::MilterSession);
        other.saw_client(Some(IpAddr::from([172, 17, 0, 1])), "mail.acme.example");
        other.saw_client(Some(IpAddr::from([172, 17, 0, 1])), "");
        let numbers = traffic.numbers();
        assert_eq!(numbers.iter().map(|mta| mta.name.server).collect::<Vec<_>>(), [smtp, submission]);
        assert_eq!((numbers[0].policy_recipients, numbers[0].policy_ends, numbers[0].milter_sessions), (1, 1, 0));
        assert_eq!(numbers[1].clients, [IpAddr::from([172, 17, 0, 1])]);
        assert_eq!(numbers[1].helo_names, [Box::<str>::from("mail.acme.example")]);
    }

    #[test]
    fn invented_mtas_clients_and_names_take_bounded_memory() {
        let traffic = MtaTraffic::default();
        for port in 1..=2_000 {
            let mta = traffic.of(Peer::Local, Server { address: None, port: Some(port) });
            mta.count(MtaSign::MilterSession);
        }
        let last = traffic.of(Peer::Local, Server { address: None, port: Some(2_000) });
        for n in 0..1_000_u32 {
            last.saw_client(Some(IpAddr::from(n.to_be_bytes())), &format!("h{n}.{}", "x".repeat(100_000)));
        }
        let numbers = traffic.numbers();
        assert_eq!(numbers.len(), MAX_MTAS.get());
        let last = numbers.last().unwrap();
        assert_eq!((last.clients.len(), last.helo_names.len(), last.milter_sessions), (MAX_DISTINCT, MAX_DISTINCT, 1));
        assert!(last.helo_names.iter().all(|name| name.len() < 600));
    }
}
