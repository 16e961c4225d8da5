//! The shared store was unreachable with `on_outage = "accept"` or `"defer"`: what the server is told afterwards.

use crate::outage::{on_the_server, until};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, Parties};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, RecipientKey};

/// What is accepted during an outage.
const MESSAGES: u64 = 20_000;

/// How many bytes the server's record of the customer may have: some windows, and a nonce of six bytes for each message that is on
/// its way.
const MAX_RECORD: usize = 2_000;

fn open(servers: &Servers, on_outage: OnOutage) -> Ledger {
    Ledger::open_shared(&servers.urls(), on_outage, RESERVATION_TIMEOUT).expect("the URLs are good")
}

fn parties() -> Parties {
    Parties { customer: "acme".into(), user: Some("ann".into()), login: None }
}

fn unlimited() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED)
}

/// A message of one recipient that was not reserved; whether it was accepted.
async fn write(ledger: &Ledger) -> bool {
    let kept = AcceptedRecipients { named: &[RecipientKey(1)], unnamed: 0 };
    // What is accepted without asking the server never waits; the connection is made by another task.
    tokio::task::yield_now().await;
    ledger.commit(ledger.new_reservation(), &parties(), &unlimited(), kept).await.is_ok_and(|answer| answer.fits())
}

fn to_count(ledger: &Ledger) -> u64 {
    ledger.gauges().expect("it is shared").messages_to_count
}

#[test]
fn a_backlog_is_counted_beside_other_mail_while_the_server_remembers_few_nonces() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    runtime().block_on(async {
        let ledger = open(&servers, OnOutage::Accept);
        assert!(write(&ledger).await);
        servers.pause(0);
        for _ in 0..MESSAGES {
            assert!(write(&ledger).await, "it is accepted");
        }
        assert_eq!(to_count(&ledger), MESSAGES);
        servers.resume(0);
        let (mut beside, mut largest) = (0, 0);
        while to_count(&ledger) > 0 {
            assert!(write(&ledger).await);
            beside += 1;
            if beside % 20 == 0 {
                largest = largest.max(servers.cli(0, &["strlen", "rk:{acme}:c"]).parse().unwrap());
            }
        }
        // As many nonces alone would not fit.
        assert!(beside * 6 > MAX_RECORD as u64, "{beside} messages passed meanwhile");
        assert!((1..=MAX_RECORD).contains(&largest), "{largest} bytes");
        assert_eq!(on_the_server(&servers).await, (1 + MESSAGES + beside, 0), "each once");
    });
}

#[test]
fn what_left_before_it_was_to_be_counted_is_counted_with_defer_too() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    runtime().block_on(async {
        let ledger = open(&servers, OnOutage::Defer);
        assert!(write(&ledger).await);
        servers.pause(0);
        let kept = AcceptedRecipients { named: &[RecipientKey(1)], unnamed: 0 };
        for _ in 0..3 {
            let _ = ledger.commit_unhurried(ledger.new_reservation(), &parties(), &unlimited(), kept).await;
        }
        assert!(!write(&ledger).await, "a client would wait for this one");
        servers.resume(0);
        until("they are counted", async || to_count(&ledger) == 0).await;
        let counted = on_the_server(&servers).await.0;
        // The one that was deferred reached the server before it hung, or did not.
        assert!((4..=5).contains(&counted), "{counted}");
    });
}

#[test]
fn a_commit_that_failed_releases_its_reservation_once_the_server_is_back() {
    for (on_outage, is_counted) in [(OnOutage::Defer, false), (OnOutage::Accept, true)] {
        let servers = Servers::start(Flavour::Valkey, Kind::Single, &crate::outage::ON_DISK);
        runtime().block_on(async {
            let ledger = open(&servers, on_outage);
            let [committed, given_up] = [2, 3].map(|recipients| (ledger.new_reservation(), recipients));
            for (id, recipients) in [committed, given_up] {
                for key in (0..recipients).map(RecipientKey) {
                    assert!(ledger.reserve(id, &parties(), &unlimited(), key).await.unwrap().fits());
                }
            }
            servers.kill(0);
            let named = [RecipientKey(0), RecipientKey(1)];
            let kept = AcceptedRecipients { named: &named, unnamed: 0 };
            let answer = ledger.commit(committed.0, &parties(), &unlimited(), kept).await;
            assert_eq!(answer.is_ok(), is_counted);
            ledger.release(given_up.0, &parties());
            servers.start_again(0);
            let expected = (if is_counted { 2 } else { 0 }, 0);
            until("nothing is reserved", async || {
                // Reconnects.
                let _ = ledger.ready().await;
                on_the_server(&servers).await == expected
            })
            .await;
        });
    }
}
