//! Recent SMTP sessions. A session counts once as a connection of its client, however often
//! Postfix asks about it: at CONNECT, HELO and MAIL, or with `smtpd_delay_reject` at each RCPT of each message.

use super::request::Request;
use crate::envelope::{Reply, bounded};
use crate::listen::Origin;
use crate::policy::MtaProtocol;
use crate::session::{Connection, Engine, Server, SmtpSession};
use lru::LruCache;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Sessions that are remembered: about 8 MB. One that is forgotten and asked about again counts once more.
const MAX_SESSIONS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// A session without a request for this long is over: Postfix's `smtpd_timeout` is 300 s by default.
const SILENCE: Duration = Duration::from_secs(900);

/// The sessions, the one with the last request first.
pub(super) struct Connections(Mutex<LruCache<Name, Session>>);

/// Client address and port, server address and port; where Postfix knows no port (before 3.0, some proxies) the smtpd process, which
/// has one session at a time: that of the peer, as there may be several with one process ID.
type Name = (IpAddr, u16, Server, Option<(Origin, Box<str>)>);

struct Session {
    connection: Connection,
    /// The transaction of the last request; empty before the first one.
    instance: Box<str>,
    stage: Stage,
    touched: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Connect,
    Helo,
    Mail,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections(Mutex::new(LruCache::new(MAX_SESSIONS)))
    }
}

impl Connections {
    /// The reply to the client, if its session is one too many.
    pub fn judge(
        &self,
        request: &Request,
        origin: Origin,
        session: Option<SmtpSession>,
        engine: &Arc<Engine>,
    ) -> Option<Reply> {
        if !engine.snapshot().settings.connection.limit_anything() {
            return None;
        }
        let stage = match request.protocol_state {
            "CONNECT" => Stage::Connect,
            "HELO" | "EHLO" => Stage::Helo,
            "MAIL" | "RCPT" => Stage::Mail,
            _ => return None,
        };
        let client = request.client?;
        let name = match session {
            Some(session) => (client, session.port, session.server, None),
            // Before MAIL nothing distinguishes sessions, and each request would count again.
            None if request.instance.is_empty() => return None,
            None => (client, 0, Server::default(), Some((origin, bounded(request.smtpd())))),
        };
        let now = Instant::now();
        let mut sessions = self.0.lock();
        let begin = || {
            let connection = Connection::begin(engine, MtaProtocol::Policy, Some(client), false);
            Session { connection, instance: Box::default(), stage, touched: now }
        };
        let session = sessions.get_or_insert_mut(name, begin);
        if session.is_over(request, stage, now) {
            *session = begin();
        }
        session.touched = now;
        session.stage = session.stage.max(stage);
        if *session.instance != *request.instance {
            session.instance = bounded(request.instance);
        }
        let helo = (stage > Stage::Connect).then_some(request.helo_name);
        session.connection.judge(helo).cloned()
    }
}

impl Session {
    /// Whether the request is about another session of the same name: a client may use a port again at once.
    fn is_over(&self, request: &Request, stage: Stage, now: Instant) -> bool {
        let begins_anew = stage == Stage::Connect && self.stage > Stage::Connect;
        let is_first_of_another = !self.instance.is_empty()
            && !request.instance.is_empty()
            && *self.instance != *request.instance
            && request.is_first_of_session();
        begins_anew || is_first_of_another || now.duration_since(self.touched) > SILENCE
    }
}
