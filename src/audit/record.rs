//! What a record of the audit log says.

use super::actor::Actor;
use super::chain::Anchor;
use crate::directory::{LimitName, Subject};
use crate::orders::Target;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// One record; its hash stands behind it in its line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// From 1, without gaps.
    pub number: u64,
    pub at: Timestamp,
    pub by: Actor,
    #[serde(flatten)]
    pub action: Action,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The hash of the record before; of the first, empty.
    pub previous: String,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// `subject`, as version 0.1.0 named it.
    Suspend {
        subject: Target,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// An administrator's order, or the time of the suspension is over.
    Resume {
        subject: Target,
    },
    QuotaReset {
        subject: Subject,
    },
    /// The time of a shared store's server whose clock jumped is right: what it has counted was moved there.
    ClockReset,
    /// A backup was put in the place of the store. This is the first record after those of the backup.
    Restore {
        /// When the backup was made (RFC 3339).
        made: String,
        /// The version of relaykeeper that made it.
        version: String,
        /// Where the audit log ended that was there before, and is now set aside; `None` if there was none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaced: Option<Anchor>,
    },
    /// A limit is raised until a time; in place of an earlier grant of it.
    Grant {
        subject: Subject,
        limit: LimitName,
        more: u64,
        until: Timestamp,
    },
    /// Its time is over, or somebody took it back.
    GrantEnded {
        subject: Subject,
        limit: LimitName,
        more: u64,
        until: Timestamp,
    },
    /// What the record `of` says was not done after all.
    Failed {
        of: u64,
        error: String,
    },
    /// The configuration was read, at the start or again.
    Configuration {
        /// Keys that changed, but take effect only at the next start.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        need_restart: Vec<String>,
        /// Why it was rejected; empty if it took effect.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        refused: String,
        /// Customer files with errors: their last good copy stays in use, if there is one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        bad_files: Vec<String>,
        /// How many files are new, changed, gone.
        #[serde(default)]
        files: u64,
    },
    /// What is different in a file. A large difference takes several records.
    ConfigurationFile {
        file: String,
        changes: Vec<Change>,
    },
    /// What was configured before is not known: differences are recorded from here on.
    ConfigurationUnknown {
        files: u64,
    },
}

/// A key with another value. Without an old one it is new, without a new one it is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub key: String,
    pub old: Option<Value>,
    pub new: Option<Value>,
}

impl Action {
    /// As in the record and in logs.
    pub const fn key(&self) -> &'static str {
        match self {
            Action::Suspend { .. } => "suspend",
            Action::Resume { .. } => "resume",
            Action::QuotaReset { .. } => "quota-reset",
            Action::ClockReset => "clock-reset",
            Action::Restore { .. } => "restore",
            Action::Grant { .. } => "grant",
            Action::GrantEnded { .. } => "grant-ended",
            Action::Failed { .. } => "failed",
            Action::Configuration { .. } => "configuration",
            Action::ConfigurationFile { .. } => "configuration-file",
            Action::ConfigurationUnknown { .. } => "configuration-unknown",
        }
    }
}

impl Action {
    /// What is different in a file; nothing for other actions.
    pub fn changes(&self) -> &[Change] {
        match self {
            Action::ConfigurationFile { changes, .. } => changes,
            _ => &[],
        }
    }
}

/// `licenses: 250 -> 300`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("(none)".to_owned(), Value::to_string);
        write!(f, "{}: {} -> {}", self.key, shown(&self.old), shown(&self.new))
    }
}

fn how_many(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// One line for people, without the [changes](Action::changes) of a file.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |f: &mut fmt::Formatter<'_>, what, subject: &Subject| {
            write!(f, "{what} {} {}", subject.kind.key(), subject.name)
        };
        let on = |f: &mut fmt::Formatter<'_>, what, target: &Target| {
            write!(f, "{what} {} {}", target.kind.key(), target.name)
        };
        match self {
            Action::Suspend { subject, until } => {
                on(f, "suspend", subject)?;
                until.map_or(Ok(()), |until| write!(f, " until {until}"))
            }
            Action::Resume { subject } => on(f, "resume", subject),
            Action::QuotaReset { subject } => of(f, "reset the quota of", subject),
            Action::ClockReset => f.write_str("accept the clock of the shared store"),
            Action::Restore { made, version, replaced } => {
                write!(f, "restore the backup of {made} (relaykeeper {version})")?;
                match replaced {
                    Some(Anchor { records, .. }) => write!(f, "; the audit log set aside ends with record {records}"),
                    None => Ok(()),
                }
            }
            Action::Grant { subject, limit, more, until } => {
                of(f, "grant", subject)?;
                write!(f, ": {limit} +{more} until {until}")
            }
            Action::GrantEnded { subject, limit, more, until } => {
                of(f, "the end of a grant to", subject)?;
                write!(f, ": {limit} +{more} until {until}")
            }
            Action::Failed { of, error } => write!(f, "record {of} was not carried out: {error}"),
            Action::Configuration { refused, .. } if !refused.is_empty() => {
                write!(f, "configuration rejected, nothing has changed: {refused}")
            }
            Action::Configuration { need_restart, bad_files, files, .. } => {
                let verb = if *files == 1 { "differs" } else { "differ" };
                write!(f, "configuration in use: {} {verb}", how_many(*files, "file"))?;
                if !bad_files.is_empty() {
                    write!(f, "; with errors: {}", bad_files.join(", "))?;
                }
                match need_restart.is_empty() {
                    true => Ok(()),
                    false => write!(f, "; takes effect at the next start only: {}", need_restart.join(", ")),
                }
            }
            Action::ConfigurationFile { file, .. } => f.write_str(file),
            Action::ConfigurationUnknown { files } => {
                let files = how_many(*files, "file");
                write!(f, "what was configured before is not known; changes are recorded from here on ({files})")
            }
        }
    }
}
