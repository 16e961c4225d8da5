//! `[store]`: where counts are kept.

use crate::config::defaults::store as default;
use crate::config::reading::{Complaint, Table, TableSpec, quoted};
use crate::config::values;
use std::path::{Path, PathBuf};

pub(super) static STORE: TableSpec =
    TableSpec { what: "[store]", prefix: "store.", keys: &["backend", "path", "sync", "urls", "on_outage"] };

/// `[store]`
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    Embedded { path: PathBuf, sync: Sync },
    Redis { urls: Vec<String>, on_outage: OnOutage, path: PathBuf },
}

impl Store {
    /// The folder of everything that is stored on this machine.
    pub fn path(&self) -> &Path {
        match self {
            Store::Embedded { path, .. } | Store::Redis { path, .. } => path,
        }
    }
}

/// When a count is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before the reply.
    Full,
    /// Within a second.
    Normal,
}

/// What happens to mail while the shared store is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// It is counted on this machine, and merged when the store is back.
    Local,
    Defer,
    /// It passes, and is counted when the store is back.
    Accept,
}

pub(super) fn read_store(table: &Table<'_>, folder: &Path) -> Store {
    let backend = table.get("backend").and_then(|item| item.choice(&[("embedded", false), ("redis", true)]));
    let path = table.get("path").and_then(|item| item.parsed("/var/lib/relaykeeper", values::path));
    let path = values::absolute(&folder.join(path.unwrap_or_else(|| default::PATH.into())));
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
        return Store::Redis {
            urls: urls.unwrap_or_default(),
            on_outage: on_outage.unwrap_or(default::ON_OUTAGE),
            path,
        };
    }
    for key in ["urls", "on_outage"] {
        if let Some(item) = table.get(key) {
            let complaint = Complaint::new("only valid with the Redis backend", "the backend is \"embedded\"");
            item.error(complaint.help("write backend = \"redis\", or remove this line"));
        }
    }
    Store::Embedded { path, sync: sync.unwrap_or(default::SYNC) }
}

fn redis_url(text: &str) -> Result<String, Complaint> {
    let rest = ["redis://", "rediss://", "valkey://", "valkeys://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let is_unix =
        text.strip_prefix("redis+unix:///").or(text.strip_prefix("unix:///")).is_some_and(|path| !path.is_empty());
    match rest {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ if is_unix => Ok(text.to_owned()),
        _ => Err(Complaint::new(
            format!("{} is not a valid Redis URL", redacted(text)),
            "expected redis:// or rediss://",
        )
        .help("write \"redis://HOST:PORT\", with TLS \"rediss://HOST:PORT\"")),
    }
}

/// Passwords may stand in URLs.
fn redacted(url: &str) -> String {
    quoted(url.rsplit_once('@').map_or(url, |(_, host)| host))
}
