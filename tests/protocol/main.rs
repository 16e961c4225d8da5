//! Both protocols in process, against a fake MTA and a fake smtpd: what an MTA may say, in which order, and what it may
//! not.

mod abuse;
mod administration;
mod archive;
mod both_protocols;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod explain_agrees;
mod limit_warnings;
mod milter_addresses;
mod milter_connections;
mod milter_negotiation;
mod milter_sessions;
mod mta_traffic;
mod policy_connections;
mod policy_counting;
mod random;
mod shared_store;
mod shares;
mod sizes;
mod socketmap;
mod socketmap_connections;
mod stop;
mod store_failure;

use common::installation::Installation;

/// The customer of most tests: registered users and strangers from 192.0.2.0/24, ten recipients a day.
const ACME: &str = r#"
    name = "acme"
    domains = ["acme.example"]
    licenses = 100
    limits.customer.recipients_per_day = 10
    [[user]]
    address = "ann@acme.example"
    [[setting]]
    name = "office"
    allowed_senders = "any"
    ip = [{ range = "192.0.2.0/24" }]
"#;

/// The main file, with `more` lines in it.
fn main_file(more: &str) -> String {
    format!("listen.policy = [\"inet:127.0.0.1:1\"]\nrelay.hostname = \"relay.example.net\"\n{more}\n")
}

fn installation(more: &str) -> Installation {
    Installation::of(&main_file(more), [("acme.toml", ACME)])
}
