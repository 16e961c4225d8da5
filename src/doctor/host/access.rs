//! Whether the MTA may connect to relaykeeper's sockets, and nobody else may get in its way.

use super::probe::{self, Tried};
use super::{Host, MtaUser};
use crate::doctor::{Finding, Severity};
use crate::files::denied::user_name;
use crate::listen::ListenAddress;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub(super) fn check(host: &Host<'_>, findings: &mut Vec<Finding>) {
    // What an MTA connects to.
    let addresses: Vec<(&'static str, &ListenAddress)> = host
        .loaded
        .settings
        .listen
        .addresses()
        .filter(|(key, ..)| *key != "listen.control")
        .map(|(key, _, address)| (key, address))
        .collect();
    for user in &host.users {
        refused(user, &addresses, findings);
    }
    for (key, address) in &addresses {
        modes(key, address, findings);
    }
    if !host.users.is_empty() {
        confinement(findings);
    }
}

fn refused(user: &MtaUser, addresses: &[(&'static str, &ListenAddress)], findings: &mut Vec<Finding>) {
    // Sendmail asks the milter alone; what lies outside of a root folder is said with the service that names it.
    let mine = addresses.iter().filter(|(key, _)| user.is_postfix || *key == "listen.milter");
    let mine: Vec<_> = mine
        .filter_map(|(key, address)| match (&user.root, address) {
            (Some(root), ListenAddress::Unix(path)) => {
                Some((key, *address, ListenAddress::Unix(probe::below(root, path)?)))
            }
            _ => Some((key, *address, (*address).clone())),
        })
        .collect();
    if mine.is_empty() {
        return;
    }
    let tried = match geteuid().is_root() {
        true => {
            let named: Vec<_> = mine.iter().map(|(_, _, address)| address.clone()).collect();
            probe::connect_as(&user.name, user.root.as_deref(), &named)
        }
        // Modes say nearly as much.
        false => Ok(mine.iter().map(|(_, address, _)| by_modes(&user.name, address)).collect()),
    };
    let tried = match tried {
        Ok(tried) => tried,
        Err(error) => {
            let what = format!("connecting as user {} was not tried", user.name);
            return findings.push(Finding::not_looked_at(user.mta, what, error.to_string()));
        }
    };
    for ((key, address, _), tried) in mine.iter().zip(tried) {
        if tried != Tried::Denied {
            continue;
        }
        let obstacle = match address {
            ListenAddress::Unix(path) => in_the_way(&user.name, path),
            ListenAddress::Tcp { .. } => None,
        };
        let found = match &obstacle {
            Some((path, words)) => format!("user {} may not connect to {address}: {path} {words}", user.name),
            None => format!("user {} may not connect to {address}", user.name),
        };
        let why = format!("{} cannot ask: 451 for everything, or mail passes undecided", user.mta);
        let write = match address {
            ListenAddress::Unix(path) => path.parent().map(|folder| {
                let group = if user.is_postfix { "postfix" } else { &user.name };
                format!(
                    "install -d -o relaykeeper -g {group} -m 2750 {}, listen.socket_group = \"{group}\", and postfix reload \
                     after a change of groups",
                    folder.display()
                )
            }),
            ListenAddress::Tcp { .. } => None,
        };
        findings.push(Finding::new("socket-refused", Severity::Error, **key, found, why, write));
    }
}

/// By owners and modes, where this user may look at them.
fn by_modes(user: &str, address: &ListenAddress) -> Tried {
    match address {
        ListenAddress::Unix(path) if in_the_way(user, path).is_some() => Tried::Denied,
        _ => Tried::Connected,
    }
}

/// The first folder, or the socket itself, that shuts the user out: its path, and its owner and mode.
fn in_the_way(user: &str, path: &Path) -> Option<(String, String)> {
    let found = User::from_name(user).ok().flatten()?;
    let groups = getgrouplist(&CString::new(user).ok()?, found.gid).ok()?;
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    above.into_iter().find_map(|step| {
        let metadata = step.metadata().ok()?;
        // Passing through a folder needs x, connecting to a socket w (unix(7)).
        let bit = if step == path { 0o2 } else { 0o1 };
        let is_allowed = found.uid.is_root() || bits(&metadata, found.uid, &groups) & bit != 0;
        (!is_allowed).then(|| {
            let (owner, mode) = (user_name(Uid::from_raw(metadata.uid())), metadata.permissions().mode() & 0o7777);
            (step.display().to_string(), format!("belongs to user {owner}, group {}, mode {mode:04o}", metadata.gid()))
        })
    })
}

/// What the user may do: the bits of the class that it is in.
fn bits(metadata: &Metadata, user: Uid, groups: &[Gid]) -> u32 {
    let mode = metadata.permissions().mode();
    if metadata.uid() == user.as_raw() {
        mode >> 6 & 0o7
    } else if groups.iter().any(|group| group.as_raw() == metadata.gid()) {
        mode >> 3 & 0o7
    } else {
        mode & 0o7
    }
}

/// Nobody may replace a socket, or connect who is no MTA.
fn modes(key: &str, address: &ListenAddress, findings: &mut Vec<Finding>) {
    const WHY: &str = "whoever connects can ask as an MTA does, and so forge counts";
    let mut say = |found: String, write: String| {
        findings.push(Finding::new("folder-mode", Severity::Warning, key, found, WHY, Some(write)));
    };
    let path = match address {
        ListenAddress::Unix(path) => path,
        ListenAddress::Tcp { .. } if address.is_local() => return,
        ListenAddress::Tcp { .. } => {
            let found = format!("{address} is not on loopback");
            return say(found, "a unix socket, or a packet filter that lets the MTAs in alone".to_owned());
        }
    };
    if let Some(folder) = path.parent()
        && let Ok(metadata) = folder.metadata()
    {
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o002 != 0 {
            let shown = folder.display();
            say(
                format!("everybody may write to {shown} (mode {mode:04o})"),
                format!("d {shown} 2750 relaykeeper postfix - in /etc/tmpfiles.d/relaykeeper.conf"),
            );
        }
    }
    if let Ok(metadata) = path.metadata() {
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o002 != 0 {
            let found = format!("everybody may connect to {} (mode {mode:04o})", path.display());
            say(found, "listen.socket_mode = \"0660\", and the MTA's group as listen.socket_group".to_owned());
        }
    }
}

/// What this process is not held back by, and the MTA is.
fn confinement(findings: &mut Vec<Finding>) {
    let selinux = std::fs::read_to_string("/sys/fs/selinux/enforce").unwrap_or_default();
    let apparmor = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    if let Some((found, write)) = confined(&selinux, &apparmor) {
        let why = "doctor connects in another domain than the MTA does, and cannot see what is denied there";
        findings.push(Finding::new("mac-denies", Severity::Note, "host", found, why, Some(write.to_owned())));
    }
}

fn confined(selinux: &str, apparmor: &str) -> Option<(&'static str, &'static str)> {
    if selinux.trim() == "1" {
        return Some(("SELinux is enforcing", "look with: ausearch -m avc -c smtpd -c sendmail"));
    }
    let is_mta = |line: &str| {
        line.ends_with("(enforce)") && ["smtpd", "postfix", "sendmail"].iter().any(|name| line.contains(name))
    };
    let has_profile = apparmor.lines().any(is_mta);
    has_profile.then_some(("AppArmor confines the MTA", "look with: journalctl -k -g apparmor=.DENIED"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn found(path: &Path) -> Vec<Finding> {
        let mut findings = Vec::new();
        modes("listen.policy", &ListenAddress::Unix(path.to_owned()), &mut findings);
        findings
    }

    #[test]
    fn a_folder_or_socket_that_everybody_may_write_to_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("p.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        set(folder.path(), 0o755);
        set(&socket, 0o660);
        assert!(found(&socket).is_empty());
        set(&socket, 0o666);
        assert!(found(&socket)[0].found.starts_with("everybody may connect to"));
        set(&socket, 0o660);
        set(folder.path(), 0o777);
        assert!(found(&socket)[0].found.starts_with("everybody may write to"));
        let mut findings = Vec::new();
        for (address, number) in [("inet:127.0.0.1:1", 0), ("inet:192.0.2.1:1", 1)] {
            modes("listen.milter", &address.parse().unwrap(), &mut findings);
            assert_eq!(findings.len(), number, "{address}");
        }
    }

    #[test]
    fn the_first_folder_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        set(folder.path(), 0o755);
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let socket = inner.join("p.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        set(&inner, 0o755);
        set(&socket, 0o666);
        assert_eq!(in_the_way("nobody", &socket), None);
        set(&socket, 0o660);
        assert_eq!(in_the_way("nobody", &socket).unwrap().0, socket.display().to_string());
        set(&inner, 0o700);
        let (path, words) = in_the_way("nobody", &socket).unwrap();
        assert!(path == inner.display().to_string() && words.ends_with("mode 0700"), "{path} {words}");
        assert_eq!(in_the_way("root", &socket), None);
    }

    #[test]
    fn confinement_is_a_note_where_it_is_in_force() {
        assert_eq!(confined("1", "").map(|it| it.0), Some("SELinux is enforcing"));
        assert_eq!(
            confined("0", "/usr/lib/postfix/sbin/smtpd (enforce)\n").map(|it| it.0),
            Some("AppArmor confines the MTA")
        );
        assert_eq!(confined("0", "/usr/lib/postfix/sbin/smtpd (complain)\n/usr/bin/man (enforce)"), None);
        assert_eq!(confined("", ""), None);
    }
}
