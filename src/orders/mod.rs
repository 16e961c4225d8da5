//! What administrators ordered, as decisions read it: suspensions, and higher limits for a while. An immutable snapshot; how an order
//! is given, recorded and kept on disk is the business of [`administration`](crate::administration).

mod grant;
#[expect(clippy::module_inception, reason = "the file that holds the snapshot")]
mod orders;

pub use grant::{Grant, Grantees};
pub use orders::{Orders, Suspension};
