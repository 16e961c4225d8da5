//! The spelling of addresses to listen at.

use super::reader::Complaint;
use super::source::quoted;

/// `unix:/PATH`, `local:/PATH`, `inet:HOST:PORT`, `inet:PORT@HOST`, `inet6:…`, or plain `HOST:PORT`.
pub(super) fn listen_address(text: &str) -> Result<String, Complaint> {
    let wrong = |why: &str| {
        Complaint::new(format!("{} is no address to listen at", quoted(text)), why)
            .help("write \"unix:/PATH\", \"inet:HOST:PORT\" or \"inet:PORT@HOST\"")
    };
    let port = |port: &str| port.parse::<u16>().map_err(|_| wrong("the port must be a number up to 65535"));
    if text.contains(char::is_control) {
        return Err(wrong("it holds control characters"));
    }
    if let Some(path) = text.strip_prefix("unix:").or(text.strip_prefix("local:")) {
        return match path {
            _ if !path.starts_with('/') => Err(wrong("the path must begin with /")),
            // sockaddr_un(7): 108 bytes with the final NUL.
            _ if path.len() > 107 => Err(wrong("the path of a socket has at most 107 bytes")),
            _ => Ok(text.to_owned()),
        };
    }
    let rest = text.strip_prefix("inet:").or(text.strip_prefix("inet6:")).unwrap_or(text);
    match rest.split_once('@') {
        Some((number, host)) => {
            port(number)?;
            if host.is_empty() {
                return Err(wrong("the host is missing"));
            }
        }
        None => {
            let (host, number) = rest.rsplit_once(':').ok_or_else(|| wrong("host and port are expected"))?;
            port(number)?;
            if host.is_empty() {
                return Err(wrong("the host is missing; for all, write 0.0.0.0 or [::]"));
            }
        }
    }
    Ok(text.to_owned())
}
