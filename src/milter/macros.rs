//! The few macros that tell something the commands do not.

use super::command::string;
use crate::envelope::bounded;
use indymilter::MacroStage;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// What macros have told; empty is unknown. Postfix and Sendmail tell each of them at other steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Macros {
    /// `i`. Sendmail tells it at MAIL only, Postfix after the first accepted recipient.
    pub queue_id: Box<str>,
    /// `{auth_authen}`, at MAIL.
    pub login: Box<str>,
    /// `{tls_version}`, at the HELO after STARTTLS.
    pub tls: Box<str>,
    /// `{daemon_addr}`, at CONNECT.
    pub server: Box<str>,
}

/// What is asked for at each stage.
const WANTED: [(MacroStage, &CStr); 5] = [
    (MacroStage::Connect, c"{daemon_addr}"),
    (MacroStage::Helo, c"{tls_version}"),
    (MacroStage::Mail, c"i {auth_authen} {tls_version}"),
    (MacroStage::Rcpt, c"i"),
    (MacroStage::Eom, c"i"),
];

pub(super) fn wanted() -> HashMap<MacroStage, CString> {
    WANTED.into_iter().map(|(stage, macros)| (stage, macros.to_owned())).collect()
}

impl Macros {
    /// Learns from a packet of macros that came for a command.
    pub fn learn(&mut self, command: u8, mut definitions: &[u8]) {
        if command == b'M' {
            // Those of the message before: no login, unless it is told again.
            self.login = Box::default();
            self.queue_id = Box::default();
        }
        while let Some((name, rest)) = string(definitions)
            && let Some((value, rest)) = string(rest)
        {
            definitions = rest;
            let place = match name {
                b"i" => &mut self.queue_id,
                b"{auth_authen}" if command == b'M' => &mut self.login,
                b"{tls_version}" => &mut self.tls,
                b"{daemon_addr}" => &mut self.server,
                _ => continue,
            };
            // TLS does not end before the session does, and what is no UTF-8 is still a value: a login, above all.
            if !value.is_empty() && place.as_bytes() != value {
                *place = bounded(&text(value));
            }
        }
    }

    pub fn queue_id(&self) -> Option<&str> {
        Some(&*self.queue_id).filter(|id| !id.is_empty())
    }
}

/// What an MTA hands on from a client, which need not be UTF-8.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_of_one_message_and_tls_of_the_session() {
        let mut macros = Macros::default();
        macros.learn(b'H', b"{tls_version}\0TLSv1.3\0{cipher}\0X\0");
        macros.learn(b'M', b"i\x003F2A\0{auth_authen}\0ann\0");
        assert_eq!((&*macros.login, macros.queue_id(), &*macros.tls), ("ann", Some("3F2A"), "TLSv1.3"));
        macros.learn(b'H', b"");
        macros.learn(b'M', b"");
        assert_eq!((&*macros.login, macros.queue_id(), &*macros.tls), ("", None, "TLSv1.3"));
        macros.learn(b'R', b"i\x004A\0{auth_authen}\0somebody\0");
        assert_eq!((&*macros.login, macros.queue_id()), ("", Some("4A")));
    }

    #[test]
    fn what_is_broken_off_is_left_out() {
        let mut macros = Macros::default();
        macros.learn(b'M', b"i\x003F2A\0{auth_authen}\0an");
        assert_eq!((&*macros.login, macros.queue_id()), ("", Some("3F2A")));
        macros.learn(b'M', b"{auth_authen}\0\xff\0i");
        assert_eq!(&*macros.login, "\u{fffd}");
    }
}
