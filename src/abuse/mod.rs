//! Is an account abused? What the filters before us say of its mail, other signs that somebody took it over, and the
//! response. The letters are in [`notify`](crate::notify).
//!
//! Statistics, in bounded memory and lost with the daemon: nothing is counted against a limit here.
//!
//! ```text
//!   watch        all accounts that were active lately
//!     ├─ activity    what one account did within the window
//!     ├─ verdict     headers by which filters mark a message as spam or virus
//!     └─ sign        from figures to signs, by the thresholds of `[abuse]`
//!   response     suspends, or not
//! ```

mod activity;
mod response;
mod sign;
mod verdict;
mod watch;

pub use response::{Countermeasure, respond};
pub(crate) use sign::window_in_words;
pub use sign::{Sign, Signs, Traits, describe, signs};
pub use verdict::is_marked;
pub use watch::{AcceptedMessage, Suspect, Watch};
