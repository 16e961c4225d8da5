//! Headers by which filters that ran before us say that a message is spam or a virus.

/// One such header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// In lower case.
    name: Box<str>,
    /// In lower case; `*` stands for anything.
    pattern: Box<str>,
}

/// All that are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    marks: Vec<Mark>,
    /// The name that nobody outside may learn.
    secret: Option<Box<str>>,
}

/// Why a text is neither a preset nor `NAME: PATTERN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMark {
    NoPreset,
    BadName,
    NoPattern,
}

/// So much of a header's value is looked at, in bytes.
const MAX_VALUE: usize = 1_000;

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

impl Mark {
    pub fn new(name: &str, pattern: &str) -> Result<Mark, BadMark> {
        let (name, pattern) = (name.trim(), pattern.trim());
        // RFC 5322, 2.2: printable ASCII without the colon.
        if name.is_empty() || name.len() > 200 || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return Err(BadMark::BadName);
        }
        if pattern.is_empty() || pattern.len() > 200 {
            return Err(BadMark::NoPattern);
        }
        Ok(Mark { name: name.to_ascii_lowercase().into(), pattern: pattern.to_ascii_lowercase().into() })
    }

    fn fits(&self, name: &[u8], value: &[u8]) -> bool {
        self.name.as_bytes().eq_ignore_ascii_case(name) && matches(self.pattern.as_bytes(), value)
    }
}

impl Marks {
    pub const PRESETS: [&str; 3] = [PRESETS[0].0, PRESETS[1].0, PRESETS[2].0];

    /// `secret`: the name of the headers among them that nobody outside may learn.
    pub fn new(marks: Vec<Mark>, secret: Option<&str>) -> Marks {
        Marks { marks, secret: secret.map(Into::into) }
    }

    /// The name of the header that has to be taken out, so that nobody outside learns it.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// The name of a preset, or `NAME: PATTERN`.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Vec<Mark>, BadMark> {
        if let Some((_, marks)) = PRESETS.iter().find(|(preset, _)| *preset == text) {
            return marks.iter().filter_map(|mark| mark.split_once(':')).map(|(n, p)| Mark::new(n, p)).collect();
        }
        let (name, pattern) = text.split_once(':').ok_or(BadMark::NoPreset)?;
        Ok(vec![Mark::new(name, pattern)?])
    }

    /// Whether no header is looked for.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether this header marks its message as spam or virus. Folded values are as good as others.
    pub fn say(&self, name: &[u8], value: &[u8]) -> bool {
        let value = value[..value.len().min(MAX_VALUE)].trim_ascii();
        self.marks.iter().any(|mark| mark.fits(name, value))
    }
}

/// Whether the value is of the pattern's form: `*` is anything, letters have no case, line breaks are blanks.
fn matches(pattern: &[u8], value: &[u8]) -> bool {
    let same = |byte: u8, at: usize| match value[at] {
        b'\r' | b'\n' | b'\t' => byte == b' ',
        other => other.to_ascii_lowercase() == byte,
    };
    let (mut p, mut v) = (0, 0);
    // The last `*`, and how much of the value it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while v < value.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, v));
            p += 1;
        } else if p < pattern.len() && same(pattern[p], v) {
            (p, v) = (p + 1, v + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, v) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(texts: &[&str]) -> Marks {
        Marks::new(texts.iter().flat_map(|text| Marks::parse(text).unwrap()).collect(), None)
    }

    #[test]
    fn what_filters_write() {
        let marks = marks(&["rspamd", "spamassassin", "clamav", "X-Acme-Filter: score=* spam"]);
        let says = |header: &str| {
            let (name, value) = header.split_once(':').unwrap();
            marks.say(name.as_bytes(), value.as_bytes())
        };
        for spam in [
            "X-Spam: Yes",
            "X-Spamd-Result: default: True [22.40 / 15.00];\n\tBAYES_SPAM(5.10)[100.00%];",
            "X-Rspamd-Action: add header",
            "X-Spam-Flag: YES",
            "X-Spam-Status: Yes, score=17.4 required=5.0 tests=BAYES_99,\n\tURIBL_BLACK autolearn=no",
            "x-spam-status:yes",
            "X-Virus-Status: Infected (Eicar-Test-Signature)",
            "X-Virus-Status: Infected with Exploit.PDF-9669",
            "X-Acme-Filter: score=12,\r\n\tspam",
        ] {
            assert!(says(spam), "{spam}");
        }
        for good in [
            "X-Spam: No",
            "X-Spamd-Result: default: False [-0.66 / 15.00];",
            "X-Rspamd-Action: no action",
            "X-Spam-Flag: NO",
            "X-Spam-Status: No, score=-1.9",
            "X-Virus-Status: Clean",
            "X-Spam-Status-Of-Mine: Yes",
            "Subject: X-Spam: Yes",
            "X-Acme-Filter: spam",
            "X-Acme-Filter:",
        ] {
            assert!(!says(good), "{good}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, value, expected) in [
            ("*", "", true),
            ("yes", "YES", true),
            ("yes", "yes!", false),
            ("*yes*", "oh yes", true),
            ("a*b*c", "a1b2c3c", true),
            ("a*b*c", "a1c2b", false),
            ("a**", "a", true),
            ("a b", "a\tb", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), value.as_bytes()), expected, "{pattern} {value}");
        }
        let hostile = "a".repeat(100_000);
        let pattern = format!("{}b", "a*".repeat(90));
        assert!(!marks(&[&format!("X: {pattern}")]).say(b"x", hostile.as_bytes()));
    }

    #[test]
    fn what_is_no_mark() {
        for (text, error) in [
            ("rspamdd", BadMark::NoPreset),
            (": Yes", BadMark::BadName),
            ("X Spam: Yes", BadMark::BadName),
            ("X-Spam:", BadMark::NoPattern),
        ] {
            assert_eq!(Marks::parse(text), Err(error), "{text}");
        }
    }
}
