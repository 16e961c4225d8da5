//! A line when the shared store goes away, and one when it is back; and one if its servers are not set up well.

use crate::config::{OnOutage, how_many};
use crate::ledger::{self, Ledger};
use crate::report::Logger;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The store is back when nothing has gone wrong for so long: a cluster of which a part is away makes one line of it.
const CALM: Duration = Duration::from_secs(2);

/// What is wrong with the store.
type Outage = watch::Receiver<Option<ledger::Outage>>;

/// Writes the lines, for as long as the daemon runs. Does nothing for a store that is not shared.
pub async fn tell_of_outages(ledger: Ledger, on_outage: OnOutage, log: Logger) {
    let Some(mut outage) = ledger.outage() else { return };
    let Some((mut waiting, _)) = ledger.counted_here() else {
        drop(ledger);
        return tell(outage, on_outage, log).await;
    };
    let merged = || ledger.counted_here().map_or(0, |(_, merged)| merged);
    loop {
        // Also what an earlier daemon counted and could not merge any more.
        let before = merged();
        let is_away = tokio::select! {
            away = outage.wait_for(Option::is_some) => away.map(|outage| outage.clone()),
            left = waiting.wait_for(|waiting| *waiting > 0) => left.map(|_| None),
        };
        let Ok(what) = is_away else { return };
        if let Some(outage) = &what {
            let mail = mail(outage);
            log.error(format_args!("{outage}; {mail} is decided by the last known counts, and counted here"));
        }
        if !is_back(&mut outage, Some(&mut waiting)).await {
            return;
        }
        let number = how_many((merged() - before) as usize, "message");
        match what {
            Some(outage) => {
                let seconds = seconds_of(&outage);
                log.info(format_args!("the store is back, after {seconds} s; merged what was counted here: {number}"));
            }
            None => log.info(format_args!("merged what was counted here while the store was away: {number}")),
        }
    }
}

async fn tell(mut outage: Outage, on_outage: OnOutage, log: Logger) {
    let meanwhile = match on_outage {
        OnOutage::Accept => "passes, and is counted when the store is back",
        _ => "is deferred where it counts",
    };
    loop {
        let Ok(Some(what)) = outage.wait_for(Option::is_some).await.map(|what| what.clone()) else { return };
        log.error(format_args!("{what}; {} {meanwhile}", mail(&what)));
        if !is_back(&mut outage, None).await {
            return;
        }
        log.info(format_args!("the store is back, after {} s", seconds_of(&what)));
    }
}

/// Waits until the store is back for good, and all that was counted here is merged. False: nobody will tell any more.
async fn is_back(outage: &mut Outage, mut waiting: Option<&mut watch::Receiver<u64>>) -> bool {
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

/// How long it was, once the store is back for good.
fn seconds_of(outage: &ledger::Outage) -> u64 {
    outage.since.elapsed().saturating_sub(CALM).as_secs()
}

/// Whose mail it is about.
fn mail(outage: &ledger::Outage) -> &'static str {
    if outage.in_part { "mail of its customers" } else { "mail" }
}

/// Warns of what an administrator should change at the servers, once each time it is found.
pub async fn tell_of_advice(ledger: Ledger, log: Logger) {
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
