//! Appends to the audit log.

use super::actor::Instruction;
use super::chain::{self, Anchor, Break};
use super::record::{Action, Record};
use crate::files;
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = "audit.log";

/// Why the audit log cannot be used: one line.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}: {error}")]
pub struct AuditError {
    pub file: String,
    pub what: &'static str,
    pub error: io::Error,
}

/// The log of one daemon.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: File,
    last: Anchor,
    breaks: Vec<Break>,
}

impl AuditLog {
    /// Opens the log in a folder, and verifies it; makes it if there is none. Records that `anchor` does not know are
    /// handed to `newer`, in their order: they were written, and what they say may not have been carried out.
    ///
    /// # Errors
    /// It cannot be read or written. A broken chain is no error: it goes on where it should have ended.
    pub fn open(folder: &Path, anchor: &Anchor, mut newer: impl FnMut(Record)) -> Result<AuditLog, AuditError> {
        let path = folder.join(FILE_NAME);
        let failed = |what| {
            let file = path.display().to_string();
            move |error| AuditError { file, what, error }
        };
        let opened = files::append(&path, files::Access::Group);
        let mut file = opened.map_err(failed("cannot be written"))?;
        let each = |record: Record| {
            if record.number > anchor.records {
                newer(record);
            }
        };
        let mut verified = chain::verify(BufReader::new(&file), anchor, each).map_err(failed("cannot be read"))?;
        if let Some(at) = verified.torn_at {
            if verified.last.records >= anchor.records {
                // The daemon or the machine died while it was written: the command was not answered, so nothing was done.
                file.set_len(at).map_err(failed("cannot be written"))?;
                verified.breaks.pop();
            } else {
                file.write_all(b"\n").map_err(failed("cannot be written"))?;
            }
        }
        file.seek(SeekFrom::End(0)).map_err(failed("cannot be read"))?;
        // Its name must survive a loss of power, too.
        files::sync_folder(folder).map_err(failed("cannot be written"))?;
        let last = if verified.last.records >= anchor.records { verified.last } else { anchor.clone() };
        Ok(AuditLog { path, file, last, breaks: verified.breaks })
    }

    /// The last record.
    pub fn last(&self) -> &Anchor {
        &self.last
    }

    /// Where the chain was broken when the log was opened.
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// Appends records of one instruction; when this returns, they are on disk. A failure leaves none of them. Returns
    /// the last.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&mut self, order: &Instruction, actions: &[Action]) -> Result<Anchor, AuditError> {
        let (mut last, mut text) = (self.last.clone(), String::new());
        for action in actions {
            let record = Record {
                number: last.records + 1,
                at: order.at,
                by: order.by.clone(),
                action: action.clone(),
                why: order.why.trim().to_owned(),
                previous: last.hash,
            };
            let (line, hash) = chain::seal(&record).map_err(|error| self.unwritable(error.into()))?;
            text.push_str(&line);
            last = Anchor { records: record.number, hash };
        }
        let length = self.file.metadata().map_err(|error| self.unwritable(error))?.len();
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What was written in part must not stand before the next record.
            let _ = self.file.set_len(length);
            return Err(self.unwritable(error));
        }
        self.last = last.clone();
        Ok(last)
    }

    /// Takes nothing.
    #[cfg(test)]
    pub fn on_full_disk() -> AuditLog {
        let path = PathBuf::from("/dev/full");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        AuditLog { path, file, last: Anchor::default(), breaks: Vec::new() }
    }

    fn unwritable(&self, error: io::Error) -> AuditError {
        AuditError { file: self.path.display().to_string(), what: "cannot be written, so nothing was done", error }
    }
}
