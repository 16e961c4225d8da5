//! From a connection's bytes to answers.

use super::answer::Answer;
use super::connections::Connections;
use super::instances::{Instances, SharedSlot, Slot, State};
use super::request::{BadRequest, MAX_INSTANCE, MAX_REQUEST, Request, known};
use crate::config::OnRewrite;
use crate::ledger::ReservationId;
use crate::listen::{Impatience, Patience, Peer, write_in_time};
use crate::report::{OncePer, and_more};
use crate::session::{Accepted, Engine, Envelope, FrontEnd, OpenCount, Rewriting, Transaction};
use crate::size::MessageSize;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

/// Postfix closes a connection after 300 s idle or 1,000 s (`smtpd_policy_service_max_idle`, `…_max_ttl`).
const IDLE: Duration = Duration::from_secs(1_200);

/// How long a request may take from its first byte to its last.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long Postfix may take to read an answer that it waits for.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection that waits for its next request keeps no more than this.
const IDLE_BUFFER: usize = 2 * 1024;

/// How often silent instances are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// The policy service, whatever socket it is on.
pub struct PolicyService {
    engine: Arc<Engine>,
    instances: Instances,
    connections: Connections,
    garbage: OncePer<Peer>,
    answering: OpenCount,
}

impl PolicyService {
    pub fn new(engine: Arc<Engine>) -> Arc<PolicyService> {
        let garbage = OncePer::new(Duration::from_secs(60), 1_024);
        Arc::new(PolicyService {
            instances: Instances::new(engine.clone()),
            connections: Connections::default(),
            engine,
            garbage,
            answering: OpenCount::default(),
        })
    }

    /// Answers one connection until it is closed. In trouble there is no answer and the connection is closed
    /// (SMTPD_POLICY_README).
    pub async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        if let Err(trouble) = self.converse(&mut stream, peer).await
            && let Some(suppressed) = self.garbage.check(peer, std::time::Instant::now())
        {
            let more = and_more(suppressed);
            self.engine.log.warn(format_args!("dropped a policy connection from {peer}: {trouble}{more}"));
        }
    }

    /// Ends instances that have been silent for too long, for as long as the daemon runs.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let timeout = self.engine.snapshot().settings.relay.reservation_timeout;
            self.instances.sweep(timeout).await;
        }
    }

    /// At the end of the daemon: waits for answers under way, and ends what no END-OF-MESSAGE will end.
    pub async fn finish(&self) {
        self.answering.none().await;
        self.instances.finish_all().await;
    }

    async fn converse(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), peer: Peer) -> Result<(), BadRequest> {
        let mut buffer = Vec::with_capacity(IDLE_BUFFER);
        let mut out = String::new();
        let mut searched = 0;
        let mut patience = Patience::new(REQUEST_TIME, IDLE);
        loop {
            let mut answering = None;
            while let Some(end) = find_end(&buffer, searched) {
                answering.get_or_insert_with(|| self.answering.enter());
                let text = as_text(&buffer[..end]);
                let answer = self.answer(&Request::parse(&text)?, peer).await?;
                answer.write(&mut out);
                buffer.drain(..end + 2);
                searched = 0;
            }
            searched = buffer.len().saturating_sub(1);
            if !out.is_empty() {
                // Whoever else has asked by now is decided first, and all are answered together: the MTA's host is woken
                // once, not for each. Where nobody else has, this costs nothing.
                tokio::task::yield_now().await;
                match write_in_time(stream, out.as_bytes(), ANSWER_TIME).await {
                    Some(Ok(())) => out.clear(),
                    Some(Err(_)) => return Ok(()),
                    None => return Err(BadRequest::NotTaken),
                }
            }
            let anew = answering.take().is_some();
            if buffer.len() >= MAX_REQUEST {
                return Err(BadRequest::TooLong);
            }
            let is_idle = buffer.is_empty();
            if is_idle {
                buffer.shrink_to(IDLE_BUFFER);
            }
            patience.expect(!is_idle, anew);
            tokio::select! {
                biased;
                read = stream.read_buf(&mut buffer) => match read {
                    Ok(0) | Err(_) if is_idle => return Ok(()),
                    Ok(0) | Err(_) => return Err(BadRequest::CutOff),
                    Ok(_) => patience.heard(),
                },
                why = patience.end() => return match why {
                    Impatience::TooSlow => Err(BadRequest::TooSlow),
                    Impatience::Silence => Ok(()),
                },
            }
        }
    }

    async fn answer(&self, request: &Request<'_>, peer: Peer) -> Result<Answer, BadRequest> {
        let session = request.session();
        let milter = session.and_then(|session| self.engine.sessions.find(&session));
        // What the milter sees of a session is judged there.
        if milter.is_none()
            && let Some(reply) = self.connections.judge(request, session, &self.engine)
        {
            return Ok(Answer::Refuse(reply));
        }
        match request.protocol_state {
            "RCPT" => self.at_recipient(request, peer, milter).await,
            "MAIL" if milter.is_none() => Ok(self.at_mail(request)),
            "END-OF-MESSAGE" => self.at_end(request, peer, milter.is_some()).await,
            _ => Ok(Answer::Dunno),
        }
    }

    /// Asked only where Postfix does not wait for RCPT (`smtpd_delay_reject = no`).
    fn at_mail(&self, request: &Request<'_>) -> Answer {
        let transaction = self.begin(request, false);
        transaction.mail(known(request.queue_id)).map_or(Answer::Dunno, Answer::Refuse)
    }

    /// `milter`: a milter session counts it, and has reserved this.
    async fn at_recipient(
        &self,
        request: &Request<'_>,
        peer: Peer,
        milter: Option<Option<ReservationId>>,
    ) -> Result<Answer, BadRequest> {
        let relay_context = request.policy_context == "relay";
        let slot = self.slot(request, peer)?;
        let mut slot = slot.lock().await;
        let transaction = self.transaction(&mut slot, request, peer, milter.is_some()).await;
        let queue_id = known(request.queue_id);
        let decision = match milter {
            Some(theirs) => transaction.recipient_counted_elsewhere(request.recipient, queue_id, theirs).await,
            None => transaction.recipient(request.recipient, queue_id).await,
        };
        Ok(Answer::to_recipient(decision, relay_context))
    }

    async fn at_end(&self, request: &Request<'_>, peer: Peer, counted_elsewhere: bool) -> Result<Answer, BadRequest> {
        self.instances.saw_end(peer);
        let slot = self.slot(request, peer)?;
        let mut slot = slot.lock().await;
        if let State::Ended(answer) = &slot.state
            && *slot.instance == *request.instance
        {
            return Ok(answer.clone());
        }
        let transaction = self.transaction(&mut slot, request, peer, counted_elsewhere).await;
        let answer = if counted_elsewhere {
            transaction.abandon("counted-by-milter", None);
            Answer::Dunno
        } else {
            transaction.measured(MessageSize { bytes: request.size(), attachments: None });
            let lone = Some(request.recipient).filter(|recipient| !recipient.is_empty());
            let accepted = Accepted::Count { recipients: request.recipients(), lone };
            Answer::to_message(transaction.end(accepted, known(request.queue_id)).await)
        };
        slot.state = State::Ended(answer.clone());
        Ok(answer)
    }

    fn slot(&self, request: &Request, peer: Peer) -> Result<SharedSlot, BadRequest> {
        match request.instance.len() {
            0 => return Err(BadRequest::Missing("instance")),
            1..=MAX_INSTANCE => {}
            _ => return Err(BadRequest::InstanceTooLong),
        }
        self.instances.slot(peer, request.smtpd())
    }

    /// The transaction that the request belongs to, begun if it is new.
    async fn transaction<'a>(
        &self,
        slot: &'a mut Slot,
        request: &Request<'_>,
        peer: Peer,
        counted_elsewhere: bool,
    ) -> &'a mut Transaction {
        slot.touched = Some(Instant::now());
        let same = *slot.instance == *request.instance && matches!(slot.state, State::Open(_));
        if !same {
            self.instances.finish(peer, slot, "given-up").await;
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
            request.sender,
        )
        .declaring(request.size());
        let snapshot = self.engine.snapshot();
        let rewriting = match snapshot.settings.policy.on_rewrite {
            OnRewrite::Continue | OnRewrite::Auto if counted_elsewhere => Rewriting::Possible,
            OnRewrite::Continue => Rewriting::Waived,
            OnRewrite::Auto | OnRewrite::Defer => Rewriting::Impossible { reject: false },
            OnRewrite::Reject => Rewriting::Impossible { reject: true },
        };
        Transaction::begin(&self.engine, snapshot, FrontEnd::Policy, envelope, rewriting)
    }
}

/// Nearly all requests are ASCII; in others what is not UTF-8 is replaced.
fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Where the empty line is that ends the first request; before `from` it has been looked for already.
fn find_end(buffer: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(&buffer[from..], b"\n\n").map(|at| from + at)
}
