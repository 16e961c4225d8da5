//! The state of one SMTP session: what was said at CONNECT and HELO, and the transaction that is open.
//!
//! Each step returns the reply that refuses it, if one does.

use super::command::Caller;
use super::macros::Macros;
use super::negotiation::Agreed;
use crate::envelope::{Address, Reply, parse_client};
use crate::session::{Accepted, Engine, Envelope, FrontEnd, OpenSession, Rewriting, SmtpSession, Transaction, bounded};
use indymilter::Actions;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) struct MilterSession {
    engine: Arc<Engine>,
    client: Option<IpAddr>,
    rewriting: Rewriting,
    can_remove_headers: bool,
    helo: Box<str>,
    /// The policy service finds the session by this.
    open: Option<OpenSession>,
    transaction: Option<Transaction>,
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
    pub fn connect(engine: &Arc<Engine>, caller: Caller, macros: &Macros, agreed: Agreed) -> MilterSession {
        let Caller { address: client, port } = caller;
        let session = SmtpSession::new(client, port, parse_client(&macros.server));
        MilterSession {
            engine: engine.clone(),
            client,
            rewriting: if agreed.can(Actions::CHANGE_SENDER) {
                Rewriting::Possible
            } else {
                Rewriting::Impossible { reject: false }
            },
            can_remove_headers: agreed.can(Actions::CHANGE_HEADER),
            helo: Box::default(),
            open: session.map(|session| engine.sessions.open(session)),
            transaction: None,
        }
    }

    /// HELO comes again after STARTTLS. It ends an open transaction (RFC 5321, 4.1.4).
    pub fn helo(&mut self, name: &str, macros: &Macros) {
        self.abandon("new-helo", macros);
        self.helo = bounded(name);
    }

    pub fn mail(&mut self, sender: &str, macros: &Macros) {
        self.abandon("new-mail", macros);
        let envelope = Envelope::new(self.client, &self.helo, &macros.tls, &macros.login, sender);
        let transaction = Transaction::begin(&self.engine, FrontEnd::Milter, envelope, self.rewriting);
        if let Some(open) = &self.open {
            open.holds(Some(transaction.reservation()));
        }
        self.transaction = Some(transaction);
    }

    /// Whether MAIL was said, and the message has not ended since.
    pub fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    pub async fn recipient(&mut self, recipient: &str, macros: &Macros) -> Option<Reply> {
        self.transaction.as_mut()?.recipient(recipient, macros.queue_id()).await.reply
    }

    /// A header of the message.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        if let Some(transaction) = &mut self.transaction {
            transaction.hear_header(name, value);
        }
    }

    /// The end of the message: accepted, if it fits.
    pub async fn end(&mut self, macros: &Macros) -> End {
        let Some(mut transaction) = self.transaction.take() else { return End { changes: Vec::new(), refusal: None } };
        let refusal = transaction.end(Accepted::All, macros.queue_id()).await.reply;
        self.holds_nothing();
        let mut changes = Vec::new();
        if refusal.is_none() {
            changes.extend(transaction.rewrite_sender_to().cloned().map(Change::Sender));
            changes.extend(transaction.archive_to().cloned().map(Change::AddRecipient));
            if let Some((name, number)) = transaction.secret_headers().filter(|_| self.can_remove_headers) {
                // The last one first: those before it keep their numbers.
                changes.extend((1..=number).rev().map(|nth| Change::RemoveHeader { name: name.into(), nth }));
            }
        }
        End { changes, refusal }
    }

    /// The transaction is over without a message.
    pub fn abandon(&mut self, why: &'static str, macros: &Macros) {
        if let Some(mut transaction) = self.transaction.take() {
            transaction.abandon(why, macros.queue_id());
            self.holds_nothing();
        }
    }

    fn holds_nothing(&self) {
        if let Some(open) = &self.open {
            open.holds(None);
        }
    }
}
