//! Is it healthy, since when, and what has it decided?

use super::mta_status::{MtaStatus, mta_status};
use crate::ledger::Gauges;
use crate::orders::Suspension;
use crate::session::Engine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// When the daemon started (RFC 3339).
    pub since: String,
    pub uptime_seconds: u64,
    /// The addresses that the daemon listens on.
    #[serde(default)]
    pub listening: Vec<String>,
    /// When the configuration in force was loaded (RFC 3339).
    #[serde(default)]
    pub configured_at: String,
    pub customers: usize,
    /// Files that changed on disk since the configuration was loaded, a line each: a reload would read them.
    #[serde(default)]
    pub differs_on_disk: Vec<String>,
    /// Customer files that are not in use as they are, and what is done instead.
    pub bad_files: Vec<String>,
    /// `ready`, `loading`, or what is wrong.
    pub store: String,
    /// What an administrator should know or change about the servers of a shared store; `null` where there is nothing.
    #[serde(default)]
    pub store_advice: Option<String>,
    /// Numbers of a store that is shared; `null` for the embedded one.
    pub shared_store: Option<Gauges>,
    /// What is wrong with the audit log and the files of the administration.
    pub administration: Vec<String>,
    /// Why relaykeeper's own mail cannot be sent; `null` where nothing is wrong.
    pub mail: Option<String>,
    pub open_transactions: usize,
    pub milter_sessions: usize,
    /// What each MTA asked since the start.
    #[serde(default)]
    pub mta: Vec<MtaStatus>,
    /// Whose mail is refused by order of an administrator.
    pub suspended: Vec<Suspension>,
    pub decisions: Decisions,
}

/// Since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    /// Recipients let through.
    pub recipients: u64,
    /// Messages accepted and counted.
    pub messages: u64,
    /// Recipients and messages that are not ours to judge.
    pub exempt: u64,
    /// By reason.
    pub refused: BTreeMap<String, u64>,
    /// Recipients, sizes of messages and SMTP sessions that only shadow let through, by reason.
    pub would_have_refused: BTreeMap<String, u64>,
}

impl Status {
    pub fn of(engine: &Engine, uptime: Duration, differs_on_disk: Vec<String>) -> Status {
        let (tally, snapshot, orders) = (&engine.tally, engine.snapshot(), engine.administration.orders());
        let now = engine.wall_time();
        let standing = orders.suspensions().into_iter().filter(|suspension| suspension.stands(now));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: jiff::Timestamp::now().checked_sub(uptime).map_or_else(|_| String::new(), to_the_second),
            uptime_seconds: uptime.as_secs(),
            listening: Vec::new(),
            configured_at: to_the_second(snapshot.configured_at),
            customers: snapshot.directory.customers().len(),
            differs_on_disk,
            bad_files: snapshot.bad_files.iter().map(ToString::to_string).collect(),
            store: engine.ledger.health().to_string(),
            store_advice: engine.ledger.advice().and_then(|advice| advice.borrow().as_deref().map(str::to_owned)),
            shared_store: engine.ledger.gauges(),
            administration: engine.administration.problems(),
            mail: engine.own_mail.problem(),
            open_transactions: engine.open_transactions.count(),
            milter_sessions: engine.sessions.len(),
            mta: mta_status(engine),
            suspended: standing.map(|suspension| Suspension::clone(suspension)).collect(),
            decisions: Decisions {
                recipients: tally.recipients(),
                messages: tally.messages(),
                exempt: tally.exempt(),
                refused: by_reason(tally.refusals()),
                would_have_refused: by_reason(tally.would_have_refused()),
            },
        }
    }
}

fn by_reason(counts: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(reason, number)| (reason.to_owned(), number)).collect()
}

fn to_the_second(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).map_or_else(|_| String::new(), |time| time.to_string())
}
