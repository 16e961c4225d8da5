//! What the daemon's user may do with a file, whoever asks: by trying, if it is the one who asks, and else by owner, group
//! and mode (access control lists are not looked at).

use crate::cli::daemon_user::DaemonUser;
use crate::files::denied::user_name;
use nix::unistd::{AccessFlags, Uid, access};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What is to be done with a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    /// Read a folder, and what is in it.
    List,
    ReadAndWrite,
    /// Create files in a folder.
    Create,
    Execute,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Yes,
    No(Denial),
    /// There is nothing of that name.
    Missing,
    /// Who asks may not look that far.
    Unknown,
}

/// What denies it: the file itself, or a folder above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub path: PathBuf,
    pub owner: String,
    pub mode: u32,
}

impl Want {
    fn bits(self) -> u32 {
        match self {
            Want::Read => 0o4,
            Want::List => 0o5,
            Want::ReadAndWrite => 0o6,
            Want::Create => 0o3,
            Want::Execute => 0o1,
        }
    }

    fn flags(self) -> AccessFlags {
        let mut flags = AccessFlags::F_OK;
        for (bit, flag) in [(0o4, AccessFlags::R_OK), (0o2, AccessFlags::W_OK), (0o1, AccessFlags::X_OK)] {
            flags.set(flag, self.bits() & bit != 0);
        }
        flags
    }
}

/// Whether the user may do that.
pub(super) fn right(user: &DaemonUser, path: &Path, want: Want) -> Right {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Right::Missing,
        Err(_) if !user.is_caller() => return Right::Unknown,
        Err(_) => return denial_above(user, path).map_or(Right::Unknown, Right::No),
    };
    if user.is_caller() {
        return match access(path, want.flags()) {
            Ok(()) => Right::Yes,
            Err(_) => Right::No(Denial::of(path, &metadata)),
        };
    }
    if let Some(denial) = denial_above(user, path) {
        return Right::No(denial);
    }
    if is_allowed(user, &metadata, want.bits()) { Right::Yes } else { Right::No(Denial::of(path, &metadata)) }
}

/// The first folder above that the user may not pass through.
fn denial_above(user: &DaemonUser, path: &Path) -> Option<Denial> {
    let path = std::path::absolute(path).ok()?;
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    folders.into_iter().find_map(|folder| {
        let metadata = std::fs::metadata(folder).ok()?;
        (!is_allowed(user, &metadata, 0o1)).then(|| Denial::of(folder, &metadata))
    })
}

/// Whether owner, group and mode allow it (path_resolution(7)).
fn is_allowed(user: &DaemonUser, metadata: &Metadata, bits: u32) -> bool {
    if user.uid.is_root() {
        return bits != 0o1 || metadata.is_dir() || metadata.mode() & 0o111 != 0;
    }
    let shift = if metadata.uid() == user.uid.as_raw() {
        6
    } else if user.groups.iter().any(|group| group.as_raw() == metadata.gid()) {
        3
    } else {
        0
    };
    (metadata.mode() >> shift) & bits == bits
}

impl Denial {
    fn of(path: &Path, metadata: &Metadata) -> Denial {
        let owner = user_name(Uid::from_raw(metadata.uid()));
        Denial { path: path.to_owned(), owner, mode: metadata.permissions().mode() & 0o7777 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Gid;
    use std::fs::Permissions;

    /// Neither who runs the tests nor root.
    fn somebody(groups: &[u32]) -> DaemonUser {
        let groups = groups.iter().map(|&group| Gid::from_raw(group)).collect();
        DaemonUser { uid: Uid::from_raw(65_000), name: "somebody".into(), groups, binds_as_root: false }
    }

    #[test]
    fn owner_group_and_mode_decide_for_somebody_else() {
        let folder = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set(folder.path(), 0o755);
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "").unwrap();
        let own_group = std::fs::metadata(&file).unwrap().gid();
        for (mode, groups, may) in
            [(0o644, &[][..], true), (0o640, &[], false), (0o640, &[own_group], true), (0o604, &[own_group], false)]
        {
            set(&file, mode);
            let found = right(&somebody(groups), &file, Want::Read);
            assert_eq!(matches!(found, Right::Yes), may, "{mode:o} {groups:?}: {found:?}");
        }
        set(&file, 0o644);
        set(folder.path(), 0o700);
        let Right::No(denial) = right(&somebody(&[]), &file, Want::Read) else { panic!("the folder is closed") };
        assert_eq!((denial.path.as_path(), denial.mode), (folder.path(), 0o700));
        set(folder.path(), 0o755);
        assert_eq!(right(&somebody(&[]), &folder.path().join("none"), Want::Read), Right::Missing);
        assert!(matches!(right(&somebody(&[]), folder.path(), Want::Create), Right::No(_)));
        set(folder.path(), 0o777);
        assert_eq!(right(&somebody(&[]), folder.path(), Want::Create), Right::Yes);
    }
}
