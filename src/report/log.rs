//! The log: lines from any thread, written by one of their own.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use parking_lot::{Condvar, Mutex};

use super::sink::{Batch, Sink};
use super::{Level, LogLine};

/// Lines that wait for the writer, in bytes; all further ones are dropped and counted.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// The last eighth of the queue is kept for errors and warnings.
const QUEUE_BYTES_URGENT: usize = QUEUE_BYTES / 8;

/// How long the writer collects lines after a batch, so that it is not woken for each of them.
const GATHER: Duration = Duration::from_millis(2);

/// The level below `error`: nothing is written.
const SILENT: u8 = 0;

/// Takes log lines; cheap to clone, usable from every thread.
///
/// Taking a line is copying it into a buffer under a short lock: it never waits for the disk, a terminal or the
/// syslog daemon. When these are slower than the lines come, lines are dropped, and the log says how many.
///
/// The writer ends when the last clone is gone; [`Logger::flush`] before that makes sure that nothing is left.
#[derive(Clone)]
pub struct Logger(Arc<Handle>);

/// Tells the writer when no logger is left.
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    level: AtomicU8,
    queue: Mutex<Queue>,
    /// The writer waits here.
    work: Condvar,
    /// [`Logger::flush`] waits here.
    flushed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Batch,
    dropped: u64,
    /// The writer sleeps until the first line.
    idle: bool,
    closing: bool,
    next_sink: Option<Box<dyn Sink>>,
    flushes_wanted: u64,
    flushes_done: u64,
    everything_out: bool,
}

impl Logger {
    /// Starts the writer.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(level: Level, sink: Box<dyn Sink>) -> io::Result<Logger> {
        let logger = Logger::unstarted(level as u8);
        let shared = logger.0.shared.clone();
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || write_lines(&shared, sink))?;
        Ok(logger)
    }

    /// A logger that writes nothing.
    pub fn silent() -> Logger {
        Logger::unstarted(SILENT)
    }

    fn unstarted(level: u8) -> Logger {
        let shared = Shared {
            level: AtomicU8::new(level),
            queue: Mutex::default(),
            work: Condvar::new(),
            flushed: Condvar::new(),
        };
        Logger(Arc::new(Handle { shared: Arc::new(shared) }))
    }

    /// Whether lines of this level are written; asking is cheaper than building a line in vain.
    pub fn enabled(&self, level: Level) -> bool {
        level as u8 <= self.0.shared.level.load(Ordering::Relaxed)
    }

    /// From now on lines of this and the more urgent levels are written.
    pub fn set_level(&self, level: Level) {
        let current = &self.0.shared.level;
        let _ =
            current.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now != SILENT).then_some(level as u8));
    }

    /// From now on lines go to this sink, those that wait already, too.
    pub fn set_sink(&self, sink: Box<dyn Sink>) {
        self.0.shared.queue.lock().next_sink = Some(sink);
    }

    /// Hands a line to the writer; never blocks.
    pub fn write(&self, level: Level, line: LogLine) {
        if self.enabled(level) {
            self.0.shared.push(level, &line.finish());
        }
    }

    /// Writes a line of words at level error.
    pub fn error(&self, text: impl Display) {
        self.say(Level::Error, text);
    }

    /// Writes a line of words at level warn.
    pub fn warn(&self, text: impl Display) {
        self.say(Level::Warn, text);
    }

    /// Writes a line of words at level info.
    pub fn info(&self, text: impl Display) {
        self.say(Level::Info, text);
    }

    /// Writes a line of words at level debug.
    pub fn debug(&self, text: impl Display) {
        self.say(Level::Debug, text);
    }

    fn say(&self, level: Level, text: impl Display) {
        if self.enabled(level) {
            self.write(level, LogLine::text(text));
        }
    }

    /// Waits until every line handed over so far is out; for a graceful stop, as it blocks the thread.
    ///
    /// Returns false when lines are still waiting (syslogd is unreachable) or `patience` was not enough.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let shared = &self.0.shared;
        if shared.level.load(Ordering::Relaxed) == SILENT {
            return true;
        }
        let mut queue = shared.queue.lock();
        queue.flushes_wanted += 1;
        let mine = queue.flushes_wanted;
        shared.work.notify_one();
        while queue.flushes_done < mine {
            if shared.flushed.wait_until(&mut queue, deadline).timed_out() {
                return false;
            }
        }
        queue.everything_out
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").field("level", &self.0.shared.level).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn push(&self, level: Level, line: &str) {
        let room = if level <= Level::Warn { QUEUE_BYTES } else { QUEUE_BYTES - QUEUE_BYTES_URGENT };
        let mut queue = self.queue.lock();
        if queue.waiting.text().len() + line.len() >= room {
            queue.dropped += 1;
            return;
        }
        queue.waiting.push(level, line);
        let writer_sleeps = mem::take(&mut queue.idle);
        drop(queue);
        if writer_sleeps {
            self.work.notify_one();
        }
    }

    /// Waits for lines, a flush, the end, or the time at which the sink wants to try again.
    fn take(&self, batch: &mut Batch, retry_in: Option<Duration>) -> Taken {
        let retry_at = retry_in.map(|pause| Instant::now() + pause);
        let mut queue = self.queue.lock();
        while queue.has_nothing_to_do() {
            queue.idle = true;
            match retry_at {
                None => self.work.wait(&mut queue),
                Some(time) => {
                    if self.work.wait_until(&mut queue, time).timed_out() {
                        break;
                    }
                }
            }
        }
        queue.idle = false;
        mem::swap(&mut queue.waiting, batch);
        Taken {
            dropped: mem::take(&mut queue.dropped),
            next_sink: queue.next_sink.take(),
            flush: (queue.flushes_wanted > queue.flushes_done).then_some(queue.flushes_wanted),
            closing: queue.closing,
        }
    }

    fn finish_flush(&self, number: u64, everything_out: bool) {
        let mut queue = self.queue.lock();
        queue.flushes_done = number;
        queue.everything_out = everything_out;
        self.flushed.notify_all();
    }

    fn gather(&self) {
        let mut queue = self.queue.lock();
        let end = Instant::now() + GATHER;
        while !queue.closing && queue.flushes_wanted == queue.flushes_done {
            if self.work.wait_until(&mut queue, end).timed_out() {
                return;
            }
        }
    }
}

impl Queue {
    fn has_nothing_to_do(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0 && !self.closing && self.flushes_wanted == self.flushes_done
    }
}

struct Taken {
    dropped: u64,
    next_sink: Option<Box<dyn Sink>>,
    flush: Option<u64>,
    closing: bool,
}

/// The writer's thread.
fn write_lines(shared: &Shared, mut sink: Box<dyn Sink>) {
    let mut batch = Batch::default();
    loop {
        let taken = shared.take(&mut batch, sink.retry_in());
        if let Some(next) = taken.next_sink {
            sink.flush();
            sink = next;
        }
        if taken.dropped > 0 {
            let line = LogLine::event("log-lines-dropped").field("lines", taken.dropped);
            batch.push(Level::Warn, &line.finish());
        }
        if batch.is_empty() {
            sink.retry();
        } else {
            sink.write(&batch);
            batch.clear();
        }
        if let Some(number) = taken.flush {
            let everything_out = sink.flush();
            shared.finish_flush(number, everything_out);
        }
        if taken.closing {
            return;
        }
        shared.gather();
    }
}

#[cfg(test)]
mod tests;
