//! The daemon: sockets, services and signals around the [`Engine`], from start to a graceful stop.

mod files;
mod observer;
mod outages;
mod saved_copies;
mod services;
mod sockets;

pub use files::raise_open_files_limit;
pub use observer::observe;
pub use outages::{tell_of_advice, tell_of_outages};
pub use saved_copies::SavedCopies;
pub use sockets::Sockets;

use crate::control::ControlService;
use crate::session::Engine;
use services::{Background, Fronts};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How often expired grants and suspensions are looked for.
const EXPIRY_ROUNDS: Duration = Duration::from_secs(5);

/// What is left to do when nothing is open any more (responses to write, counts on their way to the disk) has this long.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs all services until `stop` resolves; then refuses new milter sessions, waits for open transactions for up to the
/// drain time, and ends. `control` answers administrators.
pub async fn run(engine: Arc<Engine>, sockets: Sockets, control: Arc<ControlService>, stop: impl Future<Output = ()>) {
    let mut fronts = Fronts::start(&engine, sockets, control);
    let background = Background::start(&engine, fronts.policy.clone());
    stop.await;
    fronts.refuse_new_sessions();
    drain(&engine, fronts.milter_sessions_over()).await;
    fronts.close().await;
    let _ = timeout(LAST_WRITES, engine.ledger.close()).await;
    if let Some(decisions) = engine.decisions() {
        decisions.flush(LAST_WRITES);
    }
    background.end().await;
}

/// Removes grants and suspensions soon after they expire, so that the audit log has their end.
async fn end_expired(engine: Arc<Engine>) {
    let mut last_error = String::new();
    loop {
        tokio::time::sleep(EXPIRY_ROUNDS).await;
        let error = engine.administration.end_expired(engine.wall_time()).await.err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        if !error.is_empty() && error != last_error {
            engine.log.error(format_args!("the end of a grant or a suspension is not recorded: {error}"));
        }
        last_error = error;
    }
}

/// Waits until all transactions are over, and the SMTP sessions that go on, for up to `relay.drain`.
async fn drain(engine: &Engine, milter_sessions_over: impl Future<Output = ()>) {
    let open = engine.open_transactions.count();
    let drain = engine.snapshot().settings.relay.drain;
    if open > 0 {
        engine.log.info(format_args!("stopping: waiting up to {} s for {open} open transactions", drain.as_secs()));
    }
    let over = async {
        milter_sessions_over.await;
        engine.open_transactions.none().await;
    };
    if timeout(drain, over).await.is_err() {
        let left = engine.open_transactions.count();
        engine.log.warn(format_args!("{left} transactions were still open after {} s and are cut", drain.as_secs()));
    }
}
