//! Serves milter sessions on a listener until told to stop.

use super::callbacks::callbacks;
use super::frames::Frames;
use crate::listen::{Listener, Stream};
use crate::report::{Logger, OncePer};
use crate::session::Engine;
use indymilter::Config;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Sessions at once on one listener; more wait to be accepted. Postfix runs 100 smtpd processes by default.
const MAX_SESSIONS: usize = 4_096;

/// The milter service, whatever socket it is on.
pub struct MilterService {
    engine: Arc<Engine>,
    policy_too: bool,
    garbage: Arc<OncePer<()>>,
}

impl MilterService {
    /// `policy_too`: the policy service is switched on as well.
    pub fn new(engine: Arc<Engine>, policy_too: bool) -> MilterService {
        MilterService { engine, policy_too, garbage: Arc::new(OncePer::new(Duration::from_secs(60), 1)) }
    }

    /// Accepts sessions until `stop_accepting`, and ends when `stop` resolves and every answer under way is written.
    ///
    /// # Errors
    /// None in practice: [`Listener`] retries what goes wrong with accepting.
    pub async fn serve(
        &self,
        listener: Listener,
        stop_accepting: watch::Receiver<bool>,
        stop: impl Future,
    ) -> io::Result<()> {
        let stopping = Arc::new(AtomicBool::new(false));
        let listener = FrameListener {
            listener: Some(listener),
            stop_accepting: Box::pin(told_to_stop(stop_accepting)),
            stopping: stopping.clone(),
            log: self.engine.log.clone(),
            garbage: self.garbage.clone(),
        };
        let config = Config { max_connections: MAX_SESSIONS, ..Config::default() };
        let stop = async move {
            stop.await;
            stopping.store(true, Ordering::Release);
        };
        indymilter::run(listener, callbacks(self.engine.clone(), self.policy_too), config, stop).await
    }
}

/// Nobody tells any more: nobody wants it to stop.
async fn told_to_stop(mut stop_accepting: watch::Receiver<bool>) {
    if stop_accepting.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct FrameListener {
    /// None any more when told to stop: MTAs are turned away at once, and try again later.
    listener: Option<Listener>,
    stop_accepting: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Sessions are cut now, and that is no MTA's fault.
    stopping: Arc<AtomicBool>,
    log: Logger,
    garbage: Arc<OncePer<()>>,
}

impl indymilter::Listener for FrameListener {
    type Io = Frames<Stream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Io>> {
        let Some(listener) = &mut self.listener else { return Poll::Pending };
        if self.stop_accepting.as_mut().poll(cx).is_ready() {
            self.listener = None;
            return Poll::Pending;
        }
        listener.poll_accept(cx).map(|stream| {
            let (log, garbage, peer) = (self.log.clone(), self.garbage.clone(), stream.peer());
            let stopping = self.stopping.clone();
            Ok(Frames::new(stream, move |what| {
                if stopping.load(Ordering::Acquire) {
                    return;
                }
                if let Some(suppressed) = garbage.check((), Instant::now()) {
                    let more = if suppressed > 0 { format!(" ({suppressed} more like it)") } else { String::new() };
                    log.warn(format_args!("dropped a milter connection from {peer}: {what}{more}"));
                }
            }))
        })
    }
}
