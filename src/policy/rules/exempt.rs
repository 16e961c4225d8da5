//! What is not relaykeeper's to judge: exempt clients, exempt recipients, its own mail.

use crate::config::LocalSubmission;
use crate::envelope::{Address, Sender};
use crate::policy::facts::{Context, Rules};
use crate::policy::reply::words;
use crate::policy::trace::Trace;

/// Whether the client's mail is not judged, whatever it says (`exempt_clients`, and `local_submission` for sendmail(1)).
pub fn is_exempt_client(cx: &Context, trace: &mut Trace) -> bool {
    let (client, login, rules) = (cx.envelope.client, &cx.envelope.login, &cx.rules);
    match rules.relay.local_submission.filter(|_| cx.front_end.is_local) {
        Some(LocalSubmission::Judge) => return false,
        Some(LocalSubmission::Exempt) => {
            trace.note("exempt", "pass", || "sendmail(1) hands it in, and local_submission is \"exempt\"".to_owned());
            return true;
        }
        None => {}
    }
    let Some(client) = client else { return false };
    let is_exempt = login.is_empty() && rules.relay.exempt_clients.iter().any(|net| net.contains(&client));
    if is_exempt {
        trace.note("exempt", "pass", || {
            format!("{} is in exempt_clients and did not log in", words::client(Some(client)))
        });
    }
    is_exempt
}

/// Whether mail to the recipient is not judged, whoever sends it (`exempt_recipient_domains`). What the MTA may route on is
/// mail to elsewhere (relay service, section 14).
pub fn is_exempt_recipient(recipient: &Address, rules: &Rules, trace: &mut Trace) -> bool {
    let domain = recipient.domain();
    if !rules.relay.exempt_recipient_domains.iter().any(|exempt| exempt == domain) {
        return false;
    }
    let may_be_routed_on = recipient.may_be_routed_on();
    let (outcome, but) = match may_be_routed_on {
        true => ("no", ", but the MTA may route mail to this address on"),
        false => ("pass", ""),
    };
    trace.note("exempt", outcome, || format!("the recipient's domain {domain} is in exempt_recipient_domains{but}"));
    !may_be_routed_on
}

/// Whether it is a letter of relaykeeper's own that the MTA asks about: it comes from this host with the empty sender.
pub fn is_own_mail(recipient: &Address, cx: &Context, trace: &mut Trace) -> bool {
    let envelope = cx.envelope;
    let is_own = envelope.sender == Ok(Sender::Empty)
        && envelope.login.is_empty()
        && envelope.client.is_some_and(|client| client.is_loopback())
        && cx.live.has_own_mail_for(recipient);
    if is_own {
        trace.note("exempt", "pass", || format!("it is relaykeeper's own mail to {recipient}"));
    }
    is_own
}
