//! The daemon: sockets, services and signals around the [`Engine`], from start to a graceful stop.

mod files;
mod observer;
mod outages;
mod privileges;
mod saved_copies;
pub mod service_manager;
mod services;
mod sockets;
mod supervisor;

pub use files::raise_open_files_limit;
pub use observer::observe;
pub use outages::{report_advice, report_outages};
pub use privileges::{PrivilegeError, Privileges, become_user};
pub use saved_copies::SavedCopies;
pub use sockets::Sockets;
pub use supervisor::{Supervisor, TaskEnded, log_panics};

use crate::config::how_many;
use crate::control::ControlService;
use crate::session::Engine;
use services::{Fronts, start_background};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How often expired grants and suspensions are looked for.
const EXPIRY_ROUNDS: Duration = Duration::from_secs(5);

/// What is left to do when nothing is open any more (responses to write, counts on their way to the disk) has this long.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs all services until `stop` resolves; then refuses new milter sessions, waits for open transactions for up to the
/// drain time, and ends. `control` answers administrators; `supervisor` may run more tasks.
///
/// # Errors
/// A task has ended that must not: the daemon stops as it would otherwise, and must be started again.
pub async fn run(
    engine: Arc<Engine>,
    sockets: Sockets,
    control: Arc<ControlService>,
    mut supervisor: Supervisor,
    stop: impl Future<Output = ()>,
) -> Result<(), TaskEnded> {
    let mut fronts = Fronts::start(&engine, sockets, control, &supervisor);
    start_background(&engine, &fronts.policy, &mut supervisor);
    service_manager::ready(&engine);
    let outcome = tokio::select! {
        () = stop => Ok(()),
        ended = supervisor.failure() => Err(ended),
    };
    if let Err(ended) = &outcome {
        engine.log.error(ended);
    }
    fronts.refuse_new_sessions();
    drain(&engine, fronts.milter_sessions_over()).await;
    fronts.close().await;
    let _ = timeout(LAST_WRITES, engine.ledger.close()).await;
    if let Some(decisions) = engine.decisions() {
        decisions.flush(LAST_WRITES);
    }
    supervisor.end().await;
    outcome
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
    service_manager::stopping(&match open {
        0 => "stopping".to_owned(),
        _ => format!("stopping: waiting up to {} s for {}", drain.as_secs(), how_many(open, "open transaction")),
    });
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
