//! The clock of a shared store's server jumps. Nothing is decided at a wrong time, and nothing that was counted is lost.

use crate::failover::await_replica;
use crate::outage::until;
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, START, runtime};
use relaykeeper::clock::{Clock, ManualClock, Moment};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Readiness, RecipientKey};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// A server with a clock that can be set, and the elapsed time of the daemons.
pub struct Bed {
    servers: Servers,
    server: Arc<ManualClock>,
    own: Arc<ManualClock>,
}

impl Bed {
    pub fn new(flavour: Flavour) -> Bed {
        let [server, own] = [START, START].map(|start| Arc::new(ManualClock::at(start)));
        Bed { servers: Servers::start(flavour, Kind::Single, &[]), server, own }
    }

    fn open(&self, on_outage: OnOutage, folder: Option<&Path>) -> Ledger {
        let clocks = [self.server.clone() as Arc<dyn Clock>, self.own.clone()];
        let opened =
            Ledger::open_shared_with_clocks(&self.servers.urls(), on_outage, folder, RESERVATION_TIMEOUT, clocks);
        opened.expect("the URLs are good")
    }

    pub fn daemon(&self) -> Ledger {
        self.open(OnOutage::Defer, None)
    }

    pub fn server_time(&self) -> Moment {
        self.server.now()
    }

    /// Time passes, everywhere.
    pub fn wait(&self, seconds: u64) {
        self.server.advance(Duration::from_secs(seconds));
        self.own.advance(Duration::from_secs(seconds));
    }

    /// The server's clock alone.
    pub fn jump(&self, seconds: i64) {
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
            if reset {
                // As a store that only version 0.1.0 has used.
                bed.servers.cli(0, &["del", "rk:clock"]);
            } else {
                let Err(LedgerError::Unavailable(why)) = used(&ledger).await else { panic!("it is in the past") };
                let begin = "the server's clock is 365 days behind the time at which the store was last used";
                assert!(why.message().starts_with(begin), "{why}");
                let lines = ledger.accept_clocks().await.unwrap();
                assert!(lines[0].ends_with(": 3 accounts were checked for times that are still to come"), "{lines:?}");
                until("it decides", async || used(&ledger).await.is_ok()).await;
            }
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
            let Err(why) = ledger.accept_clocks().await else { panic!("nothing jumped") };
            assert!(why.message().starts_with("no server's clock has jumped"), "{why}");
        });
    }
}

/// A daemon that keeps to the clocks of the servers and of this machine.
fn real_daemon(servers: &Servers) -> Ledger {
    Ledger::open_shared(&servers.urls(), OnOutage::Defer, RESERVATION_TIMEOUT).unwrap()
}

#[test]
fn a_real_server_whose_clock_goes_forth_a_day_and_back_loses_nothing() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let servers = Servers::start_with_clocks(flavour, Kind::Single);
        runtime().block_on(async {
            let ledger = real_daemon(&servers);
            assert_eq!(send(&ledger, 0..7).await.unwrap(), 7);
            for shift in [DAY as i64, 0, -(HOUR as i64), 0] {
                servers.set_clock(0, shift);
                if shift == 0 {
                    until_ready(&ledger).await;
                    assert_eq!(used(&ledger).await.unwrap(), [7, 1, 7]);
                } else {
                    let sent = send(&ledger, 7..8).await;
                    let Err(LedgerError::Unavailable(why)) = &sent else { panic!("{flavour:?} {shift}: {sent:?}") };
                    assert!(why.message().starts_with("the server's clock jumped "), "{why}");
                }
            }
            servers.set_clock(0, DAY as i64);
            assert!(send(&ledger, 7..8).await.is_err());
            ledger.accept_clocks().await.unwrap();
            until_ready(&ledger).await;
            assert_eq!(used(&ledger).await.unwrap(), [7, 1, 7]);
            assert_eq!(send(&ledger, 10..20).await.unwrap(), 3);
        });
    }
}

#[test]
fn after_a_year_forth_and_back_a_real_server_has_deleted_what_it_had_and_nobody_stands_still() {
    let servers = Servers::start_with_clocks(Flavour::Redis, Kind::Single);
    runtime().block_on(async {
        let ledger = real_daemon(&servers);
        assert_eq!(send(&ledger, 0..7).await.unwrap(), 7);
        servers.set_clock(0, YEAR as i64);
        assert!(send(&ledger, 0..7).await.is_err());
        // "rk:store" and "rk:clock" stay.
        until("the server deletes what it thinks is old", async || servers.cli(0, &["dbsize"]) == "2").await;
        servers.set_clock(0, 0);
        until_ready(&ledger).await;
        assert_eq!(send(&ledger, 0..12).await.unwrap(), 10);
        assert_eq!(used(&ledger).await.unwrap(), [10, 1, 10]);
    });
}

/// The master dies, and its replica, whose clock is off by so many seconds, takes over.
async fn fail_over(servers: &Servers, skew: i64) {
    servers.set_clock(1, skew);
    await_replica(servers, 0, 1);
    servers.kill(0);
    until("the replica is promoted", async || {
        servers.try_cli(1, &["role"]).is_ok_and(|role| role.starts_with("master"))
    })
    .await;
    let new = servers.port(1).to_string();
    let knows =
        |sentinel| servers.cli(sentinel, &["sentinel", "get-master-addr-by-name", "relaykeeper"]).ends_with(&new);
    until("all sentinels know", async || (2..5).all(knows)).await;
}

#[test]
fn a_failover_is_an_outage_only_if_the_new_masters_clock_is_off_by_more_than_half_a_minute() {
    for skew in [-20, 3600] {
        let servers = Servers::start_with_clocks(Flavour::Redis, Kind::Sentinel);
        runtime().block_on(async {
            let ledger = real_daemon(&servers);
            assert_eq!(send(&ledger, 0..7).await.unwrap(), 7);
            fail_over(&servers, skew).await;
            if skew.abs() > 30 {
                let jumped =
                    format!("the server's clock jumped {} by 1 h 0 min", if skew < 0 { "back" } else { "forward" });
                until("the jump is noticed", async || {
                    send(&ledger, 7..8).await.expect_err("it decided").to_string().contains(&jumped)
                })
                .await;
                ledger.accept_clocks().await.unwrap();
            }
            until("it decides", async || used(&ledger).await.is_ok_and(|used| used == [7, 1, 7])).await;
            until_ready(&ledger).await;
            assert_eq!(send(&ledger, 7..20).await.unwrap(), 3, "{skew}");
        });
    }
}

#[test]
fn one_master_of_a_cluster_whose_clock_jumps_is_an_outage_of_its_customers_only() {
    let servers = Servers::start_with_clocks(Flavour::Redis, Kind::Cluster);
    let slot: usize = servers.cli(0, &["cluster", "keyslot", "rk:{acme}:c"]).parse().unwrap();
    let master = slot * 3 / 16384;
    runtime().block_on(async {
        let ledger = real_daemon(&servers);
        assert_eq!(send(&ledger, 0..7).await.unwrap(), 7);
        let others: Vec<Parties> = ["bolt", "core", "dash", "east", "fern", "gale"]
            .map(|customer| Parties { customer: customer.into(), user: None, login: None })
            .into_iter()
            .filter(|parties| {
                let slot = servers.cli(0, &["cluster", "keyslot", &format!("rk:{{{}}}:c", parties.customer)]);
                slot.parse::<usize>().unwrap() * 3 / 16384 != master
            })
            .collect();
        assert!(!others.is_empty());
        servers.set_clock(master, 3600);
        let Err(LedgerError::Unavailable(why)) = send(&ledger, 7..8).await else { panic!("it decided") };
        assert!(why.message().contains(": the server's clock jumped forward by "), "{why}");
        let outage = ledger.outage().unwrap().borrow().clone().expect("one is unreachable");
        assert!(outage.in_part, "{outage}");
        for parties in &others {
            let answer = ledger.reserve(ledger.new_reservation(), parties, &limits(), RecipientKey(1)).await;
            assert!(answer.unwrap().fits(), "{parties:?}");
        }
        let lines = ledger.accept_clocks().await.unwrap();
        assert!(matches!(&lines[..], [line] if line.contains("3 accounts were moved forward by ")), "{lines:?}");
        until_ready(&ledger).await;
        assert_eq!(used(&ledger).await.unwrap(), [7, 1, 7]);
        assert_eq!(send(&real_daemon(&servers), 7..20).await.unwrap(), 3);
    });
}

#[test]
fn a_move_that_was_interrupted_goes_on_where_it_ended() {
    let bed = Bed::new(Flavour::Valkey);
    runtime().block_on(async {
        let (ledger, other) = (bed.daemon(), bed.daemon());
        assert_eq!(send(&ledger, 0..7).await.unwrap(), 7);
        assert_eq!(used(&other).await.unwrap(), [7, 1, 7]);
        // No script can read that one.
        bed.servers.cli(0, &["sadd", "rk:{acme}:u:bad", "member"]);
        bed.jump(DAY as i64);
        let Err(why) = ledger.accept_clocks().await else { panic!("it cannot") };
        assert!(why.message().contains("WRONGTYPE"), "{why}");
        until("the other one hears of it", async || {
            send(&other, 7..8).await.expect_err("it decided").to_string().contains("is being moved to its new time")
        })
        .await;
        let Err(LedgerError::Unavailable(why)) = used(&bed.daemon()).await else { panic!("it decided") };
        assert!(why.message().ends_with("run \"relaykeeper quota reset --clock\" again"), "{why}");
        bed.servers.cli(0, &["del", "rk:{acme}:u:bad"]);
        bed.wait(HOUR);
        // A daemon that was started meanwhile goes on, too.
        bed.daemon().accept_clocks().await.unwrap();
        for ledger in [&ledger, &other] {
            until("it decides", async || used(ledger).await.is_ok()).await;
            assert_eq!(used(ledger).await.unwrap(), [7, 1, 7]);
        }
        bed.wait(DAY - HOUR - 1);
        assert_eq!(used(&other).await.unwrap(), [7, 1, 7]);
        bed.wait(2);
        assert_eq!(used(&other).await.unwrap(), [0, 0, 0]);
    });
}

/// Elapsed time, and a wall clock that can be corrected.
#[derive(Debug)]
struct OwnClock {
    elapsed: ManualClock,
    wall_is_late_by: AtomicI64,
}

impl Clock for OwnClock {
    fn now(&self) -> Moment {
        self.elapsed.now()
    }

    fn wall(&self, moment: Moment) -> i64 {
        moment.0 as i64 - self.wall_is_late_by.load(Ordering::Relaxed)
    }
}

#[test]
fn times_follow_corrections_of_the_wall_clock() {
    let hour = HOUR as i64 * 1000;
    let folder = tempfile::tempdir().unwrap();
    for (on_outage, folder) in [(OnOutage::Defer, None), (OnOutage::Local, Some(folder.path()))] {
        let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
        // Booted with a clock an hour late, which NTP corrects later.
        let own = Arc::new(OwnClock { elapsed: ManualClock::at(START), wall_is_late_by: hour.into() });
        let clocks = [Arc::new(ManualClock::at(START)) as Arc<dyn Clock>, own.clone()];
        let opened = Ledger::open_shared_with_clocks(&servers.urls(), on_outage, folder, RESERVATION_TIMEOUT, clocks);
        let ledger = opened.unwrap();
        runtime().block_on(async {
            let fits_at = async || {
                let over = ledger.look(None, &parties(), &limits(), &[RecipientKey(99)]).await.unwrap().over;
                ledger.wall(over[0].fits_at.expect("it fits one day"))
            };
            assert_eq!(send(&ledger, 0..10).await.unwrap(), 10);
            let in_a_day = (START.seconds_up() as i64 + DAY as i64) * 1000;
            for is_reachable in [true, false] {
                if !is_reachable {
                    if on_outage != OnOutage::Local {
                        break;
                    }
                    servers.kill(0);
                }
                for late in [hour, 0, -hour] {
                    own.wall_is_late_by.store(late, Ordering::Relaxed);
                    assert_eq!(ledger.wall_time().as_millisecond(), START.0 as i64 - late);
                    let fits = fits_at().await;
                    // What is known locally is known from when it was reported, to the millisecond.
                    assert!((fits - (in_a_day - late)).abs() < 1000, "{is_reachable} {late}: {fits} {in_a_day}");
                }
            }
        });
    }
}
