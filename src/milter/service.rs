//! Serves milter sessions on a listener until told to stop.

use super::callbacks::callbacks;
use super::frames::Frames;
use crate::listen::{Listener, Stream};
use crate::report::OncePer;
use crate::session::Engine;
use indymilter::Config;
use std::future::Future;
use std::io;
use std::sync::Arc;
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
        let (engine, garbage) = (self.engine.clone(), self.garbage.clone());
        let listener = FrameListener { listener, stop_accepting, engine, garbage };
        let config = Config { max_connections: MAX_SESSIONS, ..Config::default() };
        indymilter::run(listener, callbacks(self.engine.clone(), self.policy_too), config, stop).await
    }
}

struct FrameListener {
    listener: Listener,
    stop_accepting: watch::Receiver<bool>,
    engine: Arc<Engine>,
    garbage: Arc<OncePer<()>>,
}

impl indymilter::Listener for FrameListener {
    type Io = Frames<Stream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Io>> {
        // `stop` resolves later and ends all: nothing has to be woken here.
        if *self.stop_accepting.borrow() {
            return Poll::Pending;
        }
        self.listener.poll_accept(cx).map(|stream| {
            let (log, garbage, peer) = (self.engine.log.clone(), self.garbage.clone(), stream.peer());
            Ok(Frames::new(stream, move |what| {
                if let Some(suppressed) = garbage.check((), Instant::now()) {
                    let more = if suppressed > 0 { format!(" ({suppressed} more like it)") } else { String::new() };
                    log.warn(format_args!("dropped a milter connection from {peer}: {what}{more}"));
                }
            }))
        })
    }
}
