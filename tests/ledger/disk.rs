//! Real file systems that fail: the power fails, a disk hangs or fills up, a folder becomes read-only. Each in a file system of its
//! own, on a loop device. That needs root; for others these tests say that they did nothing.

use crate::crash::{Books, Worker};
use crate::store_errors::{open, send, until, usage};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use relaykeeper::config::Sync;
use relaykeeper::ledger::{Ledger, LedgerError, Readiness};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// ext4 in a file, mounted where only this test and the processes that it starts see it.
pub(crate) struct Disk {
    folder: TempDir,
    device: String,
}

impl Disk {
    /// None, and a word about it, without root.
    pub(crate) fn new() -> Option<Disk> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not tested: needs root, to mount a file system");
            return None;
        }
        crate::crash::this_program();
        unshare(CloneFlags::CLONE_NEWNS).expect("mounts of its own");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("which nobody else sees");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = folder.path().join("image");
        File::create(&image).and_then(|file| file.set_len(96 << 20)).expect("an image");
        let image = image.to_str().expect("a plain path");
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", image]);
        let device = run("losetup", &["--find", "--show", image]);
        let disk = Disk { folder, device };
        std::fs::create_dir(disk.path()).expect("a mount point");
        disk.mount();
        Some(disk)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn mount(&self) {
        mount(Some(self.device.as_str()), &self.path(), Some("ext4"), MsFlags::empty(), None::<&str>).expect("a mount");
    }

    /// Nothing that was not synced gets to the disk any more, and nothing can be read or written (ext4's shutdown, with
    /// EXT4_GOING_FLAGS_NOLOGFLUSH).
    fn fail_power(&self) {
        nix::ioctl_read!(shut_down, b'X', 125, u32);
        let root = File::open(self.path()).expect("the file system");
        let mut without_flush: u32 = 2;
        // SAFETY: the descriptor is open, and the argument is the number that this call reads.
        unsafe { shut_down(root.as_raw_fd(), &mut without_flush) }.expect("ext4 shuts down");
    }

    /// As after the power is back: the file system mends itself from its journal.
    fn mount_again(&self) {
        umount2(&self.path(), MntFlags::empty()).expect("nobody uses it");
        self.mount();
    }

    /// Whoever writes waits, as for a disk that does not answer (FIFREEZE).
    pub(crate) fn freeze(&self) -> Frozen {
        nix::ioctl_readwrite!(freeze, b'X', 119, i32);
        let root = File::open(self.path()).expect("the file system");
        // SAFETY: the descriptor is open, and the argument is not used.
        unsafe { freeze(root.as_raw_fd(), &mut 0) }.expect("it freezes");
        Frozen(root)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

pub(crate) struct Frozen(File);

impl Drop for Frozen {
    fn drop(&mut self) {
        nix::ioctl_readwrite!(thaw, b'X', 120, i32);
        // SAFETY: the descriptor is open, and the argument is not used.
        let _ = unsafe { thaw(self.0.as_raw_fd(), &mut 0) };
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn what_was_accepted_is_on_disk_when_the_power_fails() {
    let Some(disk) = Disk::new() else { return };
    let mut books = Books::default();
    for round in 0..5 {
        Worker::start(&disk.path()).end_at_random(round, &mut books, || disk.fail_power());
        disk.mount_again();
        books.balance(&disk.path());
    }
    books.assert_load(5);
}

/// All files of the store, and their folder, as an administrator's `chattr +i` or a file system that became read-only leaves
/// them: open files cannot be written either.
pub(crate) fn set_read_only(folder: &Path, read_only: bool) {
    let sign = if read_only { "+i" } else { "-i" };
    let folder = folder.to_str().expect("a plain path");
    run("chattr", &["-R", sign, folder]);
}

#[test]
fn a_folder_that_turns_read_only_refuses_counts_and_recovers() {
    let Some(disk) = Disk::new() else { return };
    let folder = disk.path().join("store");
    std::fs::create_dir(&folder).unwrap();
    runtime().block_on(async {
        let ledger = open(&folder).unwrap();
        let mut accepted = 0;
        for n in 0..20 {
            send(&ledger, n, 2).await.unwrap();
            accepted += 1;
        }
        set_read_only(&folder, true);
        for n in 100..110 {
            let LedgerError::Unavailable(reason) = send(&ledger, n, 2).await.unwrap_err() else {
                panic!("it is loaded")
            };
            assert!(reason.message().contains("; check "), "it says what to do: {reason}");
            assert!(reason.is_transient() && std::error::Error::source(&reason).is_some(), "{reason:?}");
            assert_eq!(ledger.health().readiness, Readiness::Degraded(reason.message()));
        }
        assert_eq!(
            usage(&ledger).await.unwrap(),
            [(accepted, 0), (2 * accepted, 0)],
            "what was refused is not counted"
        );
        set_read_only(&folder, false);
        for n in 200..220 {
            send(&ledger, n, 2).await.unwrap();
            accepted += 1;
        }
        assert_eq!(ledger.health().readiness, Readiness::Ready);
        ledger.close().await;
        drop(ledger);
        let again = open(&folder).unwrap();
        assert_eq!(usage(&again).await.unwrap(), [(accepted, 0), (2 * accepted, 0)]);
    });
}

#[test]
fn with_sync_normal_a_folder_that_turns_read_only_loses_nothing_accepted() {
    let Some(disk) = Disk::new() else { return };
    let folder = disk.path().join("store");
    std::fs::create_dir(&folder).unwrap();
    runtime().block_on(async {
        let ledger = Ledger::open(&folder, Sync::Normal, RESERVATION_TIMEOUT).unwrap();
        send(&ledger, 0, 2).await.unwrap();
        set_read_only(&folder, true);
        // These are accepted before the writer finds out; from then on none is.
        let mut accepted = 1;
        while send(&ledger, accepted, 2).await.is_ok() {
            accepted += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(matches!(ledger.health().readiness, Readiness::Degraded(_)));
        assert_eq!(usage(&ledger).await.unwrap(), [(accepted, 0), (2 * accepted, 0)]);
        set_read_only(&folder, false);
        until("the writer tries again by itself", || ledger.health().readiness == Readiness::Ready).await;
        ledger.close().await;
        drop(ledger);
        let again = open(&folder).unwrap();
        assert_eq!(usage(&again).await.unwrap(), [(accepted, 0), (2 * accepted, 0)]);
    });
}

/// All of it but `left` bytes.
fn fill(disk: &Path, left: u64) {
    let path = disk.join("filler");
    let mut filler = File::create(&path).unwrap();
    let zeros = vec![0; 64 << 10];
    while std::io::Write::write_all(&mut filler, &zeros).is_ok() {}
    let size = filler.metadata().unwrap().len();
    filler.set_len(size - left).unwrap();
    filler.sync_all().unwrap();
}

#[test]
fn a_start_on_a_full_disk_says_so() {
    for left in [0, 16 << 10] {
        let Some(disk) = Disk::new() else { return };
        fill(&disk.path(), left);
        let error = open(&disk.path()).expect_err("there is no room");
        assert!(error.contains("No space left on device"), "{left} left: {error}");
        assert!(error.ends_with("; free some disk space, at least 1 MiB"), "{error}");
    }
}

#[test]
fn a_disk_that_fills_up_refuses_counts_and_recovers() {
    let Some(disk) = Disk::new() else { return };
    fill(&disk.path(), 2 << 20);
    runtime().block_on(async {
        let ledger = open(&disk.path()).unwrap();
        let mut accepted = 0;
        while send(&ledger, accepted, 100).await.is_ok() {
            accepted += 1;
            assert!(accepted < 10_000, "there is room for all of them");
        }
        for n in 0..5 {
            let LedgerError::Unavailable(error) = send(&ledger, 20_000 + n, 100).await.unwrap_err() else {
                panic!("it is loaded")
            };
            assert!(error.message().contains("; free some disk space"), "{error}");
        }
        std::fs::remove_file(disk.path().join("filler")).unwrap();
        send(&ledger, 30_000, 100).await.unwrap();
        assert_eq!(usage(&ledger).await.unwrap(), [(accepted + 1, 0), (100 * (accepted + 1), 0)]);
    });
}

/// Time only passes for those who wait for nothing else, so that nobody waits 50 s for the disk.
#[test]
fn while_the_disk_hangs_decisions_are_made_and_acceptance_is_refused_in_time() {
    let Some(disk) = Disk::new() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let ledger = open(&disk.path()).unwrap();
        // On a thread, so that no time is passed while it is awaited.
        let ready = ledger.clone();
        std::thread::spawn(move || crate::stores::runtime().block_on(async { ready.ready().await.unwrap() }))
            .join()
            .unwrap();
        let frozen = disk.freeze();
        let began = tokio::time::Instant::now();
        let LedgerError::Unavailable(reason) = send(&ledger, 1, 2).await.unwrap_err() else { panic!("it is loaded") };
        assert_eq!(&*reason.message(), "the disk did not respond within 50 s");
        assert_eq!(began.elapsed().as_secs(), 50);
        let [(counted, reserved), _] = usage(&ledger).await.unwrap();
        assert_eq!((counted, reserved), (0, 1), "it may yet get to the disk");
        drop(frozen);
        let ledger_after = ledger.clone();
        std::thread::spawn(move || {
            crate::stores::runtime().block_on(async {
                send(&ledger_after, 2, 2).await.unwrap();
                let [(counted, reserved), _] = usage(&ledger_after).await.unwrap();
                assert!(
                    (1..=2).contains(&counted) && reserved == 0,
                    "too much rather than too little: {counted} {reserved}"
                );
                ledger_after.close().await;
            });
        })
        .join()
        .unwrap();
    });
}
