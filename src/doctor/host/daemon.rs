//! Whether the daemon runs, once, and with what the files say.

use super::Host;
use crate::config::{self, Problems};
use crate::doctor::{Finding, Severity, program};
use crate::listen::ListenAddress;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// As many problems of the configuration are named; `check` has the rest.
const MAX_PROBLEMS: usize = 20;

/// As the command line has it.
const DEFAULT_CONFIG: &str = "/etc/relaykeeper/relaykeeper.toml";

const UNIT: &str = "relaykeeper.service";

pub(super) fn check(host: &Host<'_>, findings: &mut Vec<Finding>) {
    match host.status {
        Ok(status) => {
            for file in &status.bad_files {
                let why = "mail of this customer is deferred, or decided by the last good copy";
                findings.push(Finding::new("config-bad", Severity::Error, host.main(), file.clone(), why, None));
            }
            for difference in &status.differs_on_disk {
                let found = format!("{difference}; configured at {}", status.configured_at);
                let why = "what was read here is not what runs";
                let write = Some("relaykeeper reload".to_owned());
                findings.push(Finding::new("not-reloaded", Severity::Warning, host.main(), found, why, write));
            }
        }
        Err(error) if error.is_denied() => {
            let what = "the running daemon was not asked";
            findings.push(Finding::not_looked_at("listen.control", what, error.to_string()));
        }
        Err(error) => {
            let why = "mail waits, or passes undecided where the MTA goes on without relaykeeper";
            let write = Some("systemctl enable --now relaykeeper".to_owned());
            let found = error.to_string();
            findings.push(Finding::new("daemon-down", Severity::Error, "listen.control", found, why, write));
        }
    }
    unit(findings);
    two_daemons(host, findings);
}

/// What `check` says of the configuration.
pub(in crate::doctor) fn bad_configuration(main: &Path, problems: &Problems) -> Vec<Finding> {
    let errors = problems.iter().filter(|problem| problem.severity == config::Severity::Error);
    let errors = errors.take(MAX_PROBLEMS).map(|problem| {
        let place = problem.locations.first().map_or_else(
            || main.display().to_string(),
            |place| match place.line {
                0 => place.file.display().to_string(),
                line => format!("{}:{line}", place.file.display()),
            },
        );
        let write = problem.help.first().cloned().or_else(|| Some("relaykeeper check says more".to_owned()));
        let why = "what has errors is not used: mail of its customers gets 451, or the daemon does not start";
        Finding::new("config-bad", Severity::Error, place, problem.title.clone(), why, write)
    });
    errors.collect()
}

/// Whether systemd starts it at the next boot. Where systemd does not run, something else does.
fn unit(findings: &mut Vec<Finding>) {
    if !Path::new("/run/systemd/system").is_dir() {
        return;
    }
    let arguments = ["is-enabled", UNIT].map(AsRef::as_ref);
    let Ok(answer) = program::output(Path::new("systemctl"), &arguments, "", 4_096) else { return };
    let state = answer.trim();
    if let Some(why) = unit_problem(state) {
        let write = match state {
            "masked" | "masked-runtime" => "systemctl unmask relaykeeper && systemctl enable --now relaykeeper",
            _ => "systemctl enable --now relaykeeper",
        };
        let found = format!("the unit is {state}");
        findings.push(Finding::new("unit-disabled", Severity::Warning, UNIT, found, why, Some(write.to_owned())));
    }
}

/// Why a state of `systemctl is-enabled` is no good; `None`: it is, or there is no such unit.
fn unit_problem(state: &str) -> Option<&'static str> {
    match state {
        "disabled" => Some("after the next boot relaykeeper does not run"),
        "masked" | "masked-runtime" => Some("systemd does not start it at all"),
        _ => None,
    }
}

/// Whether all sockets belong to one process, and no other one uses this configuration.
fn two_daemons(host: &Host<'_>, findings: &mut Vec<Finding>) {
    const WHY: &str = "a message counts twice, or on neither: each daemon has counts of its own";
    let write = Some("stop one of them, and see that each MTA asks the other".to_owned());
    let mut owners: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (_, _, address) in host.loaded.settings.listen.addresses() {
        if let ListenAddress::Unix(path) = address
            && let Some(pid) = owner(path)
        {
            owners.entry(pid).or_default().push(address.to_string());
        }
    }
    if owners.len() > 1 {
        let found: Vec<_> =
            owners.iter().map(|(pid, sockets)| format!("process {pid}: {}", sockets.join(", "))).collect();
        let place = "listen".to_owned();
        return findings.push(Finding::new("two-daemons", Severity::Error, place, found.join("; "), WHY, write));
    }
    let running = serving(host.main);
    if running.len() > 1 {
        let pids: Vec<_> = running.iter().map(u32::to_string).collect();
        let found = format!("processes {} serve {}", pids.join(" and "), host.main.display());
        findings.push(Finding::new("two-daemons", Severity::Error, host.main(), found, WHY, write));
    }
}

/// The process that listens there, if it runs. Sockets that systemd made, or kept from an earlier daemon, tell nothing.
fn owner(path: &Path) -> Option<i32> {
    let stream = UnixStream::connect(path).ok()?;
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    (pid > 1 && Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
}

/// The processes `relaykeeper serve` with this main file that this user can see.
fn serving(main: &Path) -> Vec<u32> {
    let wanted = fs::canonicalize(main).ok();
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let serves = |pid: &u32| {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let arguments: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        config_of_daemon(&arguments).is_some_and(|config| {
            // Relative paths are those of another folder.
            let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            fs::canonicalize(folder.join(config)).ok() == wanted && wanted.is_some()
        })
    };
    pids.filter(serves).collect()
}

/// The main file of a daemon's command line; `None`: it is none.
fn config_of_daemon(arguments: &[&str]) -> Option<PathBuf> {
    let (program, rest) = arguments.split_first()?;
    if Path::new(program).file_name()? != "relaykeeper" || rest.first() != Some(&"serve") {
        return None;
    }
    let named = rest.iter().enumerate().find_map(|(at, argument)| match *argument {
        "--config" => rest.get(at + 1).copied(),
        argument => argument.strip_prefix("--config="),
    });
    Some(named.unwrap_or(DEFAULT_CONFIG).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_known_by_its_command_line() {
        let config = |arguments: &[&str]| config_of_daemon(arguments).map(|path| path.display().to_string());
        assert_eq!(config(&["/usr/bin/relaykeeper", "serve", "--config", "/a.toml"]).as_deref(), Some("/a.toml"));
        assert_eq!(config(&["relaykeeper", "serve", "--config=b.toml"]).as_deref(), Some("b.toml"));
        assert_eq!(config(&["relaykeeper", "serve"]).as_deref(), Some("/etc/relaykeeper/relaykeeper.toml"));
        assert_eq!(config(&["relaykeeper", "check"]), None);
        assert_eq!(config(&["vi", "serve"]), None);
    }

    #[test]
    fn units_that_do_not_start_are_told_from_those_that_do() {
        for state in ["disabled", "masked", "masked-runtime"] {
            assert!(unit_problem(state).is_some(), "{state}");
        }
        for state in ["enabled", "static", "indirect", "not-found", ""] {
            assert!(unit_problem(state).is_none(), "{state}");
        }
    }
}
