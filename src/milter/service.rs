//! Serves milter connections on a listener until told to stop.

use super::command::Command;
use super::conversation::{Conversation, Flow};
use super::frames::Incoming;
use super::negotiation::Needs;
use super::trouble::Trouble;
use crate::listen::{Impatience, Listener, Patience, Peer, write_in_time};
use crate::report::{OncePer, and_more};
use crate::session::Engine;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

/// Connections at once on one listener; more wait to be accepted. Postfix runs 100 smtpd processes by default.
const MAX_CONNECTIONS: u32 = 4_096;

/// How long an MTA may take for a frame from its first byte to its last, and for the first frame of all after it
/// has connected.
const FRAME_TIME: Duration = Duration::from_secs(30);

/// How long an MTA may take to read an answer that it waits for.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// A connection that was silent for so long, or up to twice that, is closed: libmilter's own time limit is 7,210 s.
const IDLE: Duration = Duration::from_secs(7_200);

/// The milter service, whatever socket it is on.
pub struct MilterService {
    engine: Arc<Engine>,
    policy_too: bool,
    garbage: OncePer<()>,
}

impl MilterService {
    /// `policy_too`: a policy service may be asked about the same SMTP sessions. Then CONNECT is answered, and so is known
    /// here before any policy request about the session can come.
    pub fn new(engine: Arc<Engine>, policy_too: bool) -> Arc<MilterService> {
        Arc::new(MilterService { engine, policy_too, garbage: OncePer::new(Duration::from_secs(60), 1) })
    }

    /// Accepts connections until `stop_accepting`, and ends when `stop` resolves and every answer under way is written.
    pub async fn serve(
        self: Arc<Self>,
        mut listener: Listener,
        mut stop_accepting: watch::Receiver<bool>,
        stop: impl Future,
    ) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let (end_all, end) = watch::channel(false);
        let accept = async {
            loop {
                // Never closed: acquiring cannot fail.
                let permit = permits.clone().acquire_owned().await.ok();
                let stream = tokio::select! {
                    stream = listener.accept() => stream,
                    () = told(&mut stop_accepting) => break,
                };
                let (service, mut end) = (self.clone(), end.clone());
                tokio::spawn(async move {
                    let peer = stream.peer();
                    service.serve_connection(stream, peer, told(&mut end)).await;
                    drop(permit);
                });
            }
            // MTAs are turned away at once, and try again later.
            drop(listener);
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = accept => {}
            _ = stop => {}
        }
        let _ = end_all.send(true);
        // All permits are back when all connections are over.
        let _ = permits.acquire_many(MAX_CONNECTIONS).await;
    }

    /// Serves one connection until QUIT, its end, or `stop` between two frames.
    pub async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: Peer,
        stop: impl Future<Output = ()>,
    ) {
        if let Err(trouble) = self.converse(stream, stop).await
            && let Some(suppressed) = self.garbage.check((), std::time::Instant::now())
        {
            let more = and_more(suppressed);
            self.engine.log.warn(format_args!("dropped a milter connection from {peer}: {trouble}{more}"));
        }
    }

    async fn converse(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Trouble> {
        let (mut incoming, mut out) = (Incoming::new(), Vec::new());
        let mut conversation = Conversation::new(self.engine.clone(), self.needs());
        let mut stop = pin!(stop);
        // The first thing that is due is the negotiation.
        let mut patience = Patience::new(FRAME_TIME, IDLE);
        loop {
            let mut anew = false;
            while let Some(frame) = incoming.take()? {
                anew = true;
                if conversation.hear(Command::parse(frame)?, &mut out).await? == Flow::Over {
                    return Ok(());
                }
            }
            if !out.is_empty() {
                match write_in_time(&mut stream, &out, ANSWER_TIME).await {
                    Some(Ok(())) => out.clear(),
                    Some(Err(_)) => return Ok(()),
                    None => return Err(Trouble::NotTaken),
                }
            }
            patience.expect(!incoming.is_empty() || !conversation.has_begun(), anew);
            tokio::select! {
                biased;
                read = incoming.read(&mut stream) => match read {
                    Ok(0) | Err(_) if incoming.is_empty() => return Ok(()),
                    Ok(0) | Err(_) => return Err(Trouble::CutOff),
                    Ok(_) => patience.heard(),
                },
                () = &mut stop => return Ok(()),
                why = patience.end() => return match why {
                    Impatience::TooSlow => Err(Trouble::TooSlow),
                    Impatience::Silence => Ok(()),
                },
            }
        }
    }

    fn needs(&self) -> Needs {
        let snapshot = self.engine.snapshot();
        let settings = &snapshot.settings;
        let remove_headers = settings.abuse.as_ref().is_some_and(|abuse| abuse.marks.secret().is_some());
        let body = snapshot.directory.limits_sizes();
        let headers = body || settings.needs_headers();
        Needs { connect_answered: self.policy_too, headers, body, remove_headers }
    }
}

/// Resolves when told so. Nobody tells any more: nobody wants it.
async fn told(receiver: &mut watch::Receiver<bool>) {
    if receiver.wait_for(|told| *told).await.is_err() {
        std::future::pending::<()>().await;
    }
}
