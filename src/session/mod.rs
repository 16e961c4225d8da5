//! A transaction's life, the same for both protocols: begun with MAIL, asked about at each RCPT, ended by acceptance or released.
//! What is decided, and in which order, is the business of [`policy`](crate::policy); here its questions go to the ledger.

mod ask;
mod connection;
mod correlation;
mod counted_messages;
mod engine;
mod event_feed;
mod live;
mod log;
mod mta_traffic;
mod observer;
mod open_count;
mod recorded;
mod rehearsal;
mod replay;
mod tally;
mod transaction;

pub use connection::Connection;
pub use correlation::{MilterView, OpenSession, OpenSessions, Server, SmtpSession};
pub use counted_messages::{CountedMessages, MessageName, Reporter};
pub use engine::{Engine, Snapshot};
pub use event_feed::{EventFeed, EventFilter, SmtpEvent, SmtpMoment, TooManyWatches};
pub use live::Live;
pub use mta_traffic::{MAX_DISTINCT, MtaName, MtaNumbers, MtaSign, MtaTraffic, TrafficOfMta};
pub use observer::Observer;
pub use open_count::{OpenCount, UnderWay};
pub use recorded::{DecisionToRecord, RecordedDecision, RecordedStep};
pub use rehearsal::{OfflineFacts, Rehearsal, RehearsedStage, Surroundings, Via};
pub use tally::Tally;
pub use transaction::{Decision, EndReport, Transaction};
