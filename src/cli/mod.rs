//! The command line: one file a command. Exit codes are those of the manual page: 0 done, 1 the answer is no, 2 wrong
//! usage, 3 the daemon cannot be reached.

mod arguments;
mod audit;
mod backup;
mod check;
mod daemon_user;
mod doctor;
mod explain;
mod export;
mod grant;
mod print;
mod quota;
mod reload_report;
mod reloads;
mod serve;
mod status;
mod suspend;
mod when;

pub use arguments::{Arguments, Command, DEFAULT_CONFIG};

use crate::config::{self, LastGoodCopies};
use crate::control::{self, Response};
use crate::orders::TargetKind;
use crate::session::Snapshot;
use daemon_user::DaemonUser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Done.
pub const DONE: u8 = 0;
/// The answer is no: bad configuration, deferred, refused.
pub const NO: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// The daemon cannot be reached.
pub const UNREACHABLE: u8 = 3;

/// Carries out a command.
pub fn run(arguments: Arguments) -> ExitCode {
    ExitCode::from(match arguments.command {
        Command::Serve { config } => serve::run(&config.config),
        Command::Check { config, files_only } => check::run(&config.config, files_only),
        Command::Doctor(asked) => doctor::run(&asked),
        Command::ConnectAs { user, root, addresses } => doctor::connect_as(&user, &root, &addresses),
        Command::Explain(question) => explain::run(&question),
        Command::Quota { command } => quota::run(&command),
        Command::Grant(grant) => grant::run(&grant),
        Command::Grants { config, json } => grant::list(&config.config, json),
        Command::User { command } => suspend::run(TargetKind::User, &command),
        Command::Customer { command } => suspend::run(TargetKind::Customer, &command),
        Command::Login { command } => suspend::run(TargetKind::Login, &command),
        Command::Client { command } => suspend::run(TargetKind::Client, &command),
        Command::Audit { config, since, json } => audit::run(&config.config, since.as_deref(), json),
        Command::Status { config, json } => status::run(&config.config, json),
        Command::Reload { config, why, allow_no_customers } => status::reload(&config.config, why, allow_no_customers),
        Command::Export { config, format } => export::run(&config.config, format),
        Command::Backup { config, file } => backup::save(&config.config, &file),
        Command::Restore { config, file, why } => backup::restore(&config.config, &file, why),
    })
}

/// The configuration as the daemon would use it: with what its user can read, and with the last good copies of files that
/// went bad. Without one, what is wrong goes to standard error; so does what the daemon cannot use as it is.
fn configuration(path: &Path) -> Option<Snapshot> {
    let loaded = config::load_settings(path).and_then(|settings| {
        if let Ok(user) = DaemonUser::of(&settings) {
            user.become_if_root();
        }
        // None are needed if they cannot be read.
        config::load_with_copies(path, &LastGoodCopies::read(settings.store.path()).0)
    });
    match loaded {
        Ok(loaded) => {
            loaded.bad_files.iter().for_each(print::error);
            Some(Snapshot::from(&loaded))
        }
        Err(problems) => {
            print::problems(&problems);
            None
        }
    }
}

/// The store's folder, for commands that read what was recorded: they are needed most when the main file has errors.
fn store_folder(path: &Path) -> Option<PathBuf> {
    let problems = match config::load_settings(path) {
        Ok(settings) => return Some(settings.store.path().to_owned()),
        Err(problems) => problems,
    };
    let store = config::main_file_hints(path).store;
    if store.is_none() {
        print::problems(&problems);
    }
    store
}

/// Asks the daemon of this main file; an exit code if it cannot be reached. Errors in the file do not matter: whoever has
/// to suspend somebody now cannot mend it first.
fn ask(path: &Path, command: &control::Command) -> Result<Response, u8> {
    let (control, problems) = match config::load_settings(path) {
        Ok(settings) => (settings.listen.control, None),
        Err(problems) => (config::main_file_hints(path).control, Some(problems)),
    };
    control::ask(control.as_ref(), command).map_err(|error| {
        problems.iter().for_each(print::problems);
        print::error(error);
        UNREACHABLE
    })
}

/// Says how it went; in JSON as an object of `done` and `words`.
fn done(answer: Result<Response, u8>, json: bool) -> u8 {
    match answer {
        Ok(Response::Done { words }) if json => {
            print::json(&serde_json::json!({ "done": true, "words": words }));
            DONE
        }
        Ok(Response::No { words }) if json => {
            print::json(&serde_json::json!({ "done": false, "words": words }));
            NO
        }
        Ok(Response::Done { words }) => {
            words.lines().for_each(print::line);
            DONE
        }
        Ok(other) => unexpected(&other),
        Err(code) => code,
    }
}

/// Anything but what was asked for: a no, and why.
fn unexpected(answer: &Response) -> u8 {
    match answer {
        Response::No { words } => words.lines().for_each(print::error),
        _ => print::error("the daemon answered something else; is it of the same version as this command?"),
    }
    NO
}
