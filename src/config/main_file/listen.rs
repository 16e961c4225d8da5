//! `[listen]`: the sockets.

use crate::config::defaults::listen as default;
use crate::config::reading::{Complaint, Item, Table, TableSpec, quoted};
use crate::config::values::{self, networks};
use crate::listen::{ListenAddress, Peer};
use hashbrown::HashSet;
use ipnet::IpNet;
use toml::de::DeValue;

pub(super) static LISTEN: TableSpec = TableSpec {
    what: "[listen]",
    prefix: "listen.",
    keys: &["milter", "policy", "socketmap", "http", "allow", "control", "socket_mode", "socket_group"],
};

/// `[listen]`. Whether the addresses can be bound is not known before the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    pub milter: Vec<ListenAddress>,
    pub policy: Vec<ListenAddress>,
    pub socketmap: Vec<ListenAddress>,
    pub http: Option<ListenAddress>,
    /// The MTAs that may connect to TCP sockets.
    pub allow: Vec<IpNet>,
    pub control: Option<ListenAddress>,
    /// Permission bits of unix sockets.
    pub socket_mode: u32,
    pub socket_group: Option<String>,
}

impl Listen {
    /// Every address, with its key and its place in the key's list.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, usize, &ListenAddress)> {
        fn list<'l>(
            key: &'static str,
            addresses: &'l [ListenAddress],
        ) -> impl Iterator<Item = (&'static str, usize, &'l ListenAddress)> {
            addresses.iter().enumerate().map(move |(n, address)| (key, n, address))
        }
        list("listen.milter", &self.milter)
            .chain(list("listen.policy", &self.policy))
            .chain(list("listen.socketmap", &self.socketmap))
            .chain(self.control.iter().map(|address| ("listen.control", 0, address)))
    }

    /// Whether an MTA there may connect: always on this host.
    pub fn admits_mta(&self, peer: Peer) -> bool {
        match peer {
            Peer::Local => true,
            Peer::Ip(address) => address.is_loopback() || self.allow.iter().any(|net| net.contains(&address)),
        }
    }

    /// Keys that are set, but not served by this version.
    pub fn unserved(&self) -> Vec<&'static str> {
        self.http.is_some().then_some("listen.http").into_iter().collect()
    }
}

pub(super) fn read_listen(table: &Table<'_>) -> Listen {
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
        allow: table.get("allow").map(|item| item.parsed_list("192.0.2.10", networks::net)).unwrap_or_default(),
        control: one("control", "unix:/run/relaykeeper/control.sock"),
        socket_mode: table
            .get("socket_mode")
            .and_then(|item| item.parsed("0660", values::socket_mode))
            .unwrap_or(default::SOCKET_MODE),
        socket_group: table.get("socket_group").and_then(|item| item.parsed("postfix", values::group)),
    };
    report_double_addresses(table);
    require_unix_control(table, &listen);
    require_allowed_mtas(table, &listen);
    report_open_mode(table, &listen);
    if listen.milter.is_empty() && listen.policy.is_empty() && !table.report.has_errors() {
        let complaint = Complaint::new("no MTA can connect: neither listen.milter nor listen.policy is set", "");
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
        let complaint = Complaint::new(
            format!("{address} cannot be used as the control socket"),
            "anybody could control the daemon",
        );
        item.error(complaint.help("write a unix socket, such as \"unix:/run/relaykeeper/control.sock\""));
    }
}

/// One address cannot serve two protocols, nor one twice.
fn report_double_addresses(table: &Table<'_>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for key in ["milter", "policy", "socketmap", "http", "control"] {
        let Some(item) = table.get(key) else { continue };
        let items = match item.value() {
            DeValue::Array(_) => item.list(""),
            _ => vec![item],
        };
        for item in items {
            let DeValue::String(text) = item.value() else { continue };
            if !seen.insert(text) {
                let complaint = Complaint::new(format!("{} is used twice", quoted(text)), "the second time");
                item.error(complaint.help("each listener needs an address of its own"));
            }
        }
    }
}

/// Whoever reaches these sockets can forge counts: on TCP only addresses can tell who that is.
fn require_allowed_mtas(table: &Table<'_>, listen: &Listen) {
    let is_given = |item: &Item<'_>| !matches!(item.value(), DeValue::Array(list) if list.is_empty());
    if table.get("allow").is_some_and(|item| is_given(&item)) {
        return;
    }
    for (key, addresses) in [("milter", &listen.milter), ("policy", &listen.policy)] {
        let (Some(item), Some(address)) = (table.get(key), addresses.iter().find(|address| !address.is_local())) else {
            continue;
        };
        let title = format!("{address} can be reached from other hosts, and listen.allow names none");
        let complaint = Complaint::new(title, "every host that reaches it could forge counts");
        let help = "write allow = [\"192.0.2.10\"] below [listen], with the addresses of the MTAs that may connect, or listen \
                    on a unix socket";
        item.error(complaint.help(help));
    }
}

/// Write permission is what connecting to a unix socket needs.
fn report_open_mode(table: &Table<'_>, listen: &Listen) {
    let (mode, Some(item)) = (listen.socket_mode, table.get("socket_mode")) else { return };
    if mode & 0o002 == 0 {
        return;
    }
    let title = format!("mode {mode:04o} is open to all");
    if listen.socketmap.iter().any(ListenAddress::is_unix) {
        let label = "every local user could read the passwords of gateways";
        let help = "write \"0660\" and socket_group; or move listen.socketmap to a TCP socket of this host, which serves no passwords";
        item.error(Complaint::new(title, label).help(help));
    } else {
        let label = "every local user could connect and forge counts";
        item.warning(Complaint::new(title, label).help("write \"0660\" and socket_group"));
    }
}

pub(in crate::config) fn listen_address(text: &str) -> Result<ListenAddress, Complaint> {
    text.parse::<ListenAddress>().map_err(|error| {
        Complaint::new(format!("{} {}", quoted(text), error.problem()), "expected unix:/PATH or inet:HOST:PORT")
            .help(error.advice())
    })
}
