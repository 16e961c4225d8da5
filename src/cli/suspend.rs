//! `user suspend`, `customer suspend`, `login suspend`, `client suspend` and their `resume`, carried out by the running
//! daemon.

use super::arguments::Suspend;
use super::{ask, done, when};
use crate::control::Command;
use crate::orders::TargetKind;

pub fn run(kind: TargetKind, command: &Suspend) -> u8 {
    let (config, command, json) = match command {
        Suspend::Suspend { config, name, why, until, json } => {
            let until = match until.as_deref().map(when::until).transpose() {
                Ok(until) => until,
                Err(code) => return code,
            };
            (config, Command::Suspend { kind, name: name.clone(), why: why.clone(), until }, *json)
        }
        Suspend::Resume { config, name, why, json } => {
            (config, Command::Resume { kind, name: name.clone(), why: why.clone() }, *json)
        }
    };
    done(ask(&config.config, &command), json)
}
