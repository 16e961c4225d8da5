//! The daemon's side of the control socket.

use super::protocol::{Answer, Command, MAX_LINE};
use super::quota::{find_subject, top, usage};
use super::status::Status;
use crate::audit::Action;
use crate::audit::{Actor, Instruction};
use crate::session::Engine;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};

/// How long an administrator's command may take to come in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request to read the configuration again; answered with what there is to say, good or bad.
#[derive(Debug)]
pub struct Reload {
    pub by: Actor,
    pub why: String,
    pub answer: oneshot::Sender<Result<String, String>>,
}

/// Answers administrators.
pub struct ControlService {
    pub(super) engine: Arc<Engine>,
    reload: mpsc::Sender<Reload>,
    started: Instant,
}

impl ControlService {
    pub fn new(engine: Arc<Engine>, reload: mpsc::Sender<Reload>) -> ControlService {
        ControlService { engine, reload, started: Instant::now() }
    }

    /// Answers one connection: one command a line, until it is closed. `who` is at its other end.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, who: Actor) {
        let (reading, mut writing) = tokio::io::split(stream);
        let mut lines = BufReader::new(reading);
        loop {
            let mut line = String::new();
            let mut bounded = (&mut lines).take(MAX_LINE as u64);
            let read = bounded.read_line(&mut line);
            match tokio::time::timeout(PATIENCE, read).await {
                Ok(Ok(length)) if length > 0 => {}
                _ => return,
            }
            let answer = match serde_json::from_str(&line) {
                Ok(command) => self.answer(command, &who).await,
                Err(error) => Answer::No { words: format!("not a command of this version: {error}") },
            };
            let Ok(mut text) = serde_json::to_string(&answer) else { return };
            text.push('\n');
            if writing.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, command: Command, who: &Actor) -> Answer {
        match command {
            Command::QuotaShow { names } => self.quota_show(&names).await,
            Command::QuotaReset { name, why } => self.quota_reset(&name, self.instruction(who, why)).await,
            Command::QuotaTop { limits, most } => match top(&limits, most, &self.engine).await {
                Ok((top, missing)) => Answer::Top { top, missing },
                Err(error) => Answer::No { words: error.to_string() },
            },
            Command::Grant { name, limit, more, until, why } => {
                self.grant(&name, limit, more, until, self.instruction(who, why)).await
            }
            Command::Grants => self.grants(),
            Command::Suspend { kind, name, why } => self.suspend(kind, &name, self.instruction(who, why)).await,
            Command::Resume { kind, name, why } => self.resume(kind, &name, self.instruction(who, why)).await,
            Command::Status => Answer::Status { status: Box::new(Status::of(&self.engine, self.started.elapsed())) },
            Command::Reload { why } => self.reload(who, why).await,
        }
    }

    fn instruction(&self, who: &Actor, why: String) -> Instruction {
        Instruction { by: who.clone(), at: self.engine.wall_time(), why }
    }

    async fn quota_show(&self, names: &[String]) -> Answer {
        let snapshot = self.engine.snapshot();
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let found = match find_subject(name, &snapshot.directory) {
                Ok((subject, customer)) => usage(&subject, &customer, &self.engine).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(usage) => all.push(usage),
                Err(error) => return Answer::No { words: error.to_string() },
            }
        }
        Answer::Usage { usage: all }
    }

    async fn quota_reset(&self, name: &str, order: Instruction) -> Answer {
        let snapshot = self.engine.snapshot();
        let subject = match find_subject(name, &snapshot.directory) {
            Ok((subject, _)) => subject,
            Err(error) => return Answer::No { words: error.to_string() },
        };
        let (administration, action) = (&self.engine.administration, Action::QuotaReset { subject: subject.clone() });
        let receipt = match administration.record(order.clone(), action).await {
            Ok(receipt) => receipt,
            Err(error) => return Answer::No { words: error.to_string() },
        };
        if let Err(error) = self.engine.ledger.reset(&subject, &order.why).await {
            let mut words = error.to_string();
            if let Err(error) = administration.record_failure(order, &receipt, words.clone()).await {
                words = format!("{words}; and that could not be recorded: {error}");
            }
            return Answer::No { words };
        }
        self.log_order("quota-reset", &subject, &order, &receipt);
        Answer::Done { words: format!("{} {}: its counts begin anew", subject.kind.key(), subject.name) }
    }

    async fn reload(&self, who: &Actor, why: String) -> Answer {
        let (answer, outcome) = oneshot::channel();
        if self.reload.send(Reload { by: who.clone(), why, answer }).await.is_err() {
            return Answer::No { words: "the daemon is stopping".to_owned() };
        }
        match outcome.await {
            Ok(Ok(words)) => Answer::Done { words },
            Ok(Err(words)) => Answer::No { words },
            Err(_) => Answer::No { words: "the daemon is stopping".to_owned() },
        }
    }
}
