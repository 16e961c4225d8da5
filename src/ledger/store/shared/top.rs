//! Who used most: looks at every account on every master that is there.

use super::connection::{Failure, TRY};
use super::lane::Lane;
use super::link::{Link, Trouble};
use super::question::Question;
use super::whole::Kept;
use super::{answer, names, scripts};
use crate::directory::{LimitName, Subject, SubjectKind};
use crate::ledger::{MissingNode, Ranking};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Keys that a server looks at, at a time.
const LOOKED_AT: u32 = 1000;

/// Why a part tells nothing, or not all.
enum Silent {
    Away(Trouble),
    Refuses(Trouble),
}

/// What is looked for.
struct Search<'a> {
    link: &'a Link,
    prefix: &'a str,
    limit: LimitName,
    most: usize,
}

/// The subjects that have used most of a limit, at most so many, the most first, and the parts that are away.
///
/// # Errors
/// All parts are away, or one that is there refuses.
pub(super) async fn top(link: &Link, prefix: &str, limit: LimitName, most: usize) -> Result<Ranking, Trouble> {
    let search = Search { link, prefix, limit, most };
    let (mut ranking, mut is_any_there) = (Ranking::default(), false);
    for (kept, connected) in link.parts().await? {
        let looked = match connected {
            Ok((id, lane)) => search.look(&kept, id, &lane, &mut ranking).await,
            Err(why) => Err(Silent::Away(why.to_string().into())),
        };
        match looked {
            Ok(moves) => {
                is_any_there = true;
                moves.into_iter().for_each(|why| note_missing(&mut ranking.missing, &kept, &why));
            }
            Err(Silent::Away(why)) => note_missing(&mut ranking.missing, &kept, &why),
            Err(Silent::Refuses(why)) => return Err(why),
        }
    }
    match ranking.missing.first() {
        Some(missing) if !is_any_there => Err(missing.why.as_str().into()),
        _ => Ok(ranking),
    }
}

impl Search<'_> {
    /// Looks at every account of a part. Why some are missing, if customers are moving.
    async fn look(&self, kept: &Kept, id: u64, lane: &Lane, ranking: &mut Ranking) -> Result<Option<Trouble>, Silent> {
        let mut moves = None;
        let pattern = names::pattern(self.prefix, SubjectKind::of(self.limit));
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = scan(kept, id, lane, &cursor, &pattern).await?;
            // A script's keys have to lie in one slot of a cluster.
            let mut of_customers: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for key in keys {
                let tag = key.split(['{', '}']).nth(1).unwrap_or_default().to_owned();
                of_customers.entry(tag).or_default().push(key);
            }
            for keys in of_customers.into_values() {
                match self.rank(&keys, &mut ranking.most).await {
                    Err(Silent::Away(why)) if kept.part.is_up() => moves = Some(why),
                    ranked => ranked?,
                }
            }
            cursor = next;
            if cursor == "0" {
                return Ok(moves);
            }
        }
    }

    /// Puts a customer's accounts where they belong.
    async fn rank(&self, keys: &[String], top: &mut Vec<(Subject, u64)>) -> Result<(), Silent> {
        let value = self.link.ask(&scripts::TOP, Question::top(keys, self.limit)).await.map_err(|why| {
            match self.link.is_up(&keys[0]) {
                true => Silent::Refuses(why),
                false => Silent::Away(why),
            }
        })?;
        for (key, used) in keys.iter().zip(answer::numbers(value).unwrap_or_default()) {
            let rank = top.partition_point(|(_, other)| *other >= used);
            if used > 0
                && rank < self.most
                && let Some(subject) = names::subject_of(self.prefix, key)
                && !top.iter().any(|(known, _)| *known == subject)
            {
                top.truncate(self.most - 1);
                top.insert(rank, (subject, used));
            }
        }
        Ok(())
    }
}

async fn scan(kept: &Kept, id: u64, lane: &Lane, cursor: &str, pattern: &str) -> Result<(String, Vec<String>), Silent> {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(LOOKED_AT);
    let answer = Failure::or(Instant::now() + TRY, lane.connection().ask(&command)).await.map_err(|failure| {
        let why = failure.in_words().into();
        if failure.breaks() {
            kept.part.failed(id, None);
            return Silent::Away(why);
        }
        Silent::Refuses(why)
    })?;
    redis::from_redis_value(answer).map_err(|error| Silent::Refuses(error.to_string().into()))
}

fn note_missing(missing: &mut Vec<MissingNode>, kept: &Kept, why: &str) {
    let address = kept.address.as_ref().map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
    let why = why.strip_prefix(&format!("{address}: ")).unwrap_or(why).to_owned();
    missing.push(MissingNode { address, why });
}
