//! Why a text is no address that can be judged.

use std::fmt;

/// Why an address is refused. The words follow `Bad sender address syntax: ` in a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address is longer than 1024 bytes")]
    TooLong,
    #[error("the address holds control characters")]
    ControlCharacter,
    #[error("the address is not valid UTF-8")]
    NotUtf8,
    #[error("the address is empty")]
    Empty,
    #[error("an angle bracket is missing; write <user@domain.example>")]
    LoneBracket,
    #[error("the source route before the address is malformed; leave it out")]
    BadRoute,
    #[error("nothing stands before the @")]
    NoLocalPart,
    #[error("nothing stands after the @")]
    NoDomain,
    /// Outside quotes.
    #[error("{} cannot stand in an address without quotes", Shown(*.0))]
    Unquoted(char),
    #[error("there is more than one @")]
    SecondAt,
    #[error("a quotation mark is not closed")]
    OpenQuote,
    #[error("the quotes must enclose all that stands before the @")]
    PartlyQuoted,
    #[error("what stands after the @ is not a domain name")]
    BadDomain,
    /// The MTA would deliver to, or send as, another domain than the client typed.
    #[error("this mail server would read it as an address in {read}, not in {typed}")]
    ReadDifferently { typed: Box<str>, read: Box<str> },
}

/// A character in words.
struct Shown(char);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ' ' => f.write_str("a blank"),
            c => write!(f, "\"{c}\""),
        }
    }
}

/// An address that could not be read, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress {
    written: Box<str>,
    error: AddressError,
}

/// How much of an unreadable address is kept, in characters.
const MAX_WRITTEN: usize = 256;

/// What reading an address comes to.
pub type Read<T> = Result<T, BadAddress>;

impl BadAddress {
    pub fn new(written: &str, error: AddressError) -> BadAddress {
        BadAddress { written: written.chars().take(MAX_WRITTEN).collect(), error }
    }

    /// As it was written, cut after 256 characters.
    pub fn written(&self) -> &str {
        &self.written
    }

    pub fn error(&self) -> &AddressError {
        &self.error
    }
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
