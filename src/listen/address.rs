//! The addresses that relaykeeper listens on, in Postfix's and in Sendmail's spelling.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path of a unix socket, in bytes: unix(7), `sun_path` without its closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Where to listen.
///
/// | spelling | whose |
/// | --- | --- |
/// | `unix:/PATH` | Postfix, Sendmail |
/// | `local:/PATH` | Sendmail |
/// | `inet:HOST:PORT`, `inet:[IPV6]:PORT` | Postfix |
/// | `inet:PORT@HOST`, `inet6:PORT@HOST` | Sendmail |
/// | `inet6:[IPV6]:PORT`, `inet6:HOST:PORT` | either family by name |
/// | `HOST:PORT`, `[IPV6]:PORT` | everybody |
///
/// A host is always named: a policy service that listens everywhere by accident lets strangers forge counts. Port 0
/// is any free port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A unix socket at this absolute path.
    Unix(PathBuf),
    /// A TCP port of a host.
    Tcp {
        /// An address or a name of this machine.
        host: Host,
        /// The port.
        port: u16,
    },
}

/// The host part of a TCP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address; IPv4-mapped IPv6 addresses are IPv4.
    Ip(IpAddr),
    /// A name that the system resolves to an IPv4 address, or else to an IPv6 one.
    Name(String),
    /// A name that the system resolves to an IPv6 address.
    NameOfIpv6(String),
}

impl ListenAddress {
    /// Whether only processes of this machine can connect, and the file's mode says which.
    pub fn is_unix(&self) -> bool {
        matches!(self, ListenAddress::Unix(_))
    }

    /// Whether only this machine can connect. Of host names only `localhost` is known to be its own.
    pub fn is_local(&self) -> bool {
        match self {
            ListenAddress::Unix(_) => true,
            ListenAddress::Tcp { host: Host::Ip(address), .. } => address.is_loopback(),
            ListenAddress::Tcp { host: Host::Name(name) | Host::NameOfIpv6(name), .. } => {
                name.eq_ignore_ascii_case("localhost")
            }
        }
    }
}

impl fmt::Display for ListenAddress {
    /// The canonical spelling: `unix:/PATH`, `inet:HOST:PORT`, `inet6:[IPV6]:PORT`, `inet6:HOST:PORT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Tcp { host: Host::Ip(IpAddr::V4(address)), port } => write!(f, "inet:{address}:{port}"),
            ListenAddress::Tcp { host: Host::Ip(IpAddr::V6(address)), port } => write!(f, "inet6:[{address}]:{port}"),
            ListenAddress::Tcp { host: Host::Name(name), port } => write!(f, "inet:{name}:{port}"),
            ListenAddress::Tcp { host: Host::NameOfIpv6(name), port } => write!(f, "inet6:{name}:{port}"),
        }
    }
}

/// Why a text is not an address to listen on: what was found, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" {problem}; {advice}", shown(.found))]
pub struct InvalidAddress {
    found: String,
    problem: String,
    advice: String,
}

impl InvalidAddress {
    /// What is wrong, to follow the text that was found.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// What to write instead.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

fn shown(found: &str) -> String {
    let mut shown: String = found.escape_debug().take(200).collect();
    if shown.len() < found.len() {
        shown.push_str("...");
    }
    shown
}

/// A problem and its advice, without the text that they are about.
type Rejection = (String, String);

fn rejection<T>(problem: impl Into<String>, advice: impl Into<String>) -> Result<T, Rejection> {
    Err((problem.into(), advice.into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `inet6:`.
    Ipv6,
    /// `inet:`, or nothing before the host.
    Any,
}

impl Family {
    fn prefix(self) -> &'static str {
        match self {
            Family::Ipv6 => "inet6",
            Family::Any => "inet",
        }
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<ListenAddress, InvalidAddress> {
        parse(text).map_err(|(problem, advice)| InvalidAddress { found: text.to_owned(), problem, advice })
    }
}

fn parse(text: &str) -> Result<ListenAddress, Rejection> {
    if text.is_empty() {
        return rejection("is empty", "write unix:/PATH or inet:HOST:PORT");
    }
    if let Some(strange) = text.chars().find(|character| character.is_whitespace() || *character == ',') {
        return rejection(
            format!("has a '{}' in it", strange.escape_debug()),
            "write one address alone: unix:/PATH or inet:HOST:PORT (options like F=T belong in the MTA's configuration)",
        );
    }
    match text.split_once(':') {
        Some(("unix" | "local", path)) => parse_path(path),
        Some(("inet", rest)) => parse_tcp(Family::Any, rest),
        Some(("inet6", rest)) => parse_tcp(Family::Ipv6, rest),
        _ if text.starts_with('/') => rejection("has no type before its path", format!("write unix:{text}")),
        _ if text.starts_with("S=") => rejection("starts as in sendmail.mc", format!("write {}", &text[2..])),
        _ => parse_tcp(Family::Any, text),
    }
}

fn parse_path(path: &str) -> Result<ListenAddress, Rejection> {
    if path.is_empty() {
        return rejection("has no path", "write unix:/PATH");
    }
    if !path.starts_with('/') {
        return rejection(
            "has a relative path",
            format!("write an absolute path (for Postfix in its chroot: unix:/var/spool/postfix/{path})"),
        );
    }
    if path.contains('\0') {
        return rejection("has a NUL character in its path", "write unix:/PATH");
    }
    if path.ends_with('/') || Path::new(path).file_name().is_none() {
        return rejection(
            "names a folder",
            format!("write a file in it: unix:{}/milter.sock", path.trim_end_matches('/')),
        );
    }
    if path.len() > MAX_SOCKET_PATH {
        return rejection(
            format!("has a path of {} bytes", path.len()),
            format!("the path of a unix socket has at most {MAX_SOCKET_PATH}"),
        );
    }
    Ok(ListenAddress::Unix(PathBuf::from(path)))
}

fn parse_tcp(family: Family, text: &str) -> Result<ListenAddress, Rejection> {
    let (host, port) = split_host_and_port(family, text)?;
    let port = parse_port(family, host, port)?;
    let host = parse_host(family, host, port)?;
    Ok(ListenAddress::Tcp { host, port })
}

fn split_host_and_port(family: Family, text: &str) -> Result<(&str, &str), Rejection> {
    let prefix = family.prefix();
    if let Some((port, host)) = text.split_once('@') {
        let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        return Ok((bare, port));
    }
    if let Some(after_bracket) = text.strip_prefix('[') {
        let Some((host, rest)) = after_bracket.split_once(']') else {
            return rejection("has no closing ']'", format!("write {prefix}:[ADDRESS]:PORT"));
        };
        let Some(port) = rest.strip_prefix(':') else {
            return rejection("has no port", format!("write {prefix}:[{host}]:PORT"));
        };
        return Ok((host, port));
    }
    match text.rsplit_once(':') {
        // More than one colon: an IPv6 address whose last group could also be a port.
        Some((host, port)) if host.contains(':') => {
            let (host, port) = match text.parse::<Ipv6Addr>() {
                Ok(_) if !host.parse::<Ipv6Addr>().is_ok_and(|_| is_port(port)) => (text, "PORT"),
                _ => (host, port),
            };
            rejection("has an IPv6 address without brackets", format!("write inet6:[{host}]:{port}"))
        }
        Some((host, port)) => Ok((host, port)),
        None if is_port(text) => rejection(
            "has no host",
            format!(
                "write {prefix}:{}:{text}, or {prefix}:{}:{text} for every address of this machine",
                if family == Family::Ipv6 { "[::1]" } else { "127.0.0.1" },
                if family == Family::Ipv6 { "[::]" } else { "0.0.0.0" },
            ),
        ),
        None => rejection("has no port", format!("write {prefix}:{text}:PORT, or unix:/PATH")),
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_port(family: Family, host: &str, text: &str) -> Result<u16, Rejection> {
    if let Some(port) = Some(text).filter(|text| is_port(text)).and_then(|text| text.parse().ok()) {
        return Ok(port);
    }
    let prefix = family.prefix();
    let host_in_brackets = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if text.is_empty() {
        return rejection("has no port", format!("write {prefix}:{host_in_brackets}:PORT"));
    }
    if is_port(text) {
        return rejection(format!("has the port {text}"), "ports end at 65535");
    }
    if is_port(host) {
        return rejection(
            "has port and host the wrong way round",
            format!("write {prefix}:{text}:{host}, or {prefix}:{host}@{text}"),
        );
    }
    rejection(
        format!("has '{}' where a port belongs", text.escape_debug()),
        format!("write {prefix}:{host_in_brackets}:NUMBER"),
    )
}

fn parse_host(family: Family, text: &str, port: u16) -> Result<Host, Rejection> {
    if text.is_empty() || text == "*" {
        return rejection(
            if text.is_empty() { "has no host" } else { "has '*' as its host" },
            match family {
                Family::Any => {
                    format!("write inet:127.0.0.1:{port}, or inet:0.0.0.0:{port} for every address of this machine")
                }
                Family::Ipv6 => {
                    format!("write inet6:[::1]:{port}, or inet6:[::]:{port} for every address of this machine")
                }
            },
        );
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return match (family, address.to_canonical()) {
            (Family::Ipv6, IpAddr::V4(v4)) => {
                rejection(format!("has the IPv4 address {v4} after inet6:"), format!("write inet:{v4}:{port}"))
            }
            (_, canonical) => Ok(Host::Ip(canonical)),
        };
    }
    if text.contains('%') {
        return rejection("has an IPv6 address with a zone", "write an address that needs none, such as [::1]");
    }
    if text.contains(':') {
        return rejection(
            format!("has no valid IPv6 address: '{}'", text.escape_debug()),
            format!("write inet6:[::1]:{port}"),
        );
    }
    if !is_host_name(text) {
        return rejection(
            format!("has no valid host name or address: '{}'", text.escape_debug()),
            format!("write inet:127.0.0.1:{port}, or unix:/PATH"),
        );
    }
    Ok(match family {
        Family::Any => Host::Name(text.to_owned()),
        Family::Ipv6 => Host::NameOfIpv6(text.to_owned()),
    })
}

/// RFC 1123, section 2.1, and the underscore that people use; the last label is not all digits, as that is how an
/// IPv4 address ends.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_means_one_address() {
        for (spellings, canonical) in [
            (&["unix:/run/rk/m.sock", "local:/run/rk/m.sock"][..], "unix:/run/rk/m.sock"),
            (
                &[
                    "inet:127.0.0.1:8891",
                    "inet:8891@127.0.0.1",
                    "127.0.0.1:8891",
                    "8891@127.0.0.1",
                    "inet:[::ffff:127.0.0.1]:8891",
                ],
                "inet:127.0.0.1:8891",
            ),
            (&["inet:localhost:8891", "inet:8891@localhost", "localhost:8891"], "inet:localhost:8891"),
            (
                &[
                    "inet6:[::1]:8891",
                    "inet6:8891@::1",
                    "inet6:8891@[::1]",
                    "inet:[::1]:8891",
                    "[::1]:8891",
                    "inet6:[0:0::0:1]:8891",
                ],
                "inet6:[::1]:8891",
            ),
            (&["inet6:ip6-localhost:8891", "inet6:8891@ip6-localhost"], "inet6:ip6-localhost:8891"),
            (&["inet:mail_1.example.net:25"], "inet:mail_1.example.net:25"),
            (&["inet:127.0.0.1:0"], "inet:127.0.0.1:0"),
        ] {
            for spelling in spellings {
                let address: ListenAddress = spelling.parse().unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(address.to_string(), canonical, "{spelling}");
            }
        }
    }

    #[test]
    fn errors_say_what_was_found_and_what_to_write() {
        for (text, expected) in [
            ("", r#""" is empty; write unix:/PATH or inet:HOST:PORT"#),
            ("/run/m.sock", r#""/run/m.sock" has no type before its path; write unix:/run/m.sock"#),
            ("unix:", r#""unix:" has no path; write unix:/PATH"#),
            (
                "unix:relaykeeper/policy.sock",
                r#""unix:relaykeeper/policy.sock" has a relative path; write an absolute path (for Postfix in its chroot: unix:/var/spool/postfix/relaykeeper/policy.sock)"#,
            ),
            ("unix:/run/rk/", r#""unix:/run/rk/" names a folder; write a file in it: unix:/run/rk/milter.sock"#),
            (
                "inet:8891",
                r#""inet:8891" has no host; write inet:127.0.0.1:8891, or inet:0.0.0.0:8891 for every address of this machine"#,
            ),
            (
                "inet6:8891",
                r#""inet6:8891" has no host; write inet6:[::1]:8891, or inet6:[::]:8891 for every address of this machine"#,
            ),
            (
                "inet:*:8891",
                r#""inet:*:8891" has '*' as its host; write inet:127.0.0.1:8891, or inet:0.0.0.0:8891 for every address of this machine"#,
            ),
            ("localhost", r#""localhost" has no port; write inet:localhost:PORT, or unix:/PATH"#),
            ("inet:localhost:", r#""inet:localhost:" has no port; write inet:localhost:PORT"#),
            ("inet:[::1]", r#""inet:[::1]" has no port; write inet:[::1]:PORT"#),
            ("inet6:[::1:25", r#""inet6:[::1:25" has no closing ']'; write inet6:[ADDRESS]:PORT"#),
            ("inet6:::1:8891", r#""inet6:::1:8891" has an IPv6 address without brackets; write inet6:[::1]:8891"#),
            ("2001:db8::7", r#""2001:db8::7" has an IPv6 address without brackets; write inet6:[2001:db8::7]:PORT"#),
            (
                "inet6:8891@127.0.0.1",
                r#""inet6:8891@127.0.0.1" has the IPv4 address 127.0.0.1 after inet6:; write inet:127.0.0.1:8891"#,
            ),
            (
                "inet:localhost:smtp",
                r#""inet:localhost:smtp" has 'smtp' where a port belongs; write inet:localhost:NUMBER"#,
            ),
            ("inet:localhost:99999", r#""inet:localhost:99999" has the port 99999; ports end at 65535"#),
            (
                "inet:8891:localhost",
                r#""inet:8891:localhost" has port and host the wrong way round; write inet:localhost:8891, or inet:8891@localhost"#,
            ),
            (
                "inet:256.0.0.1:25",
                r#""inet:256.0.0.1:25" has no valid host name or address: '256.0.0.1'; write inet:127.0.0.1:25, or unix:/PATH"#,
            ),
            (
                "inet:[fe80::1%eth0]:25",
                r#""inet:[fe80::1%eth0]:25" has an IPv6 address with a zone; write an address that needs none, such as [::1]"#,
            ),
            ("S=inet:8891@localhost", r#""S=inet:8891@localhost" starts as in sendmail.mc; write inet:8891@localhost"#),
            (
                "inet:8891@localhost, F=T",
                r#""inet:8891@localhost, F=T" has a ',' in it; write one address alone: unix:/PATH or inet:HOST:PORT (options like F=T belong in the MTA's configuration)"#,
            ),
        ] {
            let error = text.parse::<ListenAddress>().expect_err(text);
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_path_ends_where_the_kernel_ends_it() {
        let path = format!("unix:/{}", "x".repeat(106));
        assert!(path.parse::<ListenAddress>().is_ok());
        let error = format!("{path}x").parse::<ListenAddress>().unwrap_err();
        assert_eq!(error.problem(), "has a path of 108 bytes");
        assert_eq!(error.advice(), "the path of a unix socket has at most 107");
    }

    #[test]
    fn an_error_is_one_short_line() {
        let error = format!("inet:{}\n", "y".repeat(5000)).parse::<ListenAddress>().unwrap_err().to_string();
        assert!(error.len() < 500 && !error.contains('\n'), "{error}");
    }

    #[test]
    fn only_unix_sockets_are_unix_sockets() {
        assert!("local:/run/m.sock".parse::<ListenAddress>().unwrap().is_unix());
        assert!(!"inet:25@localhost".parse::<ListenAddress>().unwrap().is_unix());
    }

    proptest! {
        #[test]
        fn the_canonical_spelling_reads_back(address: IpAddr, port: u16) {
            let address = ListenAddress::Tcp { host: Host::Ip(address.to_canonical()), port };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_is_too_strange(text in "(unix|local|inet|inet6)?:?[\\[\\]@:/.%0-9a-f]{0,20}\\PC{0,5}") {
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
