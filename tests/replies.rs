//! docs/replies.md shows every reply as the program gives it, and no other.

use relaykeeper::directory::{Action, AllowedSenders, Billing, LimitName};
use relaykeeper::envelope::{AddressError, MAX_REPLY_LINE, Sender};
use relaykeeper::orders::TargetKind;
use relaykeeper::policy::{
    ConnectionLimit, ConnectionRefusal, LimitCause, LimitRefusal, LookedUp, NameSource, Oversize, RangeGap, Refusal,
    SizeRefusal,
};

const REFERENCE: &str = "K7Q2-9FTM-XW";
const CLIENT: &str = "192.0.2.7";

#[test]
fn the_page_shows_every_reply_and_no_other() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/replies.md")).expect("the page");
    let shown: Vec<&str> = page.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    let given: Vec<String> = situations().iter().map(|refusal| refusal.reply(REFERENCE).to_string()).collect();
    let missing: Vec<&String> = given.iter().filter(|reply| !shown.contains(&reply.as_str())).collect();
    let outdated: Vec<&&str> = shown.iter().filter(|line| !given.iter().any(|reply| reply == **line)).collect();
    assert!(missing.is_empty() && outdated.is_empty(), "missing: {missing:#?}\noutdated: {outdated:#?}");
}

#[test]
fn no_reply_loses_its_end() {
    for refusal in situations() {
        let reply = refusal.reply(REFERENCE).to_string();
        let whole = format!("{refusal} [{REFERENCE}]");
        assert!(reply.ends_with(&whole) && whole.len() <= MAX_REPLY_LINE, "{reply}");
    }
}

fn situations() -> Vec<Refusal> {
    let mut all = vec![
        unknown(&[(NameSource::Sender, "other.example"), (NameSource::Helo, "mx.other.example")], "mx.other.example"),
        unknown(&[(NameSource::Sender, "other.example")], "iMac"),
        unknown(&[(NameSource::Sender, "other.example")], "[127.0.0.1]"),
        unknown(&[(NameSource::Sender, "other.example")], "localhost"),
        unknown(&[(NameSource::Sender, "other.example")], "relay.example.net"),
        unknown(&[], ""),
        unknown(&[(NameSource::Login, "kim")], "mx.acme.example"),
        not_in_ranges(CLIENT, RangeGap::NotRegistered),
        not_in_ranges(CLIENT, RangeGap::SwitchedOff),
        not_in_ranges("2001:db8::7", RangeGap::OnlyIpv4),
        Refusal::NoSetting { client: CLIENT.parse().ok(), domain: "acme.example".into() },
        Refusal::AuthRequired,
        Refusal::TlsRequired { login: "".into() },
        Refusal::TlsRequired { login: "kim".into() },
        Refusal::SenderNotOfLogin { sender: sender("bob@acme.example"), login: "kim".into() },
        Refusal::HeldBack { user: "ann@acme.example".into(), why: "42 of 50 messages were marked as spam".into() },
        Refusal::EmptySenderRecipients,
        Refusal::TooManyRecipients { max: 0 },
        Refusal::TooManyRecipients { max: 100 },
        Refusal::CustomerUnusable { whose: "acme.example".into() },
        Refusal::DirectoryIncomplete,
        Refusal::CannotSplit { refusal: Box::new(Refusal::TooManyRecipients { max: 100 }) },
        Refusal::CannotSplit { refusal: Box::new(Refusal::EmptySenderRecipients) },
        Refusal::CannotRewrite { sender: sender("x@other.example"), reject: false },
        Refusal::BadSender(AddressError::SecondAt),
        Refusal::BadRecipient(AddressError::NoDomain),
        Refusal::CannotDecide { why: "the store is unavailable".into() },
    ];
    for (allowed, login) in [(AllowedSenders::RegisteredUsers, ""), (AllowedSenders::OwnDomains, "kim")] {
        let (sender, setting, login) = (sender("x@acme.example"), "head office".into(), login.into());
        all.push(Refusal::SenderNotAllowed { sender, setting, allowed, login });
    }
    for (kind, whose) in [
        (TargetKind::Customer, "acme"),
        (TargetKind::User, "ann@acme.example"),
        (TargetKind::Login, "kim"),
        (TargetKind::Client, CLIENT),
    ] {
        all.push(Refusal::Suspended { kind, whose: whose.into(), why: "ticket 4711".into() });
    }
    for name in LimitName::ALL {
        all.push(limit(name, LimitCause::Usage, Billing::Paid));
    }
    for billing in [Billing::Unpaid, Billing::Trial] {
        all.push(limit(LimitName::CustomerDay, LimitCause::Usage, billing));
    }
    for cause in
        [LimitCause::OpenReservations, LimitCause::OwnRecipients, LimitCause::MessageAlone, LimitCause::NothingAllowed]
    {
        all.push(limit(LimitName::UserUniques, cause, Billing::Paid));
    }
    for what in [Oversize::Message, Oversize::Attachment, Oversize::Attachments { count: 12 }] {
        all.push(Refusal::Size(SizeRefusal { what, bytes: 31 << 20, max: 25 << 20 }));
    }
    for (limit, max, helo) in [
        (ConnectionLimit::GenericHeloPerMinute, 10, "localhost"),
        (ConnectionLimit::PerMinute, 120, "mx.acme.example"),
        (ConnectionLimit::Simultaneous, 50, "mx.acme.example"),
    ] {
        let net = "192.0.2.7/32".parse().expect("a network");
        all.push(Refusal::Connection(ConnectionRefusal { limit, max, net, helo: helo.into() }));
    }
    all
}

fn unknown(names: &[(NameSource, &str)], helo: &str) -> Refusal {
    let looked_up = names.iter().map(|&(source, name)| LookedUp { source, name: name.into() }).collect();
    Refusal::UnknownCustomer { client: CLIENT.parse().ok(), looked_up, helo: helo.into() }
}

fn not_in_ranges(client: &str, gap: RangeGap) -> Refusal {
    Refusal::NotInRanges { client: client.parse().ok(), domain: "acme.example".into(), gap }
}

fn limit(limit: LimitName, cause: LimitCause, billing: Billing) -> Refusal {
    let max = if cause == LimitCause::NothingAllowed { 0 } else { 100 };
    // 14:32 UTC on 22 November 2026
    let retry_at_ms = (cause == LimitCause::Usage).then_some(1_795_357_920_000);
    let whose = match limit {
        LimitName::UserMessages | LimitName::UserUniques => "ann@acme.example",
        LimitName::LoginMessages | LimitName::LoginUniques => "kim",
        LimitName::CustomerDay | LimitName::CustomerPeak => "acme",
    };
    Refusal::Limit(LimitRefusal {
        limit,
        max,
        action: Action::Defer,
        is_settings_action: false,
        whose: whose.into(),
        cause,
        billing,
        retry_at_ms,
    })
}

fn sender(text: &str) -> Sender {
    Sender::from_internal(text).expect("a valid sender")
}
