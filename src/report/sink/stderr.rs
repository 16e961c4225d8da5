//! Bare lines on standard error.

use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::Duration;

use super::{Batch, Sink};
use crate::report::LogLine;

/// How long a reader that takes nothing from a non-blocking pipe is waited for, per batch: 50 × 10 ms.
const STALLS: u32 = 50;
const STALL: Duration = Duration::from_millis(10);

/// Writes each batch of lines with as few calls as possible.
///
/// Without a time stamp: whatever reads standard error (journald, a container's runtime, a terminal) has its own.
#[derive(Debug)]
pub struct Stderr<W> {
    output: Output<W>,
}

impl<W: Write> Stderr<W> {
    /// Lines go to `writer`.
    pub fn new(writer: W) -> Stderr<W> {
        Stderr { output: Output::new(writer) }
    }
}

impl<W: Write + Send> Sink for Stderr<W> {
    fn write(&mut self, batch: &Batch) {
        self.output.write(batch.text().as_bytes(), "");
    }
}

/// Bytes to a writer that may fail; knows how many lines that cost, and says so once it works again.
#[derive(Debug)]
pub(super) struct Output<W> {
    pub(super) writer: W,
    lost: usize,
    mid_line: bool,
}

impl<W: Write> Output<W> {
    pub(super) fn new(writer: W) -> Output<W> {
        Output { writer, lost: 0, mid_line: false }
    }

    /// Writes whole lines; `prefix` goes before a line about losses.
    pub(super) fn write(&mut self, text: &[u8], prefix: &str) {
        if self.lost > 0 {
            let line = LogLine::event("log-lines-lost").field("lines", self.lost).finish();
            // A line that was cut off in its middle is ended, so that the next one stands alone.
            let end_of_cut = if self.mid_line { "\n" } else { "" };
            let notice = format!("{end_of_cut}{prefix}{line}\n");
            if self.write_fully(notice.as_bytes()) != notice.len() {
                self.lost += count_lines(text);
                return;
            }
            self.lost = 0;
            self.mid_line = false;
        }
        let written = self.write_fully(text);
        if written < text.len() {
            self.lost = count_lines(&text[written..]);
            self.mid_line = written > 0 && text[written - 1] != b'\n';
        }
    }

    /// Returns how many bytes were taken.
    fn write_fully(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        let mut stalls = 0;
        while written < bytes.len() {
            match self.writer.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(taken) => written += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && stalls < STALLS => {
                    stalls += 1;
                    thread::sleep(STALL);
                }
                Err(_) => break,
            }
        }
        let _: io::Result<()> = self.writer.flush();
        written
    }
}

fn count_lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::Level;

    /// Takes `room` bytes, at most `step` at once, then fails.
    #[derive(Debug, Default)]
    pub(in super::super) struct Pipe {
        pub taken: Vec<u8>,
        pub room: usize,
        pub step: usize,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let taken = bytes.len().min(self.room).min(self.step);
            self.taken.extend_from_slice(&bytes[..taken]);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.push(Level::Info, line);
        }
        batch
    }

    #[test]
    fn lines_go_out_whole_however_little_is_taken_at_once() {
        let mut sink = Stderr::new(Pipe { room: 1000, step: 3, ..Pipe::default() });
        sink.write(&batch(&["first line", "second line"]));
        assert_eq!(sink.output.writer.taken, b"first line\nsecond line\n");
    }

    #[test]
    fn what_was_lost_is_told() {
        let mut sink = Stderr::new(Pipe { room: 8, step: 100, ..Pipe::default() });
        sink.write(&batch(&["first", "second", "third"]));
        sink.write(&batch(&["fourth"]));
        assert_eq!(sink.output.writer.taken, b"first\nse");
        sink.output.writer.room = 1000;
        sink.write(&batch(&["fifth"]));
        sink.write(&batch(&["sixth"]));
        let taken = String::from_utf8(sink.output.writer.taken).unwrap();
        assert_eq!(taken, "first\nse\nevent=log-lines-lost lines=3\nfifth\nsixth\n");
    }
}
