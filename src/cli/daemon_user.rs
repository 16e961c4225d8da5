//! The user that the daemon runs as. Whoever checks or explains a configuration, what counts is what that user can read.

use super::print;
use crate::config::Settings;
use crate::daemon::{PrivilegeError, become_user};
use crate::files::denied::user_name;
use crate::listen::ListenAddress;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups};
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

/// The daemon's user.
#[derive(Clone, Debug)]
pub(super) struct DaemonUser {
    pub uid: Uid,
    pub name: String,
    /// All groups, the own one first.
    pub groups: Vec<Gid>,
    /// Root starts the daemon and binds its sockets (`relay.user`).
    pub binds_as_root: bool,
}

impl DaemonUser {
    /// `relay.user`; else the user of the running daemon; else the owner of the store's folder; else who asks.
    ///
    /// # Errors
    /// There is no such user.
    pub fn of(settings: &Settings) -> Result<DaemonUser, PrivilegeError> {
        if let Some(name) = &settings.relay.user {
            let user = User::from_name(name).ok().flatten();
            let user = user.ok_or_else(|| PrivilegeError::NoSuchUser(name.clone()))?;
            return Ok(DaemonUser { binds_as_root: true, ..DaemonUser::other(user.uid) });
        }
        let running = settings.listen.control.as_ref().and_then(user_of_socket);
        let owner = || std::fs::metadata(settings.store.path()).ok().map(|folder| Uid::from_raw(folder.uid()));
        Ok(match running.or_else(owner) {
            Some(uid) if uid != geteuid() => DaemonUser::other(uid),
            _ => DaemonUser::caller(),
        })
    }

    /// Who asks.
    pub fn caller() -> DaemonUser {
        let mut groups = vec![getegid()];
        groups.extend(getgroups().unwrap_or_default());
        DaemonUser { uid: geteuid(), name: user_name(geteuid()), groups, binds_as_root: false }
    }

    /// Root.
    pub fn root() -> DaemonUser {
        DaemonUser::other(Uid::from_raw(0))
    }

    fn other(uid: Uid) -> DaemonUser {
        let user = User::from_uid(uid).ok().flatten();
        let groups = user.and_then(|user| getgrouplist(&CString::new(user.name).ok()?, user.gid).ok());
        DaemonUser { uid, name: user_name(uid), groups: groups.unwrap_or_default(), binds_as_root: false }
    }

    pub fn is_caller(&self) -> bool {
        self.uid == geteuid()
    }

    /// The group that files for the daemon are given to.
    pub fn group(&self) -> String {
        let group = self.groups.first().and_then(|&group| Group::from_gid(group).ok().flatten());
        group.map_or_else(|| self.name.clone(), |group| group.name)
    }

    /// Becomes this user for good, if root asks: what it cannot read then, the daemon cannot read. A failure is printed, and
    /// what follows is what root sees.
    pub fn become_if_root(&self) {
        if !geteuid().is_root() || self.uid.is_root() {
            return;
        }
        let became = match User::from_uid(self.uid) {
            Ok(Some(user)) => become_user(&user).map_err(|error| error.to_string()),
            _ => Err("there is no user of that number".to_owned()),
        };
        if let Err(error) = became {
            print::error(format_args!("cannot look at the files as the daemon's user {}: {error}", self.name));
        }
    }
}

/// The user of the process that listens there.
fn user_of_socket(address: &ListenAddress) -> Option<Uid> {
    let ListenAddress::Unix(path) = address else { return None };
    let stream = UnixStream::connect(path).ok()?;
    Some(Uid::from_raw(getsockopt(&stream, PeerCredentials).ok()?.uid()))
}
