//! Reports when the shared store becomes unreachable and when it is reachable again, in the log and to systemd; and warns if
//! its servers are not set up well.

use super::service_manager;
use crate::config::{OnOutage, how_many};
use crate::ledger::{self, Ledger};
use crate::report::Logger;
use crate::session::Engine;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// An outage is over once nothing has gone wrong for this long, so that a flapping node makes one line, not many.
const CALM: Duration = Duration::from_secs(2);

type Outage = watch::Receiver<Option<ledger::Outage>>;

/// Writes the lines, for as long as the daemon runs. Does nothing for a store that is not shared.
pub async fn report_outages(engine: Arc<Engine>, on_outage: OnOutage) {
    let (ledger, log) = (&engine.ledger, &engine.log);
    let Some(mut outage) = ledger.outage() else { return };
    let Some((mut waiting, _)) = ledger.counted_locally() else { return report(&engine, outage, on_outage).await };
    let merged = || ledger.counted_locally().map_or(0, |(_, merged)| merged);
    loop {
        // Includes what an earlier daemon counted locally and could not merge.
        let before = merged();
        let outage_began = tokio::select! {
            began = outage.wait_for(Option::is_some) => began.map(|outage| outage.clone()),
            left = waiting.wait_for(|waiting| *waiting > 0) => left.map(|_| None),
        };
        let Ok(what) = outage_began else { return };
        if let Some(outage) = &what {
            let mail = mail(outage);
            service_manager::status(&outage.to_string());
            log.error(format_args!("{outage}; {mail} is decided by the last known usage, and counted locally"));
        }
        if !is_over(&mut outage, Some(&mut waiting)).await {
            return;
        }
        service_manager::status_is_usual(&engine);
        let number = how_many((merged() - before) as usize, "message");
        match what {
            Some(outage) => {
                let seconds = seconds_of(&outage);
                log.info(format_args!(
                    "the store is reachable again after {seconds} s; merged {number} counted locally"
                ));
            }
            None => log.info(format_args!("merged {number} counted locally while the store was unreachable")),
        }
    }
}

async fn report(engine: &Engine, mut outage: Outage, on_outage: OnOutage) {
    let log = &engine.log;
    let meanwhile = match on_outage {
        OnOutage::Accept => "is accepted, and counted once the store is reachable",
        _ => "is deferred if a limit applies to it",
    };
    loop {
        let Ok(Some(what)) = outage.wait_for(Option::is_some).await.map(|what| what.clone()) else { return };
        service_manager::status(&what.to_string());
        log.error(format_args!("{what}; {} {meanwhile}", mail(&what)));
        if !is_over(&mut outage, None).await {
            return;
        }
        service_manager::status_is_usual(engine);
        log.info(format_args!("the store is reachable again after {} s", seconds_of(&what)));
    }
}

/// Waits until the outage is over and all that was counted locally is merged. False: the ledger is gone.
async fn is_over(outage: &mut Outage, mut waiting: Option<&mut watch::Receiver<u64>>) -> bool {
    loop {
        if outage.wait_for(Option::is_none).await.is_err() {
            return false;
        }
        if let Some(waiting) = &mut waiting
            && waiting.wait_for(|waiting| *waiting == 0).await.is_err()
        {
            return false;
        }
        match timeout(CALM, outage.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
    }
}

/// How long the outage was, once it is over.
fn seconds_of(outage: &ledger::Outage) -> u64 {
    outage.since.elapsed().saturating_sub(CALM).as_secs()
}

/// Whose mail is affected.
fn mail(outage: &ledger::Outage) -> &'static str {
    if outage.in_part { "mail of its customers" } else { "mail" }
}

/// Warns of what an administrator should change at the servers, once each time that it is found.
pub async fn report_advice(ledger: Ledger, log: Logger) {
    let Some(mut advice) = ledger.advice() else { return };
    drop(ledger);
    loop {
        if let Some(advice) = &*advice.borrow_and_update() {
            log.warn(advice);
        }
        if advice.changed().await.is_err() {
            return;
        }
    }
}
