//! What the scripts answer.

use super::question::limits_of;
use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName};
use crate::ledger::{Answer, LimitUsage, Near, Standing, SubjectKind};
use redis::Value;
use smallvec::SmallVec;

/// What is added to a limit's number where it is told how much of it is taken.
const TAKEN: usize = 10;

/// A decision, and how much of some limits is used.
#[derive(Debug)]
pub(super) struct Decision {
    pub answer: Answer,
    pub used: SmallVec<[(LimitName, u64); LimitName::COUNT]>,
}

/// The time, or the time and how things stand with the limits that refuse.
pub(super) fn decision(value: Value, limits: &CustomerLimits) -> Option<Decision> {
    let numbers = integers(value)?;
    let (&at, standings) = numbers.split_first()?;
    let (mut answer, mut told) = (Answer::fitting(moment(at)?), SmallVec::new());
    for standing in standings.chunks(5) {
        let &[number, used, reserved, own, fits_at] = standing else { return None };
        let place = usize::try_from(number.unsigned_abs()).ok()?.checked_sub(1)?;
        let limit = *LimitName::ALL.get(place % TAKEN)?;
        let max = limits.counted(limit).max?;
        if place >= TAKEN {
            // What is taken stands where otherwise what is used does.
            let (taken, used) = (u64::try_from(used).ok()?, u64::try_from(reserved).ok()?);
            told.push((limit, used));
            if taken >= limits.warned_from(limit) {
                answer.near.push(Near { limit, max, taken });
            }
            continue;
        }
        let standing = Standing {
            limit,
            max,
            used: u64::try_from(used).ok()?,
            reserved: u64::try_from(reserved).ok()?,
            own: u64::try_from(own).ok()?,
            fits_at: if fits_at < 0 { None } else { moment(fits_at) },
        };
        if number < 0 { answer.shadow_over.push(standing) } else { answer.over.push(standing) }
    }
    Some(Decision { answer, used: told })
}

pub(super) fn usage(value: Value, kind: SubjectKind, limits: &CustomerLimits) -> Option<Vec<LimitUsage>> {
    let numbers = integers(value)?;
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
    limits_of(kind).iter().zip(numbers.chunks(3)).map(of_limit).collect()
}

pub(super) fn numbers(value: Value) -> Option<Vec<u64>> {
    integers(value)?.into_iter().map(|number| u64::try_from(number).ok()).collect()
}

fn moment(milliseconds: i64) -> Option<Moment> {
    u64::try_from(milliseconds).ok().map(Moment)
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
