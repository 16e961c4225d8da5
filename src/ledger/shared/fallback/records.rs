//! What the journal of local counts writes.

use super::last_known::Counts;
use super::local_counts::LocalCounts;
use super::outage_file::{
    Message, delete_merged, delete_messages, insert_message, put_last_known, set_hash_key, set_merged, unmerged_after,
};
use crate::directory::Subject;
use crate::ledger::StoreError;
use crate::ledger::local::book::Ticket;
use crate::ledger::local::journal::{self, Outcome, Records, Transaction};
use rusqlite::Connection;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::sync::oneshot::Sender;

#[derive(Debug)]
pub(super) enum Job {
    /// Counted once it is written. A caller that hangs up has told nobody that the message was accepted.
    Message {
        message: Box<Message>,
        ticket: Ticket,
        waiter: Sender<Outcome<()>>,
    },
    /// Reads what is not merged yet.
    Read {
        after: u64,
        most: usize,
        messages: Vec<Message>,
        waiter: Sender<Outcome<Vec<Message>>>,
    },
    /// The servers have counted these.
    Merged {
        messages: Vec<Message>,
        waiter: Sender<Outcome<()>>,
    },
    /// All of a customer's messages are merged, and part of its last known usage from now on.
    Settled {
        customer: Arc<str>,
        known: Vec<(Subject, Counts)>,
    },
    LastKnown(Vec<(Subject, Counts)>),
    HashKey([u8; 16]),
}

impl journal::Job for Job {
    fn is_awaited(&self) -> bool {
        match self {
            Job::Message { .. } | Job::Read { .. } | Job::Merged { .. } => true,
            Job::Settled { .. } | Job::LastKnown(_) | Job::HashKey(_) => false,
        }
    }

    /// That messages were merged is written even if nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Job::Message { waiter, .. } => waiter.is_closed(),
            Job::Read { waiter, .. } => waiter.is_closed(),
            Job::Merged { .. } | Job::Settled { .. } | Job::LastKnown(_) | Job::HashKey(_) => false,
        }
    }
}

/// Tells the local counts what was written.
pub(super) struct LocalRecords(pub Arc<LocalCounts>);

impl Records for LocalRecords {
    type Job = Job;

    fn write(&mut self, transaction: &mut Transaction<'_>, jobs: &mut [Job]) -> rusqlite::Result<()> {
        let connection = transaction.connection;
        for job in jobs {
            match job {
                Job::Message { message, .. } => insert_message(connection, transaction.new_id(), message)?,
                Job::Read { after, most, messages, .. } => *messages = unmerged_after(connection, *after, *most)?,
                Job::Merged { messages, .. } => set_merged(connection, messages)?,
                Job::Settled { customer, known } => {
                    delete_merged(connection, customer)?;
                    put_last_known(connection, known)?;
                }
                Job::LastKnown(known) => put_last_known(connection, known)?,
                Job::HashKey(key) => set_hash_key(connection, key)?,
            }
        }
        Ok(())
    }

    fn remove(&self, connection: &Connection, ids: RangeInclusive<i64>) -> rusqlite::Result<()> {
        delete_messages(connection, *ids.start(), *ids.end())
    }

    /// A caller that hung up in this instant is counted: rather too much than too little.
    fn written(&mut self, job: Job) {
        match job {
            Job::Message { message, ticket, waiter } => {
                self.0.message_written(&message, ticket);
                let _ = waiter.send(Ok(()));
            }
            Job::Read { messages, waiter, .. } => drop(waiter.send(Ok(messages))),
            Job::Merged { messages, waiter } => {
                self.0.messages_merged(&messages);
                let _ = waiter.send(Ok(()));
            }
            Job::LastKnown(_) => self.0.last_known_saved(),
            Job::Settled { .. } | Job::HashKey(_) => {}
        }
    }

    fn failed(&mut self, job: Job, error: &StoreError) {
        match job {
            Job::Message { message, ticket, waiter } => {
                self.0.message_not_written(&message, ticket);
                let _ = waiter.send(Err(error.clone()));
            }
            Job::Read { waiter, .. } => drop(waiter.send(Err(error.clone()))),
            Job::Merged { waiter, .. } => drop(waiter.send(Err(error.clone()))),
            Job::LastKnown(_) => self.0.last_known_saved(),
            Job::Settled { .. } | Job::HashKey(_) => {}
        }
    }
}
