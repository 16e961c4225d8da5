//! The administrator's side of the control socket.

use super::protocol::{Command, MAX_LINE, Response};
use crate::listen::ListenAddress;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the daemon may take to respond.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the configuration has no listen.control: the running daemon cannot be asked")]
    NoAddress,
    #[error("cannot reach the daemon on {address}: {error}; is it running, and may this user open its socket?")]
    Unreachable { address: String, error: std::io::Error },
    #[error("the daemon on {address} gave no answer that this version understands: {error}")]
    Misunderstood { address: String, error: String },
}

impl ControlError {
    /// Whether there is a socket, and this user may not connect to it.
    pub fn is_denied(&self) -> bool {
        matches!(self, ControlError::Unreachable { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied)
    }
}

/// Asks the running daemon.
///
/// # Errors
/// When it cannot be reached, or does not answer.
pub fn ask(address: Option<&ListenAddress>, command: &Command) -> Result<Response, ControlError> {
    let address = address.ok_or(ControlError::NoAddress)?;
    let line =
        talk(address, command).map_err(|error| ControlError::Unreachable { address: address.to_string(), error })?;
    serde_json::from_str(&line)
        .map_err(|error| ControlError::Misunderstood { address: address.to_string(), error: error.to_string() })
}

fn talk(address: &ListenAddress, command: &Command) -> std::io::Result<String> {
    let ListenAddress::Unix(path) = address else {
        return Err(std::io::Error::other("the control socket has to be a unix socket"));
    };
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = serde_json::to_string(command).map_err(std::io::Error::other)?;
    request.push('\n');
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(64 * MAX_LINE as u64)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(std::io::Error::other("it closed the connection"));
    }
    Ok(line)
}
