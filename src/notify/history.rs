//! What people have been told already: once per limit, level and window, also after a restart of the daemon.

use crate::clock::Moment;
use crate::directory::{LimitName, Subject, SubjectKind};
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// So much is remembered. What was pushed out may be told again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Lines after which the file is written anew, without what is over.
const MAX_LINES: usize = 4 * REMEMBERED.get();

/// No more of the file is read, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What somebody is told about whom.
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

/// The memory, and the file that it is kept in.
#[derive(Debug)]
pub struct Told {
    memory: Mutex<LruCache<Topic, Telling>>,
    file: Mutex<Option<Kept>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Telling {
    /// 1 to 100; the higher, the worse.
    level: u8,
    /// From then on it may be told again.
    until: Moment,
}

#[derive(Debug)]
struct Kept {
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

impl Default for Told {
    fn default() -> Told {
        Told { memory: Mutex::new(LruCache::new(REMEMBERED)), file: Mutex::default() }
    }
}

impl Told {
    /// Whether this level, or a higher one, was not told within the window.
    pub fn is_news(&self, topic: &Topic, level: u8, now: Moment) -> bool {
        let memory = self.memory.lock();
        memory.peek(topic).is_none_or(|telling| telling.until <= now || telling.level < level)
    }

    /// Notes that it is being told. Returns whether it is news.
    pub fn note(&self, topic: &Topic, level: u8, now: Moment, window: Duration) -> bool {
        let mut memory = self.memory.lock();
        let is_news = memory.peek(topic).is_none_or(|telling| telling.until <= now || telling.level < level);
        if is_news {
            memory.put(topic.clone(), Telling { level, until: now.plus(window) });
        }
        is_news
    }

    /// Puts on record what was noted, so that it is not told again after a restart.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, topic: &Topic) -> io::Result<()> {
        let Some(telling) = self.memory.lock().peek(topic).copied() else { return Ok(()) };
        let mut kept = self.file.lock();
        let Some(kept) = kept.as_mut() else { return Ok(()) };
        kept.file.write_all(&line(topic, telling))?;
        kept.lines += 1;
        if kept.lines >= MAX_LINES { self.rewrite(kept) } else { Ok(()) }
    }

    /// Remembers what a file says and is not over yet, and keeps there what is told from now on.
    ///
    /// # Errors
    /// When the file cannot be written. A line that cannot be read is passed over.
    pub fn keep_in(&self, path: &Path, now: Moment) -> io::Result<()> {
        match File::open(path) {
            Ok(file) => self.read(file, now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut kept = Kept { path: path.to_owned(), file, lines: 0 };
        self.rewrite(&mut kept)?;
        *self.file.lock() = Some(kept);
        Ok(())
    }

    fn read(&self, file: File, now: Moment) {
        let mut memory = self.memory.lock();
        for line in BufReader::new(file.take(MAX_FILE)).split(b'\n') {
            let Ok(line) = line else { return };
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            if let Some((topic, telling)) = read_line(&line).filter(|(_, telling)| telling.until > now) {
                memory.put(topic, telling);
            }
        }
    }

    fn rewrite(&self, kept: &mut Kept) -> io::Result<()> {
        let new = kept.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&new)?;
        let (mut text, mut lines) = (Vec::new(), 0);
        for (topic, telling) in self.memory.lock().iter().rev() {
            text.extend_from_slice(&line(topic, *telling));
            lines += 1;
        }
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &kept.path)?;
        kept.file = OpenOptions::new().append(true).open(&kept.path)?;
        kept.lines = lines;
        Ok(())
    }
}

fn line(topic: &Topic, telling: Telling) -> Vec<u8> {
    let Topic { about, subject } = topic;
    let line = Line {
        about: about.key().to_owned(),
        kind: subject.kind.key().to_owned(),
        customer: subject.customer.to_string(),
        name: subject.name.to_string(),
        level: telling.level,
        until_ms: telling.until.0,
    };
    let mut text = serde_json::to_vec(&line).unwrap_or_default();
    text.push(b'\n');
    text
}

fn read_line(line: &Line) -> Option<(Topic, Telling)> {
    let kinds = [SubjectKind::Customer, SubjectKind::User, SubjectKind::Login];
    let kind = kinds.into_iter().find(|kind| kind.key() == line.kind)?;
    let (customer, name): (Arc<str>, Arc<str>) = (line.customer.as_str().into(), line.name.as_str().into());
    let topic = Topic { about: About::from_key(&line.about)?, subject: Subject { kind, customer, name } };
    Some((topic, Telling { level: line.level, until: Moment(line.until_ms) }))
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
    fn each_level_is_told_once_in_a_window() {
        let (told, ann) = (Told::default(), topic("ann@acme.example"));
        assert!(told.note(&ann, 80, NOON, DAY));
        assert!(!told.note(&ann, 80, NOON.plus(DAY / 2), DAY));
        assert!(told.note(&ann, 100, NOON.plus(DAY / 2), DAY));
        assert!(!told.is_news(&ann, 90, NOON.plus(DAY)), "it was worse within a day");
        assert!(told.note(&ann, 80, NOON.plus(DAY + DAY / 2), DAY));
        assert!(told.is_news(&topic("bob@acme.example"), 80, NOON));
        assert!(told.is_news(&Topic { about: About::Abuse, ..ann.clone() }, 1, NOON));
    }

    #[test]
    fn many_at_once_tell_it_once() {
        let (told, ann) = (Told::default(), topic("ann@acme.example"));
        let news = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| told.note(&ann, 80, NOON, DAY))).collect();
            all.into_iter().filter(|_| true).map(|one| one.join().unwrap()).filter(|news| *news).count()
        });
        assert_eq!(news, 1);
    }

    #[test]
    fn what_was_told_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("told.jsonl");
        let (ann, bob, kim) = (topic("ann@acme.example"), topic("bob@acme.example"), topic("kim@acme.example"));
        let told = Told::default();
        told.keep_in(&path, NOON).unwrap();
        for (user, at) in [(&ann, NOON), (&bob, NOON), (&kim, NOON.plus(DAY))] {
            assert!(told.note(user, 90, at, DAY));
        }
        told.keep(&ann).unwrap();
        told.keep(&kim).unwrap();
        drop(told);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"garbage\n{\"about\":\"ab").unwrap();
        let told = Told::default();
        told.keep_in(&path, NOON.plus(DAY / 2)).unwrap();
        assert!(!told.is_news(&ann, 90, NOON.plus(DAY / 2)));
        assert!(told.is_news(&ann, 100, NOON.plus(DAY / 2)));
        assert!(told.is_news(&bob, 90, NOON.plus(DAY / 2)), "it was never sent");
        let told = Told::default();
        told.keep_in(&path, NOON.plus(DAY)).unwrap();
        assert!(told.is_news(&ann, 90, NOON.plus(DAY)) && !told.is_news(&kim, 90, NOON.plus(DAY)));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1, "what is over is left out");
    }

    #[test]
    fn memory_and_file_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("told.jsonl");
        let told = Told::default();
        told.keep_in(&path, NOON).unwrap();
        for n in 0..MAX_LINES + 100 {
            let user = topic(&format!("user{n}@acme.example"));
            assert!(told.note(&user, 80, NOON, DAY));
            told.keep(&user).unwrap();
        }
        assert_eq!(told.memory.lock().len(), REMEMBERED.get());
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= REMEMBERED.get() + 200, "{lines}");
    }
}
