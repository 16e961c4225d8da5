//! A milter that decides nothing, with the steps that relaykeeper asks for: what the protocol itself costs.
//!
//! `noop_milter PATH`: listens on a unix socket, on one thread.

use indymilter::{Actions, Callbacks, Config, ProtoOpts, Status};
use tokio::net::UnixListener;

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("usage: noop_milter PATH"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(path)?;
        let config = Config { max_connections: 1000, ..Config::default() };
        indymilter::run(listener, callbacks(), config, std::future::pending::<()>()).await
    })
}

fn callbacks() -> Callbacks<()> {
    Callbacks::new()
        .on_negotiate(|cx, _, _| {
            cx.requested_actions = Actions::CHANGE_SENDER;
            cx.requested_opts = ProtoOpts::NO_DATA
                | ProtoOpts::NO_HEADER
                | ProtoOpts::NO_EOH
                | ProtoOpts::NO_BODY
                | ProtoOpts::NO_UNKNOWN;
            Box::pin(async { Status::Continue })
        })
        .on_connect(|_, _, _| Box::pin(async { Status::Continue }))
        .on_helo(|_, _| Box::pin(async { Status::Continue }))
        .on_mail(|_, _| Box::pin(async { Status::Continue }))
        .on_rcpt(|_, _| Box::pin(async { Status::Continue }))
        .on_eom(|_| Box::pin(async { Status::Continue }))
        .on_abort(|_| Box::pin(async { Status::Continue }))
        .on_close(|_| Box::pin(async { Status::Continue }))
}
