//! Sendmail: what its sendmail.cf and its maps say, and what that means for relaykeeper.
//!
//! ```text
//!   cf         sendmail.cf, read
//!   facts      what else the host says: the program, its maps, the running process
//!   filters    is the milter asked, in good order, and what happens without it
//!   relaying   who may relay, and whose mail is delivered here
//!   services   limits, TLS, AUTH; whether what was read is what runs
//! ```

mod cf;
mod facts;
mod filters;
mod relaying;
mod services;

pub use facts::{find_cf, gather};

use super::{Finding, Severity};
use crate::config::Settings;
use crate::directory::Directory;
use crate::envelope::parse_client;
use crate::listen::ListenAddress;
use cf::{Daemon, Filter, SendmailCf};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

/// A Sendmail, and the relaykeeper that it is to ask.
pub struct Sendmail<'a> {
    pub(super) cf: SendmailCf,
    relaykeeper: Relaykeeper<'a>,
    /// `Connect:` keys of customers' ranges, as `export sendmail-access` has them.
    exported: Vec<String>,
    access: Access,
    /// Class w as the program has it; `None`: it could not be asked.
    class_w: Option<Vec<String>>,
    /// `$j`, if it is known.
    host_name: Option<String>,
    has_milter: Option<bool>,
    /// When sendmail.cf was written, and the daemon started.
    written: Option<SystemTime>,
    started: Option<SystemTime>,
    /// The m4 source beside it, and when that was written.
    mc: Option<(PathBuf, SystemTime)>,
}

/// What matters of relaykeeper's configuration.
pub(super) struct Relaykeeper<'a> {
    settings: &'a Settings,
    hostname: String,
    needs_auth: bool,
    needs_tls: bool,
    transaction_recipients: Option<u64>,
    simultaneous: Option<u64>,
    /// The daemon does not run.
    is_down: bool,
}

/// The access map.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// Its `K` line.
    line: usize,
    /// Its text, without `.db`.
    path: Option<PathBuf>,
    is_missing: bool,
    /// Keys and values; `None`: they could not be read.
    entries: Option<Vec<(String, String)>>,
    is_older_than_text: bool,
    /// Older than the customers' files.
    is_old: bool,
}

impl<'a> Relaykeeper<'a> {
    pub fn of(settings: &'a Settings, directory: &Directory, is_down: bool) -> Relaykeeper<'a> {
        let enabled =
            || directory.customers().flat_map(|customer| &customer.settings).filter(|setting| setting.enabled);
        let most = directory.customers().filter_map(|customer| customer.limits.transaction_recipients.max).max();
        Relaykeeper {
            settings,
            hostname: settings.relay.hostname.clone(),
            needs_auth: enabled().any(|setting| setting.require_auth),
            needs_tls: enabled().any(|setting| setting.require_tls),
            transaction_recipients: most,
            simultaneous: settings.connection.simultaneous.in_force(1).max,
            is_down,
        }
    }

    fn is_exempt(&self, net: &IpNet) -> bool {
        self.settings.relay.exempt_clients.iter().any(|exempt| exempt.contains(net))
    }

    fn exempts_domain(&self, domain: &str) -> bool {
        self.settings.relay.exempt_recipient_domains.iter().any(|exempt| exempt == domain)
    }
}

impl Sendmail<'_> {
    /// Everything that is found about it.
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        filters::check(self, &mut findings);
        relaying::check(self, &mut findings);
        services::check(self, &mut findings);
        self.not_looked_at(&mut findings);
        findings
    }

    /// What the host did not say.
    fn not_looked_at(&self, findings: &mut Vec<Finding>) {
        if self.has_milter.is_none() {
            let why = "no program of this Sendmail was found, or it does not answer";
            findings.push(Finding::not_looked_at(
                self.at(0, ""),
                "class w, $j, and whether it was built with MILTER",
                why,
            ));
        }
        if let Some(path) =
            self.access.path.as_ref().filter(|_| !self.access.is_missing && self.access.entries.is_none())
        {
            let why = "makemap -u cannot read the map: it was only compared by age";
            findings.push(Finding::not_looked_at(path.display().to_string(), "who may relay by the access map", why));
        }
    }

    /// The services that somebody may connect to.
    pub fn services(&self) -> Vec<Service> {
        let daemons = self.cf.daemons().into_iter();
        let service = |daemon: Daemon| Service {
            place: self.at(daemon.line, &daemon.title()),
            address: parse_client(&daemon.address),
            family: daemon.family.clone(),
            port: daemon.port.clone(),
        };
        daemons.map(service).collect()
    }

    /// `O RunAsUser`: whom it connects as; `None`: root.
    pub fn run_as_user(&self) -> Option<String> {
        let user = self.cf.value("RunAsUser").split([':', '.']).next().unwrap_or_default().trim();
        (!user.is_empty() && user != "root" && user != "0").then(|| user.to_owned())
    }

    /// `FILE:LINE TITLE`; line 0 is the whole file.
    fn at(&self, line: usize, title: &str) -> String {
        let mut place = self.cf.path.display().to_string();
        if line > 0 {
            place.push_str(&format!(":{line}"));
        }
        if !title.is_empty() {
            place.push_str(&format!(" {title}"));
        }
        place
    }

    fn is_ours(&self, filter: &Filter) -> bool {
        let Some(address) = filters::socket(&filter.socket) else { return false };
        self.relaykeeper.settings.listen.milter.iter().any(|ours| super::host::is_same_socket(ours, &address))
    }

    fn is_meant_as_ours(&self, filter: &Filter) -> bool {
        // Of a path its last folder and the file.
        let mut parts = filter.socket.rsplit('/');
        let is_in_path = parts.by_ref().take(2).any(|part| part.contains("relaykeeper"));
        filter.name.contains("relaykeeper") || is_in_path || self.is_ours(filter)
    }

    /// The name of the filter that is ours, or should be.
    fn name_of_ours(&self) -> String {
        let ours = self.cf.filters.iter().find(|filter| self.is_ours(filter));
        ours.map_or_else(|| "relaykeeper".to_owned(), |filter| filter.name.clone())
    }

    /// The line of sendmail.mc that is right.
    fn filter_line(&self) -> String {
        let socket = match self.relaykeeper.settings.listen.milter.first() {
            Some(ListenAddress::Unix(path)) => format!("local:{}", path.display()),
            Some(ListenAddress::Tcp { host, port }) => match host {
                crate::listen::address::Host::Ip(IpAddr::V6(ip)) => format!("inet6:{port}@{ip}"),
                crate::listen::address::Host::Ip(ip) => format!("inet:{port}@{ip}"),
                crate::listen::address::Host::Name(name) => format!("inet:{port}@{name}"),
                crate::listen::address::Host::NameOfIpv6(name) => format!("inet6:{port}@{name}"),
            },
            None => "local:/run/relaykeeper/milter.sock".to_owned(),
        };
        let name = self.name_of_ours();
        format!("INPUT_MAIL_FILTER(`{name}', `S={socket}, F=T, T=C:1m;S:30s;R:30s;E:5m')dnl, after all others")
    }

    /// Whether all who get through to the service are exempt: nobody there has to be judged.
    fn is_closed(&self, daemon: &Daemon) -> bool {
        let exempt = &self.relaykeeper.settings.relay.exempt_clients;
        let all = |net: &str| net.parse::<IpNet>().is_ok_and(|net| exempt.iter().any(|wide| wide.contains(&net)));
        match parse_client(&daemon.address) {
            Some(IpAddr::V4(address)) if address.is_loopback() => all("127.0.0.0/8"),
            Some(IpAddr::V6(address)) if address.is_loopback() => all("::1/128"),
            _ => false,
        }
    }

    /// The words of a class, those of its files included.
    fn class_words(&self, name: &str) -> BTreeSet<String> {
        let Some(class) = self.cf.class(name) else { return BTreeSet::new() };
        let files = class.files.iter().filter_map(|file| crate::files::read_regular(file, cf::MAX_BYTES).ok());
        let lines: Vec<String> = files.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let first_words = lines.iter().filter_map(|line| line.split('#').next()?.split_whitespace().next());
        class.words.iter().cloned().chain(first_words.map(str::to_owned)).collect()
    }

    fn class_r(&self) -> Vec<String> {
        self.class_words("R").into_iter().collect()
    }
}

/// A service of Sendmail's, for the canary.
#[derive(Clone, Debug)]
pub struct Service {
    pub place: String,
    pub address: Option<IpAddr>,
    pub family: String,
    /// A number or a name.
    pub port: String,
}

fn say(
    findings: &mut Vec<Finding>,
    id: &'static str,
    severity: Severity,
    place: String,
    found: String,
    why: &str,
    write: Option<String>,
) {
    findings.push(Finding::new(id, severity, place, found, why, write));
}

#[cfg(test)]
mod tests;
