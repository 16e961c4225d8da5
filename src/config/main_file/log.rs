//! `[log]`: where log lines go, and how many.

use crate::config::defaults::log as default;
use crate::config::reading::{Table, TableSpec};
use crate::report::{Destination, Level};

pub(super) static LOG: TableSpec = TableSpec { what: "[log]", prefix: "log.", keys: &["to", "level"] };

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub to: Destination,
    pub level: Level,
}

pub(super) fn read_log(table: &Table<'_>) -> Log {
    let destinations = [Destination::Syslog, Destination::Stderr, Destination::Journald];
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
    let to = table.get("to").and_then(|item| item.choice(&destinations.map(|to| (to.as_str(), to))));
    let level = table.get("level").and_then(|item| item.choice(&levels.map(|level| (level.as_str(), level))));
    Log { to: to.unwrap_or(default::TO), level: level.unwrap_or(default::LEVEL) }
}
