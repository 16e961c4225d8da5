//! The text of a letter about abuse, for a customer's administrator who has no time.

use super::number;
use crate::abuse::{Countermeasure, Sign, Signs, window_in_words};
use crate::directory::{Subject, SubjectKind};
use std::fmt::{self, Write};
use std::time::Duration;

/// What a letter about abuse says.
#[derive(Clone, Debug)]
pub(super) struct AbuseFigures<'a> {
    pub relay: &'a str,
    /// Whom an administrator can ask.
    pub operator: &'a str,
    pub subject: &'a Subject,
    pub signs: &'a Signs,
    pub window: Duration,
    pub done: Countermeasure,
}

impl AbuseFigures<'_> {
    pub fn title(&self) -> String {
        let done = match self.done {
            Countermeasure::Suspended => "suspended: ",
            Countermeasure::Deferred => "deferred: ",
            Countermeasure::None => "",
        };
        let what = self.signs.first().map(|sign| self.sign_in_words(sign)).unwrap_or_default();
        format!("[{}] {}: {done}signs of abuse ({what})", self.relay, self.subject.name)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = self.write(&mut text);
        text
    }

    fn sign_in_words(&self, sign: &Sign) -> String {
        let window = window_in_words(self.window);
        match *sign {
            Sign::Spam { marked, messages } => {
                let share = marked.saturating_mul(100).checked_div(messages).unwrap_or(100);
                let (marked, messages) = (number(marked), number(messages));
                format!("{marked} of {messages} messages in {window} marked as spam or virus, {share} %")
            }
            Sign::Recipients { now, usual } => {
                format!("about {} different recipients in {window}, at most {} usually", number(now), number(usual))
            }
            Sign::Refused { recipients } => format!("{} recipients refused in {window}", number(recipients)),
            Sign::Networks { number } => format!("mail from {number} different networks in {window}"),
        }
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let Subject { kind, customer, name } = self.subject;
        let is_user = *kind != SubjectKind::Customer;
        if is_user {
            writeln!(out, "The account {name} (customer {customer})\nmay have been taken over, or it sends spam:\n")?;
        } else {
            writeln!(out, "The mail of {name}, all accounts together, looks like abuse:\n")?;
        }
        for sign in self.signs {
            writeln!(out, "  - {}", self.sign_in_words(sign))?;
        }
        let what_happens = match self.done {
            Countermeasure::Suspended => {
                format!("All mail from {name} is refused until\nthe operator of the relay lifts the suspension.")
            }
            Countermeasure::Deferred => {
                format!(
                    "Mail from {name} is deferred until the signs\nare gone: the sending mail server keeps it and tries again."
                )
            }
            Countermeasure::None => "No mail was stopped because of this.".to_owned(),
        };
        writeln!(out, "\n{what_happens}\n\nWhat you can do:\n")?;
        if is_user {
            writeln!(out, "1. Ask {name} whether this mail is intended.")?;
            writeln!(out, "2. If it is not, somebody else knows the password: change it, end all open sessions,")?;
            writeln!(out, "   look for forwarding rules that were added, and check the computer for malware.")?;
            writeln!(out, "3. Tell the operator of the relay when that is done: {}\n", self.operator)?;
        } else {
            writeln!(
                out,
                "1. Find out which application or account sends it. If it is a single account, there may be"
            )?;
            writeln!(out, "   a letter about that account, too.")?;
            writeln!(out, "2. Stop it, and tell the operator of the relay: {}\n", self.operator)?;
        }
        let window = window_in_words(self.window);
        writeln!(out, "relaykeeper on {} sent this letter. There is at most one in {window}.", self.relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_says_who_what_and_what_to_do() {
        let ann = Subject { kind: SubjectKind::User, customer: "acme".into(), name: "ann@acme.example".into() };
        let signs: Signs = [
            Sign::Spam { marked: 1_042, messages: 1_250 },
            Sign::Recipients { now: 1_200, usual: 35 },
            Sign::Networks { number: 14 },
        ]
        .into_iter()
        .collect();
        let mut figures = AbuseFigures {
            relay: "relay.example.net",
            operator: "postmaster@relay.example.net",
            subject: &ann,
            signs: &signs,
            window: Duration::from_secs(3_600),
            done: Countermeasure::Suspended,
        };
        assert_eq!(
            figures.title(),
            "[relay.example.net] ann@acme.example: suspended: signs of abuse (1,042 of 1,250 messages in 1 hour marked as spam or virus, 83 %)"
        );
        let text = figures.text();
        for words in [
            "The account ann@acme.example (customer acme)",
            "  - 1,042 of 1,250 messages in 1 hour marked as spam or virus, 83 %\n",
            "  - about 1,200 different recipients in 1 hour, at most 35 usually\n",
            "  - mail from 14 different networks in 1 hour\n",
            "All mail from ann@acme.example is refused until\nthe operator of the relay lifts the suspension.",
            "change it",
            "3. Tell the operator of the relay when that is done: postmaster@relay.example.net\n",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert!(!text.contains("--"), "no command of the operator's machine: {text}");
        figures.done = Countermeasure::None;
        assert!(figures.text().contains("No mail was stopped"));
        let acme = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
        let text = AbuseFigures { subject: &acme, ..figures }.text();
        assert!(text.contains("The mail of acme, all accounts together, looks like abuse"), "{text}");
    }
}
