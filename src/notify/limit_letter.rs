//! The text of a letter about a limit, for a customer's administrator who has no time.

use super::number;
use crate::directory::{Action, LimitName, Subject, SubjectKind, Window};
use std::fmt::Write;

/// What a letter about a limit says.
#[derive(Clone, Debug)]
pub(super) struct LimitFigures<'a> {
    pub relay: &'a str,
    /// Whom an administrator can ask.
    pub operator: &'a str,
    pub subject: &'a Subject,
    pub limit: LimitName,
    pub used: u64,
    pub max: u64,
    /// Mail was refused because of it.
    pub refuses: bool,
    pub action: Action,
    /// When one more fits, if none does now: milliseconds since 1970.
    pub resets_at_ms: Option<i64>,
}

impl LimitFigures<'_> {
    pub fn is_full(&self) -> bool {
        self.refuses || self.used >= self.max
    }

    pub fn title(&self) -> String {
        let LimitFigures { relay, used, max, .. } = self;
        let (who, what) = (&self.subject.name, things(self.limit));
        let (used, max, window) = (number(*used), number(*max), window(self.limit));
        let share =
            if self.is_full() { "limit reached".to_owned() } else { format!("{} % of a limit", self.percent()) };
        format!("[{relay}] {who}: {share} ({used} of {max} {what} in {window})")
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = self.write(&mut text);
        text
    }

    fn percent(&self) -> u64 {
        self.used.saturating_mul(100).checked_div(self.max).unwrap_or(100)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (whose, what, window) = (whose(self.subject), things(self.limit), window(self.limit));
        let (used, max, percent) = (number(self.used), number(self.max), self.percent());
        writeln!(out, "{whose} has sent")?;
        writeln!(out, "{used} of the {max} {what} allowed in any {window} ({percent} %).\n")?;
        // The peak limit always defers.
        let is_rejected = self.action == Action::Reject && self.limit != LimitName::CustomerPeak;
        let fate = match is_rejected {
            true => "is rejected and returned\nto its sender",
            false => "is deferred: the sending\nmail server keeps it and tries again",
        };
        match (self.is_full(), self.resets_at_ms) {
            (true, Some(ms)) => {
                let from = time(ms);
                writeln!(out, "The limit is reached. Further mail {fate}.\nThere is room again after {from}.\n")?;
            }
            (true, None) => {
                writeln!(out, "A message that did not fit was refused. Mail beyond the limit {fate}.\n")?;
            }
            (false, _) => writeln!(out, "No mail is affected yet. Mail beyond the limit {fate}.\n")?,
        }
        writeln!(out, "    Who:    {} {}", self.subject.kind.key(), self.subject.name)?;
        writeln!(out, "    Limit:  {} = {max}", self.limit)?;
        writeln!(out, "    Usage:  {used} ({percent} %)")?;
        writeln!(out, "    Window: the last {window}, rolling; older mail no longer counts\n")?;
        writeln!(out, "What you can do:\n")?;
        match self.subject.kind {
            SubjectKind::Customer => {
                writeln!(out, "- If this is more than your organisation usually sends, look for an application that")?;
                writeln!(out, "  sends too much, or for an account that somebody else has taken over.")?;
            }
            SubjectKind::User | SubjectKind::Login => {
                writeln!(out, "- If {} did not mean to send this much, somebody else may know the", self.subject.name)?;
                writeln!(out, "  password: change it.")?;
            }
        }
        writeln!(out, "- If it was intended, spread it over more time.")?;
        writeln!(out, "- If you need a higher limit, ask the operator of the relay: {}\n", self.operator)?;
        writeln!(out, "relaykeeper on {} sent this letter. There is at most one for each level of a", self.relay)?;
        writeln!(out, "limit in {window}.")
    }
}

fn whose(subject: &Subject) -> String {
    match subject.kind {
        SubjectKind::Customer => subject.name.to_string(),
        SubjectKind::User => format!("{} (customer {})", subject.name, subject.customer),
        SubjectKind::Login => format!("The login {} (customer {})", subject.name, subject.customer),
    }
}

fn things(limit: LimitName) -> &'static str {
    match limit {
        LimitName::UserMessages | LimitName::LoginMessages => "messages",
        LimitName::UserUniques | LimitName::LoginUniques => "different recipients",
        LimitName::CustomerDay | LimitName::CustomerPeak => "recipients",
    }
}

fn window(limit: LimitName) -> &'static str {
    match limit.window() {
        Window::Day => "24 hours",
        Window::TenMinutes => "10 minutes",
    }
}

/// `14:33 UTC on 22 Nov`, rounded up to the minute.
fn time(ms: i64) -> String {
    let minutes = ms.div_euclid(60_000) + i64::from(ms.rem_euclid(60_000) > 0);
    jiff::Timestamp::from_second(minutes * 60)
        .map_or_else(|_| "a day".to_owned(), |time| time.strftime("%H:%M UTC on %-d %b").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(subject: &Subject, used: u64) -> LimitFigures<'_> {
        LimitFigures {
            relay: "relay.example.net",
            operator: "postmaster@relay.example.net",
            subject,
            limit: LimitName::UserMessages,
            used,
            max: 10_000,
            refuses: false,
            action: Action::Defer,
            resets_at_ms: (used >= 10_000).then_some(1_800_000_000_001),
        }
    }

    #[test]
    fn a_letter_says_who_what_how_much_until_when_and_what_to_do() {
        let ann = Subject { kind: SubjectKind::User, customer: "acme".into(), name: "ann@acme.example".into() };
        let near = figures(&ann, 8_123);
        assert_eq!(
            near.title(),
            "[relay.example.net] ann@acme.example: 81 % of a limit (8,123 of 10,000 messages in 24 hours)"
        );
        let text = near.text();
        for words in [
            "ann@acme.example (customer acme) has sent\n8,123 of the 10,000 messages allowed in any 24 hours (81 %).",
            "No mail is affected yet. Mail beyond the limit is deferred",
            "ask the operator of the relay: postmaster@relay.example.net",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert!(!text.contains("--"), "no command of the operator's machine: {text}");
        let full = figures(&ann, 10_000);
        assert!(full.title().contains("limit reached (10,000 of 10,000 messages in 24 hours)"));
        let text = full.text();
        assert!(text.contains("There is room again after 08:01 UTC on 15 Jan."), "{text}");
        let rejecting = LimitFigures { action: Action::Reject, ..full };
        assert!(rejecting.text().contains("is rejected and returned\nto its sender"));
        assert!(text.lines().chain(rejecting.text().lines()).all(|line| line.len() <= 100), "{text}");
    }
}
