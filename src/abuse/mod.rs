//! Is an account abused? What the filters before us say of its mail, other signs that somebody took it over, and the
//! response. The letters are in [`notify`](crate::notify).
//!
//! Statistics, in bounded memory and lost with the daemon: nothing is counted against a limit here.
//!
//! ```text
//!   watch        all accounts that were active lately
//!     ├─ activity    what one account did within the window
//!     ├─ marks       headers by which filters mark a message as spam or virus
//!     └─ sign        from figures to signs, by the thresholds of settings
//!   response     suspends, or not
//! ```

mod activity;
mod marks;
mod response;
mod settings;
mod sign;
mod watch;

pub use activity::MAX_NETWORKS;
pub use marks::{BadMark, Mark, Marks};
pub use response::{Countermeasure, respond};
pub use settings::{AbuseSettings, OnAbuse};
pub(crate) use sign::window_in_words;
pub use sign::{Sign, Signs, Thresholds, Traits, describe, signs};
pub use watch::{AcceptedMessage, Suspect, Watch};
