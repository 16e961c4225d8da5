//! The decisions behind references, in two files of bounded size that take turns. Recording never makes anybody wait:
//! a thread writes, and what it cannot keep up with is left out.

use super::{Logger, Reference};
use crate::files;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

const CURRENT: &str = "decisions.log";
const BEFORE: &str = "decisions.log.1";

/// The largest file, in bytes; there are two.
pub const MAX_FILE: u64 = 32 << 20;

/// So many decisions wait for the writer at most.
const QUEUE: usize = 4_096;

/// Takes decisions; what is written of them is made on the writer's thread.
#[derive(Debug)]
pub struct DecisionLog<T> {
    queue: SyncSender<Item<T>>,
}

#[derive(Debug)]
enum Item<T> {
    Decision(Reference, T),
    Flush(SyncSender<()>),
}

impl<T: Send + 'static> DecisionLog<T> {
    /// Writes to a folder. `render` makes a JSON object of a decision, on one line.
    ///
    /// # Errors
    /// The files cannot be opened, or the system gives no thread.
    pub fn start(folder: &Path, render: fn(Reference, &T) -> String, log: Logger) -> io::Result<DecisionLog<T>> {
        let mut files = Files::open(folder, MAX_FILE)?;
        let (queue, items) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("decision-writer".to_owned())
            .spawn(move || write_all(&items, &mut files, render, &log))?;
        Ok(DecisionLog { queue })
    }

    /// Never blocks.
    pub fn record(&self, reference: Reference, decision: T) {
        // A full queue: decisions are made faster than anybody could look at them.
        let _ = self.queue.try_send(Item::Decision(reference, decision));
    }

    /// Waits until what was recorded is written.
    pub fn flush(&self, patience: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(patience);
        }
    }
}

fn write_all<T>(items: &Receiver<Item<T>>, files: &mut Files, render: fn(Reference, &T) -> String, log: &Logger) {
    let mut is_failing = false;
    let mut note = |result: io::Result<()>| {
        if let (Err(error), false) = (&result, is_failing) {
            log.warn(format_args!("{CURRENT}: decisions are not recorded: {error}"));
        }
        is_failing = result.is_err();
    };
    while let Ok(first) = items.recv() {
        let mut next = Some(first);
        while let Some(item) = next.take() {
            match item {
                Item::Decision(reference, decision) => {
                    note(files.append(reference, &render(reference, &decision)));
                }
                Item::Flush(done) => {
                    note(files.flush());
                    let _ = done.try_send(());
                }
            }
            next = items.try_recv().ok();
        }
        note(files.flush());
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
            // A line that a crash cut off must not swallow the next.
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
        let file = match File::open(folder.join(name)) {
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
            log.record(reference, text.to_owned());
            log.flush(Duration::from_secs(10));
        }
        for (reference, text) in references.into_iter().zip(["one", "two"]) {
            assert_eq!(find(folder.path(), reference).unwrap(), Some(format!("{{\"text\":\"{text}\"}}")));
        }
        assert_eq!(find(folder.path(), Reference::generate()).unwrap(), None);
        let mode = std::fs::metadata(folder.path().join(CURRENT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
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
