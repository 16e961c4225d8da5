//! Customers, their domains, users and address ranges: one immutable snapshot, swapped as a whole on reload.

mod archive;
mod customer;
mod limits;
mod range_index;
mod ranges;
mod snapshot;
mod subject;

pub use archive::{ArchiveAddress, ArchiveAddressError};
pub(crate) use customer::OwnDomains;
pub use customer::{AllowedSenders, Billing, Customer, DuplicateAddress, FurtherSender, Setting, User, UserId, Users};
pub use limits::{Action, CustomerLimits, Limit, LimitName, Window};
pub(crate) use ranges::canonical_net;
pub use ranges::{AddressRanges, Range};
pub use snapshot::{Claim, Conflict, Directory, DirectoryBuilder, Further, Owner};
pub use subject::{Parties, Subject, SubjectKind};
