//! The ledger on the servers: builds requests, sends them, and reads the responses.

use super::client::Client;
use super::client::servers::Servers;
use super::client::store_clock::StoreClock;
use super::protocol::keys;
use super::protocol::nonces::Nonces;
use super::protocol::request::{Commit, DaemonId, Request, TransactionId, UsageReport, transaction_id};
use super::protocol::response::{self, Decision};
use crate::directory::{CustomerLimits, Limit, Parties, Subject};
use crate::ledger::api::{CommitRequest, LookRequest, ReserveRequest};
use crate::ledger::{AcceptedRecipients, LimitUsage, RecipientKey, ReservationId, StoreError};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(in crate::ledger::shared) struct Remote {
    pub client: Client,
    /// What all keys begin with.
    pub prefix: String,
    pub daemon: DaemonId,
    pub nonces: Arc<Nonces>,
    reservation_timeout: Duration,
}

/// A message that was accepted while the store was unreachable.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::shared) struct LateMessage<'a> {
    /// What may still be reserved for it.
    pub transaction: TransactionId,
    /// The nonce under which it is counted once, and whose it is.
    pub daemon: DaemonId,
    pub nonce: u64,
    /// The oldest of these nonces that may be sent again for this customer.
    pub oldest_nonce: u64,
    pub parties: &'a Parties,
    /// The named ones must not repeat.
    pub recipients: AcceptedRecipients<'a>,
    /// How long ago it was accepted.
    pub age: Duration,
}

impl Remote {
    pub fn new(
        servers: Servers,
        prefix: &str,
        clock: Arc<StoreClock>,
        hash_key: [u8; 16],
        daemon: DaemonId,
        nonces: Arc<Nonces>,
        reservation_timeout: Duration,
    ) -> Remote {
        let client = Client::new(servers, prefix, clock, hash_key);
        Remote { client, prefix: prefix.to_owned(), daemon, nonces, reservation_timeout }
    }

    /// Whether a customer's requests would fail at once.
    pub fn is_unreachable(&self, customer: &str) -> bool {
        self.client.is_unreachable(|| keys::of_customer(&self.prefix, customer))
    }

    pub fn transaction(&self, id: ReservationId) -> TransactionId {
        transaction_id(self.daemon, id)
    }

    pub async fn reserve(&self, request: ReserveRequest<'_>) -> Result<Decision, StoreError> {
        let ReserveRequest { id, parties, limits, recipient } = request;
        let transaction = self.transaction(id);
        let request = Request::reserve(&self.prefix, transaction, parties, limits, self.reservation_timeout, recipient);
        response::decision(self.client.send(request).await?, limits)
    }

    pub async fn look(&self, request: LookRequest<'_>) -> Result<Decision, StoreError> {
        let LookRequest { own, parties, limits, recipients } = request;
        // No reservation has the number 0.
        let transaction = self.transaction(own.unwrap_or(ReservationId(0)));
        let request = Request::look(&self.prefix, transaction, parties, limits, &without_repeats(recipients));
        response::decision(self.client.send(request).await?, limits)
    }

    /// Counts a message that was accepted just now; its recipients must not repeat.
    pub async fn commit(
        &self,
        request: CommitRequest<'_>,
        nonce: u64,
        report: UsageReport,
    ) -> Result<Decision, StoreError> {
        let CommitRequest { id, parties, limits, recipients, .. } = request;
        let commit = Commit {
            transaction: self.transaction(id),
            daemon: self.daemon,
            nonce,
            oldest_nonce: self.nonces.oldest_pending(&parties.customer),
            parties,
            limits,
            reservation_timeout: self.reservation_timeout,
            recipients,
            age: Duration::ZERO,
            report,
        };
        response::decision(self.client.send(Request::commit(&self.prefix, commit)).await?, limits)
    }

    /// Counts a message that was accepted earlier, whatever the limits.
    pub async fn commit_late(&self, message: LateMessage<'_>) -> Result<(), StoreError> {
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        let commit = Commit {
            transaction: message.transaction,
            daemon: message.daemon,
            nonce: message.nonce,
            oldest_nonce: message.oldest_nonce,
            parties: message.parties,
            limits: &unlimited,
            reservation_timeout: self.reservation_timeout,
            recipients: message.recipients,
            age: message.age,
            report: UsageReport::Nothing,
        };
        self.client.send(Request::commit(&self.prefix, commit)).await.map(drop)
    }

    pub async fn release(&self, transaction: TransactionId, parties: &Parties) -> Result<(), StoreError> {
        self.client.send(Request::release(&self.prefix, transaction, parties)).await.map(drop)
    }

    pub async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, StoreError> {
        let value = self.client.send(Request::usage(&self.prefix, subject, limits)).await?;
        response::usage(value, subject.kind, limits)
    }

    pub async fn reset(&self, subject: &Subject) -> Result<(), StoreError> {
        self.client.send(Request::reset(&self.prefix, subject)).await.map(drop)
    }
}

pub(in crate::ledger::shared) fn without_repeats(recipients: &[RecipientKey]) -> Vec<RecipientKey> {
    let mut seen = hashbrown::HashSet::with_capacity(recipients.len());
    recipients.iter().copied().filter(|key| seen.insert(*key)).collect()
}
