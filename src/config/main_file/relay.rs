//! `[relay]`: who the relay is, where its customers are, and how mail is judged in general.

use crate::config::defaults::relay as default;
use crate::config::reading::{Complaint, Item, Table, TableSpec, quoted};
use crate::config::values::{self, networks};
use crate::envelope::canonical_domain;
use ipnet::IpNet;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) static RELAY: TableSpec = TableSpec {
    what: "[relay]",
    prefix: "relay.",
    keys: &[
        "hostname",
        "user",
        "customers",
        "on_failure",
        "drain",
        "reservation_timeout",
        "exempt_clients",
        "exempt_recipient_domains",
        "sender_forms",
        "identify_by_address",
        "sender_must_match_login",
        "tls_assumed_from",
        "trust_proxied_tls",
        "local_submission",
        "max_range_addresses",
        "private_gateways",
        "gateway_transport",
    ],
};

/// `[relay]`
#[derive(Clone, Debug, PartialEq)]
pub struct Relay {
    /// In lower case.
    pub hostname: String,
    /// The user that the daemon becomes if root starts it.
    pub user: Option<String>,
    /// The folder of customer files, absolute.
    pub customers: PathBuf,
    pub on_failure: OnFailure,
    /// How long a stop waits for open transactions; at most an hour.
    pub drain: Duration,
    /// How long a reservation lasts, 1 s to 1 d. A message that ends later is evaluated again.
    pub reservation_timeout: Duration,
    pub exempt_clients: Vec<IpNet>,
    /// In canonical form, as in [`crate::envelope::canonical_domain`].
    pub exempt_recipient_domains: Vec<String>,
    pub sender_forms: Vec<SenderForm>,
    pub identify_by_address: bool,
    pub sender_must_match_login: bool,
    /// Connections from these addresses count as encrypted, though the MTA reports no TLS.
    pub tls_assumed_from: Vec<IpNet>,
    /// A login that Postfix got by XCLIENT counts as encrypted: the proxy in front of it ended TLS.
    pub trust_proxied_tls: bool,
    /// What becomes of mail from sendmail(1); `None`: as `exempt_clients` says.
    pub local_submission: Option<LocalSubmission>,
    /// The largest range of a customer: at least 1; in IPv6 a /64 counts as one address.
    pub max_range_addresses: u64,
    /// Loopback and private networks in which gateways may be.
    pub private_gateways: Vec<IpNet>,
    /// Postfix's transport (master(5)) for users' gateways.
    pub gateway_transport: String,
}

/// What happens to mail when no decision can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Defer,
    Accept,
}

/// What becomes of mail that sendmail(1) hands in, and Postfix's `non_smtpd_milters` ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalSubmission {
    /// Judged, also where `exempt_clients` holds the loopback address.
    Judge,
    /// Passed and counted nowhere.
    Exempt,
}

/// Spellings of a user's address that are that user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderForm {
    /// `user+tag@` is `user@`.
    Plus,
    /// `prvs=TAG=user@` is `user@`.
    Batv,
    /// `SRS0=HASH=TT=DOMAIN=user@relay` is `user@DOMAIN`.
    Srs,
}

/// `folder` is that of the main file. `customers` is relative to it as it is written, for messages.
pub(super) fn read_relay(table: &Table<'_>, folder: &Path) -> Relay {
    let duration = |key: &'static str, example: &str, default: Duration, least: u64, most: u64| {
        let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
        let read = table.get(key).and_then(|item| item.parsed(example, |text| values::duration(text, least, most)));
        read.unwrap_or(default)
    };
    let boolean = |key: &'static str, default: bool| table.get(key).and_then(|item| item.boolean()).unwrap_or(default);
    let customers = table.get("customers").and_then(|item| item.parsed("customers.d", values::path));
    let on_failure = table
        .get("on_failure")
        .and_then(|item| item.choice(&[("defer", OnFailure::Defer), ("accept", OnFailure::Accept)]));
    let local_submission = table
        .get("local_submission")
        .and_then(|item| item.choice(&[("judge", LocalSubmission::Judge), ("exempt", LocalSubmission::Exempt)]));
    let nets = |key: &'static str, example: &str, everybody: [&'static str; 2]| {
        table.get(key).map(|item| read_nets(&item, example, everybody))
    };
    let exempt_clients =
        nets("exempt_clients", "\"127.0.0.0/8\", \"::1\"", ["no mail is checked", "every client is exempt"]);
    let tls_assumed_from = nets(
        "tls_assumed_from",
        "\"127.0.0.1\", \"::1\"",
        ["require_tls demands nothing", "every connection counts as encrypted"],
    );
    let exempt_recipient_domains = table
        .get("exempt_recipient_domains")
        .map(|item| item.parsed_list("relay.example.net", |text| Ok(values::domain(text)?.as_str().to_owned())));
    let sender_forms = table.get("sender_forms").map(|item| read_sender_forms(&item));
    let max_range_addresses = table.get("max_range_addresses").and_then(|item| item.number(1..=1 << 32, "65_536"));
    let private_gateways = table.get("private_gateways").map(|item| item.parsed_list("10.0.0.0/8", networks::net));
    let gateway_transport = table.get("gateway_transport").and_then(|item| item.parsed("gateway", values::transport));
    Relay {
        hostname: read_hostname(table),
        user: table.get("user").and_then(|item| item.parsed("relaykeeper", values::user)),
        customers: folder.join(customers.unwrap_or_else(|| default::CUSTOMERS.into())),
        on_failure: on_failure.unwrap_or(default::ON_FAILURE),
        drain: duration("drain", "30s", default::DRAIN, 0, 3_600),
        reservation_timeout: duration("reservation_timeout", "10m", default::RESERVATION_TIMEOUT, 1, 86_400),
        exempt_clients: exempt_clients.unwrap_or_else(|| default::EXEMPT_CLIENTS.to_vec()),
        exempt_recipient_domains: exempt_recipient_domains.unwrap_or_default(),
        sender_forms: sender_forms.unwrap_or_else(|| default::SENDER_FORMS.to_vec()),
        identify_by_address: boolean("identify_by_address", default::IDENTIFY_BY_ADDRESS),
        sender_must_match_login: boolean("sender_must_match_login", default::SENDER_MUST_MATCH_LOGIN),
        tls_assumed_from: tls_assumed_from.unwrap_or_default(),
        trust_proxied_tls: boolean("trust_proxied_tls", default::TRUST_PROXIED_TLS),
        local_submission,
        max_range_addresses: max_range_addresses.unwrap_or(default::MAX_RANGE_ADDRESSES),
        private_gateways: private_gateways.unwrap_or_default(),
        gateway_transport: gateway_transport.unwrap_or_else(|| default::GATEWAY_TRANSPORT.into()),
    }
}

/// Without the key, the host's own name.
fn read_hostname(table: &Table<'_>) -> String {
    let parse = |text: &str| {
        let name = canonical_domain(text.trim()).to_ascii_lowercase();
        if values::is_host_name(&name) && name.parse::<std::net::IpAddr>().is_err() {
            return Ok(name);
        }
        Err(Complaint::new(
            format!("{} is not a valid host name", quoted(text)),
            "expected the relay's fully qualified name",
        )
        .help("write the name in the MTA's greeting, such as \"relay.example.net\""))
    };
    match table.get("hostname") {
        Some(item) => item.parsed("relay.example.net", parse),
        None => nix::unistd::gethostname().ok().and_then(|name| parse(name.to_str()?).ok()),
    }
    .unwrap_or_else(|| "localhost".into())
}

/// `everybody`: what a range of all addresses brings about, and why, for the warning.
fn read_nets(item: &Item<'_>, example: &str, everybody: [&'static str; 2]) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for entry in item.list(example) {
        let Some(net) = entry.parsed("127.0.0.0/8", networks::net) else { continue };
        if net.prefix_len() == 0 {
            let [effect, label] = everybody;
            entry.warning(Complaint::new(effect, label).help("list only hosts of your own"));
        }
        nets.push(net);
    }
    nets
}

fn read_sender_forms(item: &Item<'_>) -> Vec<SenderForm> {
    let words = [("plus", SenderForm::Plus), ("batv", SenderForm::Batv), ("srs", SenderForm::Srs)];
    let mut forms: Vec<SenderForm> = Vec::new();
    for form in item.list("\"plus\"").iter().filter_map(|item| item.choice(&words)) {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}
