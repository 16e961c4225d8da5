//! What an MTA makes of an address (milter macros `{mail_addr}` and `{rcpt_addr}`), against what the client typed.

use super::address::{Address, Sender};
use super::address_error::AddressError;
use super::domain::canonical_domain;

impl Address {
    /// Checks that the MTA sees the same domain. `reading` is the macro's value; empty where the MTA does not tell.
    ///
    /// These differences are legitimate and pass:
    /// - the client typed no domain, or the MTA names none (Sendmail, for its own domains);
    /// - the address is plain (no quotes, no source route, none of `@ % !` in the local part): there only the operator's
    ///   own tables can lead elsewhere (Sendmail's virtusertable and domaintable, Postfix's `append_dot_mydomain`), and
    ///   that is their purpose.
    ///
    /// # Errors
    /// [`AddressError::ReadDifferently`].
    pub fn check_reading(&self, reading: &str) -> Result<(), AddressError> {
        let read = canonical_domain(domain_of(reading));
        if self.is_plain() || self.domain().is_empty() || read.is_empty() || *read == *self.domain() {
            return Ok(());
        }
        Err(AddressError::ReadDifferently { typed: self.domain().into(), read: read.into() })
    }
}

impl Sender {
    /// As [`Address::check_reading`].
    ///
    /// # Errors
    /// [`AddressError::ReadDifferently`].
    pub fn check_reading(&self, reading: &str) -> Result<(), AddressError> {
        self.address().map_or(Ok(()), |address| address.check_reading(reading))
    }
}

/// What stands after the last `@` outside quotes. Sendmail keeps quotes, and Postfix adds them where they are needed.
fn domain_of(reading: &str) -> &str {
    let mut unquoted = reading;
    if let Some(inside) = reading.strip_prefix('"') {
        let mut is_escaped = false;
        let end = inside.bytes().position(|byte| {
            let ends = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        });
        unquoted = end.map_or("", |end| &inside[end + 1..]);
    }
    unquoted.rsplit_once('@').map_or("", |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, reading: &str) -> bool {
        Address::from_path(typed).unwrap().check_reading(reading).is_ok()
    }

    #[test]
    fn another_domain_is_refused_where_the_client_wrote_something_to_be_read() {
        for typed in ["v%dest.example@own.example", "dest.example!v@own.example", "\"v@dest.example\"@own.example"] {
            assert!(!check(typed, "v@dest.example"), "{typed}");
            assert!(check(typed, "v@OWN.example."), "{typed}");
            assert!(check(typed, ""), "{typed}");
        }
        assert!(!check("<@hop.example:v@own.example>", "v@dest.example"));
        let error = Address::from_path("v%dest.example@own.example").unwrap().check_reading("v@dest.example");
        assert_eq!(
            error.unwrap_err().to_string(),
            "this mail server would read it as an address in dest.example, not in own.example"
        );
    }

    #[test]
    fn what_the_operators_tables_do_is_their_own_business() {
        assert!(check("info@virtual.example", "boss@elsewhere.example"));
        assert!(check("ann@acme", "ann@acme.test.example"));
        assert!(check("postmaster", "postmaster@mx.test.example"));
        assert!(check("dest.example!v", "v@dest.example"), "no domain was typed");
        assert!(check("\"ann\"@own.example", "ann"), "Sendmail's local mailer");
        assert!(check("\"v@dest.example\"@own.example", "\"v@dest.example\""), "a local part in quotes");
        assert!(check("\"a b\"@bücher.example", "\"a b\"@xn--bcher-kva.example"));
        assert!(check("\"a\\\"@b\"@own.example", "\"a\\\"@b\"@own.example"));
    }

    #[test]
    fn the_empty_sender_is_read_as_itself() {
        assert_eq!(Sender::Empty.check_reading(""), Ok(()));
        assert_eq!(Sender::Empty.check_reading("mailer-daemon@mx.test.example"), Ok(()));
    }
}
