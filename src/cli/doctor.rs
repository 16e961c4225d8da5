//! `doctor`: whether the MTA really asks relaykeeper, and whether limits hold.

use super::arguments::Doctor;
use super::{DONE, NO, UNREACHABLE, USAGE, print};
use crate::doctor::{self, Examination, probe};
use std::path::Path;

pub fn run(asked: &Doctor) -> u8 {
    let report = doctor::examine(&Examination {
        config: asked.config.config.clone(),
        postfix: asked.postfix.clone(),
        sendmail: asked.sendmail.clone(),
        canary: asked.canary,
    });
    match asked.json {
        true => _ = print::json(&report.findings),
        false => print::lines(&doctor::lines(&report.findings)),
    }
    if report.no_mta {
        print::error("neither Postfix nor Sendmail is installed here; name one with --postfix DIR or --sendmail FILE");
        return USAGE;
    }
    match (report.unreachable, report.is_bad()) {
        (true, _) => UNREACHABLE,
        (false, true) => NO,
        (false, false) => DONE,
    }
}

/// A process of doctor's own that tries sockets as another user.
pub fn connect_as(user: &str, root: &Path, addresses: &[String]) -> u8 {
    match probe::run(user, root, addresses) {
        Ok(answer) => {
            print::line(answer);
            DONE
        }
        Err(error) => {
            print::line(error);
            NO
        }
    }
}
