//! The main file: TOML → [`Settings`].

use super::abuse::{ABUSE, read_abuse};
use super::customer_file::{Surroundings, folder_of};
use super::diagnostic::Problems;
use super::limits::{LIMITS, LimitTable, Scope};
use super::listen_address::listen_address;
use super::model::{
    CountAt, Listen, Log, Mail, MailRoute, OnFailure, OnOutage, OnRewrite, PolicyOptions, Relay, SenderForm, Settings,
    Store, Sync,
};
use super::networks;
use super::reader::{Item, Spec, Table};
use super::report::{Complaint, Report};
use super::source::{Source, quoted};
use super::values;
use crate::envelope::canonical_domain;
use crate::report::{Destination, Level};
use hashbrown::HashSet;
use ipnet::IpNet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

static ROOT: Spec = Spec {
    what: "the main file",
    prefix: "",
    keys: &["listen", "relay", "log", "store", "policy", "limits", "mail", "abuse"],
    neighbours: &[&LISTEN, &RELAY, &LOG, &STORE, &POLICY, &LIMITS, &MAIL, &ABUSE],
};

macro_rules! section {
    ($name:ident, $key:literal, $keys:expr) => {
        static $name: Spec = Spec {
            what: concat!("[", $key, "]"),
            prefix: concat!($key, "."),
            keys: $keys,
            neighbours: &[&LISTEN, &RELAY, &LOG, &STORE, &POLICY, &LIMITS, &MAIL],
        };
    };
}

section!(LISTEN, "listen", &["milter", "policy", "socketmap", "http", "control", "socket_mode", "socket_group"]);
section!(
    RELAY,
    "relay",
    &[
        "hostname",
        "customers",
        "on_failure",
        "drain",
        "reservation_timeout",
        "exempt_clients",
        "exempt_recipient_domains",
        "sender_forms",
        "identify_by_address",
        "sender_must_match_login",
        "max_range_addresses",
        "private_gateways",
        "gateway_transport",
    ]
);
section!(LOG, "log", &["to", "level"]);
section!(STORE, "store", &["backend", "path", "sync", "urls", "on_outage"]);
section!(POLICY, "policy", &["count_at", "on_rewrite"]);
section!(MAIL, "mail", &["from", "sendmail", "smtp", "warn_users"]);

/// What came of the main file. If there are errors, the settings are what could be read in spite of them.
#[derive(Debug)]
pub(super) struct MainFile {
    pub settings: Settings,
    pub surroundings: Surroundings,
    /// As the folder of customers is called in messages.
    pub customers: PathBuf,
    pub problems: Problems,
}

pub(super) fn read_main(source: &Source) -> MainFile {
    let (report, root) = Report::parse(source);
    let file = Table::new(&report, root.get_ref(), 0..0, &ROOT);
    let empty = DeTable::new();
    let section = |key: &'static str, spec: &'static Spec| {
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
        relay: Relay { customers: absolute(&relay.customers), ..relay.clone() },
    };
    MainFile {
        surroundings: Surroundings {
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

fn read_listen(table: &Table<'_>) -> Listen {
    let addresses = |key: &'static str| {
        let list = table.get(key).map(|item| item.parsed_list("unix:/run/relaykeeper/milter.sock", listen_address));
        list.unwrap_or_default()
    };
    let one = |key: &'static str, example: &str| table.get(key).and_then(|item| item.parsed(example, listen_address));
    let listen = Listen {
        milter: addresses("milter"),
        policy: addresses("policy"),
        socketmap: addresses("socketmap"),
        http: one("http", "127.0.0.1:9725"),
        control: one("control", "unix:/run/relaykeeper/control.sock"),
        socket_mode: table.get("socket_mode").and_then(|item| read_socket_mode(&item)).unwrap_or(0o660),
        socket_group: table.get("socket_group").and_then(|item| item.parsed("postfix", values::group)),
    };
    report_double_addresses(table);
    require_unix_control(table, &listen);
    if listen.milter.is_empty() && listen.policy.is_empty() && !table.report.has_errors() {
        let complaint = Complaint::new("no MTA can ask: neither listen.milter nor listen.policy is set", "");
        let help = "write milter = [\"unix:/var/spool/postfix/relaykeeper/milter.sock\"] below [listen]";
        table.report.warning(table.span(), complaint.help(help));
    }
    listen
}

/// Whoever reaches the control socket is an administrator: only file permissions can tell who that is.
fn require_unix_control(table: &Table<'_>, listen: &Listen) {
    if let (Some(item), Some(address)) = (table.get("control"), &listen.control)
        && !address.is_unix()
    {
        let complaint =
            Complaint::new(format!("{address} cannot be the control socket"), "anybody could command the daemon");
        item.error(complaint.help("write a unix socket, such as \"unix:/run/relaykeeper/control.sock\""));
    }
}

/// One address cannot serve two protocols, nor one twice.
fn report_double_addresses(table: &Table<'_>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for key in ["milter", "policy", "socketmap", "http", "control"] {
        let Some(item) = table.get(key) else { continue };
        let items = match item.value() {
            toml::de::DeValue::Array(_) => item.list(""),
            _ => vec![item],
        };
        for item in items {
            let toml::de::DeValue::String(text) = item.value() else { continue };
            if !seen.insert(text) {
                let complaint = Complaint::new(format!("{} is used twice", quoted(text)), "the second time");
                item.error(complaint.help("each listener needs an address of its own"));
            }
        }
    }
}

fn read_socket_mode(item: &Item<'_>) -> Option<u32> {
    let mode = item.parsed("0660", values::socket_mode)?;
    if mode & 0o002 != 0 {
        let label = "every local user could ask, and so forge counts";
        item.warning(
            Complaint::new(format!("mode {mode:04o} is open to all"), label).help("write \"0660\" and socket_group"),
        );
    }
    Some(mode)
}

fn read_relay(table: &Table<'_>, folder: &Path) -> Relay {
    let duration = |key: &'static str, example: &str, default: u64, least: u64, most: u64| {
        let bounds = (Duration::from_secs(least), Duration::from_secs(most));
        let read =
            table.get(key).and_then(|item| item.parsed(example, |text| values::duration(text, bounds.0, bounds.1)));
        read.unwrap_or(Duration::from_secs(default))
    };
    let boolean = |key: &'static str| table.get(key).and_then(|item| item.boolean()).unwrap_or(false);
    let customers = table.get("customers").and_then(|item| item.parsed("customers.d", values::path));
    let on_failure = table
        .get("on_failure")
        .and_then(|item| item.choice(&[("defer", OnFailure::Defer), ("accept", OnFailure::Accept)]));
    let exempt_clients = table.get("exempt_clients").map(|item| read_exempt_clients(&item));
    let loopback: [IpNet; 2] =
        [IpNet::new_assert([127, 0, 0, 0].into(), 8), IpNet::new_assert([0u16, 0, 0, 0, 0, 0, 0, 1].into(), 128)];
    let exempt_recipient_domains = table
        .get("exempt_recipient_domains")
        .map(|item| item.parsed_list("relay.example.net", |text| Ok(values::domain(text)?.as_str().to_owned())));
    let sender_forms = table.get("sender_forms").map(|item| read_sender_forms(&item));
    let max_range_addresses = table.get("max_range_addresses").and_then(|item| item.number(1..=1 << 32, "65_536"));
    let private_gateways = table.get("private_gateways").map(|item| item.parsed_list("10.0.0.0/8", networks::net));
    let gateway_transport = table.get("gateway_transport").and_then(|item| item.parsed("gateway", values::transport));
    Relay {
        hostname: read_hostname(table),
        customers: folder.join(customers.unwrap_or_else(|| "customers.d".into())),
        on_failure: on_failure.unwrap_or(OnFailure::Defer),
        drain: duration("drain", "30s", 30, 0, 3_600),
        reservation_timeout: duration("reservation_timeout", "10m", 600, 1, 86_400),
        exempt_clients: exempt_clients.unwrap_or_else(|| loopback.to_vec()),
        exempt_recipient_domains: exempt_recipient_domains.unwrap_or_default(),
        sender_forms: sender_forms.unwrap_or_else(|| vec![SenderForm::Plus]),
        identify_by_address: boolean("identify_by_address"),
        sender_must_match_login: boolean("sender_must_match_login"),
        max_range_addresses: max_range_addresses.unwrap_or(65_536),
        private_gateways: private_gateways.unwrap_or_default(),
        gateway_transport: gateway_transport.unwrap_or_else(|| "smtp".into()),
    }
}

/// Without the key, the host's own name.
fn read_hostname(table: &Table<'_>) -> String {
    let parse = |text: &str| {
        let name = canonical_domain(text.trim()).to_ascii_lowercase();
        if values::is_host_name(&name) && name.parse::<std::net::IpAddr>().is_err() {
            return Ok(name);
        }
        Err(Complaint::new(format!("{} is no host name", quoted(text)), "the relay's full name is expected")
            .help("write the name that the MTA gives at its greeting, such as \"relay.example.net\""))
    };
    match table.get("hostname") {
        Some(item) => item.parsed("relay.example.net", parse),
        None => nix::unistd::gethostname().ok().and_then(|name| parse(name.to_str()?).ok()),
    }
    .unwrap_or_else(|| "localhost".into())
}

fn read_exempt_clients(item: &Item<'_>) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for entry in item.list("\"127.0.0.0/8\", \"::1\"") {
        let Some(net) = entry.parsed("127.0.0.0/8", networks::net) else { continue };
        if net.prefix_len() == 0 {
            let label = "every client in the world is exempt";
            entry.warning(Complaint::new("nothing is judged", label).help("list only hosts that are not customers"));
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

fn read_log(table: &Table<'_>) -> Log {
    let destinations = [Destination::Syslog, Destination::Stderr, Destination::Journald];
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
    let to = table.get("to").and_then(|item| item.choice(&destinations.map(|to| (to.as_str(), to))));
    let level = table.get("level").and_then(|item| item.choice(&levels.map(|level| (level.as_str(), level))));
    Log { to: to.unwrap_or(Destination::Syslog), level: level.unwrap_or(Level::Info) }
}

fn read_store(table: &Table<'_>, folder: &Path) -> Store {
    let backend = table.get("backend").and_then(|item| item.choice(&[("embedded", false), ("redis", true)]));
    let path = table.get("path").and_then(|item| item.parsed("/var/lib/relaykeeper", values::path));
    let path = absolute(&folder.join(path.unwrap_or_else(|| "/var/lib/relaykeeper".into())));
    let sync = table.get("sync").and_then(|item| item.choice(&[("full", Sync::Full), ("normal", Sync::Normal)]));
    let urls = table.get("urls").map(|item| item.parsed_list("redis://10.0.0.5:6379", redis_url));
    let on_outage = table.get("on_outage").and_then(|item| {
        item.choice(&[("local", OnOutage::Local), ("defer", OnOutage::Defer), ("accept", OnOutage::Accept)])
    });
    if backend == Some(true) {
        if urls.as_ref().is_none_or(|urls| urls.is_empty()) {
            table.required("urls", "urls = [\"redis://10.0.0.5:6379\"]");
        }
        if let Some(item) = table.get("urls").filter(|item| item.value().as_array().is_some_and(|urls| urls.is_empty()))
        {
            item.error(Complaint::new("no server is named", "empty").help("write urls = [\"redis://10.0.0.5:6379\"]"));
        }
        return Store::Redis { urls: urls.unwrap_or_default(), on_outage: on_outage.unwrap_or(OnOutage::Local), path };
    }
    for key in ["urls", "on_outage"] {
        if let Some(item) = table.get(key) {
            let complaint = Complaint::new("this is for Redis", "the backend is \"embedded\"");
            item.error(complaint.help("write backend = \"redis\", or leave this line out"));
        }
    }
    Store::Embedded { path, sync: sync.unwrap_or(Sync::Full) }
}

fn redis_url(text: &str) -> Result<String, Complaint> {
    let rest = ["redis://", "rediss://", "valkey://", "valkeys://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let is_unix =
        text.strip_prefix("redis+unix:///").or(text.strip_prefix("unix:///")).is_some_and(|path| !path.is_empty());
    match rest {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ if is_unix => Ok(text.to_owned()),
        _ => Err(Complaint::new(format!("{} is no address of a Redis server", redacted(text)), "a URL is expected")
            .help("write \"redis://HOST:PORT\", with TLS \"rediss://HOST:PORT\"")),
    }
}

/// Passwords may stand in URLs.
fn redacted(url: &str) -> String {
    quoted(url.rsplit_once('@').map_or(url, |(_, host)| host))
}

fn read_policy(table: &Table<'_>) -> PolicyOptions {
    let count_at = table.get("count_at").and_then(|item| {
        item.choice(&[("auto", CountAt::Auto), ("end-of-message", CountAt::EndOfMessage), ("rcpt", CountAt::Rcpt)])
    });
    let on_rewrite = table.get("on_rewrite").and_then(|item| {
        item.choice(&[
            ("auto", OnRewrite::Auto),
            ("continue", OnRewrite::Continue),
            ("defer", OnRewrite::Defer),
            ("reject", OnRewrite::Reject),
        ])
    });
    PolicyOptions { count_at: count_at.unwrap_or(CountAt::Auto), on_rewrite: on_rewrite.unwrap_or(OnRewrite::Auto) }
}

fn read_mail(table: &Table<'_>) -> Mail {
    let from = table.get("from").and_then(|item| item.parsed("postmaster@relay.example.net", values::address));
    let sendmail_item = table.get("sendmail");
    let sendmail = sendmail_item.and_then(|item| item.parsed("/usr/sbin/sendmail", values::absolute_path));
    let smtp_item = table.get("smtp");
    let smtp = smtp_item.and_then(|item| item.parsed("127.0.0.1:25", values::host_and_port));
    if let (Some(_), Some(item)) = (sendmail_item, smtp_item) {
        item.error(Complaint::new("there is `mail.sendmail`, too", "only one of the two can be").help("leave out one"));
    }
    let route = match smtp {
        Some(smtp) => MailRoute::Smtp(smtp),
        None => MailRoute::Sendmail(sendmail.unwrap_or_else(|| "/usr/sbin/sendmail".into())),
    };
    let warn_users = table.get("warn_users").and_then(|item| item.boolean()).unwrap_or(false);
    Mail { from: from.map(|address| address.as_str().to_owned()), route, warn_users }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
