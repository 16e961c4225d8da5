//! Files that a customer's file names.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// A file that a customer's file names. It belongs to that customer alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct NamedFile {
    pub kind: NamedKind,
    pub path: Arc<Path>,
}

/// The key that names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum NamedKind {
    Users,
    Password,
}

impl NamedKind {
    pub fn key(self) -> &'static str {
        match self {
            NamedKind::Users => "users_file",
            NamedKind::Password => "password_file",
        }
    }
}

/// What two names of one file share, links included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) enum FileIdentity {
    Inode {
        device: u64,
        inode: u64,
    },
    /// There is no such file.
    Missing(Arc<Path>),
}

impl FileIdentity {
    pub fn of(path: &Arc<Path>) -> FileIdentity {
        match std::fs::metadata(path) {
            Ok(metadata) => FileIdentity::Inode { device: metadata.dev(), inode: metadata.ino() },
            Err(_) => FileIdentity::Missing(path.clone()),
        }
    }
}
