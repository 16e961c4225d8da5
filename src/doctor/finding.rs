//! What doctor says, and in which order.

use serde::Serialize;

/// The longest value that is shown, in characters.
const MAX_SHOWN: usize = 200;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Limits do not hold, mail can be lost or relayed, or a secret gets out.
    Error,
    Warning,
    Note,
}

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// One of [`IDS`].
    pub id: &'static str,
    pub severity: Severity,
    /// A file with its line and service, a socket, the host.
    #[serde(rename = "where")]
    pub place: String,
    pub found: String,
    pub why: String,
    /// What to write instead, or to run; `None` where there is nothing to do.
    pub write: Option<String>,
}

/// Every finding that this version makes, in the order of docs/doctor.md.
pub const IDS: [&str; 47] = [
    "policy-not-asked",
    "reject-before-policy",
    "context-missing",
    "end-of-message-not-asked",
    "end-of-message-uneven",
    "milter-not-asked",
    "milter-with-proxy",
    "milter-not-last",
    "milter-twice",
    "milter-fails-open",
    "milter-fails-hard",
    "milter-time-limits",
    "milter-nobody-listens",
    "local-mail-uncounted",
    "one-address",
    "exempt-customers",
    "inbound-not-exempt",
    "own-host-not-exempt",
    "recipient-limit",
    "mta-rate-limits",
    "auth-in-clear",
    "tls-off",
    "not-reloaded",
    "sm-daemon-list",
    "sm-filter-syntax",
    "sm-socket-unsafe",
    "sm-no-milter",
    "sm-promiscuous",
    "sm-relay-loose",
    "sm-access-missing",
    "sm-access-stale",
    "sm-trust-auth-mech",
    "socket-refused",
    "folder-mode",
    "daemon-down",
    "unit-disabled",
    "two-daemons",
    "pid-clash",
    "mac-denies",
    "config-bad",
    "store-disk",
    "clock",
    "log-silent",
    "letters",
    "hostname-differs",
    "nothing-enforced",
    "not-looked-at",
];

impl Finding {
    pub fn new(
        id: &'static str,
        severity: Severity,
        place: impl Into<String>,
        found: impl Into<String>,
        why: impl Into<String>,
        write: Option<String>,
    ) -> Finding {
        let (place, found) = (place.into(), cut(found.into()));
        Finding { id, severity, place, found, why: why.into(), write }
    }

    /// A check that could not be made, and why.
    pub fn not_looked_at(place: impl Into<String>, what: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding::new("not-looked-at", Severity::Note, place, what, why, None)
    }
}

/// By severity, then as in [`IDS`], then by place.
pub fn sort(findings: &mut Vec<Finding>) {
    let rank = |finding: &Finding| IDS.iter().position(|id| *id == finding.id).unwrap_or(IDS.len());
    findings.sort_by(|one, other| {
        (one.severity, rank(one), &one.place, &one.found).cmp(&(
            other.severity,
            rank(other),
            &other.place,
            &other.found,
        ))
    });
    findings.dedup();
}

/// As people read it: three lines a finding, and a summary.
pub fn lines(findings: &[Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        lines.push(format!("{severity}: {}   {}: {}", finding.id, finding.place, finding.found));
        lines.push(format!("  why:   {}", finding.why));
        lines.push(format!("  write: {}", finding.write.as_deref().unwrap_or("nothing")));
    }
    lines.push(summary(findings));
    lines
}

fn summary(findings: &[Finding]) -> String {
    let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, notes) = (number(Severity::Error), number(Severity::Warning), number(Severity::Note));
    let how_many = crate::config::how_many;
    let counts =
        format!("{}, {}, {}", how_many(errors, "error"), how_many(warnings, "warning"), how_many(notes, "note"));
    let has_seen_all = findings.iter().all(|finding| finding.id != "not-looked-at");
    match (errors, warnings) {
        (0, 0) if has_seen_all => format!("nothing is wrong ({counts})"),
        (0, 0) => format!("nothing wrong was found, but not everything was looked at ({counts})"),
        _ => counts,
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &'static str, severity: Severity, place: &str) -> Finding {
        Finding::new(id, severity, place, "x".repeat(300), "because", None)
    }

    #[test]
    fn findings_are_sorted_and_shown_on_three_lines() {
        let mut findings = vec![
            finding("not-looked-at", Severity::Note, "a"),
            finding("daemon-down", Severity::Error, "a"),
            finding("policy-not-asked", Severity::Error, "b"),
            finding("policy-not-asked", Severity::Error, "a"),
            finding("clock", Severity::Warning, "a"),
        ];
        sort(&mut findings);
        let order: Vec<_> = findings.iter().map(|finding| (finding.id, &*finding.place)).collect();
        let expected = [
            ("policy-not-asked", "a"),
            ("policy-not-asked", "b"),
            ("daemon-down", "a"),
            ("clock", "a"),
            ("not-looked-at", "a"),
        ];
        assert_eq!(order, expected);
        let lines = lines(&findings);
        assert_eq!(lines[0], format!("error: policy-not-asked   a: {}...", "x".repeat(200)));
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (16, Some("3 errors, 1 warning, 1 note")));
        assert_eq!(super::lines(&[]), ["nothing is wrong (0 errors, 0 warnings, 0 notes)"]);
        let unseen = super::lines(&[finding("not-looked-at", Severity::Note, "")]);
        let summary = unseen.last().expect("a summary");
        assert_eq!(
            *summary,
            "nothing wrong was found, but not everything was looked at (0 errors, 0 warnings, 1 note)"
        );
    }

    #[test]
    fn json_has_the_public_keys() {
        let json = serde_json::to_value(finding("clock", Severity::Note, "host")).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["found", "id", "severity", "where", "why", "write"]);
        assert_eq!((&json["severity"], &json["write"]), (&"note".into(), &serde_json::Value::Null));
    }

    #[test]
    fn no_id_stands_there_twice() {
        let all: std::collections::BTreeSet<_> = IDS.iter().collect();
        assert_eq!(all.len(), IDS.len());
    }
}
