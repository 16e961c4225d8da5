//! Which MTAs ask over both protocols. After a restart, such an MTA asks the policy service about the end of a message whose
//! milter session was cut: it refuses that message itself in a moment, so nothing must count. So this is remembered on disk.

use crate::files::{self, Access};
use crate::report::Logger;
use crate::session::Server;
use hashbrown::HashSet;
use parking_lot::RwLock;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokio::sync::Notify;

const FILE_NAME: &str = "mtas-with-milter";

/// An MTA has a few addresses and ports.
const MAX_MTAS: usize = 1_024;

/// Larger files are not ours.
const MAX_BYTES: u64 = 64 * 1024;

/// The MTAs, by the address and port that clients connect to.
#[derive(Debug, Default)]
pub(super) struct MtasWithMilter {
    mtas: RwLock<HashSet<Server>>,
    file: OnceLock<PathBuf>,
    changed: Notify,
}

impl MtasWithMilter {
    /// Remembers them in a folder from now on, and reads what was remembered there.
    pub fn remember_in(&self, folder: &Path, log: &Logger) {
        let path = folder.join(FILE_NAME);
        match files::read_regular(&path, MAX_BYTES) {
            Ok(text) => self.mtas.write().extend(text.lines().filter_map(parse).take(MAX_MTAS)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log.warn(format_args!("{} cannot be read: {error}", path.display())),
        }
        // A second folder changes nothing.
        let _ = self.file.set(path);
    }

    /// Whether the MTA is known to ask over both protocols.
    pub fn contains(&self, mta: &Server) -> bool {
        self.mtas.read().contains(mta)
    }

    /// A message of the MTA was seen with its milter session open, or without.
    pub fn note(&self, mta: &Server, with_milter: bool) {
        if mta.address.is_none() || self.contains(mta) == with_milter {
            return;
        }
        let mut mtas = self.mtas.write();
        match with_milter {
            true if mtas.len() < MAX_MTAS => _ = mtas.insert(*mta),
            true => return,
            false => _ = mtas.remove(mta),
        }
        self.changed.notify_one();
    }

    /// Writes changes to disk, for as long as the daemon runs.
    pub async fn write_changes(&self, log: &Logger) {
        loop {
            self.changed.notified().await;
            let Some((path, content)) = self.content() else { continue };
            let written = tokio::task::spawn_blocking(move || write(&path, &content)).await;
            if let Ok(Err(error)) = written {
                log.warn(error);
            }
        }
    }

    /// The file and what belongs in it; `None` where nothing is to be remembered.
    fn content(&self) -> Option<(PathBuf, String)> {
        let mut lines: Vec<_> = self.mtas.read().iter().filter_map(line).collect();
        lines.sort();
        Some((self.file.get()?.clone(), lines.concat()))
    }
}

fn write(path: &Path, content: &str) -> Result<(), String> {
    let written = files::replace(path, Access::Owner, content.as_bytes());
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn line(mta: &Server) -> Option<String> {
    Some(format!("{} {}\n", mta.address?, mta.port.unwrap_or(0)))
}

fn parse(line: &str) -> Option<Server> {
    let (address, port) = line.split_once(' ')?;
    Some(Server::parse(address, port)).filter(|mta| mta.address.is_some())
}
