//! Batching: while some requests are in flight on a connection, others gather, and share one call when a response arrives.
//!
//! Most of what a call costs both sides is the call, not the request. A request that finds nothing in flight goes at once,
//! by itself, so a single session waits for nobody. In a Cluster every request goes by itself: the keys of a call must lie in
//! one slot.

use super::connection::Connection;
use super::store_clock::{NodeClock, StoreClock};
use crate::ledger::shared::protocol::call::ScriptCall;
use crate::ledger::shared::protocol::request::Request;
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

/// About how many calls are in flight under load, so that neither the server nor the daemon waits for the other: what is
/// queued goes once it is this fraction of what is in flight. Under light load nearly each request goes by itself.
const CALLS_IN_FLIGHT: usize = 4;
/// Requests in a call at most, and about how many bytes: while a call runs the server does nothing else.
const MAX_REQUESTS: usize = 32;
const MAX_BYTES: usize = 16_384;

/// The requests on one connection.
pub(in crate::ledger::shared) struct Batcher {
    connection: Connection,
    /// Each request by itself.
    is_cluster: bool,
    clocks: (Arc<StoreClock>, Arc<NodeClock>),
    queue: Mutex<Queue>,
}

/// While any request is queued a call is in flight, whose end sends it.
#[derive(Default)]
struct Queue {
    /// Requests, not calls.
    in_flight: usize,
    queued: VecDeque<Queued>,
}

impl Queue {
    fn is_worth_a_call(&self) -> bool {
        self.queued.len() * CALLS_IN_FLIGHT >= self.in_flight
    }
}

struct Queued {
    request: Arc<Request>,
    response: oneshot::Sender<RedisResult<Value>>,
}

/// This many requests are in flight until it is dropped.
struct InFlight(Arc<Batcher>, usize);

type BatchFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Batcher {
    pub fn new(connection: Connection, is_cluster: bool, clocks: (Arc<StoreClock>, Arc<NodeClock>)) -> Batcher {
        Batcher { connection, is_cluster, clocks, queue: Mutex::default() }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends a request; what was sent first arrives first. A request whose caller is gone before it was written is not sent.
    ///
    /// # Errors
    /// Of this request, or of the call that it shared with others.
    pub async fn send(self: &Arc<Batcher>, request: &Arc<Request>) -> RedisResult<Value> {
        if self.is_cluster {
            return self.call(&[request], false).await.and_then(Value::extract_error);
        }
        let (_in_flight, response) = match self.enter(request) {
            Route::Alone(in_flight) => (in_flight, self.call(&[request], false).await),
            Route::Batched(response) => (None, response.await.unwrap_or_else(|_| Err(connection_lost()))),
        };
        response.and_then(Value::extract_error)
    }

    /// As [`Batcher::send`], for a slot that is migrating to this node.
    ///
    /// # Errors
    /// Of this request.
    pub async fn send_asking(&self, request: &Arc<Request>) -> RedisResult<Value> {
        self.call(&[request], true).await.and_then(Value::extract_error)
    }

    /// As [`Connection::hold_places`].
    ///
    /// # Errors
    /// As there.
    pub async fn hold_places(&self, keys: &[String]) -> RedisResult<Value> {
        self.connection.hold_places(keys).await.map(|()| Value::Okay)
    }

    fn enter(self: &Arc<Batcher>, request: &Arc<Request>) -> Route {
        let mut queue = self.queue.lock();
        if !request.can_share_a_call() {
            let mut batches = Vec::new();
            while let Some(batch) = self.send_batch(&mut queue) {
                batches.push(batch);
            }
            drop(queue);
            batches.into_iter().for_each(spawn);
            return Route::Alone(None);
        }
        if queue.in_flight == 0 {
            queue.in_flight = 1;
            return Route::Alone(Some(InFlight(self.clone(), 1)));
        }
        let (response, receiver) = oneshot::channel();
        queue.queued.push_back(Queued { request: request.clone(), response });
        let batch = if queue.is_worth_a_call() { self.send_batch(&mut queue) } else { None };
        drop(queue);
        batch.into_iter().for_each(spawn);
        Route::Batched(receiver)
    }

    /// Sends a call with the first requests of the queue. What is returned delivers the responses, and must be spawned without
    /// the lock.
    fn send_batch(self: &Arc<Batcher>, queue: &mut Queue) -> Option<BatchFuture> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = queue.queued.front() {
            bytes += next.request.size();
            if batch.len() == MAX_REQUESTS || (bytes > MAX_BYTES && !batch.is_empty()) {
                break;
            }
            let next = queue.queued.pop_front();
            batch.extend(next.filter(|next| !next.response.is_closed()));
        }
        if batch.is_empty() {
            return None;
        }
        queue.in_flight += batch.len();
        let mut running: BatchFuture = Box::pin(unconstrained(self.clone().run_batch(batch)));
        // Into the connection's queue, before whatever is sent next. This poll does not complete it.
        let _ = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Some(running)
    }

    async fn run_batch(self: Arc<Batcher>, batch: Vec<Queued>) {
        let _in_flight = InFlight(self.clone(), batch.len());
        let response = {
            let requests: Vec<&Arc<Request>> = batch.iter().map(|queued| &queued.request).collect();
            let mut call = pin!(self.call(&requests, false));
            let first_poll = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
            pending_once().await;
            match first_poll {
                Poll::Ready(response) => response,
                Poll::Pending => call.await,
            }
        };
        distribute(response, batch);
    }

    async fn call(&self, requests: &[&Arc<Request>], asking: bool) -> RedisResult<Value> {
        let (store, node) = &self.clocks;
        let call = ScriptCall { requests, test_time: store.time.as_argument(), time_bounds: store.bounds_for(node) };
        let response = self.send_command(&call.by_digest(), asking).await;
        match is_unknown_script(&response) {
            true => self.send_command(&call.in_full(), asking).await,
            false => response,
        }
    }

    async fn send_command(&self, command: &Cmd, asking: bool) -> RedisResult<Value> {
        match asking {
            true => self.connection.send_asking(command).await,
            false => self.connection.send(command).await,
        }
    }
}

/// How a request goes.
enum Route {
    /// By itself; counted as in flight if others may queue behind it.
    Alone(Option<InFlight>),
    Batched(oneshot::Receiver<RedisResult<Value>>),
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let InFlight(batcher, done) = self;
        let mut queue = batcher.queue.lock();
        queue.in_flight -= *done;
        let batch = if queue.is_worth_a_call() { batcher.send_batch(&mut queue) } else { None };
        drop(queue);
        batch.into_iter().for_each(spawn);
    }
}

/// Without a runtime nobody waits for the responses either.
fn spawn(batch: BatchFuture) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(batch);
    }
}

/// Gives each request its own response.
fn distribute(response: RedisResult<Value>, batch: Vec<Queued>) {
    let is_one = batch.len() == 1;
    let mut responses = match response {
        Ok(Value::Array(responses)) if !is_one && responses.len() == batch.len() => responses.into_iter(),
        other => {
            for queued in batch {
                let _ = queued.response.send(match &other {
                    Ok(value) if is_one => Ok(value.clone()),
                    Ok(Value::ServerError(error)) => Err(error.clone().into()),
                    Ok(_) => Err(RedisError::from((
                        ErrorKind::UnexpectedReturnType,
                        "the number of responses differs from the number of requests",
                    ))),
                    Err(error) => Err(error.clone()),
                });
            }
            return;
        }
    };
    for queued in batch {
        let _ = queued.response.send(responses.next().ok_or_else(connection_lost));
    }
}

/// The server does not know the script by its digest.
fn is_unknown_script(response: &RedisResult<Value>) -> bool {
    let kind = match response {
        Err(error) => error.kind(),
        Ok(Value::ServerError(error)) => RedisError::from(error.clone()).kind(),
        Ok(_) => return false,
    };
    kind == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn connection_lost() -> RedisError {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection was lost").into()
}

/// Is pending once: a batch that is sent with the queue locked must not complete there, because its end locks the queue.
async fn pending_once() {
    let mut is_over = false;
    poll_fn(|_| if std::mem::replace(&mut is_over, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
