//! `serve`: the daemon, in the foreground.

use super::{DONE, NO, print, reload_report};
use crate::administration::{Administration, AppliedConfiguration};
use crate::audit::Action;
use crate::audit::{Actor, Instruction};
use crate::config::{self, Configuration, NoCustomers, Settings, Store, how_many};
use crate::control::{ControlService, Reload};
use crate::daemon::{self, SavedCopies, Sockets, raise_open_files_limit};
use crate::ledger::Ledger;
use crate::listen::KeptSockets;
use crate::report::{Level, LogLine, Logger};
use crate::session::{Engine, Snapshot};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How long the last log lines may take.
const LAST_LINES: Duration = Duration::from_secs(5);

/// How long a stop soon after the start waits until the copies of customer files are on disk.
const LAST_SAVE: Duration = Duration::from_secs(20);

pub fn run(path: &Path) -> u8 {
    let mut kept = KeptSockets::inherited();
    // The copies are in the store's folder, which the main file names.
    let read = config::load_settings(path).and_then(|settings| {
        let copies = SavedCopies::read(settings.store.path());
        Ok((copies.load(path)?, copies))
    });
    let (loaded, copies) = match read {
        Ok(read) => read,
        Err(problems) => {
            print::problems(&problems);
            kept.release();
            return NO;
        }
    };
    match serve(path, loaded, copies, &mut kept) {
        Ok(()) => DONE,
        Err(error) => {
            print::error(error);
            kept.release();
            NO
        }
    }
}

fn serve(
    path: &Path,
    mut loaded: Configuration,
    copies: SavedCopies,
    kept: &mut KeptSockets,
) -> Result<(), Box<dyn std::error::Error>> {
    let settings = loaded.settings.clone();
    let log = Logger::start(settings.log.level, settings.log.to.open())?;
    raise_open_files_limit(&log);
    // One thread for each two cores: the other half is the MTA's.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let ledger = open_ledger(&settings)?;
        let sockets = Sockets::bind(&settings.listen, kept, &log)?;
        let administration = Administration::open(settings.store.path())?;
        let engine = Engine::new(Snapshot::from(&loaded), ledger, administration, log.clone());
        if let Err(error) = engine.record_decisions(settings.store.path()) {
            log.error(format_args!("decisions cannot be recorded, so `explain REFERENCE` finds none: {error}"));
        }
        copies.error().iter().for_each(|error| log.error(error));
        announce(&engine, &loaded, path);
        if let Store::Redis { on_outage, .. } = &settings.store {
            let (ledger, log) = (engine.ledger.clone(), log.clone());
            // Whether it can be asked or not: mail that is refused anyway need not wait for that.
            let _ = ledger.ready().await;
            tokio::spawn(daemon::tell_of_advice(ledger.clone(), log.clone()));
            tokio::spawn(daemon::tell_of_outages(ledger, *on_outage, log));
        }
        let first_save = {
            let (copies, unsaved, log) = (copies.clone(), loaded.take_unsaved(), log.clone());
            tokio::spawn(async move { copies.save(unsaved, &log).await })
        };
        let (reload, requests) = mpsc::channel(1);
        let hangups = signal(SignalKind::hangup())?;
        let stop = stop_signal()?;
        let reloads = tokio::spawn(serve_reloads(engine.clone(), loaded, copies, path.to_owned(), hangups, requests));
        let control = ControlService::new(engine.clone(), reload);
        // On a task of its own: services are not to wait for the main thread's turn.
        tokio::spawn(daemon::run(engine, sockets, control, stop)).await?;
        reloads.abort();
        let _ = tokio::time::timeout(LAST_SAVE, first_save).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if outcome.is_ok() {
        log.info("stopped");
    }
    log.flush(LAST_LINES);
    outcome
}

fn open_ledger(settings: &Settings) -> Result<Ledger, Box<dyn std::error::Error>> {
    match &settings.store {
        Store::Embedded { path, sync } => Ok(Ledger::open(path, *sync, settings.relay.reservation_timeout)?),
        Store::Redis { urls, on_outage, path } => {
            Ok(Ledger::open_shared_with_folder(urls, *on_outage, path, settings.relay.reservation_timeout)?)
        }
    }
}

fn announce(engine: &Engine, loaded: &Configuration, path: &Path) {
    let customers = loaded.directory.customers().len();
    let log = &engine.log;
    for problem in loaded.problems.iter() {
        log.warn(problem);
    }
    for bad in &loaded.bad_files {
        log.error(bad);
    }
    reload_report::warn_of_strangers(engine);
    for problem in engine.administration.problems() {
        log.error(problem);
    }
    for key in loaded.settings.listen.unserved() {
        log.warn(format_args!("{key}: nothing listens there, this version does not serve it yet"));
    }
    let (version, customers) = (env!("CARGO_PKG_VERSION"), how_many(customers, "customer"));
    log.info(format_args!("relaykeeper {version} ready: {customers} from {}", path.display()));
}

/// SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Reads the configuration again at SIGHUP and at an administrator's request, one time after the other.
async fn serve_reloads(
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
