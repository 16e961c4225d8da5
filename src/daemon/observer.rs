//! Connects transactions with those who act on what they report: the response to abuse, and the letters.

use crate::abuse::{self, Suspect};
use crate::clock::Moment;
use crate::config::{AbuseSettings, OnAbuse};
use crate::directory::{Customer, Parties, SubjectKind};
use crate::ledger::{LimitStanding, NearLimit};
use crate::notify::{self, AbuseNotice, Notices};
use crate::session::{Engine, Observer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Suspects that may wait for a response. What finds no room comes again with the next message.
const QUEUE: usize = 1_024;

struct DaemonObserver {
    notices: Notices,
    suspects: mpsc::Sender<Suspected>,
}

struct Suspected {
    customer: Arc<Customer>,
    suspect: Suspect,
    window: Duration,
    on_abuse: OnAbuse,
}

/// Observes transactions from now on. The future responds and sends letters, for as long as the daemon runs.
pub fn observe(engine: &Arc<Engine>) -> impl Future<Output = ()> + Send + use<> {
    let (notices, letters) = notify::notices(engine);
    let (suspects, queue) = mpsc::channel(QUEUE);
    engine.set_observer(Arc::new(DaemonObserver { notices: notices.clone(), suspects }));
    let engine = engine.clone();
    async move {
        tokio::join!(letters.run(), respond_to_abuse(&engine, queue, &notices));
    }
}

impl Observer for DaemonObserver {
    fn limits_near(&self, customer: &Arc<Customer>, parties: &Parties, near: &[NearLimit], at: Moment) {
        self.notices.limits_near(customer, parties, near, at);
    }

    fn limits_exceeded(&self, customer: &Arc<Customer>, parties: &Parties, exceeded: &[LimitStanding], at: Moment) {
        self.notices.limits_exceeded(customer, parties, exceeded, at);
    }

    fn signs_of_abuse(&self, customer: &Arc<Customer>, suspect: Suspect, settings: &AbuseSettings, at: Moment) {
        let suspends = settings.on_abuse == OnAbuse::Suspend && suspect.subject.kind == SubjectKind::User;
        if suspends || self.notices.is_abuse_news(&suspect.subject, at) {
            let (customer, window, on_abuse) = (customer.clone(), settings.window, settings.on_abuse);
            let _ = self.suspects.try_send(Suspected { customer, suspect, window, on_abuse });
        }
    }
}

async fn respond_to_abuse(engine: &Engine, mut queue: mpsc::Receiver<Suspected>, notices: &Notices) {
    while let Some(Suspected { customer, suspect, window, on_abuse }) = queue.recv().await {
        let (administration, at, log) = (&engine.administration, engine.wall_time(), &engine.log);
        if let Some(done) = abuse::respond(&suspect, window, on_abuse, administration, at, log).await {
            notices.abuse(AbuseNotice { customer, suspect, window, done });
        }
    }
}
