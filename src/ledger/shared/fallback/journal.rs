//! The one writer of the file: takes all that waits, writes it in one transaction, and usage_report everybody.

use super::file::{Message, OutageFile};
use super::last_known::Counts;
use crate::clock::Clock;
use crate::directory::Subject;
use crate::ledger::local::book::Ticket;
use crate::ledger::local::sqlite::in_words;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Most in one transaction, so that none waits long for the others.
const BATCH: usize = 4096;

/// Written, or why not.
pub(in crate::ledger::shared) type Outcome<T> = Result<T, Arc<str>>;

#[derive(Debug)]
pub(in crate::ledger::shared) enum Job {
    /// Counted when it is written. Whoever hung up waits no longer, and has told nobody that the message was accepted.
    Message {
        message: Box<Message>,
        ticket: Ticket,
        waiter: oneshot::Sender<Outcome<()>>,
    },
    /// What is still to be merged.
    Read {
        after: u64,
        most: usize,
        messages: oneshot::Sender<Outcome<Vec<Message>>>,
    },
    Merged {
        ids: Vec<u64>,
        done: oneshot::Sender<Outcome<()>>,
    },
    /// All of a customer's is merged, and known from now on.
    Settled {
        customer: Arc<str>,
        known: Vec<(Subject, Counts)>,
    },
    LastKnown(Vec<(Subject, Counts)>),
    HashKey([u8; 16]),
    Close,
}

/// Whom to tell.
enum Told {
    Message(Box<Message>, Ticket, oneshot::Sender<Outcome<()>>),
    Messages(Vec<Message>, oneshot::Sender<Outcome<Vec<Message>>>),
    Done(oneshot::Sender<Outcome<()>>),
}

/// What the writer does with messages.
pub(in crate::ledger::shared) trait Counted: Send + Sync + 'static {
    fn written(&self, message: &Message, ticket: Ticket);
    fn not_written(&self, message: &Message, ticket: Ticket);
}

#[derive(Debug)]
pub(in crate::ledger::shared) struct Journal {
    jobs: Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Starts the writer when it is known who is told; jobs wait until then.
    pub fn new() -> (Journal, Receiver<Job>) {
        let (jobs, waiting) = channel();
        (Journal { jobs, thread: Mutex::new(None) }, waiting)
    }

    pub fn start(
        &self,
        file: OutageFile,
        clock: Arc<dyn Clock>,
        jobs: Receiver<Job>,
        counted: Arc<dyn Counted>,
    ) -> std::io::Result<()> {
        let write = move || write_all(file, &*clock, &jobs, &*counted);
        *self.thread.lock() = Some(std::thread::Builder::new().name("outage".into()).spawn(write)?);
        Ok(())
    }

    /// Hands it to the writer; after the end it is dropped, and who waits for it is told so.
    pub fn push(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// # Errors
    /// The file cannot be read, or is closed.
    pub async fn read(&self, after: u64, most: usize) -> Outcome<Vec<Message>> {
        let (messages, read) = oneshot::channel();
        self.push(Job::Read { after, most, messages });
        outcome(read).await
    }

    /// # Errors
    /// The file cannot be written, or is closed.
    pub async fn merged(&self, ids: Vec<u64>) -> Outcome<()> {
        let (done, written) = oneshot::channel();
        self.push(Job::Merged { ids, done });
        outcome(written).await
    }

    /// Waits until all is written.
    pub fn close(&self) {
        self.push(Job::Close);
        if let Some(thread) = self.thread.lock().take() {
            // It has no panic to pass on that would help anybody now.
            let _ = thread.join();
        }
    }
}

/// Waits for the disk.
pub(in crate::ledger::shared) async fn outcome<T>(receiver: oneshot::Receiver<Outcome<T>>) -> Outcome<T> {
    receiver.await.unwrap_or_else(|_| Err("it is closed".into()))
}

fn write_all(mut file: OutageFile, clock: &dyn Clock, jobs: &Receiver<Job>, counted: &dyn Counted) {
    let mut closing = false;
    while !closing {
        let Ok(first) = jobs.recv() else { break };
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        closing = batch.iter().any(|job| matches!(job, Job::Close));
        batch.retain(|job| is_waited_for(job, counted));
        let (mut told, mut messages) = (Vec::new(), Vec::new());
        let written = file.write(clock, |writing| {
            for job in &batch {
                match job {
                    Job::Message { message, .. } => writing.message(message)?,
                    Job::Read { after, most, .. } => messages.push(writing.messages_after(*after, *most)?),
                    Job::Merged { ids, .. } => writing.merged(ids)?,
                    Job::Settled { customer, known } => {
                        writing.forget_merged(customer)?;
                        known.iter().try_for_each(|(subject, counts)| writing.known(subject, counts))?;
                    }
                    Job::LastKnown(known) => {
                        known.iter().try_for_each(|(subject, counts)| writing.known(subject, counts))?;
                    }
                    Job::HashKey(key) => writing.hash_key(key)?,
                    Job::Close => {}
                }
            }
            Ok(())
        });
        let mut messages = messages.into_iter();
        for job in batch {
            match job {
                Job::Message { message, ticket, waiter } => told.push(Told::Message(message, ticket, waiter)),
                Job::Read { messages: reader, .. } => {
                    told.push(Told::Messages(messages.next().unwrap_or_default(), reader));
                }
                Job::Merged { done, .. } => told.push(Told::Done(done)),
                Job::Settled { .. } | Job::LastKnown(_) | Job::HashKey(_) | Job::Close => {}
            }
        }
        let written = written.map_err(|error| Arc::from(in_words(&error)));
        told.into_iter().for_each(|told| tell(told, written.clone(), counted));
    }
    file.close();
}

fn is_waited_for(job: &Job, counted: &dyn Counted) -> bool {
    match job {
        Job::Message { message, ticket, waiter } if waiter.is_closed() => {
            counted.not_written(message, *ticket);
            false
        }
        _ => true,
    }
}

/// Whoever hung up in this instant is counted: too much rather than too little.
fn tell(told: Told, written: Outcome<()>, counted: &dyn Counted) {
    match told {
        Told::Message(message, ticket, waiter) => {
            match &written {
                Ok(()) => counted.written(&message, ticket),
                Err(_) => counted.not_written(&message, ticket),
            }
            let _ = waiter.send(written);
        }
        Told::Messages(messages, reader) => drop(reader.send(written.map(|()| messages))),
        Told::Done(done) => drop(done.send(written)),
    }
}
