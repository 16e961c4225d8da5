//! The command line: one file a command. Exit codes are those of the manual page: 0 done, 1 the answer is no, 2 wrong
//! usage, 3 the daemon cannot be reached.

mod arguments;
mod explain;
mod quota;
mod serve;
mod status;

pub use arguments::{Arguments, Command, DEFAULT_CONFIG};

use crate::config;
use crate::control::{Answer, ControlError};
use std::path::Path;
use std::process::ExitCode;

/// Done.
pub const DONE: u8 = 0;
/// The answer is no: bad configuration, deferred, refused.
pub const NO: u8 = 1;
/// The daemon cannot be reached.
pub const UNREACHABLE: u8 = 3;

/// Carries out a command.
pub fn run(arguments: Arguments) -> ExitCode {
    ExitCode::from(match arguments.command {
        Command::Serve { config } => serve::run(&config.config),
        Command::Check { config } => check::run(&config.config),
        Command::Explain(question) => explain::run(&question),
        Command::Quota { command } => quota::run(&command),
        Command::Status { config, json } => status::run(&config.config, json),
        Command::Reload { config } => status::reload(&config.config),
        Command::Export { config, format } => export::run(&config.config, format),
    })
}
