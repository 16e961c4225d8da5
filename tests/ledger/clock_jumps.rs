//! The clock of a shared store's server jumps. Nothing is decided at a wrong time, and nothing that was counted is lost.

use crate::outage::until;
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, START, runtime};
use relaykeeper::clock::{Clock, ManualClock, Moment};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Readiness, RecipientKey};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// A server with a clock that can be set, and the elapsed time of the daemons.
struct Bed {
    servers: Servers,
    server: Arc<ManualClock>,
    own: Arc<ManualClock>,
}

impl Bed {
    fn new(flavour: Flavour) -> Bed {
        let [server, own] = [START, START].map(|start| Arc::new(ManualClock::at(start)));
        Bed { servers: Servers::start(flavour, Kind::Single, &[]), server, own }
    }

    fn open(&self, on_outage: OnOutage, folder: Option<&Path>) -> Ledger {
        let clocks = [self.server.clone() as Arc<dyn Clock>, self.own.clone()];
        let opened =
            Ledger::open_shared_with_clocks(&self.servers.urls(), on_outage, folder, RESERVATION_TIMEOUT, clocks);
        opened.expect("the URLs are good")
    }

    fn daemon(&self) -> Ledger {
        self.open(OnOutage::Defer, None)
    }

    /// Time passes, everywhere.
    fn wait(&self, seconds: u64) {
        self.server.advance(Duration::from_secs(seconds));
        self.own.advance(Duration::from_secs(seconds));
    }

    /// The server's clock alone.
    fn jump(&self, seconds: i64) {
        let now = self.server.now().0 as i64;
        self.server.set(Moment((now + seconds * 1000) as u64));
    }
}

/// Ten recipients of the customer a day, ten different ones of a user.
fn limits() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |name| match name {
        LimitName::CustomerDay | LimitName::UserUniques => Limit::of(10),
        _ => Limit::UNLIMITED,
    })
}

fn parties() -> Parties {
    Parties { customer: "acme".into(), user: Some("ann".into()), login: Some("ann@login".into()) }
}

/// One message. How many of its recipients were let through.
async fn send(ledger: &Ledger, recipients: std::ops::Range<u64>) -> Result<usize, LedgerError> {
    let (id, mut named) = (ledger.new_reservation(), Vec::new());
    for key in recipients.map(RecipientKey) {
        if ledger.reserve(id, &parties(), &limits(), key).await?.fits() {
            named.push(key);
        }
    }
    if !named.is_empty() {
        let answer = ledger.commit(id, &parties(), &limits(), AcceptedRecipients { named: &named, unnamed: 0 }).await?;
        assert!(answer.fits(), "{answer:?}");
    }
    Ok(named.len())
}

/// Used of a limit: the customer's day, the user's messages, the user's different recipients.
async fn used(ledger: &Ledger) -> Result<[u64; 3], LedgerError> {
    let customer = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
    let user = Subject { kind: SubjectKind::User, customer: "acme".into(), name: "ann".into() };
    let (customer, user) = (ledger.usage(&customer, &limits()).await?, ledger.usage(&user, &limits()).await?);
    Ok([customer[0].used, user[0].used, user[1].used])
}

async fn until_ready(ledger: &Ledger) {
    until("it is ready", async || ledger.health().readiness == Readiness::Ready).await;
}

#[test]
fn a_jump_is_an_outage_until_the_clock_is_right_again() {
    for (flavour, jumps) in [(Flavour::Redis, [DAY, YEAR]), (Flavour::Valkey, [601, 100])] {
        let bed = Bed::new(flavour);
        runtime().block_on(async {
            let ledger = bed.daemon();
            assert_eq!(send(&ledger, 0..7).await.unwrap(), 7);
            for jump in jumps.map(|jump| jump as i64).into_iter().flat_map(|jump| [jump, -jump]) {
                bed.wait(60);
                bed.jump(jump);
                let Err(LedgerError::Unavailable(why)) = send(&ledger, 10..11).await else {
                    panic!("it decided {flavour:?} {jump}")
                };
                let direction = if jump > 0 { "forward" } else { "back" };
                assert!(why.message().starts_with(&format!("the server's clock jumped {direction} by ")), "{why}");
                assert!(why.message().ends_with("run \"relaykeeper quota reset --clock\""), "{why}");
                let Readiness::Failed(_) = ledger.health().readiness else { panic!("{:?}", ledger.health()) };
                bed.jump(-jump);
                until_ready(&ledger).await;
                assert_eq!(used(&ledger).await.unwrap(), [7, 1, 7]);
            }
            assert_eq!(send(&ledger, 10..20).await.unwrap(), 3);
        });
    }
}

#[test]
fn whoever_was_let_into_the_future_by_mistake_stands_still_no_longer_than_a_window() {
    for reset in [false, true] {
        let bed = Bed::new(Flavour::Redis);
        runtime().block_on(async {
            // Daemons that know no better: all of them were started while the clock was wrong.
            assert_eq!(send(&bed.daemon(), 0..2).await.unwrap(), 2);
            bed.wait(DAY + HOUR);
            let both = |seconds: i64| {
                bed.jump(seconds);
                bed.own.set(bed.server.now());
            };
            both(YEAR as i64);
            let ledger = bed.daemon();
            assert_eq!(send(&ledger, 0..8).await.unwrap(), 8);
            let open = ledger.new_reservation();
            assert!(ledger.reserve(open, &parties(), &limits(), RecipientKey(20)).await.unwrap().fits());
            both(-(YEAR as i64));
            let ledger = bed.daemon();
            assert_eq!(used(&ledger).await.unwrap(), [8, 1, 8]);
            if reset {
                for (kind, name) in
                    [(SubjectKind::Customer, "acme"), (SubjectKind::User, "ann"), (SubjectKind::Login, "ann@login")]
                {
                    let subject = Subject { kind, customer: "acme".into(), name: name.into() };
                    ledger.reset(&subject, "a test").await.unwrap();
                }
                assert_eq!(used(&ledger).await.unwrap(), [0, 0, 0]);
                assert_eq!(send(&ledger, 0..12).await.unwrap(), 10);
            } else {
                // The reservation is dropped; what was counted counts from now on, by the second.
                assert_eq!(send(&ledger, 5..12).await.unwrap(), 2, "recipients that were seen cost nothing");
                bed.wait(DAY - 1);
                assert_eq!(used(&ledger).await.unwrap(), [10, 2, 8]);
            }
            bed.wait(DAY + 1);
            assert_eq!(used(&ledger).await.unwrap(), [0, 0, 0]);
            assert_eq!(send(&ledger, 30..42).await.unwrap(), 10);
        });
    }
}

#[test]
fn a_server_that_is_off_by_less_than_half_a_minute_takes_over_without_an_outage() {
    let bed = Bed::new(Flavour::Redis);
    runtime().block_on(async {
        let ledger = bed.daemon();
        for (recipient, skew) in (1..).zip([20, -20, -29, 29]) {
            bed.wait(5);
            bed.jump(skew);
            // As a failover does.
            bed.servers.cli(0, &["client", "kill", "type", "normal"]);
            assert_eq!(send(&ledger, 0..recipient).await.unwrap(), recipient as usize, "{skew}");
            until_ready(&ledger).await;
            assert_eq!(ledger.outage().unwrap().borrow().as_ref(), None);
        }
    });
}

#[test]
fn a_new_daemon_believes_the_other_daemons_and_then_its_own_clock() {
    let bed = Bed::new(Flavour::Redis);
    runtime().block_on(async {
        let first = bed.daemon();
        assert_eq!(send(&first, 0..1).await.unwrap(), 1);
        // This machine's clock is a day late, but the other daemon has counted just now.
        let opened = |wall: Moment| {
            let clocks = [bed.server.clone() as Arc<dyn Clock>, Arc::new(ManualClock::at(wall))];
            let urls = bed.servers.urls();
            Ledger::open_shared_with_clocks(&urls, OnOutage::Defer, None, RESERVATION_TIMEOUT, clocks).unwrap()
        };
        let a_day_less = |moment: Moment| Moment(moment.0 - DAY * 1000);
        assert_eq!(send(&opened(a_day_less(bed.server.now())), 1..2).await.unwrap(), 1);
        // Nobody has for an hour.
        bed.wait(HOUR);
        assert_eq!(send(&opened(bed.server.now()), 2..3).await.unwrap(), 1);
        bed.wait(HOUR);
        bed.jump(DAY as i64);
        let Err(LedgerError::Unavailable(why)) = send(&opened(bed.own.now()), 3..4).await else { panic!("it decided") };
        assert!(
            why.message().starts_with("the server's clock is 1 day ahead of this machine's: correct whichever"),
            "{why}"
        );
        bed.jump(-(DAY as i64));
        assert_eq!(used(&opened(bed.own.now())).await.unwrap(), [3, 3, 3]);
    });
}

#[test]
fn what_was_counted_locally_meanwhile_is_merged() {
    let (bed, folder) = (Bed::new(Flavour::Redis), tempfile::tempdir().unwrap());
    runtime().block_on(async {
        let ledger = bed.open(OnOutage::Local, Some(folder.path()));
        assert_eq!(send(&ledger, 0..3).await.unwrap(), 3);
        for jump in [YEAR as i64, -(HOUR as i64)] {
            bed.jump(jump);
            let before = used(&ledger).await.unwrap()[0];
            assert_eq!(send(&ledger, before..before + 2).await.unwrap(), 2);
            let Readiness::Degraded(why) = ledger.health().readiness else { panic!("{:?}", ledger.health()) };
            assert!(why.contains("the store is unreachable: the server's clock jumped"), "{why}");
            bed.wait(60);
            bed.jump(-jump);
            until_ready(&ledger).await;
            assert_eq!(used(&bed.daemon()).await.unwrap()[0], before + 2);
        }
        // They count from when they were accepted.
        bed.wait(DAY - 61);
        assert_eq!(used(&bed.daemon()).await.unwrap(), [2, 1, 2]);
    });
}

#[test]
fn an_accepted_time_moves_what_was_counted() {
    for (flavour, jump) in [
        (Flavour::Redis, HOUR as i64),
        (Flavour::Valkey, -(HOUR as i64)),
        (Flavour::Redis, DAY as i64),
        (Flavour::Redis, YEAR as i64),
        (Flavour::Redis, -(YEAR as i64)),
    ] {
        let bed = Bed::new(flavour);
        runtime().block_on(async {
            let (ledger, other) = (bed.daemon(), bed.daemon());
            assert_eq!(send(&ledger, 0..3).await.unwrap(), 3);
            bed.wait(HOUR);
            assert_eq!(send(&other, 2..6).await.unwrap(), 4);
            let open = ledger.new_reservation();
            assert!(ledger.reserve(open, &parties(), &limits(), RecipientKey(6)).await.unwrap().fits());
            bed.wait(60);
            bed.jump(jump);
            assert!(send(&ledger, 10..11).await.is_err());
            let lines = ledger.accept_clocks().await.unwrap();
            let direction = if jump > 0 { "forward" } else { "back" };
            let begin = format!("the clock of the server is accepted: 3 accounts were moved {direction} by ");
            assert!(matches!(&lines[..], [line] if line.starts_with(&begin)), "{lines:?}");
            for ledger in [&ledger, &other, &bed.daemon()] {
                let _ = ledger.ready().await;
                until_ready(ledger).await;
                assert_eq!(used(ledger).await.unwrap(), [7, 2, 6], "{jump}");
            }
            // The reservation counts, and ends, and the rest expires, when it would have.
            let left = 9 - 7;
            assert_eq!(send(&other, 20..29).await.unwrap(), left, "{jump}");
            let kept = AcceptedRecipients { named: &[RecipientKey(6)], unnamed: 0 };
            assert!(ledger.commit(open, &parties(), &limits(), kept).await.unwrap().fits());
            bed.wait(DAY - HOUR - 61);
            assert_eq!(used(&other).await.unwrap(), [10, 4, 9]);
            bed.wait(2);
            assert_eq!(used(&other).await.unwrap(), [7, 3, 7], "{jump}: recipient 2 was seen later, too");
            bed.wait(HOUR);
            assert_eq!(used(&other).await.unwrap()[0], 3);
            let Err(LedgerError::Unavailable(why)) = ledger.accept_clocks().await else { panic!("nothing jumped") };
            assert!(why.message().starts_with("no server's clock has jumped"), "{why}");
        });
    }
}
