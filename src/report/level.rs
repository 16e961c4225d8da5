//! How much a log line matters.

use std::fmt;
use std::str::FromStr;

use syslog::Severity;

/// How much a log line matters; ordered from the most to the least urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Something does not work, and somebody must act.
    Error = 1,
    /// Something works less well than it should, or soon will.
    Warn = 2,
    /// What an operator wants in the mail log: one line per transaction, one per refusal.
    Info = 3,
    /// What helps to find a fault; the only level at which recipients are named.
    Debug = 4,
}

impl Level {
    /// The name in the configuration (`log.level`).
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The severity of RFC 3164, section 4.1.1; its numbers are also the prefixes of sd-daemon(3).
    pub fn severity(self) -> Severity {
        match self {
            Level::Error => Severity::LOG_ERR,
            Level::Warn => Severity::LOG_WARNING,
            Level::Info => Severity::LOG_INFO,
            Level::Debug => Severity::LOG_DEBUG,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An unknown level; says what was found and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log level \"{}\": write \"error\", \"warn\", \"info\" or \"debug\"", found.escape_debug())]
pub struct UnknownLevel {
    found: String,
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Level, UnknownLevel> {
        [Level::Error, Level::Warn, Level::Info, Level::Debug]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownLevel { found: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
    }

    #[test]
    fn an_unknown_name_is_shown_with_the_known_ones() {
        let error = "warning".parse::<Level>().unwrap_err().to_string();
        assert_eq!(error, r#"unknown log level "warning": write "error", "warn", "info" or "debug""#);
    }

    #[test]
    fn urgent_levels_come_first() {
        assert!(Level::Error < Level::Warn && Level::Warn < Level::Info && Level::Info < Level::Debug);
    }
}
