//! Sendmail's own limits, TLS, AUTH, and whether what was read is what runs.

use super::{Sendmail, say};
use crate::doctor::{Finding, Severity};
use std::time::Duration;

/// The kernel tells when a process started no better than this.
const CLOCK_TICK: Duration = Duration::from_secs(2);

pub(super) fn check(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    limits(sendmail, findings);
    tls_and_auth(sendmail, findings);
    not_reloaded(sendmail, findings);
    let relay = &sendmail.relaykeeper.hostname;
    if let Some(host) = &sendmail.host_name
        && !host.eq_ignore_ascii_case(relay)
    {
        let found = format!("relay.hostname is {relay}, Sendmail's $j is {host}");
        let why = "a customer's HELO with the relay's own name does not count as generic";
        let write = Some(format!("relaykeeper.toml, [relay]: hostname = \"{host}\""));
        let place = sendmail.cf.path.display().to_string();
        say(findings, "hostname-differs", Severity::Warning, place, found, why, write);
    }
    say(
        findings,
        "local-mail-uncounted",
        Severity::Note,
        sendmail.cf.path.display().to_string(),
        "sendmail(1) hands messages over from 127.0.0.1 (submit.cf)".to_owned(),
        "where that address is exempt, what programs on this host send is not judged",
        None,
    );
}

fn number(sendmail: &Sendmail<'_>, option: &str) -> Option<(usize, u64)> {
    let option = sendmail.cf.option(option)?;
    Some((option.line, option.value.parse().ok().filter(|&number| number > 0)?))
}

fn limits(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    if let Some((line, most)) = number(sendmail, "MaxRecipientsPerMessage")
        && let Some(ours) = sendmail.relaykeeper.transaction_recipients
        && most < ours
    {
        let found = format!("MaxRecipientsPerMessage={most}, limits.transaction.recipients is {ours}");
        let why = "Sendmail refuses the rest first: 452 4.5.3, without relaykeeper's words";
        let write = Some(format!("define(`confMAX_RCPTS_PER_MESSAGE', `{ours}')dnl"));
        say(findings, "recipient-limit", Severity::Note, sendmail.at(line, ""), found, why, write);
    }
    let mut own: Vec<(usize, String, bool)> = Vec::new();
    for option in ["ConnectionRateThrottle", "MaxDaemonChildren", "BadRcptThrottle"] {
        if let Some((line, most)) = number(sendmail, option) {
            let is_stricter = option == "MaxDaemonChildren"
                && sendmail.relaykeeper.simultaneous.is_some_and(|simultaneous| most < simultaneous);
            own.push((line, format!("{option}={most}"), is_stricter));
        }
    }
    for feature in ["ratecontrol", "conncontrol"] {
        if let Some(line) = sendmail.cf.feature(feature) {
            own.push((line, format!("FEATURE(`{feature}')"), false));
        }
    }
    for (line, found, is_stricter) in own {
        let severity = if is_stricter { Severity::Warning } else { Severity::Note };
        let why = "Sendmail refuses without relaykeeper's words, log line or reference";
        let write = Some("sendmail.mc without it: relaykeeper limits connections, [connection]".to_owned());
        say(findings, "mta-rate-limits", severity, sendmail.at(line, ""), found, why, write);
    }
}

fn tls_and_auth(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    let mechanisms = sendmail.cf.option("AuthMechanisms");
    let in_clear = mechanisms.filter(|option| {
        option
            .value
            .split_whitespace()
            .any(|name| ["PLAIN", "LOGIN"].iter().any(|clear| clear.eq_ignore_ascii_case(name)))
    });
    let options = sendmail.cf.value("AuthOptions");
    if let Some(option) = in_clear
        && !options.contains('p')
    {
        let found = format!("AuthMechanisms={}, AuthOptions={options} without p", option.value);
        let why = "passwords can be read on the way; relaykeeper refuses such mail anyway";
        let write = Some("define(`confAUTH_OPTIONS', `A p y')dnl".to_owned());
        say(findings, "auth-in-clear", Severity::Warning, sendmail.at(option.line, ""), found, why, write);
    }
    if sendmail.relaykeeper.needs_tls && sendmail.cf.value("ServerCertFile").is_empty() {
        let found = "no ServerCertFile, and a setting has require_tls".to_owned();
        let why = "nobody can begin TLS: customers get 530 for everything";
        let write = Some("define(`confSERVER_CERT', `…')dnl and define(`confSERVER_KEY', `…')dnl".to_owned());
        let place = sendmail.cf.path.display().to_string();
        say(findings, "tls-off", Severity::Warning, place, found, why, write);
    }
}

fn not_reloaded(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    let place = || sendmail.cf.path.display().to_string();
    if let (Some(written), Some(started)) = (sendmail.written, sendmail.started)
        && written > started + CLOCK_TICK
    {
        let why = "what was read here is not what runs";
        let write = Some("systemctl restart sendmail".to_owned());
        let found = "changed after the running Sendmail started".to_owned();
        say(findings, "not-reloaded", Severity::Warning, place(), found, why, write);
    }
    if let (Some(written), Some((mc, changed))) = (sendmail.written, &sendmail.mc)
        && *changed > written
    {
        let found = format!("{} is newer", mc.display());
        let why = "sendmail.cf was not made of it since";
        let write = Some(format!("m4 {} > {} and a restart of Sendmail", mc.display(), sendmail.cf.path.display()));
        say(findings, "not-reloaded", Severity::Warning, place(), found, why, write);
    }
}
