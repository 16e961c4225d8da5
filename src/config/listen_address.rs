//! The spelling of addresses to listen at, complained about where it stands.

use super::report::Complaint;
use super::source::quoted;
use crate::listen::ListenAddress;

pub(super) fn listen_address(text: &str) -> Result<ListenAddress, Complaint> {
    text.parse::<ListenAddress>().map_err(|error| {
        Complaint::new(format!("{} {}", quoted(text), error.problem()), "not an address to listen at")
            .help(error.advice())
    })
}
