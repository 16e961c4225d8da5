//! `check`: reads the whole configuration, looks at what a start needs, and reports every error at once.
//!
//! What counts is what the daemon's user can read and do. Root becomes that user; anybody else goes by owners and modes.

mod rights;
mod start;

use super::daemon_user::DaemonUser;
use super::{DONE, NO, print};
use crate::config::{self, Configuration, Diagnostic, Location, Problems, Severity, how_many, key_location};
use rights::{Right, Want, right};
use std::fmt::Write;
use std::path::Path;

/// Problems go to standard error, the summary to standard output. `files_only`: not what a start needs on this machine.
pub fn run(config: &Path, files_only: bool) -> u8 {
    let (problems, loaded) = match files_only {
        true => config::check(config),
        false => check_as_daemon(config),
    };
    print::problems(&problems);
    print::line(summary(&problems, loaded.as_ref()));
    if problems.errors() > 0 { NO } else { DONE }
}

fn check_as_daemon(main: &Path) -> (Problems, Option<Configuration>) {
    // With errors in the main file nobody knows who the daemon is.
    let Ok(settings) = config::load_settings(main) else { return config::check(main) };
    let mut start = Problems::default();
    let (caller, user) = (DaemonUser::caller(), DaemonUser::of(&settings));
    let user = user.unwrap_or_else(|error| {
        start.push(Diagnostic::error(error.to_string()).at(key_location(main, "relay.user", 0, "")));
        DaemonUser::caller()
    });
    match user.binds_as_root {
        true => {
            let root = DaemonUser { binds_as_root: true, ..DaemonUser::root() };
            start::check_sockets(main, &settings, &root, &mut start);
            user.become_if_root();
        }
        false => {
            user.become_if_root();
            start::check_sockets(main, &settings, &user, &mut start);
        }
    }
    start::check_store_and_programs(main, &settings, &user, &mut start);
    let (mut problems, loaded) = config::check(main);
    if let Some(loaded) = &loaded {
        check_readable(loaded, &user, &mut problems);
    }
    problems.append(start);
    if !user.is_caller() {
        let title = format!("checked as user {}, but the daemon runs as user {}", caller.name, user.name);
        let help = format!("for an exact answer, run relaykeeper check as root or as user {}", user.name);
        problems.push(Diagnostic::note(title).help(help));
    }
    (problems, loaded)
}

/// Files that the daemon cannot read, unless that has been said.
fn check_readable(loaded: &Configuration, user: &DaemonUser, problems: &mut Problems) {
    let said = |path: &Path, problems: &Problems| {
        let name = path.display().to_string();
        problems.iter().any(|problem| problem.severity == Severity::Error && problem.title.contains(&name))
    };
    for path in loaded.files.paths() {
        let want = if path.is_dir() { Want::List } else { Want::Read };
        let Right::No(denial) = right(user, path, want) else { continue };
        if said(path, problems) {
            continue;
        }
        let mode = if denial.path.is_dir() { "g+rX" } else { "g+r" };
        let (culprit, group) = (denial.path.display(), user.group());
        let error = Diagnostic::error(format!("the daemon's user {} cannot read {}", user.name, path.display()));
        problems.push(error.at(Location::file(path.into(), "")).help(format!(
            "{culprit} belongs to user {} and has mode {:04o}; run: chgrp {group} {culprit} && chmod {mode} {culprit}",
            denial.owner, denial.mode
        )));
    }
}

fn summary(problems: &Problems, loaded: Option<&Configuration>) -> String {
    if problems.errors() > 0 {
        return problems.summary();
    }
    let mut text = String::from("configuration is good");
    if let Some(loaded) = loaded {
        let customers = loaded.directory.customers();
        let users = loaded.directory.customers().map(|customer| customer.users.len()).sum();
        let domains = loaded.directory.customers().map(|customer| customer.domains.len()).sum();
        let _ = write!(
            text,
            ": {}, {}, {}",
            how_many(customers.len(), "customer"),
            how_many(domains, "domain"),
            how_many(users, "user")
        );
    }
    if problems.warnings() > 0 {
        let _ = write!(text, " ({})", problems.summary());
    }
    text
}
