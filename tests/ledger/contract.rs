//! What every store must do, case by case. Random cases are in `interleavings`.

use crate::over_every_store;
use crate::stores::{Bench, RESERVATION_TIMEOUT, START};
use relaykeeper::clock::Moment;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ranking, RecipientKey, ReservationId};
use std::time::Duration;

over_every_store!(
    a_message_counts_once_however_many_recipients_it_has,
    a_refusal_reserves_nothing_on_any_account,
    a_known_recipient_is_free_at_the_limit,
    a_recipient_named_twice_counts_once,
    what_is_released_fits_again,
    a_release_may_come_at_any_time,
    a_reservation_ends_by_itself_and_its_commit_decides_anew,
    fewer_recipients_than_reserved_are_counted,
    recipients_without_names_count_for_the_customer,
    counts_leave_after_their_window,
    limits_change_under_it,
    counts_go_on_without_a_limit,
    a_shadow_limit_refuses_nothing,
    a_reset_forgets_the_subject_only,
    a_reset_at_the_moment_in_which_a_reservation_ends_keeps_the_others,
    counts_outlive_a_restart,
    a_look_reserves_nothing,
    two_transactions_that_name_one_newcomer_hold_it_once,
    a_clock_that_steps_back_frees_nothing,
    the_top_are_those_who_used_most,
    two_daemons_never_take_a_limit_past_its_maximum,
    what_a_dead_daemon_held_comes_back_by_itself,
    a_commit_tells_what_comes_near_a_limit,
    what_others_hold_is_near_too_and_a_known_recipient_is_not,
);

const DAY: u64 = 86_400;

fn parties() -> Parties {
    Parties { customer: "acme".into(), user: Some("ann@acme.example".into()), login: Some("ann".into()) }
}

fn of_customer_only() -> Parties {
    Parties { customer: "acme".into(), user: None, login: None }
}

fn limits(set: &[(LimitName, u64)]) -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |name| {
        set.iter().find(|(limit, _)| *limit == name).map_or(Limit::UNLIMITED, |(_, max)| Limit::of(*max))
    })
}

fn key(n: u64) -> RecipientKey {
    RecipientKey(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn subject(kind: SubjectKind) -> Subject {
    let name = match kind {
        SubjectKind::Customer => "acme",
        SubjectKind::User => "ann@acme.example",
        SubjectKind::Login => "ann",
    };
    Subject { kind, customer: "acme".into(), name: name.into() }
}

/// Used and reserved.
async fn usage(bench: &Bench, limit: LimitName) -> (u64, u64) {
    let kind = match limit {
        LimitName::CustomerDay | LimitName::CustomerPeak => SubjectKind::Customer,
        LimitName::UserMessages | LimitName::UserUniques => SubjectKind::User,
        LimitName::LoginMessages | LimitName::LoginUniques => SubjectKind::Login,
    };
    let usage = bench.ledger.usage(&subject(kind), &limits(&[])).await.unwrap();
    let found = usage.iter().find(|usage| usage.limit == limit).unwrap();
    (found.used, found.reserved)
}

async fn reserve(bench: &Bench, id: ReservationId, parties: &Parties, limits: &CustomerLimits, n: u64) -> bool {
    bench.ledger.reserve(id, parties, limits, key(n)).await.unwrap().fits()
}

async fn send(bench: &Bench, parties: &Parties, limits: &CustomerLimits, recipients: &[u64]) -> bool {
    let named: Vec<RecipientKey> = recipients.iter().copied().map(key).collect();
    let id = bench.ledger.new_reservation();
    bench.ledger.commit(id, parties, limits, AcceptedRecipients { named: &named, unnamed: 0 }).await.unwrap().fits()
}

async fn a_message_counts_once_however_many_recipients_it_has(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::UserMessages, 1)]));
    let id = bench.ledger.new_reservation();
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    assert!(reserve(&bench, id, &parties, &limits, 2).await);
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (0, 1));
    let kept = AcceptedRecipients { named: &[key(1), key(2)], unnamed: 0 };
    assert!(bench.ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (1, 0));
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (2, 0));
    assert_eq!(usage(&bench, LimitName::LoginUniques).await, (2, 0));
    assert_eq!(usage(&bench, LimitName::CustomerPeak).await, (2, 0));
    assert!(!reserve(&bench, bench.ledger.new_reservation(), &parties, &limits, 1).await);
}

async fn a_refusal_reserves_nothing_on_any_account(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerDay, 1), (LimitName::LoginUniques, 1)]));
    let id = bench.ledger.new_reservation();
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    let answer = bench.ledger.reserve(id, &parties, &limits, key(2)).await.unwrap();
    let over: Vec<LimitName> = answer.over.iter().map(|standing| standing.limit).collect();
    assert_eq!(over, [LimitName::LoginUniques, LimitName::CustomerDay]);
    assert!(answer.over.iter().all(|standing| standing.never_fits() && standing.fits_at.is_none()));
    for limit in LimitName::ALL {
        assert_eq!(usage(&bench, limit).await, (0, 1), "{limit}");
    }
}

async fn a_known_recipient_is_free_at_the_limit(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::UserUniques, 2)]));
    assert!(send(&bench, &parties, &limits, &[1]).await);
    bench.wait(DAY / 2);
    assert!(send(&bench, &parties, &limits, &[2]).await);
    let id = bench.ledger.new_reservation();
    assert!(!reserve(&bench, id, &parties, &limits, 3).await);
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    bench.ledger.release(id, &parties);
    bench.wait(DAY / 2 - 60);
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    // While it is reserved, its day passes; nobody takes its place.
    bench.wait(61);
    let other = bench.ledger.new_reservation();
    assert!(!reserve(&bench, other, &parties, &limits, 3).await);
    bench.ledger.release(id, &parties);
    assert!(reserve(&bench, other, &parties, &limits, 3).await);
    assert!(!reserve(&bench, id, &parties, &limits, 1).await, "a day after it was seen it is a newcomer");
}

async fn a_recipient_named_twice_counts_once(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerDay, 1)]));
    let id = bench.ledger.new_reservation();
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    let kept = AcceptedRecipients { named: &[key(1), key(1)], unnamed: 0 };
    assert!(bench.ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (1, 0));
}

async fn what_is_released_fits_again(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerPeak, 1)]));
    let (first, second) = (bench.ledger.new_reservation(), bench.ledger.new_reservation());
    assert!(reserve(&bench, first, &parties, &limits, 1).await);
    let refused = bench.ledger.reserve(second, &parties, &limits, key(2)).await.unwrap();
    assert!(refused.over[0].only_reservations());
    assert_eq!((refused.over[0].used, refused.over[0].reserved, refused.over[0].own), (0, 1, 1));
    bench.ledger.release(first, &parties);
    assert!(reserve(&bench, second, &parties, &limits, 2).await);
}

async fn a_release_may_come_at_any_time(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[]));
    let id = bench.ledger.new_reservation();
    bench.ledger.release(id, &parties);
    assert!(send(&bench, &parties, &limits, &[1]).await);
    let id = bench.ledger.new_reservation();
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    let kept = AcceptedRecipients { named: &[key(1)], unnamed: 0 };
    assert!(bench.ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
    bench.ledger.release(id, &parties);
    bench.ledger.release(id, &parties);
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (2, 0));
}

async fn a_reservation_ends_by_itself_and_its_commit_decides_anew(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerDay, 2)]));
    let (slow, quick) = (bench.ledger.new_reservation(), bench.ledger.new_reservation());
    assert!(reserve(&bench, slow, &parties, &limits, 1).await);
    bench.clock.advance(RESERVATION_TIMEOUT - Duration::from_millis(1));
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (0, 1));
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (0, 0));
    assert!(reserve(&bench, quick, &parties, &limits, 2).await);
    let too_many = AcceptedRecipients { named: &[key(1), key(3)], unnamed: 0 };
    let answer = bench.ledger.commit(slow, &parties, &limits, too_many).await.unwrap();
    assert!(answer.over[0].only_reservations());
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (0, 1), "all or nothing");
    let kept = AcceptedRecipients { named: &[key(1)], unnamed: 0 };
    assert!(bench.ledger.commit(slow, &parties, &limits, kept).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (1, 1));
}

async fn fewer_recipients_than_reserved_are_counted(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerDay, 3)]));
    let id = bench.ledger.new_reservation();
    for n in 1..=3 {
        assert!(reserve(&bench, id, &parties, &limits, n).await);
    }
    let kept = AcceptedRecipients { named: &[key(2)], unnamed: 0 };
    assert!(bench.ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (1, 0));
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (1, 0));
    assert!(send(&bench, &parties, &limits, &[1, 3]).await);
}

async fn recipients_without_names_count_for_the_customer(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerDay, 5)]));
    let id = bench.ledger.new_reservation();
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    let kept = AcceptedRecipients { named: &[key(1)], unnamed: 3 };
    assert!(bench.ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (4, 0));
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (1, 0));
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (1, 0));
    let id = bench.ledger.new_reservation();
    let kept = AcceptedRecipients { named: &[], unnamed: 2 };
    assert!(!bench.ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
}

async fn counts_leave_after_their_window(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerPeak, 1), (LimitName::UserMessages, 2)]));
    assert!(send(&bench, &parties, &limits, &[1]).await);
    let peak_ends = Moment::from_seconds(u64::from(START.seconds_up()) + 600);
    let id = bench.ledger.new_reservation();
    bench.clock.advance(Duration::from_millis(peak_ends.0 - START.0 - 1));
    let refused = bench.ledger.reserve(id, &parties, &limits, key(1)).await.unwrap();
    assert_eq!(refused.over[0].fits_at, Some(peak_ends));
    bench.clock.advance(Duration::from_millis(1));
    assert!(send(&bench, &parties, &limits, &[1]).await);
    bench.wait(600);
    let refused = bench.ledger.reserve(id, &parties, &limits, key(1)).await.unwrap();
    assert_eq!(refused.over[0].limit, LimitName::UserMessages);
    assert_eq!(refused.over[0].fits_at, Some(Moment::from_seconds(u64::from(START.seconds_up()) + DAY)));
}

async fn limits_change_under_it(bench: Bench) {
    let parties = parties();
    let of = |max| limits(&[(LimitName::UserMessages, max), (LimitName::UserUniques, max)]);
    let open = bench.ledger.new_reservation();
    assert!(reserve(&bench, open, &parties, &of(3), 9).await);
    assert!(send(&bench, &parties, &of(3), &[1]).await);
    assert!(send(&bench, &parties, &of(3), &[2]).await);
    assert!(!send(&bench, &parties, &of(3), &[3]).await);
    // Lowered below what is there: what was let through stays let through.
    assert!(reserve(&bench, open, &parties, &of(1), 1).await, "neither a new message nor a new recipient");
    assert!(!reserve(&bench, open, &parties, &of(1), 3).await);
    let kept = AcceptedRecipients { named: &[key(9), key(1)], unnamed: 0 };
    assert!(bench.ledger.commit(open, &parties, &of(1), kept).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (3, 0));
    assert!(!send(&bench, &parties, &of(3), &[1]).await);
    assert!(send(&bench, &parties, &of(4), &[1]).await);
}

async fn counts_go_on_without_a_limit(bench: Bench) {
    let parties = parties();
    for n in 0..5 {
        assert!(send(&bench, &parties, &limits(&[]), &[n, n + 1]).await);
    }
    for (limit, used) in [
        (LimitName::UserMessages, 5),
        (LimitName::LoginMessages, 5),
        (LimitName::UserUniques, 6),
        (LimitName::LoginUniques, 6),
        (LimitName::CustomerDay, 10),
        (LimitName::CustomerPeak, 10),
    ] {
        let answer = bench.ledger.look(None, &parties, &limits(&[(limit, used)]), &[key(100)]).await.unwrap();
        assert_eq!(answer.over.iter().map(|over| (over.limit, over.used)).collect::<Vec<_>>(), [(limit, used)]);
    }
}

async fn a_shadow_limit_refuses_nothing(bench: Bench) {
    let limits = CustomerLimits::new(Limit::UNLIMITED, |name| match name {
        LimitName::UserMessages => Limit { max: Some(0), shadow: true, ..Limit::UNLIMITED },
        _ => Limit::UNLIMITED,
    });
    let answer = bench.ledger.reserve(bench.ledger.new_reservation(), &parties(), &limits, key(1)).await.unwrap();
    assert!(answer.fits());
    assert_eq!(answer.shadow_over[0].limit, LimitName::UserMessages);
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (0, 1));
}

async fn a_reset_forgets_the_subject_only(mut bench: Bench) {
    let (parties, limits) = (parties(), limits(&[]));
    assert!(send(&bench, &parties, &limits, &[1, 2]).await);
    let open = bench.ledger.new_reservation();
    assert!(reserve(&bench, open, &parties, &limits, 1).await);
    bench.ledger.reset(&subject(SubjectKind::User), "a test").await.unwrap();
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (0, 1));
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (0, 1));
    assert_eq!(usage(&bench, LimitName::LoginMessages).await, (1, 1));
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (2, 1));
    bench.ledger.release(open, &parties);
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (0, 0));
    bench.ledger.reset(&subject(SubjectKind::Customer), "a test").await.unwrap();
    assert!(send(&bench, &parties, &limits, &[1]).await);
    bench.restart().await;
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (1, 0));
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (1, 0));
    assert_eq!(usage(&bench, LimitName::LoginMessages).await, (2, 0));
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (1, 0));
}

async fn a_reset_at_the_moment_in_which_a_reservation_ends_keeps_the_others(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[]));
    let [first, second] = [(); 2].map(|()| bench.ledger.new_reservation());
    assert!(reserve(&bench, first, &parties, &limits, 1).await);
    bench.clock.advance(RESERVATION_TIMEOUT / 2);
    assert!(reserve(&bench, second, &parties, &limits, 2).await);
    bench.clock.advance(RESERVATION_TIMEOUT / 2);
    bench.ledger.reset(&subject(SubjectKind::User), "a test").await.unwrap();
    assert_eq!(usage(&bench, LimitName::UserMessages).await, (0, 1));
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (0, 1));
    assert_eq!(usage(&bench, LimitName::LoginMessages).await, (0, 1));
}

async fn counts_outlive_a_restart(mut bench: Bench) {
    let limits = limits(&[]);
    for n in 0..300 {
        assert!(send(&bench, &parties(), &limits, &[n, n + 1, n % 7]).await);
        assert!(send(&bench, &of_customer_only(), &limits, &[n]).await);
        bench.wait(100);
    }
    let open = bench.ledger.new_reservation();
    assert!(reserve(&bench, open, &parties(), &limits, 1000).await);
    bench.ledger.release(open, &parties());
    let mut before = Vec::new();
    for limit in LimitName::ALL {
        before.push(usage(&bench, limit).await);
    }
    if !bench.restart().await {
        return;
    }
    for (limit, before) in LimitName::ALL.into_iter().zip(before) {
        assert_eq!(usage(&bench, limit).await, before, "{limit}");
    }
    bench.wait(2 * DAY);
    bench.restart().await;
    for limit in LimitName::ALL {
        assert_eq!(usage(&bench, limit).await, (0, 0), "{limit}");
    }
}

async fn a_look_reserves_nothing(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerDay, 2)]));
    for _ in 0..3 {
        assert!(bench.ledger.look(None, &parties, &limits, &[key(1), key(2)]).await.unwrap().fits());
    }
    let id = bench.ledger.new_reservation();
    assert!(reserve(&bench, id, &parties, &limits, 1).await);
    assert!(!bench.ledger.look(None, &parties, &limits, &[key(1), key(2)]).await.unwrap().fits());
    assert!(bench.ledger.look(Some(id), &parties, &limits, &[key(1), key(2)]).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (0, 1));
}

async fn two_transactions_that_name_one_newcomer_hold_it_once(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::UserUniques, 1)]));
    let (first, second) = (bench.ledger.new_reservation(), bench.ledger.new_reservation());
    assert!(reserve(&bench, first, &parties, &limits, 1).await);
    assert!(reserve(&bench, second, &parties, &limits, 1).await);
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (0, 1));
    bench.ledger.release(first, &parties);
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (0, 1));
    let kept = AcceptedRecipients { named: &[key(1)], unnamed: 0 };
    assert!(bench.ledger.commit(second, &parties, &limits, kept).await.unwrap().fits());
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (1, 0));
}

async fn a_clock_that_steps_back_frees_nothing(bench: Bench) {
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerPeak, 1)]));
    bench.wait(3600);
    assert!(send(&bench, &parties, &limits, &[1]).await);
    bench.clock.set(START);
    assert!(!send(&bench, &parties, &limits, &[1]).await);
    bench.wait(3600 + 599);
    assert!(!send(&bench, &parties, &limits, &[1]).await);
    bench.wait(2);
    assert!(send(&bench, &parties, &limits, &[1]).await);
}

async fn the_top_are_those_who_used_most(bench: Bench) {
    let limits = limits(&[]);
    for n in 0..40u64 {
        let user = format!("user{n}@acme.example");
        let customer = format!("customer{}", n % 4);
        let parties = Parties { customer: customer.into(), user: Some(user.into()), login: None };
        for recipient in 0..n {
            assert!(send(&bench, &parties, &limits, &[recipient]).await);
        }
    }
    let top = bench.ledger.top(LimitName::UserMessages, 3).await.unwrap().most;
    let top: Vec<_> = top.iter().map(|(subject, used)| (&*subject.name, &*subject.customer, *used)).collect();
    let expected = [
        ("user39@acme.example", "customer3", 39),
        ("user38@acme.example", "customer2", 38),
        ("user37@acme.example", "customer1", 37),
    ];
    assert_eq!(top, expected);
    let top = bench.ledger.top(LimitName::CustomerDay, 2).await.unwrap().most;
    let top: Vec<_> = top.iter().map(|(subject, used)| (&*subject.name, *used)).collect();
    assert_eq!(top, [("customer3", 210), ("customer2", 200)]);
    assert_eq!(bench.ledger.top(LimitName::LoginMessages, 2).await.unwrap(), Ranking::default());
    let Some(size) = bench.ledger.size() else { return };
    assert_eq!((size.customers, size.senders, size.open), (4, 39, 0));
}

async fn two_daemons_never_take_a_limit_past_its_maximum(bench: Bench) {
    let Some(other) = bench.another() else { return };
    let limits = limits(&[(LimitName::CustomerDay, 50), (LimitName::UserUniques, 40), (LimitName::LoginMessages, 30)]);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..8u64 {
        let ledger = if sender % 2 == 0 { bench.ledger.clone() } else { other.clone() };
        let limits = limits.clone();
        senders.spawn(async move {
            let parties = Parties { login: (sender % 4 < 2).then(|| "ann".into()), ..parties() };
            for n in 0..20 {
                let id = ledger.new_reservation();
                let recipient = key(sender * 100 + n);
                if !ledger.reserve(id, &parties, &limits, recipient).await.unwrap().fits() {
                    continue;
                }
                if n % 5 == 4 {
                    ledger.release(id, &parties);
                } else {
                    let kept = AcceptedRecipients { named: &[recipient], unnamed: 0 };
                    assert!(ledger.commit(id, &parties, &limits, kept).await.unwrap().fits(), "it was reserved");
                }
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    assert_eq!(usage(&bench, LimitName::UserUniques).await, (40, 0), "as many as fit, and never one over");
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (40, 0));
    assert!(usage(&bench, LimitName::LoginMessages).await.0 <= 30);
}

async fn what_a_dead_daemon_held_comes_back_by_itself(bench: Bench) {
    let Some(other) = bench.another() else { return };
    let (parties, limits) = (parties(), limits(&[(LimitName::CustomerDay, 1)]));
    assert!(other.reserve(other.new_reservation(), &parties, &limits, key(1)).await.unwrap().fits());
    drop(other);
    let id = bench.ledger.new_reservation();
    let refused = bench.ledger.reserve(id, &parties, &limits, key(2)).await.unwrap();
    assert!(refused.over[0].only_reservations());
    bench.clock.advance(RESERVATION_TIMEOUT);
    assert_eq!(usage(&bench, LimitName::CustomerDay).await, (0, 0));
    assert!(reserve(&bench, id, &parties, &limits, 2).await);
}

async fn a_commit_tells_what_comes_near_a_limit(bench: Bench) {
    let set = [(LimitName::UserMessages, 4), (LimitName::LoginUniques, 9), (LimitName::CustomerPeak, 10)];
    let (parties, limits) = (parties(), limits(&set).with_warnings(&[50]));
    for expected in [&[][..], &[(LimitName::UserMessages, 2, 4), (LimitName::CustomerPeak, 6, 10)]] {
        let named = [key(1), key(2), key(3)];
        let kept = AcceptedRecipients { named: &named, unnamed: 0 };
        let answer = bench.ledger.commit(bench.ledger.new_reservation(), &parties, &limits, kept).await.unwrap();
        let near: Vec<_> = answer.near.iter().map(|near| (near.limit, near.taken, near.max)).collect();
        assert_eq!(near, expected);
    }
}

async fn what_others_hold_is_near_too_and_a_known_recipient_is_not(bench: Bench) {
    let set = [(LimitName::UserMessages, 6), (LimitName::UserUniques, 4), (LimitName::CustomerDay, 6)];
    let (parties, limits) = (parties(), limits(&set).with_warnings(&[50]));
    let ledger = &bench.ledger;
    let near = |answer: relaykeeper::ledger::LedgerAnswer| -> Vec<_> {
        answer.near.iter().map(|near| (near.limit, near.taken, near.max)).collect()
    };
    for n in 1..=3 {
        let id = ledger.new_reservation();
        assert!(reserve(&bench, id, &parties, &limits, n).await);
        let kept = AcceptedRecipients { named: &[key(n)], unnamed: 0 };
        let answer = ledger.commit(id, &parties, &limits, kept).await.unwrap();
        if n == 1 {
            assert_eq!(near(answer), []);
            // Open from now on.
            assert!(reserve(&bench, ledger.new_reservation(), &parties, &limits, 1).await);
        } else {
            let expected = [
                (LimitName::UserMessages, n + 1, 6),
                (LimitName::UserUniques, n, 4),
                (LimitName::CustomerDay, n + 1, 6),
            ];
            assert_eq!(near(answer), expected);
        }
    }
}
