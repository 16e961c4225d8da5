//! Addresses as a milter gets them: what the client typed, and what the MTA makes of it.

use super::macros::text;
use crate::envelope::{Address, AddressError, BadAddress, Read, Sender};

/// The sender of MAIL. `reading` is the MTA's own (`{mail_addr}`); empty where it tells none.
pub(super) fn sender(typed: &[u8], reading: &str) -> Read<Sender> {
    let read = || {
        let sender = Sender::from_path(utf8(typed)?)?;
        sender.check_reading(reading)?;
        Ok(sender)
    };
    read().map_err(|error| BadAddress::new(&text(typed), error))
}

/// The recipient of RCPT. `reading` is the MTA's own (`{rcpt_addr}`); empty where it tells none.
pub(super) fn recipient(typed: &[u8], reading: &str) -> Read<Address> {
    let read = || {
        let recipient = Address::from_path(utf8(typed)?)?;
        recipient.check_reading(reading)?;
        Ok(recipient)
    };
    read().map_err(|error| BadAddress::new(&text(typed), error))
}

fn utf8(typed: &[u8]) -> Result<&str, AddressError> {
    std::str::from_utf8(typed).map_err(|_| AddressError::NotUtf8)
}
