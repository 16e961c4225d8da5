//! `grant` and `grants`: more for a while, ordered from the running daemon.

use super::arguments;
use super::{DONE, NO, USAGE, ask, done, print, when};
use crate::control::{Command, Response};
use crate::orders::Grant;
use std::path::Path;

pub fn run(grant: &arguments::Grant) -> u8 {
    let until = match (&grant.until, grant.more) {
        // Taken back.
        (_, 0) => None,
        (None, _) => {
            print::error(format_args!("--until is missing; {}", when::FORMS));
            return USAGE;
        }
        (Some(text), _) => match when::until(text) {
            Ok(until) => Some(until),
            Err(code) => return code,
        },
    };
    let (name, why) = (grant.name.clone(), grant.why.clone());
    let command = Command::Grant { name, limit: grant.limit, more: grant.more, until, why };
    done(ask(&grant.config.config, &command), grant.json)
}

pub fn list(config: &Path, json: bool) -> u8 {
    match ask(config, &Command::Grants) {
        Ok(Response::Grants { grants }) if json => match print::json(&grants) {
            true => DONE,
            false => NO,
        },
        Ok(Response::Grants { grants }) => {
            print::lines(&grants.iter().map(line).collect::<Vec<_>>());
            DONE
        }
        Ok(other) => super::unexpected(&other),
        Err(code) => code,
    }
}

fn line(grant: &Grant) -> String {
    let Grant { subject, limit, more, until, why, by, .. } = grant;
    format!("{} {}: {limit} +{more} until {until} by {by}: {why}", subject.kind.key(), subject.name)
}
