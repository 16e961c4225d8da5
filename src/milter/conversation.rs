//! One milter connection, from commands to responses.

use super::command::{Command, declared_size};
use super::error::MilterError;
use super::macros::{Macros, text};
use super::negotiation::{Agreed, Needs, negotiate};
use super::session::{Change, End, MilterSession};
use crate::envelope::{Reply, ReplyClass};
use crate::listen::{Next, Peer};
use crate::session::Engine;
use indymilter::message::reply::Reply as Packet;
use indymilter::{Actions, ProtoOpts};
use std::ffi::CString;
use std::sync::Arc;

/// How the MTA connected.
#[derive(Clone, Debug)]
pub(super) struct Via {
    pub peer: Peer,
    /// The socket of ours.
    pub listener: Arc<str>,
}

/// What was negotiated, and the SMTP session that is open.
///
/// Commands in the wrong order (no MTA sends them) are ignored without a response, as libmilter does.
pub struct Conversation {
    engine: Arc<Engine>,
    via: Via,
    needs: Needs,
    agreed: Option<Agreed>,
    macros: Macros,
    session: Option<MilterSession>,
}

impl Conversation {
    pub(super) fn new(engine: Arc<Engine>, needs: Needs, via: Via) -> Conversation {
        Conversation { engine, via, needs, agreed: None, macros: Macros::default(), session: None }
    }

    /// Handles a command; responses are appended to `out`.
    ///
    /// # Errors
    /// The peer does not speak the milter protocol, or too old a version of it.
    pub(super) async fn handle(&mut self, command: Command<'_>, out: &mut Vec<u8>) -> Result<Next, MilterError> {
        if command == Command::Quit {
            self.end_session();
            return Ok(Next::Close);
        }
        let Some(agreed) = self.agreed else {
            let Command::Negotiate(offer) = command else { return Err(MilterError::NotNegotiated) };
            let (agreed, answer) = negotiate(offer, self.needs)?;
            self.agreed = Some(agreed);
            write(out, answer);
            return Ok(Next::Continue);
        };
        match (command, &mut self.session) {
            (Command::Macros { stage, definitions }, _) => self.macros.learn(stage, definitions),
            (Command::Connect(caller), session @ None) => {
                *session = Some(MilterSession::connect(&self.engine, &self.via, caller, &self.macros, agreed));
                go_on(out, agreed, ProtoOpts::NOREPLY_CONNECT);
            }
            (command, Some(session)) => handle_in_session(command, session, &self.macros, agreed, out).await,
            _ => {}
        }
        if matches!(command, Command::Mail { .. } | Command::Recipient(_)) {
            self.macros.forget_readings();
        }
        if command == Command::QuitSession {
            self.end_session();
            self.macros = Macros::default();
        }
        Ok(Next::Continue)
    }

    /// Whether the negotiation is over.
    pub(super) fn has_begun(&self) -> bool {
        self.agreed.is_some()
    }

    /// Whether a message with an accepted recipient is under way.
    pub(super) fn has_message_under_way(&self) -> bool {
        self.session.as_ref().is_some_and(MilterSession::has_message_under_way)
    }

    /// The SMTP session is over, however it ended.
    fn end_session(&mut self) {
        if let Some(mut session) = self.session.take() {
            session.abandon("connection-lost", &self.macros);
        }
    }
}

/// A connection that was lost, or closed because of an error.
impl Drop for Conversation {
    fn drop(&mut self) {
        self.end_session();
    }
}

async fn handle_in_session(
    command: Command<'_>,
    session: &mut MilterSession,
    macros: &Macros,
    agreed: Agreed,
    out: &mut Vec<u8>,
) {
    match command {
        Command::Helo(name) => {
            answer(out, session.helo(&text(name), macros));
        }
        Command::Mail { sender, parameters } => {
            answer(out, session.mail(sender, declared_size(parameters), macros));
        }
        Command::Abort => session.abandon("given-up", macros),
        Command::Unknown => write(out, Packet::Continue),
        _ if !session.is_in_transaction() => {}
        Command::Recipient(recipient) => answer(out, session.recipient(recipient, macros).await),
        Command::Data => write(out, Packet::Continue),
        Command::Header { name, value } => {
            session.header(name, value);
            go_on(out, agreed, ProtoOpts::NOREPLY_HEADER);
        }
        Command::EndOfHeaders => go_on(out, agreed, ProtoOpts::NOREPLY_EOH),
        Command::Body(piece) => {
            session.body(piece);
            go_on(out, agreed, ProtoOpts::NOREPLY_BODY);
        }
        Command::EndOfMessage(last_piece) => {
            session.body(last_piece);
            let End { changes, refusal } = session.end(macros).await;
            for change in changes {
                write(out, packet_for(change, agreed));
            }
            answer(out, refusal);
        }
        Command::Negotiate(_) | Command::Macros { .. } | Command::Connect(_) => {}
        Command::Quit | Command::QuitSession => {}
    }
}

/// The response to a step, unless the MTA agreed not to wait for one.
fn go_on(out: &mut Vec<u8>, agreed: Agreed, silent: ProtoOpts) {
    if !agreed.is_silent(silent) {
        write(out, Packet::Continue);
    }
}

fn packet_for(change: Change, agreed: Agreed) -> Packet {
    match change {
        // Without ESMTP parameters, so that both MTAs keep the client's own.
        Change::Sender(sender) => Packet::ChangeSender { mail: c_string(sender.as_str()), args: None },
        // An empty value takes it out.
        Change::RemoveHeader { name, nth } => {
            Packet::ChangeHeader { name: c_string(&name), index: nth.into(), value: CString::default() }
        }
        Change::AddRecipient(recipient) => {
            let rcpt = c_string(&format!("<{}>", recipient.as_str()));
            match agreed.can(Actions::ADD_RCPT_EXT) {
                true => Packet::AddRcptExt { rcpt, args: Some(c_string("NOTIFY=NEVER")) },
                false => Packet::AddRcpt { rcpt },
            }
        }
    }
}

fn answer(out: &mut Vec<u8>, refusal: Option<Reply>) {
    let Some(reply) = refusal else { return write(out, Packet::Continue) };
    let line = format!("{} {} {}", reply.code(), reply.enhanced_status(), reply.milter_text());
    write(
        out,
        match (CString::new(line), reply.class()) {
            (Ok(reply), _) => Packet::ReplyCode { reply },
            // Replies are printable; should one not be, the MTA's own words will do.
            (Err(_), ReplyClass::Transient) => Packet::Tempfail,
            (Err(_), ReplyClass::Permanent) => Packet::Reject,
        },
    );
}

/// Valid addresses hold no NUL.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

fn write(out: &mut Vec<u8>, packet: Packet) {
    let message = packet.into_message();
    // A reply has at most a few hundred bytes.
    let length = u32::try_from(message.buffer.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(message.kind);
    out.extend_from_slice(&message.buffer);
}
