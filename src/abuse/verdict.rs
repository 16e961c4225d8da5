//! What the filters before us say of a message: whether one of its headers marks it as spam or a virus.

use crate::config::VerdictHeaders;

/// The length of a header's value that is looked at, in bytes.
const MAX_VALUE: usize = 1_000;

/// Whether this header marks its message as spam or a virus. Folded values match as others do.
pub fn is_marked(headers: &VerdictHeaders, name: &[u8], value: &[u8]) -> bool {
    let value = value[..value.len().min(MAX_VALUE)].trim_ascii();
    headers
        .iter()
        .any(|header| header.name.as_bytes().eq_ignore_ascii_case(name) && matches(header.pattern.as_bytes(), value))
}

/// Whether the value matches the pattern: `*` is any text, case is ignored, line breaks are blanks.
fn matches(pattern: &[u8], value: &[u8]) -> bool {
    let same = |byte: u8, at: usize| match value[at] {
        b'\r' | b'\n' | b'\t' => byte == b' ',
        other => other.to_ascii_lowercase() == byte,
    };
    let (mut p, mut v) = (0, 0);
    // The last `*`, and where in the value its text ends so far.
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

    fn headers(texts: &[&str]) -> VerdictHeaders {
        VerdictHeaders::new(texts.iter().flat_map(|text| VerdictHeaders::parse(text).unwrap()).collect(), None)
    }

    #[test]
    fn what_filters_write() {
        let headers = headers(&["rspamd", "spamassassin", "clamav", "X-Acme-Filter: score=* spam"]);
        let says = |header: &str| {
            let (name, value) = header.split_once(':').unwrap();
            is_marked(&headers, name.as_bytes(), value.as_bytes())
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
        assert!(!is_marked(&headers(&[&format!("X: {pattern}")]), b"x", hostile.as_bytes()));
    }
}
