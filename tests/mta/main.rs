//! Real Postfix and Sendmail in front of the real daemon, with real TLS, AUTH and envelopes that leave.
//!
//! Needs root and the bed: `tests/run.sh` installs and runs all of it. A missing MTA is a failed test, never a skipped one.

// The means
mod bed;
mod customers;
mod daemon;
#[path = "../common/message.rs"]
mod message;
#[path = "../common/redis.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod redis;
mod relay;
mod sink;
mod smtp;
mod standin;

// The scenarios
mod addresses;
mod admission;
mod archive;
mod audit;
mod clients;
mod connections;
mod doctor;
mod gateways;
mod given_back;
mod grants;
mod harness;
mod lifecycle;
mod local_mail;
mod login_without_tls;
mod notices;
mod one_message;
mod quotas;
mod recipients;
mod references;
mod refusals;
mod second_opinions;
mod sizes;
mod store_files;
mod store_outages;
mod suspension;
