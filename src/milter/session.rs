//! The state of one SMTP session: what was said at CONNECT and HELO, and the transaction that is open.
//!
//! Each step returns the reply that refuses it, if one does.

use super::addresses;
use super::command::Caller;
use super::conversation::Via;
use super::macros::Macros;
use super::negotiation::Agreed;
use crate::envelope::{Address, Envelope, Reply, bounded};
use crate::policy::{CountedBy, FrontEnd, MtaProtocol, ReportedRecipients};
use crate::session::{
    Connection, EndReport, Engine, MtaSign, OpenSession, Reporter, Server, SmtpMoment, SmtpSession, TrafficOfMta,
    Transaction,
};
use crate::size::MessageMeter;
use indymilter::Actions;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) struct MilterSession {
    engine: Arc<Engine>,
    listener: Arc<str>,
    traffic: Arc<TrafficOfMta>,
    /// Those who watch know that it is connected.
    is_told: bool,
    client: Option<IpAddr>,
    client_port: u16,
    server: Server,
    /// Names this connection among those that report the end of a message.
    token: Arc<()>,
    front_end: FrontEnd,
    can_remove_headers: bool,
    helo: Box<str>,
    /// Counts among those of its client while the session is open.
    connection: Connection,
    /// The policy service finds the session by this.
    open: Option<OpenSession>,
    transaction: Option<Transaction>,
    /// Measures the message that comes in, if its size matters.
    meter: Option<MessageMeter>,
}

/// What an accepted message has to be changed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Sender(Address),
    /// A recipient that the client did not name, and whose troubles are none of the client's business.
    AddRecipient(Address),
    /// The `nth` header of this name, from 1 on, is taken out.
    RemoveHeader {
        name: Box<str>,
        nth: u16,
    },
}

/// What is said at the end of a message.
pub(super) struct End {
    pub changes: Vec<Change>,
    pub refusal: Option<Reply>,
}

impl MilterSession {
    pub fn connect(engine: &Arc<Engine>, via: &Via, caller: Caller, macros: &Macros, agreed: Agreed) -> MilterSession {
        let Caller { address: client, port } = caller;
        let server = Server::parse(&macros.server, &macros.server_port);
        let session = SmtpSession::new(client, port, server);
        // sendmail(1) by Postfix's non_smtpd_milters; no client over TCP has port 0.
        let is_local = port == 0 && client.is_some_and(|client| client.is_loopback());
        let can_add_recipient = agreed.can(Actions::ADD_RCPT) || agreed.can(Actions::ADD_RCPT_EXT);
        let traffic = engine.traffic.of(via.peer, server);
        traffic.count(MtaSign::MilterSession);
        traffic.saw_client(client, "");
        MilterSession {
            engine: engine.clone(),
            listener: via.listener.clone(),
            traffic,
            is_told: false,
            client,
            client_port: port,
            server,
            token: Arc::new(()),
            front_end: FrontEnd::milter(agreed.can(Actions::CHANGE_SENDER), can_add_recipient).with_local(is_local),
            can_remove_headers: agreed.can(Actions::CHANGE_HEADER),
            helo: Box::default(),
            // sendmail(1) makes no connections.
            connection: Connection::begin(engine, MtaProtocol::Milter, client.filter(|_| !is_local), true),
            open: session.map(|session| engine.sessions.open(session)),
            transaction: None,
            meter: None,
        }
    }

    /// HELO comes again after STARTTLS. It ends an open transaction (RFC 5321, 4.1.4).
    ///
    /// What is to be said to the connection itself is said here: to CONNECT Postfix passes no reply on before MAIL, Sendmail
    /// none before EHLO.
    pub fn helo(&mut self, name: &str, macros: &Macros) -> Option<Reply> {
        self.abandon("new-helo", macros);
        self.helo = bounded(name);
        self.traffic.saw_client(None, &self.helo);
        self.tell("HELO");
        self.connection.judge(Some(&self.helo)).cloned()
    }

    /// `sender` as typed; `declared_size`: `SIZE=`, in bytes.
    pub fn mail(&mut self, sender: &[u8], declared_size: Option<u64>, macros: &Macros) -> Option<Reply> {
        self.abandon("new-mail", macros);
        self.tell("MAIL");
        let sender = addresses::sender(sender, &macros.sender_reading);
        let envelope = Envelope::new(self.client, &self.helo, &macros.tls, &macros.login(), sender)
            .with_sasl_method(macros.sasl_method())
            .declaring(declared_size);
        let transaction = Transaction::begin(&self.engine, self.engine.snapshot(), self.front_end, envelope);
        if let Some(open) = &self.open {
            open.holds(Some(transaction.reservation()));
        }
        // A client need not say HELO.
        let refused = self.connection.judge(Some(&self.helo)).cloned();
        let refused = refused.or_else(|| transaction.mail(macros.queue_id()));
        self.transaction = Some(transaction);
        refused
    }

    /// Whether MAIL was said, and the message has not ended since.
    pub fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether the message has a recipient who was accepted.
    pub fn has_message_under_way(&self) -> bool {
        self.transaction.as_ref().is_some_and(Transaction::is_under_way)
    }

    /// `recipient` as typed.
    pub async fn recipient(&mut self, recipient: &[u8], macros: &Macros) -> Option<Reply> {
        self.tell("RCPT");
        let recipient = addresses::recipient(recipient, &macros.recipient_reading);
        let transaction = self.transaction.as_mut()?;
        let twin = self.open.as_ref().and_then(OpenSession::earlier_twin);
        let counted_by = twin.map_or(CountedBy::Itself, |reservation| CountedBy::Milter(Some(reservation)));
        let decision = transaction.recipient(recipient, macros.queue_id(), counted_by).await;
        if decision.verdict.passes() {
            self.traffic.count(MtaSign::MilterRecipient);
        }
        decision.reply
    }

    /// A header of the message.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        if let Some(transaction) = &mut self.transaction {
            transaction.hear_header(name, value);
        }
        if let Some(meter) = self.meter() {
            meter.header(name, value);
        }
    }

    /// The next piece of the body.
    pub fn body(&mut self, piece: &[u8]) {
        if let Some(meter) = self.meter() {
            meter.body(piece);
        }
    }

    fn meter(&mut self) -> Option<&mut MessageMeter> {
        if self.meter.is_none() && self.transaction.as_ref().is_some_and(Transaction::limits_size) {
            self.meter = Some(MessageMeter::new());
        }
        self.meter.as_mut()
    }

    /// The end of the message: accepted, if it fits.
    pub async fn end(&mut self, macros: &Macros) -> End {
        let Some(mut transaction) = self.transaction.take() else { return End { changes: Vec::new(), refusal: None } };
        self.traffic.count(MtaSign::MilterEnd);
        self.tell("END-OF-MESSAGE");
        if let Some(meter) = self.meter.take() {
            transaction.measured(meter.finish());
        }
        let report = EndReport {
            recipients: ReportedRecipients::All,
            queue_id: macros.queue_id(),
            client_port: self.client_port,
            server: self.server,
            reporter: Reporter::milter(&self.token),
            milter_is_missing: false,
        };
        let decision = transaction.end(report).await;
        self.holds_nothing();
        let mut changes = Vec::new();
        if decision.reply.is_none() {
            changes.extend(decision.verdict.rewrite_sender_to.map(Change::Sender));
            changes.extend(decision.verdict.archive_to.map(Change::AddRecipient));
            if let Some((name, number)) = transaction.secret_headers().filter(|_| self.can_remove_headers) {
                // The last one first: those before it keep their numbers.
                changes.extend((1..=number).rev().map(|nth| Change::RemoveHeader { name: name.into(), nth }));
            }
        }
        End { changes, refusal: decision.reply }
    }

    /// The transaction is over without a message.
    pub fn abandon(&mut self, why: &'static str, macros: &Macros) {
        if let Some(mut transaction) = self.transaction.take() {
            match &self.open {
                Some(open) if open.is_counted_by_policy(transaction.reservation()) => {
                    transaction.leave_to_policy_service();
                }
                _ => {
                    if transaction.reserves() {
                        self.traffic.count(MtaSign::GivenUp);
                    }
                    transaction.abandon(why, macros.queue_id());
                }
            }
            self.meter = None;
            self.holds_nothing();
        }
    }

    /// Tells those who watch.
    fn tell(&mut self, stage: &str) {
        if !self.engine.events.is_watched() {
            return;
        }
        let moment = SmtpMoment {
            protocol: MtaProtocol::Milter,
            stage,
            listener: &self.listener,
            client: self.client,
            client_port: self.client_port,
            server: self.server,
            helo: &self.helo,
            context: "",
        };
        if !std::mem::replace(&mut self.is_told, true) {
            self.engine.events.tell(SmtpMoment { stage: "CONNECT", ..moment });
        }
        self.engine.events.tell(moment);
    }

    fn holds_nothing(&self) {
        if let Some(open) = &self.open {
            open.holds(None);
        }
    }
}
