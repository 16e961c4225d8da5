//! `user suspend`, `customer suspend` and their `resume`, carried out by the running daemon.

use super::arguments::Suspend;
use super::{NO, ask, done, settings};
use crate::control::Command;
use crate::directory::SubjectKind;

pub fn run(kind: SubjectKind, command: &Suspend) -> u8 {
    let (config, command, json) = match command {
        Suspend::Suspend { config, name, why, json } => {
            (config, Command::Suspend { kind, name: name.clone(), why: why.clone() }, *json)
        }
        Suspend::Resume { config, name, why, json } => {
            (config, Command::Resume { kind, name: name.clone(), why: why.clone() }, *json)
        }
    };
    let Some(settings) = settings(&config.config) else { return NO };
    done(ask(&settings, &command), json)
}
