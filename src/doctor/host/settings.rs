//! What relaykeeper's own configuration gives away.

use super::Host;
use crate::config::{CountAt, MailRoute, OnFailure};
use crate::directory::{CustomerLimits, Limit, LimitName};
use crate::doctor::{Finding, Severity};
use crate::report::sink::Destination;
use std::path::Path;

pub(super) fn check(host: &Host<'_>, findings: &mut Vec<Finding>) {
    exempt_customers(host, findings);
    letters(host, findings);
    enforced(host, findings);
    let settings = &host.loaded.settings;
    if settings.log.to == Destination::Syslog && !Path::new("/dev/log").exists() {
        let why = "nothing is logged: no refusal can be explained";
        let write = Some("log.to = \"journald\", or a syslog daemon".to_owned());
        let found = "log.to = \"syslog\", and there is no /dev/log".to_owned();
        findings.push(Finding::new("log-silent", Severity::Warning, host.main(), found, why, write));
    }
    for postfix in host.postfixes {
        let Some(name) = postfix.value("myhostname") else { continue };
        if !name.eq_ignore_ascii_case(&settings.relay.hostname) {
            let found = format!("relay.hostname is {}, myhostname is {name}", settings.relay.hostname);
            let why = "a customer's HELO with the relay's own name does not count as generic";
            let write = Some(format!("relaykeeper.toml, [relay]: hostname = \"{}\"", name.to_lowercase()));
            let place = postfix.folder.join("main.cf").display().to_string();
            findings.push(Finding::new("hostname-differs", Severity::Warning, place, found, why, write));
        }
    }
}

/// Customers whose clients nobody judges.
fn exempt_customers(host: &Host<'_>, findings: &mut Vec<Finding>) {
    let exempt = &host.loaded.settings.relay.exempt_clients;
    for customer in host.loaded.directory.customers() {
        for setting in customer.settings.iter().filter(|setting| setting.enabled) {
            for range in setting.ranges.iter().filter(|range| range.enabled) {
                let overlap = exempt.iter().find(|net| net.contains(&range.net) || range.net.contains(*net));
                let Some(net) = overlap else { continue };
                let found = format!(
                    "exempt_clients has {net}, and {} of customer {} has {}",
                    setting.name, customer.name, range.net
                );
                let why = "mail from there without a login is not judged: no limit of this customer holds";
                let write = Some(format!("relaykeeper.toml, [relay]: exempt_clients without {net}"));
                findings.push(Finding::new("exempt-customers", Severity::Error, host.main(), found, why, write));
            }
        }
    }
}

/// Whether administrators can hear of limits.
fn letters(host: &Host<'_>, findings: &mut Vec<Finding>) {
    let settings = &host.loaded.settings;
    let mut say = |found: String, write: &str| {
        let why = "nobody hears of limits and abuse";
        findings.push(Finding::new("letters", Severity::Warning, host.main(), found, why, Some(write.to_owned())));
    };
    if let Ok(status) = host.status
        && let Some(problem) = &status.mail
    {
        say(format!("own mail cannot be sent: {problem}"), "[mail] smtp = \"127.0.0.1:25\"");
    }
    let from = settings.mail.sender(&settings.relay.hostname);
    if let Some((_, domain)) = from.rsplit_once('@')
        && let Some(claim) = host.loaded.directory.owner_of_domain(&domain.to_lowercase())
    {
        let found = format!("mail.from = \"{from}\" is in a customer's domain ({})", claim.domain);
        say(found, "mail.from of a domain of the relay's own");
    }
    if let MailRoute::Sendmail(program) = &settings.mail.route
        && !host.postfixes.is_empty()
        && has_no_new_privileges()
    {
        let found = format!("mail.sendmail = \"{}\" with Postfix, and the unit has NoNewPrivileges", program.display());
        say(found, "[mail] smtp = \"127.0.0.1:25\": postdrop may not become its group there");
    }
}

fn has_no_new_privileges() -> bool {
    let arguments = ["show", "-p", "NoNewPrivileges", "relaykeeper.service"].map(AsRef::as_ref);
    let answer = crate::doctor::program::output(Path::new("systemctl"), &arguments, "", 4_096);
    answer.is_ok_and(|answer| answer.trim() == "NoNewPrivileges=yes")
}

/// Whether anything is enforced at all.
fn enforced(host: &Host<'_>, findings: &mut Vec<Finding>) {
    let settings = &host.loaded.settings;
    let customers = host.loaded.directory.customers();
    if customers.len() > 0 && !host.loaded.directory.customers().any(|customer| enforce_anything(&customer.limits)) {
        let found = "every limit of every customer is unlimited or in shadow".to_owned();
        let why = "if this is meant, all is well: nobody is refused for sending much";
        findings.push(Finding::new("nothing-enforced", Severity::Warning, host.main(), found, why, None));
    }
    let mut say = |found: &str, why: &str| {
        findings.push(Finding::new("nothing-enforced", Severity::Note, host.main(), found, why, None));
    };
    if settings.relay.on_failure == OnFailure::Accept {
        say("on_failure = \"accept\"", "when no decision can be made, mail passes uncounted");
    }
    let sees_ends = host.status.is_ok_and(|status| status.mta.iter().any(|mta| mta.milter_ends + mta.policy_ends > 0));
    if settings.policy.count_at == CountAt::Rcpt && sees_ends {
        say("count_at = \"rcpt\"", "the MTA tells of the end of messages, but those that are given up count, too");
    }
}

fn enforce_anything(limits: &CustomerLimits) -> bool {
    let is_enforced = |limit: &Limit| limit.max.is_some() && !limit.shadow;
    is_enforced(&limits.transaction_recipients) || LimitName::ALL.iter().any(|name| is_enforced(limits.counted(*name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Configuration};
    use crate::control::ControlError;

    fn loaded(main: &str, customer: &str) -> (tempfile::TempDir, Configuration) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("customers.d")).unwrap();
        let text = format!(
            "name = \"acme\"\ndomains = [\"acme.example\"]\nlicenses = 1\n{customer}\n\
            [[setting]]\nname = \"office\"\nallowed_senders = \"any\"\nip = [{{ range = \"192.0.2.0/24\" }}]\n"
        );
        std::fs::write(folder.path().join("customers.d/acme.toml"), text).unwrap();
        let main = format!(
            "listen.policy = [\"inet:127.0.0.1:1\"]\nrelay.hostname = \"relay.example.net\"\nlog.to = \"stderr\"\n{main}"
        );
        std::fs::write(folder.path().join("relaykeeper.toml"), main).unwrap();
        let loaded = config::load(&folder.path().join("relaykeeper.toml")).unwrap();
        (folder, loaded)
    }

    fn found(main: &str, customer: &str) -> Vec<(&'static str, Severity)> {
        let (_folder, loaded) = loaded(main, customer);
        let main = Path::new("/etc/relaykeeper/relaykeeper.toml");
        let down = ControlError::NoAddress;
        let host = Host { main, loaded: &loaded, status: Err(&down), users: Vec::new(), postfixes: &[] };
        let mut findings = Vec::new();
        check(&host, &mut findings);
        findings.iter().map(|finding| (finding.id, finding.severity)).collect()
    }

    #[test]
    fn each_setting_is_found_alone() {
        let unlimited = "limits.customer.recipients_per_day = \"unlimited\"\nlimits.customer.recipients_per_10_min = \"unlimited\"\n\
            limits.user.messages_per_day = \"unlimited\"\nlimits.user.unique_recipients_per_day = \"unlimited\"\n\
            limits.transaction.recipients = \"unlimited\"\n";
        assert_eq!(found("", ""), []);
        assert_eq!(found("relay.exempt_clients = [\"192.0.2.7\"]\n", ""), [("exempt-customers", Severity::Error)]);
        assert_eq!(found("relay.exempt_clients = [\"192.0.0.0/16\"]\n", ""), [("exempt-customers", Severity::Error)]);
        assert_eq!(found("relay.exempt_clients = [\"198.51.100.7\"]\n", ""), []);
        assert_eq!(found("mail.from = \"relay@mail.acme.example\"\n", ""), [("letters", Severity::Warning)]);
        assert_eq!(found("relay.on_failure = \"accept\"\n", ""), [("nothing-enforced", Severity::Note)]);
        assert_eq!(found("", unlimited), [("nothing-enforced", Severity::Warning)]);
    }
}
