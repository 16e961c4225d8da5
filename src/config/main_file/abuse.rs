//! `[abuse]`: which accounts look abused, and what happens then.

use super::verdict_headers::{NotAVerdict, VerdictHeader, VerdictHeaders};
use crate::config::defaults::abuse as default;
use crate::config::reading::{Complaint, Item, Table, TableSpec, quoted};
use crate::config::values;
use std::time::Duration;

pub(super) static ABUSE: TableSpec = TableSpec {
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
        "customer_refused_recipients",
        "networks",
        "on_abuse",
    ],
};

/// The shortest name of a header that outsiders cannot guess, in bytes.
const LEAST_SECRET: usize = 20;

const EXAMPLE_HEADER: &str = "X-Relay-Verdict-7f3a9c21d0";

/// The networks of one account that are remembered, and so the largest value of `networks`.
pub const MAX_NETWORKS: usize = 64;

/// `[abuse]`
#[derive(Clone, Debug, PartialEq)]
pub struct AbuseSettings {
    /// Headers of filters that ran before us.
    pub verdict_headers: VerdictHeaders,
    /// The rolling window of all thresholds, 10 m to 1 d.
    pub window: Duration,
    pub thresholds: Thresholds,
    pub on_abuse: OnAbuse,
}

/// From when on something is a sign of abuse. 0: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Marked messages of a user.
    pub spam_count: u64,
    /// Marked messages of a customer.
    pub customer_spam_count: u64,
    /// Percent of all messages that must be marked before either count is a sign, 1 to 100.
    pub spam_share: u64,
    /// Times the unique recipients of last week's busiest window.
    pub recipients_rise: u64,
    /// Unique recipients below which a rise is no sign.
    pub recipients_least: u64,
    /// Recipients refused because of the sender, of a user who logged in.
    pub refused_recipients: u64,
    /// The same without such a login, of a customer.
    pub customer_refused_recipients: u64,
    /// Networks that a user's mail came from, at most [`MAX_NETWORKS`].
    pub networks: u64,
}

/// What happens to a user with signs of abuse, besides the mail to administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAbuse {
    Notify,
    /// The user's mail is deferred until the signs have expired.
    Defer,
    /// The user is suspended until an administrator resumes it.
    Suspend,
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
    let verdict_headers = read_verdict_headers(table);
    if !verdict_headers.is_empty() && !has_milter {
        let complaint = Complaint::new("[abuse]: verdict headers have no effect: only a milter sees headers", "");
        table.report.warning(table.span(), complaint.help("set listen.milter, or write verdicts = []"));
    }
    let usual = default::THRESHOLDS;
    AbuseSettings {
        verdict_headers,
        window: window.unwrap_or(default::WINDOW),
        thresholds: Thresholds {
            spam_count: number("spam_count", usual.spam_count, LARGEST),
            customer_spam_count: number("customer_spam_count", usual.customer_spam_count, LARGEST),
            spam_share: share.unwrap_or(usual.spam_share),
            recipients_rise: number("recipients_rise", usual.recipients_rise, LARGEST),
            recipients_least: number("recipients_least", usual.recipients_least, LARGEST),
            refused_recipients: number("refused_recipients", usual.refused_recipients, LARGEST),
            customer_refused_recipients: number(
                "customer_refused_recipients",
                usual.customer_refused_recipients,
                LARGEST,
            ),
            networks: number("networks", usual.networks, MAX_NETWORKS as u64),
        },
        on_abuse: on_abuse.unwrap_or(default::ON_ABUSE),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const LARGEST: u64 = 1_000_000_000;

/// Headers are trusted only under a name that outsiders cannot know, or where the filter removes forged ones.
fn read_verdict_headers(table: &Table<'_>) -> VerdictHeaders {
    let header_item = table.get("header");
    let header = header_item.and_then(|item| item.parsed(EXAMPLE_HEADER, secret_name));
    let values = table.get("header_values").map(|item| item.parsed_list("yes*", value_pattern));
    if let (None, Some(item)) = (header_item, table.get("header_values")) {
        let complaint = Complaint::new("this has no effect without `abuse.header`", "");
        item.error(complaint.help(format!("add header = {}, or remove this line", quoted(EXAMPLE_HEADER))));
    }
    if let Some(item) = table.get("header_values").filter(|_| values.as_ref().is_some_and(Vec::is_empty))
        && item.value().as_array().is_some_and(|list| list.is_empty())
    {
        let complaint = Complaint::new("without a value no message is ever marked", "empty");
        item.error(complaint.help("write header_values = [\"yes*\"], or remove this line"));
    }
    let is_stripped = table.get("stripped").and_then(|item| item.boolean()).unwrap_or(default::STRIPPED);
    let verdicts_item = table.get("verdicts");
    let verdicts = match verdicts_item {
        Some(item) => item.parsed_list("rspamd", verdict),
        None if header_item.is_some() && !is_stripped => Vec::new(),
        None => VerdictHeaders::FILTERS.iter().filter_map(|filter| VerdictHeaders::parse(filter).ok()).collect(),
    };
    let verdicts: Vec<VerdictHeader> = verdicts.into_iter().flatten().collect();
    let mut headers = Vec::new();
    if let Some(name) = &header {
        let values = values.unwrap_or_else(|| default::HEADER_VALUES.map(str::to_owned).to_vec());
        headers.extend(values.iter().filter_map(|value| VerdictHeader::new(name, value).ok()));
    }
    if is_stripped {
        headers.extend(verdicts);
    } else if !verdicts.is_empty() {
        refuse_forgeable(table, verdicts_item, header_item.is_some());
    }
    VerdictHeaders::new(headers, header.as_deref())
}

/// Anybody could write these headers, and have a customer suspended or a filter's verdict drowned.
fn refuse_forgeable(table: &Table<'_>, verdicts: Option<Item<'_>>, has_header: bool) {
    let title = "clients could forge the verdict headers";
    let secret =
        format!("header = {} (a name that outsiders cannot guess, written by your filter)", quoted(EXAMPLE_HEADER));
    let vouch = "stripped = true (your filter removes such headers from incoming mail)";
    let complaint = Complaint::new(title, "");
    match verdicts {
        Some(item) if has_header => {
            let complaint = Complaint { label: "these names are public".into(), ..complaint };
            item.error(complaint.help(format!("remove this line, or add {vouch}")));
        }
        Some(item) => item.error(complaint.help(format!("write {secret} instead, or add {vouch}"))),
        None => {
            let help = format!("write {secret}, or {vouch}, or verdicts = [] to check none");
            table.report.error(table.span(), Complaint { title: format!("[abuse]: {title}"), ..complaint }.help(help));
        }
    }
}

fn secret_name(text: &str) -> Result<String, Complaint> {
    let name = text.trim();
    let wrong = |label: &str| {
        Err(Complaint::new(format!("{} cannot be used as the header", quoted(text)), label).help(format!(
            "write a name with random letters and digits in it, like {}, but your own",
            quoted(EXAMPLE_HEADER)
        )))
    };
    if VerdictHeader::new(name, "yes").is_err() {
        return wrong("a header name must not contain spaces or colons");
    }
    if name.eq_ignore_ascii_case(EXAMPLE_HEADER) {
        return wrong("this is the public example");
    }
    if name.len() < LEAST_SECRET || !name.bytes().any(|byte| byte.is_ascii_digit()) {
        return wrong("outsiders can guess it");
    }
    Ok(name.to_owned())
}

fn value_pattern(text: &str) -> Result<String, Complaint> {
    match VerdictHeader::new("x", text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Complaint::new(format!("{} is not a valid value", quoted(text)), "empty, or too long")
            .help("write what the header contains for spam, such as \"yes*\"; * matches any text")),
    }
}

fn verdict(text: &str) -> Result<Vec<VerdictHeader>, Complaint> {
    VerdictHeaders::parse(text).map_err(|error| {
        let label = match error {
            NotAVerdict::UnknownFilter => "unknown filter",
            NotAVerdict::BadName => "the part before the colon is not a header name",
            NotAVerdict::BadPattern => "the value after the colon is missing or too long",
        };
        let filters = VerdictHeaders::FILTERS.map(quoted).join(", ");
        Complaint::new(format!("{} is not a valid verdict", quoted(text)), label)
            .help(format!("write one of {filters}, or \"NAME: PATTERN\", such as \"X-Spam-Flag: yes*\""))
    })
}
