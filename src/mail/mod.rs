//! How relaykeeper sends its own mail: written here, handed to the local MTA by a task of its own, which nobody waits for.
//!
//! Its own mail has the empty envelope sender, so that nothing is ever answered to it, and comes back to relaykeeper when
//! the MTA asks about it. Then it is passed and not counted, whatever `exempt_clients` says: see [`Outbox::sends_now`].

mod hand_over;
mod letter;
mod outbox;
mod postman;

pub use letter::Letter;
pub use outbox::Outbox;
pub use postman::Postman;
