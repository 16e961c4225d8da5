//! Where log lines go.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Level;

pub mod journald;
pub mod memory;
pub mod stderr;
pub mod syslog;

/// Takes the log's lines, on the log's own thread.
///
/// A sink handles its own errors: it never panics, never blocks for long, and reports how many lines it lost as soon
/// as it can write again.
pub trait Sink: Send {
    /// Writes these lines, or buffers them.
    fn write(&mut self, batch: &Batch);

    /// How soon [`Sink::retry`] should be called even if nothing new was written; none when nothing is buffered.
    fn retry_in(&self) -> Option<Duration> {
        None
    }

    /// Tries again to write what is buffered.
    fn retry(&mut self) {}

    /// Writes what is buffered, now, with one attempt; false if something is still buffered.
    fn flush(&mut self) -> bool {
        true
    }
}

/// Where the configuration sends the log (`log.to`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The local syslog daemon, facility mail.
    Syslog,
    /// Standard error, the bare lines.
    Stderr,
    /// Standard error as systemd's journal reads it, with the priority of each line.
    Journald,
}

impl Destination {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Destination::Syslog => "syslog",
            Destination::Stderr => "stderr",
            Destination::Journald => "journald",
        }
    }

    /// The sink behind the name. Never fails: lines wait for a syslog daemon that is not running yet.
    pub fn open(self) -> Box<dyn Sink> {
        match self {
            Destination::Syslog => Box::new(syslog::Syslog::new(syslog::DEV_LOG)),
            Destination::Stderr => Box::new(stderr::Stderr::new(std::io::stderr())),
            Destination::Journald => {
                Box::new(journald::Journald::new(std::io::stderr(), journald::stderr_is_journal()))
            }
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An unknown destination; says what was found and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log destination \"{}\": write \"syslog\", \"stderr\" or \"journald\"", found.escape_debug())]
pub struct UnknownDestination {
    found: String,
}

impl FromStr for Destination {
    type Err = UnknownDestination;

    fn from_str(text: &str) -> Result<Destination, UnknownDestination> {
        [Destination::Syslog, Destination::Stderr, Destination::Journald]
            .into_iter()
            .find(|destination| destination.as_str() == text)
            .ok_or_else(|| UnknownDestination { found: text.to_owned() })
    }
}

/// Consecutive log lines, each ending with a line feed, and their levels.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    lines: Vec<(Level, usize)>,
}

impl Batch {
    /// Adds a line, given without its line feed.
    pub fn push(&mut self, level: Level, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines.push((level, self.text.len()));
    }

    /// The lines without their line feeds.
    pub fn lines(&self) -> impl Iterator<Item = (Level, &str)> {
        let mut start = 0;
        self.lines.iter().map(move |&(level, end)| {
            let line = &self.text[start..end - 1];
            start = end;
            (level, line)
        })
    }

    /// All lines as they go to a terminal.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Removes all lines; keeps memory for the next ones, but not what a burst needed.
    pub fn clear(&mut self) {
        const CAPACITY_BYTES: usize = 256 * 1024;
        self.text.clear();
        self.text.shrink_to(CAPACITY_BYTES);
        self.lines.clear();
        self.lines.shrink_to(CAPACITY_BYTES / 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_destination_reads_back() {
        for destination in [Destination::Syslog, Destination::Stderr, Destination::Journald] {
            assert_eq!(destination.to_string().parse(), Ok(destination));
        }
        let error = "file".parse::<Destination>().unwrap_err().to_string();
        assert_eq!(error, r#"unknown log destination "file": write "syslog", "stderr" or "journald""#);
    }

    #[test]
    fn a_batch_gives_back_its_lines() {
        let mut batch = Batch::default();
        batch.push(Level::Info, "one");
        batch.push(Level::Error, "");
        batch.push(Level::Debug, "three");
        let lines: Vec<_> = batch.lines().collect();
        assert_eq!(lines, [(Level::Info, "one"), (Level::Error, ""), (Level::Debug, "three")]);
        assert_eq!(batch.text(), "one\n\nthree\n");
        assert_eq!(batch.len(), 3);
        batch.clear();
        assert!(batch.is_empty() && batch.lines().next().is_none());
    }
}
