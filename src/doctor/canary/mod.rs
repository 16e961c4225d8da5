//! The canary: an SMTP session up to RCPT with each service, which the daemon is told to watch for. Nothing is ever queued, as
//! DATA is never said, and nothing counts.
//!
//! ```text
//!   mod        which services, what was seen, and what that proves
//!   session    the SMTP session
//!   tls        STARTTLS, with whatever certificate
//! ```

mod proof;
mod session;
mod tls;

use super::finding::Finding;
use super::postfix::Postfix;
use super::sendmail::Sendmail;
use crate::config::Settings;
use crate::control::{self, Command, Response};
use crate::report::Reference;
use crate::session::{EventFilter, SmtpEvent};
use proof::Seen;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// How long the daemon watches for one session, in seconds.
const WATCH_SECONDS: u32 = 60;

/// How long an event may take to come after the session is over, in seconds.
const LATE_SECONDS: u32 = 2;

/// A service that somebody can connect to.
#[derive(Clone, Debug)]
struct Target {
    /// As the static findings about it name it.
    place: String,
    mta: Mta,
    address: Option<IpAddr>,
    is_ipv6: bool,
    port: String,
    /// TLS from the first byte on.
    wraps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mta {
    Postfix,
    Sendmail,
}

/// Sends one to each service, and adds what comes of it to the findings; those that it disproves go.
pub(super) fn fly(settings: &Settings, postfixes: &[Postfix], sendmails: &[Sendmail<'_>], findings: &mut Vec<Finding>) {
    let mut targets: Vec<Target> = postfixes.iter().flat_map(of_postfix).collect();
    targets.extend(sendmails.iter().flat_map(of_sendmail));
    for target in targets {
        match one(settings, &target) {
            Ok(seen) => proof::judge(&target, &seen, settings, findings),
            Err(error) => findings.push(Finding::not_looked_at(&target.place, "the canary did not arrive", error)),
        }
    }
}

fn of_postfix(postfix: &Postfix) -> Vec<Target> {
    let target = |service: &super::postfix::Service| {
        let (host, port) = service.address();
        let wraps = service
            .options
            .get("smtpd_tls_wrappermode")
            .map(String::as_str)
            .or_else(|| postfix.value("smtpd_tls_wrappermode"))
            .is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        let address = host.and_then(|host| host.parse().ok());
        Target {
            place: postfix.place(service),
            mta: Mta::Postfix,
            address: address.or_else(|| interface(postfix.value("inet_interfaces").unwrap_or_default())),
            is_ipv6: false,
            port: port.to_owned(),
            wraps,
        }
    };
    postfix.services.iter().map(target).collect()
}

/// The address that Postfix listens on, where `inet_interfaces` leaves no choice.
fn interface(interfaces: &str) -> Option<IpAddr> {
    match interfaces {
        "loopback-only" => Some(Ipv4Addr::LOCALHOST.into()),
        names => names.split([',', ' ']).next()?.trim_matches(['[', ']']).parse().ok(),
    }
}

fn of_sendmail(sendmail: &Sendmail<'_>) -> Vec<Target> {
    let target = |service: super::sendmail::Service| Target {
        place: service.place,
        mta: Mta::Sendmail,
        address: service.address,
        is_ipv6: service.family == "inet6",
        port: if service.port.is_empty() { "smtp".to_owned() } else { service.port },
        wraps: false,
    };
    sendmail.services().into_iter().map(target).collect()
}

impl Target {
    /// Where to connect: to an address of this host that is not loopback, where the service listens on one.
    fn socket(&self) -> Result<SocketAddr, String> {
        let loopback: IpAddr = if self.is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let ip = match self.address.filter(|address| !address.is_unspecified()) {
            Some(address) => address,
            None => own_address(self.is_ipv6).unwrap_or(loopback),
        };
        let port = match self.port.as_str() {
            "smtp" => 25,
            "submission" => 587,
            "smtps" | "submissions" => 465,
            number => number.parse().map_err(|_| format!("\"{number}\" is no port that is known here"))?,
        };
        Ok(SocketAddr::new(ip, port))
    }
}

/// An address of this host by which others reach it: connecting a UDP socket sends nothing, and names it.
fn own_address(is_ipv6: bool) -> Option<IpAddr> {
    let (any, elsewhere) = if is_ipv6 { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(elsewhere.to_socket_addrs().ok()?.next()?).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}

fn one(settings: &Settings, target: &Target) -> Result<Seen, String> {
    let token = Reference::generate().to_string().to_lowercase();
    let helo = format!("canary-{token}.{}", settings.relay.hostname);
    let control = settings.listen.control.as_ref();
    let filter = EventFilter { helo: Some(helo.clone()) };
    let watch = match control::ask(control, &Command::Watch { filter, seconds: WATCH_SECONDS }) {
        Ok(Response::Watching { watch }) => watch,
        Ok(Response::No { words }) => return Err(words),
        Ok(_) => return Err("the daemon does not understand: is it of another version?".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let canary = session::Canary {
        sender: format!("canary-{token}@{}", settings.relay.hostname),
        recipient: format!("canary-{token}@relaykeeper-canary.invalid"),
        helo,
    };
    let session = session::hold(target.socket()?, target.wraps, &canary)?;
    let mut events: Vec<SmtpEvent> = Vec::new();
    // What was said before the reply is here already; only where there is nothing, something may still come.
    match control::ask(control, &Command::Events { watch, wait_seconds: LATE_SECONDS }) {
        Ok(Response::Events { events: more, .. }) => events.extend(more),
        Ok(_) | Err(_) => return Err("the daemon does not tell what it saw".to_owned()),
    }
    Ok(Seen { events, session })
}
