//! Messages that were counted lately, by their queue ID: whichever protocol reports the end of a message first counts it, and so
//! does one of several connections of a milter that is listed twice.

use super::correlation::Server;
use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Messages that are remembered: about 20 MB. The end over the second protocol follows that over the first within the time that
/// other milters take.
const MAX_MESSAGES: NonZeroUsize = NonZeroUsize::new(1 << 17).unwrap();

/// The messages, the one that was reported last first. The keys are hashes: a client has no influence on queue IDs.
#[derive(Debug)]
pub struct CountedMessages {
    messages: Mutex<LruCache<u64, Counted>>,
    hasher: RandomState,
}

/// A message at its end, as its MTA names it.
#[derive(Clone, Copy, Debug)]
pub struct MessageName<'a> {
    pub client: Option<IpAddr>,
    /// 0 is unknown.
    pub client_port: u16,
    pub server: Server,
    pub queue_id: &'a str,
}

/// Who reports the end of a message.
#[derive(Clone, Debug)]
pub enum Reporter {
    /// A transaction of the policy service: never twice the same message.
    Policy,
    /// A milter connection, as long as it is open.
    Milter(Weak<()>),
}

/// Whether a message still has to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountClaim {
    /// It is this one's to count.
    First,
    /// The other protocol has counted it.
    CountedByOtherProtocol,
    /// Another connection of the same milter has counted it.
    CountedByTwin,
}

#[derive(Debug)]
struct Counted {
    at: Instant,
    client_port: u16,
    server: Server,
    /// The first one counted it.
    reporters: SmallVec<[Reporter; 2]>,
}

impl Default for CountedMessages {
    fn default() -> CountedMessages {
        CountedMessages { messages: Mutex::new(LruCache::new(MAX_MESSAGES)), hasher: RandomState::new() }
    }
}

impl CountedMessages {
    /// Claims a message. Postfix uses short queue IDs again: one that was reported longer ago than `lifetime`, or by the same
    /// reporter, is another message.
    pub fn claim(&self, name: &MessageName, reporter: &Reporter, lifetime: Duration) -> CountClaim {
        let now = Instant::now();
        let mut messages = self.messages.lock();
        let key = self.key(name);
        if let Some(counted) = messages.get_mut(&key)
            && now.duration_since(counted.at) < lifetime
            && counted.is_same(name, reporter)
        {
            let claim = match (&counted.reporters[0], reporter) {
                (Reporter::Milter(_), Reporter::Milter(_)) => CountClaim::CountedByTwin,
                _ => CountClaim::CountedByOtherProtocol,
            };
            counted.reporters.push(reporter.clone());
            return claim;
        }
        let reporters = SmallVec::from_iter([reporter.clone()]);
        messages.put(key, Counted { at: now, client_port: name.client_port, server: name.server, reporters });
        CountClaim::First
    }

    /// Takes a claim back: the message was not counted after all.
    pub fn take_back(&self, name: &MessageName) {
        self.messages.lock().pop(&self.key(name));
    }

    fn key(&self, name: &MessageName) -> u64 {
        self.hasher.hash_one((name.client, name.queue_id))
    }
}

impl Counted {
    fn is_same(&self, name: &MessageName, reporter: &Reporter) -> bool {
        let ports = [self.client_port, name.client_port];
        self.server.agrees(&name.server)
            && (ports[0] == ports[1] || ports.contains(&0))
            && !self.reporters.iter().any(|reported| reported.is_same(reporter))
            && match (&self.reporters[0], reporter) {
                // An MTA keeps its connections to all its milters until the message has ended.
                (Reporter::Milter(counted_by), Reporter::Milter(_)) => counted_by.strong_count() > 0,
                _ => true,
            }
    }
}

impl Reporter {
    pub fn milter(connection: &Arc<()>) -> Reporter {
        Reporter::Milter(Arc::downgrade(connection))
    }

    /// Whether both are the same connection. The policy service reports each message once: two of its reports are two messages.
    fn is_same(&self, other: &Reporter) -> bool {
        match (self, other) {
            (Reporter::Policy, Reporter::Policy) => true,
            (Reporter::Milter(one), Reporter::Milter(other)) => one.ptr_eq(other),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(600);

    fn name(client_port: u16, server_port: &str) -> MessageName<'static> {
        let client = Some("192.0.2.7".parse().unwrap());
        MessageName { client, client_port, server: Server::parse("198.51.100.25", server_port), queue_id: "3F2A1C0" }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_both_protocols_report_counts_once_and_the_next_of_its_queue_id_again() {
        let counted = CountedMessages::default();
        let connection = Arc::new(());
        for _ in 0..3 {
            assert_eq!(counted.claim(&name(4711, "25"), &Reporter::Policy, LIFETIME), CountClaim::First);
            let claim = counted.claim(&name(4711, "25"), &Reporter::milter(&connection), LIFETIME);
            assert_eq!(claim, CountClaim::CountedByOtherProtocol);
        }
        // XCLIENT without a port.
        assert_eq!(counted.claim(&name(0, "25"), &Reporter::Policy, LIFETIME), CountClaim::First);
        let milter = Reporter::milter(&connection);
        assert_eq!(counted.claim(&name(0, "25"), &milter, LIFETIME), CountClaim::CountedByOtherProtocol);
        assert_eq!(counted.claim(&name(0, "25"), &milter, LIFETIME), CountClaim::First);
    }

    #[tokio::test(start_paused = true)]
    async fn another_session_another_service_or_long_after_is_another_message() {
        let connection = Arc::new(());
        for other in [name(4712, "25"), name(4711, "587")] {
            let counted = CountedMessages::default();
            assert_eq!(counted.claim(&name(4711, "25"), &Reporter::Policy, LIFETIME), CountClaim::First);
            assert_eq!(counted.claim(&other, &Reporter::milter(&connection), LIFETIME), CountClaim::First);
        }
        let counted = CountedMessages::default();
        assert_eq!(counted.claim(&name(4711, "25"), &Reporter::Policy, LIFETIME), CountClaim::First);
        tokio::time::advance(LIFETIME).await;
        assert_eq!(counted.claim(&name(4711, "25"), &Reporter::milter(&connection), LIFETIME), CountClaim::First);
    }

    #[test]
    fn a_milter_that_is_listed_twice_counts_once_while_both_connections_are_open() {
        let counted = CountedMessages::default();
        let (first, second) = (Arc::new(()), Arc::new(()));
        for _ in 0..2 {
            assert_eq!(counted.claim(&name(4711, "25"), &Reporter::milter(&first), LIFETIME), CountClaim::First);
            assert_eq!(
                counted.claim(&name(4711, "25"), &Reporter::milter(&second), LIFETIME),
                CountClaim::CountedByTwin
            );
        }
        drop(first);
        let third = Arc::new(());
        assert_eq!(counted.claim(&name(4711, "25"), &Reporter::milter(&third), LIFETIME), CountClaim::First);
    }

    #[test]
    fn what_was_not_counted_after_all_is_the_next_ones() {
        let counted = CountedMessages::default();
        assert_eq!(counted.claim(&name(4711, "25"), &Reporter::Policy, LIFETIME), CountClaim::First);
        counted.take_back(&name(4711, "25"));
        assert_eq!(counted.claim(&name(4711, "25"), &Reporter::milter(&Arc::new(())), LIFETIME), CountClaim::First);
    }
}
