//! Tries to connect as the MTA does: as its user, in its root folder. A process of our own does it, because nobody gets root's
//! rights back.

use crate::listen::ListenAddress;
use crate::listen::bind::resolve;
use nix::unistd::{User, chroot, initgroups, setgid, setuid};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The hidden command that [`connect_as`] runs.
pub const COMMAND: &str = "connect-as";

/// How long all tries may take together.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long one connection over TCP may take.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// What came of one try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tried {
    Connected,
    /// EACCES.
    Denied,
    /// Nothing is there, or nobody listens: in the system's words.
    Nobody(String),
    /// Anything else, in the system's words.
    Failed(String),
}

/// Connects to each address as `user`, below `root` if that is given; in the same order.
///
/// # Errors
/// Nobody could be asked: this user is not root, or there is no such user.
pub fn connect_as(user: &str, root: Option<&Path>, addresses: &[ListenAddress]) -> io::Result<Vec<Tried>> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).arg(user).arg(root.unwrap_or(Path::new("/")));
    command.args(addresses.iter().map(ToString::to_string));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let deadline = Instant::now() + TIMEOUT;
    // The answer is short: it waits in the pipe.
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::from(ErrorKind::TimedOut));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut answer = String::new();
    output.read_to_string(&mut answer)?;
    if !status.success() {
        return Err(io::Error::other(answer.trim().to_owned()));
    }
    serde_json::from_str(&answer).map_err(io::Error::other)
}

/// The command's own part: becomes the user, tries, and returns what is to be printed.
///
/// # Errors
/// It cannot become that user; one line.
pub fn run(user: &str, root: &Path, addresses: &[String]) -> Result<String, String> {
    become_user(user, Some(root).filter(|root| *root != Path::new("/"))).map_err(|error| error.to_string())?;
    let tried: Vec<_> = addresses
        .iter()
        .map(|address| address.parse().map_or_else(|_| Tried::Failed("not an address".to_owned()), |it| connect(&it)))
        .collect();
    serde_json::to_string(&tried).map_err(|error| error.to_string())
}

/// As Postfix's `chroot_uid` does: groups, root folder, group, user.
fn become_user(user: &str, root: Option<&Path>) -> io::Result<()> {
    let found = User::from_name(user)?.ok_or_else(|| io::Error::other(format!("there is no user \"{user}\"")))?;
    initgroups(&CString::new(user)?, found.gid)?;
    if let Some(root) = root {
        chroot(root)?;
        std::env::set_current_dir("/")?;
    }
    setgid(found.gid)?;
    setuid(found.uid)?;
    Ok(())
}

fn connect(address: &ListenAddress) -> Tried {
    let connected = match address {
        ListenAddress::Unix(path) => UnixStream::connect(path).map(drop),
        ListenAddress::Tcp { host, port } => match resolve(host) {
            Ok(ip) => TcpStream::connect_timeout(&(ip, *port).into(), TCP_TIMEOUT).map(drop),
            Err(problem) => return Tried::Failed(problem.to_string()),
        },
    };
    match connected {
        Ok(()) => Tried::Connected,
        Err(error) => match error.kind() {
            ErrorKind::PermissionDenied => Tried::Denied,
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::TimedOut => {
                Tried::Nobody(error.to_string())
            }
            _ => Tried::Failed(error.to_string()),
        },
    }
}

/// The path as a process in this root folder names it; `None`: it cannot.
pub fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(root).ok().map(|rest| Path::new("/").join(rest))
}
