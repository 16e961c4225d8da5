//! A line when the shared store goes away, and one when it is back; and one if its servers are not set up well.

use crate::config::OnOutage;
use crate::ledger::Ledger;
use crate::report::Logger;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The store is back when nothing has gone wrong for so long: a cluster of which a part is away makes one line of it.
const CALM: Duration = Duration::from_secs(2);

/// Writes the lines, for as long as there is a ledger. Does nothing for a store that is not shared.
pub async fn tell_of_outages(ledger: Ledger, on_outage: OnOutage, log: Logger) {
    let Some(mut outage) = ledger.outage() else { return };
    let meanwhile = match on_outage {
        OnOutage::Accept => "mail passes, and is counted when the store is back",
        _ => "mail that counts is deferred",
    };
    drop(ledger);
    loop {
        let Ok(why) = outage.wait_for(Option::is_some).await.map(|why| why.clone()) else { return };
        let since = Instant::now();
        log.error(format_args!("the store is away: {}; {meanwhile}", why.as_deref().unwrap_or_default()));
        loop {
            if outage.wait_for(Option::is_none).await.is_err() {
                return;
            }
            match timeout(CALM, outage.wait_for(Option::is_some)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return,
                Err(_) => break,
            }
        }
        log.info(format_args!("the store is back, after {} s", (since.elapsed() - CALM).as_secs()));
    }
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
