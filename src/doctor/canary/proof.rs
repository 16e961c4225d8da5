//! What the canary's journey proves, and what it finds missing.

use super::session::Session;
use super::{Mta, Target};
use crate::config::Settings;
use crate::doctor::{Finding, Severity};
use crate::session::SmtpEvent;

/// Findings of files that are wrong where the milter saw the canary's recipient.
const DISPROVED_BY_MILTER: [&str; 6] =
    ["milter-not-asked", "milter-no-milters", "milter-maps", "milter-nobody-listens", "sm-daemon-list", "sm-no-milter"];

/// The same where the policy service was asked in the context of relaying.
const DISPROVED_BY_POLICY: [&str; 6] = [
    "policy-not-asked",
    "permit-before-policy",
    "table-before-policy",
    "reject-before-policy",
    "policy-nobody-listens",
    "context-missing",
];

/// What came of one canary.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub events: Vec<SmtpEvent>,
    pub session: Session,
}

impl Seen {
    /// What the milter heard. Both MTAs show it MAIL, and a recipient only if nothing of their own refuses it.
    fn milter(&self) -> Option<&SmtpEvent> {
        self.events.iter().find(|event| event.protocol == "milter" && (event.stage == "MAIL" || event.stage == "RCPT"))
    }

    /// What the policy service was asked about the recipient.
    fn policy(&self) -> Option<&SmtpEvent> {
        let mut events = self.events.iter().filter(|event| event.protocol == "policy" && event.stage == "RCPT");
        events.clone().find(|event| event.context == "relay").or_else(|| events.next())
    }
}

/// Adds what is missing, and takes out what is disproved.
pub(super) fn judge(target: &Target, seen: &Seen, settings: &Settings, findings: &mut Vec<Finding>) {
    let (milter, policy) = (seen.milter(), seen.policy());
    let in_context = policy.is_some_and(|event| event.context == "relay");
    if milter.is_some() {
        disprove(target, &DISPROVED_BY_MILTER, "the milter heard of it", findings);
    }
    if in_context {
        disprove(target, &DISPROVED_BY_POLICY, "the policy service was asked about its recipient", findings);
    }
    let mut found = Vec::new();
    match (milter, policy) {
        (None, None) => nobody_asked(target, seen, settings, &mut found),
        (Some(_), None) if is_refused_by_mta(&seen.session) => {
            let what = "whether the policy service is asked: the canary did not get that far";
            if target.mta == Mta::Postfix && !settings.listen.policy.is_empty() {
                let words = format!("answered at {}: {}", seen.session.stage, seen.session.reply);
                found.push(Finding::not_looked_at(&target.place, what, words));
            }
        }
        (None, Some(_)) if !settings.listen.milter.is_empty() => {
            let words = "the milter never heard of the canary, the policy service did";
            let why = "no sender is rewritten, no attachment measured, nothing archived there";
            found.push(missing(target, "milter-not-asked", Severity::Warning, words, why));
        }
        _ => {}
    }
    if let Some(policy) = policy.filter(|_| milter.is_none() && !in_context) {
        let words = format!("asked with policy_context=\"{}\", answered {}", policy.context, seen.session.reply);
        let why = "without policy_context=relay an admitted recipient gets no permission: Relay access denied";
        if seen.session.reply.starts_with('5') {
            found.push(missing(target, "context-missing", Severity::Error, &words, why));
        }
    }
    if let (Some(milter), Some(policy)) = (milter, policy) {
        let who = |event: &SmtpEvent| (event.client_address, event.client_port);
        if who(milter) != who(policy) {
            let words = format!("the milter is told client {:?}, the policy service {:?}", who(milter), who(policy));
            let why = "a message that both are asked about cannot be matched: it counts twice";
            found.push(missing(target, "two-daemons", Severity::Error, &words, why));
        }
    }
    if let Some(client) = milter.or(policy).and_then(|event| event.client_address)
        && client != seen.session.source.to_canonical()
    {
        let words = format!("the canary came from {}, and the MTA says {client}", seen.session.source);
        let why = "NAT or a proxy hides who connects: ranges and limits on connections mean nothing";
        found.push(missing(target, "one-address", Severity::Warning, &words, why));
    }
    // What the files say already is not said again.
    let says = |known: &Finding, id: &str| {
        let is_cause = id == "milter-not-asked" && DISPROVED_BY_MILTER.contains(&known.id);
        (known.id == id || is_cause) && is_about(known, target) && (id != "not-looked-at")
    };
    let is_known = |finding: &Finding| findings.iter().any(|known| says(known, finding.id));
    let new: Vec<_> = found.into_iter().filter(|finding| !is_known(finding)).collect();
    findings.extend(new);
}

fn missing(target: &Target, id: &'static str, severity: Severity, found: &str, why: &str) -> Finding {
    let write = Some("what relaykeeper(8) says in the section about this MTA".to_owned());
    Finding::new(id, severity, &target.place, format!("canary: {found}"), why, write)
}

/// Neither protocol heard of the recipient.
fn nobody_asked(target: &Target, seen: &Seen, settings: &Settings, found: &mut Vec<Finding>) {
    let Session { stage, reply, .. } = &seen.session;
    let words = format!("answered at {stage}: {reply}");
    let why = "nobody decides a recipient there: no limit holds";
    if *stage == "RCPT" && !settings.listen.milter.is_empty() {
        // MAIL was accepted, and no milter heard of it.
        let may_ask_policy = target.mta == Mta::Postfix && !reply.starts_with('2');
        let severity = if may_ask_policy { Severity::Warning } else { Severity::Error };
        found.push(missing(target, "milter-not-asked", severity, &words, why));
    }
    if target.mta == Mta::Sendmail && *stage == "RCPT" {
        // Its access map decides who may relay at all, and this host need not be in it.
        return;
    }
    if reply.starts_with('2') {
        if target.mta == Mta::Postfix && !settings.listen.policy.is_empty() {
            found.push(missing(target, "policy-not-asked", Severity::Error, &words, why));
        }
        return;
    }
    if needs_login(reply) || is_of_address(reply) {
        let what = "whether relaykeeper is asked: the canary did not get that far";
        found.push(Finding::not_looked_at(&target.place, what, words));
        return;
    }
    let why = "customers are refused before relaykeeper is asked";
    found.push(missing(target, "reject-before-policy", Severity::Error, &words, why));
}

/// Whether the MTA itself refused it: a reply of ours has a reference at its end.
fn is_refused_by_mta(session: &Session) -> bool {
    let has_reference = session.reply.ends_with(']') && session.reply.contains(" [");
    !session.reply.starts_with('2') && !has_reference
}

/// Whether the service is one for those who log in, as the canary cannot.
fn needs_login(reply: &str) -> bool {
    let reply = reply.to_ascii_lowercase();
    reply.starts_with("530")
        || reply.contains("access denied") && !reply.contains("relay access denied")
        || reply.contains("authenticat")
}

/// Whether a check of the sender's or recipient's domain stands before ours: the canary's do not exist.
fn is_of_address(reply: &str) -> bool {
    let reply = reply.to_ascii_lowercase();
    ["domain not found", "does not exist", "does not resolve", "domain of sender", "user unknown"]
        .iter()
        .any(|words| reply.contains(words))
}

/// Takes out findings that are not so, and leaves a note of each.
fn disprove(target: &Target, ids: &[&str], words: &str, findings: &mut [Finding]) {
    for finding in findings.iter_mut() {
        if finding.severity != Severity::Note && ids.contains(&finding.id) && is_about(finding, target) {
            finding.severity = Severity::Note;
            finding.found = format!("disproved by the canary ({words}): {}", finding.found);
            finding.write = None;
        }
    }
}

/// Whether a finding is about this service: its place ends with the same title, in the same file.
fn is_about(finding: &Finding, target: &Target) -> bool {
    let split = |place: &str| {
        let (file, title) = place.split_once(' ').unwrap_or((place, ""));
        let file = file.rsplit_once(':').filter(|(_, line)| line.parse::<u32>().is_ok()).map_or(file, |(file, _)| file);
        (file.to_owned(), title.split(':').next().unwrap_or_default().to_owned())
    };
    split(&finding.place) == split(&target.place)
}

#[cfg(test)]
mod tests;
