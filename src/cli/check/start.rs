//! What a start needs besides a good configuration: folders, groups, ports, the store. Nothing is created. What the running
//! daemon holds is fine, and what this user may not try is a note.

use super::rights::{Denial, Right, Want, right};
use crate::cli::daemon_user::DaemonUser;
use crate::config::{Diagnostic, MailRoute, Problems, Settings, key_location};
use crate::control::{self, Command, Response};
use crate::listen::ListenAddress;
use crate::listen::bind::{Problem, resolve};
use crate::listen::{SocketOptions, check_folder};
use nix::unistd::Group;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The sockets, as the user who binds them.
pub(super) fn check_sockets(main: &Path, settings: &Settings, user: &DaemonUser, problems: &mut Problems) {
    let mut start = Start { main, settings, user, problems };
    let running = Running::of(settings);
    for (key, n, address) in settings.listen.addresses() {
        match address {
            _ if running.holds(address) => {}
            ListenAddress::Unix(path) => start.check_unix(&Socket { key, n, address, running: &running }, path),
            ListenAddress::Tcp { .. } => start.check_tcp(&Socket { key, n, address, running: &running }),
        }
    }
}

/// What the daemon uses once its sockets are bound.
pub(super) fn check_store_and_programs(main: &Path, settings: &Settings, user: &DaemonUser, problems: &mut Problems) {
    let mut start = Start { main, settings, user, problems };
    start.check_store();
    start.check_sendmail();
}

struct Start<'s> {
    main: &'s Path,
    settings: &'s Settings,
    /// Who has to be allowed to do it.
    user: &'s DaemonUser,
    problems: &'s mut Problems,
}

/// A socket, and where it is set.
struct Socket<'s> {
    key: &'static str,
    n: usize,
    address: &'s ListenAddress,
    running: &'s Running,
}

/// Whether a daemon of this configuration runs.
enum Running {
    No,
    /// It listens at these addresses.
    Yes(Vec<ListenAddress>),
    /// There is one, or something that holds its control socket, and this user may not ask it.
    Unknown,
}

impl Running {
    fn of(settings: &Settings) -> Running {
        match control::ask(settings.listen.control.as_ref(), &Command::Status) {
            Ok(Response::Status { status }) => {
                Running::Yes(status.listening.iter().filter_map(|address| address.parse().ok()).collect())
            }
            Ok(_) => Running::Unknown,
            Err(error) if error.is_denied() => Running::Unknown,
            Err(_) => Running::No,
        }
    }

    fn holds(&self, address: &ListenAddress) -> bool {
        let Running::Yes(held) = self else { return false };
        held.contains(address)
            || resolved(address).is_some_and(|wanted| held.iter().filter_map(resolved).any(|held| held == wanted))
    }
}

fn resolved(address: &ListenAddress) -> Option<SocketAddr> {
    match address {
        ListenAddress::Tcp { host, port } => Some(SocketAddr::new(resolve(host).ok()?, *port)),
        ListenAddress::Unix(_) => None,
    }
}

impl Start<'_> {
    fn push(&mut self, diagnostic: Diagnostic, key: &str, nth: usize) {
        self.problems.push(diagnostic.at(key_location(self.main, key, nth, "")));
    }

    fn cannot_listen(&mut self, socket: &Socket<'_>, problem: &Problem) {
        let Socket { key, n, address, .. } = *socket;
        self.push(Diagnostic::error(format!("`{key}`: cannot listen on {address}: {problem}")), key, n);
    }

    fn not_tried(&mut self, socket: &Socket<'_>, why: &str) {
        let Socket { key, n, address, .. } = *socket;
        self.push(Diagnostic::note(format!("`{key}`: {address} was not checked: {why}")), key, n);
    }

    fn check_unix(&mut self, socket: &Socket<'_>, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        match right(self.user, folder, Want::Create) {
            Right::Yes => {}
            // systemd makes it at the start (RuntimeDirectory=), and removes it at the stop.
            Right::Missing if folder.parent() == Some(Path::new("/run")) => {
                return self.not_tried(
                    socket,
                    &format!(
                        "{} does not exist; systemd creates it at the start (RuntimeDirectory=)",
                        folder.display()
                    ),
                );
            }
            Right::Missing => return self.cannot_listen(socket, &Problem::NoFolder { folder: folder.to_owned() }),
            Right::No(denial) => {
                let title = format!(
                    "`{}`: user {} may not create a socket in {}",
                    socket.key,
                    self.user.name,
                    folder.display()
                );
                return self.push(self.denied(title, &denial), socket.key, socket.n);
            }
            Right::Unknown => {
                return self.not_tried(socket, &format!("this user may not look at {}", folder.display()));
            }
        }
        let is_control = socket.key == "listen.control";
        let options = SocketOptions {
            owner: self.user.binds_as_root.then(|| self.user.uid.as_raw()),
            ..SocketOptions::default()
        };
        // Who may write there is judged as the user who binds.
        let folder_problem = check_folder(folder, &options).err();
        if let Some(problem) = folder_problem.filter(|_| self.user.is_caller()) {
            return self.cannot_listen(socket, &problem);
        }
        if let Some(group) = self.settings.listen.socket_group.as_ref().filter(|_| !is_control)
            && let Some(problem) = self.group_problem(group, folder)
        {
            self.push(Diagnostic::error(format!("`listen.socket_group`: {problem}")), "listen.socket_group", 0);
        }
        let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
        if !metadata.file_type().is_socket() {
            return self.cannot_listen(socket, &Problem::NotASocket);
        }
        match UnixStream::connect(path).map_err(|error| error.kind()) {
            Ok(_) if matches!(socket.running, Running::Unknown) => {
                self.not_tried(
                    socket,
                    "a process listens there, and only the daemon's user or root can ask whether it is the daemon",
                );
            }
            Ok(_) => self.cannot_listen(socket, &Problem::InUse),
            Err(ErrorKind::PermissionDenied) => self.not_tried(socket, "this user may not connect to it"),
            // A dead process left it.
            Err(_) => {}
        }
    }

    /// In a folder with the set-group-ID bit a socket belongs to the folder's group from the start.
    fn group_problem(&self, name: &str, folder: &Path) -> Option<Problem> {
        let Ok(Some(group)) = Group::from_name(name) else {
            return Some(Problem::UnknownGroup { group: name.to_owned() });
        };
        let inherits = std::fs::metadata(folder)
            .is_ok_and(|folder| folder.mode() & 0o2000 != 0 && folder.gid() == group.gid.as_raw());
        let may = inherits || self.user.uid.is_root() || self.user.groups.contains(&group.gid);
        (!may).then(|| Problem::NotOurGroup { group: name.to_owned() })
    }

    fn check_tcp(&mut self, socket: &Socket<'_>) {
        let ListenAddress::Tcp { host, port } = socket.address else { return };
        let ip = match resolve(host) {
            Ok(ip) => ip,
            Err(problem) => return self.cannot_listen(socket, &problem),
        };
        match TcpListener::bind((ip, *port)).map_err(Problem::from_tcp) {
            Ok(_) => {}
            Err(Problem::InUse) if matches!(socket.running, Running::Unknown) => {
                self.not_tried(
                    socket,
                    "it is in use, and only the daemon's user or root can ask whether by the daemon",
                );
            }
            Err(Problem::PortDenied) if !self.user.is_caller() => {
                self.not_tried(socket, "this user may not listen there")
            }
            Err(problem) => self.cannot_listen(socket, &problem),
        }
    }

    fn check_store(&mut self) {
        const KEY: &str = "store.path";
        let folder = self.settings.store.path().to_owned();
        let shown = folder.display();
        let user = &self.user.name;
        match right(self.user, &folder, Want::Create) {
            Right::Yes if folder.is_dir() => {}
            Right::Yes => return self.push(Diagnostic::error(format!("`{KEY}`: {shown} is not a folder")), KEY, 0),
            // As whom `relay.user` says, root makes it.
            Right::Missing if self.user.binds_as_root && folder.parent().is_some_and(Path::is_dir) => return,
            Right::Missing => {
                let help = format!("run: install -d -m 0750 -o {user} {shown}");
                let error = Diagnostic::error(format!("`{KEY}`: the folder {shown} does not exist"));
                return self.push(error.help(help), KEY, 0);
            }
            Right::No(denial) => {
                let title = format!("`{KEY}`: user {user} may not write to {shown}");
                return self.push(self.denied(title, &denial), KEY, 0);
            }
            Right::Unknown => {
                let note = Diagnostic::note(format!("`{KEY}`: {shown} was not checked: this user may not look at it"));
                return self.push(note, KEY, 0);
            }
        }
        if std::fs::metadata(&folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o002 != 0) {
            let error = Diagnostic::error(format!("`{KEY}`: everybody may write to {shown}"));
            self.push(error.help(format!("run: chmod o-w {shown}")), KEY, 0);
        }
        let Ok(files) = std::fs::read_dir(&folder) else { return };
        let mut files: Vec<_> =
            files.flatten().filter(|file| file.file_type().is_ok_and(|kind| kind.is_file())).collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            if let Right::No(denial) = right(self.user, &file.path(), Want::ReadAndWrite) {
                let title = format!("`{KEY}`: user {user} may not write to {}", file.path().display());
                self.push(self.denied(title, &denial), KEY, 0);
            }
        }
    }

    fn check_sendmail(&mut self) {
        let MailRoute::Sendmail(program) = &self.settings.mail.route else { return };
        let why = match right(self.user, program, Want::Execute) {
            Right::Yes | Right::Unknown => return,
            Right::Missing => format!("{} does not exist", program.display()),
            Right::No(_) => format!("user {} may not execute {}", self.user.name, program.display()),
        };
        let warning = Diagnostic::warning(format!("`mail.sendmail`: {why}, so relaykeeper cannot send mail"));
        self.push(warning.help("install an MTA's sendmail(1), or set mail.smtp"), "mail.sendmail", 0);
    }

    fn denied(&self, title: String, denial: &Denial) -> Diagnostic {
        let Denial { path, owner, mode } = denial;
        let path = path.display();
        Diagnostic::error(title).help(format!(
            "{path} belongs to user {owner} and has mode {mode:04o}; run: chown {} {path}",
            self.user.name
        ))
    }
}
