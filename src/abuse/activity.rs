//! What one account did lately, in bounded memory, with constant work for each message.

use super::sign::Traits;
use crate::clock::Moment;
use crate::config::MAX_NETWORKS;
use std::net::IpAddr;
use std::time::Duration;

/// Slots of a window, which expire one at a time.
const SLOTS: usize = 12;

/// Different recipients are estimated by parts of a window: 3 slots each.
const PARTS: usize = 4;

/// Bits of one estimate: good for some thousand recipients, which is more than any threshold needs.
const BITS: usize = 1_024;
const WORDS: usize = BITS / 64;

/// Days for which the busiest window's recipients are remembered, today included.
const DAYS: usize = 8;

const SECONDS_A_DAY: u64 = 86_400;

/// What one account did within the window, and the most recipients of windows before it.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    /// In seconds, at least 1.
    slot_length: u64,
    /// The number of the newest slot since 1970.
    newest: u64,
    slots: [Slot; SLOTS],
    recipients: Box<[[u64; WORDS]; PARTS]>,
    networks: Vec<Network>,
    most_recipients: [u16; DAYS],
    /// The day of the newest of them.
    day: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    messages: u32,
    marked: u32,
    refused: u32,
}

#[derive(Clone, Copy, Debug)]
struct Network {
    hash: u32,
    /// The slot in which it was seen last.
    slot: u64,
}

impl Activity {
    pub fn new(now: Moment, window: Duration) -> Activity {
        let slot_length = slot_length(window);
        Activity {
            slot_length,
            newest: seconds(now) / slot_length,
            slots: Default::default(),
            recipients: Box::new([[0; WORDS]; PARTS]),
            networks: Vec::new(),
            most_recipients: [0; DAYS],
            day: seconds(now) / SECONDS_A_DAY,
        }
    }

    /// An accepted message. `recipients` are keyed hashes.
    pub fn accepted(
        &mut self,
        now: Moment,
        marked: bool,
        client: Option<IpAddr>,
        recipients: impl Iterator<Item = u64>,
    ) {
        self.pass_time(now);
        let slot = &mut self.slots[(self.newest % SLOTS as u64) as usize];
        slot.messages = slot.messages.saturating_add(1);
        slot.marked = slot.marked.saturating_add(marked.into());
        let part = &mut self.recipients[part_of(self.newest)];
        for hash in recipients {
            let bit = hash as usize % BITS;
            part[bit / 64] |= 1 << (bit % 64);
        }
        if let Some(client) = client {
            self.saw_network(network_hash(client));
        }
    }

    /// Recipients that were refused here.
    pub fn refused(&mut self, now: Moment, recipients: u32) {
        self.pass_time(now);
        let slot = &mut self.slots[(self.newest % SLOTS as u64) as usize];
        slot.refused = slot.refused.saturating_add(recipients);
    }

    /// What there is within the window. `is_known`: it has been watched for long enough to know what is usual.
    pub fn traits(&mut self, now: Moment, is_known: bool) -> Traits {
        self.pass_time(now);
        let sum = |count: fn(&Slot) -> u32| self.slots.iter().map(|slot| u64::from(count(slot))).sum();
        let usual = self.most_recipients.iter().copied().max().unwrap_or(0);
        Traits {
            messages: sum(|slot| slot.messages),
            marked: sum(|slot| slot.marked),
            refused: sum(|slot| slot.refused),
            recipients: self.estimate(),
            usual_recipients: is_known.then_some(usual.into()),
            networks: self.networks.len() as u64,
        }
    }

    /// Whether the window is the one that it was made for.
    pub fn is_of(&self, window: Duration) -> bool {
        self.slot_length == slot_length(window)
    }

    fn saw_network(&mut self, hash: u32) {
        let slot = self.newest;
        if let Some(known) = self.networks.iter_mut().find(|network| network.hash == hash) {
            known.slot = slot;
        } else if self.networks.len() < MAX_NETWORKS {
            self.networks.push(Network { hash, slot });
        }
    }

    /// Empties the slots that have left the window.
    fn pass_time(&mut self, now: Moment) {
        let newest = seconds(now) / self.slot_length;
        if newest <= self.newest {
            return;
        }
        // Before anything expires, so that complete windows are compared.
        if newest / SLOTS as u64 > self.newest / SLOTS as u64 {
            self.note_most_recipients();
        }
        let first = (self.newest + 1).max(newest.saturating_sub(SLOTS as u64 - 1));
        for slot in first..=newest {
            self.slots[(slot % SLOTS as u64) as usize] = Slot::default();
            if slot.is_multiple_of((SLOTS / PARTS) as u64) {
                self.recipients[part_of(slot)] = [0; WORDS];
            }
        }
        if newest - self.newest >= SLOTS as u64 {
            *self.recipients = [[0; WORDS]; PARTS];
        }
        self.newest = newest;
        self.networks.retain(|network| network.slot + SLOTS as u64 > newest);
    }

    /// The window that ends now goes into the record of its day.
    fn note_most_recipients(&mut self) {
        let day = self.newest * self.slot_length / SECONDS_A_DAY;
        for gone in (self.day + 1..=day).take(DAYS) {
            self.most_recipients[(gone % DAYS as u64) as usize] = 0;
        }
        if day >= self.day + DAYS as u64 {
            self.most_recipients = [0; DAYS];
        }
        self.day = self.day.max(day);
        let recipients = u16::try_from(self.estimate()).unwrap_or(u16::MAX);
        let most = &mut self.most_recipients[(day % DAYS as u64) as usize];
        *most = recipients.max(*most);
    }

    /// How many different hashes set these bits, most likely (linear counting: Whang et al., 1990).
    fn estimate(&self) -> u64 {
        let [a, b, c, d] = &*self.recipients;
        let zeros: u32 = (0..WORDS).map(|n| (a[n] | b[n] | c[n] | d[n]).count_zeros()).sum();
        let bits = BITS as f64;
        (bits * (bits / f64::from(zeros.max(1))).ln()).round() as u64
    }
}

fn slot_length(window: Duration) -> u64 {
    (window.as_secs() / SLOTS as u64).max(1)
}

fn seconds(now: Moment) -> u64 {
    now.0 / 1_000
}

fn part_of(slot: u64) -> usize {
    (slot / (SLOTS / PARTS) as u64) as usize % PARTS
}

/// One provider's customers move about within a /24, or a /48.
fn network_hash(client: IpAddr) -> u32 {
    let number = match client {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => (address.to_bits() >> 80) as u64 | 1 << 63,
    };
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    /// The beginning of a day.
    const MIDNIGHT: Moment = Moment::from_seconds(20_000 * SECONDS_A_DAY);

    /// As good as random (splitmix64).
    fn hashes(from: u64, number: u64) -> impl Iterator<Item = u64> {
        (from..from + number).map(|n| {
            let z = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut activity = Activity::new(MIDNIGHT, HOUR);
        activity.accepted(MIDNIGHT, true, ip("192.0.2.7"), hashes(0, 10));
        activity.refused(MIDNIGHT, 5);
        activity.accepted(MIDNIGHT.plus(HOUR / 2), false, ip("192.0.2.200"), hashes(0, 10));
        let traits = activity.traits(MIDNIGHT.plus(HOUR - Duration::from_secs(301)), true);
        assert_eq!((traits.messages, traits.marked, traits.refused, traits.networks), (2, 1, 5, 1));
        assert!((9..=11).contains(&traits.recipients), "{traits:?}");
        let traits = activity.traits(MIDNIGHT.plus(HOUR), true);
        assert_eq!((traits.messages, traits.marked, traits.refused, traits.networks), (1, 0, 0, 1));
        let later = activity.traits(MIDNIGHT.plus(10 * HOUR), true);
        assert_eq!(Traits { usual_recipients: None, ..later }, Traits::default());
        // A clock that steps back forgets nothing, and counts nothing twice.
        activity.accepted(MIDNIGHT, false, None, hashes(0, 1));
        assert_eq!(activity.traits(MIDNIGHT, true).messages, 1);
    }

    #[test]
    fn different_recipients_are_estimated_well_enough() {
        for number in [1u64, 10, 100, 500, 1_000, 3_000] {
            let mut activity = Activity::new(MIDNIGHT, HOUR);
            for n in 0..number {
                let now = MIDNIGHT.plus(HOUR / 2 * n as u32 / number as u32);
                activity.accepted(now, false, None, hashes(n, 1));
                activity.accepted(now, false, None, hashes(n, 1));
            }
            let estimate = activity.traits(MIDNIGHT.plus(HOUR / 2), true).recipients;
            assert!(estimate.abs_diff(number) <= 1 + number / 6, "{estimate} for {number}");
        }
    }

    #[test]
    fn what_is_usual_is_the_most_of_a_week() {
        let mut activity = Activity::new(MIDNIGHT, HOUR);
        for (hours, recipients) in [(0, 200), (30, 20), (40, 20)] {
            activity.accepted(MIDNIGHT.plus(hours * HOUR), false, None, hashes(0, recipients));
        }
        let mut usual = |hours: u32| activity.traits(MIDNIGHT.plus(hours * HOUR), true).usual_recipients.unwrap();
        assert!((180..=220).contains(&usual(41)), "{}", usual(41));
        // The last time that anything is known of was on the second day; a week later the first day is forgotten.
        activity.accepted(MIDNIGHT.plus(24 * 9 * HOUR), false, None, hashes(0, 1));
        let usual = activity.traits(MIDNIGHT.plus(24 * 9 * HOUR + 2 * HOUR), true).usual_recipients.unwrap();
        assert!(usual < 30, "{usual}");
        assert_eq!(activity.traits(MIDNIGHT, false).usual_recipients, None);
    }

    #[test]
    fn networks_are_told_apart_and_bounded() {
        let mut activity = Activity::new(MIDNIGHT, HOUR);
        for address in
            ["192.0.2.1", "192.0.2.254", "198.51.100.1", "2001:db8:1::1", "2001:db8:1:ffff::1", "2001:db8:2::1"]
        {
            activity.accepted(MIDNIGHT, false, ip(address), hashes(0, 1));
        }
        assert_eq!(activity.traits(MIDNIGHT, true).networks, 4);
        for n in 0..1_000u32 {
            activity.accepted(MIDNIGHT, false, Some(std::net::Ipv4Addr::from_bits(n << 8).into()), hashes(0, 1));
        }
        assert_eq!(activity.traits(MIDNIGHT, true).networks, MAX_NETWORKS as u64);
    }
}
