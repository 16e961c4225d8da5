//! Which SMTP sessions have a milter session open. A message that passes both protocols is one message: (client address,
//! client port, server address) name the SMTP session in both, and the milter's end of message decides.

use crate::ledger::ReservationId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names an SMTP session. The server address may be unknown to the milter; then client address and port decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SmtpSession {
    pub client: IpAddr,
    /// Never 0: where the MTA does not know the port, nothing can be told apart.
    pub port: u16,
    pub server: Option<IpAddr>,
}

impl SmtpSession {
    pub fn new(client: Option<IpAddr>, port: u16, server: Option<IpAddr>) -> Option<SmtpSession> {
        if port == 0 { None } else { Some(SmtpSession { client: client?, port, server }) }
    }

    fn is(&self, other: &SmtpSession) -> bool {
        self.server.is_none() || other.server.is_none() || self.server == other.server
    }
}

/// All milter sessions that are open now.
#[derive(Debug, Default)]
pub struct OpenSessions(Arc<Mutex<Table>>);

type Table = HashMap<(IpAddr, u16), SmallVec<[(SmtpSession, Arc<AtomicU64>); 1]>>;

/// Keeps a milter session in the table; dropping it takes it out.
#[derive(Debug)]
pub struct OpenSession {
    session: SmtpSession,
    reservation: Arc<AtomicU64>,
    table: Arc<Mutex<Table>>,
}

impl OpenSessions {
    pub fn open(&self, session: SmtpSession) -> OpenSession {
        let reservation = Arc::new(AtomicU64::new(0));
        let key = (session.client, session.port);
        self.0.lock().entry(key).or_default().push((session, reservation.clone()));
        OpenSession { session, reservation, table: self.0.clone() }
    }

    /// Whether a milter session is open for `session`, and what its transaction has reserved, if there is one.
    pub fn find(&self, session: &SmtpSession) -> Option<Option<ReservationId>> {
        let table = self.0.lock();
        let sessions = table.get(&(session.client, session.port))?;
        let (_, reservation) = sessions.iter().find(|(open, _)| open.is(session))?;
        Some(match reservation.load(Ordering::Acquire) {
            0 => None,
            id => Some(ReservationId(id)),
        })
    }

    pub fn len(&self) -> usize {
        self.0.lock().values().map(SmallVec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl OpenSession {
    /// Tells which reservation the session's transaction holds now.
    pub fn holds(&self, reservation: Option<ReservationId>) {
        self.reservation.store(reservation.map_or(0, |id| id.0), Ordering::Release);
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let key = (self.session.client, self.session.port);
        if let Some(sessions) = table.get_mut(&key) {
            sessions.retain(|(_, reservation)| !Arc::ptr_eq(reservation, &self.reservation));
            if sessions.is_empty() {
                table.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(server: Option<&str>) -> SmtpSession {
        let server = server.map(|server| server.parse().unwrap());
        SmtpSession::new(Some("192.0.2.7".parse().unwrap()), 4711, server).unwrap()
    }

    #[test]
    fn a_session_is_found_by_client_port_and_server() {
        let sessions = OpenSessions::default();
        assert_eq!(sessions.find(&session(None)), None);
        let open = sessions.open(session(Some("198.51.100.25")));
        assert_eq!(sessions.find(&session(Some("198.51.100.25"))), Some(None));
        assert_eq!(sessions.find(&session(None)), Some(None));
        assert_eq!(sessions.find(&session(Some("198.51.100.26"))), None);
        open.holds(Some(ReservationId(9)));
        assert_eq!(sessions.find(&session(None)), Some(Some(ReservationId(9))));
        drop(open);
        assert_eq!(sessions.find(&session(None)), None);
        assert!(sessions.is_empty());
    }

    #[test]
    fn port_0_never_correlates() {
        assert_eq!(SmtpSession::new(Some("127.0.0.1".parse().unwrap()), 0, None), None);
        assert_eq!(SmtpSession::new(None, 25, None), None);
    }
}
