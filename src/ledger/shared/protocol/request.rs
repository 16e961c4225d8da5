//! What the scripts are told: keys and arguments (each script says at its top what it expects).

use super::keys;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::{AcceptedRecipients, RecipientKey, ReservationId};
use std::time::Duration;

/// "No limit", and the greatest number that is told: six bytes.
const MOST: u64 = (1 << 48) - 1;

/// Asks to be told how much of each limit is used.
const TELL_USED: u8 = 4;
/// And exactly how much is held, too. Without it recipients may be told twice that were seen before.
const TELL_HELD: u8 = 8;

/// Names this daemon, from its start to its end: nobody else draws the same six bytes.
pub(in crate::ledger::shared) type Daemon = [u8; 6];

/// The keys and the arguments of one call.
#[derive(Clone, Debug)]
pub(in crate::ledger::shared) struct Request {
    pub keys: Vec<String>,
    pub arguments: Vec<Vec<u8>>,
}

/// The message of a commit, beside its transaction.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::shared) struct CommitDetails {
    /// How long ago.
    pub age: Duration,
    pub nonce: u64,
    /// The smallest nonce of this daemon that may be sent again.
    pub unsettled: u64,
    pub usage_report: UsageReport,
}

/// What the answer to a commit usage_report of each limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::shared) enum UsageReport {
    Nothing,
    Used,
    UsedAndHeld,
}

impl Request {
    /// Of a reservation, or of a look.
    pub fn recipients(
        prefix: &str,
        id: [u8; 12],
        parties: &Parties,
        limits: &CustomerLimits,
        timeout: Duration,
        recipients: &[RecipientKey],
    ) -> Request {
        let arguments = vec![parameters(parties, limits, timeout), id.to_vec(), packed(recipients)];
        Request { keys: keys::of_parties(prefix, parties), arguments }
    }

    /// Of a commit. The recipients have to be different.
    #[expect(clippy::too_many_arguments, reason = "a message, who sent it, and where it goes")]
    pub fn commit(
        prefix: &str,
        id: [u8; 12],
        daemon: Daemon,
        parties: &Parties,
        limits: &CustomerLimits,
        timeout: Duration,
        kept: AcceptedRecipients<'_>,
        accepted: CommitDetails,
    ) -> Request {
        let mut request = Request::recipients(prefix, id, parties, limits, timeout, kept.named);
        request.arguments[0][0] |= match accepted.usage_report {
            UsageReport::Nothing => 0,
            UsageReport::Used => TELL_USED,
            UsageReport::UsedAndHeld => TELL_USED | TELL_HELD,
        };
        let mut message = kept.unnamed.to_be_bytes().to_vec();
        for number in [accepted.age.as_millis() as u64, accepted.nonce, accepted.unsettled] {
            message.extend_from_slice(&six_bytes(number));
        }
        request.arguments.extend([message, daemon.to_vec()]);
        request
    }

    pub fn release(prefix: &str, id: [u8; 12], parties: &Parties) -> Request {
        let arguments = vec![who(parties).to_string().into_bytes(), id.to_vec()];
        Request { keys: keys::of_parties(prefix, parties), arguments }
    }

    pub fn usage(prefix: &str, subject: &Subject, limits: &CustomerLimits) -> Request {
        let max = |limit: &LimitName| match limits.counted(*limit).max {
            Some(max) => max.min(MOST).to_string().into_bytes(),
            None => b"-1".to_vec(),
        };
        let arguments = limits_of(subject.kind).iter().map(max).collect();
        Request { keys: keys::of_subject(prefix, subject), arguments }
    }

    pub fn reset(prefix: &str, subject: &Subject) -> Request {
        Request { keys: keys::of_subject(prefix, subject), arguments: Vec::new() }
    }

    pub fn top(accounts: &[String], limit: LimitName) -> Request {
        let keys = accounts.iter().flat_map(|account| [account.clone(), keys::second(account)]).collect();
        Request { keys, arguments: vec![number_of(limit).to_string().into_bytes()] }
    }
}

/// A transaction, as all daemons tell theirs apart.
pub(in crate::ledger::shared) fn transaction(daemon: Daemon, id: ReservationId) -> [u8; 12] {
    let mut topology = [0; 12];
    topology[..6].copy_from_slice(&daemon);
    topology[6..].copy_from_slice(&six_bytes(id.0));
    topology
}

/// The limits of a subject, in the order of its windows in the store.
pub(in crate::ledger::shared) const fn limits_of(kind: SubjectKind) -> &'static [LimitName] {
    match kind {
        SubjectKind::Customer => &[LimitName::CustomerDay, LimitName::CustomerPeak],
        SubjectKind::User => &[LimitName::UserMessages, LimitName::UserUniques],
        SubjectKind::Login => &[LimitName::LoginMessages, LimitName::LoginUniques],
    }
}

fn number_of(limit: LimitName) -> usize {
    LimitName::ALL.iter().position(|&other| other == limit).map_or(0, |place| place + 1)
}

fn who(parties: &Parties) -> u8 {
    u8::from(parties.user.is_some()) + 2 * u8::from(parties.login.is_some())
}

fn parameters(parties: &Parties, limits: &CustomerLimits, timeout: Duration) -> Vec<u8> {
    let mut packed = Vec::with_capacity(44);
    let in_shadow = |(place, limit): (usize, &LimitName)| u8::from(limits.counted(*limit).shadow) << place;
    packed.push(who(parties));
    packed.push(LimitName::ALL.iter().enumerate().map(in_shadow).sum());
    packed.extend_from_slice(&six_bytes(timeout.as_millis() as u64));
    for limit in LimitName::ALL {
        packed.extend_from_slice(&six_bytes(limits.counted(limit).max.unwrap_or(MOST)));
    }
    packed
}

fn packed(recipients: &[RecipientKey]) -> Vec<u8> {
    recipients.iter().flat_map(|key| key.0.to_be_bytes()).collect()
}

/// Big-endian.
fn six_bytes(number: u64) -> [u8; 6] {
    let [_, _, six @ ..] = number.min(MOST).to_be_bytes();
    six
}
