//! The rule files: what stands in them.
//!
//! ```toml
//! [main.relay]                       # as in relaykeeper.toml
//! [customers.acme]                   # as in customers.d/acme.toml; `name` is acme, `licenses` 100 where not given
//! [files]                            # customers.d as it is: "broken.toml" = "text"
//! [defaults]                         # what cases leave out
//!
//! [[case]]
//! name = "a sender of the customer from one of its addresses"
//! sender = "ann@acme.example"
//! expect = "accept"
//! ```
//!
//! A case is one transaction, or with `script` several; steps take from the case what they leave out, and the case from
//! `defaults`. All keys: [`Step`].

use crate::ways::Way;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    #[serde(default)]
    pub main: toml::Table,
    #[serde(default)]
    pub customers: BTreeMap<String, toml::Table>,
    /// More files of customers, as they are.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    #[serde(default)]
    pub defaults: Step,
    pub case: Vec<Step>,
}

/// A transaction, what is expected of it, or both.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: Option<String>,

    // In texts that a client says `{long}` stands for a thousand letters.
    /// An address, or `unknown`.
    pub client: Option<String>,
    pub helo: Option<String>,
    /// The protocol version; empty without TLS.
    pub tls: Option<String>,
    pub login: Option<String>,
    /// The method of the login, as the MTA reports it.
    pub sasl_method: Option<String>,
    pub sender: Option<String>,
    /// One recipient or several. `r{1..100}@dest.example` stands for a hundred, `{n}` for the number of the repetition.
    pub to: Option<OneOrMany>,
    /// `SIZE=` of MAIL.
    pub size: Option<u64>,
    /// The message has so many bytes, all of them text.
    pub bytes: Option<u64>,
    /// Or it has attachments of so many bytes.
    pub attachments: Option<Vec<u64>>,
    /// So many sessions of the same client come before this one, and end.
    pub sessions_before: Option<u64>,
    /// So many are open meanwhile.
    pub sessions_open: Option<u64>,
    /// Repeats the transaction so often, over one connection.
    pub times: Option<u64>,
    /// How it ends: `sent` (unless told otherwise), `given-up` or `open`. A later step with the same `called` ends it.
    pub end: Option<End>,
    /// Names a transaction that stays open.
    pub called: Option<String>,

    /// For each recipient: `accept`, `defer` or `reject`, and how the reply begins. `accept *100` stands for a hundred;
    /// the last one stands for all that follow.
    pub expect: Option<OneOrMany>,
    /// What the policy protocol has to answer instead.
    pub over_policy: Option<OneOrMany>,
    /// What Postfix has to answer instead where it asks both protocols.
    pub over_both: Option<OneOrMany>,
    /// What is answered to the end of the message; accepted if not given.
    pub at_end: Option<String>,
    /// What the policy protocol has to answer to the end instead.
    pub at_end_over_policy: Option<String>,
    /// Parts of the decisive reply.
    pub says: Option<OneOrMany>,
    /// `reason=` of the log, which is the kind of refusal or exemption.
    pub reason: Option<String>,
    /// Whose mail it is; empty: nobody's.
    pub customer: Option<String>,
    /// `login`, `sender`, `helo`, `address`.
    pub by: Option<String>,
    pub setting: Option<String>,
    pub user: Option<String>,
    /// What the sender becomes; unless given, it has to stay as it is.
    pub rewrite: Option<String>,
    /// `shadow=` of the log: what would have refused it.
    pub shadow: Option<String>,
    /// Steps of `explain` in their order, others may stand between: `identify sender`.
    pub steps: Option<Vec<String>>,
    /// What is counted afterwards: by customer or user, by limit.
    pub used: Option<BTreeMap<String, BTreeMap<String, u64>>>,
    /// The same where the policy protocol counts something else.
    pub used_over_policy: Option<BTreeMap<String, BTreeMap<String, u64>>>,
    pub reserved: Option<BTreeMap<String, BTreeMap<String, u64>>>,

    /// `policy.on_rewrite` of the case.
    pub on_rewrite: Option<String>,
    /// `relay.on_failure` of the case.
    pub on_failure: Option<String>,
    /// The store of the case cannot be read.
    pub store_is_unreadable: Option<bool>,

    /// Lets time pass before the transaction: `90s`, `10m`, `24h`.
    pub wait: Option<String>,
    /// Suspends a user or a customer before the transaction, or ends that: an address or a customer's name.
    pub suspend: Option<String>,
    pub resume: Option<String>,
    /// Grants before the transaction: `ann@acme.example user.messages_per_day 5 24h`.
    pub grant: Option<String>,
    /// The user has sent spam before the transaction: where `abuse.spam_count = 1`, a sign of abuse.
    pub spam_of: Option<String>,
    /// A letter of relaykeeper's own to this address is on its way.
    pub own_mail_to: Option<String>,
    pub script: Option<Vec<Step>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Sent,
    GivenUp,
    Open,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
        .iter()
        .map(String::as_str)
    }
}

impl RuleFile {
    /// All files of a folder, by name.
    pub fn read_all(folder: &Path) -> BTreeMap<String, RuleFile> {
        let mut files = BTreeMap::new();
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let file = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), file);
        }
        files
    }

    /// The main file for one case.
    pub fn main_text(&self, case: &Step) -> String {
        let mut main = self.main.clone();
        for (section, key, value) in
            [("policy", "on_rewrite", &case.on_rewrite), ("relay", "on_failure", &case.on_failure)]
        {
            if let Some(value) = value {
                let section = main.entry(section).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
                section.insert(key.into(), value.as_str().into());
            }
        }
        let relay = main.entry("relay").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
        relay.entry("hostname").or_insert("relay.example.net".into());
        main.insert("listen".into(), toml::Table::from_iter([("policy", vec!["inet:127.0.0.1:1"])].map(listen)).into());
        toml::to_string(&main).unwrap()
    }

    pub fn customer_files(&self) -> BTreeMap<String, String> {
        let mut files = self.files.clone();
        for (name, customer) in &self.customers {
            let mut customer = customer.clone();
            customer.entry("name").or_insert(name.as_str().into());
            customer.entry("licenses").or_insert(100.into());
            files.insert(format!("{name}.toml"), toml::to_string(&customer).unwrap());
        }
        files
    }
}

fn listen((key, addresses): (&str, Vec<&str>)) -> (String, toml::Value) {
    (key.to_owned(), addresses.into_iter().map(toml::Value::from).collect::<Vec<_>>().into())
}

impl Step {
    /// What is left out taken from `other`; expectations are not inherited where anything is expected here.
    pub fn over(&self, other: &Step) -> Step {
        let mut step = self.clone();
        macro_rules! inherit { ($($key:ident)*) => { $(if step.$key.is_none() { step.$key = other.$key.clone(); })* } }
        inherit!(client helo tls login sasl_method sender to);
        let expects_something = step.expect.is_some();
        if !expects_something {
            inherit!(expect over_policy over_both at_end at_end_over_policy says reason customer by setting user rewrite shadow steps);
        }
        step
    }

    /// What a client says.
    pub fn said(value: &Option<String>, default: &str) -> String {
        value.as_deref().unwrap_or(default).replace("{long}", &"l".repeat(1_000))
    }

    /// Whether the case needs a configuration of its own.
    pub fn has_own_configuration(&self) -> bool {
        self.on_rewrite.is_some() || self.on_failure.is_some()
    }

    /// Whether it is a transaction and not only a wait or a look.
    pub fn is_transaction(&self) -> bool {
        self.expect.is_some()
    }

    pub fn recipients(&self, repetition: u64) -> Vec<String> {
        let Some(to) = &self.to else { return vec!["x@dest.example".into()] };
        let mut all = Vec::new();
        for pattern in to.iter() {
            let pattern = Step::said(&Some(pattern.replace("{n}", &repetition.to_string())), "");
            let range = pattern.split_once('{').and_then(|(before, rest)| {
                let (range, after) = rest.split_once('}')?;
                let (from, to) = range.split_once("..")?;
                Some((before.to_owned(), from.parse::<u64>().unwrap()..=to.parse::<u64>().unwrap(), after.to_owned()))
            });
            match range {
                Some((before, range, after)) => all.extend(range.map(|number| format!("{before}{number}{after}"))),
                None => all.push(pattern),
            }
        }
        all
    }

    /// What is expected in place of `expect` on this way, if anything is.
    pub fn expected_instead(&self, way: Way) -> Option<&OneOrMany> {
        match way {
            Way::Policy => self.over_policy.as_ref(),
            Way::Both => self.over_both.as_ref(),
            Way::Decision | Way::Milter(_) => None,
        }
    }

    /// What is expected for each of `recipients` recipients.
    pub fn expectations(&self, way: Way, recipients: usize) -> Vec<String> {
        let list = self.expected_instead(way).or(self.expect.as_ref());
        let mut all = Vec::new();
        for expectation in list.into_iter().flat_map(OneOrMany::iter) {
            match expectation.rsplit_once(" *") {
                Some((one, times)) => all.extend(std::iter::repeat_n(one.to_owned(), times.parse().unwrap())),
                None => all.push(expectation.to_owned()),
            }
        }
        if let Some(last) = all.last().cloned() {
            all.resize(all.len().max(recipients), last);
        }
        assert_eq!(all.len(), recipients, "more is expected than there are recipients");
        all
    }
}

pub fn duration(text: &str) -> std::time::Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("a time like 90s, 10m, 24h, not {text}"),
    };
    std::time::Duration::from_secs(number.parse::<u64>().unwrap() * seconds)
}
