//! The last good copies of customer files on disk, so that a restart does not lose a customer whose file has an error.
//!
//! A copy is the text of the customer's file and of its users file; passwords are never copied. It dies with its file,
//! also if that was removed while the daemon was down.

use crate::config::values::absolute;
use crate::files::{self, Access};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE_NAME: &str = "last-good.db";

/// SHA-256 of a copy.
pub(super) type CopyDigest = [u8; 32];

/// A customer's files as they were when they were last good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// The customer's file.
    pub text: String,
    /// Its users file, if it names one.
    pub users: Option<String>,
}

impl Copy {
    pub fn digest(text: &str, users: Option<&str>) -> CopyDigest {
        let mut hash = Sha256::new();
        // With its length before it, a text cannot go over into the other.
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
        if let Some(users) = users {
            hash.update(b"users");
            hash.update(users);
        }
        hash.finalize().into()
    }
}

/// A copy that is in use and not on disk yet.
#[derive(Clone, Debug)]
pub(super) struct UnsavedCopy {
    /// Absolute.
    pub file: Arc<Path>,
    pub digest: CopyDigest,
    pub copy: Copy,
}

/// What a configuration leaves to be saved, see [`LastGoodCopies::save`].
#[derive(Debug, Default)]
pub struct Unsaved {
    pub(super) copies: Vec<UnsavedCopy>,
    /// All customer files that there are, as absolute paths.
    pub(super) files: Vec<Arc<Path>>,
    /// Whether there are customers now; `None`: what was known before holds.
    pub(super) had_customers: Option<bool>,
}

impl Unsaved {
    /// With what could not be saved before.
    pub fn after(mut self, earlier: Unsaved) -> Unsaved {
        let newer: HashSet<Arc<Path>> = self.copies.iter().map(|copy| copy.file.clone()).collect();
        let files: HashSet<Arc<Path>> = self.files.iter().cloned().collect();
        let is_missing = |copy: &UnsavedCopy| files.contains(&copy.file) && !newer.contains(&copy.file);
        self.copies.extend(earlier.copies.into_iter().filter(is_missing));
        self.had_customers = self.had_customers.or(earlier.had_customers);
        self
    }
}

/// The copies in the store's folder.
#[derive(Debug)]
pub struct LastGoodCopies {
    path: PathBuf,
    /// What is on disk, by the path of the customer's file.
    digests: HashMap<PathBuf, CopyDigest>,
    /// Whether there was any customer.
    pub(super) had_customers: bool,
    /// For reading.
    connection: Option<Mutex<Connection>>,
}

impl LastGoodCopies {
    /// Those of a store's folder; none if it has none yet. Creates nothing.
    ///
    /// # Errors
    /// They cannot be read; one line that says so. Then there are none, and [`LastGoodCopies::save`] tries again.
    pub fn read(folder: &Path) -> (LastGoodCopies, Option<String>) {
        let mut copies = LastGoodCopies::none(folder);
        let error = match copies.read_digests() {
            Ok(()) => None,
            Err(error) => {
                let path = copies.path.display().to_string();
                copies = LastGoodCopies::none(folder);
                Some(format!("{path}: the last good copies of customer files cannot be read: {error}"))
            }
        };
        (copies, error)
    }

    fn none(folder: &Path) -> LastGoodCopies {
        let path = folder.join(FILE_NAME);
        LastGoodCopies { path, digests: HashMap::new(), had_customers: false, connection: None }
    }

    fn read_digests(&mut self) -> rusqlite::Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut statement = connection.prepare("SELECT file, digest FROM copy")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, CopyDigest>(1)?)))?;
        for row in rows {
            let (file, digest) = row?;
            self.digests.insert(OsStr::from_bytes(&file).into(), digest);
        }
        drop(statement);
        self.had_customers = connection.query_row("SELECT had_customers FROM state", [], |row| row.get(0))?;
        self.connection = Some(Mutex::new(connection));
        Ok(())
    }

    /// What is on disk for a customer's file.
    pub(super) fn digest_of(&self, file: &Path) -> Option<&CopyDigest> {
        self.digests.get(&absolute(file))
    }

    /// The copy of a customer's file; none if it cannot be read.
    pub(super) fn copy_of(&self, file: &Path) -> Option<Copy> {
        let connection = self.connection.as_ref()?.lock();
        let read =
            connection.prepare_cached("SELECT text, users FROM copy WHERE file = ?1").and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok(Copy { text: row.get(0)?, users: row.get(1)? });
                statement.query_row([absolute(file).as_os_str().as_bytes()], row).optional()
            });
        read.ok().flatten()
    }

    /// Brings what is on disk up to date, in one transaction.
    ///
    /// # Errors
    /// It cannot be written; one line that says so. What was there before is still there.
    pub fn save(&mut self, unsaved: &Unsaved) -> Result<(), String> {
        self.write(unsaved)
            .or_else(|error| match is_damaged(&*error) {
                // The copies can be had again.
                true => std::fs::remove_file(&self.path).map_err(Into::into).and_then(|()| self.write(unsaved)),
                false => Err(error),
            })
            .map_err(|error| format!("{}: the last good copies cannot be written: {error}", self.path.display()))?;
        let files: HashSet<&Path> = unsaved.files.iter().map(|file| &**file).collect();
        self.digests.retain(|file, _| files.contains(&**file));
        self.digests.extend(unsaved.copies.iter().map(|copy| (copy.file.to_path_buf(), copy.digest)));
        self.had_customers = unsaved.had_customers.unwrap_or(self.had_customers);
        Ok(())
    }

    fn write(&mut self, unsaved: &Unsaved) -> Result<(), Box<dyn std::error::Error>> {
        files::ensure_private(&self.path, Access::Owner)?;
        let mut connection = Connection::open(&self.path)?;
        connection.execute_batch(
            "PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS copy (
                 file   BLOB PRIMARY KEY, -- the path of the customer's file
                 digest BLOB NOT NULL,    -- SHA-256 of both texts
                 text   TEXT NOT NULL,    -- of the customer's file
                 users  TEXT              -- of its users file
             );
             CREATE TABLE IF NOT EXISTS state (
                 id            INTEGER PRIMARY KEY CHECK (id = 1),
                 had_customers INTEGER NOT NULL -- whether there was any customer
             );",
        )?;
        let transaction = connection.transaction()?;
        let files: HashSet<&[u8]> = unsaved.files.iter().map(|file| file.as_os_str().as_bytes()).collect();
        let known: Vec<Vec<u8>> = {
            let mut statement = transaction.prepare("SELECT file FROM copy")?;
            statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        for gone in known.iter().filter(|file| !files.contains(file.as_slice())) {
            transaction.prepare_cached("DELETE FROM copy WHERE file = ?1")?.execute([gone])?;
        }
        let mut insert =
            transaction.prepare("INSERT OR REPLACE INTO copy (file, digest, text, users) VALUES (?1, ?2, ?3, ?4)")?;
        for UnsavedCopy { file, digest, copy } in &unsaved.copies {
            insert.execute(params![file.as_os_str().as_bytes(), digest, copy.text, copy.users])?;
        }
        drop(insert);
        transaction.execute(
            "INSERT OR REPLACE INTO state (id, had_customers) VALUES (1, ?1)",
            [unsaved.had_customers.unwrap_or(self.had_customers)],
        )?;
        transaction.commit()?;
        Ok(())
    }
}

fn is_damaged(error: &(dyn std::error::Error + 'static)) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn unsaved(copies: &[(&str, &str, Option<&str>)], files: &[&str]) -> Unsaved {
        let copy = |&(file, text, users): &(&str, &str, Option<&str>)| UnsavedCopy {
            file: Path::new(file).into(),
            digest: Copy::digest(text, users),
            copy: Copy { text: text.into(), users: users.map(str::to_owned) },
        };
        Unsaved {
            copies: copies.iter().map(copy).collect(),
            files: files.iter().map(|file| Path::new(file).into()).collect(),
            had_customers: Some(!files.is_empty()),
        }
    }

    #[test]
    fn copies_are_private_and_die_with_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let (mut copies, error) = LastGoodCopies::read(folder.path());
        assert!(error.is_none() && !copies.had_customers);
        copies.save(&unsaved(&[("/a", "a = 1", None), ("/b", "b = 1", Some("ann"))], &["/a", "/b"])).unwrap();
        let path = folder.path().join(FILE_NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        copies.save(&unsaved(&[("/b", "b = 2", None)], &["/b", "/c"])).unwrap();

        let (copies, error) = LastGoodCopies::read(folder.path());
        assert!(error.is_none() && copies.had_customers);
        assert_eq!(copies.copy_of(Path::new("/b")), Some(Copy { text: "b = 2".into(), users: None }));
        assert_eq!((copies.copy_of(Path::new("/a")), copies.digest_of(Path::new("/a"))), (None, None));
        assert_eq!(copies.digest_of(Path::new("/b")), Some(&Copy::digest("b = 2", None)));
    }

    #[test]
    fn what_could_not_be_saved_is_saved_the_next_time() {
        let first = unsaved(&[("/a", "a = 1", None), ("/b", "b = 1", None), ("/c", "c", None)], &["/a", "/b", "/c"]);
        let both = unsaved(&[("/a", "a = 2", None)], &["/a", "/b"]).after(first);
        let texts: Vec<&str> = both.copies.iter().map(|copy| copy.copy.text.as_str()).collect();
        assert_eq!(texts, ["a = 2", "b = 1"]);
    }

    #[test]
    fn texts_do_not_go_over_into_each_other() {
        assert_ne!(Copy::digest("ab", None), Copy::digest("a", Some("b")));
        assert_ne!(Copy::digest("ausers", Some("b")), Copy::digest("a", Some("usersb")));
    }

    #[test]
    fn a_damaged_file_is_reported_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), "not a database, but long enough to look at").unwrap();
        let (mut copies, error) = LastGoodCopies::read(folder.path());
        assert!(error.unwrap().contains(FILE_NAME) && copies.copy_of(Path::new("/a")).is_none());
        copies.save(&unsaved(&[("/a", "a = 1", None)], &["/a"])).unwrap();
        assert!(LastGoodCopies::read(folder.path()).0.copy_of(Path::new("/a")).is_some());
    }
}
