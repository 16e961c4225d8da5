//! "Permission denied", in words that help: who may not, whose it is, and the command that changes it.

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid};
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// About a file of relaykeeper's own, which its user must own. Other errors stay what they are.
pub fn own_file(path: &Path, error: io::Error) -> io::Error {
    explain(path, error, |user, _, name| format!("run: chown {user}: {name}"))
}

/// About a file of the administrator's, which relaykeeper's group must be able to read. Other errors stay what they are.
pub fn administrators_file(path: &Path, error: io::Error) -> io::Error {
    explain(path, error, |_, group, name| format!("run: chgrp {group} {name} && chmod g+rX {name}"))
}

fn explain(path: &Path, error: io::Error, command: impl Fn(&str, &str, &str) -> String) -> io::Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    let Some((culprit, metadata)) = culprit(path) else { return error };
    let (user, group) = (user_name(geteuid()), group_name(getegid()));
    let (owner, mode) = (user_name(Uid::from_raw(metadata.uid())), metadata.permissions().mode() & 0o7777);
    let mut words = format!("permission denied for user {user}");
    if culprit == path {
        words.push_str(": it");
    } else {
        words.push_str(&format!(": the folder {}", culprit.display()));
    }
    words.push_str(&format!(" belongs to user {owner}, mode {mode:04o}"));
    // Farther up a folder is seldom relaykeeper's own.
    if culprit == path || Some(culprit) == path.parent() {
        words.push_str(&format!("; {}", command(&user, &group, &culprit.display().to_string())));
    }
    io::Error::new(ErrorKind::PermissionDenied, words)
}

/// The file itself, or the nearest folder above it that can be looked at.
fn culprit(path: &Path) -> Option<(&Path, Metadata)> {
    path.ancestors().find_map(|ancestor| Some((ancestor, std::fs::metadata(ancestor).ok()?)))
}

/// Its name, or else its number.
pub fn user_name(user: Uid) -> String {
    User::from_uid(user).ok().flatten().map_or_else(|| user.to_string(), |user| user.name)
}

fn group_name(group: Gid) -> String {
    Group::from_gid(group).ok().flatten().map_or_else(|| group.to_string(), |group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_and_the_command_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let user = user_name(geteuid());
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        assert_eq!(
            own_file(&file, denied()).to_string(),
            format!(
                "permission denied for user {user}: it belongs to user {user}, mode 0640; run: chown {user}: {}",
                file.display()
            )
        );
        let missing = folder.path().join("missing");
        let words = administrators_file(&missing, denied()).to_string();
        assert!(words.contains(&format!("the folder {} belongs to", folder.path().display())), "{words}");
        assert!(words.contains("chmod g+rX"), "{words}");
        let words = own_file(&missing.join("deeper"), denied()).to_string();
        assert!(!words.contains("run:"), "{words}");
        let other = own_file(&file, io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(other.raw_os_error(), Some(libc::ENOSPC));
    }
}
