//! Room for the store, and the clock.

use super::Host;
use crate::config::Store;
use crate::doctor::{Finding, Severity};
use nix::sys::statvfs::statvfs;
use std::path::Path;

/// A store that is nearly full, in bytes and in thousandths.
const FULL_BYTES: u64 = 64 * 1024 * 1024;
const FULL: u64 = 10;
const LITTLE: u64 = 50;

pub(super) fn check(host: &Host<'_>, findings: &mut Vec<Finding>) {
    let store = &host.loaded.settings.store;
    match Space::of(store.path()) {
        Ok(space) => findings.extend(space.finding(store.path())),
        Err(error) => {
            let place = store.path().display().to_string();
            findings.push(Finding::not_looked_at(place, "room for the store", error.to_string()));
        }
    }
    if is_clock_unsynchronised() {
        let severity = match store {
            Store::Redis { .. } => Severity::Warning,
            Store::Embedded { .. } => Severity::Note,
        };
        let why = "replies and letters name wrong times; limits do not suffer, windows go by the time that passed";
        let write = Some("systemctl enable --now systemd-timesyncd".to_owned());
        let found = "the clock is not synchronised".to_owned();
        findings.push(Finding::new("clock", severity, "host", found, why, write));
    }
}

/// A file system's room for those who are not root.
#[derive(Clone, Copy, Debug)]
struct Space {
    bytes: u64,
    available: u64,
    inodes: u64,
    free_inodes: u64,
}

impl Space {
    fn of(folder: &Path) -> nix::Result<Space> {
        let system = statvfs(folder)?;
        let size = system.fragment_size();
        Ok(Space {
            bytes: system.blocks().saturating_mul(size),
            available: system.blocks_available().saturating_mul(size),
            inodes: system.files(),
            free_inodes: system.files_available(),
        })
    }

    fn finding(self, folder: &Path) -> Option<Finding> {
        let thousandths = |part: u64, whole: u64| (u128::from(part) * 1_000 / u128::from(whole.max(1))) as u64;
        let left = thousandths(self.available, self.bytes);
        // Some file systems have no fixed number of inodes.
        let few_inodes = self.inodes > 0 && thousandths(self.free_inodes, self.inodes) < FULL;
        let severity = match () {
            () if self.available < FULL_BYTES || left < FULL => Severity::Error,
            () if left < LITTLE || few_inodes => Severity::Warning,
            () => return None,
        };
        let found = format!(
            "{} MiB of {} MiB and {} inodes are free",
            self.available >> 20,
            self.bytes >> 20,
            self.free_inodes
        );
        let why = "when it is full, every message is deferred: its count cannot be made durable";
        let write = Some("free room there, or a larger file system for store.path".to_owned());
        Some(Finding::new("store-disk", severity, folder.display().to_string(), found, why, write))
    }
}

/// What the kernel says (adjtimex(2)); false where it says nothing.
fn is_clock_unsynchronised() -> bool {
    /// `TIME_ERROR`: the clock is not synchronised.
    const TIME_ERROR: i32 = 5;
    #[expect(unsafe_code, reason = "the libraries in use have no safe call")]
    // SAFETY: zeroes are a valid timex, which reads and changes nothing (`modes` is 0), and the call writes into it alone.
    let state = unsafe {
        let mut time: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut time)
    };
    state == TIME_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fills_up_is_found_in_time() {
        let gib = 1024 * 1024 * 1024;
        let space = |available, free_inodes| Space { bytes: 100 * gib, available, inodes: 1_000_000, free_inodes };
        let severity = |space: Space| space.finding(Path::new("/var/lib/relaykeeper")).map(|finding| finding.severity);
        assert_eq!(severity(space(50 * gib, 500_000)), None);
        assert_eq!(severity(space(4 * gib, 500_000)), Some(Severity::Warning));
        assert_eq!(severity(space(50 * gib, 9_000)), Some(Severity::Warning));
        assert_eq!(severity(space(gib / 2, 500_000)), Some(Severity::Error));
        let small = Space { bytes: 100 << 20, available: 60 << 20, inodes: 0, free_inodes: 0 };
        assert_eq!(severity(small), Some(Severity::Error));
        assert_eq!(severity(Space { available: 70 << 20, ..small }), None);
    }
}
