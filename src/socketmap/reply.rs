//! The reply to a look-up (socketmap_table(5), REPLY FORMAT).

use crate::config::Password;
use std::borrow::Cow;
use zeroize::Zeroize;

/// What Postfix learns.
#[derive(Debug)]
pub enum LookupReply {
    Ok(Cow<'static, str>),
    /// `USER:PASSWORD`
    Login(String, Password),
    NotFound,
    /// Postfix defers the mail, and logs the reason.
    Temporary(Cow<'static, str>),
    /// There is no such map here, now or ever: Postfix defers the mail, logs the reason, and the operator must change
    /// main.cf.
    Permanent(Cow<'static, str>),
}

impl LookupReply {
    /// Appends the reply as a netstring. There is room for all of it before a password is written, so that growing
    /// leaves no copy of one behind.
    pub fn write(&self, output: &mut Vec<u8>) {
        let parts: [&[u8]; 4] = match self {
            LookupReply::Ok(data) => [b"OK ", data.as_bytes(), b"", b""],
            LookupReply::Login(user, password) => [b"OK ", user.as_bytes(), b":", password.as_bytes()],
            LookupReply::NotFound => [b"NOTFOUND ", b"", b"", b""],
            LookupReply::Temporary(reason) => [b"TEMP ", reason.as_bytes(), b"", b""],
            LookupReply::Permanent(reason) => [b"PERM ", reason.as_bytes(), b"", b""],
        };
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let head = format!("{length}:");
        reserve(output, head.len() + length + 1);
        output.extend_from_slice(head.as_bytes());
        parts.iter().for_each(|part| output.extend_from_slice(part));
        output.push(b',');
    }
}

/// Grows by a copy and wipes what it leaves behind; `Vec::reserve` would not.
fn reserve(output: &mut Vec<u8>, more: usize) {
    if output.capacity() - output.len() < more {
        let mut larger = Vec::with_capacity((output.len() + more).next_power_of_two());
        larger.extend_from_slice(output);
        std::mem::replace(output, larger).zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_netstrings() {
        let mut output = Vec::new();
        LookupReply::Ok("[mx.acme.example]:25".into()).write(&mut output);
        LookupReply::NotFound.write(&mut output);
        LookupReply::Temporary("wait".into()).write(&mut output);
        LookupReply::Permanent("never".into()).write(&mut output);
        let expected = "23:OK [mx.acme.example]:25,9:NOTFOUND ,9:TEMP wait,10:PERM never,";
        assert_eq!(std::str::from_utf8(&output).unwrap(), expected);
    }
}
