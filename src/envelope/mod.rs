//! What a transaction is made of: domains, addresses, host names and replies, parsed once and in one form from then on.

mod address;
mod address_error;
mod client;
mod domain;
#[expect(clippy::module_inception, reason = "the file that holds the envelope")]
mod envelope;
mod helo;
mod login;
mod mta_reading;
mod path;
mod reply;
mod xtext;

pub use address::{Address, MAX_ADDRESS, Sender};
pub use address_error::{AddressError, BadAddress, Read};
pub use client::{canonical_ip, parse_client};
pub use domain::{Domain, DomainError, canonical_domain, claims_of, is_public_suffix};
pub use envelope::{Envelope, WrittenSender, XCLIENT, bounded};
pub use helo::identifying_helo;
pub use login::canonical_login;
pub use reply::{MAX_REPLY_LINE, Reply, ReplyClass};
pub use xtext::decode_xtext;
