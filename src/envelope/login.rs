//! The login that SMTP AUTH confirmed, in the one form in which it compares.

use super::Address;

/// In lower case; with an `@` as an address, so that every spelling of its domain is the same.
pub fn canonical_login(login: &str) -> String {
    match Address::from_internal(login) {
        Ok(address) if login.contains('@') => address.as_str().to_owned(),
        _ => login.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_login_is_one_login() {
        assert_eq!(canonical_login("KIM"), "kim");
        assert_eq!(canonical_login("Kim@ACME.example."), "kim@acme.example");
        assert_eq!(canonical_login("kim@BÜCHER.example"), "kim@xn--bcher-kva.example");
        assert_eq!(canonical_login("DOMAIN\\Kim"), "domain\\kim");
    }
}
