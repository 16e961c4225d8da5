//! Netstrings: `LENGTH:BYTES,` (https://cr.yp.to/proto/netstrings.txt).

use std::ops::Range;

/// The longest request, in bytes. Postfix's addresses end at `line_length_limit` (2048).
pub const MAX_REQUEST: usize = 4 * 1024;

/// Digits of the longest length.
const MAX_DIGITS: usize = 4;

/// The longest netstring that is read: length, colon, bytes, comma.
pub(super) const MAX_FRAME: usize = MAX_DIGITS + 1 + MAX_REQUEST + 1;

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("it is not a netstring")]
    NotANetstring,
    #[error("it is longer than {MAX_REQUEST} bytes")]
    TooLong,
    #[error("it is not of the form NAME KEY")]
    NoKey,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it was not completed in time")]
    TooSlow,
    #[error("the answer was not taken in time")]
    NotTaken,
    #[error("the connection was closed in its midst")]
    CutOff,
}

/// Where the bytes of the first netstring are; the one after it begins behind the comma. `None`: it is not complete yet.
pub(super) fn first(buffer: &[u8]) -> Result<Option<Range<usize>>, BadRequest> {
    let digits = buffer.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > MAX_DIGITS {
        return Err(BadRequest::TooLong);
    }
    match buffer.get(digits) {
        None => return Ok(None),
        Some(b':') if digits > 0 => {}
        Some(_) => return Err(BadRequest::NotANetstring),
    }
    if digits > 1 && buffer[0] == b'0' {
        return Err(BadRequest::NotANetstring);
    }
    let length = buffer[..digits].iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    if length > MAX_REQUEST {
        return Err(BadRequest::TooLong);
    }
    let bytes = digits + 1..digits + 1 + length;
    match buffer.get(bytes.end) {
        None => Ok(None),
        Some(b',') => Ok(Some(bytes)),
        Some(_) => Err(BadRequest::NotANetstring),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(buffer: &[u8]) -> Result<Option<&[u8]>, BadRequest> {
        Ok(first(buffer)?.map(|range| &buffer[range]))
    }

    #[test]
    fn whole_and_in_pieces() {
        let all = b"12:clients ::1x,3:abc,";
        for end in 0..all.len() {
            let expected = (end >= 16).then_some(&b"clients ::1x"[..]);
            assert_eq!(bytes(&all[..end]), Ok(expected), "{end} bytes");
        }
        assert_eq!(bytes(b"0:,"), Ok(Some(&b""[..])));
    }

    #[test]
    fn what_is_none() {
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
            let mut frame = format!("{}:", content.len()).into_bytes();
            frame.extend_from_slice(&content);
            frame.extend_from_slice(b",7:x");
            prop_assert!(frame.len() <= MAX_FRAME + 3);
            prop_assert_eq!(bytes(&frame), Ok(Some(&content[..])));
        }

        #[test]
        fn no_bytes_are_too_strange(garbage in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = bytes(&garbage);
        }
    }
}
