//! Answers policy requests.

use super::action::Action;
use super::connections::Connections;
use super::instances::{Instances, answered_before};
use super::request::{BadRequest, MAX_INSTANCE, MAX_REQUEST, Request, known};
use super::smtpds::{Caller, SharedSlot, Slot, State};
use crate::envelope::Envelope;
use crate::ledger::ReservationId;
use crate::listen::{Bounds, FaultLog, Frame, Next, Origin, Protocol, Service, Shares, serve_stream};
use crate::policy::{CountedBy, FrontEnd, ReportedRecipients};
use crate::session::{Engine, Transaction};
use crate::size::MessageSize;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// How often silent instances are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// The policy service, whatever socket it is on.
pub struct PolicyService {
    engine: Arc<Engine>,
    instances: Instances,
    connections: Connections,
    faults: FaultLog,
}

/// A connection of an smtpd process. On errors there is no response, and it is closed (SMTPD_POLICY_README).
pub struct PolicyConnection {
    service: Arc<PolicyService>,
    caller: Caller,
}

impl Service for PolicyService {
    type Connection = PolicyConnection;

    /// Each smtpd has one for each check_policy_service; Postfix runs 100 smtpd processes by default.
    /// Requests of the usual length need no bytes beyond those of an idle connection.
    const SHARES: Shares = Shares::of(4_096, 16 * 1024 * 1024);

    fn open(self: &Arc<Self>, origin: Origin) -> PolicyConnection {
        PolicyConnection { service: self.clone(), caller: Caller { origin, connection: Arc::default() } }
    }

    fn faults(&self) -> &FaultLog {
        &self.faults
    }
}

impl Protocol for PolicyConnection {
    type Error = BadRequest;

    const BOUNDS: Bounds = Bounds {
        request_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(10),
        // Postfix closes a connection after 300 s idle or 1,000 s (`smtpd_policy_service_max_idle`, `…_max_ttl`).
        idle_timeout: Duration::from_secs(1_200),
        idle_buffer: 2 * 1024,
        gather_responses: true,
        one_write_per_request: true,
        secret_responses: false,
    };

    /// An empty line ends a request.
    fn frame(input: &[u8], searched: usize) -> Result<Frame, BadRequest> {
        let from = searched.saturating_sub(1);
        let end = memchr::memmem::find(&input[from..], b"\n\n").map(|at| from + at);
        match end {
            Some(end) if end <= MAX_REQUEST => Ok(Frame::Complete { content: 0..end, length: end + 2 }),
            None if input.len() < MAX_REQUEST => Ok(Frame::Partial { missing: input.len() }),
            _ => Err(BadRequest::TooLong),
        }
    }

    async fn respond(&mut self, request: &[u8], output: &mut Vec<u8>) -> Result<Next, BadRequest> {
        let text = as_text(request);
        self.service.answer(&Request::parse(&text)?, &self.caller).await?.write(output);
        Ok(Next::Continue)
    }
}

impl PolicyService {
    pub fn new(engine: Arc<Engine>) -> Arc<PolicyService> {
        Arc::new(PolicyService {
            instances: Instances::new(engine.clone()),
            connections: Connections::default(),
            faults: FaultLog::new("policy", &engine.log),
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
        serve_stream(stream, origin, self.open(origin), &self.faults).await;
    }

    /// Ends instances that have been silent for too long, for as long as the daemon runs.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let timeout = self.engine.snapshot().settings.relay.reservation_timeout;
            self.instances.sweep(timeout).await;
        }
    }

    /// At the end of the daemon: ends what no END-OF-MESSAGE will end.
    pub async fn finish(&self) {
        self.instances.finish_all().await;
    }

    async fn answer(&self, request: &Request<'_>, caller: &Caller) -> Result<Action, BadRequest> {
        let session = request.session();
        let milter = session.and_then(|session| self.engine.sessions.find(&session));
        // What the milter sees of a session is judged there.
        if milter.is_none()
            && let Some(reply) = self.connections.judge(request, caller.origin, session, &self.engine)
        {
            return Ok(Action::Refuse(reply));
        }
        match request.protocol_state {
            "RCPT" => self.at_recipient(request, caller, milter).await,
            "MAIL" if milter.is_none() => Ok(self.at_mail(request)),
            "END-OF-MESSAGE" => self.at_end(request, caller, milter.is_some()).await,
            _ => Ok(Action::Dunno),
        }
    }

    /// Asked only where Postfix does not wait for RCPT (`smtpd_delay_reject = no`).
    fn at_mail(&self, request: &Request<'_>) -> Action {
        let transaction = self.begin(request, false);
        transaction.mail(known(request.queue_id)).map_or(Action::Dunno, Action::Refuse)
    }

    /// `milter`: a milter session counts it, and has reserved this.
    async fn at_recipient(
        &self,
        request: &Request<'_>,
        caller: &Caller,
        milter: Option<Option<ReservationId>>,
    ) -> Result<Action, BadRequest> {
        let relay_context = request.policy_context == "relay";
        let slot = self.slot(request, caller).await?;
        let mut slot = slot.lock().await;
        let transaction = self.transaction(&mut slot, request, caller, milter.is_some()).await;
        let queue_id = known(request.queue_id);
        let counted_by = milter.map_or(CountedBy::Itself, CountedBy::Milter);
        let decision = transaction.recipient(request.read_recipient(), queue_id, counted_by).await;
        Ok(Action::to_recipient(decision, relay_context))
    }

    async fn at_end(
        &self,
        request: &Request<'_>,
        caller: &Caller,
        counted_elsewhere: bool,
    ) -> Result<Action, BadRequest> {
        self.instances.saw_end(caller.origin.peer);
        let slot = self.slot(request, caller).await?;
        let mut slot = slot.lock().await;
        if let Some(action) = answered_before(&slot, request.instance) {
            return Ok(action);
        }
        let transaction = self.transaction(&mut slot, request, caller, counted_elsewhere).await;
        let action = if counted_elsewhere {
            transaction.abandon("counted-by-milter", None);
            Action::Dunno
        } else {
            transaction.measured(MessageSize { bytes: request.size(), attachments: None });
            let lone = request.read_recipient().ok();
            let reported = ReportedRecipients::Number { recipients: request.recipients(), lone: lone.as_ref() };
            Action::to_message(transaction.end(reported, known(request.queue_id)).await)
        };
        slot.state = State::Ended(action.clone());
        Ok(action)
    }

    async fn slot(&self, request: &Request<'_>, caller: &Caller) -> Result<SharedSlot, BadRequest> {
        match request.instance.len() {
            0 => return Err(BadRequest::Missing("instance")),
            1..=MAX_INSTANCE => {}
            _ => return Err(BadRequest::InstanceTooLong),
        }
        self.instances.slot(caller, request).await
    }

    /// The transaction that the request belongs to, begun if it is new.
    async fn transaction<'a>(
        &self,
        slot: &'a mut Slot,
        request: &Request<'_>,
        caller: &Caller,
        counted_elsewhere: bool,
    ) -> &'a mut Transaction {
        slot.touched = Some(Instant::now());
        let same = *slot.instance == *request.instance && matches!(slot.state, State::Open(_));
        if !same {
            self.instances.finish(caller.origin.peer, slot, "given-up").await;
            slot.instance = request.instance.into();
            slot.state = State::Open(Box::new(self.begin(request, counted_elsewhere)));
        }
        match &mut slot.state {
            State::Open(transaction) => transaction,
            State::Nothing | State::Ended(_) => unreachable!("opened above"),
        }
    }

    fn begin(&self, request: &Request, counted_elsewhere: bool) -> Transaction {
        let envelope = Envelope::new(
            request.client,
            request.helo_name,
            request.encryption_protocol,
            request.sasl_username,
            request.read_sender(),
        )
        .declaring(request.size());
        let snapshot = self.engine.snapshot();
        let front_end = FrontEnd::policy_service(snapshot.settings.policy.on_rewrite, counted_elsewhere);
        Transaction::begin(&self.engine, snapshot, front_end, envelope)
    }
}

/// Nearly all requests are ASCII; in others what is not UTF-8 is replaced.
fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}
