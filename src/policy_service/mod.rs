//! Postfix's policy delegation protocol (SMTPD_POLICY_README): requests of `name=value` lines, answered with one action.

mod action;
mod connections;
mod instances;
mod mtas_with_milter;
mod request;
mod service;
mod smtpds;

pub use request::{BadRequest, MAX_REQUEST, Request};
pub use service::PolicyService;
