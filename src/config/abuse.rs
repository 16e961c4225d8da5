//! `[abuse]`: what is watched, and what happens then.

use super::model::Settings;
use super::reader::{Item, Spec, Table};
use super::report::Complaint;
use super::source::quoted;
use super::values;
use crate::abuse::{AbuseSettings, BadMark, MAX_NETWORKS, Mark, Marks, OnAbuse, Thresholds};
use std::time::Duration;

pub(super) static ABUSE: Spec = Spec {
    what: "[abuse]",
    prefix: "abuse.",
    keys: &[
        "verdicts",
        "stripped",
        "header",
        "header_values",
        "window",
        "spam_count",
        "spam_share",
        "customer_spam_count",
        "recipients_rise",
        "recipients_least",
        "refused_recipients",
        "networks",
        "on_abuse",
    ],
    neighbours: &[],
};

/// A header that outsiders cannot know is no shorter, in bytes.
const LEAST_SECRET: usize = 20;

const EXAMPLE_HEADER: &str = "X-Relay-Verdict-7f3a9c21d0";

/// What a filter writes into such a header of its own.
const HEADER_VALUES: [&str; 5] = ["yes*", "spam*", "infected*", "reject*", "true*"];

impl Settings {
    /// Whether headers have to be seen.
    pub fn needs_headers(&self) -> bool {
        self.abuse.as_ref().is_some_and(|abuse| !abuse.marks.is_empty())
    }
}

/// `has_milter`: MTAs can show headers.
pub(super) fn read_abuse(table: &Table<'_>, has_milter: bool) -> AbuseSettings {
    let number = |key: &'static str, default: u64, most: u64| {
        table.get(key).and_then(|item| item.number(0..=most, &default.to_string())).unwrap_or(default)
    };
    let window = table
        .get("window")
        .and_then(|item| item.parsed("1h", |text| values::duration(text, MINUTE * 10, Duration::from_secs(86_400))));
    let share = table.get("spam_share").and_then(|item| item.number(1..=100, "25"));
    let on_abuse = table.get("on_abuse").and_then(|item| {
        item.choice(&[("notify", OnAbuse::Notify), ("defer", OnAbuse::Defer), ("suspend", OnAbuse::Suspend)])
    });
    let marks = read_marks(table);
    if !marks.is_empty() && !has_milter {
        let complaint = Complaint::new("[abuse]: no verdict header will ever be seen: only milters see headers", "");
        table.report.warning(table.span(), complaint.help("set listen.milter, or write verdicts = []"));
    }
    AbuseSettings {
        marks,
        window: window.unwrap_or(MINUTE * 60),
        thresholds: Thresholds {
            spam_count: number("spam_count", 20, LARGEST),
            customer_spam_count: number("customer_spam_count", 100, LARGEST),
            spam_share: share.unwrap_or(25),
            recipients_rise: number("recipients_rise", 10, LARGEST),
            recipients_least: number("recipients_least", 500, LARGEST),
            refused_recipients: number("refused_recipients", 500, LARGEST),
            networks: number("networks", 10, MAX_NETWORKS as u64),
        },
        on_abuse: on_abuse.unwrap_or(OnAbuse::Notify),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const LARGEST: u64 = 1_000_000_000;

/// Headers are believed only under a name that outsiders cannot know, or where their copies are taken out.
fn read_marks(table: &Table<'_>) -> Marks {
    let header_item = table.get("header");
    let header = header_item.and_then(|item| item.parsed(EXAMPLE_HEADER, secret_name));
    let values = table.get("header_values").map(|item| item.parsed_list("yes*", value_pattern));
    if let (None, Some(item)) = (header_item, table.get("header_values")) {
        let complaint = Complaint::new("there is no `abuse.header` that has these values", "");
        item.error(complaint.help(format!("add header = {}, or leave this line out", quoted(EXAMPLE_HEADER))));
    }
    let is_stripped = table.get("stripped").and_then(|item| item.boolean()).unwrap_or(false);
    let verdicts_item = table.get("verdicts");
    let verdicts = match verdicts_item {
        Some(item) => item.parsed_list("rspamd", verdict),
        None if header_item.is_some() && !is_stripped => Vec::new(),
        None => Marks::PRESETS.iter().filter_map(|preset| Marks::parse(preset).ok()).collect(),
    };
    let verdicts: Vec<Mark> = verdicts.into_iter().flatten().collect();
    let mut marks = Vec::new();
    if let Some(name) = &header {
        let values = values.unwrap_or_else(|| HEADER_VALUES.map(str::to_owned).to_vec());
        marks.extend(values.iter().filter_map(|value| Mark::new(name, value).ok()));
    }
    if is_stripped {
        marks.extend(verdicts);
    } else if !verdicts.is_empty() {
        refuse_forgeable(table, verdicts_item, header_item.is_some());
    }
    Marks::new(marks, header.as_deref())
}

/// Anybody could write these headers, and have a customer suspended or a filter's verdict drowned.
fn refuse_forgeable(table: &Table<'_>, verdicts: Option<Item<'_>>, has_header: bool) {
    let title = "nothing keeps a client from writing the verdict headers itself";
    let secret =
        format!("header = {} (a name that outsiders cannot know, written by your filter)", quoted(EXAMPLE_HEADER));
    let vouch = "stripped = true (your filter takes such headers out of what comes in)";
    let complaint = Complaint::new(title, "");
    match verdicts {
        Some(item) if has_header => {
            let complaint = Complaint { label: "these are known to everybody".into(), ..complaint };
            item.error(complaint.help(format!("leave this line out, or add {vouch}")));
        }
        Some(item) => item.error(complaint.help(format!("write {secret} instead, or add {vouch}"))),
        None => {
            let help = format!("write {secret}, or {vouch}, or verdicts = [] to look at none");
            table.report.error(table.span(), Complaint { title: format!("[abuse]: {title}"), ..complaint }.help(help));
        }
    }
}

fn secret_name(text: &str) -> Result<String, Complaint> {
    let name = text.trim();
    let wrong = |label: &str| {
        Err(Complaint::new(format!("{} cannot be the header", quoted(text)), label).help(format!(
            "write a name with random letters and digits in it, like {}, but your own",
            quoted(EXAMPLE_HEADER)
        )))
    };
    if Mark::new(name, "yes").is_err() {
        return wrong("a header's name has no blanks and no colon");
    }
    if name.eq_ignore_ascii_case(EXAMPLE_HEADER) {
        return wrong("it is the example, which everybody can read");
    }
    if name.len() < LEAST_SECRET || !name.bytes().any(|byte| byte.is_ascii_digit()) {
        return wrong("outsiders can guess it");
    }
    Ok(name.to_owned())
}

fn value_pattern(text: &str) -> Result<String, Complaint> {
    match Mark::new("x", text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Complaint::new(format!("{} is no value", quoted(text)), "empty, or too long")
            .help("write what the header says of spam, such as \"yes*\"; * is anything")),
    }
}

fn verdict(text: &str) -> Result<Vec<Mark>, Complaint> {
    Marks::parse(text).map_err(|error| {
        let label = match error {
            BadMark::NoPreset => "no such filter is known here",
            BadMark::BadName => "what stands before the colon is no header's name",
            BadMark::NoPattern => "there is no value after the colon, or it is too long",
        };
        let presets = Marks::PRESETS.map(quoted).join(", ");
        Complaint::new(format!("{} is no verdict", quoted(text)), label)
            .help(format!("write one of {presets}, or \"NAME: PATTERN\", such as \"X-Spam-Flag: yes*\""))
    })
}
