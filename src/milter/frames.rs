//! Milter packets on their way in, bounded in length.
//!
//! A packet is a length of four bytes (network order), then a command byte and its data (libmilter's `mfdef.h`).

use super::error::MilterError;
use crate::listen::Frame;

/// The longest packet, in bytes. Body chunks have 64 KiB; Postfix bounds a header by `header_size_limit` (100 KiB by
/// default), and one command can hold no more than that.
const MAX_PACKET: usize = 512 * 1024;

/// The bytes of the length.
const LENGTH: usize = 4;

/// The commands of protocol version 6 (and of all before).
const COMMANDS: &[u8] = b"ABCDEHKLMNOQRTU";

/// Finds the first packet; its content is the command byte and the data.
///
/// # Errors
/// Its length or its command is none of the protocol.
pub(super) fn frame(input: &[u8]) -> Result<Frame, MilterError> {
    let Some((length, rest)) = input.split_first_chunk::<LENGTH>() else {
        return Ok(Frame::Partial { missing: LENGTH + 1 - input.len() });
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > MAX_PACKET {
        return Err(MilterError::Length(length));
    }
    let Some(&command) = rest.first() else { return Ok(Frame::Partial { missing: length }) };
    if !COMMANDS.contains(&command) {
        return Err(MilterError::UnknownCommand(command));
    }
    match length.checked_sub(rest.len()) {
        None | Some(0) => Ok(Frame::Complete { content: LENGTH..LENGTH + length, length: LENGTH + length }),
        Some(missing) => Ok(Frame::Partial { missing }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(content: &[u8]) -> Vec<u8> {
        let mut packet = (content.len() as u32).to_be_bytes().to_vec();
        packet.extend_from_slice(content);
        packet
    }

    #[test]
    fn packets_come_out_as_they_went_in_however_they_are_cut() {
        let body = [b"B".as_slice(), &[b'x'; 65_535]].concat();
        let longest = [b"L".as_slice(), &[b'x'; MAX_PACKET - 1]].concat();
        for content in [&b"O\0\0\0\x06"[..], b"Hmx.acme.example\0", b"N", &body, &longest, b"Q"] {
            let mut input = packet(content);
            let length = input.len();
            for cut in (0..length.min(10)).chain(length - 3..length) {
                let Frame::Partial { missing } = frame(&input[..cut]).unwrap() else { panic!("complete at {cut}") };
                assert!((1..=length - cut).contains(&missing), "{missing} at {cut} of {length}");
            }
            input.extend_from_slice(b"\0\0\0\x01Q");
            assert_eq!(frame(&input), Ok(Frame::Complete { content: 4..length, length }));
        }
    }

    #[test]
    fn what_is_no_packet_is_found_at_its_first_bytes() {
        assert_eq!(frame(b"GET "), Err(MilterError::Length(0x4745_5420)));
        assert_eq!(frame(b"\0\0\0\0"), Err(MilterError::Length(0)));
        assert_eq!(frame(&packet(b"zz")[..5]), Err(MilterError::UnknownCommand(b'z')));
        assert_eq!(frame(&((MAX_PACKET + 1) as u32).to_be_bytes()), Err(MilterError::Length(MAX_PACKET + 1)));
    }
}
