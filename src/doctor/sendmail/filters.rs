//! Whether Sendmail asks relaykeeper on each service, in good order, and what it does without an answer.

use super::cf::{Daemon, Filter};
use super::{Sendmail, say};
use crate::doctor::{Finding, Severity};
use crate::listen::ListenAddress;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// relaykeeper may take 20 s to answer at RCPT while it loads its store, and 80 s at the end of a message.
const LEAST_SECONDS: [(char, u64, u64); 3] = [('S', 10, 25), ('R', 10, 25), ('E', 300, 85)];

pub(super) fn check(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    let daemons = sendmail.cf.daemons();
    if sendmail.has_milter == Some(false) {
        say(
            findings,
            "sm-no-milter",
            Severity::Error,
            sendmail.cf.path.display().to_string(),
            "sendmail -d0.1 -bt does not list MILTER".to_owned(),
            "this Sendmail was built without milters: it asks nobody",
            Some("install a Sendmail that was built with MILTER".to_owned()),
        );
    }
    syntax(sendmail, &daemons, findings);
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    for daemon in daemons.iter().filter(|daemon| !sendmail.is_closed(daemon)) {
        asked_there(sendmail, daemon, findings);
    }
    let mut lists: Vec<(String, String, Vec<String>)> = Vec::new();
    if let Some(option) = sendmail.cf.option("InputMailFilters") {
        let found = format!("InputMailFilters={}", option.value);
        lists.push((sendmail.at(option.line, ""), found, sendmail.cf.default_filters()));
    }
    for daemon in &daemons {
        if let Some(filters) = &daemon.filters {
            let found = format!("DaemonPortOptions={}", daemon.text);
            lists.push((sendmail.at(daemon.line, &daemon.title()), found, filters.clone()));
        }
    }
    for (place, found, names) in &lists {
        order(sendmail, place, found, names, findings);
    }
    for filter in sendmail.cf.filters.iter().filter(|filter| sendmail.is_ours(filter)) {
        let is_listed = lists.iter().any(|(_, _, names)| names.contains(&filter.name));
        if is_listed && asked.insert(&filter.name) {
            behaviour(sendmail, filter, findings);
        }
    }
    for filter in sendmail.cf.filters.iter().filter(|filter| sendmail.is_meant_as_ours(filter)) {
        listens(sendmail, filter, findings);
    }
}

/// Without it Sendmail does not start.
fn syntax(sendmail: &Sendmail<'_>, daemons: &[Daemon], findings: &mut Vec<Finding>) {
    const WHY: &str = "Sendmail does not start with this (exit status 78)";
    let mut names: Vec<(String, String)> = Vec::new();
    if let Some(option) = sendmail.cf.option("InputMailFilters") {
        names.extend(sendmail.cf.default_filters().into_iter().map(|name| (sendmail.at(option.line, ""), name)));
    }
    for daemon in daemons {
        let place = sendmail.at(daemon.line, &daemon.title());
        names.extend(daemon.filters.iter().flatten().map(|name| (place.clone(), name.clone())));
    }
    for (place, name) in names {
        if sendmail.cf.filter(&name).is_none() {
            let found = format!("InputMailFilters names {name}, which no X line defines");
            let write = Some(sendmail.filter_line());
            say(findings, "sm-filter-syntax", Severity::Error, place, found, WHY, write);
        }
    }
    for filter in &sendmail.cf.filters {
        for item in &filter.malformed {
            let place = sendmail.at(filter.line, &format!("X{}", filter.name));
            let found = match item.split_once(':') {
                Some((letter, _)) if letter.len() == 1 => {
                    format!("\"{item}\" behind a comma: the times of T= are separated by semicolons")
                }
                _ => format!("\"{item}\": a filter has S=, F= and T= only"),
            };
            let write = Some(sendmail.filter_line());
            say(findings, "sm-filter-syntax", Severity::Error, place, found, WHY, write);
        }
    }
}

/// Whether this service asks.
fn asked_there(sendmail: &Sendmail<'_>, daemon: &Daemon, findings: &mut Vec<Finding>) {
    let filters = sendmail.cf.filters_of(daemon);
    let asks = filters.iter().any(|name| sendmail.cf.filter(name).is_some_and(|filter| sendmail.is_ours(filter)));
    // One that is meant to be ours and is not is said with that filter.
    let is_meant = |name: &String| {
        sendmail.cf.filter(name).is_some_and(|filter| !sendmail.is_ours(filter) && sendmail.is_meant_as_ours(filter))
    };
    if !asks && filters.iter().any(is_meant) {
        return;
    }
    let is_cut_off = daemon.cut_off.iter().any(|name| sendmail.cf.filter(name).is_some());
    let place = sendmail.at(daemon.line, &daemon.title());
    if daemon.filters.is_some() && (!asks || is_cut_off) {
        let ours = sendmail.name_of_ours();
        let others = filters.iter().chain(&daemon.cut_off).filter(|name| **name != ours);
        let list: Vec<_> = others.cloned().chain([ours.clone()]).collect();
        let found = match is_cut_off {
            true => format!(
                "DaemonPortOptions={}: what stands behind the comma ({}) is not in force",
                daemon.text,
                daemon.cut_off.join(", ")
            ),
            false => format!("DaemonPortOptions={}: without {ours}", daemon.text),
        };
        let write = format!("InputMailFilters={}, or no InputMailFilters= here", list.join(";"));
        let why = match asks {
            true => "the filters behind the comma are never asked: in this list the separator is a semicolon",
            false => "nobody decides what comes in there: anybody the access map lets relay sends without limits",
        };
        let severity = if asks { Severity::Warning } else { Severity::Error };
        return say(findings, "sm-daemon-list", severity, place, found, why, Some(write));
    }
    if asks {
        return;
    }
    let found = match sendmail.cf.option("InputMailFilters") {
        _ if !sendmail.cf.filters.iter().any(|filter| sendmail.is_ours(filter)) => {
            "no X line has a socket of listen.milter".to_owned()
        }
        Some(option) => {
            format!("InputMailFilters={} (line {}) without {}", option.value, option.line, sendmail.name_of_ours())
        }
        None => "there is no option InputMailFilters: MAIL_FILTER only defines a filter".to_owned(),
    };
    let why = "relaykeeper is never asked there: no limit holds, and no sender is checked";
    say(findings, "milter-not-asked", Severity::Error, place, found, why, Some(sendmail.filter_line()));
}

/// Ours is the last one, and there once.
fn order(sendmail: &Sendmail<'_>, place: &str, found: &str, names: &[String], findings: &mut Vec<Finding>) {
    let is_ours = |name: &String| sendmail.cf.filter(name).is_some_and(|filter| sendmail.is_ours(filter));
    let ours = names.iter().filter(|name| is_ours(name)).count();
    if ours > 1 {
        let why = "each message is asked about twice: two connections for each session, for nothing";
        let write = Some("one INPUT_MAIL_FILTER for relaykeeper".to_owned());
        say(findings, "milter-twice", Severity::Warning, place.to_owned(), found.to_owned(), why, write);
    }
    if ours > 0 && !names.last().is_some_and(is_ours) {
        let why = "what a later filter refuses at the end of a message has counted already";
        let write = Some(format!("{} as the last INPUT_MAIL_FILTER", sendmail.name_of_ours()));
        say(findings, "milter-not-last", Severity::Warning, place.to_owned(), found.to_owned(), why, write);
    }
}

/// What happens while relaykeeper does not answer.
fn behaviour(sendmail: &Sendmail<'_>, filter: &Filter, findings: &mut Vec<Finding>) {
    let place = || sendmail.at(filter.line, &format!("X{}", filter.name));
    let write = || Some(sendmail.filter_line());
    let flags = &filter.flags;
    if flags.contains('R') {
        let why = "each restart of relaykeeper bounces the mail that comes meanwhile";
        say(findings, "milter-fails-hard", Severity::Error, place(), format!("F={flags}"), why, write());
    } else if !flags.contains(['T', '4']) {
        let found = if flags.is_empty() { "no F=".to_owned() } else { format!("F={flags}") };
        let why = "while relaykeeper does not answer, mail passes undecided and uncounted";
        say(findings, "milter-fails-open", Severity::Error, place(), found, why, write());
    }
    let short: Vec<_> = LEAST_SECONDS
        .iter()
        .map(|(letter, default, least)| (letter, filter.seconds(*letter).unwrap_or(*default), least))
        .filter(|(_, seconds, least)| seconds < least)
        .map(|(letter, seconds, least)| format!("{letter}:{seconds}s (at least {least}s)"))
        .collect();
    if !short.is_empty() {
        let found = format!("T= has {}", short.join(", "));
        let why =
            "an answer may take longer while the store is loaded: Sendmail goes on without relaykeeper, or defers";
        say(findings, "milter-time-limits", Severity::Warning, place(), found, why, write());
    }
    if let Some(ListenAddress::Unix(path)) = socket(&filter.socket) {
        unsafe_path(sendmail, &path, &place(), findings);
    }
}

/// What Sendmail checks of the path before it connects (safefile in libsm): every folder.
fn unsafe_path(sendmail: &Sendmail<'_>, path: &Path, place: &str, findings: &mut Vec<Finding>) {
    const WHY: &str = "Sendmail does not start with this (exit status 71); if it came to be later, it goes on without \
                       relaykeeper";
    let permits = sendmail.cf.value("DontBlameSendmail").to_ascii_lowercase();
    let mut say_it = |found: String, write: String| {
        say(findings, "sm-socket-unsafe", Severity::Error, place.to_owned(), found, WHY, Some(write));
    };
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        say_it(format!("{} is a symbolic link", path.display()), "the path of the socket itself".to_owned());
    }
    for folder in path.ancestors().skip(1) {
        let Ok(metadata) = folder.metadata() else { continue };
        let mode = metadata.permissions().mode() & 0o7777;
        let by_group = mode & 0o020 != 0 && !permits.contains("groupwritabledirpathsafe");
        let by_others = mode & 0o002 != 0 && !permits.contains("worldwritabledirpathsafe");
        if by_group || by_others {
            let who = if by_others { "everybody" } else { "its group" };
            let shown = folder.display();
            say_it(format!("{who} may write to {shown} (mode {mode:04o})"), format!("chmod go-w {shown}"));
        }
    }
}

/// A filter that is meant to be relaykeeper reaches it.
fn listens(sendmail: &Sendmail<'_>, filter: &Filter, findings: &mut Vec<Finding>) {
    let place = sendmail.at(filter.line, &format!("X{}", filter.name));
    let is_ours = sendmail.is_ours(filter);
    let problem = match socket(&filter.socket) {
        None => Some("this is no address of a milter"),
        Some(_) if !is_ours => Some("listen.milter has no such socket"),
        // That the daemon does not run is said once, for the host.
        Some(address) if !sendmail.relaykeeper.is_down => {
            super::super::host::nobody_listens(&address).then_some("nobody listens there")
        }
        Some(_) => None,
    };
    let Some(problem) = problem else { return };
    let found = format!("S={}: {problem}", filter.socket);
    let why = match filter.flags.contains(['T', '4', 'R']) {
        true => "all mail waits, or is refused: the filter cannot be reached",
        false => "mail passes undecided: the filter cannot be reached",
    };
    say(findings, "milter-nobody-listens", Severity::Error, place, found, why, Some(sendmail.filter_line()));
}

/// The socket of `S=`, without a family `local:` is understood.
pub(super) fn socket(text: &str) -> Option<ListenAddress> {
    let text = text.trim();
    match text.starts_with('/') {
        true => format!("unix:{text}").parse().ok(),
        false => text.parse().ok(),
    }
}
