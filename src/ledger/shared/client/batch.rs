//! Requests share calls: while some are on their way, others gather, and go together when an answer comes.
//!
//! Most of what a call costs both sides is the call, not the request. A request that finds nothing under way goes at once,
//! by itself, so one session waits for nobody. In a cluster each goes by itself: the keys of a call have to lie in one slot.

use super::connection::Connection;
use crate::ledger::shared::protocol::ServerTime;
use crate::ledger::shared::protocol::scripts::{Asked, Call};
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::unconstrained;

/// About so many calls are under way while many ask, so that neither the server nor we wait for the other: what waits goes
/// once it is such a part of what is under way. While few ask nearly each request goes by itself.
const CALLS: usize = 4;
/// Requests in a call at most, and about how many bytes of them: while a call runs the server does nothing else.
const MOST: usize = 32;
const MOST_BYTES: usize = 16_384;

/// The requests on one connection.
pub(in crate::ledger::shared) struct Batcher {
    connection: Connection,
    is_of_cluster: bool,
    time: ServerTime,
    queue: Mutex<Queue>,
}

/// If any wait, then there is a call under way: its end sees to them.
#[derive(Default)]
struct Queue {
    /// Requests.
    in_flight: usize,
    waiting: VecDeque<Waiting>,
}

impl Queue {
    fn is_worth_a_call(&self) -> bool {
        self.waiting.len() * CALLS >= self.in_flight
    }
}

struct Waiting {
    asked: Arc<Asked>,
    answer: oneshot::Sender<RedisResult<Value>>,
}

/// So many requests that are under way.
struct InFlight(Arc<Batcher>, usize);

type BatchFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Batcher {
    pub fn new(connection: Connection, is_of_cluster: bool, time: ServerTime) -> Batcher {
        Batcher { connection, is_of_cluster, time, queue: Mutex::default() }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What is asked first arrives first. An asker that is gone before its request was sent has not asked.
    ///
    /// # Errors
    /// Of this request, or of the call that it shared with others.
    pub async fn ask(self: &Arc<Batcher>, asked: &Arc<Asked>) -> RedisResult<Value> {
        if self.is_of_cluster {
            return self.call(&[asked], false).await.and_then(Value::extract_error);
        }
        let (_turn, answer) = match self.enter(asked) {
            Place::Own(turn) => (turn, self.call(&[asked], false).await),
            Place::Shared(answer) => (None, answer.await.unwrap_or_else(|_| Err(unanswered()))),
        };
        answer.and_then(Value::extract_error)
    }

    /// As [`Batcher::ask`], of a slot that is on its way to this node.
    ///
    /// # Errors
    /// Of this request.
    pub async fn ask_for_moving_slot(&self, asked: &Arc<Asked>) -> RedisResult<Value> {
        self.call(&[asked], true).await.and_then(Value::extract_error)
    }

    fn enter(self: &Arc<Batcher>, asked: &Arc<Asked>) -> Place {
        let mut queue = self.queue.lock();
        if !asked.shares() {
            let mut batch = Vec::new();
            while let Some(next) = self.send(&mut queue) {
                batch.push(next);
            }
            drop(queue);
            batch.into_iter().for_each(spawn);
            return Place::Own(None);
        }
        if queue.in_flight == 0 {
            queue.in_flight = 1;
            return Place::Own(Some(InFlight(self.clone(), 1)));
        }
        let (answer, receiver) = oneshot::channel();
        queue.waiting.push_back(Waiting { asked: asked.clone(), answer });
        let batch = if queue.is_worth_a_call() { self.send(&mut queue) } else { None };
        drop(queue);
        batch.into_iter().for_each(spawn);
        Place::Shared(receiver)
    }

    /// Sends a call with the first that wait. What is returned brings the answers, and has to be spawned without the lock.
    fn send(self: &Arc<Batcher>, queue: &mut Queue) -> Option<BatchFuture> {
        let (mut together, mut bytes) = (Vec::new(), 0);
        while let Some(next) = queue.waiting.front() {
            bytes += next.asked.size();
            if together.len() == MOST || (bytes > MOST_BYTES && !together.is_empty()) {
                break;
            }
            let next = queue.waiting.pop_front();
            together.extend(next.filter(|next| !next.answer.is_closed()));
        }
        if together.is_empty() {
            return None;
        }
        queue.in_flight += together.len();
        let mut batch: BatchFuture = Box::pin(unconstrained(self.clone().run_batch(together)));
        // Into the connection's queue, before whatever is asked next. This does not end it.
        let _ = batch.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Some(batch)
    }

    async fn run_batch(self: Arc<Batcher>, together: Vec<Waiting>) {
        let _turn = InFlight(self.clone(), together.len());
        let answer = {
            let requests: Vec<&Arc<Asked>> = together.iter().map(|waiting| &waiting.asked).collect();
            let mut call = pin!(self.call(&requests, false));
            let sent = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
            pause().await;
            match sent {
                Poll::Ready(answer) => answer,
                Poll::Pending => call.await,
            }
        };
        hand_out(answer, together);
    }

    async fn call(&self, requests: &[&Arc<Asked>], slot_moves: bool) -> RedisResult<Value> {
        let call = Call { requests, time: self.time.as_told() };
        let answer = self.send_command(&call.by_digest(), slot_moves).await;
        match is_unknown_script(&answer) {
            true => self.send_command(&call.in_full(), slot_moves).await,
            false => answer,
        }
    }

    async fn send_command(&self, command: &Cmd, slot_moves: bool) -> RedisResult<Value> {
        match slot_moves {
            true => self.connection.send_for_moving_slot(command).await,
            false => self.connection.send(command).await,
        }
    }
}

/// How a request goes.
enum Place {
    /// By itself; a turn if others wait for it.
    Own(Option<InFlight>),
    Shared(oneshot::Receiver<RedisResult<Value>>),
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let InFlight(batcher, ended) = self;
        let mut queue = batcher.queue.lock();
        queue.in_flight -= *ended;
        let batch = if queue.is_worth_a_call() { batcher.send(&mut queue) } else { None };
        drop(queue);
        batch.into_iter().for_each(spawn);
    }
}

/// Where there is no runtime any more nobody waits either.
fn spawn(batch: BatchFuture) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(batch);
    }
}

/// To each its own.
fn hand_out(answer: RedisResult<Value>, together: Vec<Waiting>) {
    let is_one = together.len() == 1;
    let mut answers = match answer {
        Ok(Value::Array(answers)) if !is_one && answers.len() == together.len() => answers.into_iter(),
        other => {
            for waiting in together {
                let _ = waiting.answer.send(match &other {
                    Ok(value) if is_one => Ok(value.clone()),
                    Ok(Value::ServerError(error)) => Err(error.clone().into()),
                    Ok(_) => Err(RedisError::from((
                        ErrorKind::UnexpectedReturnType,
                        "the answers are not as many as the requests",
                    ))),
                    Err(error) => Err(error.clone()),
                });
            }
            return;
        }
    };
    for waiting in together {
        let _ = waiting.answer.send(answers.next().ok_or_else(unanswered));
    }
}

/// The server does not know the script that it was asked for by its digest.
fn is_unknown_script(answer: &RedisResult<Value>) -> bool {
    let kind = match answer {
        Err(error) => error.kind(),
        Ok(Value::ServerError(error)) => RedisError::from(error.clone()).kind(),
        Ok(_) => return false,
    };
    kind == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn unanswered() -> RedisError {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection was given up").into()
}

/// Is pending once: what is sent with the queue locked must not end there, because its end locks the queue.
async fn pause() {
    let mut is_over = false;
    poll_fn(|_| if std::mem::replace(&mut is_over, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
