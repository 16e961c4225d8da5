//! `grant` and `grants`: more for a while, ordered from the running daemon.

use super::arguments;
use super::when::{self, Side};
use super::{DONE, NO, USAGE, ask, done, settings};
use crate::control::{Command, Response};
use crate::orders::Grant;
use std::path::Path;

pub fn run(grant: &arguments::Grant) -> u8 {
    let until = match (&grant.until, grant.more) {
        // Taken back.
        (_, 0) => None,
        (None, _) => {
            eprintln!("relaykeeper: --until is missing; {}", when::FORMS);
            return USAGE;
        }
        (Some(text), _) => match when::read(text, Side::Future, &when::now()) {
            Ok(until) => Some(until),
            Err(error) => {
                eprintln!("relaykeeper: --until: {error}");
                return USAGE;
            }
        },
    };
    let Some(settings) = settings(&grant.config.config) else { return NO };
    let (name, why) = (grant.name.clone(), grant.why.clone());
    let command = Command::Grant { name, limit: grant.limit, more: grant.more, until, why };
    done(ask(&settings, &command), grant.json)
}

pub fn list(config: &Path, json: bool) -> u8 {
    let Some(settings) = settings(config) else { return NO };
    match ask(&settings, &Command::Grants) {
        Ok(Response::Grants { grants }) => show(&grants, json),
        Ok(other) => super::unexpected(&other),
        Err(code) => code,
    }
}

fn show(grants: &[Grant], json: bool) -> u8 {
    if json {
        match serde_json::to_string_pretty(grants) {
            Ok(text) => println!("{text}"),
            Err(_) => return NO,
        }
        return DONE;
    }
    for Grant { subject, limit, more, until, why, by, .. } in grants {
        println!("{} {}: {limit} +{more} until {until} by {by}: {why}", subject.kind.key(), subject.name);
    }
    DONE
}
