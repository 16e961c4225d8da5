//! Is an account abused? What the filters before us say of its mail, and other signs that somebody took it over.
//!
//! Statistics, in bounded memory and lost with the daemon: nothing is counted against a limit here.

mod activity;
mod marks;
mod rules;
mod sign;
mod watch;
mod words;

pub use activity::MAX_NETWORKS;
pub use marks::{BadMark, Mark, Marks};
pub use rules::{OnAbuse, Rules};
pub use sign::{Sign, Signs, Thresholds, Traits, signs};
pub use watch::{Found, Message, Watch};
pub use words::{AbuseFigures, Done, in_words};
