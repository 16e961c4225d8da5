//! What is asked and answered on the control socket.

use super::quota::{Top, Usage};
use super::status::Status;
use crate::directory::{LimitName, SubjectKind};
use crate::ledger::MissingNode;
use crate::orders::Grant;
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
    },
    QuotaReset {
        name: String,
        why: String,
    },
    /// `until` lacks where a grant is taken back.
    Grant {
        name: String,
        limit: LimitName,
        more: u64,
        until: Option<Timestamp>,
        why: String,
    },
    Grants,
    Suspend {
        kind: SubjectKind,
        name: String,
        why: String,
    },
    Resume {
        kind: SubjectKind,
        name: String,
        why: String,
    },
    Status,
    Reload {
        why: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Response {
    Usage {
        usage: Vec<Usage>,
    },
    /// `missing`: parts of the store that did not answer; whoever lies there is not in `top`.
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
    /// Done; what there is to say about it.
    Done {
        words: String,
    },
    /// It cannot be done: why.
    No {
        words: String,
    },
}
