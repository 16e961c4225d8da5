//! The few macros that say something the commands do not.

use super::command::string;
use crate::envelope::{MAX_ADDRESS, XCLIENT, bounded, decode_xtext};
use indymilter::MacroStage;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// The macros as they stand; empty is unknown. Postfix and Sendmail send each of them at other steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Macros {
    /// `i`. Sendmail sends it at MAIL only, Postfix after the first accepted recipient.
    pub queue_id: Box<str>,
    /// `{tls_version}`, at the HELO after STARTTLS.
    pub tls: Box<str>,
    /// `{daemon_addr}`, at CONNECT.
    pub server: Box<str>,
    /// `{daemon_port}`, at CONNECT.
    pub server_port: Box<str>,
    /// `{mail_addr}`: what the MTA makes of the sender, until MAIL is handled.
    pub sender_reading: Box<str>,
    /// `{rcpt_addr}`: what the MTA makes of the recipient, until RCPT is handled.
    pub recipient_reading: Box<str>,
    /// `{auth_authen}`, at MAIL, as it came.
    login: Box<str>,
    /// `{auth_type}`, at MAIL, is XCLIENT: a proxy handed the login over.
    has_proxied_login: bool,
    /// `v`, at CONNECT: `Postfix 3.7.11`, `8.17.1.9`.
    version: Box<str>,
    has_queue_id_at_mail: bool,
}

/// What is asked for at each stage.
const WANTED: [(MacroStage, &CStr); 5] = [
    (MacroStage::Connect, c"v {daemon_addr} {daemon_port}"),
    (MacroStage::Helo, c"{tls_version}"),
    (MacroStage::Mail, c"i {auth_authen} {auth_type} {tls_version} {mail_addr}"),
    (MacroStage::Rcpt, c"i {rcpt_addr}"),
    (MacroStage::Eom, c"i"),
];

pub(super) fn wanted() -> HashMap<MacroStage, CString> {
    WANTED.into_iter().map(|(stage, macros)| (stage, macros.to_owned())).collect()
}

impl Macros {
    /// Learns from a packet of macros that came for a command.
    pub fn learn(&mut self, command: u8, mut definitions: &[u8]) {
        if command == b'M' {
            // Those of the message before: no login, unless it comes again.
            self.login = Box::default();
            self.has_proxied_login = false;
            self.queue_id = Box::default();
        }
        while let Some((name, rest)) = string(definitions)
            && let Some((value, rest)) = string(rest)
        {
            definitions = rest;
            let place = match name {
                b"i" => &mut self.queue_id,
                b"v" if command == b'C' => &mut self.version,
                b"{auth_authen}" if command == b'M' => &mut self.login,
                b"{tls_version}" => &mut self.tls,
                b"{daemon_addr}" => &mut self.server,
                b"{daemon_port}" => &mut self.server_port,
                b"{auth_type}" if command == b'M' => {
                    self.has_proxied_login = value == XCLIENT.as_bytes();
                    continue;
                }
                b"{mail_addr}" if command == b'M' => {
                    self.sender_reading = reading(value);
                    continue;
                }
                b"{rcpt_addr}" if command == b'R' => {
                    self.recipient_reading = reading(value);
                    continue;
                }
                _ => continue,
            };
            // TLS does not end before the session does, and what is no UTF-8 is still a value: a login, above all.
            if !value.is_empty() && place.as_bytes() != value {
                *place = bounded(&text(value));
            }
        }
        if command == b'M' {
            self.has_queue_id_at_mail = !self.queue_id.is_empty();
        }
    }

    pub fn queue_id(&self) -> Option<&str> {
        Some(&*self.queue_id).filter(|id| !id.is_empty())
    }

    /// The login that SMTP AUTH confirmed; empty without. Postfix sends it as it is, Sendmail as xtext (`car+2Bol` for
    /// `car+ol`; srvrsmtp.c, `xtextify`).
    pub fn login(&self) -> Box<str> {
        match decode_xtext(self.login.as_bytes()).filter(|_| self.is_sendmail()) {
            Some(decoded) => bounded(&text(&decoded)),
            None => self.login.clone(),
        }
    }

    /// The SASL method, where it matters.
    pub fn sasl_method(&self) -> &'static str {
        if self.has_proxied_login { XCLIENT } else { "" }
    }

    /// Sendmail's `v` is a bare version number. Before 8.14 a milter cannot ask for it; but only Sendmail has a queue ID at
    /// MAIL (Postfix has none before the first recipient).
    fn is_sendmail(&self) -> bool {
        match self.version.bytes().next() {
            Some(first) => first.is_ascii_digit(),
            None => self.has_queue_id_at_mail,
        }
    }

    /// What an MTA made of one address says nothing about the next.
    pub fn forget_readings(&mut self) {
        self.sender_reading = Box::default();
        self.recipient_reading = Box::default();
    }
}

/// An address in the MTA's words. Longer than any that is accepted, it is not compared.
fn reading(value: &[u8]) -> Box<str> {
    if value.len() > MAX_ADDRESS { Box::default() } else { text(value).into() }
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
        assert_eq!((&*macros.login(), macros.queue_id(), &*macros.tls), ("ann", Some("3F2A"), "TLSv1.3"));
        macros.learn(b'H', b"");
        macros.learn(b'M', b"");
        assert_eq!((&*macros.login(), macros.queue_id(), &*macros.tls), ("", None, "TLSv1.3"));
        macros.learn(b'R', b"i\x004A\0{auth_authen}\0somebody\0");
        assert_eq!((&*macros.login(), macros.queue_id()), ("", Some("4A")));
    }

    #[test]
    fn what_is_broken_off_is_left_out() {
        let mut macros = Macros::default();
        macros.learn(b'M', b"i\x003F2A\0{auth_authen}\0an");
        assert_eq!((&*macros.login(), macros.queue_id()), ("", Some("3F2A")));
        macros.learn(b'M', b"{auth_authen}\0\xff\0i");
        assert_eq!(&*macros.login(), "\u{fffd}");
    }

    #[test]
    fn a_login_is_xtext_where_the_mta_is_sendmail() {
        let login = |version: &[u8], queue_id: &[u8]| {
            let mut macros = Macros::default();
            macros.learn(b'C', &[b"v\0", version, b"\0"].concat());
            macros.learn(b'M', &[b"{auth_authen}\0car+2Bol\0", queue_id].concat());
            macros.login()
        };
        assert_eq!(&*login(b"8.17.1.9", b""), "car+ol");
        assert_eq!(&*login(b"Postfix 3.7.11", b""), "car+2Bol");
        assert_eq!(&*login(b"", b""), "car+2Bol");
        assert_eq!(&*login(b"", b"i\x006AS2HOMD015815\0"), "car+ol", "an old Sendmail");
        assert_eq!(&*login(b"Postfix", b"i\x003F2A\0"), "car+2Bol");
        let mut macros = Macros::default();
        macros.learn(b'C', b"v\08.17.1.9\0");
        for (raw, login) in [("car+ol", "car+ol"), ("j+C3+BCrgen", "jürgen"), ("+FF", "\u{fffd}"), ("kim+", "kim+")] {
            macros.learn(b'M', format!("{{auth_authen}}\0{raw}\0").as_bytes());
            assert_eq!(&*macros.login(), login, "{raw}");
        }
    }

    #[test]
    fn a_reading_is_of_one_address() {
        let mut macros = Macros::default();
        macros.learn(b'M', b"{mail_addr}\0ann@acme.example\0");
        macros.learn(b'R', b"{rcpt_addr}\0v@dest.example\0{mail_addr}\0x@y\0");
        assert_eq!((&*macros.sender_reading, &*macros.recipient_reading), ("ann@acme.example", "v@dest.example"));
        macros.learn(b'R', b"{rcpt_addr}\0\0");
        assert_eq!(&*macros.recipient_reading, "");
        macros.forget_readings();
        assert_eq!(&*macros.sender_reading, "");
        macros.learn(b'R', &[b"{rcpt_addr}\0", &[b'v'; MAX_ADDRESS + 1][..], b"\0"].concat());
        assert_eq!(&*macros.recipient_reading, "");
    }
}
