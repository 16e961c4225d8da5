//! What administrators ordered, as decisions read it: suspensions, and higher limits for a while. An immutable snapshot;
//! [`administration`](crate::administration) gives, records and stores the orders.

mod grant;
#[expect(clippy::module_inception, reason = "the file that holds the snapshot")]
mod orders;
mod suspension;

pub use grant::{Grant, Grantees};
pub use orders::Orders;
pub use suspension::{Suspension, Target, TargetKind};
