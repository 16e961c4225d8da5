//! Why a milter connection cannot go on.

/// What is wrong with what the MTA says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MilterError {
    #[error("malformed request: invalid packet length {0}; is this a milter client?")]
    Length(usize),
    #[error("malformed request: unknown command {0:#04x}; is this a milter client?")]
    UnknownCommand(u8),
    /// The data of this command are not what the protocol says.
    #[error("malformed request: invalid data of command {}; is this a milter client?", char::from(*.0))]
    InvalidData(u8),
    #[error("malformed request: a command before the option negotiation; is this a milter client?")]
    NotNegotiated,
    #[error("the MTA speaks version {0} of the milter protocol; 2 is the oldest supported")]
    TooOld(u32),
}
