//! The ledger: what was sent, what is being sent, and whether one more fits.
//!
//! A transaction *reserves* each recipient at RCPT, against all limits in one step, all or nothing. When the message is
//! accepted the reservation is *committed*: on disk before the caller goes on. Otherwise it is *released*. A
//! reservation that stays open longer than the time-out is given back by itself, and its commit then decides anew.
//!
//! ```text
//!   ledger    what others call; waits for the disk (open: how it begins)
//!     ├─ book        what is counted and held, in memory: decides
//!     │    ├─ rolling       a count over a window of time
//!     │    └─ remembered    the different recipients of a day (in a table: seen)
//!     └─ store       what is on disk (sqlite); or decides itself, for several daemons (shared)
//! ```

mod api;
mod book;
#[expect(clippy::module_inception, reason = "the file that holds the ledger")]
mod ledger;
mod open;
mod remembered;
mod rolling;
mod seen;
mod store;

pub use api::{
    AcceptedRecipients, Foreseen, Gauges, LedgerAnswer, LedgerError, LedgerSize, LimitStanding, LimitUsage,
    MissingNode, NearLimit, Outage, Ranking, RecipientKey, ReservationId,
};
pub use ledger::{Health, Ledger, Readiness};
pub use open::OpenError;
