//! Lines to the local syslog daemon, which may stop and start again.
//!
//! Facilities, severities and the interface of a formatter are those of the crate `syslog`. Its own formatter and backend
//! are not used: they stamp UTC, drop lines when the daemon restarts, and never reconnect.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use ::syslog::{Facility, LogFormat, Severity};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use self::connection::{Connection, Outcome};
use super::{Batch, Sink};
use crate::report::{Level, LogLine};

mod connection;

/// Where the syslog daemon listens.
pub const DEV_LOG: &str = "/dev/log";

const IDENT: &str = "relaykeeper";

/// Lines that wait while the daemon is down or slow, in bytes; more than a full queue of the logger.
const BACKLOG_BYTES: usize = 8 * 1024 * 1024;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Sends lines in the format of RFC 3164, facility mail, local time, to a unix socket: of datagrams, or (as syslog(3)
/// does) a stream.
///
/// While nobody listens there, lines wait, with the time they were written at, and are sent when the daemon is back.
/// Those that do not fit are counted, and a line then says how many there were.
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
    backoff: Option<Backoff>,
}

/// The daemon is down or slow.
#[derive(Debug)]
struct Backoff {
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
            backoff: None,
        }
    }

    fn enqueue(&mut self, level: Level, line: &str) {
        let mut message = Vec::with_capacity(line.len() + 64);
        let format = Rfc3164 { pid: self.pid, stamp: self.stamp.at(Timestamp::now()) };
        // Writing to memory cannot fail.
        let _ = format.format(&mut message, level.severity(), line);
        if self.backlog_bytes + message.len() > self.backlog_limit {
            self.lost += 1;
            return;
        }
        self.backlog_bytes += message.len();
        self.backlog.push_back(message);
    }

    /// Sends what waits, until nothing is left or the daemon accepts no more.
    fn send_backlog(&mut self) {
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
                    self.backoff = None;
                    self.drop_first();
                    self.report_losses();
                }
                Outcome::Unsendable => {
                    self.lost += 1;
                    self.drop_first();
                }
                Outcome::Busy => {
                    self.backoff = Some(Backoff { next_try: Instant::now() + FIRST_RETRY, delay: FIRST_RETRY });
                    return;
                }
                Outcome::Disconnected => self.connection = None,
            }
        }
        self.backoff = None;
    }

    fn drop_first(&mut self) {
        if let Some(message) = self.backlog.pop_front() {
            self.backlog_bytes -= message.len();
        }
    }

    /// Once everything is sent, one more line says how many were lost.
    fn report_losses(&mut self) {
        if self.lost > 0 && self.backlog.is_empty() {
            let line = LogLine::event("syslog-lines-lost").field("lines", self.lost).finish();
            self.lost = 0;
            self.enqueue(Level::Warn, &line);
        }
    }

    fn back_off(&mut self, error: &io::Error) {
        let delay = match &self.backoff {
            Some(backoff) => (backoff.delay * 2).min(LAST_RETRY),
            None => {
                let line = LogLine::event("syslog-away").field("socket", self.path.display()).field("error", error);
                write_to_stderr(&line.finish());
                FIRST_RETRY
            }
        };
        self.backoff = Some(Backoff { next_try: Instant::now() + delay, delay });
    }
}

impl Sink for Syslog {
    fn write(&mut self, batch: &Batch) {
        for (level, line) in batch.lines() {
            self.enqueue(level, line);
        }
        self.retry();
    }

    fn retry_in(&self) -> Option<Duration> {
        let backoff = self.backoff.as_ref()?;
        Some(backoff.next_try.saturating_duration_since(Instant::now()))
    }

    fn retry(&mut self) {
        if self.backoff.as_ref().is_none_or(|backoff| backoff.next_try <= Instant::now()) {
            self.send_backlog();
        }
    }

    fn flush(&mut self) -> bool {
        self.send_backlog();
        self.backlog.is_empty()
    }
}

impl Drop for Syslog {
    /// Lines that the daemon never accepted go to standard error.
    fn drop(&mut self) {
        self.send_backlog();
        for message in &self.backlog {
            write_to_stderr(&String::from_utf8_lossy(message));
        }
        if self.lost > 0 {
            write_to_stderr(&LogLine::event("syslog-lines-lost").field("lines", self.lost).finish());
        }
    }
}

/// The last resort; standard error may be closed, too, and then nothing is left.
fn write_to_stderr(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A message as syslog(3) of the GNU library sends it: RFC 3164, sections 4.1.1 and 4.1.2, without the host name, which
/// the daemon adds.
struct Rfc3164<'a> {
    pid: u32,
    stamp: &'a str,
}

impl LogFormat<&str> for Rfc3164<'_> {
    fn format<W: Write>(&self, to: &mut W, severity: Severity, line: &str) -> ::syslog::Result<()> {
        let priority = Facility::LOG_MAIL as u8 | severity as u8;
        write!(to, "<{priority}>{} {IDENT}[{}]: {line}", self.stamp, self.pid).map_err(::syslog::Error::Write)
    }
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
