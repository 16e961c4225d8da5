//! File descriptors: one for each connection.

use crate::report::Logger;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Fewer than this are too few for a busy MTA.
const FEW: u64 = 1_024;

/// Raises the soft limit on open files to the hard one (getrlimit(2)), and warns where that is not much.
pub fn raise_open_files_limit(log: &Logger) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let reached = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    if reached < FEW {
        log.warn(format_args!(
            "only {reached} files may be open at once (RLIMIT_NOFILE): connections beyond that wait"
        ));
    }
}
