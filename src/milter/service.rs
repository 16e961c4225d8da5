//! Answers milter connections.

use super::command::Command;
use super::conversation::{Conversation, Via};
use super::error::MilterError;
use super::frames;
use super::negotiation::Needs;
use crate::listen::{Bounds, FaultLog, Frame, Next, Origin, Peer, Protocol, Service, Shares, serve_stream};
use crate::session::Engine;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The milter service, whatever socket it is on.
pub struct MilterService {
    engine: Arc<Engine>,
    policy_too: bool,
    faults: FaultLog,
}

impl MilterService {
    /// `policy_too`: a policy service may get requests about the same SMTP sessions. CONNECT is then answered, so that the
    /// session is known before any policy request about it can arrive.
    pub fn new(engine: Arc<Engine>, policy_too: bool) -> Arc<MilterService> {
        let faults = FaultLog::new("milter", &engine.log);
        Arc::new(MilterService { engine, policy_too, faults })
    }

    /// Serves one connection until QUIT, or its end.
    pub async fn serve_connection(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        origin: impl Into<Origin>,
    ) {
        let origin = origin.into();
        serve_stream(stream, origin, self.open(origin, &Arc::from("")), &self.faults).await;
    }

    fn needs(&self) -> Needs {
        let snapshot = self.engine.snapshot();
        let settings = &snapshot.settings;
        let remove_headers = settings.abuse.as_ref().is_some_and(|abuse| abuse.verdict_headers.secret().is_some());
        let body = snapshot.directory.limits_sizes();
        let headers = body || settings.needs_headers();
        Needs { connect_answered: self.policy_too, headers, body, remove_headers }
    }
}

impl Service for MilterService {
    type Connection = Conversation;

    /// Postfix and Sendmail have one milter connection for each SMTP session; Postfix runs 100 smtpd processes by default. A body chunk has 64 KiB: more than 500 of them may be on their way at once from one MTA.
    const SHARES: Shares = Shares::of(4_096, 64 * 1024 * 1024);

    fn open(self: &Arc<Self>, origin: Origin, listener: &Arc<str>) -> Conversation {
        Conversation::new(self.engine.clone(), self.needs(), Via { peer: origin.peer, listener: listener.clone() })
    }

    fn admits(&self, peer: Peer) -> bool {
        self.engine.snapshot().settings.listen.admits_mta(peer)
    }

    fn faults(&self) -> &FaultLog {
        &self.faults
    }
}

impl Protocol for Conversation {
    type Error = MilterError;

    const BOUNDS: Bounds = Bounds {
        // For the negotiation, too, from when the MTA has connected.
        request_timeout: Duration::from_secs(30),
        response_timeout: Duration::from_secs(30),
        // libmilter's own is 7,210 s.
        idle_timeout: Duration::from_secs(7_200),
        idle_buffer: 4 * 1024,
        gather_responses: false,
        one_write_per_request: false,
        secret_responses: false,
    };

    fn frame(input: &[u8], _: usize) -> Result<Frame, MilterError> {
        frames::frame(input)
    }

    async fn respond(&mut self, packet: &[u8], output: &mut Vec<u8>) -> Result<Next, MilterError> {
        self.handle(Command::parse(packet)?, output).await
    }

    fn is_busy(&self) -> bool {
        self.has_message_under_way()
    }

    /// The negotiation comes first.
    fn awaits_request(&self) -> bool {
        !self.has_begun()
    }

    /// A message with an accepted recipient. Without one, the MTA defers what its client sends next.
    fn holds_something(&self) -> bool {
        self.has_message_under_way()
    }
}
