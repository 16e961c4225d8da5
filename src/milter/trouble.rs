//! Why a milter connection is dropped.

use std::fmt;

/// What is wrong with a connection; the MTA's own end of it is no trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Length,
    UnknownCommand,
    /// The data of this command are not what the protocol says.
    Senseless(u8),
    NotNegotiated,
    TooOld(u32),
    CutOff,
    TooSlow,
    NotTaken,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Length => f.write_str("a frame of impossible length; is this a milter client?"),
            Trouble::UnknownCommand => f.write_str("an unknown command; is this a milter client?"),
            Trouble::Senseless(command) => {
                let command = char::from(*command);
                write!(f, "a command ({command}) that makes no sense; is this a milter client?")
            }
            Trouble::NotNegotiated => f.write_str("commands before the negotiation; is this a milter client?"),
            Trouble::TooOld(version) => write!(f, "it speaks version {version} of the protocol; 2 is the oldest known"),
            Trouble::CutOff => f.write_str("the connection was closed in the midst of a frame"),
            Trouble::TooSlow => f.write_str("a frame was not completed in time"),
            Trouble::NotTaken => f.write_str("an answer was not taken in time"),
        }
    }
}
