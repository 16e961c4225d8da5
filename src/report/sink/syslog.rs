//! Lines to the local syslog daemon, which may go away and come back.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use self::connection::{Connection, Outcome};
use super::{Batch, Sink};
use crate::report::{Level, LogLine};

mod connection;

/// Where the syslog daemon listens.
pub const DEV_LOG: &str = "/dev/log";

/// Facility mail of RFC 3164, section 4.1.1, shifted into its place in the priority.
const FACILITY_MAIL: u8 = 2 << 3;
const IDENT: &str = "relaykeeper";

/// Lines kept while the daemon is away or slow, in bytes; more than a full queue of the logger.
const BACKLOG_BYTES: usize = 8 * 1024 * 1024;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Sends lines in the form of RFC 3164, facility mail, local time, to a unix socket, of datagrams or (as syslog(3)
/// does too) a stream.
///
/// While nobody listens there, lines are kept, with the time they were written at, and sent when the daemon is
/// back. What does not fit any more is counted, and the number told then.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    pid: u32,
    stamp: Stamp,
    connection: Option<Connection>,
    backlog: VecDeque<Vec<u8>>,
    backlog_bytes: usize,
    backlog_limit: usize,
    lost: u64,
    trouble: Option<Trouble>,
}

/// The daemon is away or slow.
#[derive(Debug)]
struct Trouble {
    next_try: Instant,
    delay: Duration,
}

impl Syslog {
    /// Lines go to the socket at `path`, usually [`DEV_LOG`].
    pub fn new(path: impl AsRef<Path>) -> Syslog {
        Syslog {
            path: path.as_ref().to_owned(),
            pid: process::id(),
            stamp: Stamp::default(),
            connection: None,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            backlog_limit: BACKLOG_BYTES,
            lost: 0,
            trouble: None,
        }
    }

    fn keep(&mut self, level: Level, line: &str) {
        let mut message = Vec::with_capacity(line.len() + 64);
        let priority = FACILITY_MAIL | level.syslog_severity();
        let stamp = self.stamp.at(Timestamp::now());
        let _ = write!(message, "<{priority}>{stamp} {IDENT}[{}]: {line}", self.pid);
        if self.backlog_bytes + message.len() > self.backlog_limit {
            self.lost += 1;
            return;
        }
        self.backlog_bytes += message.len();
        self.backlog.push_back(message);
    }

    /// Sends what is kept, until there is nothing left or the daemon takes no more.
    fn send_kept(&mut self) {
        let mut reconnected = false;
        while let Some(message) = self.backlog.front() {
            let Some(connection) = &mut self.connection else {
                match Connection::open(&self.path) {
                    Ok(opened) if !reconnected => {
                        self.connection = Some(opened);
                        reconnected = true;
                        continue;
                    }
                    Ok(_) => self.back_off(&io::Error::other("it closes every connection")),
                    Err(error) => self.back_off(&error),
                }
                return;
            };
            match connection.send(message) {
                Outcome::Sent => {
                    self.trouble = None;
                    self.forget_first();
                    self.tell_losses();
                }
                Outcome::Unsendable => {
                    self.lost += 1;
                    self.forget_first();
                }
                Outcome::Busy => {
                    self.trouble = Some(Trouble { next_try: Instant::now() + FIRST_RETRY, delay: FIRST_RETRY });
                    return;
                }
                Outcome::Gone => self.connection = None,
            }
        }
        self.trouble = None;
    }

    fn forget_first(&mut self) {
        if let Some(message) = self.backlog.pop_front() {
            self.backlog_bytes -= message.len();
        }
    }

    /// Once all that was kept is sent, one more line says what was not.
    fn tell_losses(&mut self) {
        if self.lost > 0 && self.backlog.is_empty() {
            let line = LogLine::event("syslog-lines-lost").field("lines", self.lost).finish();
            self.lost = 0;
            self.keep(Level::Warn, &line);
        }
    }

    fn back_off(&mut self, error: &io::Error) {
        let delay = match &self.trouble {
            Some(trouble) => (trouble.delay * 2).min(LAST_RETRY),
            None => {
                let line = LogLine::event("syslog-away").field("socket", self.path.display()).field("error", error);
                complain(&line.finish());
                FIRST_RETRY
            }
        };
        self.trouble = Some(Trouble { next_try: Instant::now() + delay, delay });
    }
}

impl Sink for Syslog {
    fn write(&mut self, batch: &Batch) {
        for (level, line) in batch.lines() {
            self.keep(level, line);
        }
        self.retry();
    }

    fn retry_in(&self) -> Option<Duration> {
        let trouble = self.trouble.as_ref()?;
        Some(trouble.next_try.saturating_duration_since(Instant::now()))
    }

    fn retry(&mut self) {
        if self.trouble.as_ref().is_none_or(|trouble| trouble.next_try <= Instant::now()) {
            self.send_kept();
        }
    }

    fn flush(&mut self) -> bool {
        self.send_kept();
        self.backlog.is_empty()
    }
}

impl Drop for Syslog {
    /// What the daemon never took is better on standard error than nowhere.
    fn drop(&mut self) {
        self.send_kept();
        for message in &self.backlog {
            complain(&String::from_utf8_lossy(message));
        }
        if self.lost > 0 {
            complain(&LogLine::event("syslog-lines-lost").field("lines", self.lost).finish());
        }
    }
}

/// The last resort; standard error may be closed, and there is nobody left to tell.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The time stamp of RFC 3164, section 4.1.2, in local time; made once a second.
#[derive(Debug, Default)]
struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Stamp {
    fn at(&mut self, now: Timestamp) -> &str {
        if self.second != Some(now.as_second()) {
            self.second = Some(now.as_second());
            self.text = stamp(&now.to_zoned(TimeZone::system()));
        }
        &self.text
    }
}

fn stamp(time: &Zoned) -> String {
    time.strftime("%b %e %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests;
