//! The words of a refusal, for the person who reads it: what, why, what to change or when to retry, reference.
//! The first words are those of the relay service: clients match on them.

use super::refusal::{LimitCause, LimitRefusal, LookedUp, NameSource, RangeGap, Refusal};
use crate::directory::{AllowedSenders, Billing, LimitName, Window};
use crate::envelope::{MAX_REPLY_LINE, Reply, Sender, canonical_domain};
use crate::orders::TargetKind;
use crate::policy::rules::{ConnectionLimit, ConnectionRefusal};
use crate::policy::rules::{Oversize, SizeRefusal};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

impl Refusal {
    /// The SMTP reply, with the reference by which the operator finds the whole decision.
    pub fn reply(&self, reference: impl fmt::Display) -> Reply {
        let (code, status) = self.codes();
        let reference = format!(" [{reference}]");
        // However long the words are, the reference stays.
        let words: String = self.to_string().chars().take(MAX_REPLY_LINE - reference.len()).collect();
        Reply::new(code, status, &(words + &reference))
    }
}

/// The text of the reply, without codes and reference.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::UnknownCustomer { client: address, looked_up, helo } => {
                write!(f, "Mail relay denied [{}]: {}", client(*address), names(looked_up, helo))?;
                f.write_str(match looked_up[..] {
                    [LookedUp { source: NameSource::Login, .. }] => {
                        ", so this login is unknown here; check the user name in your mail program's or server's settings, or ask \
                         your administrator"
                    }
                    _ => {
                        "; in your mail program's or server's settings, use a registered sender domain or HELO/EHLO name from a \
                         registered IP address, or log in"
                    }
                })
            }
            Refusal::NotInRanges { client: address, domain, gap } => {
                let (address, domain) = (client(*address), shown(domain));
                write!(f, "Invalid credentials for relay [{address}]: ")?;
                match gap {
                    RangeGap::NotRegistered => write!(
                        f,
                        "{address} is not among the registered IP addresses of {domain}; send from one of these, or ask your \
                         administrator to register this one"
                    ),
                    RangeGap::SwitchedOff => write!(
                        f,
                        "the IP address range of {address} is switched off for {domain}; ask your administrator to switch it on, \
                         or send from another registered IP address"
                    ),
                    RangeGap::OnlyIpv4 => write!(
                        f,
                        "you came over IPv6 from {address}; only IPv4 ranges are registered for {domain}; send over IPv4, or ask \
                         your administrator to register the IPv6 range"
                    ),
                }
            }
            Refusal::NoSetting { client: address, domain } => {
                write!(
                    f,
                    "Invalid credentials for relay [{}]: relaying for {} is switched off; ask your administrator to switch it on",
                    client(*address),
                    shown(domain)
                )
            }
            Refusal::AuthRequired => f.write_str(
                "Authentication required: you did not log in; switch on SMTP AUTH (user name and password) with TLS in your mail \
                 program's or server's settings",
            ),
            Refusal::TlsRequired { login } => {
                f.write_str("Must issue a STARTTLS command first: ")?;
                match &**login {
                    "" => f.write_str("mail is relayed here over TLS only")?,
                    login => write!(f, "you logged in as {} without TLS, and a login counts over TLS only", shown(login))?,
                }
                f.write_str("; switch on STARTTLS or TLS in your mail program's or server's settings")
            }
            Refusal::SenderNotAllowed { sender, setting, allowed, login } => {
                sender_words(f, sender, setting, *allowed, login)
            }
            Refusal::SenderNotOfLogin { sender, login } => {
                let sender = sender.to_string();
                write!(f, "Sender {} not allowed: it is not an address of the login {}", shown(&sender), shown(login))?;
                f.write_str("; send as the user that logs in")
            }
            Refusal::Suspended { kind, whose, why } => suspended_words(f, *kind, whose, why),
            Refusal::HeldBack { user, why } => {
                write!(f, "Mail of {} is held back for signs of abuse: {}", shown(user), bounded(why, 200))?;
                f.write_str("; it passes when this is over; ask your administrator, who has been told")
            }
            Refusal::EmptySenderRecipients => {
                f.write_str(
                    "One recipient per transaction with an empty sender: this is a bounce or automatic reply (empty sender <>); \
                     send it to the other recipients one by one",
                )
            }
            Refusal::TooManyRecipients { max: 0 } => {
                f.write_str("Your message has too many recipients: none is allowed; ask your administrator")
            }
            Refusal::TooManyRecipients { max } => {
                write!(
                    f,
                    "Your message has too many recipients: at most {max} in one transaction; send the rest in another one"
                )
            }
            Refusal::CannotSplit { refusal } => match &**refusal {
                Refusal::TooManyRecipients { max } => write!(
                    f,
                    "Your message has too many recipients: at most {max} in one message; mail from sendmail(1) is never split, so send \
                     it to fewer recipients at a time"
                ),
                Refusal::EmptySenderRecipients => f.write_str(
                    "One recipient per message with an empty sender (bounce or automatic reply, <>); mail from sendmail(1) is never split, so send each \
                     recipient a message",
                ),
                other => other.fmt(f),
            },
            Refusal::Limit(limit) => limit.fmt(f),
            Refusal::Size(size) => size.fmt(f),
            Refusal::Connection(connection) => connection.fmt(f),
            Refusal::CustomerUnusable { whose } => {
                write!(f, "Cannot decide: the configuration for {} has errors; nothing is wrong with your mail, try again later", shown(whose))
            }
            Refusal::DirectoryIncomplete => {
                f.write_str("Cannot decide: a part of the customers' configuration has errors; nothing is wrong with your mail, try again later")
            }
            Refusal::CannotRewrite { sender, .. } => {
                write!(
                    f,
                    "Sender {} is outside the customer's domains and cannot be rewritten here",
                    shown(&sender.to_string())
                )?;
                f.write_str("; use an address in one of the customer's domains as the sender")
            }
            Refusal::BadSender(error) => write!(f, "Bad sender address syntax: {error}"),
            Refusal::BadRecipient(error) => write!(f, "Bad recipient address syntax: {error}"),
            Refusal::CannotDecide { why } => write!(f, "Cannot decide: {}; try again later", bounded(why, 200)),
        }
    }
}

impl fmt::Display for LimitRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first_words, what) = match self.limit {
            LimitName::UserMessages => ("Daily SMTP relay limit exceeded for user", "messages"),
            LimitName::UserUniques => ("Daily SMTP relay limit exceeded for user", "different recipients"),
            LimitName::LoginMessages => ("Daily SMTP relay limit exceeded for login", "messages"),
            LimitName::LoginUniques => ("Daily SMTP relay limit exceeded for login", "different recipients"),
            LimitName::CustomerDay => ("Daily SMTP relay limit exceeded for customer", "recipients"),
            LimitName::CustomerPeak => ("Peak SMTP relay limit exceeded for customer", "recipients"),
        };
        let window = match self.limit.window() {
            Window::Day => "24 hours",
            Window::TenMinutes => "10 minutes",
        };
        write!(f, "{first_words}: {} {what} in {window} ({})", self.max, shown(&self.whose))?;
        if self.cause != LimitCause::NothingAllowed {
            f.write_str(" is the limit")?;
        }
        match self.billing {
            Billing::Paid => {}
            Billing::Unpaid => f.write_str(", low because the customer is unpaid")?,
            Billing::Trial => f.write_str(", low because the customer is on trial")?,
        }
        if self.cause != LimitCause::NothingAllowed {
            f.write_str(" (ask your administrator for more)")?;
        }
        let retry = self.retry_at_ms.map(|ms| clock_time(ms, self.limit.window()));
        match (self.cause, retry) {
            (LimitCause::NothingAllowed, _) => f.write_str("; nothing may be sent: ask your administrator"),
            (LimitCause::MessageAlone, _) => {
                f.write_str("; this message alone exceeds it: send to fewer recipients at a time")
            }
            (LimitCause::OpenReservations, _) => {
                f.write_str("; messages in progress take up the rest: try again in a minute")
            }
            (LimitCause::OwnRecipients, None) => {
                f.write_str("; this message alone exceeds it: send to the other recipients later")
            }
            (LimitCause::OwnRecipients | LimitCause::Usage, Some(time)) => write!(f, "; try again after {time}"),
            (LimitCause::Usage, None) => f.write_str("; try again later"),
        }
    }
}

impl fmt::Display for SizeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SizeRefusal { what, bytes, max } = *self;
        let (size, max) = Megabytes::of(bytes, max);
        match what {
            Oversize::Declared | Oversize::Message => {
                write!(f, "Message too large: {size}, at most {max} are allowed (with attachments encoded)")?;
            }
            Oversize::Attachment => {
                write!(f, "Attachment too large: {size}, at most {max} are allowed for one and for all together")?;
            }
            Oversize::Attachments { count } => {
                write!(f, "Attachments too large: {size} in {count} attachments, at most {max} together are allowed")?;
            }
        }
        f.write_str("; send less in one message, or a link to the file")
    }
}

/// A number of bytes for people: `26.2 MB` with 1 MB = 1,048,576 bytes, as mail programs show it.
struct Megabytes {
    bytes: u64,
    /// It has to look larger than what it is compared with.
    is_exact: bool,
}

impl Megabytes {
    /// A size and the maximum that it is over.
    fn of(bytes: u64, max: u64) -> (Megabytes, Megabytes) {
        let rounded = |bytes| Megabytes { bytes, is_exact: false };
        let is_exact = rounded(bytes).to_string() == rounded(max).to_string();
        (Megabytes { bytes, is_exact }, Megabytes { bytes: max, is_exact })
    }
}

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MB: u64 = 1 << 20;
        match self.bytes {
            bytes if self.is_exact || bytes < MB / 10 => write!(f, "{bytes} bytes"),
            bytes if bytes % MB == 0 => write!(f, "{} MB", bytes / MB),
            bytes => write!(f, "{}.{} MB", bytes / MB, bytes % MB * 10 / MB),
        }
    }
}

impl fmt::Display for ConnectionRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectionRefusal { limit, max, net, helo } = self;
        let client = if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
        f.write_str("Try again later, closing connection. (EHLO) ")?;
        match limit {
            ConnectionLimit::GenericHeloPerMinute => {
                let fault = helo_fault(helo);
                write!(f, "{}{}", fault[..1].to_uppercase(), &fault[1..])?;
                write!(f, ", and {client} exceeded {max} connections a minute with such names")?;
                f.write_str(
                    "; in your mail program's or server's settings, set the HELO/EHLO name to its own full host name, such as \
                     mail.yourdomain.example",
                )
            }
            ConnectionLimit::PerMinute => {
                write!(f, "The IP address {client} exceeded its limit of {max} connections a minute")?;
                named(f, helo)?;
                f.write_str("; all devices behind it share it: send several messages over one connection")
            }
            ConnectionLimit::Simultaneous => {
                write!(f, "The IP address {client} exceeded its limit of {max} connections at a time")?;
                named(f, helo)?;
                f.write_str(
                    "; all devices behind it share it: use fewer connections, and send several messages over each",
                )
            }
        }
    }
}

fn named(f: &mut fmt::Formatter<'_>, helo: &str) -> fmt::Result {
    if helo.is_empty() { Ok(()) } else { write!(f, " (HELO name {})", shown(helo)) }
}

/// Whatever a client named, bounded: long names are cut, so that cause and remedy fit in a reply.
pub(in crate::policy) fn shown(name: &str) -> Cow<'_, str> {
    bounded(name, 48)
}

fn bounded(name: &str, longest: usize) -> Cow<'_, str> {
    match name.char_indices().nth(longest) {
        None => Cow::Borrowed(name),
        Some((end, _)) => Cow::Owned(format!("{}...", &name[..end])),
    }
}

pub(in crate::policy) fn client(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

/// `14:33 UTC`, rounded up to the minute. What takes up to a day has its date: 14:33 may well be tomorrow's.
fn clock_time(ms: i64, window: Window) -> String {
    let up_to_the_minute = ms.div_euclid(60_000) + i64::from(ms.rem_euclid(60_000) > 0);
    let form = match window {
        Window::TenMinutes => "%H:%M UTC",
        Window::Day => "%H:%M UTC on %-d %b",
    };
    match jiff::Timestamp::from_second(up_to_the_minute * 60) {
        Ok(time) => time.strftime(form).to_string(),
        Err(_) => "a day".to_owned(),
    }
}

fn names(looked_up: &[LookedUp], helo: &str) -> String {
    if looked_up.is_empty() {
        return format!("the sender has no domain, and {}", helo_fault(helo));
    }
    let names: Vec<String> = looked_up.iter().map(|name| format!("{} ({})", shown(&name.name), name.source)).collect();
    let names = format!("no customer is registered for {}", names.join(" or "));
    match looked_up {
        [sender] if sender.source == NameSource::Sender => format!("{names}, and {}", helo_fault(helo)),
        _ => names,
    }
}

/// Why a HELO name identifies nobody, as [`crate::envelope::identifying_helo`] has it.
fn helo_fault(helo: &str) -> String {
    let name = canonical_domain(helo);
    let fault = match &*name {
        "" => return "no HELO/EHLO name was given".to_owned(),
        name if name.starts_with('[') || name.parse::<IpAddr>().is_ok() => "is an IP address, not a host name",
        "localhost" | "localhost.localdomain" => "is not a name of your own",
        name if !name.contains('.') => "has no domain",
        name if name.len() > 255 => "is too long",
        _ => "is the relay's own name",
    };
    format!("the HELO/EHLO name {} {fault}", shown(helo))
}

fn sender_words(
    f: &mut fmt::Formatter<'_>,
    sender: &Sender,
    setting: &str,
    allowed: AllowedSenders,
    login: &str,
) -> fmt::Result {
    let what = match allowed {
        AllowedSenders::RegisteredUsers => "registered users and their aliases only",
        AllowedSenders::OwnDomains => "senders in the customer's own domains only",
        AllowedSenders::Any => "any sender",
    };
    let sender = sender.to_string();
    write!(f, "Sender {} not allowed: the setting \"{}\" allows {what}", shown(&sender), shown(setting))?;
    if !login.is_empty() {
        write!(f, " (logged in as {})", shown(login))?;
    }
    f.write_str("; change the sender in your mail program's settings, or ask your administrator to register it")
}

/// Accuses nobody: the operator's own words, then whom to ask.
fn suspended_words(f: &mut fmt::Formatter<'_>, kind: TargetKind, whose: &str, why: &str) -> fmt::Result {
    let what = match kind {
        TargetKind::Customer => "customer",
        TargetKind::User => "user",
        TargetKind::Login => "login",
        TargetKind::Client => "IP address",
    };
    write!(f, "SMTP relay suspended for {what}: {} ({})", shown(whose), bounded(why, 160))?;
    f.write_str("; ask your administrator to have it resumed, with this reference")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_survives_whatever_the_words_are() {
        for why in ["the disk is full".to_owned(), "x".repeat(10_000)] {
            let reply = Refusal::CannotDecide { why: why.into() }.reply("K7Q2-9FTM-XW").to_string();
            assert!(reply.starts_with("451 4.3.0 Cannot decide: "), "{reply}");
            assert!(reply.ends_with("; try again later [K7Q2-9FTM-XW]") && reply.len() < 512, "{reply}");
        }
        let looked_up = |source| LookedUp { source, name: "n".repeat(300).into() };
        let refusal = Refusal::UnknownCustomer {
            client: Some("2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap()),
            looked_up: [looked_up(NameSource::Sender), looked_up(NameSource::Helo)].into_iter().collect(),
            helo: "h".repeat(300).into(),
        };
        let reply = refusal.reply("K7Q2-9FTM-XW").to_string();
        assert!(reply.ends_with(" [K7Q2-9FTM-XW]") && reply.len() <= 512, "{reply}");
    }
}
