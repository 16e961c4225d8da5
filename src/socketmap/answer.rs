//! The answer to a look-up (socketmap_table(5), REPLY FORMAT).

use crate::config::Password;
use std::borrow::Cow;
use zeroize::Zeroizing;

/// What Postfix is told.
#[derive(Debug)]
pub enum Answer {
    Ok(Cow<'static, str>),
    /// `USER:PASSWORD`
    Login(String, Password),
    NotFound,
    /// It cannot be told now: Postfix defers the mail. The reason is for Postfix's log.
    Temporary(Cow<'static, str>),
    /// Such a question gets no answer here, now or ever: Postfix defers the mail, and the operator has to change it.
    Permanent(Cow<'static, str>),
}

impl Answer {
    /// Appends the answer as a netstring. There is room for all of it before a password is written, so that growing
    /// leaves no copy of one behind.
    pub fn write(&self, out: &mut Zeroizing<Vec<u8>>) {
        let parts: [&[u8]; 4] = match self {
            Answer::Ok(data) => [b"OK ", data.as_bytes(), b"", b""],
            Answer::Login(user, password) => [b"OK ", user.as_bytes(), b":", password.as_bytes()],
            Answer::NotFound => [b"NOTFOUND ", b"", b"", b""],
            Answer::Temporary(reason) => [b"TEMP ", reason.as_bytes(), b"", b""],
            Answer::Permanent(reason) => [b"PERM ", reason.as_bytes(), b"", b""],
        };
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let head = format!("{length}:");
        reserve(out, head.len() + length + 1);
        out.extend_from_slice(head.as_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out.push(b',');
    }
}

/// Grows by a copy that wipes what it leaves behind; `Vec::reserve` would not.
fn reserve(out: &mut Zeroizing<Vec<u8>>, more: usize) {
    if out.capacity() - out.len() < more {
        let mut larger = Zeroizing::new(Vec::with_capacity((out.len() + more).next_power_of_two()));
        larger.extend_from_slice(out);
        *out = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_netstrings() {
        let mut out = Zeroizing::new(Vec::new());
        Answer::Ok("[mx.acme.example]:25".into()).write(&mut out);
        Answer::NotFound.write(&mut out);
        Answer::Temporary("wait".into()).write(&mut out);
        Answer::Permanent("never".into()).write(&mut out);
        let expected = "23:OK [mx.acme.example]:25,9:NOTFOUND ,9:TEMP wait,10:PERM never,";
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }
}
