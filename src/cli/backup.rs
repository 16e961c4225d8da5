//! `backup`, `restore`: the store in one file. Both work on the files, and need no daemon; a restore must have none.

use super::{DONE, NO, print, store_folder};
use crate::audit::{Actor, Instruction};
use crate::backup;
use jiff::Timestamp;
use nix::unistd::getuid;
use std::path::Path;

pub fn save(config: &Path, to: &Path) -> u8 {
    let Some(folder) = store_folder(config) else { return NO };
    match backup::save(&folder, to) {
        Ok(saved) => {
            let (to, folder) = (to.display(), folder.display());
            print::line(format_args!("{to}: {} files of {folder}, {} bytes", saved.files, saved.bytes));
            DONE
        }
        Err(error) => {
            print::error(error);
            NO
        }
    }
}

pub fn restore(config: &Path, from: &Path, why: String) -> u8 {
    let Some(folder) = store_folder(config) else { return NO };
    let order = Instruction { by: Actor::of_uid(getuid().as_raw()), at: Timestamp::now(), why };
    match backup::restore(&folder, from, &order) {
        Ok(restored) => {
            let (folder, files) = (folder.display(), restored.files);
            print::line(format_args!("{folder}: {files} files, as of {} (relaykeeper {})", restored.made, restored.by));
            if let Some(before) = restored.before {
                let before = before.display();
                print::line(format_args!("what was there before is in {before}; remove it when you do not need it"));
            }
            DONE
        }
        Err(error) => {
            print::error(error);
            NO
        }
    }
}
