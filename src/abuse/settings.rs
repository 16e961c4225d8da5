//! What an operator wants to have watched.

use super::{Marks, Thresholds};
use std::time::Duration;

/// `[abuse]`
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Headers of filters that ran before us.
    pub marks: Marks,
    pub window: Duration,
    pub thresholds: Thresholds,
    pub on_abuse: OnAbuse,
}

/// What happens to a user with signs of abuse, besides that administrators are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAbuse {
    Notify,
    /// The user's mail is deferred until the signs are gone.
    Defer,
    /// The user is suspended until somebody resumes.
    Suspend,
}
