//! Real Postfix and Sendmail in front of the real daemon, with real TLS, AUTH and envelopes that leave.
//!
//! Needs root and the bed: `tests/run.sh` installs and runs all of it. A missing MTA is a failed test, never a skipped one.

mod bed;
mod harness;
mod sink;
mod smtp;
mod standin;
