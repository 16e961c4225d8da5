//! Responses of the scripts.

use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName, SubjectKind};
use crate::ledger::api::limits_of;
use crate::ledger::{LedgerAnswer, LimitStanding, LimitUsage, NearLimit, StoreError};
use redis::Value;
use smallvec::SmallVec;

/// The size of an entry of the usage report: a limit's number (1), what is used (6), what is used and reserved (6).
const REPORT_ENTRY: usize = 13;

/// A decision, and how much of some limits is used.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Decision {
    pub answer: LedgerAnswer,
    pub used: SmallVec<[(LimitName, u64); LimitName::COUNT]>,
}

/// From the response to a reservation, a look or a commit: the time; or the time, the limits that do not fit, and the usage
/// report, if one was requested.
///
/// # Errors
/// It is malformed.
pub(in crate::ledger::shared) fn decision(value: Value, limits: &CustomerLimits) -> Result<Decision, StoreError> {
    parse_decision(value, limits).ok_or_else(malformed)
}

fn parse_decision(value: Value, limits: &CustomerLimits) -> Option<Decision> {
    let (numbers, report) = match value {
        Value::Array(mut values) => match values.pop() {
            Some(Value::BulkString(report)) => (integers(Value::Array(values))?, report),
            last => {
                values.extend(last);
                (integers(Value::Array(values))?, Vec::new())
            }
        },
        single => (integers(single)?, Vec::new()),
    };
    let (&at, standings) = numbers.split_first()?;
    let mut decision = Decision { answer: LedgerAnswer::fitting(moment(at)?), used: SmallVec::new() };
    for standing in standings.chunks(5) {
        let &[number, used, reserved, own, fits_at] = standing else { return None };
        let limit = limit(usize::try_from(number.unsigned_abs()).ok()?)?;
        let standing = LimitStanding {
            limit,
            max: limits.counted(limit).max?,
            used: u64::try_from(used).ok()?,
            reserved: u64::try_from(reserved).ok()?,
            own: u64::try_from(own).ok()?,
            fits_at: if fits_at < 0 { None } else { moment(fits_at) },
        };
        let answer = &mut decision.answer;
        if number < 0 { answer.shadow_over.push(standing) } else { answer.over.push(standing) }
    }
    for entry in report.chunks(REPORT_ENTRY) {
        let &[number, ref counts @ ..] = entry else { return None };
        let (used, taken) = counts.split_at_checked(6)?;
        let (limit, used, taken) = (limit(number.into())?, six_bytes(used)?, six_bytes(taken)?);
        let Some(max) = limits.counted(limit).max else { continue };
        decision.used.push((limit, used));
        if taken >= limits.warned_from(limit) {
            decision.answer.near.push(NearLimit { limit, max, taken });
        }
    }
    Some(decision)
}

/// Limits are numbered from 1.
fn limit(number: usize) -> Option<LimitName> {
    LimitName::ALL.get(number.checked_sub(1)?).copied()
}

/// # Errors
/// It is malformed.
pub(in crate::ledger::shared) fn usage(
    value: Value,
    kind: SubjectKind,
    limits: &CustomerLimits,
) -> Result<Vec<LimitUsage>, StoreError> {
    let numbers = integers(value).ok_or_else(malformed)?;
    let of_limit = |(&limit, numbers): (&LimitName, &[i64])| {
        let &[used, reserved, falls] = numbers else { return None };
        Some(LimitUsage {
            limit,
            used: u64::try_from(used).ok()?,
            reserved: u64::try_from(reserved).ok()?,
            max: limits.counted(limit).max,
            resets_at: if falls > 0 { moment(falls) } else { None },
        })
    };
    let usage = limits_of(kind).iter().zip(numbers.chunks(3)).map(of_limit);
    usage.collect::<Option<_>>().ok_or_else(malformed)
}

/// How much each of some accounts has used.
pub(in crate::ledger::shared) fn used(value: Value) -> Option<Vec<u64>> {
    integers(value)?.into_iter().map(|number| u64::try_from(number).ok()).collect()
}

fn malformed() -> StoreError {
    StoreError::permanent("the server's response is malformed")
}

fn moment(milliseconds: i64) -> Option<Moment> {
    u64::try_from(milliseconds).ok().map(Moment)
}

/// Big-endian.
fn six_bytes(bytes: &[u8]) -> Option<u64> {
    let six = <[u8; 6]>::try_from(bytes).ok()?;
    Some(six.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn integers(value: Value) -> Option<Vec<i64>> {
    let integer = |value: Value| match value {
        Value::Int(number) => Some(number),
        _ => None,
    };
    match value {
        Value::Array(values) => values.into_iter().map(integer).collect(),
        single => Some(vec![integer(single)?]),
    }
}
