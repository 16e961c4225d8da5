//! Files that hold a password: for the login at a user's gateway. Their content is never logged or stored.

use crate::config::reading::{Complaint, Item, quoted};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest password, in bytes.
pub const MAX_PASSWORD: usize = 1_024;

/// What nobody but a file's owner and group may have: write for the group, anything for others, execute.
const FORBIDDEN_MODE: u32 = 0o137;

/// A password, wiped from memory when dropped, and shown to nobody.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why there is no password. Never says anything of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it has mode {mode:04o}: others can read or change it")]
    OpenToOthers { mode: u32 },
    #[error("it belongs to the user with the ID {owner}, who could change it")]
    ForeignOwner { owner: u32 },
    #[error("there is no password in it")]
    Empty,
    #[error("it is longer than {MAX_PASSWORD} bytes")]
    TooLong,
    #[error("it has more than one line, or a byte 0")]
    NotOneLine,
}

/// Reads a password: the one line of a regular file with mode 0640 or less that belongs to root or to the user of this
/// process. All is asked of the file that was opened, so that nobody can swap it in between.
pub fn read_password(path: &Path) -> Result<Password, PasswordFileError> {
    // Without O_NONBLOCK a FIFO would hold up whoever opens it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(PasswordFileError::NotAFile);
    }
    let mode = metadata.mode() & 0o777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(PasswordFileError::OpenToOthers { mode });
    }
    // Root may look at the files of every user that the daemon may run as.
    let user = nix::unistd::geteuid().as_raw();
    if ![0, user].contains(&metadata.uid()) && user != 0 {
        return Err(PasswordFileError::ForeignOwner { owner: metadata.uid() });
    }
    // With room for all of it, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 64));
    file.take(MAX_PASSWORD as u64 + 3).read_to_end(&mut bytes)?;
    for end in [b'\n', b'\r'] {
        bytes.pop_if(|last| *last == end);
    }
    match &bytes[..] {
        [] => Err(PasswordFileError::Empty),
        bytes if bytes.len() > MAX_PASSWORD => Err(PasswordFileError::TooLong),
        bytes if bytes.iter().any(|byte| b"\0\r\n".contains(byte)) => Err(PasswordFileError::NotOneLine),
        _ => Ok(Password(bytes)),
    }
}

/// The file of a `password_file`. It is read to report what is wrong with it, and again whenever it is needed.
pub(super) fn password_file(item: &Item<'_>, path: &Path) -> Option<PathBuf> {
    let name = quoted(&path.to_string_lossy());
    let (problem, help) = match read_password(path) {
        Ok(_) => return Some(path.to_owned()),
        // `check` may run as a user who may not look.
        Err(PasswordFileError::Unreadable(error)) if error.kind() == ErrorKind::PermissionDenied => {
            let label = "this user may not read it; the daemon's user must be able to";
            item.warning(Complaint::new(format!("{name} was not checked"), label));
            return Some(path.to_owned());
        }
        Err(PasswordFileError::Unreadable(error)) => {
            let complaint = Complaint::new(format!("{name} cannot be read"), error.to_string());
            item.error(complaint.help("the path is relative to the file that names it"));
            return None;
        }
        Err(error @ PasswordFileError::OpenToOthers { .. }) => (error, format!("chmod 0640 {}", path.display())),
        Err(error @ PasswordFileError::ForeignOwner { .. }) => {
            (error, format!("chown root {}, with the daemon's group", path.display()))
        }
        Err(error @ PasswordFileError::NotAFile) => (error, "name a regular file".to_owned()),
        Err(error) => (error, "write the password, and nothing else, on the first line".to_owned()),
    };
    item.error(Complaint::new(format!("{name} cannot be used"), problem.to_string()).help(help));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn read(content: &[u8], mode: u32) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read_password(&path).map(|password| password.as_bytes().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_one_line() {
        for content in [&b"s3cret: \xc3\xa4"[..], b"s3cret: \xc3\xa4\n", b"s3cret: \xc3\xa4\r\n"] {
            assert_eq!(read(content, 0o600).as_deref(), Ok(&b"s3cret: \xc3\xa4"[..]));
        }
        assert_eq!(read(&[b'x'; MAX_PASSWORD], 0o640).unwrap().len(), MAX_PASSWORD);
        for (content, why) in [
            (&b""[..], "no password"),
            (b"\n", "no password"),
            (b"a\nb", "more than one line"),
            (b"a\n\n", "more than one line"),
            (b"a\0b", "a byte 0"),
            (&[b'x'; MAX_PASSWORD + 1], "longer than"),
            (&[b'x'; 1 << 20], "longer than"),
        ] {
            let error = read(content, 0o600).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn others_may_neither_read_nor_write_it() {
        for mode in [0o400, 0o440, 0o600, 0o640] {
            assert!(read(b"x", mode).is_ok(), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o660, 0o602, 0o700, 0o777] {
            assert!(read(b"x", mode).unwrap_err().contains("others can"), "{mode:o}");
        }
    }

    #[test]
    fn it_is_a_regular_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_password(folder.path()), Err(PasswordFileError::NotAFile)));
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read_password(&fifo), Err(PasswordFileError::NotAFile)));
        assert!(matches!(read_password(&folder.path().join("none")), Err(PasswordFileError::Unreadable(_))));
    }

    #[test]
    fn nobody_sees_it_by_accident() {
        let password = Password(Zeroizing::new(b"s3cret".to_vec()));
        assert!(!format!("{password:?}").contains("s3cret"));
    }
}
