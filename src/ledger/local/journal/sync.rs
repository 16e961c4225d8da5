//! What the queue waits with.

pub(super) use parking_lot::{Condvar, Mutex};
pub(super) use tokio::sync::Notify;
