//! What is asked and answered on the control socket.

use super::quota::Usage;
use super::status::Status;
use crate::ledger::SubjectKind;
use serde::{Deserialize, Serialize};

/// The longest line, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    QuotaShow { names: Vec<String> },
    QuotaReset { name: String, why: String },
    Suspend { kind: SubjectKind, name: String, why: String },
    Resume { kind: SubjectKind, name: String, why: String },
    Status,
    Reload,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    Usage {
        usage: Vec<Usage>,
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
