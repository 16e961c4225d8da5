use super::*;
use std::net::Ipv6Addr;
use std::time::Duration;

const NOW: Moment = Moment::from_seconds(1_800_000_000);

fn net(text: &str) -> IpNet {
    client_net(text.parse().unwrap(), 64)
}

#[test]
fn connections_are_counted_by_address_and_network() {
    let all = Connections::default();
    let first = all.count(net("192.0.2.7"), true, NOW);
    assert_eq!((first.last_minute(), first.open()), (1, 1));
    let second = all.count(net("192.0.2.7"), true, NOW);
    assert_eq!((second.last_minute(), second.open()), (2, 2));
    drop(first);
    let third = all.count(net("192.0.2.7"), true, NOW.plus(Duration::from_secs(30)));
    assert_eq!((third.last_minute(), third.open()), (3, 2));
    let unseen = all.count(net("192.0.2.7"), false, NOW.plus(Duration::from_secs(70)));
    assert_eq!((unseen.last_minute(), unseen.open()), (2, 2));
    assert_eq!(all.count(net("192.0.2.8"), true, NOW).last_minute(), 1);
    all.count(net("2001:db8::1"), true, NOW);
    assert_eq!(all.count(net("2001:db8::ffff:2"), true, NOW).last_minute(), 2);
    assert_eq!(all.count(net("2001:db8:0:1::1"), true, NOW).last_minute(), 1);
}

#[test]
fn what_was_refused_counts_for_nothing() {
    let all = Connections::default();
    let _kept = all.count(net("192.0.2.7"), true, NOW);
    let mut refused = all.count(net("192.0.2.7"), true, NOW);
    assert_eq!(refused.count_generic(NOW), 1);
    refused.take_back();
    refused.take_back_generic();
    let mut next = all.count(net("192.0.2.7"), true, NOW);
    assert_eq!((next.last_minute(), next.open(), next.count_generic(NOW)), (2, 2, 1));
    drop(refused);
    assert_eq!(all.count(net("192.0.2.7"), true, NOW).open(), 3);
}

#[test]
fn one_connection_has_one_generic_name() {
    let all = Connections::default();
    let mut first = all.count(net("192.0.2.7"), true, NOW);
    let mut second = all.count(net("192.0.2.7"), true, NOW);
    assert_eq!(first.count_generic(NOW), 1);
    assert_eq!(second.count_generic(NOW), 2);
    assert_eq!(second.count_generic(NOW), 2);
}

/// The `n`-th of many networks.
fn flood(n: usize) -> IpNet {
    client_net(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | (n as u128) << 64).into(), 64)
}

#[test]
fn a_flood_of_addresses_makes_nobody_forgotten() {
    let all = Connections::default();
    for _ in 0..50 {
        all.count(net("192.0.2.7"), false, NOW);
    }
    let open = all.count(net("192.0.2.8"), true, NOW);
    for n in 0..3 * MAX_CLIENTS {
        all.count(flood(n), false, NOW);
    }
    assert_eq!(all.0.lock().clients.len(), MAX_CLIENTS);
    assert_eq!(all.0.lock().places.len(), MAX_CLIENTS);
    assert_eq!(all.count(net("192.0.2.7"), false, NOW).last_minute(), 51, "it did most");
    assert_eq!(all.count(net("192.0.2.8"), true, NOW).open(), 2, "it is connected");
    // Nobody is counted too low, and a newcomer too high only by as much as there is a flood.
    let newcomer = all.count(net("192.0.2.9"), false, NOW).last_minute();
    assert!((1..=8).contains(&newcomer), "{newcomer}");
    drop(open);
    let quiet = NOW.plus(Duration::from_secs(64));
    let later: Vec<u64> = (0..10).map(|n| all.count(flood(9_000_000 + n), false, quiet).last_minute()).collect();
    assert_eq!(later, [1; 10], "the flood is over");
}

#[test]
fn those_that_are_connected_never_make_room() {
    let all = Connections::default();
    let open: Vec<Counted> = (0..MAX_CLIENTS).map(|n| all.count(flood(n), true, NOW)).collect();
    assert_eq!(all.count(net("192.0.2.7"), true, NOW).last_minute(), 1);
    assert!(open.iter().all(|counted| counted.last_minute() == 1));
    assert_eq!(all.count(flood(17), true, NOW).open(), 2);
}
