//! Asking the store: deadline, retry, and which part of it to ask.
//!
//! A question has [`DEADLINE`] in all and [`TRY`](super::connection::TRY) each time it is asked. When a part could not be
//! reached it counts as away: questions to it fail at once, and the other parts notice nothing. So does a customer whose slot
//! moves for longer (see moving). What a question changes may be asked for twice (see the module above), so it is asked again
//! whenever it is not known what became of it.

use super::connection::Failure;
use super::keeper::{Keeper, keep};
use super::lane::Lane;
use super::part::{Connected, NoConnection};
use super::question::Question;
use super::scripts::{Asked, Script};
use super::server::Servers;
use super::server_time::ServerTime;
use super::slots::slot_of;
use super::whole::Kept;
use crate::ledger::Outage;
use redis::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// How long a question may take in all.
const DEADLINE: Duration = Duration::from_secs(3);
/// Between two attempts to ask: first and longest.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// So often a question goes where it is sent to, until it waits a while.
const REDIRECTS: u32 = 5;

/// Why the store cannot be asked.
pub(super) type Trouble = Arc<str>;

/// Connections that are kept open.
pub(super) struct Link {
    keeper: Arc<Keeper>,
    task: OnceLock<AbortHandle>,
}

impl Link {
    pub fn new(servers: Servers, prefix: &str, time: ServerTime, hash_key: [u8; 16]) -> Link {
        Link { keeper: Keeper::new(servers, prefix, time, hash_key), task: OnceLock::new() }
    }

    /// Has a script answer a question.
    ///
    /// # Errors
    /// The servers are away, or refuse. Whether the script ran is not known then.
    pub async fn ask(&self, script: &'static Script, question: Question) -> Result<Value, Trouble> {
        self.retrying(&Arc::new(Asked { script, question })).await
    }

    /// Waits until the store, or a part of it, can be asked.
    ///
    /// # Errors
    /// All of it is away.
    pub async fn ready(&self) -> Result<(), Trouble> {
        self.start();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (whole, mut trouble) = (self.keeper.whole(), None);
            for kept in &whole.parts {
                match kept.part.connection(deadline).await {
                    Ok(_) => return Ok(()),
                    Err(NoConnection::Away(why)) => trouble = trouble.or(Some(why)),
                    Err(NoConnection::Gone) => {}
                }
            }
            if let Some(trouble) = trouble {
                return Err(trouble);
            }
        }
    }

    /// Waits until the store, or a part of it, can be asked, however long that takes.
    pub async fn up(&self) {
        let mut changes = self.changes();
        while !self.keeper.whole().parts.iter().any(|kept| kept.part.is_up()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Changes of what is up and what is away.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.start();
        self.keeper.changes()
    }

    /// Whether the part that has a key is known to be away, or the key's customer to be moving, so that nothing is asked.
    pub fn is_away(&self, key: impl FnOnce() -> String) -> bool {
        self.start();
        if !self.keeper.is_any_away() {
            return false;
        }
        let key = key();
        let part = self.keeper.whole().part_with(&key);
        part.is_none_or(|part| part.trouble().is_some()) || self.keeper.moving().trouble(&key).is_some()
    }

    /// Whether a part is known to be away.
    pub fn is_any_away(&self) -> bool {
        self.keeper.is_any_away()
    }

    /// Whether all parts are known to be away.
    pub fn is_all_away(&self) -> bool {
        self.keeper.is_any_away() && self.keeper.whole().parts.iter().all(|kept| kept.part.trouble().is_some())
    }

    /// Whether the part that has a key is there, as far as is known.
    pub fn is_up(&self, key: &str) -> bool {
        self.keeper.whole().part_with(key).is_some_and(|part| part.is_up())
            && self.keeper.moving().trouble(key).is_none()
    }

    /// All parts, each with its connection or why it has none, for commands other than scripts.
    ///
    /// # Errors
    /// All of them are away.
    pub async fn parts(&self) -> Result<Vec<(Arc<Kept>, Connected)>, Trouble> {
        self.ready().await?;
        let deadline = Instant::now() + DEADLINE;
        let mut parts = Vec::new();
        for kept in &self.keeper.whole().parts {
            parts.push((kept.clone(), kept.part.connection(deadline).await));
        }
        Ok(parts)
    }

    /// How many parts there are, and how many are away; how many customers are held up because their slots move.
    pub fn how_many(&self) -> (usize, usize, usize) {
        let whole = self.keeper.whole();
        let away = whole.parts.iter().filter(|kept| kept.part.trouble().is_some()).count();
        (whole.parts.len(), away, self.keeper.moving().len())
    }

    /// What is away and why, and changes of it.
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.keeper.outage()
    }

    /// What an administrator should change at the servers, and changes of it.
    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.keeper.advice()
    }

    pub fn is_connecting(&self) -> bool {
        self.keeper.whole().parts.iter().all(|kept| kept.part.is_connecting())
    }

    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.keeper.hash_key()
    }

    async fn retrying(&self, asked: &Arc<Asked>) -> Result<Value, Trouble> {
        self.start();
        let key = asked.question.keys.first().map_or("", String::as_str);
        if let Some(why) = self.keeper.moving().trouble(key) {
            return Err(why);
        }
        let deadline = Instant::now() + DEADLINE;
        let (mut pause, mut redirects, mut for_once) = (ASK_AGAIN.0, 0, None);
        loop {
            let is_for_once = for_once.is_some();
            let part = match for_once.take() {
                Some(part) => part,
                None => self.keeper.whole().part_with(key).ok_or("the slot is on no server of the cluster")?,
            };
            let (id, lane) = match part.connection(deadline).await {
                Ok(connected) => connected,
                Err(NoConnection::Away(why)) => return Err(why),
                Err(NoConnection::Gone) => continue,
            };
            let failure = match ask(&lane, asked, is_for_once, deadline).await {
                Ok(value) => {
                    self.keeper.question_works();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            if let Some((address, is_for_once)) = failure.redirect()
                && redirects < REDIRECTS
            {
                redirects += 1;
                let target = self.keeper.redirected(slot_of(key), address, is_for_once);
                for_once = target.filter(|_| is_for_once);
                continue;
            }
            let breaks = failure.breaks();
            if breaks {
                part.failed(id, Some(key));
            }
            if failure.is_final() || Instant::now() + pause >= deadline {
                if failure.slot_moves() {
                    return Err(self.keeper.is_held_up(key, &asked.question.keys));
                }
                let why: Trouble = failure.in_words().into();
                if !breaks {
                    self.keeper.question_fails(why.clone());
                }
                return Err(why);
            }
            sleep(pause).await;
            (pause, redirects) = ((pause * 2).min(ASK_AGAIN.1), 0);
        }
    }

    fn start(&self) {
        self.task.get_or_init(|| tokio::spawn(keep(self.keeper.clone())).abort_handle());
    }
}

async fn ask(lane: &Arc<Lane>, asked: &Arc<Asked>, for_once: bool, deadline: Instant) -> Result<Value, Failure> {
    match for_once {
        true => Failure::or(deadline, lane.ask_for_moving_slot(asked)).await,
        false => Failure::or(deadline, lane.ask(asked)).await,
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("outage", &*self.keeper.outage().borrow()).finish_non_exhaustive()
    }
}
