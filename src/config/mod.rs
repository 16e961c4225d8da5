//! The configuration: text → raw tables with positions → checked model. All errors are reported at once.
//!
//! [`load`] is for the start, [`reload`] for a running daemon, [`check`] for `relaykeeper check`.

mod abuse;
mod candidates;
mod conflicts;
mod customer_file;
mod customer_users;
mod diagnostic;
mod files;
mod gateway;
mod join;
mod limits;
mod listen_address;
mod load;
mod locate;
mod main_file;
mod model;
mod networks;
mod password_file;
mod reader;
mod report;
mod restart;
mod source;
mod unreadable;
mod users_file;
mod values;

pub use diagnostic::{Diagnostic, Look, MAX_SHOWN, Problems, Severity, how_many};
pub use load::{BadFile, Changes, Loaded, check, load, load_settings, reload};
pub use model::{
    ConnectionLimits, CountAt, LimitRule, LimitRules, Listen, Log, Mail, MailRoute, MaxRule, OnFailure, OnOutage,
    OnRewrite, PolicyOptions, Relay, SenderForm, Settings, Store, Sync,
};
pub use password_file::{MAX_PASSWORD, Password, PasswordFileError, read_password};
pub use source::{MAX_CUSTOMER_FILE, MAX_MAIN_FILE, MAX_USERS_FILE, Place};
