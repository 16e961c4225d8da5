//! relaykeeper decides, for any Postfix or Sendmail, which mail is relayed, for whom, and how much of it.
//!
//! ```text
//!   Postfix, Sendmail                          Postfix
//!        │ milter                                 │ policy delegation
//!        ▼                                        ▼
//!     milter/ ───────────► session/ ◄─────── policy_service/
//!                       a transaction's life
//!                             │
//!             ┌───────────────┼──────────────────┐
//!             ▼               ▼                  ▼
//!          policy/         ledger/            report/
//!     facts → verdict   windows, unique    log lines, references
//!     (a pure function)  recipients,
//!             │          reservations
//!             ▼               │
//!        directory/           ▼
//!     customers, domains,  ledger/local/, shared/
//!     users, ranges        this machine, or Redis
//!             ▲
//!          config/          envelope/: addresses, domains, replies: what all the rest speaks in
//!     text → checked model  orders/: suspensions, grants;  administration/: gives them;  audit/: who changed what, when, why
//!                           abuse/: signs of it;  notify/, mail/: who is told, and how
//!                           files/: our own files, and those of others;  listen/: sockets;  clock: the one source of time;  cli/: one file a command
//!                           socketmap/: who may relay, and through which gateway mail leaves, for Postfix's tables
//! ```
//!
//! The way of a recipient: [`milter`] or [`policy_service`] turn what the MTA says into calls on a
//! [`session::Transaction`]; it asks [`policy`] who the customer is and what the rules say, has the
//! [`ledger`] reserve against all limits in one step, and hands the verdict back, whose reply and log
//! line both come from the one [`policy::Verdict`].

#![warn(clippy::print_stdout, clippy::print_stderr, reason = "cli/print.rs is the one place that prints")]
// Input must not be able to end the daemon, and memory safety needs no thought here.
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::panic, clippy::unwrap_used))]
#![warn(unsafe_code)]

pub mod abuse;
pub mod administration;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
pub mod control;
pub mod daemon;
pub mod directory;
pub mod doctor;
pub mod envelope;
pub mod export;
pub mod files;
pub mod ledger;
pub mod listen;
pub mod mail;
pub mod milter;
pub mod notify;
pub mod orders;
pub mod policy;
pub mod policy_service;
pub mod report;
pub mod session;
pub mod size;
pub mod socketmap;
