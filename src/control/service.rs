//! The daemon's side of the control socket.

use super::protocol::{Command, MAX_LINE, Response};
use super::quota::{find_subject, top, usage};
use super::status::Status;
use crate::administration::Receipt;
use crate::audit::Action;
use crate::audit::{Actor, Instruction};
use crate::listen::{Bounds, FaultLog, Frame, Next, Origin, Protocol, Service, Shares, serve_stream};
use crate::report::{Level, LogLine};
use crate::session::{Engine, EventFilter};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// How long an answer may wait for an event.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// A request to read the configuration again; answered with what there is to say, good or bad.
#[derive(Debug)]
pub struct Reload {
    pub by: Actor,
    pub why: String,
    /// Go on even if no customer is left.
    pub allow_no_customers: bool,
    pub answer: oneshot::Sender<Result<String, String>>,
}

/// Answers administrators.
pub struct ControlService {
    pub(super) engine: Arc<Engine>,
    reload: mpsc::Sender<Reload>,
    started: Instant,
    /// The addresses of all sockets.
    listening: Vec<String>,
    faults: FaultLog,
}

/// A connection of an administrator: one command a line.
pub struct ControlConnection {
    service: Arc<ControlService>,
    who: Actor,
}

/// A line without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed request: longer than {MAX_LINE} bytes")]
pub struct LineTooLong;

impl Service for ControlService {
    type Connection = ControlConnection;

    const SHARES: Shares = Shares::of(32, 16 * 1024 * 1024);

    fn open(self: &Arc<Self>, origin: Origin, _: &Arc<str>) -> ControlConnection {
        let who = origin.process.map_or(Actor::Unknown, |process| Actor::of_uid(process.uid));
        ControlConnection { service: self.clone(), who }
    }

    fn faults(&self) -> &FaultLog {
        &self.faults
    }
}

impl Protocol for ControlConnection {
    type Error = LineTooLong;

    const BOUNDS: Bounds = Bounds {
        request_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(10),
        idle_buffer: 1024,
        gather_responses: false,
        one_write_per_request: true,
        secret_responses: false,
    };

    fn frame(input: &[u8], searched: usize) -> Result<Frame, LineTooLong> {
        match memchr::memchr(b'\n', &input[searched..]) {
            Some(at) if searched + at < MAX_LINE => {
                Ok(Frame::Complete { content: 0..searched + at, length: searched + at + 1 })
            }
            None if input.len() < MAX_LINE => Ok(Frame::Partial { missing: input.len() }),
            _ => Err(LineTooLong),
        }
    }

    async fn respond(&mut self, line: &[u8], output: &mut Vec<u8>) -> Result<Next, LineTooLong> {
        let response = match serde_json::from_slice(line) {
            Ok(command) => self.service.answer(command, &self.who).await,
            Err(error) => Response::No { words: format!("not a command of this version: {error}") },
        };
        match serde_json::to_writer(&mut *output, &response) {
            Ok(()) => output.push(b'\n'),
            Err(_) => return Ok(Next::Close),
        }
        Ok(Next::Continue)
    }
}

impl ControlService {
    pub fn new(engine: Arc<Engine>, reload: mpsc::Sender<Reload>) -> Arc<ControlService> {
        let faults = FaultLog::new("control", &engine.log);
        // Changes of `[listen]` take effect after a restart.
        let listening =
            engine.snapshot().settings.listen.addresses().map(|(_, _, address)| address.to_string()).collect();
        Arc::new(ControlService { engine, reload, started: Instant::now(), listening, faults })
    }

    /// Serves one connection until it is closed.
    pub async fn serve_connection(self: &Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, origin: Origin) {
        serve_stream(stream, origin, self.open(origin, &Arc::from("")), &self.faults).await;
    }

    async fn answer(&self, command: Command, who: &Actor) -> Response {
        match command {
            Command::QuotaShow { names } => self.quota_show(&names).await,
            Command::QuotaReset { name, why } => self.quota_reset(&name, self.instruction(who, why)).await,
            Command::ClockReset { why } => self.clock_reset(self.instruction(who, why)).await,
            Command::QuotaTop { limits, most, by } => match top(&limits, most, by, &self.engine).await {
                Ok((top, missing)) => Response::Top { top, missing },
                Err(error) => Response::No { words: error.to_string() },
            },
            Command::Grant { name, limit, more, until, why } => {
                self.grant(&name, limit, more, until, self.instruction(who, why)).await
            }
            Command::Grants => self.grants(),
            Command::Suspend { kind, name, why, until } => {
                self.suspend(kind, &name, until, self.instruction(who, why)).await
            }
            Command::Resume { kind, name, why } => self.resume(kind, &name, self.instruction(who, why)).await,
            Command::Status => self.status().await,
            Command::Watch { filter, seconds } => self.watch(filter, seconds),
            Command::Events { watch, wait_seconds } => self.events(watch, wait_seconds).await,
            Command::Reload { why, allow_no_customers } => self.reload(who, why, allow_no_customers).await,
        }
    }

    async fn status(&self) -> Response {
        let files = self.engine.snapshot().files.clone();
        // Looking at 100,000 files takes a while.
        let differences = tokio::task::spawn_blocking(move || files.differences()).await.unwrap_or_default();
        Response::Status {
            status: Box::new(Status {
                listening: self.listening.clone(),
                ..Status::of(&self.engine, self.started.elapsed(), differences)
            }),
        }
    }

    fn watch(&self, filter: EventFilter, seconds: u32) -> Response {
        match self.engine.events.watch(filter, Duration::from_secs(seconds.into())) {
            Ok(watch) => Response::Watching { watch },
            Err(error) => Response::No { words: error.to_string() },
        }
    }

    async fn events(&self, watch: u64, wait_seconds: u32) -> Response {
        let patience = Duration::from_secs(wait_seconds.into()).min(MAX_WAIT);
        match self.engine.events.fetch(watch, patience).await {
            Some((events, lost)) => Response::Events { events, lost, ended: false },
            None => Response::Events { events: Vec::new(), lost: 0, ended: true },
        }
    }

    fn instruction(&self, who: &Actor, why: String) -> Instruction {
        Instruction { by: who.clone(), at: self.engine.wall_time(), why }
    }

    async fn quota_show(&self, names: &[String]) -> Response {
        let snapshot = self.engine.snapshot();
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let found = match find_subject(name, &snapshot.directory) {
                Ok((subject, customer)) => usage(&subject, &customer, &self.engine).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(usage) => all.push(usage),
                Err(error) => return Response::No { words: error.to_string() },
            }
        }
        Response::Usage { usage: all }
    }

    async fn quota_reset(&self, name: &str, order: Instruction) -> Response {
        let snapshot = self.engine.snapshot();
        let subject = match find_subject(name, &snapshot.directory) {
            Ok((subject, _)) => subject,
            Err(error) => return Response::No { words: error.to_string() },
        };
        let (administration, action) = (&self.engine.administration, Action::QuotaReset { subject: subject.clone() });
        let receipt = match administration.record(order.clone(), action).await {
            Ok(receipt) => receipt,
            Err(error) => return Response::No { words: error.to_string() },
        };
        if let Err(error) = self.engine.ledger.reset(&subject, &order.why).await {
            return self.not_done(order, &receipt, error.to_string()).await;
        }
        let words = format!("{} {}: its usage was reset", subject.kind.key(), subject.name);
        self.log_order("quota-reset", &subject.into(), &order, &receipt);
        Response::Done { words }
    }

    async fn clock_reset(&self, order: Instruction) -> Response {
        let receipt = match self.engine.administration.record(order.clone(), Action::ClockReset).await {
            Ok(receipt) => receipt,
            Err(error) => return Response::No { words: error.to_string() },
        };
        match self.engine.ledger.accept_clocks().await {
            Ok(lines) => {
                for line in &lines {
                    let line = LogLine::event("clock-reset")
                        .field("by", &order.by)
                        .field("audit", &receipt)
                        .optional("why", Some(&order.why).filter(|why| !why.is_empty()))
                        .field("done", line);
                    self.engine.log.write(Level::Info, line);
                }
                Response::Done { words: lines.join("\n") }
            }
            Err(error) => self.not_done(order, &receipt, error.to_string()).await,
        }
    }

    /// Records that an order was not carried out after all.
    async fn not_done(&self, order: Instruction, receipt: &Receipt, mut words: String) -> Response {
        if let Err(error) = self.engine.administration.record_failure(order, receipt, words.clone()).await {
            words = format!("{words}; and that could not be recorded: {error}");
        }
        Response::No { words }
    }

    async fn reload(&self, who: &Actor, why: String, allow_no_customers: bool) -> Response {
        let (answer, outcome) = oneshot::channel();
        if self.reload.send(Reload { by: who.clone(), why, allow_no_customers, answer }).await.is_err() {
            return Response::No { words: "the daemon is stopping".to_owned() };
        }
        match outcome.await {
            Ok(Ok(words)) => Response::Done { words },
            Ok(Err(words)) => Response::No { words },
            Err(_) => Response::No { words: "the daemon is stopping".to_owned() },
        }
    }
}
