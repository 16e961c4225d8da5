//! What was configured last, and what is different now. It is kept beside the audit log, so that changes made while
//! the daemon was down are told, too.

use super::digest::sha256_hex;
use super::keys::{Keys, keys_of_toml, keys_of_users};
use super::record::{Action, Change};
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "configuration.db";

/// A record holds so many bytes of changes at most, more or less.
const MAX_RECORD: usize = 128 * 1024;

/// Remembers what the files of the configuration said.
#[derive(Debug)]
pub struct ConfigurationLog {
    connection: Connection,
    path: PathBuf,
}

/// What is to be compared.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The main file, if it was read.
    pub main: &'a Path,
    /// Customer files that may have changed, and are in use as they are.
    pub customers: &'a [PathBuf],
    /// All customer files; others that were there before are gone.
    pub all_customers: &'a HashSet<PathBuf>,
}

impl ConfigurationLog {
    /// Opens what is remembered in a folder.
    ///
    /// # Errors
    /// It cannot be read or written; one line that says so.
    pub fn open(folder: &Path) -> Result<ConfigurationLog, String> {
        let path = folder.join(FILE_NAME);
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
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&path, private).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(ConfigurationLog { connection, path })
    }

    /// Compares files with what they said before. `record` gets what is to be recorded, and how many files differ; only
    /// when it succeeds the new state is remembered. Without anything to compare with, only that is told.
    ///
    /// # Errors
    /// It cannot be told; one line that says so.
    pub fn compare(
        &mut self,
        difference: &Difference<'_>,
        record: impl FnOnce(Vec<Action>, u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let path = self.path.display().to_string();
        self.compare_files(difference, record).map_err(|trouble| match trouble {
            Trouble::Store(error) => format!("{path}: {error}"),
            Trouble::Record(error) => error,
        })
    }

    fn compare_files(
        &mut self,
        difference: &Difference<'_>,
        record: impl FnOnce(Vec<Action>, u64) -> Result<(), String>,
    ) -> Result<(), Trouble> {
        let transaction = self.connection.transaction()?;
        let is_first: bool =
            transaction.query_row("SELECT NOT EXISTS (SELECT 1 FROM configuration)", [], |row| row.get(0))?;
        let (mut actions, mut files) = (Vec::new(), 0u64);
        let mut compare = |file: &Path, of: &Path, text: Option<String>, keys: fn(&str) -> Option<Keys>| {
            let (name, of) = (file.display().to_string(), of.display().to_string());
            let found: Option<(String, String)> = transaction
                .prepare_cached("SELECT digest, keys FROM configuration WHERE file = ?1")?
                .query_row([&name], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some(text) = text else {
                if let Some((_, old)) = found {
                    transaction.execute("DELETE FROM configuration WHERE file = ?1", [&name])?;
                    files += 1;
                    actions.extend(changes_of(&name, &parsed(&old), &Keys::new()));
                }
                return Ok(());
            };
            let digest = digest(text.as_bytes());
            if found.as_ref().is_some_and(|(old, _)| *old == digest) {
                return Ok(());
            }
            // What cannot be read was not put in force.
            let Some(new) = keys(&text) else { return Ok(()) };
            files += 1;
            if !is_first {
                let old = found.map_or_else(Keys::new, |(_, old)| parsed(&old));
                actions.extend(changes_of(&name, &old, &new));
            }
            let json = serde_json::to_string(&new).unwrap_or_default();
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO configuration (file, of, digest, keys) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute([&name, &of, &digest, &json])?;
            Ok::<(), Trouble>(())
        };
        let toml = |text: &str| keys_of_toml(text).ok();
        compare(difference.main, difference.main, std::fs::read_to_string(difference.main).ok(), toml)?;
        let mut users_files = HashSet::new();
        for file in difference.customers {
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            let users = users_file_of(file, &text);
            compare(file, file, Some(text), toml)?;
            if let Some(users) = users {
                compare(&users, file, std::fs::read_to_string(&users).ok(), |text| Some(keys_of_users(text)))?;
                users_files.insert(users.display().to_string());
            }
        }
        let changed: HashSet<String> = difference.customers.iter().map(|file| file.display().to_string()).collect();
        let main = difference.main.display().to_string();
        let known: Vec<(String, String)> = transaction
            .prepare("SELECT file, of FROM configuration")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (file, of) in known.into_iter().filter(|(file, _)| *file != main) {
            let is_gone = !difference.all_customers.contains(Path::new(&of));
            let is_named_no_more = file != of && changed.contains(&of) && !users_files.contains(&file);
            if is_gone || is_named_no_more {
                compare(Path::new(&file), Path::new(&of), None, toml)?;
            }
        }
        if is_first {
            actions = vec![Action::ConfigurationUnknown { files }];
        }
        record(actions, files).map_err(Trouble::Record)?;
        transaction.commit()?;
        Ok(())
    }
}

enum Trouble {
    Store(rusqlite::Error),
    Record(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        Trouble::Store(error)
    }
}

pub(super) fn digest(bytes: &[u8]) -> String {
    sha256_hex(bytes)
}

/// The users file that a customer file names, relative to it.
fn users_file_of(file: &Path, text: &str) -> Option<PathBuf> {
    let table = toml::from_str::<toml::Table>(text).ok()?;
    Some(file.parent()?.join(table.get("users_file")?.as_str()?))
}

fn parsed(keys: &str) -> Keys {
    serde_json::from_str(keys).unwrap_or_default()
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

        /// What is told of these customers' files, `FILE KEY: OLD -> NEW` each.
        fn compare(&mut self, customers: &[&str]) -> Vec<String> {
            let (main, customers) =
                (self.path("main"), customers.iter().map(|name| self.path(name)).collect::<Vec<_>>());
            let all = customers.iter().cloned().collect();
            let difference = Difference { main: &main, customers: &customers, all_customers: &all };
            let mut told = Vec::new();
            let folder = format!("{}/", self.folder.path().display());
            self.log
                .compare(&difference, |actions, _| {
                    told.extend(
                        actions.iter().map(|action| action.to_string().replace(&folder, "").replace("\n   ", "")),
                    );
                    Ok(())
                })
                .unwrap();
            told
        }
    }

    #[test]
    fn differences_are_told_key_by_key_and_once() {
        let mut files = Files::new();
        files.write("main", "[relay]\nhostname = \"a.example\"\n");
        files.write("acme", "name = \"acme\"\nusers_file = \"acme.users\"\nlicenses = 5\n");
        files.write("acme.users", "ann@acme.example\n");
        assert!(files.compare(&["acme"])[0].contains("3 files"));
        assert!(files.compare(&["acme"]).is_empty());
        files.write("acme", "name = \"acme\"\nusers_file = \"acme.users\"\nlicenses = 6\n# no key\n");
        files.write("acme.users", "ann@acme.example an@acme.example\nbob@acme.example\n");
        let told = files.compare(&["acme"]);
        let users = "acme.users user[\"ann@acme.example\"]: [] -> [\"an@acme.example\"] user[\"bob@acme.example\"]: (none) -> []";
        assert_eq!(told, ["acme licenses: 5 -> 6", users]);
        files.write("bolt", "name = \"bolt\"\n");
        assert_eq!(files.compare(&["acme", "bolt"]), ["bolt name: (none) -> \"bolt\""]);
        assert_eq!(files.compare(&["acme"]), ["bolt name: \"bolt\" -> (none)"]);
        files.write("acme", "name = \"acme\"\nlicenses = 6\n");
        let told = files.compare(&["acme"]);
        assert!(
            told[0].contains("users_file: \"acme.users\" -> (none)") && told[1].starts_with("acme.users user"),
            "{told:?}"
        );
        assert!(files.compare(&["acme"]).is_empty());
    }

    #[test]
    fn what_was_not_recorded_is_told_again() {
        let mut files = Files::new();
        files.write("main", "a = 1\n");
        files.compare(&[]);
        files.write("main", "a = 2\n");
        let (main, all) = (files.path("main"), HashSet::new());
        let difference = Difference { main: &main, customers: &[], all_customers: &all };
        assert_eq!(files.log.compare(&difference, |_, _| Err("disk full".to_owned())), Err("disk full".to_owned()));
        assert_eq!(files.compare(&[]), ["main a: 1 -> 2"]);
    }

    #[test]
    fn many_changes_take_several_records() {
        let new: Keys = (0..5_000).map(|n| (format!("user{n}"), "x".repeat(100).into())).collect();
        let records = changes_of("file", &Keys::new(), &new);
        assert!(records.len() > 3);
        assert!(records.iter().all(|record| serde_json::to_string(record).unwrap().len() < 3 * MAX_RECORD));
    }
}
