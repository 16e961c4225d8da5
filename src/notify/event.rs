//! What may be worth a letter.

use crate::abuse::{Found, OnAbuse};
use crate::directory::{Customer, LimitName, Subject};
use std::sync::Arc;
use std::time::Duration;

/// Something of which people may have to be told. Whether they are is found out by a task of its own.
#[derive(Clone, Debug)]
pub enum Event {
    /// So much of a limit is taken that a level may be reached.
    LimitNear {
        customer: Arc<Customer>,
        subject: Subject,
        limit: LimitName,
        /// It refused mail.
        refuses: bool,
    },
    /// Signs of abuse.
    Abuse { customer: Arc<Customer>, found: Found, window: Duration, on_abuse: OnAbuse },
}
