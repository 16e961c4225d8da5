//! The main file: TOML → [`Settings`]. Each section has a file: its keys, what it says, how it is read. What a key means
//! is in relaykeeper.toml(5).

mod abuse;
mod listen;
mod log;
mod mail;
mod policy;
mod relay;
mod store;
mod verdict_headers;

pub use abuse::{AbuseSettings, MAX_NETWORKS, OnAbuse, Thresholds};
pub use listen::Listen;
pub(super) use listen::listen_address;
pub use log::Log;
pub use mail::{Mail, MailRoute};
pub use policy::{CountAt, OnRewrite, PolicyOptions};
pub use relay::{LocalSubmission, OnFailure, Relay, SenderForm};
pub use store::{OnOutage, Store, Sync};
pub use verdict_headers::{NotAVerdict, VerdictHeader, VerdictHeaders};

use super::customer_file::{CUSTOMER_FILE, CustomerContext, folder_of};
use super::limits::{self, ConnectionLimits, LimitRules, LimitTable, Scope};
use super::reading::{FileReport, FileSpec, Problems, Source, TOP_LEVEL, Table, TableSpec};
use super::values;
use abuse::{ABUSE, read_abuse};
use listen::{LISTEN, read_listen};
use log::{LOG, read_log};
use mail::{MAIL, read_mail};
use policy::{POLICY, read_policy};
use relay::{RELAY, read_relay};
use std::path::PathBuf;
use store::{STORE, read_store};
use toml::de::DeTable;

static ROOT: TableSpec = TableSpec {
    what: TOP_LEVEL,
    prefix: "",
    keys: &["listen", "relay", "log", "store", "policy", "limits", "mail", "abuse"],
};

/// Every table of the file.
pub(super) static MAIN_FILE: FileSpec = FileSpec {
    what: "the main file",
    tables: &[
        &ROOT,
        &LISTEN,
        &RELAY,
        &LOG,
        &STORE,
        &POLICY,
        &limits::LIMITS,
        &limits::TRANSACTION,
        &limits::USER,
        &limits::CUSTOMER,
        &limits::UNPAID,
        &limits::LOGIN,
        &limits::CONNECTION,
        &limits::MESSAGE,
        &MAIL,
        &ABUSE,
    ],
    other: Some(&CUSTOMER_FILE),
};

/// `relaykeeper.toml`, every value checked and every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub listen: Listen,
    pub relay: Relay,
    pub log: Log,
    pub store: Store,
    pub policy: PolicyOptions,
    pub limits: LimitRules,
    pub connection: ConnectionLimits,
    pub mail: Mail,
    /// `None`: no account is watched for abuse.
    pub abuse: Option<AbuseSettings>,
}

impl Settings {
    /// Whether the headers of messages have to be seen.
    pub fn needs_headers(&self) -> bool {
        self.abuse.as_ref().is_some_and(|abuse| !abuse.verdict_headers.is_empty())
    }
}

/// What came of the main file. If there are errors, the settings are what could be read in spite of them.
#[derive(Debug)]
pub(in crate::config) struct MainFile {
    pub settings: Settings,
    pub context: CustomerContext,
    /// As the folder of customers is called in messages.
    pub customers: PathBuf,
    pub problems: Problems,
}

pub(in crate::config) fn read_main(source: &Source) -> MainFile {
    let (report, root) = FileReport::parse(source, &MAIN_FILE);
    let file = Table::new(&report, root.get_ref(), 0..0, &ROOT);
    let empty = DeTable::new();
    let section = |key: &'static str, spec: &'static TableSpec| {
        file.table(key, spec).unwrap_or_else(|| Table::new(&report, &empty, 0..0, spec))
    };
    let limits = LimitTable::read(&file, Scope::Installation);
    let relay = read_relay(&section("relay", &RELAY), folder_of(&source.path));
    let listen = read_listen(&section("listen", &LISTEN));
    let settings = Settings {
        log: read_log(&section("log", &LOG)),
        store: read_store(&section("store", &STORE), folder_of(&source.path)),
        policy: read_policy(&section("policy", &POLICY)),
        limits: limits.rules(),
        connection: limits.connection(),
        mail: read_mail(&section("mail", &MAIL)),
        abuse: file.table("abuse", &ABUSE).map(|table| read_abuse(&table, !listen.milter.is_empty())),
        listen,
        relay: Relay { customers: values::absolute(&relay.customers), ..relay.clone() },
    };
    MainFile {
        context: CustomerContext {
            limits,
            max_range_addresses: settings.relay.max_range_addresses,
            private_gateways: settings.relay.private_gateways.clone(),
            has_milter: !settings.listen.milter.is_empty(),
            has_socketmap: !settings.listen.socketmap.is_empty(),
        },
        settings,
        customers: relay.customers,
        problems: report.into_problems(),
    }
}
