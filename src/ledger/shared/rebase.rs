//! An administrator says that the new time of a server whose clock jumped is right: what it has counted is moved there, so that
//! windows run on as if nothing had happened.
//!
//! Meanwhile every daemon treats the server as unreachable, so nobody else writes. Each account remembers the name of the
//! move, so one that was interrupted can be repeated. Once all are moved this daemon vouches for the server's time, which the
//! others then believe.

use super::client::clock_acceptance::UnbelievedNode;
use super::client::error::RequestError;
use super::protocol::keys;
use super::protocol::request::Request;
use super::remote::Remote;
use super::top::scan_on;
use crate::directory::SubjectKind;
use crate::ledger::StoreError;
use redis::Value;
use std::sync::Arc;
use tokio::task::JoinSet;

/// How many accounts are moved at once.
const AT_ONCE: usize = 64;

/// Accepts the time of every server whose clock is not believed. Returns what was done, one line for each of them.
///
/// # Errors
/// There is none, or one cannot be reached or refuses. What was moved until then stays moved; the next call goes on from there.
pub(super) async fn accept_clocks(remote: Arc<Remote>) -> Result<Vec<String>, StoreError> {
    let mut lines = Vec::new();
    for node in remote.client.unbelieved_nodes().await? {
        let moved = move_all(&remote, &node).await?;
        node.accept().await?;
        let (name, accounts) = (node.name(), if moved == 1 { "account was" } else { "accounts were" });
        lines.push(match node.by_seconds() {
            0 => {
                format!("the clock of {name} is accepted: {moved} {accounts} checked for times that are still to come")
            }
            _ => format!("the clock of {name} is accepted: {moved} {accounts} moved {}", node.by()),
        });
    }
    match lines.is_empty() {
        true => {
            Err(StoreError::permanent("no server's clock has jumped, as far as this daemon knows: nothing to accept"))
        }
        false => Ok(lines),
    }
}

/// Moves all accounts of a node. Returns how many.
async fn move_all(remote: &Remote, node: &UnbelievedNode) -> Result<usize, StoreError> {
    let (mut moved, mut running) = (0, JoinSet::new());
    for kind in [SubjectKind::Customer, SubjectKind::User, SubjectKind::Login] {
        let (pattern, mut cursor) = (keys::pattern(&remote.prefix, kind), "0".to_owned());
        loop {
            let (next, accounts) =
                scan_on(node.batcher().connection(), &cursor, &pattern).await.map_err(StoreError::from)?;
            for account in accounts {
                while running.len() >= AT_ONCE {
                    moved += finished(&mut running).await?;
                }
                let request = Arc::new(Request::rebase(&account, kind, node.by_seconds(), node.rebase_name()));
                let batcher = node.batcher().clone();
                running.spawn(async move { batcher.send(&request).await });
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
    }
    while !running.is_empty() {
        moved += finished(&mut running).await?;
    }
    Ok(moved)
}

async fn finished(running: &mut JoinSet<redis::RedisResult<Value>>) -> Result<usize, StoreError> {
    match running.join_next().await {
        Some(Ok(Ok(Value::Int(moved)))) => Ok(usize::from(moved > 0)),
        Some(Ok(Err(error))) => Err(RequestError::Redis(error).into()),
        Some(Ok(Ok(_)) | Err(_)) => Err(StoreError::transient("the server's response is malformed")),
        None => Ok(0),
    }
}
