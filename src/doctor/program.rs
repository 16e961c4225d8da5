//! Runs programs of the MTAs, which may hang or say a lot.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a program says on standard output, at most `max` bytes of it, when it is told `input`. The exit status does not matter
/// where there is output.
///
/// # Errors
/// It cannot be run, takes too long, or fails without a word.
pub fn output(program: &Path, arguments: &[&OsStr], input: &str, max: u64) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not listen is no error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(max).read_to_end(&mut bytes).map(|_| bytes);
        let _ = sender.send(read);
    });
    let read = receiver.recv_timeout(TIMEOUT);
    if read.is_err() {
        let _ = child.kill();
        child.wait()?;
        return Err(io::Error::from(ErrorKind::TimedOut));
    }
    // What says more than `max` ends when nobody reads on.
    let status = child.wait()?;
    let bytes = read.map_err(io::Error::other)??;
    match bytes.is_empty() && !status.success() {
        true => Err(io::Error::other(format!("{} ended with {status}", program.display()))),
        false => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &str, max: u64) -> io::Result<String> {
        output(Path::new("/bin/sh"), &["-c".as_ref(), script.as_ref()], input, max)
    }

    #[test]
    fn output_is_bounded_and_failures_are_errors() {
        assert_eq!(shell("cat", "hello", 100).unwrap(), "hello");
        assert_eq!(shell("yes", "", 4).unwrap(), "y\ny\n");
        assert_eq!(shell("echo words; exit 3", "", 100).unwrap(), "words\n");
        assert!(shell("exit 3", "", 100).is_err());
        assert_eq!(output(Path::new("/nowhere"), &[], "", 100).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
