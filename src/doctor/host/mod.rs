//! The host: the daemon, its sockets, its store, and what it has seen of the MTAs.
//!
//! ```text
//!   daemon     does it run, once, with what the files say
//!   access     may the MTA connect to its sockets      probe: tries it as the MTA's user
//!   sockets    which addresses are one socket, and does anybody listen
//!   traffic    what the daemon has seen of the MTAs
//!   store      room on the disk, the clock
//!   settings   what relaykeeper's own configuration gives away
//! ```

mod access;
mod daemon;
pub mod probe;
mod settings;
mod sockets;
mod store;
mod traffic;

pub(super) use daemon::bad_configuration;
pub(super) use sockets::{is_same_socket, nobody_listens};

use super::Finding;
use super::postfix::Postfix;
use crate::config::Configuration;
use crate::control::{ControlError, Status};
use std::path::{Path, PathBuf};

/// What is looked at.
pub(super) struct Host<'a> {
    /// relaykeeper.toml.
    pub main: &'a Path,
    pub loaded: &'a Configuration,
    pub status: Result<&'a Status, &'a ControlError>,
    /// Who connects to relaykeeper's sockets.
    pub users: Vec<MtaUser>,
    pub postfixes: &'a [Postfix],
}

/// An MTA's process that connects to relaykeeper.
#[derive(Clone, Debug)]
pub(super) struct MtaUser {
    pub mta: &'static str,
    pub name: String,
    /// Its root folder, if it is chrooted.
    pub root: Option<PathBuf>,
    pub is_postfix: bool,
}

impl Host<'_> {
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        daemon::check(self, &mut findings);
        access::check(self, &mut findings);
        traffic::check(self, &mut findings);
        store::check(self, &mut findings);
        settings::check(self, &mut findings);
        findings
    }

    fn main(&self) -> String {
        self.main.display().to_string()
    }
}
