//! Netstrings: `LENGTH:BYTES,` (<https://cr.yp.to/proto/netstrings.txt>).

use crate::listen::Frame;

/// The longest request, in bytes. Postfix's addresses end at `line_length_limit` (2048).
pub const MAX_REQUEST: usize = 4 * 1024;

/// Digits of the longest length.
const MAX_DIGITS: usize = 4;

/// Why a request gets no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("malformed request: not a netstring")]
    NotANetstring,
    #[error("malformed request: longer than {MAX_REQUEST} bytes")]
    TooLong,
    #[error("malformed request: not of the form NAME KEY")]
    NoKey,
    #[error("malformed request: not UTF-8")]
    NotUtf8,
}

/// Finds the first netstring.
pub(super) fn frame(input: &[u8]) -> Result<Frame, BadRequest> {
    let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > MAX_DIGITS {
        return Err(BadRequest::TooLong);
    }
    match input.get(digits) {
        None => return Ok(Frame::Partial { missing: 1 }),
        Some(b':') if digits > 0 => {}
        Some(_) => return Err(BadRequest::NotANetstring),
    }
    if digits > 1 && input[0] == b'0' {
        return Err(BadRequest::NotANetstring);
    }
    let length = input[..digits].iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    if length > MAX_REQUEST {
        return Err(BadRequest::TooLong);
    }
    let content = digits + 1..digits + 1 + length;
    match input.get(content.end) {
        None => Ok(Frame::Partial { missing: content.end + 1 - input.len() }),
        Some(b',') => Ok(Frame::Complete { length: content.end + 1, content }),
        Some(_) => Err(BadRequest::NotANetstring),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(buffer: &[u8]) -> Result<Option<&[u8]>, BadRequest> {
        Ok(match frame(buffer)? {
            Frame::Complete { content, .. } => Some(&buffer[content]),
            Frame::Partial { .. } => None,
        })
    }

    #[test]
    fn complete_and_in_pieces() {
        let all = b"12:clients ::1x,3:abc,";
        for end in 0..all.len() {
            let expected = (end >= 16).then_some(&b"clients ::1x"[..]);
            assert_eq!(bytes(&all[..end]), Ok(expected), "{end} bytes");
        }
        assert_eq!(bytes(b"0:,"), Ok(Some(&b""[..])));
    }

    #[test]
    fn malformed_netstrings() {
        for garbage in
            [&b":,"[..], b"GET / HTTP/1.1", b"+3:abc,", b"3:abcd", b"03:abc,", b"00:,", b" 3:abc,", b"3;abc,"]
        {
            assert_eq!(bytes(garbage), Err(BadRequest::NotANetstring), "{garbage:?}");
        }
        for long in [&b"99999"[..], b"4097:", b"9999:"] {
            assert_eq!(bytes(long), Err(BadRequest::TooLong), "{long:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_a_netstring_come_out(content in proptest::collection::vec(any::<u8>(), 0..MAX_REQUEST)) {
            let mut input = format!("{}:", content.len()).into_bytes();
            input.extend_from_slice(&content);
            input.extend_from_slice(b",7:x");
            prop_assert_eq!(bytes(&input), Ok(Some(&content[..])));
        }

        #[test]
        fn no_bytes_are_too_strange(garbage in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = bytes(&garbage);
        }
    }
}
