//! The orders on disk: one file that is replaced as a whole. A damaged file is an error, never an empty one.

use crate::audit::{Anchor, sha256_hex};
use crate::files;
use crate::orders::{Grant, Orders, Suspension, TargetKind};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "administration.json";

/// The newest form that this version reads.
const VERSION: u32 = 2;

/// What version 0.1.0 reads: suspensions of users and customers, without an end. Written wherever it is enough, so that
/// one can go back.
const VERSION_WITHOUT_ENDS: u32 = 1;

/// Larger files are not read: no relaykeeper wrote them.
const MAX_BYTES: u64 = 64 << 20;

/// Stands before the digest of all lines above, in the last line.
const DIGEST: &str = "sha256 ";

/// Why the state cannot be read or written: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{file}: the suspensions cannot be read: {error}")]
    Unreadable { file: String, error: io::Error },
    #[error(
        "{file}: is damaged ({what}): who is suspended is not known; put back a good copy of the file, or move it away to \
         have it made anew from the audit log"
    )]
    Damaged { file: String, what: String },
    #[error("{file}: was written by a newer relaykeeper (version {found} of its form, this one reads {VERSION})")]
    Newer { file: String, found: u32 },
    #[error("{file}: cannot be written: {error}")]
    Unwritable { file: String, error: io::Error },
}

#[derive(Serialize, Deserialize)]
struct StateContent {
    version: u32,
    #[serde(default)]
    suspensions: Vec<Suspension>,
    #[serde(default)]
    grants: Vec<Grant>,
    /// Where the audit log ended.
    #[serde(default)]
    audit: Anchor,
}

/// Where the audit log in a folder ended when something was last written to it.
///
/// # Errors
/// The file that says so cannot be read.
pub fn read_anchor(folder: &Path) -> Result<Anchor, StateError> {
    Ok(StateFile::in_folder(folder).read()?.map_or_else(Anchor::default, |(_, anchor)| anchor))
}

/// The version alone, which every version's form has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The file in a folder.
#[derive(Debug)]
pub(super) struct StateFile {
    folder: PathBuf,
}

impl StateFile {
    pub fn in_folder(folder: &Path) -> StateFile {
        StateFile { folder: folder.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }

    /// What was written last; `None` if there is no file.
    pub fn read(&self) -> Result<Option<(Orders, Anchor)>, StateError> {
        let file = self.path().display().to_string();
        let mut text = String::new();
        match files::open(&self.path()).and_then(|open| open.take(MAX_BYTES + 1).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StateError::Damaged { file, what: "it is not text".to_owned() });
            }
            Err(error) => return Err(StateError::Unreadable { file, error }),
        }
        let damaged = |what: String| StateError::Damaged { file: file.clone(), what };
        if text.len() as u64 > MAX_BYTES {
            return Err(damaged("it is too large".to_owned()));
        }
        let (body, digest) =
            text.trim_end().rsplit_once('\n').ok_or_else(|| damaged("its last line is missing".to_owned()))?;
        let body = format!("{body}\n");
        if digest.strip_prefix(DIGEST) != Some(&digest_of(&body)) {
            return Err(damaged("its digest in the last line does not match".to_owned()));
        }
        let versioned: Versioned = serde_json::from_str(&body).map_err(|error| damaged(error.to_string()))?;
        if versioned.version > VERSION {
            return Err(StateError::Newer { file, found: versioned.version });
        }
        let content: StateContent = serde_json::from_str(&body).map_err(|error| damaged(error.to_string()))?;
        let mut orders = Orders::default();
        content.suspensions.into_iter().for_each(|suspension| orders.suspend(suspension));
        content.grants.into_iter().for_each(|grant| orders.grant(grant));
        Ok(Some((orders, content.audit)))
    }

    /// Replaces the file; when this returns, it is on disk. A failure leaves the old one.
    pub fn write(&self, orders: &Orders, audit: &Anchor) -> Result<(), StateError> {
        let suspensions: Vec<_> =
            orders.suspensions().into_iter().map(|suspension| Suspension::clone(suspension)).collect();
        let is_old = |suspension: &Suspension| {
            matches!(suspension.target.kind, TargetKind::Customer | TargetKind::User) && suspension.until.is_none()
        };
        let version = if suspensions.iter().all(is_old) { VERSION_WITHOUT_ENDS } else { VERSION };
        let grants = orders.grants().into_iter().cloned().collect();
        self.replace(&StateContent { version, suspensions, grants, audit: audit.clone() })
            .map_err(|error| StateError::Unwritable { file: self.path().display().to_string(), error })
    }

    fn replace(&self, content: &StateContent) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(content)?;
        text.push('\n');
        let digest = digest_of(&text);
        let _ = writeln!(text, "{DIGEST}{digest}");
        files::replace(&self.path(), files::Access::Group, text.as_bytes())
    }
}

fn digest_of(text: &str) -> String {
    sha256_hex(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::Target;

    fn suspended(name: &str) -> Orders {
        let mut orders = Orders::default();
        suspend(&mut orders, TargetKind::Customer, name, false);
        orders
    }

    fn suspend(orders: &mut Orders, kind: TargetKind, name: &str, ends: bool) {
        let target = match kind {
            TargetKind::Client => Target::client(name.parse().unwrap()),
            _ => Target { kind, customer: "acme".into(), name: name.into() },
        };
        let since = "2026-11-21T14:32:00Z".parse().unwrap();
        let until = ends.then(|| "2026-11-28T14:32:00Z".parse().unwrap());
        orders.suspend(Suspension { target, why: "spam".into(), by: "root".into(), since, until });
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(folder.path());
        assert!(file.read().unwrap().is_none());
        for orders in [suspended("acme"), suspended("büro"), Orders::default()] {
            let anchor = Anchor { records: 7, hash: "f00d".to_owned() };
            file.write(&orders, &anchor).unwrap();
            assert_eq!(file.read().unwrap(), Some((orders, anchor)));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn an_older_version_can_read_it_as_long_as_it_knows_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(folder.path());
        let version = |kind, name: &str, ends| {
            let mut orders = suspended("acme");
            suspend(&mut orders, kind, name, ends);
            file.write(&orders, &Anchor::default()).unwrap();
            assert_eq!(file.read().unwrap().unwrap().0, orders);
            let text = std::fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
            text.contains("\"version\": 1,")
        };
        assert!(version(TargetKind::User, "ann@acme.example", false));
        assert!(!version(TargetKind::User, "ann@acme.example", true));
        assert!(!version(TargetKind::Login, "kim", false));
        assert!(!version(TargetKind::Client, "192.0.2.0/24", false));
    }

    #[test]
    fn a_file_of_version_0_1_0_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let body = r#"{"version": 1, "suspensions": [{"kind": "user", "customer": "acme", "name": "ann@acme.example",
            "why": "spam", "by": "root", "since": "2026-11-21T14:32:00Z"}],
            "grants": [{"kind": "customer", "customer": "acme", "name": "acme", "limit": "customer.recipients_per_day",
            "more": 5, "until": "2026-11-28T00:00:00Z", "why": "fair", "by": "root", "since": "2026-11-21T14:32:00Z"}],
            "audit": {"records": 2, "hash": "f00d"}}"#;
        let body = format!("{body}\n");
        std::fs::write(folder.path().join(FILE_NAME), format!("{body}{DIGEST}{}\n", digest_of(&body))).unwrap();
        let (orders, anchor) = StateFile::in_folder(folder.path()).read().unwrap().unwrap();
        assert_eq!((orders.suspensions().len(), orders.grants().len(), anchor.records), (1, 1, 2));
    }

    #[test]
    fn no_damage_passes_for_an_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = (StateFile::in_folder(folder.path()), folder.path().join(FILE_NAME));
        file.write(&suspended("acme"), &Anchor::default()).unwrap();
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() - 1 {
            std::fs::write(&path, &good[..length]).unwrap();
            let error = file.read().expect_err("cut off");
            assert!(matches!(error, StateError::Damaged { .. }), "{length}: {error}");
        }
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            std::fs::write(&path, &bad).unwrap();
            assert!(file.read().is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_form_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        let body = "{\"version\": 99, \"suspensions\": 7}\n";
        let text = format!("{body}{DIGEST}{}\n", digest_of(body));
        std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
        let error = StateFile::in_folder(folder.path()).read().unwrap_err().to_string();
        assert!(error.contains("newer relaykeeper (version 99"), "{error}");
    }
}
