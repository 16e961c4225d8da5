//! Which SMTP sessions have a milter session open. A message that passes both protocols is one message: client address, client
//! port, server address and server port name the SMTP session in both, and the milter's end of message decides.

use crate::ledger::ReservationId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names an SMTP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SmtpSession {
    pub client: IpAddr,
    /// Never 0: where the MTA does not know the port, sessions cannot be told apart.
    pub port: u16,
    pub server: Server,
}

/// The address and port that a client connected to. Postfix before 3.2 names neither: then they agree with any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
}

impl Server {
    /// As the MTA spells them; empty is unknown.
    pub fn parse(address: &str, port: &str) -> Server {
        let port = port.parse().ok().filter(|&port| port != 0);
        Server { address: crate::envelope::parse_client(address), port }
    }

    /// Whether both may be the same.
    pub fn agrees(&self, other: &Server) -> bool {
        fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        agree(self.address, other.address) && agree(self.port, other.port)
    }
}

impl SmtpSession {
    pub fn new(client: Option<IpAddr>, port: u16, server: Server) -> Option<SmtpSession> {
        if port == 0 { None } else { Some(SmtpSession { client: client?, port, server }) }
    }
}

/// All milter sessions that are open now.
#[derive(Debug, Default)]
pub struct OpenSessions(Arc<Mutex<Table>>);

type Table = HashMap<(IpAddr, u16), SmallVec<[Arc<Entry>; 1]>>;

#[derive(Debug)]
struct Entry {
    session: SmtpSession,
    /// The reservation of the open transaction; 0: none is open.
    reservation: AtomicU64,
    /// The last reservation that the policy service counted in the milter's place; 0: none.
    counted: AtomicU64,
}

/// Keeps a milter session in the table; dropping it takes it out.
#[derive(Debug)]
pub struct OpenSession {
    entry: Arc<Entry>,
    table: Arc<Mutex<Table>>,
}

/// A milter session that is open for an SMTP session, as it was found.
#[derive(Clone, Debug)]
pub struct MilterView(Arc<Entry>, Option<ReservationId>);

impl OpenSessions {
    pub fn open(&self, session: SmtpSession) -> OpenSession {
        let entry = Arc::new(Entry { session, reservation: AtomicU64::new(0), counted: AtomicU64::new(0) });
        self.0.lock().entry((session.client, session.port)).or_default().push(entry.clone());
        OpenSession { entry, table: self.0.clone() }
    }

    /// The milter session that is open for `session`; of several the first that is in a transaction.
    pub fn find(&self, session: &SmtpSession) -> Option<MilterView> {
        find(&self.0.lock(), session, |_| true)
    }

    pub fn len(&self) -> usize {
        self.0.lock().values().map(SmallVec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

fn find(table: &Table, session: &SmtpSession, wanted: impl Fn(&Arc<Entry>) -> bool) -> Option<MilterView> {
    let entries = table.get(&(session.client, session.port))?;
    let agreeing = entries.iter().filter(|entry| entry.session.server.agrees(&session.server) && wanted(entry));
    let mut first = None;
    for entry in agreeing {
        let view = MilterView(entry.clone(), some(entry.reservation.load(Ordering::Acquire)));
        if view.1.is_some() {
            return Some(view);
        }
        first.get_or_insert(view);
    }
    first
}

fn some(id: u64) -> Option<ReservationId> {
    (id != 0).then_some(ReservationId(id))
}

impl MilterView {
    /// The reservation of its transaction; `None` where it is in none.
    pub fn reservation(&self) -> Option<ReservationId> {
        self.1
    }

    /// The policy service has counted the milter's transaction: it releases nothing when it is given up.
    pub fn counted_by_policy(&self) {
        self.0.counted.store(self.1.map_or(0, |id| id.0), Ordering::Release);
    }
}

impl OpenSession {
    /// Says which reservation the session's transaction holds now.
    pub fn holds(&self, reservation: Option<ReservationId>) {
        self.entry.reservation.store(reservation.map_or(0, |id| id.0), Ordering::Release);
    }

    /// Whether the policy service has counted this transaction.
    pub fn is_counted_by_policy(&self, reservation: ReservationId) -> bool {
        self.entry.counted.load(Ordering::Acquire) == reservation.0
    }

    /// The reservation of another milter connection that the MTA opened earlier for the same SMTP session, and that is in a
    /// transaction: relaykeeper is listed twice among its milters.
    pub fn earlier_twin(&self) -> Option<ReservationId> {
        let table = self.table.lock();
        let entries = table.get(&(self.entry.session.client, self.entry.session.port))?;
        if entries.len() < 2 {
            return None;
        }
        // Where a server is unknown, several SMTP sessions may look alike.
        let server = self.entry.session.server;
        if server.address.is_none() || server.port.is_none() {
            return None;
        }
        let earlier = entries.iter().take_while(|entry| !Arc::ptr_eq(entry, &self.entry));
        earlier
            .filter(|entry| entry.session.server == server)
            .find_map(|entry| some(entry.reservation.load(Ordering::Acquire)))
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let key = (self.entry.session.client, self.entry.session.port);
        if let Some(entries) = table.get_mut(&key) {
            entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
            if entries.is_empty() {
                table.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(server: &str, port: &str) -> SmtpSession {
        SmtpSession::new(Some("192.0.2.7".parse().unwrap()), 4711, Server::parse(server, port)).unwrap()
    }

    fn found(sessions: &OpenSessions, server: &str, port: &str) -> Option<Option<ReservationId>> {
        sessions.find(&session(server, port)).map(|view| view.reservation())
    }

    #[test]
    fn a_session_is_found_by_client_server_and_their_ports() {
        let sessions = OpenSessions::default();
        assert_eq!(found(&sessions, "", ""), None);
        let open = sessions.open(session("198.51.100.25", "25"));
        assert_eq!(found(&sessions, "198.51.100.25", "25"), Some(None));
        assert_eq!(found(&sessions, "", ""), Some(None));
        assert_eq!(found(&sessions, "198.51.100.25", ""), Some(None));
        assert_eq!(found(&sessions, "198.51.100.26", "25"), None);
        assert_eq!(found(&sessions, "198.51.100.25", "587"), None);
        open.holds(Some(ReservationId(9)));
        assert_eq!(found(&sessions, "", ""), Some(Some(ReservationId(9))));
        drop(open);
        assert_eq!(found(&sessions, "", ""), None);
        assert!(sessions.is_empty());
    }

    #[test]
    fn port_0_never_correlates() {
        assert_eq!(SmtpSession::new(Some("127.0.0.1".parse().unwrap()), 0, Server::default()), None);
        assert_eq!(SmtpSession::new(None, 25, Server::default()), None);
    }

    #[test]
    fn a_second_connection_for_one_session_finds_the_first_while_that_is_in_a_transaction() {
        let sessions = OpenSessions::default();
        let first = sessions.open(session("198.51.100.25", "25"));
        let second = sessions.open(session("198.51.100.25", "25"));
        let elsewhere = sessions.open(session("198.51.100.25", "587"));
        assert_eq!(second.earlier_twin(), None);
        first.holds(Some(ReservationId(9)));
        second.holds(Some(ReservationId(10)));
        assert_eq!(second.earlier_twin(), Some(ReservationId(9)));
        assert_eq!((first.earlier_twin(), elsewhere.earlier_twin()), (None, None));
        drop(first);
        assert_eq!(second.earlier_twin(), None);
    }

    #[test]
    fn what_the_policy_service_counted_is_known_to_the_milter_for_that_transaction_alone() {
        let sessions = OpenSessions::default();
        let open = sessions.open(session("198.51.100.25", "25"));
        open.holds(Some(ReservationId(9)));
        sessions.find(&session("198.51.100.25", "25")).unwrap().counted_by_policy();
        assert!(open.is_counted_by_policy(ReservationId(9)) && !open.is_counted_by_policy(ReservationId(10)));
    }
}
