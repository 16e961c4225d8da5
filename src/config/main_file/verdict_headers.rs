//! Which headers say that a message is spam or a virus: those of well-known filters, and an operator's own.
//!
//! How they are matched is in `abuse/verdict.rs`.

/// A header by which a filter that ran before us says that a message is spam or a virus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictHeader {
    /// In lower case.
    pub(crate) name: Box<str>,
    /// In lower case; `*` is any text.
    pub(crate) pattern: Box<str>,
}

/// All that are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictHeaders {
    headers: Vec<VerdictHeader>,
    /// The name that nobody outside may learn.
    secret: Option<Box<str>>,
}

/// Why a text is neither a known filter nor `NAME: PATTERN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAVerdict {
    UnknownFilter,
    BadName,
    BadPattern,
}

/// What well-known filters write, as `NAME: PATTERN`.
///
/// rspamd: proxy and `milter_headers` module (`X-Spamd-Result` says True for the action "reject" only). SpamAssassin:
/// Mail::SpamAssassin::Conf. ClamAV: clamav-milter.conf(5), `AddHeader`.
const PRESETS: [(&str, &[&str]); 3] = [
    (
        "rspamd",
        &[
            "X-Spam: Yes*",
            "X-Spam-Status: Yes*",
            "X-Spamd-Result: *: True [*",
            "X-Rspamd-Action: add header*",
            "X-Rspamd-Action: rewrite subject*",
            "X-Rspamd-Action: reject*",
        ],
    ),
    ("spamassassin", &["X-Spam-Flag: Yes*", "X-Spam-Status: Yes*"]),
    ("clamav", &["X-Virus-Status: Infected*"]),
];

impl VerdictHeader {
    /// # Errors
    /// The name is no header's name, or the pattern is empty or longer than 200 bytes.
    pub fn new(name: &str, pattern: &str) -> Result<VerdictHeader, NotAVerdict> {
        let (name, pattern) = (name.trim(), pattern.trim());
        // RFC 5322, 2.2: printable ASCII without the colon.
        if name.is_empty() || name.len() > 200 || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return Err(NotAVerdict::BadName);
        }
        if pattern.is_empty() || pattern.len() > 200 {
            return Err(NotAVerdict::BadPattern);
        }
        Ok(VerdictHeader { name: name.to_ascii_lowercase().into(), pattern: pattern.to_ascii_lowercase().into() })
    }
}

impl VerdictHeaders {
    /// The filters whose headers are known.
    pub const FILTERS: [&str; 3] = [PRESETS[0].0, PRESETS[1].0, PRESETS[2].0];

    /// `secret`: the name of the headers among them that nobody outside may learn.
    pub fn new(headers: Vec<VerdictHeader>, secret: Option<&str>) -> VerdictHeaders {
        VerdictHeaders { headers, secret: secret.map(Into::into) }
    }

    /// The name of the header that has to be removed, so that nobody outside learns it.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// The headers of a filter by its name, or one as `NAME: PATTERN`.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Vec<VerdictHeader>, NotAVerdict> {
        if let Some((_, headers)) = PRESETS.iter().find(|(filter, _)| *filter == text) {
            let parts = headers.iter().filter_map(|header| header.split_once(':'));
            return parts.map(|(name, pattern)| VerdictHeader::new(name, pattern)).collect();
        }
        let (name, pattern) = text.split_once(':').ok_or(NotAVerdict::UnknownFilter)?;
        Ok(vec![VerdictHeader::new(name, pattern)?])
    }

    /// Whether no header is looked for.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &VerdictHeader> {
        self.headers.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_verdict() {
        for (text, error) in [
            ("rspamdd", NotAVerdict::UnknownFilter),
            (": Yes", NotAVerdict::BadName),
            ("X Spam: Yes", NotAVerdict::BadName),
            ("X-Spam:", NotAVerdict::BadPattern),
        ] {
            assert_eq!(VerdictHeaders::parse(text), Err(error), "{text}");
        }
    }
}
