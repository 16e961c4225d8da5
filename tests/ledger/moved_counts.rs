//! What was counted before a server's clock jumped, and was moved by `quota reset --clock`, is as if the clock had never jumped: one store
//! goes through jumps, another one with the same requests does not.

use crate::clock_jumps::Bed;
use crate::outage::until;
use crate::redis::Flavour;
use proptest::prelude::*;
use proptest::sample::select;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerAnswer, LimitUsage, RecipientKey, ReservationId};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Debug)]
enum Step {
    /// Seconds.
    Wait(u64),
    /// From a sender to some recipients: the first one, and how many; and whether it is accepted at once.
    Send(usize, u64, u64, bool),
    /// The oldest open transaction ends, accepted or not.
    End(bool),
    Reset(usize),
    /// By so many seconds, and an administrator accepts that.
    Jump(i64),
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly to recipients that were seen before.
    let recipients = prop_oneof![5 => (0..12u64, 1..4u64), 1 => (0..50u64, 100..250u64)];
    let send = (0..3usize, recipients, prop::bool::weighted(0.8));
    prop_oneof![
        4 => select(vec![0, 1, 59, 600, 3600, 20_000, 86_399]).prop_map(Step::Wait),
        8 => send.prop_map(|(who, (first, number), at_once)| Step::Send(who, first, number, at_once)),
        2 => any::<bool>().prop_map(Step::End),
        1 => (0..3usize).prop_map(Step::Reset),
        2 => select(vec![120, 3600, 86_400, 31_536_000]).prop_flat_map(|by: i64| select(vec![by, -by])).prop_map(Step::Jump),
    ]
}

/// A store, and what is open there, the oldest first.
struct Side {
    bed: Bed,
    ledger: Ledger,
    open: Vec<(ReservationId, Parties, Vec<RecipientKey>)>,
}

impl Side {
    fn new() -> Side {
        let bed = Bed::new(Flavour::Redis);
        Side { ledger: bed.daemon(), bed, open: Vec::new() }
    }

    /// Only what no clock shows.
    fn shown(&self, answer: LedgerAnswer) -> Vec<(LimitName, [u64; 3], Option<u64>)> {
        let now = answer.at.0;
        let shown = answer.over.iter().map(|over| {
            (
                over.limit,
                [over.used, over.reserved, over.own],
                over.fits_at.map(|fits_at| fits_at.0.saturating_sub(now)),
            )
        });
        shown.collect()
    }

    async fn take(&mut self, step: &Step, customer: &str) -> Vec<(LimitName, [u64; 3], Option<u64>)> {
        match *step {
            Step::Wait(seconds) => self.bed.wait(seconds),
            Step::Jump(seconds) => {
                // Reads the clock, as it would every ten seconds.
                self.ledger.accept_clocks().await.expect_err("it has not jumped");
                self.bed.jump(seconds);
                self.ledger.accept_clocks().await.expect("the jump is accepted");
                let of_customer = subject(customer, 0);
                until("it decides", async || self.ledger.usage(&of_customer, &limits()).await.is_ok()).await;
            }
            Step::Send(who, first, number, at_once) => {
                let (id, parties) = (self.ledger.new_reservation(), parties(customer, who));
                let (mut named, mut refused) = (Vec::new(), Vec::new());
                for key in (first..first + number).map(RecipientKey) {
                    let answer = self.ledger.reserve(id, &parties, &limits(), key).await.expect("it decides");
                    if answer.fits() {
                        named.push(key);
                    } else if refused.is_empty() {
                        refused = self.shown(answer);
                    }
                }
                self.open.push((id, parties, named));
                if at_once {
                    refused.extend(self.end(self.open.len() - 1, true).await);
                }
                return refused;
            }
            Step::End(is_accepted) if !self.open.is_empty() => return self.end(0, is_accepted).await,
            Step::End(_) => {}
            Step::Reset(who) => self.ledger.reset(&subject(customer, who), "a test").await.expect("it is reset"),
        }
        Vec::new()
    }

    async fn end(&mut self, place: usize, is_accepted: bool) -> Vec<(LimitName, [u64; 3], Option<u64>)> {
        let (id, parties, named) = self.open.remove(place);
        let named = if is_accepted { &named[..] } else { &[] };
        let kept = AcceptedRecipients { named, unnamed: 0 };
        let answer = self.ledger.commit(id, &parties, &limits(), kept).await.expect("it decides");
        self.shown(answer)
    }

    async fn usage(&self, customer: &str) -> Vec<LimitUsage> {
        let mut all = Vec::new();
        for who in 0..4 {
            let mut usage = self.ledger.usage(&subject(customer, who), &limits()).await.expect("it tells");
            let now = self.bed.server_time().0;
            for usage in &mut usage {
                usage.resets_at =
                    usage.resets_at.map(|moment| relaykeeper::clock::Moment(moment.0.saturating_sub(now)));
            }
            all.extend(usage);
        }
        all
    }
}

fn limits() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |name| match name {
        LimitName::CustomerDay => Limit::of(1200),
        LimitName::CustomerPeak => Limit::of(600),
        LimitName::UserMessages | LimitName::LoginMessages => Limit::of(20),
        LimitName::UserUniques => Limit::of(300),
        LimitName::LoginUniques => Limit::of(350),
    })
}

/// One user with a login, one without, and nobody.
fn parties(customer: &str, who: usize) -> Parties {
    let (user, login) = [(Some("ann"), Some("ann@login")), (Some("bob"), None), (None, None)][who];
    Parties { customer: customer.into(), user: user.map(Into::into), login: login.map(Into::into) }
}

fn subject(customer: &str, who: usize) -> Subject {
    let (kind, name) = [
        (SubjectKind::Customer, customer),
        (SubjectKind::User, "ann"),
        (SubjectKind::User, "bob"),
        (SubjectKind::Login, "ann@login"),
    ][who];
    Subject { kind, customer: customer.into(), name: name.into() }
}

#[test]
fn what_was_moved_is_as_if_the_clock_had_never_jumped() {
    static CASES: AtomicU32 = AtomicU32::new(0);
    let cases: u32 = std::env::var("RANDOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(600);
    let runtime = crate::stores::runtime();
    let (jumping, steady) = runtime.block_on(async { (Side::new(), Side::new()) });
    let sides = std::cell::RefCell::new((jumping, steady));
    let config = ProptestConfig {
        cases: cases / 100,
        max_shrink_iters: 50,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in proptest::collection::vec(step(), 10..60))| {
        let customer = format!("acme{}", CASES.fetch_add(1, Ordering::Relaxed));
        let (jumping, steady) = &mut *sides.borrow_mut();
        (jumping.open, steady.open) = (Vec::new(), Vec::new());
        runtime.block_on(async {
            for (nth, step) in steps.iter().enumerate() {
                let other = if matches!(step, Step::Jump(_)) { &Step::Wait(0) } else { step };
                let answers = (jumping.take(step, &customer).await, steady.take(other, &customer).await);
                prop_assert_eq!(answers.0, answers.1, "step {} of {:?}", nth, steps);
                let usage = (jumping.usage(&customer).await, steady.usage(&customer).await);
                prop_assert_eq!(usage.0, usage.1, "after step {} of {:?}", nth, steps);
            }
            Ok(())
        })?;
    });
}
