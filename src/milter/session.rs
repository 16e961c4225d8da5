//! The state of one milter session, which is one SMTP session: what was said at CONNECT and HELO, and the transaction
//! that is open.

use crate::envelope::{Address, canonical_ip, parse_client};
use crate::session::{
    Accepted, Decision, Engine, Envelope, FrontEnd, OpenSession, Rewriting, SmtpSession, Transaction, bounded,
};
use indymilter::SocketInfo;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// What macros tell, where they tell it.
#[derive(Clone, Debug, Default)]
pub(super) struct MacroValues<'a> {
    /// `i`
    pub queue_id: Option<Cow<'a, str>>,
    /// `{auth_authen}`
    pub login: Option<Cow<'a, str>>,
    /// `{tls_version}`
    pub tls: Option<Cow<'a, str>>,
    /// `{daemon_addr}`
    pub server: Option<Cow<'a, str>>,
}

pub(super) struct MilterSession {
    engine: Arc<Engine>,
    client: Option<IpAddr>,
    rewriting: Rewriting,
    helo: Box<str>,
    tls: Box<str>,
    /// The policy service finds the session by this.
    open: Option<OpenSession>,
    transaction: Option<Transaction>,
    /// Sendmail tells it at MAIL only, Postfix after the first recipient.
    queue_id: Option<Box<str>>,
}

impl MilterSession {
    /// `can_rewrite`: the MTA takes another sender at the end of a message.
    pub fn connect(engine: &Arc<Engine>, socket: &SocketInfo, macros: MacroValues, can_rewrite: bool) -> MilterSession {
        let (client, port) = match socket {
            SocketInfo::Inet(address) => (Some(canonical_ip(address.ip())), address.port()),
            // sendmail(1) and other local ways in.
            SocketInfo::Unix(_) => (Some(IpAddr::from([127, 0, 0, 1])), 0),
            SocketInfo::Unknown => (None, 0),
        };
        let server = macros.server.as_deref().and_then(parse_client);
        let open = SmtpSession::new(client, port, server).map(|session| engine.sessions.open(session));
        MilterSession {
            engine: engine.clone(),
            client,
            rewriting: if can_rewrite { Rewriting::Possible } else { Rewriting::Impossible { reject: false } },
            helo: Box::default(),
            tls: Box::default(),
            open,
            transaction: None,
            queue_id: None,
        }
    }

    /// HELO comes again after STARTTLS, and then tells of TLS. It ends an open transaction (RFC 5321, 4.1.4).
    pub fn helo(&mut self, name: &str, macros: MacroValues) {
        self.abandon("new-helo");
        self.helo = bounded(name);
        self.learn_tls(&macros);
    }

    pub fn mail(&mut self, sender: &str, macros: MacroValues) {
        self.abandon("new-mail");
        self.learn_tls(&macros);
        self.queue_id = macros.queue_id.as_deref().map(bounded);
        let login = macros.login.unwrap_or_default();
        let envelope = Envelope::new(self.client, &self.helo, &self.tls, &login, sender);
        let transaction = Transaction::begin(&self.engine, FrontEnd::Milter, envelope, self.rewriting);
        if let Some(open) = &self.open {
            open.holds(Some(transaction.reservation()));
        }
        self.transaction = Some(transaction);
    }

    /// `None` when a recipient is named before a sender, which no MTA does.
    pub async fn recipient(&mut self, recipient: &str, queue_id: Option<Cow<'_, str>>) -> Option<Decision> {
        self.learn_queue_id(queue_id);
        let transaction = self.transaction.as_mut()?;
        Some(transaction.recipient(recipient, self.queue_id.as_deref()).await)
    }

    pub fn rewrite_sender_to(&self) -> Option<&Address> {
        self.transaction.as_ref()?.rewrite_sender_to()
    }

    /// The end of the message: accepted, if it fits.
    pub async fn end(&mut self, queue_id: Option<Cow<'_, str>>) -> Option<Decision> {
        self.learn_queue_id(queue_id);
        let mut transaction = self.transaction.take()?;
        let decision = transaction.end(Accepted::All, self.queue_id.as_deref()).await;
        self.forget_transaction();
        Some(decision)
    }

    /// The transaction is over without a message.
    pub fn abandon(&mut self, why: &'static str) {
        if let Some(mut transaction) = self.transaction.take() {
            transaction.abandon(why, self.queue_id.as_deref());
            self.forget_transaction();
        }
    }

    fn forget_transaction(&mut self) {
        self.queue_id = None;
        if let Some(open) = &self.open {
            open.holds(None);
        }
    }

    fn learn_tls(&mut self, macros: &MacroValues) {
        if let Some(tls) = &macros.tls {
            self.tls = bounded(tls);
        }
    }

    fn learn_queue_id(&mut self, queue_id: Option<Cow<'_, str>>) {
        if queue_id.is_some() && self.queue_id.as_deref() != queue_id.as_deref() {
            self.queue_id = queue_id.as_deref().map(bounded);
        }
    }
}
