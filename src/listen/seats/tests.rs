use super::*;
use crate::listen::Peer;

fn peer(number: u8) -> Origin {
    Peer::Ip([192, 0, 2, number].into()).into()
}

fn seated(seats: &Arc<Seats>, number: u8) -> Seated {
    seats.take(peer(number)).unwrap().unwrap()
}

/// A connection that waits for a request.
fn idle(seats: &Arc<Seats>, number: u8, holds: bool) -> Seated {
    let seated = seated(seats, number);
    seated.wait(holds);
    seated
}

#[tokio::test]
async fn a_peer_has_its_share_and_the_others_theirs() {
    let seats = Seats::new(Shares::of(4, 0));
    let mut first = vec![seated(&seats, 1), seated(&seats, 1)];
    assert_eq!(seats.take(peer(1)).unwrap().err(), Some(NoRoom::ShareTaken));
    let _others = [seated(&seats, 2), seated(&seats, 3)];
    assert_eq!(seats.take(peer(4)).err(), Some(Full));
    first.pop();
    seats.freed().await;
    drop(seated(&seats, 4));
    drop(seated(&seats, 1));
}

#[tokio::test]
async fn closing_reaches_every_connection() {
    let seats = Seats::new(Shares::of(8, 0));
    for number in 0..4 {
        let seated = seated(&seats, number);
        tokio::spawn(async move { seated.signalled(Some(Signal::Drain)).await });
    }
    seats.signal(Signal::Drain);
    seats.signal(Signal::Close);
    seats.all_free().await;
}

#[tokio::test]
async fn what_is_idle_the_longest_and_holds_nothing_makes_room() {
    let seats = Seats::new(Shares::of(8, 0));
    let [holder, old, young] = [idle(&seats, 1, true), idle(&seats, 1, false), idle(&seats, 1, false)];
    let _busy = seated(&seats, 1);
    // It has asked since: the other one is silent for longer.
    old.resume().unwrap();
    old.wait(false);
    let _fifth = seated(&seats, 1);
    assert_eq!(young.signalled(None).await, Err(NoRoom::Idle));
    assert_eq!(young.resume(), Err(NoRoom::Idle));
    let _sixth = seated(&seats, 1);
    assert_eq!(old.signalled(None).await, Err(NoRoom::Idle));
    assert_eq!(seats.take(peer(1)).unwrap().err(), Some(NoRoom::ShareTaken), "what holds something stays");
    assert_eq!(holder.resume(), Ok(()));
}

#[tokio::test]
async fn a_full_house_makes_room_at_the_cost_of_whoever_has_taken_the_most() {
    let seats = Seats::new(Shares::of(8, 0));
    let modest = idle(&seats, 2, false);
    let greedy: Vec<_> = (0..4).map(|_| idle(&seats, 1, false)).collect();
    let _others = [idle(&seats, 3, false), idle(&seats, 4, false), idle(&seats, 5, false)];
    let _new: Vec<_> = (6..9).map(|number| idle(&seats, number, true)).collect();
    assert_eq!(modest.resume(), Ok(()), "although it was idle the longest");
    assert_eq!(greedy.iter().filter(|seated| seated.resume().is_err()).count(), 3);
}

#[test]
fn bytes_that_wait_are_bounded_for_a_peer_and_the_largest_goes() {
    let seats = Seats::new(Shares::of(100, 1_000));
    let [small, large, asks] = [idle(&seats, 1, true), idle(&seats, 1, true), seated(&seats, 1)];
    small.take_bytes(100).unwrap();
    large.take_bytes(300).unwrap();
    asks.take_bytes(100).unwrap();
    asks.take_bytes(200).unwrap();
    assert_eq!(large.resume(), Err(NoRoom::Bytes));
    assert_eq!(seats.table.lock().bytes, 300);
    // It has the most itself by now.
    assert_eq!(asks.take_bytes(450), Err(NoRoom::Bytes));
    assert_eq!(small.resume(), Ok(()));
    drop((large, asks));
    small.take_bytes(0).unwrap();
    assert_eq!(seats.table.lock().bytes, 0);
}

#[test]
fn bytes_that_wait_are_bounded_for_all_and_the_greediest_peer_makes_room() {
    let seats = Seats::new(Shares::of(100, 1_000));
    let hoard: Vec<_> = (0..5).map(|_| idle(&seats, 1, true)).collect();
    hoard.iter().for_each(|seated| seated.take_bytes(100).unwrap());
    let other = idle(&seats, 2, true);
    other.take_bytes(400).unwrap();
    let third = seated(&seats, 3);
    third.take_bytes(200).unwrap();
    assert_eq!(hoard.iter().filter(|seated| seated.resume().is_err()).count(), 1);
    assert_eq!(other.resume(), Ok(()));
    assert_eq!(seats.table.lock().bytes, 1_000);
}

#[test]
fn nothing_is_left_over() {
    let seats = Seats::new(Shares::of(4, 1_000));
    for round in 0..1_000 {
        let taken: Vec<_> = (0..4).map(|number| idle(&seats, number % 3, round % 2 == 0)).collect();
        for (n, seated) in taken.iter().enumerate() {
            let _ = seated.take_bytes(100 * n + round % 300);
        }
    }
    let table = seats.table.lock();
    assert!(table.seats.is_empty() && table.peers.is_empty() && table.bytes == 0, "{table:?}");
}
