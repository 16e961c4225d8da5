//! Lines on standard error as systemd's journal reads them.

use std::env;
use std::io::Write;

use nix::sys::stat::fstat;

use super::stderr::Output;
use super::{Batch, Sink};
use crate::report::Level;

/// Writes `<N>` before each line, N being its priority as in sd-daemon(3); journald takes it off again
/// (`SyslogLevelPrefix=` of systemd.exec(5), on by default).
///
/// Where standard error is not the journal (somebody started the daemon by hand), lines have no prefix.
#[derive(Debug)]
pub struct Journald<W> {
    output: Output<W>,
    with_priority: bool,
    scratch: Vec<u8>,
}

impl<W: Write> Journald<W> {
    /// Lines go to `writer`, with their priority if somebody reads it there.
    pub fn new(writer: W, with_priority: bool) -> Journald<W> {
        Journald { output: Output::new(writer), with_priority, scratch: Vec::new() }
    }
}

impl<W: Write + Send> Sink for Journald<W> {
    fn write(&mut self, batch: &Batch) {
        if !self.with_priority {
            self.output.write(batch.text().as_bytes(), "");
            return;
        }
        self.scratch.clear();
        for (level, line) in batch.lines() {
            let _ = writeln!(self.scratch, "<{}>{line}", level.severity() as u8);
        }
        let prefix = format!("<{}>", Level::Warn.severity() as u8);
        self.output.write(&self.scratch, &prefix);
    }
}

/// Whether standard error goes to the journal: `JOURNAL_STREAM` holds its device and inode (systemd.exec(5)).
pub fn stderr_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

#[cfg(test)]
mod tests {
    use super::super::stderr::tests::Pipe;
    use super::*;

    fn written(with_priority: bool) -> String {
        let mut taken = Vec::new();
        let mut sink = Journald::new(&mut taken, with_priority);
        let mut batch = Batch::default();
        batch.push(Level::Error, "one");
        batch.push(Level::Debug, "two");
        sink.write(&batch);
        drop(sink);
        String::from_utf8(taken).unwrap()
    }

    #[test]
    fn each_line_has_its_priority_in_the_journal() {
        assert_eq!(written(true), "<3>one\n<7>two\n");
    }

    #[test]
    fn elsewhere_lines_are_bare() {
        assert_eq!(written(false), "one\ntwo\n");
    }

    #[test]
    fn the_line_about_losses_has_one_too() {
        let mut sink = Journald::new(Pipe { room: 0, step: 100, ..Pipe::default() }, true);
        let mut batch = Batch::default();
        batch.push(Level::Info, "one");
        sink.write(&batch);
        sink.output.writer.room = 1000;
        sink.write(&batch);
        assert_eq!(sink.output.writer.taken, b"<4>event=log-lines-lost lines=1\n<6>one\n");
    }
}
