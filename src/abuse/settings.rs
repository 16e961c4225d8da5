//! `[abuse]` of the configuration.

use super::{Marks, Thresholds};
use std::time::Duration;

/// What is watched, and what happens to a user with signs of abuse.
#[derive(Clone, Debug, PartialEq)]
pub struct AbuseSettings {
    /// Headers of filters that ran before us.
    pub marks: Marks,
    /// Rolling; 10 minutes to a day.
    pub window: Duration,
    pub thresholds: Thresholds,
    pub on_abuse: OnAbuse,
}

/// What happens to a user with signs of abuse, apart from the letter to the customer's administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAbuse {
    Notify,
    /// The user's mail is deferred until the signs are gone.
    Defer,
    /// The user is suspended until an administrator resumes it.
    Suspend,
}
