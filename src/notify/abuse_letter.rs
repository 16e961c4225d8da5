//! The words of a letter about abuse, for an administrator who has no time.

use super::sign::{Sign, Signs};
use crate::directory::{Subject, SubjectKind};
use crate::notify::{command_word, number};
use std::fmt::{self, Write};
use std::time::Duration;

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Nothing,
    Deferred,
    Suspended,
}

impl Done {
    /// As in logs.
    pub const fn key(self) -> &'static str {
        match self {
            Done::Nothing => "told",
            Done::Deferred => "deferred",
            Done::Suspended => "suspended",
        }
    }
}

/// What a letter about abuse tells.
#[derive(Clone, Debug)]
pub struct AbuseFigures<'a> {
    pub relay: &'a str,
    /// Whom an administrator can ask.
    pub operator: &'a str,
    pub subject: &'a Subject,
    pub signs: &'a Signs,
    pub window: Duration,
    pub done: Done,
}

/// The signs, for a reply or a reason: `42 of 50 messages were marked as spam or virus (in 1 hour)`.
pub fn in_words(signs: &Signs, window: Duration) -> String {
    let mut words = signs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let _ = write!(words, " (in {})", window_in_words(window));
    words
}

impl AbuseFigures<'_> {
    pub fn title(&self) -> String {
        let done = match self.done {
            Done::Suspended => "suspended: ",
            Done::Deferred => "held back: ",
            Done::Nothing => "",
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
            writeln!(
                out,
                "The account {name} (customer {customer})\nlooks as if somebody else used it, or sends spam:\n"
            )?;
        } else {
            writeln!(out, "The mail of {name}, all accounts together, looks like spam:\n")?;
        }
        for sign in self.signs {
            writeln!(out, "  - {}", self.sign_in_words(sign))?;
        }
        let account = if is_user { name } else { "these accounts" };
        writeln!(
            out,
            "\n{}\n",
            match self.done {
                Done::Suspended => format!(
                    "All mail from {account} is refused from now on, until the operator\nof the relay lets it pass again."
                ),
                Done::Deferred => format!(
                    "Mail from {account} is deferred until this is over: the sending\nmail server keeps it and tries again."
                ),
                Done::Nothing => "Nothing was held up: the mail goes on.".to_owned(),
            }
        )?;
        writeln!(out, "What you can do:\n")?;
        if is_user {
            writeln!(out, "1. Ask {name} whether this mail is meant.")?;
            writeln!(out, "2. If not, somebody else knows the password: change it, end the open sessions, look for")?;
            writeln!(out, "   forwarding rules that were added, and check the computer for malware.")?;
            writeln!(out, "3. Tell the operator of the relay when it is done: {}\n", self.operator)?;
        } else {
            writeln!(out, "1. Find out which application or account sends it; a letter about a single account may")?;
            writeln!(out, "   have come, too.")?;
            writeln!(out, "2. Stop it, and tell the operator of the relay: {}\n", self.operator)?;
        }
        let word = command_word(name);
        writeln!(out, "The operator sees and changes this with:\n")?;
        writeln!(out, "    relaykeeper quota show {word}")?;
        let command = if is_user { "user" } else { "customer" };
        match self.done {
            Done::Suspended => writeln!(out, "    relaykeeper {command} resume {word} --why TEXT")?,
            _ => writeln!(out, "    relaykeeper {command} suspend {word} --why TEXT")?,
        }
        writeln!(
            out,
            "\nThis was written by relaykeeper on {}. You are told once in {}.",
            self.relay,
            window_in_words(self.window)
        )
    }
}

fn window_in_words(window: Duration) -> String {
    let minutes = window.as_secs() / 60;
    match minutes {
        60 => "1 hour".to_owned(),
        1_440 => "24 hours".to_owned(),
        minutes if minutes.is_multiple_of(60) => format!("{} hours", minutes / 60),
        minutes => format!("{minutes} minutes"),
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
            done: Done::Suspended,
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
            "All mail from ann@acme.example is refused from now on",
            "change it",
            "    relaykeeper user resume ann@acme.example --why TEXT\n",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        figures.done = Done::Nothing;
        assert!(figures.text().contains("Nothing was held up") && figures.text().contains("user suspend"));
        let acme = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
        let text = AbuseFigures { subject: &acme, ..figures }.text();
        assert!(text.contains("all accounts together") && text.contains("customer suspend acme"), "{text}");
        assert_eq!(
            in_words(&signs[..1].into(), Duration::from_secs(5_400)),
            "1042 of 1250 messages were marked as spam or virus (in 90 minutes)"
        );
    }
}
