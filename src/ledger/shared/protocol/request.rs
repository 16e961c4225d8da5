//! Requests: a script with its keys and arguments (each script says at its top what it expects).

use super::keys;
use super::scripts::{self, Script};
use crate::directory::{CustomerLimits, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::api::limits_of;
use crate::ledger::{AcceptedRecipients, RecipientKey, ReservationId};
use std::time::Duration;

/// "No limit", and the greatest number that is sent: six bytes.
const UNLIMITED: u64 = (1 << 48) - 1;

/// Flags in the first byte of the parameters: there is a user, there is a login, and what of [`UsageReport`] is wanted.
const HAS_USER: u8 = 1;
const HAS_LOGIN: u8 = 2;
const REPORT_USED: u8 = 4;
/// Without it, held recipients that were also seen before may be counted twice in the report.
const REPORT_RESERVED: u8 = 8;

/// Names this daemon from its start to its end: six random bytes.
pub(in crate::ledger::shared) type DaemonId = [u8; 6];

/// Names a transaction among those of all daemons: the daemon, and the number of its reservation.
pub(in crate::ledger::shared) type TransactionId = [u8; 12];

#[derive(Clone, Debug)]
pub(in crate::ledger::shared) struct Request {
    pub script: &'static Script,
    pub keys: Vec<String>,
    pub arguments: Vec<Vec<u8>>,
}

/// An accepted message.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::shared) struct Commit<'a> {
    pub transaction: TransactionId,
    /// Whose nonce it is.
    pub daemon: DaemonId,
    /// The message is counted once under this number, however often it is sent.
    pub nonce: u64,
    /// The daemon's smallest nonce that may be sent again for this customer.
    pub oldest_nonce: u64,
    pub parties: &'a Parties,
    pub limits: &'a CustomerLimits,
    pub reservation_timeout: Duration,
    /// The named ones must be different.
    pub recipients: AcceptedRecipients<'a>,
    /// How long ago it was accepted.
    pub age: Duration,
    pub report: UsageReport,
}

/// What the response to a commit reports of each limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::shared) enum UsageReport {
    Nothing,
    Used,
    UsedAndReserved,
}

impl Request {
    /// Reserves one recipient.
    pub fn reserve(
        prefix: &str,
        transaction: TransactionId,
        parties: &Parties,
        limits: &CustomerLimits,
        reservation_timeout: Duration,
        recipient: RecipientKey,
    ) -> Request {
        Request {
            script: &scripts::RESERVE,
            keys: keys::of_parties(prefix, parties),
            arguments: vec![
                parameters(parties, limits, reservation_timeout),
                transaction.to_vec(),
                packed(&[recipient]),
            ],
        }
    }

    /// Whether some recipients, all different, would fit as one message.
    pub fn look(
        prefix: &str,
        transaction: TransactionId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> Request {
        Request {
            script: &scripts::LOOK,
            keys: keys::of_parties(prefix, parties),
            arguments: vec![parameters(parties, limits, Duration::ZERO), transaction.to_vec(), packed(recipients)],
        }
    }

    pub fn commit(prefix: &str, commit: Commit<'_>) -> Request {
        let mut parameters = parameters(commit.parties, commit.limits, commit.reservation_timeout);
        parameters[0] |= match commit.report {
            UsageReport::Nothing => 0,
            UsageReport::Used => REPORT_USED,
            UsageReport::UsedAndReserved => REPORT_USED | REPORT_RESERVED,
        };
        let mut message = commit.recipients.unnamed.to_be_bytes().to_vec();
        for number in [commit.age.as_millis() as u64, commit.nonce, commit.oldest_nonce] {
            message.extend_from_slice(&six_bytes(number));
        }
        Request {
            script: &scripts::COMMIT,
            keys: keys::of_parties(prefix, commit.parties),
            arguments: vec![
                parameters,
                commit.transaction.to_vec(),
                packed(commit.recipients.named),
                message,
                commit.daemon.to_vec(),
            ],
        }
    }

    pub fn release(prefix: &str, transaction: TransactionId, parties: &Parties) -> Request {
        let arguments = vec![flags(parties).to_string().into_bytes(), transaction.to_vec()];
        Request { script: &scripts::RELEASE, keys: keys::of_parties(prefix, parties), arguments }
    }

    pub fn usage(prefix: &str, subject: &Subject, limits: &CustomerLimits) -> Request {
        let max = |limit: &LimitName| match limits.counted(*limit).max {
            Some(max) => max.min(UNLIMITED).to_string().into_bytes(),
            None => b"-1".to_vec(),
        };
        let arguments = limits_of(subject.kind).iter().map(max).collect();
        Request { script: &scripts::USAGE, keys: keys::of_subject(prefix, subject), arguments }
    }

    pub fn reset(prefix: &str, subject: &Subject) -> Request {
        Request { script: &scripts::RESET, keys: keys::of_subject(prefix, subject), arguments: Vec::new() }
    }

    /// How much of a limit each of some accounts has used.
    pub fn top(accounts: &[String], limit: LimitName) -> Request {
        let keys = accounts.iter().flat_map(|account| [account.clone(), keys::second(account)]).collect();
        Request { script: &scripts::TOP, keys, arguments: vec![number_of(limit).to_string().into_bytes()] }
    }

    /// Moves an account to the server's new time, once under each name.
    pub fn rebase(account: &str, kind: SubjectKind, by_seconds: i64, name: &str) -> Request {
        let kind = if kind == SubjectKind::Customer { "c" } else { "s" };
        let arguments = [kind.to_owned(), by_seconds.to_string(), name.to_owned()].map(String::into_bytes).to_vec();
        Request { script: &scripts::REBASE, keys: vec![account.to_owned(), keys::second(account)], arguments }
    }

    /// Whether other requests can go in the same call.
    pub fn can_share_a_call(&self) -> bool {
        self.script.opcode.is_some()
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.arguments.iter().map(Vec::len).sum::<usize>() + self.keys.iter().map(String::len).sum::<usize>()
    }
}

/// A transaction, among those of all daemons.
pub(in crate::ledger::shared) fn transaction_id(daemon: DaemonId, reservation: ReservationId) -> TransactionId {
    let mut id = [0; 12];
    id[..6].copy_from_slice(&daemon);
    id[6..].copy_from_slice(&six_bytes(reservation.0));
    id
}

/// Limits are numbered from 1.
fn number_of(limit: LimitName) -> usize {
    LimitName::ALL.iter().position(|&other| other == limit).map_or(0, |place| place + 1)
}

fn flags(parties: &Parties) -> u8 {
    let has = |party: bool, flag| if party { flag } else { 0 };
    has(parties.user.is_some(), HAS_USER) | has(parties.login.is_some(), HAS_LOGIN)
}

fn parameters(parties: &Parties, limits: &CustomerLimits, reservation_timeout: Duration) -> Vec<u8> {
    let mut packed = Vec::with_capacity(44);
    let in_shadow = |(place, limit): (usize, &LimitName)| u8::from(limits.counted(*limit).shadow) << place;
    packed.push(flags(parties));
    packed.push(LimitName::ALL.iter().enumerate().map(in_shadow).sum());
    packed.extend_from_slice(&six_bytes(reservation_timeout.as_millis() as u64));
    for limit in LimitName::ALL {
        packed.extend_from_slice(&six_bytes(limits.counted(limit).max.unwrap_or(UNLIMITED)));
    }
    packed
}

fn packed(recipients: &[RecipientKey]) -> Vec<u8> {
    recipients.iter().flat_map(|key| key.0.to_be_bytes()).collect()
}

/// Big-endian.
fn six_bytes(number: u64) -> [u8; 6] {
    let [_, _, six @ ..] = number.min(UNLIMITED).to_be_bytes();
    six
}
