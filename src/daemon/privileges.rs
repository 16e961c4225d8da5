//! Whose rights the daemon has. Started as root it binds its sockets, then becomes `relay.user`; started as somebody else it
//! stays who it is.

use crate::files::denied::user_name;
use crate::report::Logger;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Uid, User, fchown, geteuid, initgroups, mkdir, setgid, setuid};
use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a daemon must not start like that: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("relay.user: there is no user \"{0}\"; create it (useradd --system {0}), or change relay.user")]
    NoSuchUser(String),
    #[error("relay.user: cannot become user {user}: {error}")]
    CannotBecome { user: String, error: io::Error },
    #[error(
        "started as root without relay.user, but the store's folder {} belongs to user {owner}, who could not read what root \
         writes there; set relay.user = \"{owner}\" in [relay], or start relaykeeper as that user",
        folder.display()
    )]
    ForeignStore { folder: PathBuf, owner: String },
    #[error("others may write to the store's folder {0}; run: chmod go-w {0}", folder.display())]
    OpenStore { folder: PathBuf },
    #[error("the store's folder {} cannot be created: {error}", folder.display())]
    CannotCreateStore { folder: PathBuf, error: io::Error },
}

/// What becomes of the rights that the daemon was started with.
#[derive(Debug)]
pub struct Privileges {
    /// Whom it becomes.
    user: Option<User>,
}

impl Privileges {
    /// `relay_user` counts for root only.
    ///
    /// # Errors
    /// There is no such user.
    pub fn of(relay_user: Option<&str>) -> Result<Privileges, PrivilegeError> {
        let (Some(name), true) = (relay_user, geteuid().is_root()) else { return Ok(Privileges { user: None }) };
        match User::from_name(name) {
            Ok(Some(user)) => Ok(Privileges { user: Some(user).filter(|user| !user.uid.is_root()) }),
            Ok(None) => Err(PrivilegeError::NoSuchUser(name.to_owned())),
            Err(error) => Err(PrivilegeError::CannotBecome { user: name.to_owned(), error: error.into() }),
        }
    }

    /// The user whom the sockets must belong to, if that is somebody else than who binds them.
    pub fn owner(&self) -> Option<u32> {
        self.user.as_ref().map(|user| user.uid.as_raw())
    }

    /// Makes sure that the store's folder is fit for the daemon's user, and nobody else's. Creates it as root, if it is
    /// missing; otherwise a missing folder is for the store to report.
    ///
    /// # Errors
    /// It is not.
    pub fn prepare_store(&self, folder: &Path) -> Result<(), PrivilegeError> {
        let metadata = match (folder.metadata(), &self.user) {
            (Ok(metadata), _) => metadata,
            (Err(error), Some(user)) if error.kind() == ErrorKind::NotFound => {
                let cannot = |error| PrivilegeError::CannotCreateStore { folder: folder.to_owned(), error };
                return create_for(folder, user).map_err(cannot);
            }
            (Err(_), _) => return Ok(()),
        };
        let (mode, group) = (metadata.permissions().mode(), metadata.gid());
        let own_groups = [0, nix::unistd::getegid().as_raw(), self.user.as_ref().map_or(0, |user| user.gid.as_raw())];
        if mode & 0o002 != 0 || (mode & 0o020 != 0 && geteuid().is_root() && !own_groups.contains(&group)) {
            return Err(PrivilegeError::OpenStore { folder: folder.to_owned() });
        }
        if geteuid().is_root() && self.user.is_none() && metadata.uid() != 0 {
            let owner = user_name(Uid::from_raw(metadata.uid()));
            return Err(PrivilegeError::ForeignStore { folder: folder.to_owned(), owner });
        }
        Ok(())
    }

    /// Becomes the user, for good and with all threads; warns where root stays root.
    ///
    /// # Errors
    /// The system refuses.
    pub fn give_up(&self, log: &Logger) -> Result<(), PrivilegeError> {
        let Some(user) = &self.user else {
            if geteuid().is_root() {
                log.warn(
                    "started as root, and stays root: set relay.user in [relay] to an account of relaykeeper's own",
                );
            }
            return Ok(());
        };
        become_user(user).map_err(|error| PrivilegeError::CannotBecome { user: user.name.clone(), error })?;
        log.info(format_args!("sockets are bound; goes on as user {}", user.name));
        Ok(())
    }
}

/// Becomes a user for good, with its groups and with all threads.
///
/// # Errors
/// The system refuses.
pub fn become_user(user: &User) -> io::Result<()> {
    let name = CString::new(user.name.clone())?;
    initgroups(&name, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)?;
    match setuid(Uid::from_raw(0)) {
        Ok(()) => Err(io::Error::other("root's rights can be had back")),
        Err(_) => Ok(()),
    }
}

/// By its descriptor: in a folder that somebody else may write to, the name may lead elsewhere by now.
fn create_for(folder: &Path, user: &User) -> io::Result<()> {
    mkdir(folder, Mode::from_bits_truncate(0o700))?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let created = std::fs::File::from(open(folder, flags, Mode::empty())?);
    if created.metadata()?.uid() != geteuid().as_raw() {
        return Err(io::Error::other("somebody else replaced it"));
    }
    fchmod(&created, Mode::from_bits_truncate(0o750))?;
    fchown(&created, Some(user.uid), Some(user.gid))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_everybody_may_write_to_is_no_store() {
        let folder = tempfile::tempdir().unwrap();
        let set = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let privileges = Privileges { user: None };
        set(0o750);
        privileges.prepare_store(folder.path()).unwrap();
        set(0o1777);
        let error = privileges.prepare_store(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("run: chmod go-w {}", folder.path().display())), "{error}");
        privileges.prepare_store(&folder.path().join("missing")).unwrap();
    }

    #[test]
    fn whom_to_become_is_known_before_anything_happens() {
        match Privileges::of(Some("no-such-user")) {
            Err(error) if geteuid().is_root() => {
                assert!(error.to_string().contains("useradd --system no-such-user"), "{error}");
            }
            Ok(privileges) if !geteuid().is_root() => assert_eq!(privileges.owner(), None, "not for anybody but root"),
            other => panic!("{other:?}"),
        }
        assert_eq!(Privileges::of(Some("root")).unwrap().owner(), None);
        assert_eq!(Privileges::of(None).unwrap().owner(), None);
    }
}
