//! The configuration: text → tables with positions → checked settings and customers. All errors are reported at once.
//!
//! [`load`] is for the start, [`reload`] for a running daemon, [`check`] for `relaykeeper check`.
//!
//! - `defaults`: every default
//! - `main_file`: the sections of `relaykeeper.toml`, one file each
//! - `customer_file`: a file in `customers.d`, and the files that it names
//! - `limits`: `[limits]`, of the installation and of a customer
//! - `load`: reading all files; reloading; conflicts between customers
//! - `reading`: TOML and messages about it
//! - `values`: what a string may hold: durations, addresses, networks, gateways
//!
//! A new key of a section touches that section's file (the list of keys, the struct, the reader) and `defaults`; besides,
//! if it takes a restart, `load/restart.rs`; then relaykeeper.toml(5) and `contrib/relaykeeper.toml`. A new limit touches
//! `limits/keys.rs` and `defaults`, and, if the ledger counts it, `LimitName` in `directory/limits.rs` and
//! `LimitRules::for_customer`.

mod customer_file;
mod defaults;
mod limits;
mod load;
mod main_file;
mod reading;
mod values;

pub use customer_file::{MAX_PASSWORD, Password, PasswordFileError, read_password};
pub use limits::{ConnectionLimits, LimitKey, LimitRule, LimitRules, MaxRule};
pub use load::{
    BadFile, Changes, Configuration, InUse, LastGoodCopies, LoadedFiles, MainFileHints, NoCustomers, Unsaved, check,
    key_location, load, load_settings, load_with_copies, main_file_hints, reload,
};
pub use main_file::{
    AbuseSettings, CountAt, Listen, LocalSubmission, Log, MAX_NETWORKS, Mail, MailRoute, NotAVerdict, OnAbuse,
    OnFailure, OnOutage, OnRewrite, PolicyOptions, Relay, SenderForm, Settings, Store, Sync, Thresholds, VerdictHeader,
    VerdictHeaders,
};
pub use reading::{
    Diagnostic, Location, MAX_CUSTOMER_FILE, MAX_MAIN_FILE, MAX_SHOWN, MAX_USERS_FILE, Problems, Severity, Style,
    how_many,
};
