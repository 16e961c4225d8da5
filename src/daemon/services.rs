//! What a daemon runs: the services on its sockets, and the tasks beside them.

use super::supervisor::{Supervisor, Watched};
use super::{LAST_WRITES, Sockets, end_expired, observe, service_manager};
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
    /// What answers until all transactions have ended: Postfix asks about the end of a message over another connection than about its
    /// recipients (each check_policy_service has its own), perhaps a new one; and permission to relay may come from a
    /// socketmap table.
    lookups: Group,
    administrators: Group,
}

impl Fronts {
    pub fn start(
        engine: &Arc<Engine>,
        sockets: Sockets,
        control: Arc<ControlService>,
        supervisor: &Supervisor,
    ) -> Fronts {
        let policy = PolicyService::new(engine.clone());
        policy.remember_mtas_in(engine.snapshot().settings.store.path());
        let milter = MilterService::new(engine.clone(), !sockets.policy.is_empty());
        let socketmap = SocketmapService::new(engine.clone());
        let (mut milters, mut lookups, mut administrators) = (Group::new(), Group::new(), Group::new());
        milters.serve(&milter, sockets.milter, || supervisor.watch("the milter service"));
        lookups.serve(&policy, sockets.policy, || supervisor.watch("the policy service"));
        lookups.serve(&socketmap, sockets.socketmap, || supervisor.watch("the socketmap service"));
        administrators.serve(&control, sockets.control, || supervisor.watch("the control service"));
        Fronts { policy, milters, lookups, administrators }
    }

    /// New connections of MTAs and administrators are refused, or wait for the next daemon. Open SMTP sessions continue.
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

    fn serve<S: Service>(
        &mut self,
        service: &Arc<S>,
        listeners: impl IntoIterator<Item = Listener>,
        watch: impl Fn() -> Watched,
    ) {
        for listener in listeners {
            let (serve, watched) = (listen::serve(service.clone(), listener, self.phase.subscribe()), watch());
            self.listeners.spawn(async move {
                serve.await;
                watched.done();
            });
        }
    }

    async fn close(self) {
        self.phase.send_replace(Phase::Closing);
        let _ = timeout(LAST_WRITES, self.listeners.join_all()).await;
    }
}

/// Starts what runs beside the services.
pub(super) fn start_background(engine: &Arc<Engine>, policy: &Arc<PolicyService>, supervisor: &mut Supervisor) {
    let with_mtas = policy.clone();
    supervisor.restarting("the memory of MTAs with milters", move || {
        let policy = with_mtas.clone();
        async move { policy.remember_mtas().await }
    });
    let swept = policy.clone();
    supervisor.restarting("the sweep of silent SMTP sessions", move || {
        let policy = swept.clone();
        async move { policy.sweep().await }
    });
    let observed = engine.clone();
    supervisor.restarting("the response to abuse and limits", move || observe(&observed));
    let expiring = engine.clone();
    supervisor.restarting("the expiry of grants and suspensions", move || end_expired(expiring.clone()));
    let alive = engine.clone();
    supervisor.restarting("the watchdog", move || service_manager::watchdog(alive.clone()));
}
