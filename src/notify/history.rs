//! Which notices were sent, so that each limit, level and window has one letter, also after a restart of the daemon.

use crate::clock::Moment;
use crate::directory::{LimitName, Subject, SubjectKind};
use crate::files;
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How many topics are remembered. One that was pushed out may be sent again.
const MAX_TOPICS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Lines after which the file is rewritten without those that expired.
const MAX_LINES: usize = 4 * MAX_TOPICS.get();

/// How much of the file is read, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What a notice is about, and whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    pub about: About,
    pub subject: Subject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    Limit(LimitName),
    /// Signs of abuse.
    Abuse,
}

impl About {
    fn key(self) -> &'static str {
        match self {
            About::Limit(limit) => limit.key(),
            About::Abuse => "abuse",
        }
    }

    fn from_key(key: &str) -> Option<About> {
        if key == About::Abuse.key() {
            return Some(About::Abuse);
        }
        LimitName::ALL.into_iter().find(|limit| limit.key() == key).map(About::Limit)
    }
}

/// Notices of the last window, in memory and in a file.
#[derive(Debug)]
pub struct NoticeHistory {
    memory: Mutex<LruCache<Topic, LastNotice>>,
    file: Mutex<Option<HistoryFile>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastNotice {
    /// 1 to 100, in percent; the higher, the worse.
    level: u8,
    /// When the same level may be sent again.
    until: Moment,
}

#[derive(Debug)]
struct HistoryFile {
    path: PathBuf,
    file: File,
    lines: usize,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    about: String,
    kind: String,
    customer: String,
    name: String,
    level: u8,
    until_ms: u64,
}

impl Default for NoticeHistory {
    fn default() -> NoticeHistory {
        NoticeHistory { memory: Mutex::new(LruCache::new(MAX_TOPICS)), file: Mutex::default() }
    }
}

impl NoticeHistory {
    /// Whether neither this level nor a higher one was sent within the window.
    pub fn is_news(&self, topic: &Topic, level: u8, now: Moment) -> bool {
        let memory = self.memory.lock();
        memory.peek(topic).is_none_or(|last| last.until <= now || last.level < level)
    }

    /// Notes that a notice is being sent, unless it is not news. Returns whether it is.
    pub fn note(&self, topic: &Topic, level: u8, now: Moment, window: Duration) -> bool {
        let mut memory = self.memory.lock();
        let is_news = memory.peek(topic).is_none_or(|last| last.until <= now || last.level < level);
        if is_news {
            memory.put(topic.clone(), LastNotice { level, until: now.plus(window) });
        }
        is_news
    }

    /// Writes a noted notice to the file, so that it is not sent again after a restart.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, topic: &Topic) -> io::Result<()> {
        let Some(last) = self.memory.lock().peek(topic).copied() else { return Ok(()) };
        let mut history = self.file.lock();
        let Some(history) = history.as_mut() else { return Ok(()) };
        history.file.write_all(&line(topic, last))?;
        history.lines += 1;
        if history.lines >= MAX_LINES { self.rewrite(history) } else { Ok(()) }
    }

    /// Reads a file, leaves out what expired, and records notices there from now on. Malformed lines are ignored.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(&self, path: &Path, now: Moment) -> io::Result<()> {
        match files::open(path) {
            Ok(file) => self.read(file, now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = files::append(path, files::Access::Owner)?;
        let mut history = HistoryFile { path: path.to_owned(), file, lines: 0 };
        self.rewrite(&mut history)?;
        *self.file.lock() = Some(history);
        Ok(())
    }

    fn read(&self, file: File, now: Moment) {
        let mut memory = self.memory.lock();
        for line in BufReader::new(file.take(MAX_FILE)).split(b'\n') {
            let Ok(line) = line else { return };
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            if let Some((topic, last)) = read_line(&line).filter(|(_, last)| last.until > now) {
                memory.put(topic, last);
            }
        }
    }

    fn rewrite(&self, history: &mut HistoryFile) -> io::Result<()> {
        let (mut text, mut lines) = (Vec::new(), 0);
        for (topic, last) in self.memory.lock().iter().rev() {
            text.extend_from_slice(&line(topic, *last));
            lines += 1;
        }
        files::replace(&history.path, files::Access::Owner, &text)?;
        history.file = files::append(&history.path, files::Access::Owner)?;
        history.lines = lines;
        Ok(())
    }
}

fn line(topic: &Topic, last: LastNotice) -> Vec<u8> {
    let Topic { about, subject } = topic;
    let line = Line {
        about: about.key().to_owned(),
        kind: subject.kind.key().to_owned(),
        customer: subject.customer.to_string(),
        name: subject.name.to_string(),
        level: last.level,
        until_ms: last.until.0,
    };
    let mut text = serde_json::to_vec(&line).unwrap_or_default();
    text.push(b'\n');
    text
}

fn read_line(line: &Line) -> Option<(Topic, LastNotice)> {
    let kinds = [SubjectKind::Customer, SubjectKind::User, SubjectKind::Login];
    let kind = kinds.into_iter().find(|kind| kind.key() == line.kind)?;
    let (customer, name): (Arc<str>, Arc<str>) = (line.customer.as_str().into(), line.name.as_str().into());
    let topic = Topic { about: About::from_key(&line.about)?, subject: Subject { kind, customer, name } };
    Some((topic, LastNotice { level: line.level, until: Moment(line.until_ms) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOON: Moment = Moment::from_seconds(1_800_000_000);

    fn topic(name: &str) -> Topic {
        let subject = Subject { kind: SubjectKind::User, customer: "acme".into(), name: name.into() };
        Topic { about: About::Limit(LimitName::UserMessages), subject }
    }

    #[test]
    fn each_level_is_sent_once_in_a_window() {
        let (history, ann) = (NoticeHistory::default(), topic("ann@acme.example"));
        assert!(history.note(&ann, 80, NOON, DAY));
        assert!(!history.note(&ann, 80, NOON.plus(DAY / 2), DAY));
        assert!(history.note(&ann, 100, NOON.plus(DAY / 2), DAY));
        assert!(!history.is_news(&ann, 90, NOON.plus(DAY)), "it was worse within a day");
        assert!(history.note(&ann, 80, NOON.plus(DAY + DAY / 2), DAY));
        assert!(history.is_news(&topic("bob@acme.example"), 80, NOON));
        assert!(history.is_news(&Topic { about: About::Abuse, ..ann.clone() }, 1, NOON));
    }

    #[test]
    fn many_at_once_send_it_once() {
        let (history, ann) = (NoticeHistory::default(), topic("ann@acme.example"));
        let news = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| history.note(&ann, 80, NOON, DAY))).collect();
            all.into_iter().filter(|_| true).map(|one| one.join().unwrap()).filter(|news| *news).count()
        });
        assert_eq!(news, 1);
    }

    #[test]
    fn the_history_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("told.jsonl");
        let (ann, bob, kim) = (topic("ann@acme.example"), topic("bob@acme.example"), topic("kim@acme.example"));
        let history = NoticeHistory::default();
        history.open(&path, NOON).unwrap();
        for (user, at) in [(&ann, NOON), (&bob, NOON), (&kim, NOON.plus(DAY))] {
            assert!(history.note(user, 90, at, DAY));
        }
        history.record(&ann).unwrap();
        history.record(&kim).unwrap();
        drop(history);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"garbage\n{\"about\":\"ab").unwrap();
        let history = NoticeHistory::default();
        history.open(&path, NOON.plus(DAY / 2)).unwrap();
        assert!(!history.is_news(&ann, 90, NOON.plus(DAY / 2)));
        assert!(history.is_news(&ann, 100, NOON.plus(DAY / 2)));
        assert!(history.is_news(&bob, 90, NOON.plus(DAY / 2)), "it was never sent");
        let history = NoticeHistory::default();
        history.open(&path, NOON.plus(DAY)).unwrap();
        assert!(history.is_news(&ann, 90, NOON.plus(DAY)) && !history.is_news(&kim, 90, NOON.plus(DAY)));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1, "what expired is left out");
    }

    #[test]
    fn memory_and_file_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("told.jsonl");
        let history = NoticeHistory::default();
        history.open(&path, NOON).unwrap();
        for n in 0..MAX_LINES + 100 {
            let user = topic(&format!("user{n}@acme.example"));
            assert!(history.note(&user, 80, NOON, DAY));
            history.record(&user).unwrap();
        }
        assert_eq!(history.memory.lock().len(), MAX_TOPICS.get());
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_TOPICS.get() + 200, "{lines}");
    }
}
