//! The daemon: sockets, services and signals around the [`Engine`], from start to a graceful stop.

mod files;
mod observer;
mod outages;
mod sockets;

pub use files::raise_open_files_limit;
pub use observer::observe;
pub use outages::{tell_of_advice, tell_of_outages};
pub use sockets::Sockets;

use crate::audit::Actor;
use crate::control::ControlService;
use crate::milter::MilterService;
use crate::policy_service::PolicyService;
use crate::session::Engine;
use crate::socketmap::SocketmapService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Policy connections at once on one socket; more wait to be accepted. Postfix runs 100 smtpd processes by default.
const MAX_POLICY_CONNECTIONS: usize = 4_096;

/// Socketmap connections at once on one socket; more wait to be accepted. Each of Postfix's processes that routes or
/// delivers has one for each table.
const MAX_SOCKETMAP_CONNECTIONS: usize = 4_096;

/// Control connections at once: administrators at work.
const MAX_CONTROL_CONNECTIONS: usize = 32;

/// How often grants that are over are looked for.
const GRANT_ROUNDS: Duration = Duration::from_secs(5);

/// What is left to do when nothing is open any more (answers to write, counts on their way to the disk) has this long.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs all services until `stop` resolves; then accepts no milter session any more, waits for open transactions up to
/// the drain time, and ends. `control` answers administrators.
pub async fn run(engine: Arc<Engine>, sockets: Sockets, control: ControlService, stop: impl Future<Output = ()>) {
    let (stop_accepting, accepting) = watch::channel(false);
    // Postfix asks about the end of a message over another connection than about its recipients (each
    // check_policy_service has its own), perhaps a new one: the policy service is there until all transactions have ended.
    let (stop_policy, policy_accepting) = watch::channel(false);
    let (end_sessions, sessions_end) = watch::channel(false);
    let policy = PolicyService::new(engine.clone());
    let milter = MilterService::new(engine.clone(), !sockets.policy.is_empty());
    let mut services = JoinSet::new();
    let mut milters = JoinSet::new();
    for listener in sockets.milter {
        let (milter, accepting, mut sessions_end) = (milter.clone(), accepting.clone(), sessions_end.clone());
        milters.spawn(async move {
            let stop = async move { sessions_end.wait_for(|end| *end).await.map(|_| ()) };
            milter.serve(listener, accepting, stop).await
        });
    }
    for listener in sockets.policy {
        let policy = policy.clone();
        let serve = move |mut stream: crate::listen::Stream| {
            let policy = policy.clone();
            // A request is written in one piece and answered at once.
            stream.acknowledge_late();
            async move {
                let peer = stream.peer();
                policy.serve(stream, peer).await;
            }
        };
        services.spawn(sockets::accept(listener, MAX_POLICY_CONNECTIONS, policy_accepting.clone(), serve));
    }
    let socketmap = SocketmapService::new(engine.clone());
    for listener in sockets.socketmap {
        let socketmap = socketmap.clone();
        let serve = move |mut stream: crate::listen::Stream| {
            let socketmap = socketmap.clone();
            // A request is written in one piece and answered at once.
            stream.acknowledge_late();
            async move {
                let peer = stream.peer();
                socketmap.serve(stream, peer).await;
            }
        };
        // As long as policy requests: permission to relay may come from here.
        services.spawn(sockets::accept(listener, MAX_SOCKETMAP_CONNECTIONS, policy_accepting.clone(), serve));
    }
    if let Some(listener) = sockets.control {
        let control = Arc::new(control);
        let serve = move |stream: crate::listen::Stream| {
            let control = control.clone();
            async move {
                let who = stream.peer_uid().map_or(Actor::Unknown, Actor::of_uid);
                control.serve(stream, who).await
            }
        };
        services.spawn(sockets::accept(listener, MAX_CONTROL_CONNECTIONS, accepting.clone(), serve));
    }
    services.spawn({
        let policy = policy.clone();
        async move { policy.sweep().await }
    });

    services.spawn(observe(&engine));
    services.spawn(end_grants(engine.clone()));

    stop.await;
    let _ = stop_accepting.send(true);
    drain(&engine).await;
    let _ = stop_policy.send(true);
    let _ = tokio::time::timeout(LAST_WRITES, policy.finish()).await;
    let _ = tokio::time::timeout(LAST_WRITES, socketmap.finish()).await;
    let _ = end_sessions.send(true);
    let _ = tokio::time::timeout(LAST_WRITES, milters.join_all()).await;
    let _ = tokio::time::timeout(LAST_WRITES, engine.ledger.close()).await;
    if let Some(decisions) = engine.decisions() {
        decisions.flush(LAST_WRITES);
    }
    services.shutdown().await;
}

/// Tells the audit log, soon after, that the time of a grant is over.
async fn end_grants(engine: Arc<Engine>) {
    let mut trouble = String::new();
    loop {
        tokio::time::sleep(GRANT_ROUNDS).await;
        let words = engine.administration.end_grants(engine.wall_time()).await.err().map(|error| error.to_string());
        let words = words.unwrap_or_default();
        if !words.is_empty() && words != trouble {
            engine.log.error(format_args!("the end of a grant is not recorded: {words}"));
        }
        trouble = words;
    }
}

async fn drain(engine: &Engine) {
    let open = engine.open_transactions.count();
    let patience = engine.snapshot().settings.relay.drain;
    if open > 0 {
        engine.log.info(format_args!("stopping: waiting up to {} s for {open} open transactions", patience.as_secs()));
    }
    if tokio::time::timeout(patience, engine.open_transactions.none()).await.is_err() {
        let left = engine.open_transactions.count();
        engine.log.warn(format_args!("{left} transactions were still open after {} s and are cut", patience.as_secs()));
    }
}
