//! Reloads of the running daemon.

use super::reload_report;
use crate::administration::AppliedConfiguration;
use crate::audit::{Action, Actor, Instruction};
use crate::config::{self, Configuration, NoCustomers};
use crate::control::Reload;
use crate::daemon::{SavedCopies, service_manager};
use crate::report::{Level, LogLine};
use crate::session::{Engine, Snapshot};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

/// Reads the configuration again at SIGHUP and at an administrator's request, one time after the other.
pub(super) async fn serve_reloads(
    engine: Arc<Engine>,
    loaded: Configuration,
    copies: SavedCopies,
    path: PathBuf,
    mut hangups: Signal,
    mut requests: mpsc::Receiver<Reload>,
) {
    let mut loaded = Arc::new(loaded);
    let reading = what_was_read(&path, &loaded, None, &[]);
    if let Err(error) = record(&engine, Actor::Start, String::new(), Ok(reading)).await {
        engine.log.error(&error);
    }
    loop {
        let (by, why, no_customers, asked_by) = tokio::select! {
            Some(()) = hangups.recv() => (Actor::Signal, String::new(), NoCustomers::Refuse, None),
            Some(Reload { by, why, allow_no_customers, answer }) = requests.recv() => {
                let no_customers = if allow_no_customers { NoCustomers::Allow } else { NoCustomers::Refuse };
                (by, why, no_customers, Some(answer))
            }
            else => return,
        };
        service_manager::reloading();
        let (previous, file) = (loaded.clone(), path.clone());
        // Reading 100,000 files takes a while: nobody else waits for it.
        let (words, recorded) =
            match tokio::task::spawn_blocking(move || config::reload(&previous, &file, no_customers)).await {
                Ok(Ok((mut new, changes))) => {
                    copies.save(new.take_unsaved(), &engine.log).await;
                    engine.replace_snapshot(Snapshot::from(&new));
                    engine.log.set_level(new.settings.log.level);
                    let reading = what_was_read(&path, &new, Some(&loaded), &changes.need_restart);
                    loaded = Arc::new(new);
                    reload_report::warn_of_strangers(&engine);
                    (reload_report::good(&engine.log, &loaded, &changes), Ok(reading))
                }
                Ok(Err(problems)) => (Err(reload_report::bad(&engine.log, &problems)), Err(problems.summary())),
                Err(panic) => {
                    engine.log.error(format_args!("the configuration was not reloaded: {panic}"));
                    let words = "the configuration was not reloaded: internal error, see the log";
                    (Err(words.to_owned()), Err("internal error".to_owned()))
                }
            };
        let words = match record(&engine, by, why, recorded).await {
            Ok(()) => words,
            Err(error) => {
                engine.log.error(&error);
                words.map(|words| format!("{words}\n{error}")).map_err(|words| format!("{words}\n{error}"))
            }
        };
        service_manager::ready(&engine);
        if let Some(asked_by) = asked_by {
            let _ = asked_by.send(words);
        }
    }
}

/// What the audit log records of a configuration that took effect.
fn what_was_read(
    path: &Path,
    loaded: &Configuration,
    previous: Option<&Configuration>,
    need_restart: &[&str],
) -> AppliedConfiguration {
    AppliedConfiguration {
        // One name, however it was typed.
        main: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        customers: loaded.changed_files(previous).into_iter().map(Path::to_owned).collect(),
        all_customers: loaded.customer_files().map(Path::to_owned).collect(),
        need_restart: need_restart.iter().map(|&key| key.to_owned()).collect(),
        bad_files: loaded.bad_files.iter().map(|bad| bad.file.display().to_string()).collect(),
    }
}

/// Records what came of reading the configuration, or why nothing did.
async fn record(
    engine: &Engine,
    by: Actor,
    why: String,
    reading: Result<AppliedConfiguration, String>,
) -> Result<(), String> {
    let order = Instruction { by, at: engine.wall_time(), why };
    let administration = &engine.administration;
    let recorded = match reading {
        Ok(reading) => administration.record_configuration(order.clone(), reading).await,
        Err(refused) => {
            let action = Action::Configuration { need_restart: Vec::new(), refused, bad_files: Vec::new(), files: 0 };
            administration.record(order.clone(), action).await
        }
    };
    let receipt = recorded.map_err(|error| format!("the audit log has no record of the configuration: {error}"))?;
    engine.log.write(Level::Info, LogLine::event("configuration").field("by", &order.by).field("audit", receipt));
    Ok(())
}
