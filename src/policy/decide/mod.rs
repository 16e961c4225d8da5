//! The order of the rules, for MAIL and for each recipient.

mod mail;
mod recipient;

pub use mail::{Admission, Admitted, admit, is_exempt_client};
pub use recipient::{Gate, RecipientFacts, conclude, is_exempt_recipient};
