//! `serve`: the daemon, in the foreground.

use super::reloads::serve_reloads;
use super::{DONE, NO, print, reload_report};
use crate::administration::Administration;
use crate::config::{self, Configuration, OnOutage, Settings, Store, how_many};
use crate::control::ControlService;
use crate::daemon::{self, Privileges, SavedCopies, Sockets, Supervisor, log_panics, raise_open_files_limit};
use crate::ledger::Ledger;
use crate::listen::KeptSockets;
use crate::report::Logger;
use crate::session::{Engine, Snapshot};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
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
    log_panics(&log);
    raise_open_files_limit(&log);
    let privileges = Privileges::of(settings.relay.user.as_deref())?;
    privileges.prepare_store(settings.store.path())?;
    // One thread for each two cores: the other half is the MTA's.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let outcome = runtime.block_on(async {
        // Before anybody can see that the daemon is there: a signal that nobody waits for would kill it.
        let (hangups, stop) = (signal(SignalKind::hangup())?, stop_signal()?);
        let sockets = Sockets::bind(&settings.listen, privileges.owner(), kept, &log)?;
        privileges.give_up(&log)?;
        let engine = open_engine(&settings, &loaded, &log)?;
        copies.error().iter().for_each(|error| log.error(error));
        announce(&engine, &loaded, path);
        let mut supervisor = Supervisor::new(&log);
        if let Store::Redis { on_outage, .. } = settings.store {
            // Whether it can be asked or not: mail that is refused anyway need not wait for that.
            let _ = engine.ledger.ready().await;
            watch_store(&engine, on_outage, &mut supervisor);
        }
        let first_save = {
            let (copies, unsaved, log) = (copies.clone(), loaded.take_unsaved(), log.clone());
            tokio::spawn(async move { copies.save(unsaved, &log).await })
        };
        let (reload, requests) = mpsc::channel(1);
        let reloads = serve_reloads(engine.clone(), loaded, copies, path.to_owned(), hangups, requests);
        supervisor.essential("the reloads", reloads);
        let control = ControlService::new(engine.clone(), reload);
        // On a task of its own: services are not to wait for the main thread's turn.
        let ended = tokio::spawn(daemon::run(engine, sockets, control, supervisor, stop)).await?;
        let _ = tokio::time::timeout(LAST_SAVE, first_save).await;
        ended?;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if outcome.is_ok() {
        log.info("stopped");
    }
    log.flush(LAST_LINES);
    outcome
}

fn open_engine(
    settings: &Settings,
    loaded: &Configuration,
    log: &Logger,
) -> Result<Arc<Engine>, Box<dyn std::error::Error>> {
    let ledger = open_ledger(settings)?;
    let administration = Administration::open(settings.store.path())?;
    let engine = Engine::new(Snapshot::from(loaded), ledger, administration, log.clone());
    if let Err(error) = engine.record_decisions(settings.store.path()) {
        log.error(format_args!("decisions cannot be recorded, so `explain REFERENCE` finds none: {error}"));
    }
    Ok(engine)
}

fn watch_store(engine: &Arc<Engine>, on_outage: OnOutage, supervisor: &mut Supervisor) {
    let (ledger, log) = (engine.ledger.clone(), engine.log.clone());
    supervisor
        .restarting("the report of the store's advice", move || daemon::report_advice(ledger.clone(), log.clone()));
    let engine = engine.clone();
    supervisor.restarting("the report of store outages", move || daemon::report_outages(engine.clone(), on_outage));
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
