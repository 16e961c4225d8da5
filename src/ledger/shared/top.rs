//! A ranking by use: looks at every account on every master that is available.

use super::client::batch::Batcher;
use super::client::client::{Client, Trouble};
use super::client::connection::{RequestError, TRY};
use super::client::topology::ManagedNode;
use super::protocol::request::Request;
use super::protocol::{keys, response, scripts};
use crate::directory::{LimitName, SubjectKind};
use crate::ledger::MissingNode;
use crate::ledger::ranking::Leaders;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Keys that a server looks at, at a time.
const LOOKED_AT: u32 = 1000;

/// Why a node usage_report nothing, or not all.
enum NodeFailure {
    Away(Trouble),
    Refuses(Trouble),
}

/// What is looked for.
struct Search<'a> {
    client: &'a Client,
    prefix: &'a str,
    limit: LimitName,
}

/// Offers all that have used something of a limit for a ranking. Returns the nodes that are unavailable.
///
/// # Errors
/// All nodes are unavailable, or one that is available refuses.
pub(in crate::ledger::shared) async fn rank(
    client: &Client,
    prefix: &str,
    limit: LimitName,
    leaders: &mut Leaders<'_>,
) -> Result<Vec<MissingNode>, Trouble> {
    let search = Search { client, prefix, limit };
    let (mut missing, mut is_any_there) = (Vec::new(), false);
    for (managed, connected) in client.nodes().await? {
        let looked = match connected {
            Ok((id, batcher)) => search.look(&managed, id, &batcher, leaders).await,
            Err(why) => Err(NodeFailure::Away(why.to_string().into())),
        };
        match looked {
            Ok(moves) => {
                is_any_there = true;
                moves.into_iter().for_each(|why| note_missing(&mut missing, &managed, &why));
            }
            Err(NodeFailure::Away(why)) => note_missing(&mut missing, &managed, &why),
            Err(NodeFailure::Refuses(why)) => return Err(why),
        }
    }
    match missing.first() {
        Some(missing) if !is_any_there => Err(missing.why.as_str().into()),
        _ => Ok(missing),
    }
}

impl Search<'_> {
    /// Looks at every account of a node. Why some are missing, if customers are migrations.
    async fn look(
        &self,
        managed: &ManagedNode,
        id: u64,
        batcher: &Batcher,
        leaders: &mut Leaders<'_>,
    ) -> Result<Option<Trouble>, NodeFailure> {
        let mut moves = None;
        let pattern = keys::pattern(self.prefix, SubjectKind::of(self.limit));
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = scan(managed, id, batcher, &cursor, &pattern).await?;
            // A script's keys have to lie in one slot of a cluster.
            let mut of_customers: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for key in keys {
                let tag = key.split(['{', '}']).nth(1).unwrap_or_default().to_owned();
                of_customers.entry(tag).or_default().push(key);
            }
            for keys in of_customers.into_values() {
                match self.offer(&keys, leaders).await {
                    Err(NodeFailure::Away(why)) if managed.node.is_up() => moves = Some(why),
                    ranked => ranked?,
                }
            }
            cursor = next;
            if cursor == "0" {
                return Ok(moves);
            }
        }
    }

    /// Offers a customer's accounts.
    async fn offer(&self, keys: &[String], leaders: &mut Leaders<'_>) -> Result<(), NodeFailure> {
        let value = self.client.ask(&scripts::TOP, Request::top(keys, self.limit)).await.map_err(|why| {
            match self.client.is_up(&keys[0]) {
                true => NodeFailure::Refuses(why),
                false => NodeFailure::Away(why),
            }
        })?;
        for (key, used) in keys.iter().zip(response::numbers(value).unwrap_or_default()) {
            if let Some(subject) = keys::subject_of(self.prefix, key) {
                leaders.offer(subject, used);
            }
        }
        Ok(())
    }
}

async fn scan(
    managed: &ManagedNode,
    id: u64,
    batcher: &Batcher,
    cursor: &str,
    pattern: &str,
) -> Result<(String, Vec<String>), NodeFailure> {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(LOOKED_AT);
    let answer =
        RequestError::or(Instant::now() + TRY, batcher.connection().ask(&command)).await.map_err(|failure| {
            let why = failure.in_words().into();
            if failure.breaks() {
                managed.node.failed(id, None);
                return NodeFailure::Away(why);
            }
            NodeFailure::Refuses(why)
        })?;
    redis::from_redis_value(answer).map_err(|error| NodeFailure::Refuses(error.to_string().into()))
}

fn note_missing(missing: &mut Vec<MissingNode>, managed: &ManagedNode, why: &str) {
    let address = managed.address.as_ref().map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
    let why = why.strip_prefix(&format!("{address}: ")).unwrap_or(why).to_owned();
    missing.push(MissingNode { address, why });
}
