//! Files that somebody else put there. One may be a FIFO, a device or endless: it must neither block nor fill the memory.

use super::denied;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file for reading if it is a regular file; never blocks on a FIFO, and never takes a terminal.
///
/// # Errors
/// It cannot be opened; [`io::ErrorKind::InvalidInput`]: it is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(|error| denied::administrators_file(path, error))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// The text of a regular file of at most `max` bytes.
///
/// # Errors
/// As [`open_regular`]; [`io::ErrorKind::FileTooLarge`]: it is larger; [`io::ErrorKind::InvalidData`]: it is not UTF-8.
pub fn read_regular(path: &Path, max: u64) -> io::Result<String> {
    let mut text = String::new();
    open_regular(path)?.take(max.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::io::ErrorKind;

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good"), "12345").unwrap();
        std::fs::write(path("bytes"), [0xff]).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(read_regular(&path("good"), 5).unwrap(), "12345");
        let error = |name: &str, max| read_regular(&path(name), max).unwrap_err().kind();
        assert_eq!(error("good", 4), ErrorKind::FileTooLarge);
        assert_eq!(error("bytes", 5), ErrorKind::InvalidData);
        assert_eq!(error("fifo", 5), ErrorKind::InvalidInput);
        assert_eq!(error("folder", 5), ErrorKind::InvalidInput);
        assert_eq!(read_regular(Path::new("/dev/zero"), 5).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(error("missing", 5), ErrorKind::NotFound);
    }
}
