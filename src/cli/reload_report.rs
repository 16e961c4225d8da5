//! What is said about a reload, in the log and to the administrator who asked for it.

use crate::config::{Changes, Configuration, Problems, how_many};
use crate::orders::TargetKind;
use crate::report::Logger;
use crate::session::Engine;
use std::fmt::Write;

/// The new configuration took effect; an error if there are customer files that are not.
pub(super) fn good(log: &Logger, loaded: &Configuration, changes: &Changes) -> Result<String, String> {
    for problem in loaded.problems.iter() {
        log.warn(problem);
    }
    for bad in &loaded.bad_files {
        log.error(bad);
    }
    let summary = summary(loaded, changes);
    match loaded.bad_files.is_empty() {
        true => log.info(&summary),
        false => log.error(&summary),
    }
    let mut words = String::new();
    for problem in loaded.problems.iter() {
        let _ = writeln!(words, "{problem}");
    }
    for bad in &loaded.bad_files {
        let _ = writeln!(words, "{bad}");
    }
    words += &summary;
    if loaded.bad_files.is_empty() { Ok(words) } else { Err(words) }
}

/// The configuration stays as it was.
pub(super) fn bad(log: &Logger, problems: &Problems) -> String {
    let mut words = String::new();
    for problem in problems.iter() {
        log.error(problem);
        let _ = writeln!(words, "{problem}");
    }
    let summary = "the configuration was not reloaded: nothing has changed";
    log.error(summary);
    words + summary
}

/// A suspension may have no effect if its customer or user is no longer configured, or has another name.
pub(super) fn warn_of_strangers(engine: &Engine) {
    let (orders, snapshot) = (engine.administration.orders(), engine.snapshot());
    for suspension in orders.suspensions() {
        let target = &suspension.target;
        let customer = || snapshot.directory.customer(&target.customer);
        let is_known = match target.kind {
            TargetKind::Customer => customer().is_some(),
            TargetKind::User => customer().is_some_and(|customer| customer.users.find(&target.name).is_some()),
            // Logins need not be registered.
            TargetKind::Login | TargetKind::Client => true,
        };
        if !is_known {
            let (kind, name, customer) = (target.kind.key(), &target.name, &target.customer);
            engine.log.warn(format_args!("{kind} {name} (customer {customer}) is suspended, but not configured"));
        }
    }
}

fn summary(loaded: &Configuration, changes: &Changes) -> String {
    let customers = how_many(loaded.directory.customers().len(), "customer");
    let mut text = format!("configuration reloaded: {customers}");
    for (what, names) in [("added", &changes.added), ("changed", &changes.changed), ("removed", &changes.removed)] {
        if !names.is_empty() {
            let _ = write!(text, ", {} {what}", names.len());
        }
    }
    if !loaded.bad_files.is_empty() {
        let _ = write!(text, "; {} not in use as it is on disk", how_many(loaded.bad_files.len(), "file"));
    }
    if !changes.need_restart.is_empty() {
        let _ = write!(text, "; these keys take effect after a restart: {}", changes.need_restart.join(", "));
    }
    text
}
