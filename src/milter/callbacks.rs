//! One line of glue for each callback: from indymilter's values to the session's, and back to a status.

use super::session::{MacroValues, MilterSession};
use crate::envelope::{Reply, ReplyClass};
use crate::session::{Decision, Engine};
use indymilter::{
    Actions, Callbacks, Context, ContextActions, EomContext, MacroStage, Macros, NegotiateContext, ProtoOpts,
    SetErrorReply, SmtpReply, SocketInfo, Status,
};
use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::sync::Arc;

/// The macros asked for at each stage: few, because all are copied at the end of each message.
const WANTED: [(MacroStage, &CStr); 5] = [
    (MacroStage::Connect, c"{daemon_addr}"),
    (MacroStage::Helo, c"{tls_version}"),
    (MacroStage::Mail, c"i {auth_authen} {tls_version}"),
    (MacroStage::Rcpt, c"i"),
    (MacroStage::Eom, c"i"),
];

/// What indymilter keeps for each session.
#[derive(Default)]
pub(super) struct Kept {
    /// This MTA wants no answer to CONNECT.
    silent_connect: bool,
    /// It takes another sender at the end of a message.
    can_rewrite: bool,
    session: Option<MilterSession>,
}

/// `policy_too`: a policy service may be asked about the same SMTP sessions. Then CONNECT is answered, and so is known
/// here before any policy request about the session can come.
pub(super) fn callbacks(engine: Arc<Engine>, policy_too: bool) -> Callbacks<Kept> {
    Callbacks::new()
        .on_negotiate(move |cx, actions, opts| {
            negotiate(cx, actions, opts, policy_too);
            Box::pin(async { Status::Continue })
        })
        .on_connect(move |cx, _host, socket: SocketInfo| {
            let kept = cx.data.get_or_insert_default();
            let session = MilterSession::connect(&engine, &socket, values(&cx.macros), kept.can_rewrite);
            kept.session = Some(session);
            let status = if kept.silent_connect { Status::Noreply } else { Status::Continue };
            Box::pin(async move { status })
        })
        .on_helo(|cx, name| {
            if let Some(session) = cx.data.as_mut().and_then(|kept| kept.session.as_mut()) {
                session.helo(&name.to_string_lossy(), values(&cx.macros));
            }
            Box::pin(async { Status::Continue })
        })
        .on_mail(|cx, arguments| {
            if let Some(session) = cx.data.as_mut().and_then(|kept| kept.session.as_mut()) {
                session.mail(&first(&arguments), values(&cx.macros));
            }
            Box::pin(async { Status::Continue })
        })
        .on_rcpt(|cx, arguments| Box::pin(recipient(cx, arguments)))
        .on_eom(|cx| Box::pin(end(cx)))
        .on_abort(|cx| {
            if let Some(session) = cx.data.as_mut().and_then(|kept| kept.session.as_mut()) {
                session.abandon("given-up");
            }
            Box::pin(async { Status::Continue })
        })
        .on_close(|cx| {
            cx.data = None;
            Box::pin(async { Status::Continue })
        })
}

fn negotiate(cx: &mut NegotiateContext<Kept>, actions: Actions, opts: ProtoOpts, policy_too: bool) {
    // HELO and MAIL are answered although nothing is decided there. Without an answer to MAIL Sendmail never sends
    // ABORT, and without one to HELO Postfix keeps the packet back: a transaction that is over would go unnoticed.
    let mut wanted =
        ProtoOpts::NO_DATA | ProtoOpts::NO_HEADER | ProtoOpts::NO_EOH | ProtoOpts::NO_BODY | ProtoOpts::NO_UNKNOWN;
    wanted.set(ProtoOpts::NOREPLY_CONNECT, !policy_too);
    // Protocol versions before 6 know fewer: such an MTA sends the rest, and is answered.
    cx.requested_opts = wanted & opts;
    cx.requested_actions = Actions::CHANGE_SENDER & actions;
    // Older MTAs expect no list of macros, and send what they are configured to send.
    if actions.contains(Actions::REQUEST_MACROS) {
        for (stage, macros) in WANTED {
            cx.requested_macros.insert(stage, macros.to_owned());
        }
    }
    cx.data = Some(Kept {
        silent_connect: cx.requested_opts.contains(ProtoOpts::NOREPLY_CONNECT),
        can_rewrite: cx.requested_actions.contains(Actions::CHANGE_SENDER),
        session: None,
    });
}

async fn recipient(cx: &mut Context<Kept>, arguments: Vec<CString>) -> Status {
    let Some(session) = cx.data.as_mut().and_then(|kept| kept.session.as_mut()) else { return Status::Tempfail };
    match session.recipient(&first(&arguments), queue_id(&cx.macros)).await {
        Some(decision) => answer(decision, &mut cx.reply),
        None => Status::Tempfail,
    }
}

async fn end(cx: &mut EomContext<Kept>) -> Status {
    let Some(session) = cx.data.as_mut().and_then(|kept| kept.session.as_mut()) else { return Status::Tempfail };
    // Before the message counts: where the MTA cannot be told, the message must not be accepted.
    if let Some(sender) = session.rewrite_sender_to()
        && cx.actions.change_sender(sender.as_str(), None::<CString>).await.is_err()
    {
        session.abandon("cannot-rewrite");
        return Status::Tempfail;
    }
    match session.end(queue_id(&cx.macros)).await {
        Some(decision) => answer(decision, &mut cx.reply),
        None => Status::Tempfail,
    }
}

/// The status always fits the class of the reply: one that does not would stay behind and come up later.
fn answer(decision: Decision, place: &mut SmtpReply) -> Status {
    let Some(reply) = decision.reply else { return Status::Continue };
    set_reply(&reply, place);
    match reply.class() {
        ReplyClass::Transient => Status::Tempfail,
        ReplyClass::Permanent => Status::Reject,
    }
}

fn set_reply(reply: &Reply, place: &mut SmtpReply) {
    let (code, status) = (reply.code().to_string(), reply.enhanced_status());
    // Our replies are printable and bounded; should one be refused all the same, the status alone will do.
    let _ = place.set_error_reply(&code, Some(&status), [reply.milter_text()]);
}

fn first(arguments: &[CString]) -> Cow<'_, str> {
    arguments.first().map_or_else(Cow::default, |argument| argument.to_string_lossy())
}

fn values(macros: &Macros) -> MacroValues<'_> {
    MacroValues {
        queue_id: queue_id(macros),
        login: value(macros, c"{auth_authen}"),
        tls: value(macros, c"{tls_version}"),
        server: value(macros, c"{daemon_addr}"),
    }
}

fn queue_id(macros: &Macros) -> Option<Cow<'_, str>> {
    value(macros, c"i")
}

/// What is no UTF-8 is still a value: a login, above all.
fn value<'a>(macros: &'a Macros, name: &CStr) -> Option<Cow<'a, str>> {
    macros.get(name).map(CStr::to_string_lossy).filter(|value| !value.is_empty())
}
