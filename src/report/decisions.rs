//! The decisions behind references, in two files of bounded size that take turns. Recording never makes anybody wait: a
//! thread writes. It yields to mail: a flood of refusals is recorded in part, and the log says how many were left out.

use super::{Logger, OncePer, RateLimit, Reference, and_more};
use crate::files;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

const CURRENT: &str = "decisions.log";
const BEFORE: &str = "decisions.log.1";

/// The largest file, in bytes; there are two.
pub const MAX_FILE: u64 = 32 << 20;

/// Decisions that may wait for the writer.
const QUEUE: usize = 4_096;

/// Decisions a second that are recorded for each [`Source`]: some 150 kB a second.
pub const PER_SECOND: u32 = 100;

/// Decisions of each [`Source`] that are recorded at once, after a quiet time.
pub const BURST: u32 = 2_000;

/// How often the log says that decisions were left out, or cannot be written.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Whose mail a decision is about: that of a customer that was identified, or that of anybody else. Each source has a rate of its own, so that strangers cannot crowd out customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Customer,
    Unknown,
}

/// Takes decisions; what is written of them is rendered on the writer's thread.
#[derive(Debug)]
pub struct DecisionLog<T> {
    queue: SyncSender<Request<T>>,
    rates: [RateLimit; 2],
    left_out: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Request<T> {
    Record(Reference, T),
    Flush(SyncSender<()>),
}

impl<T: Send + 'static> DecisionLog<T> {
    /// Writes to a folder. `render` makes a JSON object of a decision, on one line.
    ///
    /// # Errors
    /// The files cannot be opened, or the system gives no thread.
    pub fn start(folder: &Path, render: fn(Reference, &T) -> String, log: Logger) -> io::Result<DecisionLog<T>> {
        let files = Files::open(folder, MAX_FILE)?;
        let (queue, requests) = sync_channel(QUEUE);
        let left_out = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            files,
            render,
            log,
            left_out: left_out.clone(),
            last_report: None,
            errors: OncePer::new(REPORT_EVERY, 1),
        };
        std::thread::Builder::new().name("decision-writer".to_owned()).spawn(move || writer.run(&requests))?;
        Ok(DecisionLog { queue, rates: [(); 2].map(|()| RateLimit::new(PER_SECOND, BURST)), left_out })
    }

    /// Records a decision, unless there are too many; then it is not even made. Never blocks.
    pub fn record(&self, reference: Reference, source: Source, decision: impl FnOnce() -> T) {
        let rate = &self.rates[source as usize];
        let is_recorded =
            rate.passes(Instant::now()) && self.queue.try_send(Request::Record(reference, decision())).is_ok();
        if !is_recorded {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything recorded so far is written.
    pub fn flush(&self, timeout: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Request::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(timeout);
        }
    }
}

struct Writer<T> {
    files: Files,
    render: fn(Reference, &T) -> String,
    log: Logger,
    left_out: Arc<AtomicU64>,
    /// When the log last said that decisions were left out.
    last_report: Option<Instant>,
    errors: OncePer<()>,
}

impl<T> Writer<T> {
    /// Runs until the log is dropped.
    fn run(mut self, requests: &Receiver<Request<T>>) {
        loop {
            // The end of a flood is reported though nothing more comes.
            let first = match requests.recv_timeout(REPORT_EVERY) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.report_left_out(),
            };
            let written = self.write(first, requests);
            self.report_error(written);
            if self.last_report.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
                self.report_left_out();
            }
        }
    }

    /// Writes what waits. After an error the rest of it is dropped.
    fn write(&mut self, first: Option<Request<T>>, requests: &Receiver<Request<T>>) -> io::Result<()> {
        let mut written = Ok(());
        let (mut next, mut waiting) = (first, Vec::new());
        while let Some(request) = next {
            match request {
                Request::Record(reference, decision) if written.is_ok() => {
                    written = self.files.append(reference, &(self.render)(reference, &decision));
                }
                Request::Record(..) => {
                    self.left_out.fetch_add(1, Ordering::Relaxed);
                }
                Request::Flush(done) => waiting.push(done),
            }
            next = requests.try_recv().ok();
        }
        written = written.and_then(|()| self.files.flush());
        for done in waiting {
            let _ = done.try_send(());
        }
        written
    }

    fn report_error(&self, written: io::Result<()>) {
        if let Err(error) = written
            && let Some(more) = self.errors.check((), Instant::now())
        {
            self.log.warn(format_args!("{CURRENT}: decisions are not recorded: {error}{}", and_more(more)));
        }
    }

    fn report_left_out(&mut self) {
        let number = self.left_out.swap(0, Ordering::Relaxed);
        if number > 0 {
            self.last_report = Some(Instant::now());
            self.log.warn(format_args!(
                "{CURRENT}: {number} decisions were left out: at most {PER_SECOND} a second are recorded for customers, and \
                 as many for unknown senders"
            ));
        }
    }
}

/// The two files of a folder.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    current: BufWriter<File>,
    length: u64,
    max: u64,
}

impl Files {
    fn open(folder: &Path, max: u64) -> io::Result<Files> {
        let file = open(&folder.join(CURRENT))?;
        let length = file.metadata()?.len();
        let mut current = BufWriter::new(file);
        if length > 0 {
            // A line that a crash cut off must not run into the next.
            current.write_all(b"\n")?;
        }
        Ok(Files { folder: folder.to_owned(), current, length, max })
    }

    /// Each line begins with its reference, so that a look-up need not read JSON.
    fn append(&mut self, reference: Reference, json: &str) -> io::Result<()> {
        let line = format!("{reference} {json}\n");
        if self.length > 0 && self.length + line.len() as u64 > self.max {
            self.current.flush()?;
            std::fs::rename(self.folder.join(CURRENT), self.folder.join(BEFORE))?;
            self.current = BufWriter::new(open(&self.folder.join(CURRENT))?);
            self.length = 0;
        }
        self.length += line.len() as u64;
        self.current.write_all(line.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.current.flush()
    }
}

/// It names recipients.
fn open(path: &Path) -> io::Result<File> {
    files::append(path, files::Access::Owner)
}

/// The decision behind a reference, as it was recorded in a folder; `None` if there is none, or none any more.
///
/// # Errors
/// The files are there, but cannot be read.
pub fn find(folder: &Path, reference: Reference) -> io::Result<Option<String>> {
    for name in [CURRENT, BEFORE] {
        let file = match files::open(&folder.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", folder.join(name).display())));
            }
        };
        if let Some(found) = find_in(BufReader::new(file), reference)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The last of that name: those of two runs of the daemon may be the same.
fn find_in(mut file: impl BufRead, reference: Reference) -> io::Result<Option<String>> {
    let beginning = format!("{reference} ");
    let (mut found, mut line) = (None, Vec::new());
    while file.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(beginning.as_bytes()) && line.ends_with(b"}\n") {
            found = Some(String::from_utf8_lossy(&line[beginning.len()..line.len() - 1]).into_owned());
        }
        line.clear();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Level;
    use crate::report::sink::memory::Memory;
    use std::os::unix::fs::PermissionsExt;

    fn render(_: Reference, text: &String) -> String {
        format!("{{\"text\":\"{text}\"}}")
    }

    #[test]
    fn what_was_recorded_is_found_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let references = [Reference::generate(), Reference::generate()];
        for (reference, text) in references.into_iter().zip(["one", "two"]) {
            let log = DecisionLog::start(folder.path(), render, Logger::silent()).unwrap();
            log.record(reference, Source::Customer, || text.to_owned());
            log.flush(Duration::from_secs(10));
        }
        for (reference, text) in references.into_iter().zip(["one", "two"]) {
            assert_eq!(find(folder.path(), reference).unwrap(), Some(format!("{{\"text\":\"{text}\"}}")));
        }
        assert_eq!(find(folder.path(), Reference::generate()).unwrap(), None);
        let mode = std::fs::metadata(folder.path().join(CURRENT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Of a flood of strangers' refusals only a part is recorded, and all of the customers'.
    #[test]
    fn a_flood_is_recorded_in_part_and_crowds_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let (sink, lines) = Memory::new();
        let logger = Logger::start(Level::Debug, Box::new(sink)).unwrap();
        let log = DecisionLog::start(folder.path(), render, logger.clone()).unwrap();
        let flood = 10 * BURST;
        let made = (0..flood)
            .filter(|_| {
                let mut is_made = false;
                log.record(Reference::generate(), Source::Unknown, || {
                    is_made = true;
                    String::new()
                });
                is_made
            })
            .count() as u32;
        assert!((1..flood / 2).contains(&made), "{made}");
        log.flush(Duration::from_secs(10));
        let reference = Reference::generate();
        log.record(reference, Source::Customer, || "a customer's".to_owned());
        log.flush(Duration::from_secs(10));
        assert!(find(folder.path(), reference).unwrap().is_some());
        drop(log);
        // The thread reports what is left when it ends.
        let left_out = loop {
            logger.flush(Duration::from_secs(10));
            let numbers = lines
                .all()
                .into_iter()
                .filter_map(|(_, line)| line.strip_prefix("decisions.log: ")?.split(' ').next()?.parse::<u32>().ok());
            let sum: u32 = numbers.sum();
            if sum >= flood - made {
                break sum;
            }
            std::thread::yield_now();
        };
        assert_eq!(left_out, flood - made);
    }

    #[test]
    fn a_full_disk_is_reported_once_in_a_while() {
        let (sink, lines) = Memory::new();
        let logger = Logger::start(Level::Debug, Box::new(sink)).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let files = Files { folder: "/dev".into(), current: BufWriter::new(full), length: 0, max: MAX_FILE };
        let errors = OncePer::new(REPORT_EVERY, 1);
        let mut writer =
            Writer { files, render, log: logger.clone(), left_out: Arc::default(), last_report: None, errors };
        let (queue, requests) = sync_channel(1);
        for n in 0..100 {
            queue.send(Request::Record(Reference::generate(), format!("{n} {}", "x".repeat(1_000)))).unwrap();
            let written = writer.write(requests.recv().ok(), &requests);
            writer.report_error(written);
        }
        logger.flush(Duration::from_secs(10));
        let reports = lines.all().into_iter().filter(|(_, line)| line.contains("decisions are not recorded")).count();
        assert_eq!(reports, 1);
    }

    #[test]
    fn the_files_stay_small_and_the_latest_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(folder.path(), 2_000).unwrap();
        let references: Vec<Reference> = (0..200).map(|_| Reference::generate()).collect();
        for reference in &references {
            files.append(*reference, "{\"text\":\"0123456789012345678901234567890123456789\"}").unwrap();
        }
        files.flush().unwrap();
        for name in [CURRENT, BEFORE] {
            assert!(std::fs::metadata(folder.path().join(name)).unwrap().len() <= 2_000);
        }
        assert!(references[180..].iter().all(|&reference| find(folder.path(), reference).unwrap().is_some()));
        assert!(find(folder.path(), references[0]).unwrap().is_none());
    }

    #[test]
    fn a_line_that_was_cut_off_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (cut, next) = (Reference::generate(), Reference::generate());
        std::fs::write(folder.path().join(CURRENT), format!("{cut} {{\"text\":")).unwrap();
        let mut files = Files::open(folder.path(), 2_000).unwrap();
        files.append(next, "{}").unwrap();
        files.flush().unwrap();
        assert_eq!(find(folder.path(), next).unwrap().as_deref(), Some("{}"));
        assert_eq!(find(folder.path(), cut).unwrap(), None);
    }
}
