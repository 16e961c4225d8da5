//! Who orders something, when, and why.

use jiff::Timestamp;
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Actor {
    /// A process at the control socket, as the kernel knows it (SO_PEERCRED, unix(7)).
    User {
        uid: u32,
        /// From the password database; empty where it has none.
        name: String,
    },
    /// A process at the control socket that the kernel says nothing of.
    Unknown,
    /// Whoever sent a signal: the kernel does not say.
    Signal,
    /// Whoever started the daemon.
    Start,
    /// The daemon itself, by a rule of its configuration.
    Daemon,
}

impl Actor {
    pub fn of_uid(uid: u32) -> Actor {
        let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(String::new, |user| user.name);
        Actor::User { uid, name }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::User { uid, name } if name.is_empty() => write!(f, "uid {uid}"),
            Actor::User { name, .. } => f.write_str(name),
            Actor::Unknown => f.write_str("unknown"),
            Actor::Signal => f.write_str("signal"),
            Actor::Start => f.write_str("start"),
            Actor::Daemon => f.write_str("relaykeeper"),
        }
    }
}

/// Who orders something, when, and why.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub by: Actor,
    pub at: Timestamp,
    pub why: String,
}
