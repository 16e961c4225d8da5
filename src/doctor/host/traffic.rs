//! What the running daemon has seen of the MTAs: what no file says.

use super::Host;
use crate::control::MtaStatus;
use crate::doctor::{Finding, Severity};

/// Recipients that must have come before it is said that no end comes with them.
const MANY_RECIPIENTS: u64 = 100;

pub(super) fn check(host: &Host<'_>, findings: &mut Vec<Finding>) {
    let Ok(status) = host.status else { return };
    for mta in &status.mta {
        one_address(mta, findings);
        no_end(mta, &status.mta, findings);
        if mta.shared_process_ids > 0 {
            let found = format!("{} requests of process IDs with two SMTP sessions at once", mta.shared_process_ids);
            let why =
                "smtpds of several containers are taken for one: what one has reserved ends with the other's message";
            let write = Some("a daemon for each container, or TCP from an address of its own for each".to_owned());
            findings.push(Finding::new("pid-clash", Severity::Warning, mta.name(), found, why, write));
        }
    }
}

fn one_address(mta: &MtaStatus, findings: &mut Vec<Finding>) {
    let Some(client) = mta.only_client.filter(|_| mta.has_one_address()) else { return };
    let severity = if mta.helo_customers >= 2 { Severity::Error } else { Severity::Warning };
    let found = format!(
        "all clients come from {client}, under {} HELO names of {}",
        mta.helo_names,
        crate::config::how_many(mta.helo_customers, "customer")
    );
    let why = "NAT, a proxy or a container network hides who connects: ranges and limits on connections mean nothing";
    let write = Some("smtpd_upstream_proxy_protocol = haproxy with such a proxy, or the host's network".to_owned());
    findings.push(Finding::new("one-address", severity, mta.name(), found, why, write));
}

/// Many recipients and no end of a message.
fn no_end(mta: &MtaStatus, all: &[MtaStatus], findings: &mut Vec<Finding>) {
    let mut say = |id, severity, found: String, why: &str, write: &str| {
        findings.push(Finding::new(id, severity, mta.name(), found, why, Some(write.to_owned())));
    };
    if mta.milter_ends + mta.policy_ends > 0 {
        return;
    }
    if mta.milter_recipients >= MANY_RECIPIENTS {
        let found = format!("the milter saw {} recipients and no end of a message", mta.milter_recipients);
        let why = "behind smtpd_proxy_filter Postfix shows a milter no end: such mail is delivered and counts nothing";
        say(
            "milter-with-proxy",
            Severity::Error,
            found,
            why,
            "smtpd_end_of_data_restrictions = check_policy_service …",
        );
    } else if mta.policy_recipients >= MANY_RECIPIENTS && mta.milter_sessions == 0 {
        let found =
            format!("the policy service was asked about {} recipients and no end of a message", mta.policy_recipients);
        let write = "smtpd_end_of_data_restrictions = check_policy_service …, for this service, too";
        let is_asked_elsewhere = all.iter().any(|other| other.policy_ends > 0);
        match is_asked_elsewhere {
            true => {
                let why = "another service asks at the end, so nothing counts here";
                say("end-of-message-uneven", Severity::Error, found, why, write);
            }
            false => {
                let why = "messages count although nobody says whether they were accepted";
                say("end-of-message-not-asked", Severity::Warning, found, why, write);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_end_of(mta: &MtaStatus, others: &[MtaStatus]) -> Vec<(&'static str, Severity)> {
        let mut findings = Vec::new();
        no_end(mta, others, &mut findings);
        findings.iter().map(|finding| (finding.id, finding.severity)).collect()
    }

    #[test]
    fn many_recipients_without_an_end_are_a_fault() {
        let policy =
            |recipients, ends| MtaStatus { policy_recipients: recipients, policy_ends: ends, ..MtaStatus::default() };
        let milter = |recipients, ends| MtaStatus {
            milter_sessions: 50,
            milter_recipients: recipients,
            milter_ends: ends,
            ..MtaStatus::default()
        };
        assert_eq!(no_end_of(&milter(100, 0), &[]), [("milter-with-proxy", Severity::Error)]);
        assert_eq!(no_end_of(&policy(100, 0), &[policy(5, 5)]), [("end-of-message-uneven", Severity::Error)]);
        assert_eq!(no_end_of(&policy(100, 0), &[]), [("end-of-message-not-asked", Severity::Warning)]);
        for fine in [milter(99, 0), milter(1_000, 1), policy(99, 0), policy(1_000, 1)] {
            assert!(no_end_of(&fine, &[policy(5, 5)]).is_empty(), "{fine:?}");
        }
        let both = MtaStatus { policy_recipients: 500, ..milter(500, 400) };
        assert!(no_end_of(&both, &[]).is_empty());
    }

    #[test]
    fn one_address_is_worse_with_several_customers() {
        let behind = |customers| MtaStatus {
            milter_sessions: 100,
            only_client: "172.17.0.1".parse().ok(),
            own_helo_names: 9,
            helo_customers: customers,
            ..MtaStatus::default()
        };
        for (customers, severity) in [(1, Severity::Warning), (2, Severity::Error)] {
            let mut findings = Vec::new();
            one_address(&behind(customers), &mut findings);
            assert_eq!(findings[0].severity, severity);
        }
    }
}
