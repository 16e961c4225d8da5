//! What a daemon runs: the services on its sockets, and the tasks beside them.

use super::{LAST_WRITES, Sockets, end_expired, observe};
use crate::control::ControlService;
use crate::listen::{self, Listener, Phase, Service};
use crate::milter::MilterService;
use crate::policy_service::PolicyService;
use crate::session::Engine;
use crate::socketmap::SocketmapService;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The services on all sockets.
pub(super) struct Fronts {
    pub policy: Arc<PolicyService>,
    /// Milter sessions end with their transactions.
    milters: Group,
    /// What answers while transactions go on: Postfix asks about the end of a message over another connection than about its
    /// recipients (each check_policy_service has its own), perhaps a new one; and permission to relay may come from a
    /// socketmap table.
    lookups: Group,
    administrators: Group,
}

impl Fronts {
    pub fn start(engine: &Arc<Engine>, sockets: Sockets, control: Arc<ControlService>) -> Fronts {
        let policy = PolicyService::new(engine.clone());
        policy.remember_mtas_in(engine.snapshot().settings.store.path());
        let milter = MilterService::new(engine.clone(), !sockets.policy.is_empty());
        let socketmap = SocketmapService::new(engine.clone());
        let (mut milters, mut lookups, mut administrators) = (Group::new(), Group::new(), Group::new());
        milters.serve(&milter, sockets.milter);
        lookups.serve(&policy, sockets.policy);
        lookups.serve(&socketmap, sockets.socketmap);
        administrators.serve(&control, sockets.control);
        Fronts { policy, milters, lookups, administrators }
    }

    /// MTAs and administrators are turned away, or wait for the next daemon. SMTP sessions that are open go on.
    pub fn refuse_new_sessions(&self) {
        self.milters.phase.send_replace(Phase::Draining);
        self.administrators.phase.send_replace(Phase::Draining);
    }

    /// Resolves when the last SMTP session of a milter is over.
    pub async fn milter_sessions_over(&mut self) {
        while self.milters.listeners.join_next().await.is_some() {}
    }

    /// Closes every connection once its response is written, and ends what no MTA will end.
    pub async fn close(self) {
        self.lookups.close().await;
        let _ = timeout(LAST_WRITES, self.policy.finish()).await;
        self.milters.close().await;
        self.administrators.close().await;
    }
}

/// Listeners that stop together.
struct Group {
    phase: watch::Sender<Phase>,
    listeners: JoinSet<()>,
}

impl Group {
    fn new() -> Group {
        Group { phase: watch::Sender::default(), listeners: JoinSet::new() }
    }

    fn serve<S: Service>(&mut self, service: &Arc<S>, listeners: impl IntoIterator<Item = Listener>) {
        for listener in listeners {
            self.listeners.spawn(listen::serve(service.clone(), listener, self.phase.subscribe()));
        }
    }

    async fn close(self) {
        self.phase.send_replace(Phase::Closing);
        let _ = timeout(LAST_WRITES, self.listeners.join_all()).await;
    }
}

/// What runs beside the services.
pub(super) struct Background(JoinSet<()>);

impl Background {
    pub fn start(engine: &Arc<Engine>, policy: Arc<PolicyService>) -> Background {
        let mut tasks = JoinSet::new();
        let with_mtas = policy.clone();
        tasks.spawn(async move { with_mtas.remember_mtas().await });
        tasks.spawn(async move { policy.sweep().await });
        tasks.spawn(observe(engine));
        tasks.spawn(end_expired(engine.clone()));
        Background(tasks)
    }

    pub async fn end(mut self) {
        self.0.shutdown().await;
    }
}
