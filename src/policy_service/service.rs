//! Answers policy requests.

use super::action::Action;
use super::connections::Connections;
use super::instances::{Instances, answered_before};
use super::mtas_with_milter::MtasWithMilter;
use super::request::{BadRequest, MAX_INSTANCE, MAX_REQUEST, Request, known};
use super::smtpds::{Caller, MilterSeen, Slot, State};
use crate::envelope::Envelope;
use crate::listen::{Bounds, FaultLog, Frame, Next, Origin, Peer, Protocol, Service, Shares, serve_stream};
use crate::policy::{CountedBy, FrontEnd, MtaProtocol, ReportedRecipients};
use crate::session::{EndReport, Engine, MilterView, MtaSign, Reporter, Server, SmtpMoment, TrafficOfMta, Transaction};
use crate::size::MessageSize;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// How often silent instances are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// The policy service, whatever socket it is on.
pub struct PolicyService {
    engine: Arc<Engine>,
    instances: Instances,
    connections: Connections,
    mtas_with_milter: MtasWithMilter,
    faults: FaultLog,
}

/// A connection of an smtpd process. On errors there is no response, and it is closed (SMTPD_POLICY_README).
pub struct PolicyConnection {
    service: Arc<PolicyService>,
    caller: Caller,
    /// The socket of ours.
    listener: Arc<str>,
    /// The traffic of the service that was asked about last: an smtpd process has one.
    traffic: Option<(Server, Arc<TrafficOfMta>)>,
}

impl Service for PolicyService {
    type Connection = PolicyConnection;

    /// Each smtpd has one for each check_policy_service; Postfix runs 100 smtpd processes by default.
    /// Requests of the usual length need no bytes beyond those of an idle connection.
    const SHARES: Shares = Shares::of(4_096, 16 * 1024 * 1024);

    fn open(self: &Arc<Self>, origin: Origin, listener: &Arc<str>) -> PolicyConnection {
        let caller = Caller { origin, connection: Arc::default() };
        PolicyConnection { service: self.clone(), caller, listener: listener.clone(), traffic: None }
    }

    fn admits(&self, peer: Peer) -> bool {
        self.engine.snapshot().settings.listen.admits_mta(peer)
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
        let request = Request::parse(&text)?;
        self.tell(&request);
        let traffic = self.traffic(request.server);
        self.service.answer(&request, &self.caller, &traffic).await?.write(output);
        Ok(Next::Continue)
    }
}

impl PolicyConnection {
    fn traffic(&mut self, server: Server) -> Arc<TrafficOfMta> {
        match &self.traffic {
            Some((known, traffic)) if *known == server => traffic.clone(),
            _ => {
                let traffic = self.service.engine.traffic.of(self.caller.origin.peer, server);
                self.traffic = Some((server, traffic.clone()));
                traffic
            }
        }
    }

    /// Tells those who watch.
    fn tell(&self, request: &Request<'_>) {
        let events = &self.service.engine.events;
        if events.is_watched() {
            events.tell(SmtpMoment {
                protocol: MtaProtocol::Policy,
                stage: request.protocol_state,
                listener: &self.listener,
                client: request.client,
                client_port: request.client_port,
                server: request.server,
                helo: request.helo_name,
                context: request.policy_context,
            });
        }
    }
}

impl PolicyService {
    pub fn new(engine: Arc<Engine>) -> Arc<PolicyService> {
        Arc::new(PolicyService {
            instances: Instances::new(engine.clone()),
            connections: Connections::default(),
            mtas_with_milter: MtasWithMilter::default(),
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
        serve_stream(stream, origin, self.open(origin, &Arc::from("")), &self.faults).await;
    }

    /// Remembers in a folder which MTAs ask over both protocols.
    pub fn remember_mtas_in(&self, folder: &Path) {
        self.mtas_with_milter.remember_in(folder, &self.engine.log);
    }

    /// Writes to disk which MTAs ask over both protocols, for as long as the daemon runs.
    pub async fn remember_mtas(&self) {
        self.mtas_with_milter.write_changes(&self.engine.log).await;
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

    async fn answer(
        &self,
        request: &Request<'_>,
        caller: &Caller,
        traffic: &Arc<TrafficOfMta>,
    ) -> Result<Action, BadRequest> {
        let session = request.session();
        let milter = session.and_then(|session| self.engine.sessions.find(&session));
        // What the milter sees of a session is judged there.
        if milter.is_none()
            && let Some(reply) = self.connections.judge(request, caller.origin, session, &self.engine)
        {
            return Ok(Action::Refuse(reply));
        }
        match request.protocol_state {
            "RCPT" => self.at_recipient(request, caller, milter, traffic).await,
            "MAIL" if milter.is_none() => Ok(self.at_mail(request)),
            "END-OF-MESSAGE" => self.at_end(request, caller, milter, traffic).await,
            _ => Ok(Action::Dunno),
        }
    }

    /// Asked only where Postfix does not wait for RCPT (`smtpd_delay_reject = no`).
    fn at_mail(&self, request: &Request<'_>) -> Action {
        let transaction = self.begin(request, false);
        transaction.mail(known(request.queue_id)).map_or(Action::Dunno, Action::Refuse)
    }

    /// `milter`: the session that is open for it. If that is in a transaction, it counts; it may be an idle one of another service.
    async fn at_recipient(
        &self,
        request: &Request<'_>,
        caller: &Caller,
        milter: Option<MilterView>,
        traffic: &Arc<TrafficOfMta>,
    ) -> Result<Action, BadRequest> {
        let relay_context = request.policy_context == "relay";
        let mut slot = self.slot(request, caller, milter.is_some(), traffic).await?;
        let reservation = milter.and_then(|milter| milter.reservation());
        self.note_milter(&mut slot, request, reservation.is_some());
        let transaction = self.transaction(&mut slot, request, caller, reservation.is_some()).await;
        let counted_by = reservation.map_or(CountedBy::Itself, |reservation| CountedBy::Milter(Some(reservation)));
        let decision = transaction.recipient(request.read_recipient(), known(request.queue_id), counted_by).await;
        if decision.verdict.passes() {
            traffic.count(MtaSign::PolicyRecipient);
        }
        Ok(Action::to_recipient(decision, relay_context))
    }

    /// There is a queue ID from the first accepted recipient on: a transaction that has one when it is first asked about began
    /// before this daemon did.
    fn note_milter(&self, slot: &mut Slot, request: &Request<'_>, is_open: bool) {
        let is_new = *slot.instance != *request.instance;
        let began_before = known(request.queue_id).is_some();
        slot.milter = match slot.milter {
            _ if is_open => MilterSeen::Open,
            _ if is_new && began_before => MilterSeen::Unknown,
            _ if is_new => MilterSeen::NotOpen,
            before => before,
        };
        let tells = is_open || (is_new && slot.milter == MilterSeen::NotOpen);
        if tells && request.session().is_some() {
            self.mtas_with_milter.note(&request.server, is_open);
        }
    }

    async fn at_end(
        &self,
        request: &Request<'_>,
        caller: &Caller,
        milter: Option<MilterView>,
        traffic: &Arc<TrafficOfMta>,
    ) -> Result<Action, BadRequest> {
        self.instances.saw_end(caller.origin.peer);
        traffic.count(MtaSign::PolicyEnd);
        let mut slot = self.slot(request, caller, milter.is_some(), traffic).await?;
        if let Some(action) = answered_before(&slot, request.instance) {
            return Ok(action);
        }
        let milter = milter.filter(|milter| milter.reservation().is_some());
        let milter_is_missing = milter.is_none()
            && (*slot.instance != *request.instance || slot.milter != MilterSeen::NotOpen)
            && self.mtas_with_milter.contains(&request.server);
        let transaction = self.transaction(&mut slot, request, caller, milter.is_some()).await;
        let action = match milter {
            Some(_) if known(request.queue_id).is_some() => {
                transaction.abandon("counted-by-milter", None);
                Action::Dunno
            }
            Some(milter) => Self::end_behind_proxy_filter(transaction, request, &milter).await,
            None => Self::end(transaction, request, milter_is_missing).await,
        };
        slot.state = State::Ended(action.clone());
        Ok(action)
    }

    /// Behind smtpd_proxy_filter there is no queue file here, and no milter hears of the end of the message.
    async fn end_behind_proxy_filter(
        transaction: &mut Transaction,
        request: &Request<'_>,
        milter: &MilterView,
    ) -> Action {
        if let Some(reservation) = milter.reservation() {
            let on_rewrite = transaction.snapshot().settings.policy.on_rewrite;
            transaction.count_in_place_of_milter(reservation, FrontEnd::policy_service(on_rewrite, false));
        }
        let action = Self::end(transaction, request, false).await;
        milter.counted_by_policy();
        action
    }

    async fn end(transaction: &mut Transaction, request: &Request<'_>, milter_is_missing: bool) -> Action {
        transaction.measured(MessageSize { bytes: request.size(), attachments: None });
        let lone = request.read_recipient().ok();
        let report = EndReport {
            recipients: ReportedRecipients::Number { recipients: request.recipients(), lone: lone.as_ref() },
            queue_id: known(request.queue_id),
            client_port: request.client_port,
            server: request.server,
            reporter: Reporter::Policy,
            milter_is_missing,
        };
        Action::to_message(transaction.end(report).await)
    }

    /// `with_milter`: a milter session is open for it, which is counted there.
    async fn slot(
        &self,
        request: &Request<'_>,
        caller: &Caller,
        with_milter: bool,
        traffic: &Arc<TrafficOfMta>,
    ) -> Result<OwnedMutexGuard<Slot>, BadRequest> {
        match request.instance.len() {
            0 => return Err(BadRequest::Missing("instance")),
            1..=MAX_INSTANCE => {}
            _ => return Err(BadRequest::InstanceTooLong),
        }
        let found = self.instances.find(caller, request).await?;
        let mut slot = found.slot.lock_owned().await;
        if found.is_new && !with_milter {
            traffic.count(MtaSign::PolicySession);
            traffic.saw_client(request.client, request.helo_name);
        }
        if found.is_interleaved {
            traffic.count(MtaSign::Interleaved);
        }
        if found.is_new && *slot.instance != *request.instance {
            self.instances.finish(caller.origin.peer, &mut slot, "given-up").await;
            slot.traffic = Some(traffic.clone());
        }
        Ok(slot)
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
        slot.expired = false;
        let same = *slot.instance == *request.instance && matches!(slot.state, State::Open(_));
        if !same {
            self.instances.finish(caller.origin.peer, slot, "given-up").await;
            slot.instance = request.instance.into();
            slot.state = State::Open(Box::new(self.begin(request, counted_elsewhere)));
        }
        match &mut slot.state {
            State::Open(transaction) => transaction,
            State::Nothing | State::Ended(_) | State::CountedUnended => unreachable!("opened above"),
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
        .with_sasl_method(request.sasl_method)
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
