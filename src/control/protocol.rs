//! Requests and responses on the control socket.

use super::quota::{RankBy, Top, Usage};
use super::status::Status;
use crate::directory::LimitName;
use crate::ledger::MissingNode;
use crate::orders::{Grant, TargetKind};
use crate::session::{EventFilter, SmtpEvent};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest line, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    QuotaShow {
        names: Vec<String>,
    },
    QuotaTop {
        limits: Vec<LimitName>,
        most: usize,
        #[serde(default)]
        by: RankBy,
    },
    QuotaReset {
        name: String,
        why: String,
    },
    /// The clocks of the shared store's servers are right as they are.
    ClockReset {
        why: String,
    },
    /// Without `until` a grant is taken back.
    Grant {
        name: String,
        limit: LimitName,
        more: u64,
        until: Option<Timestamp>,
        why: String,
    },
    Grants,
    Suspend {
        kind: TargetKind,
        name: String,
        why: String,
        /// When it ends by itself; without one it must be resumed.
        until: Option<Timestamp>,
    },
    Resume {
        kind: TargetKind,
        name: String,
        why: String,
    },
    Status,
    /// Watches SMTP events for this many seconds, from now on.
    Watch {
        #[serde(default)]
        filter: EventFilter,
        seconds: u32,
    },
    /// The events of a watch since the last request for them. Waits up to `wait_seconds`, at most 30, for the first one.
    Events {
        watch: u64,
        #[serde(default)]
        wait_seconds: u32,
    },
    Reload {
        why: String,
        #[serde(default)]
        allow_no_customers: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Response {
    Usage {
        usage: Vec<Usage>,
    },
    /// `missing`: nodes of the store that are unavailable; their customers are not in `top`.
    Top {
        top: Vec<Top>,
        #[serde(default)]
        missing: Vec<MissingNode>,
    },
    Grants {
        grants: Vec<Grant>,
    },
    Status {
        status: Box<Status>,
    },
    /// A watch has begun; its name, for `events`.
    Watching {
        watch: u64,
    },
    /// What it has seen, and how many events were lost because nobody fetched them. `ended`: its time is over.
    Events {
        events: Vec<SmtpEvent>,
        lost: u64,
        ended: bool,
    },
    /// It was done; what there is to say about it.
    Done {
        words: String,
    },
    /// It cannot be done; why.
    No {
        words: String,
    },
}
