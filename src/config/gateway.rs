//! Gateways: the server that further mail of a customer, or of a user's further address, goes out through.

use super::reader::Item;
use super::report::Complaint;
use super::source::quoted;
use super::values::is_host_name;
use crate::envelope::{canonical_domain, canonical_ip};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A next hop in Postfix's form (transport(5)): `[HOST]:PORT`, `HOST:PORT` (by MX), either without port. Loopback and
/// private addresses are refused: they would let a customer's file reach into the operator's own network, or make
/// the relay deliver to itself for ever.
pub(super) fn gateway(text: &str) -> Result<String, Complaint> {
    let wrong = |why: &str| {
        Complaint::new(format!("{} is no gateway", quoted(text)), why)
            .help("write \"[HOST]:PORT\", such as \"[mx.acme.example]:25\"; without brackets HOST's MX is looked up")
    };
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.len() > 300 {
        return Err(wrong("it is empty or too long"));
    }
    let (host, port) = match trimmed.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or_else(|| wrong("the closing bracket is missing"))?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':').ok_or_else(|| wrong("after ] a :PORT is expected"))?)),
            }
        }
        None => match trimmed.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (trimmed, None),
        },
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err(wrong("the port must be a number from 1 to 65535"));
    }
    let literal = host.strip_prefix("IPv6:").or(host.strip_prefix("ipv6:")).unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        if !trimmed.starts_with('[') {
            return Err(wrong("an address stands in brackets"));
        }
        if !is_public(canonical_ip(address)) {
            return Err(Complaint::new(
                format!("{} is not a public address", quoted(host)),
                "loopback, private and link-local addresses cannot be gateways",
            )
            .help("name a server on the Internet"));
        }
    } else {
        let name = canonical_domain(host);
        if !is_host_name(&name) || !name.contains('.') || name.rsplit('.').next() == Some("localhost") {
            return Err(wrong("the host's full name is expected"));
        }
        if name == "localhost.localdomain" {
            return Err(wrong("this is the relay itself"));
        }
    }
    Ok(trimmed.to_ascii_lowercase())
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a >= 224;
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared || is_reserved)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let is_unique_local = first & 0xfe00 == 0xfc00;
            let is_link_local = first & 0xffc0 == 0xfe80;
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || is_unique_local || is_link_local)
        }
    }
}

/// A file with a password, relative to `folder`. It must be readable by its owner and at most its group. What is in
/// it is read when it is needed.
pub(super) fn password_file(item: &Item<'_>, folder: &Path) -> Option<PathBuf> {
    let text = item.string("secrets/kim-partner")?;
    let path = folder.join(text);
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        // `check` may run as somebody who may not look.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let label = "this user may not look at it: run the check as the daemon's user";
            item.warning(Complaint::new(format!("{} cannot be checked", quoted(&path.to_string_lossy())), label));
            return Some(path);
        }
        Err(error) => {
            let title = format!("{} cannot be read", quoted(&path.to_string_lossy()));
            item.error(Complaint::new(title, error.to_string()).help("the path is relative to the file that names it"));
            return None;
        }
    };
    if !metadata.is_file() {
        item.error(Complaint::new(format!("{} is not a file", quoted(text)), "a regular file is expected"));
        return None;
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o137 != 0 {
        let title = format!("{} has mode {mode:04o}", quoted(text));
        let help = format!("chmod 0640 {}", path.display());
        item.error(Complaint::new(title, "others can read or change the password").help(help));
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_gateways() {
        for text in
            ["[mx.acme.example]:25", "mx.acme.example", "acme.example:587", "[192.0.2.1]:25", "[IPv6:2001:db8::1]:25"]
        {
            assert!(gateway(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "[mx.acme.example",
            "[mx.acme.example]25",
            "mx.acme.example:0",
            "mx:99999",
            "smtp:[mx.acme.example]",
            "192.0.2.1",
        ] {
            assert!(gateway(text).is_err(), "{text}");
        }
    }

    #[test]
    fn gateways_do_not_lead_inside() {
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fd00::1",
            "::",
            "ff02::1",
            "localhost",
            "x.localhost",
            "localhost.localdomain",
        ] {
            assert!(gateway(&format!("[{host}]:25")).is_err(), "{host}");
        }
    }
}
