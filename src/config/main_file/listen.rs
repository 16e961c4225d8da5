//! `[listen]`: the sockets.

use crate::config::defaults::listen as default;
use crate::config::reading::{Complaint, Item, Table, TableSpec, quoted};
use crate::config::values;
use crate::listen::ListenAddress;
use hashbrown::HashSet;
use toml::de::DeValue;

pub(super) static LISTEN: TableSpec = TableSpec {
    what: "[listen]",
    prefix: "listen.",
    keys: &["milter", "policy", "socketmap", "http", "control", "socket_mode", "socket_group"],
};

/// `[listen]`. Whether the addresses can be bound is not known before the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    pub milter: Vec<ListenAddress>,
    pub policy: Vec<ListenAddress>,
    pub socketmap: Vec<ListenAddress>,
    pub http: Option<ListenAddress>,
    pub control: Option<ListenAddress>,
    /// Permission bits of unix sockets.
    pub socket_mode: u32,
    pub socket_group: Option<String>,
}

impl Listen {
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
        control: one("control", "unix:/run/relaykeeper/control.sock"),
        socket_mode: table.get("socket_mode").and_then(|item| read_socket_mode(&item)).unwrap_or(default::SOCKET_MODE),
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

fn listen_address(text: &str) -> Result<ListenAddress, Complaint> {
    text.parse::<ListenAddress>().map_err(|error| {
        Complaint::new(format!("{} {}", quoted(text), error.problem()), "not an address to listen at")
            .help(error.advice())
    })
}
