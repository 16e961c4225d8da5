//! Customers, their domains, users and address ranges: one immutable snapshot, swapped as a whole on reload.

mod customer;
mod limits;
mod ranges;
mod snapshot;

pub use customer::{AllowedSenders, Billing, Customer, FurtherSender, Setting, User, UserId, Users};
pub use limits::{Action, CustomerLimits, Limit, LimitName, Window};
pub use ranges::{AddressRanges, Range};
pub use snapshot::{Claim, Conflict, Directory, DirectoryBuilder, Owner};
