//! Commands of the milter protocol, read from their packets without a copy.
//!
//! The commands and their data are those of libmilter's `mfdef.h`; strings end with a NUL.

use super::error::MilterError;
use crate::envelope::parse_client;
use std::net::IpAddr;

/// What an MTA says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Negotiate(Offer),
    /// Macros for the command of this stage, or for the steps from there on: names and values in turn.
    Macros {
        stage: u8,
        definitions: &'a [u8],
    },
    Connect(Caller),
    Helo(&'a [u8]),
    /// The address as typed, and its ESMTP parameters.
    Mail {
        sender: &'a [u8],
        parameters: &'a [u8],
    },
    Recipient(&'a [u8]),
    Data,
    Header {
        name: &'a [u8],
        value: &'a [u8],
    },
    EndOfHeaders,
    Body(&'a [u8]),
    /// The last of the body may come with it.
    EndOfMessage(&'a [u8]),
    Abort,
    Unknown,
    Quit,
    /// QUIT_NC: the SMTP session is over, and another may follow on this connection.
    QuitSession,
}

/// What an MTA can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub version: u32,
    pub actions: u32,
    pub steps: u32,
}

/// Who is at the other end of the SMTP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// None where the MTA does not know.
    pub address: Option<IpAddr>,
    /// 0 where there is none.
    pub port: u16,
}

impl Command<'_> {
    /// Reads a packet: the command byte and its data.
    ///
    /// # Errors
    /// The data are not those of the command.
    pub fn parse(packet: &[u8]) -> Result<Command<'_>, MilterError> {
        let Some((&command, data)) = packet.split_first() else { return Err(MilterError::Length(0)) };
        parse(command, data).ok_or(MilterError::InvalidData(command))
    }
}

fn parse(command: u8, data: &[u8]) -> Option<Command<'_>> {
    Some(match command {
        b'O' => Command::Negotiate(offer(data)?),
        b'D' => {
            let (&stage, definitions) = data.split_first()?;
            Command::Macros { stage, definitions }
        }
        b'C' => Command::Connect(caller(data)?),
        b'H' => Command::Helo(string(data)?.0),
        b'M' => {
            let (sender, parameters) = string(data)?;
            Command::Mail { sender, parameters }
        }
        b'R' => Command::Recipient(string(data)?.0),
        b'T' => Command::Data,
        b'L' => {
            let (name, rest) = string(data)?;
            Command::Header { name, value: string(rest)?.0 }
        }
        b'N' => Command::EndOfHeaders,
        b'B' => Command::Body(data),
        b'E' => Command::EndOfMessage(data),
        b'A' => Command::Abort,
        b'U' => Command::Unknown,
        b'Q' => Command::Quit,
        b'K' => Command::QuitSession,
        _ => return None,
    })
}

/// A string up to its NUL, and what follows.
pub(super) fn string(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, data)?;
    Some((&data[..end], &data[end + 1..]))
}

/// `SIZE=` among the ESMTP parameters of MAIL (RFC 1870).
pub(super) fn declared_size(mut parameters: &[u8]) -> Option<u64> {
    while let Some((parameter, rest)) = string(parameters) {
        if let Some((keyword, value)) = parameter.split_first_chunk::<5>()
            && keyword.eq_ignore_ascii_case(b"SIZE=")
        {
            return std::str::from_utf8(value).ok()?.parse().ok();
        }
        parameters = rest;
    }
    None
}

fn offer(data: &[u8]) -> Option<Offer> {
    let (numbers, _) = data.as_chunks::<4>();
    let [version, actions, steps, ..] = numbers else { return None };
    let [version, actions, steps] = [version, actions, steps].map(|number| u32::from_be_bytes(*number));
    Some(Offer { version, actions, steps })
}

/// Host name, NUL, family; then port and address, but for an unknown family. An address that cannot be read, or a family
/// that nobody knows yet, is an unknown client: that alone must not end the session.
fn caller(data: &[u8]) -> Option<Caller> {
    let (_host, data) = string(data)?;
    let (&family, data) = data.split_first()?;
    let unknown = Caller { address: None, port: 0 };
    if family == b'U' {
        return Some(unknown);
    }
    let (port, data) = data.split_first_chunk::<2>()?;
    let (address, _) = string(data)?;
    Some(match family {
        b'4' | b'6' => {
            let address = std::str::from_utf8(address).ok().and_then(parse_client);
            Caller { address, port: u16::from_be_bytes(*port) }
        }
        // A unix socket: sendmail(1) and other local ways in.
        b'L' => Caller { address: Some(IpAddr::from([127, 0, 0, 1])), port: 0 },
        _ => unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller_of(data: &[u8]) -> Option<(String, u16)> {
        let Caller { address, port } = caller(data)?;
        Some((address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()), port))
    }

    #[test]
    fn callers_are_read_in_both_mtas_spellings() {
        let some = |address: &str, port| Some((address.to_owned(), port));
        assert_eq!(caller_of(b"h\x004\x12\x67192.0.2.7\0"), some("192.0.2.7", 0x1267));
        assert_eq!(caller_of(b"h\x006\x12\x672001:db8::7\0"), some("2001:db8::7", 0x1267));
        assert_eq!(caller_of(b"h\x006\x12\x67IPv6:0:0:0:0:0:0:0:1\0"), some("::1", 0x1267));
        assert_eq!(caller_of(b"h\x006\x12\x67IPv6:::ffff:192.0.2.7\0"), some("192.0.2.7", 0x1267));
        assert_eq!(caller_of(b"h\x00L\0\0/run/x\0"), some("127.0.0.1", 0));
        assert_eq!(caller_of(b"h\x00U"), some("unknown", 0));
    }

    #[test]
    fn an_odd_address_is_an_unknown_client() {
        let some = |address: &str, port| Some((address.to_owned(), port));
        assert_eq!(caller_of(b"h\x006\x12\x67fe80::1%eth0\0"), some("fe80::1", 0x1267));
        assert_eq!(caller_of(b"h\x006\x12\x67IPv6:FE80:0:0:0:0:0:0:1%25eth0\0"), some("fe80::1", 0x1267));
        for odd in [&b"x"[..], b"", b"unknown", b"192.0.2", b"192.0.2.7.", b"::1::", b"\xff", b"[", b"IPv6:", b"%eth0"]
        {
            assert_eq!(caller_of(&[b"h\x006\x12\x67", odd, b"\0"].concat()), some("unknown", 0x1267), "{odd:?}");
        }
        assert_eq!(caller_of(b"h\x00X\0\0a\0"), some("unknown", 0));
    }

    #[test]
    fn a_connect_that_breaks_off_is_malformed() {
        for bad in [&b"h"[..], b"h\0", b"h\x004\x12", b"h\x004\x12\x67192.0.2.7", b"h\x00X\0\0a"] {
            assert_eq!(caller_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn arguments_are_split_at_their_ends() {
        let mail = Command::parse(b"M<a@b.example>\0SIZE=9\0RET=HDRS\0").unwrap();
        assert_eq!(mail, Command::Mail { sender: b"<a@b.example>", parameters: b"SIZE=9\0RET=HDRS\0" });
        assert_eq!(
            Command::parse(b"LSubject\0 hello\0").unwrap(),
            Command::Header { name: b"Subject", value: b" hello" }
        );
        assert_eq!(declared_size(b"RET=HDRS\0size=9\0"), Some(9));
        assert_eq!(declared_size(b"XSIZE=9\0SIZE\0"), None);
        assert_eq!(declared_size(b"SIZE=99999999999999999999\0SIZE=1\0"), None);
        for bad in [&b"M"[..], b"Mabc", b"R", b"H", b"Lname\0value", b"O\0\0\0\x06", b"D"] {
            assert_eq!(Command::parse(bad), Err(MilterError::InvalidData(bad[0])));
        }
    }
}
