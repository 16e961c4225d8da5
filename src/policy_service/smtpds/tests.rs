use super::*;
use crate::listen::{Peer, Process};
use std::num::NonZeroU32;

fn caller(pid: u32) -> Caller {
    let process = Process { pid: NonZeroU32::new(pid), uid: 33 };
    Caller { origin: Origin { peer: Peer::Local, process: Some(process) }, connection: Arc::default() }
}

/// The same process after it has reconnected.
fn again(caller: &Caller) -> Caller {
    Caller { origin: caller.origin, connection: Arc::default() }
}

/// How many sessions are over when `caller` asks about this one of process 1a.
fn over(smtpds: &mut Smtpds, caller: &Caller, session: &str) -> usize {
    let before = smtpds.sessions;
    let found = smtpds.slot(caller, "1a", session).unwrap();
    before + usize::from(found.is_new) - smtpds.sessions
}

#[test]
fn the_next_session_over_one_connection_ends_the_last() {
    let (mut smtpds, caller) = (Smtpds::default(), caller(0));
    assert_eq!(over(&mut smtpds, &caller, "1a.1.1"), 0);
    assert_eq!(over(&mut smtpds, &caller, "1a.2.1"), 1);
    assert_eq!(over(&mut smtpds, &caller, "1a.2.1"), 0);
    assert_eq!(smtpds.sessions, 1);
}

#[test]
fn a_process_that_has_reconnected_is_known_by_the_kernels_word_only() {
    for (pid, expected) in [(4711, 1), (0, 0)] {
        let (mut smtpds, first) = (Smtpds::default(), caller(pid));
        over(&mut smtpds, &first, "1a.1.1");
        let second = again(&first);
        assert_eq!(over(&mut smtpds, &second, "1a.2.1"), 0, "the first connection is open: it may ask on");
        drop(first);
        let third = again(&second);
        assert_eq!(over(&mut smtpds, &third, "1a.3.1"), expected, "{pid}");
    }
}

#[test]
fn a_session_goes_on_over_any_connection() {
    let (mut smtpds, first) = (Smtpds::default(), caller(0));
    let slot = smtpds.slot(&first, "1a", "1a.1.1").unwrap().slot;
    let second = again(&first);
    let same = smtpds.slot(&second, "1a", "1a.1.1").unwrap().slot;
    assert!(Arc::ptr_eq(&slot, &same));
    drop((slot, same));
    // Either connection tells of its end.
    assert_eq!(over(&mut smtpds, &second, "1a.2.1"), 1);
}

#[test]
fn what_a_request_has_in_hand_is_not_over() {
    let (mut smtpds, caller) = (Smtpds::default(), caller(1));
    let in_hand = smtpds.slot(&caller, "1a", "1a.1.1").unwrap().slot;
    assert_eq!(over(&mut smtpds, &caller, "1a.2.1"), 0);
    drop(in_hand);
    assert_eq!(over(&mut smtpds, &caller, "1a.2.1"), 1);
}

#[test]
fn processes_of_two_containers_do_not_end_each_others() {
    let (mut smtpds, here, there) = (Smtpds::default(), caller(100), caller(200));
    for number in 0..5 {
        let ended = usize::from(number > 0);
        assert_eq!(over(&mut smtpds, &here, &format!("1a.{number}.1")), ended);
        assert_eq!(over(&mut smtpds, &there, &format!("1a.{number}.2")), ended);
    }
    assert_eq!(smtpds.sessions, 2);
}

#[test]
fn a_peer_that_makes_up_processes_takes_its_share_only() {
    let (mut smtpds, flood, other) = (Smtpds::default(), caller(1), caller(2));
    smtpds.slot(&other, "1a", "1a.1.1").unwrap();
    for number in 0..3 * SHARE {
        smtpds.slot(&flood, &format!("{number}"), "x").unwrap();
        assert!(smtpds.sessions <= SHARE + 1);
    }
    assert_eq!(smtpds.sessions_of(other.origin, "1a").len(), 1);
    let counted: usize = smtpds.peers.values().map(|of_peer| of_peer.sessions).sum();
    assert_eq!(smtpds.sessions, counted);
    assert_eq!(smtpds.all().len(), counted);
}

#[test]
fn many_peers_have_room_together() {
    let mut smtpds = Smtpds::default();
    for pid in 1..=(MAX_SESSIONS + 100) as u32 {
        smtpds.slot(&caller(pid), "1a", "x").unwrap();
        assert!(smtpds.sessions <= MAX_SESSIONS);
    }
}

#[test]
fn where_all_are_in_use_there_is_no_room() {
    let (mut smtpds, flood) = (Smtpds::default(), caller(1));
    let in_hand: Vec<_> =
        (0..SHARE).map(|number| smtpds.slot(&flood, &format!("{number}"), "x").unwrap().slot).collect();
    assert_eq!(smtpds.slot(&flood, "one more", "x").err(), Some(BadRequest::TooManySessions));
    smtpds.slot(&caller(2), "1a", "x").unwrap();
    smtpds.slot(&flood, "7", "x").unwrap();
    drop(in_hand);
}

#[test]
fn a_process_with_two_sessions_at_once_is_two_processes() {
    let (mut smtpds, first, second) = (Smtpds::default(), caller(0), caller(0));
    let mut ask = |caller: &Caller, session: &str| {
        let found = smtpds.slot(caller, "1a", session).unwrap();
        (found.is_new, found.is_interleaved)
    };
    assert_eq!(ask(&first, "1a.1.1"), (true, false));
    assert_eq!(ask(&second, "1a.2.1"), (true, false));
    // The first may have ended; only when it goes on is it another process.
    assert_eq!(ask(&second, "1a.2.1"), (false, false));
    assert_eq!(ask(&first, "1a.1.1"), (false, true));
}
