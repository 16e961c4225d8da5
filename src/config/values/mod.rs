//! What stands in strings: durations, modes, paths, domains, addresses, names. Each error says what to write instead.

pub(super) mod gateway;
pub(super) mod networks;

use super::reading::{Complaint, quoted};
use crate::directory::{ArchiveAddress, ArchiveAddressError};
use crate::envelope::{Address, AddressError, Domain, DomainError};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A duration such as `30s`, `10m`, `1h`, `1h30m`.
pub(in crate::config) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, Complaint> {
    let wrong = || {
        Complaint::new(format!("{} is not a valid duration", quoted(text)), "expected a number and a unit")
            .help("write a number and a unit: \"30s\", \"10m\", \"1h\"; units are s, m, h, d")
    };
    let mut seconds = 0u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_length = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let factor = match rest[digits..digits + unit_length].trim() {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(factor).and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + unit_length..];
    }
    let duration = Duration::from_secs(seconds);
    if duration < least || duration > most {
        let help = format!("write a duration from \"{}\" to \"{}\"", in_words(least), in_words(most));
        return Err(Complaint::new(
            format!("{} is out of range", quoted(text)),
            if duration < least { "too short" } else { "too long" },
        )
        .help(help));
    }
    Ok(duration)
}

/// `90s`, `10m`, `1h`, `1d`: the largest unit that fits evenly.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

/// Permission bits in octal, such as `0660`.
pub(in crate::config) fn socket_mode(text: &str) -> Result<u32, Complaint> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        _ => {
            Err(Complaint::new(format!("{} is not a valid mode", quoted(text)), "expected an octal number up to 0777")
                .help("write \"0660\": the socket's owner and group may connect"))
        }
    }
}

/// A domain that a customer registers.
pub(in crate::config) fn domain(text: &str) -> Result<Domain, Complaint> {
    Domain::parse(text).map_err(|error| {
        let complaint = Complaint::new(format!("{} is not a valid domain", quoted(text)), error.to_string());
        if let Some(bare) = text.trim().strip_prefix("*.").or(text.trim().strip_prefix('.')) {
            return complaint.help(format!("write {}: subdomains are included", quoted(bare)));
        }
        match error {
            DomainError::Empty | DomainError::TooLong | DomainError::Invalid if text.contains('@') => {
                complaint.help("write only the part after the @")
            }
            DomainError::AddressLiteral => {
                complaint.help("write a domain name; client addresses belong in [[setting.ip]]")
            }
            DomainError::Empty | DomainError::TooLong | DomainError::Invalid => {
                complaint.help("write a name such as \"acme.example\"")
            }
            DomainError::SingleLabel(_) | DomainError::PublicSuffix => complaint,
        }
    })
}

/// A mail address with local part and domain, in canonical form.
pub(in crate::config) fn address(text: &str) -> Result<Address, Complaint> {
    let wrong = |why: &str, help: String| {
        Err(Complaint::new(format!("{} is not a mail address", quoted(text)), why).help(help))
    };
    let example = || "write LOCAL-PART@DOMAIN, such as \"kim@acme.example\"".to_string();
    let address = match Address::from_path(text) {
        Ok(address) => address,
        Err(error @ AddressError::NoLocalPart) => {
            let help = "write LOCAL-PART@DOMAIN; for everybody in a domain, use allowed_senders = \"own-domains\"";
            return wrong(&error.to_string(), help.into());
        }
        Err(error) => return wrong(&error.to_string(), example()),
    };
    if address.domain().is_empty() {
        return wrong("the domain is missing", example());
    }
    // Such as a no-break space from a web page.
    if let Some(c) = address.local_part().chars().find(|&c| c.is_whitespace() && c != ' ') {
        return wrong(&format!("{} is not allowed before the @", quoted(&c.to_string())), example());
    }
    if !is_host_name(address.domain()) {
        return wrong("the part after the @ is not a domain name", example());
    }
    Ok(address)
}

/// A login at a gateway. Postfix divides it from the password at the first colon.
pub(in crate::config) fn gateway_username(text: &str) -> Result<String, Complaint> {
    let is_good = (1..=255).contains(&text.len()) && !text.contains(|c: char| c == ':' || c.is_control());
    if is_good {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(format!("{} is not a valid user name", quoted(text)), "empty, too long, or contains a colon")
        .help("write the user's name at the gateway, such as \"kim\""))
}

/// The name of a transport in Postfix's master.cf.
pub(in crate::config) fn transport(text: &str) -> Result<String, Complaint> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_name) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(format!("{} is not a valid transport", quoted(text)), "expected letters, digits, - and _")
        .help("write the name of an smtp(8) service in master.cf, such as \"smtp\" or \"gateway\""))
}

/// The storage address of a customer, perhaps with `{local}` and `{domain}`.
pub(in crate::config) fn archive_address(text: &str) -> Result<ArchiveAddress, Complaint> {
    let help = "write an address; {local} and {domain} before the @ stand for the sender, as in \"{local}@archive.acme.example\"";
    let wrong =
        |why: String| Complaint::new(format!("{} is not a valid archive address", quoted(text)), why).help(help);
    let template = ArchiveAddress::parse(text).map_err(|error| match error {
        ArchiveAddressError::NoDomain => match address(text) {
            Err(complaint) => complaint,
            Ok(_) => wrong(error.to_string()),
        },
        ArchiveAddressError::OpenDomain => wrong(error.to_string())
            .help("end the domain in a part that is yours, such as \"{domain}.archive.acme.example\""),
        _ => wrong(error.to_string()),
    })?;
    // What anybody's address makes of it has to be an address, too.
    address(&text.trim().replace("{local}", "kim").replace("{domain}", "acme.example"))?;
    Ok(template)
}

/// Whether a name in canonical form has labels of letters, digits, hyphens and underscores, none empty.
pub(in crate::config) fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// An SMTP AUTH login in the form in which it compares: in lower case; with an `@`, as an address.
pub(in crate::config) fn login(text: &str) -> Result<String, Complaint> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.len() > 255 || trimmed.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(Complaint::new(
            format!("{} is not a valid login", quoted(text)),
            "empty, too long, or contains spaces",
        )
        .help("write the name that the client sends at AUTH, such as \"kim\" or \"kim@acme.example\""));
    }
    if trimmed.contains('@') {
        return Ok(address(trimmed)?.as_str().to_owned());
    }
    Ok(trimmed.to_lowercase())
}

/// The name of a user of the system. Whether there is one is known at the start.
pub(in crate::config) fn user(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || text.len() > 64 || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
        return Err(Complaint::new(format!("{} is no user", quoted(text)), "the name of a user is expected")
            .help("write \"relaykeeper\", or leave the line out"));
    }
    Ok(text.to_owned())
}

/// The name of a group of the system. Whether there is one shows when sockets are made.
pub(in crate::config) fn group(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || text.len() > 64 || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
        return Err(Complaint::new(format!("{} is not a valid group", quoted(text)), "expected the name of a group")
            .help("write \"postfix\" or \"smmsp\", or remove the line"));
    }
    Ok(text.to_owned())
}

/// A path, whatever it leads to.
pub(in crate::config) fn path(text: &str) -> Result<PathBuf, Complaint> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err(Complaint::new(format!("{} is not a valid path", quoted(text)), "expected a path"));
    }
    Ok(PathBuf::from(text))
}

/// From the root, whether the path exists or not.
pub(in crate::config) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A file below the folder of the customer file that names it: a relative path that never leads up. What ends in `.toml`
/// is, or may become, a customer's file.
pub(in crate::config) fn file_below(text: &str) -> Result<PathBuf, Complaint> {
    let path = path(text)?;
    let wrong =
        |label: &str, help: &str| Err(Complaint::new(format!("{} cannot be used", quoted(text)), label).help(help));
    let help = "write the path of a file below the folder of this customer file, such as \"secrets/kim-partner\"";
    if path.is_absolute() {
        return wrong("the path must be relative", help);
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return wrong("the path must not contain ..", help);
    }
    match path.file_name() {
        None => wrong("this is a folder", help),
        Some(name) if name.as_bytes().ends_with(b".toml") => {
            wrong("files that end in .toml are customer files", "give the file another extension, such as .users")
        }
        Some(_) => Ok(path),
    }
}

/// A path from the root, such as that of a program.
pub(in crate::config) fn absolute_path(text: &str) -> Result<PathBuf, Complaint> {
    match path(text)? {
        path if path.is_absolute() => Ok(path),
        _ => Err(Complaint::new(format!("{} is not an absolute path", quoted(text)), "it must begin with /")),
    }
}

/// `HOST:PORT`, `[ADDRESS]:PORT`.
pub(in crate::config) fn host_and_port(text: &str) -> Result<String, Complaint> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
    match parts.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text.to_owned()),
        _ => Err(Complaint::new(format!("{} is not a valid server", quoted(text)), "expected HOST:PORT")
            .help("write \"HOST:PORT\", such as \"127.0.0.1:25\"")),
    }
}

/// The name of a customer. With an `@` in it, commands would take it for a user's address.
pub(in crate::config) fn customer_name(text: &str) -> Result<Arc<str>, Complaint> {
    let name = name(text)?;
    if name.contains('@') {
        return Err(Complaint::new(
            format!("{} cannot be a customer's name", quoted(text)),
            "it looks like an address",
        )
        .help("write a short name, such as \"acme\""));
    }
    Ok(name.into())
}

/// A name of a customer or a setting.
pub(in crate::config) fn name(text: &str) -> Result<&str, Complaint> {
    let trimmed = text.trim();
    let complain = |label: &str| {
        Err(Complaint::new(format!("{} is not a valid name", quoted(text)), label)
            .help("write a short, descriptive name, such as \"acme\""))
    };
    if trimmed.is_empty() {
        return complain("it is empty");
    }
    if trimmed.len() > 128 {
        return complain("it is longer than 128 bytes");
    }
    if trimmed.contains(char::is_control) {
        return complain("it contains control characters");
    }
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn durations() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("1h", 3_600), ("0s", 0), ("59m 60s", 3_600), ("5 min", 300)]
        {
            assert_eq!(duration(text, Duration::ZERO, HOUR).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "30", "s", "1.5h", "-1s", "2h", "99999999999999999999s", "9999999999999999999d", "1x", "1é"] {
            assert!(duration(text, Duration::ZERO, HOUR).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(socket_mode("0660").unwrap(), 0o660);
        assert_eq!(socket_mode("0o600").unwrap(), 0o600);
        for text in ["", "rw", "0888", "+660", "7777", "01777"] {
            assert!(socket_mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_need_both_parts() {
        for text in ["kim@acme.example", "\"a b\"@acme.example", "o'hara+x@acme.example", "kim@bücher.example"] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "kim",
            "@acme.example",
            "kim@",
            "kim@acme.example,",
            "a b@acme.example",
            "a@b@c.example",
            "kim@-x.example",
            "kim@a..b",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn logins_compare_in_lower_case() {
        assert_eq!(login(" Kim ").unwrap(), "kim");
        assert_eq!(login("Kim@ACME.example.").unwrap(), "kim@acme.example");
        assert!(login("").is_err() && login("a b").is_err() && login("kim@").is_err());
    }
}
