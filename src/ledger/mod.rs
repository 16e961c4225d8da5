//! The ledger: what was sent, what is being sent, and whether one more fits.
//!
//! A transaction *reserves* each recipient at RCPT, against all limits in one step, all or nothing. When the message is
//! accepted the reservation is *committed*: on disk before the caller goes on. Otherwise it is *released*. A
//! reservation that stays open longer than the time-out is given back by itself, and its commit then decides anew.

mod api;
mod remembered;
mod rolling;

pub use api::{
    Answer, Kept, LedgerError, LimitUsage, Parties, RecipientKey, ReservationId, Standing, Subject, SubjectKind,
};
