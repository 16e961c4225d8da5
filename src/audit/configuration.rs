//! What was configured last, and what is different now. It is stored beside the audit log, so that changes made
//! while the daemon was down are recorded, too.

use super::digest::sha256_hex;
use super::keys::{Keys, keys_of_toml, keys_of_users};
use super::record::{Action, Change};
use crate::files;
use rusqlite::{Connection, OptionalExtension, Transaction};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "configuration.db";

/// The most changes in one record, in bytes of JSON; the last one may exceed it.
const MAX_RECORD: usize = 128 * 1024;

/// The largest files that are read, in bytes: no smaller than what the configuration accepts.
const MAX_MAIN_FILE: u64 = 1 << 20;
const MAX_CUSTOMER_FILE: u64 = 16 << 20;
const MAX_USERS_FILE: u64 = 128 << 20;

/// Remembers what the files of the configuration said.
#[derive(Debug)]
pub struct ConfigurationLog {
    connection: Connection,
    path: PathBuf,
}

/// The files to compare with what they said before.
#[derive(Debug)]
pub struct ComparedFiles<'a> {
    pub main: &'a Path,
    /// Customer files that may have changed, and are in use as they are.
    pub customers: &'a [PathBuf],
    /// All customer files; others that were there before are gone.
    pub all_customers: &'a HashSet<PathBuf>,
}

/// Why files were not compared, or the result not recorded.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error("{0}")]
    NotRecorded(String),
}

impl ConfigurationLog {
    /// Opens what is remembered in a folder.
    ///
    /// # Errors
    /// It cannot be read or written; one line that says so.
    pub fn open(folder: &Path) -> Result<ConfigurationLog, String> {
        let path = folder.join(FILE_NAME);
        files::ensure_private(&path, files::Access::Group).map_err(|error| format!("{}: {error}", path.display()))?;
        let open = || {
            let connection = Connection::open(&path)?;
            connection.execute_batch(
                "PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS configuration (
                     file   TEXT PRIMARY KEY, -- its path
                     of     TEXT NOT NULL,    -- the customer file that names this users file; else itself
                     digest TEXT NOT NULL,    -- SHA-256 of the text
                     keys   TEXT NOT NULL     -- JSON: keys and values, without passwords
                 ) WITHOUT ROWID;",
            )?;
            Ok(connection)
        };
        let connection = open().map_err(|error: rusqlite::Error| format!("{}: {error}", path.display()))?;
        Ok(ConfigurationLog { connection, path })
    }

    /// Compares files with what they said before. `record` gets what is to be recorded, and how many files differ; only
    /// when it succeeds the new state is remembered. The first time there is nothing to compare with, and only that is
    /// recorded.
    ///
    /// # Errors
    /// They cannot be compared or recorded; one line that says so.
    pub fn compare(
        &mut self,
        files: &ComparedFiles<'_>,
        record: impl FnOnce(Vec<Action>, u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let path = self.path.display().to_string();
        self.compare_files(files, record).map_err(|error| match error {
            CompareError::Database(error) => format!("{path}: {error}"),
            CompareError::NotRecorded(error) => error,
        })
    }

    fn compare_files(
        &mut self,
        files: &ComparedFiles<'_>,
        record: impl FnOnce(Vec<Action>, u64) -> Result<(), String>,
    ) -> Result<(), CompareError> {
        let transaction = self.connection.transaction()?;
        let mut comparison = Comparison::begin(&transaction)?;
        comparison.file(files.main, files.main, &Content::of(files.main, MAX_MAIN_FILE), keys_of_main)?;
        let (mut read, mut users_files) = (HashSet::new(), HashSet::new());
        for file in files.customers {
            let content = Content::of(file, MAX_CUSTOMER_FILE);
            let Content::Text(text) = &content else { continue };
            comparison.file(file, file, &content, keys_of_main)?;
            if let Some(users) = users_file_of(file, text) {
                comparison
                    .file(&users, file, &Content::of(&users, MAX_USERS_FILE), |text| Some(keys_of_users(text)))?;
                users_files.insert(users.display().to_string());
            }
            read.insert(file.display().to_string());
        }
        comparison.forget_missing(files, &read, &users_files)?;
        let (actions, differing) = comparison.finish();
        record(actions, differing).map_err(CompareError::NotRecorded)?;
        transaction.commit()?;
        Ok(())
    }
}

/// What a file holds now.
enum Content {
    Text(String),
    Missing,
    /// It was read a moment ago; whatever it is now, it has not taken effect.
    Unreadable,
}

impl Content {
    fn of(file: &Path, max: u64) -> Content {
        match files::read_regular(file, max) {
            Ok(text) => Content::Text(text),
            Err(error) if error.kind() == ErrorKind::NotFound => Content::Missing,
            Err(_) => Content::Unreadable,
        }
    }
}

/// One comparison, within a transaction of the database.
struct Comparison<'t> {
    transaction: &'t Transaction<'t>,
    /// Nothing was remembered before.
    is_first: bool,
    actions: Vec<Action>,
    differing: u64,
}

impl<'t> Comparison<'t> {
    fn begin(transaction: &'t Transaction<'t>) -> rusqlite::Result<Comparison<'t>> {
        let is_first =
            transaction.query_row("SELECT NOT EXISTS (SELECT 1 FROM configuration)", [], |row| row.get(0))?;
        Ok(Comparison { transaction, is_first, actions: Vec::new(), differing: 0 })
    }

    /// Compares one file, and remembers what it says now. `of` is the customer file that names it, or the file itself.
    fn file(
        &mut self,
        file: &Path,
        of: &Path,
        content: &Content,
        keys: impl FnOnce(&str) -> Option<Keys>,
    ) -> rusqlite::Result<()> {
        let (name, of) = (file.display().to_string(), of.display().to_string());
        let text = match content {
            Content::Text(text) => text,
            Content::Missing => return self.forget(&name),
            Content::Unreadable => return Ok(()),
        };
        let (digest, before) = (digest(text.as_bytes()), self.remembered(&name)?);
        if before.as_ref().is_some_and(|(old, _)| *old == digest) {
            return Ok(());
        }
        // A file that cannot be parsed has not taken effect.
        let Some(new) = keys(text) else { return Ok(()) };
        self.differing += 1;
        if !self.is_first {
            let old = before.map_or_else(Keys::new, |(_, old)| old);
            self.actions.extend(changes_of(&name, &old, &new));
        }
        let json = serde_json::to_string(&new).unwrap_or_default();
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO configuration (file, of, digest, keys) VALUES (?1, ?2, ?3, ?4)")?
            .execute([&name, &of, &digest, &json])?;
        Ok(())
    }

    /// The digest and the keys of a file when it was last compared.
    fn remembered(&self, name: &str) -> rusqlite::Result<Option<(String, Keys)>> {
        let mut select = self.transaction.prepare_cached("SELECT digest, keys FROM configuration WHERE file = ?1")?;
        let row: Option<(String, String)> =
            select.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(row.map(|(digest, keys)| (digest, serde_json::from_str(&keys).unwrap_or_default())))
    }

    fn forget(&mut self, name: &str) -> rusqlite::Result<()> {
        if let Some((_, old)) = self.remembered(name)? {
            self.transaction.execute("DELETE FROM configuration WHERE file = ?1", [name])?;
            self.differing += 1;
            self.actions.extend(changes_of(name, &old, &Keys::new()));
        }
        Ok(())
    }

    /// Forgets customer files that are gone, and users files that none of the customer files just `read` names any more.
    fn forget_missing(
        &mut self,
        files: &ComparedFiles<'_>,
        read: &HashSet<String>,
        users_files: &HashSet<String>,
    ) -> rusqlite::Result<()> {
        let main = files.main.display().to_string();
        let known: Vec<(String, String)> = self
            .transaction
            .prepare("SELECT file, of FROM configuration")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (file, of) in known.into_iter().filter(|(file, _)| *file != main) {
            let is_gone = !files.all_customers.contains(Path::new(&of));
            let is_unnamed = file != of && read.contains(&of) && !users_files.contains(&file);
            if is_gone || is_unnamed {
                self.forget(&file)?;
            }
        }
        Ok(())
    }

    /// The records, and how many files differ.
    fn finish(self) -> (Vec<Action>, u64) {
        let files = self.differing;
        match self.is_first {
            true => (vec![Action::ConfigurationUnknown { files }], files),
            false => (self.actions, files),
        }
    }
}

fn keys_of_main(text: &str) -> Option<Keys> {
    keys_of_toml(text).ok()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    sha256_hex(bytes)
}

/// The users file that a customer file names, relative to it.
fn users_file_of(file: &Path, text: &str) -> Option<PathBuf> {
    let table = toml::from_str::<toml::Table>(text).ok()?;
    Some(file.parent()?.join(table.get("users_file")?.as_str()?))
}

/// The records of one file's changes: more than one if there are many.
fn changes_of(file: &str, old: &Keys, new: &Keys) -> Vec<Action> {
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let gone = gone.map(|(key, value)| Change { key: key.clone(), old: Some(value.clone()), new: None });
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value)).map(|(key, value)| Change {
        key: key.clone(),
        old: old.get(key).cloned(),
        new: Some(value.clone()),
    });
    let mut all: Vec<Change> = gone.chain(changed).collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    let (mut records, mut bytes) = (Vec::<Vec<Change>>::new(), MAX_RECORD);
    for change in all {
        let length = |value: &Option<serde_json::Value>| value.as_ref().map_or(4, |value| value.to_string().len());
        let size = change.key.len() + length(&change.old) + length(&change.new);
        if bytes + size > MAX_RECORD {
            records.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(record) = records.last_mut() {
            record.push(change);
        }
    }
    records.into_iter().map(|changes| Action::ConfigurationFile { file: file.to_owned(), changes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        folder: tempfile::TempDir,
        log: ConfigurationLog,
    }

    impl Files {
        fn new() -> Files {
            let folder = tempfile::tempdir().unwrap();
            let log = ConfigurationLog::open(folder.path()).unwrap();
            Files { folder, log }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        /// What is recorded of these customers' files, `FILE KEY: OLD -> NEW` each.
        fn compare(&mut self, customers: &[&str]) -> Vec<String> {
            let (main, customers) =
                (self.path("main"), customers.iter().map(|name| self.path(name)).collect::<Vec<_>>());
            let all = customers.iter().cloned().collect();
            let compared = ComparedFiles { main: &main, customers: &customers, all_customers: &all };
            let mut recorded = Vec::new();
            let folder = format!("{}/", self.folder.path().display());
            self.log
                .compare(&compared, |actions, _| {
                    recorded.extend(actions.iter().map(|action| {
                        let changes = action.changes().iter().map(|change| format!(" {change}")).collect::<String>();
                        format!("{action}{changes}").replace(&folder, "")
                    }));
                    Ok(())
                })
                .unwrap();
            recorded
        }
    }

    #[test]
    fn differences_are_recorded_key_by_key_and_once() {
        let mut files = Files::new();
        files.write("main", "[relay]\nhostname = \"a.example\"\n");
        files.write("acme", "name = \"acme\"\nusers_file = \"acme.users\"\nlicenses = 5\n");
        files.write("acme.users", "ann@acme.example\n");
        assert!(files.compare(&["acme"])[0].contains("3 files"));
        assert!(files.compare(&["acme"]).is_empty());
        files.write("acme", "name = \"acme\"\nusers_file = \"acme.users\"\nlicenses = 6\n# no key\n");
        files.write("acme.users", "ann@acme.example an@acme.example\nbob@acme.example\n");
        let recorded = files.compare(&["acme"]);
        let users = "acme.users user[\"ann@acme.example\"]: [] -> [\"an@acme.example\"] user[\"bob@acme.example\"]: (none) -> []";
        assert_eq!(recorded, ["acme licenses: 5 -> 6", users]);
        files.write("bolt", "name = \"bolt\"\n");
        assert_eq!(files.compare(&["acme", "bolt"]), ["bolt name: (none) -> \"bolt\""]);
        assert_eq!(files.compare(&["acme"]), ["bolt name: \"bolt\" -> (none)"]);
        files.write("acme", "name = \"acme\"\nlicenses = 6\n");
        let recorded = files.compare(&["acme"]);
        assert!(
            recorded[0].contains("users_file: \"acme.users\" -> (none)") && recorded[1].starts_with("acme.users user"),
            "{recorded:?}"
        );
        assert!(files.compare(&["acme"]).is_empty());
    }

    #[test]
    fn what_was_not_recorded_is_recorded_later() {
        let mut files = Files::new();
        files.write("main", "a = 1\n");
        files.compare(&[]);
        files.write("main", "a = 2\n");
        let (main, all) = (files.path("main"), HashSet::new());
        let compared = ComparedFiles { main: &main, customers: &[], all_customers: &all };
        assert_eq!(files.log.compare(&compared, |_, _| Err("disk full".to_owned())), Err("disk full".to_owned()));
        assert_eq!(files.compare(&[]), ["main a: 1 -> 2"]);
    }

    /// A FIFO in the place of a file would block everybody who reads it, and with them every later reload.
    #[test]
    fn what_is_not_a_regular_file_blocks_nobody_and_changes_nothing() {
        let mut files = Files::new();
        files.write("main", "a = 1\n");
        files.write("acme", "name = \"acme\"\nusers_file = \"acme.users\"\n");
        files.write("acme.users", "ann@acme.example\n");
        files.compare(&["acme"]);
        for name in ["acme.users", "acme", "main"] {
            std::fs::remove_file(files.path(name)).unwrap();
            nix::unistd::mkfifo(&files.path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
            assert!(files.compare(&["acme"]).is_empty(), "{name}");
        }
        std::fs::remove_file(files.path("main")).unwrap();
        assert_eq!(files.compare(&["acme"]), ["main a: 1 -> (none)"], "a file that is missing is gone");
    }

    #[test]
    fn many_changes_take_several_records() {
        let new: Keys = (0..5_000).map(|n| (format!("user{n}"), "x".repeat(100).into())).collect();
        let records = changes_of("file", &Keys::new(), &new);
        assert!(records.len() > 3);
        assert!(records.iter().all(|record| serde_json::to_string(record).unwrap().len() < 3 * MAX_RECORD));
    }
}
