//! `suspend` and `resume` of users, customers, logins and clients.

use super::protocol::Response;
use super::quota::{LOGIN, find_subject};
use super::service::ControlService;
use crate::administration::Receipt;
use crate::audit::Instruction;
use crate::directory::{Directory, Owner, SubjectKind};
use crate::envelope::{Address, canonical_ip, canonical_login};
use crate::orders::{Target, TargetKind};
use crate::report::{Level, LogLine};
use ipnet::IpNet;
use jiff::Timestamp;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest login, in bytes; the MTA says none that is longer.
const MAX_LOGIN: usize = 512;

impl ControlService {
    pub(super) async fn suspend(
        &self,
        kind: TargetKind,
        name: &str,
        until: Option<Timestamp>,
        order: Instruction,
    ) -> Response {
        let target = match find(kind, name, &self.engine.snapshot().directory) {
            Ok(target) => target,
            Err(words) => return Response::No { words },
        };
        match self.engine.administration.suspend(target.clone(), until, order.clone()).await {
            Ok(completed) => {
                self.log_order("suspend", &target, &order, &completed.receipt);
                let again =
                    completed.outcome.map_or_else(String::new, |before| format!(" (since {} already)", before.since));
                let until = until.map_or_else(String::new, |until| format!(" until {until}"));
                let (mail, note) = match kind {
                    TargetKind::Client => ("all mail from there", self.note_on_exempt_clients(&target)),
                    TargetKind::Login => ("all mail with this login", ""),
                    TargetKind::Customer | TargetKind::User => ("all its mail", ""),
                };
                let words =
                    format!("{} {} is suspended{until}{again}: {mail} is refused{note}", kind.key(), target.name);
                Response::Done { words }
            }
            Err(error) => Response::No { words: error.to_string() },
        }
    }

    pub(super) async fn resume(&self, kind: TargetKind, name: &str, order: Instruction) -> Response {
        let found = find(kind, name, &self.engine.snapshot().directory);
        let target = match self.suspended_by_name(kind, name, order.at).map_or(found, Ok) {
            Ok(target) => target,
            Err(words) => return Response::No { words },
        };
        match self.engine.administration.resume(target.clone(), order.clone()).await {
            Ok(completed) => {
                self.log_order("resume", &target, &order, &completed.receipt);
                Response::Done { words: format!("{} {} may send again", kind.key(), target.name) }
            }
            Err(error) => Response::No { words: error.to_string() },
        }
    }

    /// Whoever was suspended under this name, configured or not.
    fn suspended_by_name(&self, kind: TargetKind, name: &str, now: Timestamp) -> Option<Target> {
        let orders = self.engine.administration.orders();
        let suspension = match kind {
            TargetKind::Customer => orders.suspended_customer(name, now),
            TargetKind::User => orders.suspended_user(Address::from_either(name).ok()?.as_str(), now),
            TargetKind::Login | TargetKind::Client => None,
        };
        suspension.map(|suspension| suspension.target.clone())
    }

    /// `exempt_clients` comes before suspensions of clients.
    fn note_on_exempt_clients(&self, target: &Target) -> &'static str {
        let snapshot = self.engine.snapshot();
        let Ok(suspended) = net_of(&target.name) else { return "" };
        let overlaps = |exempt: &IpNet| exempt.contains(&suspended) || suspended.contains(exempt);
        match snapshot.settings.relay.exempt_clients.iter().any(overlaps) {
            true => ", except without a login from addresses in relay.exempt_clients",
            false => "",
        }
    }

    pub(super) fn log_order(&self, event: &'static str, target: &Target, order: &Instruction, receipt: &Receipt) {
        let line = LogLine::event(event)
            .field("kind", target.kind.key())
            .field("name", &target.name)
            .optional("customer", Some(&target.customer).filter(|customer| !customer.is_empty()))
            .field("by", &order.by)
            .field("audit", receipt)
            .optional("why", Some(&order.why).filter(|why| !why.is_empty()));
        self.engine.log.write(Level::Info, line);
    }
}

fn find(kind: TargetKind, name: &str, directory: &Directory) -> Result<Target, String> {
    match kind {
        TargetKind::Client => net_of(name).and_then(not_this_host).map(Target::client),
        TargetKind::Login => login(name, directory),
        TargetKind::Customer | TargetKind::User => find_registered(kind, name, directory),
    }
}

fn find_registered(kind: TargetKind, name: &str, directory: &Directory) -> Result<Target, String> {
    let login = |name: &str| {
        let login = name.strip_prefix(LOGIN).unwrap_or(name);
        format!("write `relaykeeper login suspend {login}` for a login")
    };
    if name.starts_with(LOGIN) {
        return Err(format!("\"{name}\" is not a {}; {}", kind.key(), login(name)));
    }
    let (subject, _) = match find_subject(name, directory) {
        Ok(found) => found,
        Err(error) if kind == TargetKind::User => return Err(format!("{error}; {}", login(name))),
        Err(_) => return Err(format!("\"{name}\" is not a customer")),
    };
    match (kind, subject.kind) {
        (TargetKind::User, SubjectKind::Customer) => {
            Err(format!("\"{name}\" is a customer: write `relaykeeper customer` instead of `relaykeeper user`"))
        }
        (TargetKind::Customer, SubjectKind::User) => {
            Err(format!("\"{name}\" is a user: write `relaykeeper user` instead of `relaykeeper customer`"))
        }
        _ => Ok(subject.into()),
    }
}

/// Registered or not: what an MTA's own logins are is not known here.
fn login(name: &str, directory: &Directory) -> Result<Target, String> {
    let login = canonical_login(name.strip_prefix(LOGIN).unwrap_or(name).trim());
    if login.is_empty() || login.len() > MAX_LOGIN {
        return Err(format!("not a login: write 1 to {MAX_LOGIN} bytes"));
    }
    let by_domain = || match directory.owner_of_domain(login.rsplit_once('@')?.1)?.owner {
        Owner::Customer(customer) => Some(customer),
        Owner::Unusable => None,
    };
    let owner = directory.owner_of_login(&login).map(|(customer, _)| customer).or_else(by_domain);
    let customer = owner.map_or_else(|| "".into(), |customer| customer.name.clone());
    Ok(Target { kind: TargetKind::Login, customer, name: login.into() })
}

/// An IP address or a range; one of IPv4-mapped IPv6 addresses is one of IPv4.
fn net_of(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let net = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
    let net = net.map_err(|_| {
        format!("\"{text}\" is not an IP address or range; write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")
    })?;
    match (canonical_ip(net.addr()), net.prefix_len()) {
        (IpAddr::V4(address), length) if net.addr().is_ipv6() => match length.checked_sub(96) {
            Some(length) => Ok(IpNet::new(address.into(), length).unwrap_or(net).trunc()),
            None => Ok(net.trunc()),
        },
        _ => Ok(net.trunc()),
    }
}

/// Mail of this host's own programs, and relaykeeper's own letters, come from loopback.
fn not_this_host(net: IpNet) -> Result<IpNet, String> {
    let loopback = [
        IpNet::new(Ipv4Addr::LOCALHOST.into(), 8),
        IpNet::new(Ipv6Addr::LOCALHOST.into(), 128),
        // IPv4-mapped addresses.
        IpNet::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), 104),
    ];
    let overlaps = |other: &IpNet| other.contains(&net) || net.contains(other);
    match loopback.iter().flatten().map(IpNet::trunc).any(|other| overlaps(&other)) {
        true => Err(format!("{net} contains loopback addresses: this host's own mail would be refused")),
        false => Ok(net),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_loopback_is_an_error() {
        let client = |text: &str| net_of(text).and_then(not_this_host).map(|net| Target::client(net).name.to_string());
        for (text, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("2001:DB8::7/32", "2001:db8::/32"),
        ] {
            assert_eq!(client(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0", "::1", "::/0", "::ffff:127.0.0.1", "::ffff:0.0.0.0/96"] {
            assert!(client(text).unwrap_err().contains("loopback"), "{text}");
        }
        for text in ["", "mail.example", "192.0.2.0/33", "192.0.2", "fe80::1%eth0"] {
            assert!(client(text).unwrap_err().contains("is not an IP address or range"), "{text}");
        }
    }
}
