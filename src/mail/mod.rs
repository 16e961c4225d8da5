//! How relaykeeper sends its own mail: a background task hands letters to the local MTA, and nothing waits for it.
//!
//! Own mail has the empty envelope sender, so that nothing ever replies to it. The MTA asks relaykeeper about it as about
//! any other mail; it is then passed and not counted, whatever `exempt_clients` says: see [`OwnMail::is_on_its_way_to`].

mod hand_over;
mod letter;
mod outbox;
mod own_mail;
mod postman;

pub use letter::Letter;
pub use outbox::Outbox;
pub use own_mail::OwnMail;
pub use postman::Postman;
