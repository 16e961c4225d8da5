//! What transactions report to whoever watches them: limits that are near or exceeded, and signs of abuse.

use crate::abuse::Suspect;
use crate::clock::Moment;
use crate::config::AbuseSettings;
use crate::directory::{Customer, Parties};
use crate::ledger::{LimitStanding, NearLimit};
use std::sync::Arc;

/// Hears of facts while a client waits for its reply: it must not block.
pub trait Observer: Send + Sync {
    /// A message was counted, and these limits are near their maximum.
    fn limits_near(&self, customer: &Arc<Customer>, parties: &Parties, near: &[NearLimit], at: Moment);

    /// These limits leave no room for a recipient or a message.
    fn limits_exceeded(&self, customer: &Arc<Customer>, parties: &Parties, exceeded: &[LimitStanding], at: Moment);

    /// A user or a customer has signs of abuse.
    fn signs_of_abuse(&self, customer: &Arc<Customer>, suspect: Suspect, settings: &AbuseSettings, at: Moment);
}
