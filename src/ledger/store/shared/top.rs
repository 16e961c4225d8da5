//! Who used most: looks at every account on every master.

use super::connection::{Connection, in_words};
use super::link::{Link, Trouble};
use super::question::Question;
use super::{answer, names, scripts};
use crate::directory::LimitName;
use crate::ledger::{Subject, SubjectKind};
use std::collections::BTreeMap;

/// Keys that a server looks at, at a time.
const LOOKED_AT: u32 = 1000;

/// The subjects that have used most of a limit, at most so many, the most first.
pub(super) async fn top(
    link: &Link,
    prefix: &str,
    limit: LimitName,
    most: usize,
) -> Result<Vec<(Subject, u64)>, Trouble> {
    let pattern = names::pattern(prefix, SubjectKind::of(limit));
    let mut top: Vec<(Subject, u64)> = Vec::new();
    for master in link.connections().await? {
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = scan(&master, &cursor, &pattern).await?;
            for (key, used) in used(link, keys, limit).await? {
                let rank = top.partition_point(|(_, other)| *other >= used);
                if used > 0
                    && rank < most
                    && let Some(subject) = names::subject_of(prefix, &key)
                    && !top.iter().any(|(known, _)| *known == subject)
                {
                    top.truncate(most - 1);
                    top.insert(rank, (subject, used));
                }
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(top)
}

async fn scan(master: &Connection, cursor: &str, pattern: &str) -> Result<(String, Vec<String>), Trouble> {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(LOOKED_AT);
    let answer = master.ask(&command).await.map_err(|error| Trouble::from(in_words(&error)))?;
    redis::from_redis_value(answer).map_err(|error| error.to_string().into())
}

/// How much each account has used.
async fn used(link: &Link, keys: Vec<String>, limit: LimitName) -> Result<Vec<(String, u64)>, Trouble> {
    // A script's keys have to lie in one slot of a cluster.
    let mut of_customers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in keys {
        let tag = key.split(['{', '}']).nth(1).unwrap_or_default().to_owned();
        of_customers.entry(tag).or_default().push(key);
    }
    let mut used = Vec::new();
    for keys in of_customers.into_values() {
        let value = link.ask(&scripts::TOP, Question::top(&keys, limit)).await?;
        let numbers = answer::numbers(value).unwrap_or_default();
        used.extend(keys.into_iter().zip(numbers));
    }
    Ok(used)
}
