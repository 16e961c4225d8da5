//! Answers look-ups.

use super::maps::{Lookup, PasswordFile, look_up};
use super::netstring::{self, BadRequest};
use super::reply::LookupReply;
use crate::listen::{Bounds, FaultLog, Frame, Next, Origin, Peer, Protocol, Service, Shares, serve_stream};
use crate::report::{OncePer, and_more};
use crate::session::Engine;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The socketmap server, whatever socket it is on.
pub struct SocketmapService {
    engine: Arc<Engine>,
    faults: FaultLog,
    unreadable: OncePer<Box<str>>,
}

/// A connection of one of Postfix's processes. Malformed requests get no reply; the connection is closed.
pub struct SocketmapConnection {
    service: Arc<SocketmapService>,
    /// Passwords go to processes of this machine only.
    may_log_in: bool,
}

impl SocketmapService {
    pub fn new(engine: Arc<Engine>) -> Arc<SocketmapService> {
        Arc::new(SocketmapService {
            faults: FaultLog::new("socketmap", &engine.log),
            unreadable: OncePer::new(Duration::from_secs(60), 1_024),
            engine,
        })
    }

    /// Serves one connection until it is closed.
    pub async fn serve_connection(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        origin: impl Into<Origin>,
    ) {
        let origin = origin.into();
        serve_stream(stream, origin, self.open(origin, &Arc::from("")), &self.faults).await;
    }

    async fn login(&self, login: PasswordFile) -> LookupReply {
        // A disk that hangs delays nobody else.
        let sender = login.sender.clone();
        let problem = match tokio::task::spawn_blocking(move || login.read()).await {
            Ok(Ok(reply)) => return reply,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "internal error".to_owned(),
        };
        if let Some(suppressed) = self.unreadable.check(sender.clone(), std::time::Instant::now()) {
            let (log, more) = (&self.engine.log, and_more(suppressed));
            log.warn(format_args!("the password_file of the sender {sender} cannot be used: {problem}{more}"));
        }
        LookupReply::Temporary("the password file cannot be used; see relaykeeper's log".into())
    }
}

impl Service for SocketmapService {
    type Connection = SocketmapConnection;

    /// Each of Postfix's processes that routes or delivers has one for each table.
    const SHARES: Shares = Shares::of(4_096, 16 * 1024 * 1024);

    fn open(self: &Arc<Self>, origin: Origin, _: &Arc<str>) -> SocketmapConnection {
        SocketmapConnection { service: self.clone(), may_log_in: origin.peer == Peer::Local }
    }

    fn admits(&self, peer: Peer) -> bool {
        let listen = &self.engine.snapshot().settings.listen;
        listen.allow.is_empty() || listen.admits_mta(peer)
    }

    fn faults(&self) -> &FaultLog {
        &self.faults
    }
}

impl Protocol for SocketmapConnection {
    type Error = BadRequest;

    const BOUNDS: Bounds = Bounds {
        request_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(10),
        // Postfix closes a connection after 10 s idle, and at the latest after 100 s (dict_socketmap.c).
        idle_timeout: Duration::from_secs(300),
        idle_buffer: 512,
        gather_responses: false,
        one_write_per_request: true,
        secret_responses: true,
    };

    fn frame(input: &[u8], _: usize) -> Result<Frame, BadRequest> {
        netstring::frame(input)
    }

    async fn respond(&mut self, request: &[u8], output: &mut Vec<u8>) -> Result<Next, BadRequest> {
        let request = std::str::from_utf8(request).map_err(|_| BadRequest::NotUtf8)?;
        let (map, key) = request.split_once(' ').ok_or(BadRequest::NoKey)?;
        let lookup = look_up(map, key, &self.service.engine.snapshot(), self.may_log_in);
        let reply = match lookup {
            Lookup::Reply(reply) => reply,
            Lookup::PasswordFile(login) => self.service.login(login).await,
        };
        reply.write(output);
        Ok(Next::Continue)
    }
}
