//! What a client is answered: the reason of a refusal, its codes, its words.

mod refusal;
pub(super) mod words;

pub use refusal::{LimitCause, LimitRefusal, LookedUp, NameSource, RangeGap, Refusal};
