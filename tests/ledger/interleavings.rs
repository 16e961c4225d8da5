//! Random interleavings of all requests to a ledger, compared with the naive [`Model`].
//!
//! With few events the ledger is exact by the second, and must agree in every field of every answer. With many it may
//! forget late, by 1 % of the window at most: it must never let more through than fits, nor refuse without need.

use crate::model::{Account, Event, Limits, Model, Open, Who};
use crate::stores::{Bench, StoreKind, runtime};
use proptest::prelude::*;
use relaykeeper::directory::{LimitName, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, LimitStanding, RecipientKey, ReservationId};
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        slot: usize,
        who: Who,
        key: u64,
    },
    /// Commits what is reserved, but for one in so many, and some more.
    Commit {
        slot: usize,
        who: Who,
        leave_out: u64,
        more: BTreeSet<u64>,
        unnamed: u32,
    },
    Release {
        slot: usize,
    },
    Look {
        slot: usize,
        who: Who,
        keys: BTreeSet<u64>,
    },
    Wait {
        milliseconds: u64,
    },
    Change(Limits),
    Reset(Account),
    Restart,
    /// What an administrator is shown is compared. (Not after each step: to show it, the ledger looks at things that it may
    /// leave alone otherwise.)
    Show,
}

const SLOTS: usize = 5;

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        4 => Just(Who { customer: "acme", user: Some("ann@acme.example"), login: None }),
        2 => Just(Who { customer: "acme", user: Some("bob@acme.example"), login: Some("ann") }),
        1 => Just(Who { customer: "acme", user: None, login: Some("ann") }),
        1 => Just(Who { customer: "acme", user: None, login: None }),
        1 => Just(Who { customer: "other", user: Some("ann@acme.example"), login: None }),
    ]
}

fn account() -> impl Strategy<Value = Account> {
    prop_oneof![
        Just((SubjectKind::Customer, "acme", "acme")),
        Just((SubjectKind::User, "acme", "ann@acme.example")),
        Just((SubjectKind::Login, "acme", "ann")),
        Just((SubjectKind::User, "other", "ann@acme.example")),
    ]
}

/// `scale` 1: limits that are met at once.
fn limits(scale: u64) -> impl Strategy<Value = Limits> {
    let limit = move |most: u64| prop_oneof![1 => Just(None), 4 => (0..most * scale).prop_map(Some)];
    let each: [u64; LimitName::COUNT] = [6, 8, 20, 12, 6, 8];
    each.map(limit).prop_map(Limits)
}

/// `pace`: the longest that most waits are, in milliseconds.
fn step(scale: u64, pace: u64) -> impl Strategy<Value = Step> {
    let slot = || 0..SLOTS;
    let key = move || prop_oneof![0..6u64, 0..12 * scale];
    let keys = move || prop::collection::btree_set(key(), 0..4);
    let some_keys = move || prop_oneof![3 => Just(BTreeSet::new()), 1 => keys()];
    prop_oneof![
        30 => (slot(), who(), key()).prop_map(|(slot, who, key)| Step::Reserve { slot, who, key }),
        14 => (slot(), who(), 1..6u64, some_keys(), prop_oneof![5 => Just(0), 1 => 0..3u32])
            .prop_map(|(slot, who, leave_out, more, unnamed)| Step::Commit { slot, who, leave_out, more, unnamed }),
        4 => slot().prop_map(|slot| Step::Release { slot }),
        4 => (slot(), who(), keys()).prop_map(|(slot, who, keys)| Step::Look { slot, who, keys }),
        12 => prop_oneof![
            6 => 0..pace,
            2 => 0..700_000u64,
            1 => 0..90_000_000u64,
        ].prop_map(|milliseconds| Step::Wait { milliseconds }),
        2 => limits(scale).prop_map(Step::Change),
        1 => account().prop_map(Step::Reset),
        1 => Just(Step::Restart),
        6 => Just(Step::Show),
    ]
}

fn key(n: u64) -> RecipientKey {
    RecipientKey((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Runs the steps on a ledger and on two models, one that forgets in time and one that forgets 1 % late.
struct Run {
    bench: Bench,
    exact: bool,
    model: Model,
    late: Model,
    limits: Limits,
    slots: [ReservationId; SLOTS],
    /// Whom a slot's transaction is of.
    of: [Option<Who>; SLOTS],
}

impl Run {
    fn new(kind: StoreKind, exact: bool) -> Run {
        let bench = Bench::new(kind);
        let slots = std::array::from_fn(|_| bench.ledger.new_reservation());
        let late = Model { late: u64::from(!exact), ..Model::default() };
        let limits = Limits([None; LimitName::COUNT]);
        Run { bench, exact, model: Model::default(), late, limits, slots, of: [None; SLOTS] }
    }

    async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = self.bench.ledger.now();
        self.model.pass_time(now);
        self.late.pass_time(now);
        match step {
            Step::Reserve { slot, who, key: n } => {
                let who = *self.of[slot].get_or_insert(who);
                let id = self.slots[slot];
                let keys = BTreeSet::from([n]);
                let limits = self.limits.in_force();
                let answer = self.bench.ledger.reserve(id, &who.parties(), &limits, key(n)).await.unwrap();
                let all = |model: &Model| {
                    let mut all = model.open.get(&id.0).map_or(BTreeSet::new(), |open| open.keys.clone());
                    all.insert(n);
                    all.len() as u64
                };
                self.compare(&answer.over, id, who, &keys, all(&self.model))?;
                if answer.fits() {
                    for model in [&mut self.model, &mut self.late] {
                        let open = || Open { started: now.0, who, keys: BTreeSet::new() };
                        model.open.entry(id.0).or_insert_with(open).keys.insert(n);
                    }
                }
            }
            Step::Commit { slot, who, leave_out, more, unnamed } => {
                let who = self.of[slot].take().unwrap_or(who);
                let id = self.slots[slot];
                let held = self.model.open.get(&id.0).map_or(BTreeSet::new(), |open| open.keys.clone());
                let mut kept: BTreeSet<u64> = held.into_iter().filter(|key| key % 6 != leave_out).collect();
                kept.extend(more);
                // Named twice, every now and then.
                let mut named: Vec<RecipientKey> = kept.iter().map(|&n| key(n)).collect();
                named.extend(kept.first().map(|&n| key(n)));
                let limits = self.limits.in_force();
                let message = AcceptedRecipients { named: &named, unnamed };
                let answer = self.bench.ledger.commit(id, &who.parties(), &limits, message).await.unwrap();
                let recipients = kept.len() as u64 + u64::from(unnamed);
                if recipients > 0 {
                    self.compare(&answer.over, id, who, &kept, recipients)?;
                } else {
                    prop_assert!(answer.fits());
                }
                for model in [&mut self.model, &mut self.late] {
                    model.open.remove(&id.0);
                    if answer.fits() && recipients > 0 {
                        let (at, keys) = (now.seconds_up().into(), kept.clone());
                        model.events.push(Event { at, who, keys, unnamed, forgotten: BTreeSet::new() });
                    }
                }
                self.slots[slot] = self.bench.ledger.new_reservation();
            }
            Step::Release { slot } => {
                let id = self.slots[slot];
                if let Some(who) = self.of[slot] {
                    self.bench.ledger.release(id, &who.parties());
                }
                self.model.open.remove(&id.0);
                self.late.open.remove(&id.0);
            }
            Step::Look { slot, who, keys } => {
                let who = self.of[slot].unwrap_or(who);
                let id = self.slots[slot];
                let limits = self.limits.in_force();
                let named: Vec<RecipientKey> = keys.iter().map(|&n| key(n)).collect();
                let answer = self.bench.ledger.look(Some(id), &who.parties(), &limits, &named).await.unwrap();
                let mut all = self.model.open.get(&id.0).map_or(BTreeSet::new(), |open| open.keys.clone());
                all.extend(&keys);
                self.compare(&answer.over, id, who, &keys, all.len() as u64)?;
            }
            Step::Wait { milliseconds } => self.bench.clock.advance(Duration::from_millis(milliseconds)),
            Step::Change(limits) => self.limits = limits,
            Step::Reset(account) => {
                let (kind, customer, name) = account;
                let subject = Subject { kind, customer: customer.into(), name: name.into() };
                self.bench.ledger.reset(&subject, "a test").await.unwrap();
                for model in [&mut self.model, &mut self.late] {
                    model.events.iter_mut().for_each(|event| {
                        event.forgotten.insert(account);
                    });
                }
            }
            Step::Restart => {
                if self.bench.restart().await {
                    for model in [&mut self.model, &mut self.late] {
                        let open = std::mem::take(&mut model.open);
                        if self.bench.holds_over_restarts() {
                            // Nobody will end them, and new transactions begin to be numbered afresh.
                            model.open = open.into_iter().map(|(id, open)| (id + (1 << 32), open)).collect();
                        }
                    }
                    self.slots = std::array::from_fn(|_| self.bench.ledger.new_reservation());
                    self.of = [None; SLOTS];
                }
            }
            Step::Show => self.compare_usage().await?,
        }
        Ok(())
    }

    fn compare(
        &self,
        found: &[LimitStanding],
        id: ReservationId,
        who: Who,
        keys: &BTreeSet<u64>,
        all: u64,
    ) -> Result<(), TestCaseError> {
        let expected = self.model.decide(&self.limits, id.0, who, keys, all);
        if self.exact {
            prop_assert_eq!(found, &expected[..]);
            return Ok(());
        }
        // Never too much: what a ledger refuses that forgets in time, this one refuses too.
        let names =
            |standings: &[LimitStanding]| standings.iter().map(|standing| standing.limit).collect::<BTreeSet<_>>();
        let found_names = names(found);
        let late = names(&self.late.decide(&self.limits, id.0, who, keys, all));
        for limit in LimitName::ALL {
            let adds_late = self.late.standing(limit, 0, id.0, who, keys, all).is_some_and(|(_, adds)| adds);
            prop_assert!(!names(&expected).contains(&limit) || found_names.contains(&limit) || !adds_late, "{}", limit);
        }
        // Nor too little, but for 1 % of the window.
        for standing in found {
            let needed = late.contains(&standing.limit) || names(&expected).contains(&standing.limit);
            prop_assert!(needed, "{:?}", standing);
        }
        Ok(())
    }

    async fn compare_usage(&mut self) -> Result<(), TestCaseError> {
        let now = self.bench.ledger.now();
        self.model.pass_time(now);
        self.late.pass_time(now);
        for (kind, customer, name) in [
            (SubjectKind::Customer, "acme", "acme"),
            (SubjectKind::User, "acme", "ann@acme.example"),
            (SubjectKind::User, "acme", "bob@acme.example"),
            (SubjectKind::Login, "acme", "ann"),
            (SubjectKind::User, "other", "ann@acme.example"),
        ] {
            let subject = Subject { kind, customer: customer.into(), name: name.into() };
            for usage in self.bench.ledger.usage(&subject, &self.limits.in_force()).await.unwrap() {
                let (used, reserved) = self.model.usage(usage.limit, (kind, customer, name));
                let (late, _) = self.late.usage(usage.limit, (kind, customer, name));
                prop_assert!(used <= usage.used && usage.used <= late, "{} {} {:?}", used, late, usage);
                if self.exact {
                    prop_assert_eq!((used, reserved), (usage.used, usage.reserved), "{:?}", usage);
                    // What counts is what can be sent.
                    let is_full = usage.max.is_some_and(|max| max > 0 && used >= max);
                    prop_assert_eq!(usage.resets_at.is_some(), is_full);
                }
            }
        }
        Ok(())
    }
}

fn run(kind: StoreKind, exact: bool, steps: Vec<Step>) -> Result<(), TestCaseError> {
    runtime().block_on(async {
        let mut run = Run::new(kind, exact);
        for step in steps {
            run.step(step).await?;
        }
        run.step(Step::Show).await
    })
}

/// Few events: under the number from which on neighbours are merged.
fn few() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(1, 400_000), 1..200)
}

/// So many, and so close together, that neighbours are merged and recipients are in a table.
fn many() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(40, 60_000), 600..1500)
}

/// Mail as it mostly is, for days: message after message, each decided and counted, now to somebody known and now not.
fn regular() -> impl Strategy<Value = Vec<Step>> {
    let who = prop_oneof![
        3 => Just(Who { customer: "acme", user: Some("ann@acme.example"), login: None }),
        1 => Just(Who { customer: "acme", user: Some("bob@acme.example"), login: Some("ann") }),
    ];
    let pause = prop_oneof![
        20 => 0..3_000_000u64,
        2 => 0..20_000_000u64,
        1 => 80_000_000..100_000_000u64,
    ];
    let keys = prop::collection::btree_set(prop_oneof![0..30u64, 0..2_000u64], 1..4);
    let message = (0..SLOTS, who, keys, 0..5_000u64, pause, any::<bool>()).prop_map(
        |(slot, who, keys, takes, pause, is_shown)| {
            let mut steps: Vec<Step> = keys.into_iter().map(|key| Step::Reserve { slot, who, key }).collect();
            steps.push(Step::Wait { milliseconds: takes });
            steps.push(Step::Commit { slot, who, leave_out: 6, more: BTreeSet::new(), unnamed: 0 });
            steps.push(Step::Wait { milliseconds: pause });
            if is_shown {
                steps.push(Step::Show);
            }
            steps
        },
    );
    prop::collection::vec(message, 100..400).prop_map(|messages| messages.concat())
}

/// `RANDOM_CASES` runs more. (`PROPTEST_CASES` would be the number of all of them, those that ask a server among them.)
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("RANDOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn in_memory_few_events_agree_exactly(steps in few()) {
        run(StoreKind::Memory, true, steps)?;
    }
}

#[cfg(feature = "test-clock")]
proptest! {
    #![proptest_config(ProptestConfig { cases: cases(600).cases / 200, ..ProptestConfig::default() })]

    #[test]
    fn on_a_valkey_cluster_few_events_agree_exactly(steps in few()) {
        run(StoreKind::VALKEY_CLUSTER, true, steps)?;
    }
}

#[cfg(feature = "test-clock")]
proptest! {
    // Each step asks a server six times.
    #![proptest_config(ProptestConfig { cases: cases(600).cases / 60, ..ProptestConfig::default() })]

    #[test]
    fn on_redis_few_events_agree_exactly(steps in few()) {
        run(StoreKind::REDIS, true, steps)?;
    }

    #[test]
    fn on_redis_regular_mail_agrees_within_one_percent(steps in regular()) {
        run(StoreKind::REDIS, false, steps)?;
    }

    #[test]
    fn on_redis_many_events_agree_within_one_percent(steps in many()) {
        run(StoreKind::REDIS, false, steps)?;
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn with_sync_full_few_events_agree_exactly(steps in few()) {
        run(StoreKind::Full, true, steps)?;
    }

    #[test]
    fn with_sync_normal_few_events_agree_exactly(steps in few()) {
        run(StoreKind::Normal, true, steps)?;
    }

    #[test]
    fn in_memory_many_events_agree_within_one_percent(steps in many()) {
        run(StoreKind::Memory, false, steps)?;
    }

    #[test]
    fn in_memory_regular_mail_agrees_within_one_percent(steps in regular()) {
        run(StoreKind::Memory, false, steps)?;
    }

    #[test]
    fn with_sync_normal_many_events_agree_within_one_percent(steps in many()) {
        run(StoreKind::Normal, false, steps)?;
    }
}
