//! A configuration that took effect, for the audit log.

use crate::audit::{Action, ComparedFiles};
use std::collections::HashSet;
use std::path::PathBuf;

/// What the audit log records of a configuration that took effect.
#[derive(Clone, Debug, Default)]
pub struct AppliedConfiguration {
    pub main: PathBuf,
    /// Customer files that may have changed, and are in use as they are.
    pub customers: Vec<PathBuf>,
    pub all_customers: HashSet<PathBuf>,
    /// Keys that changed, but take effect only at the next start.
    pub need_restart: Vec<String>,
    /// Customer files that are not in use as they are.
    pub bad_files: Vec<String>,
}

impl AppliedConfiguration {
    pub(super) fn files(&self) -> ComparedFiles<'_> {
        ComparedFiles { main: &self.main, customers: &self.customers, all_customers: &self.all_customers }
    }

    pub(super) fn action(&self, files: u64) -> Action {
        let (need_restart, bad_files) = (self.need_restart.clone(), self.bad_files.clone());
        Action::Configuration { need_restart, refused: String::new(), bad_files, files }
    }
}
