//! The reference that stands in a reply and in its log line, by which the operator finds the decision.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits in a reference: ten characters of five bits.
const BITS: u32 = 50;
const HALF: u32 = BITS / 2;
const HALF_MASK: u64 = (1 << HALF) - 1;

/// Crockford's base 32: no I, L, O, U, so that it survives being read out on the phone.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Ten characters that name one decision: `K7Q2-9FTM-XW`.
///
/// References of one run of the daemon never repeat, and nobody can tell from one what the next will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(u64);

impl Reference {
    /// A new reference; costs some 50 ns.
    pub fn generate() -> Reference {
        static GENERATOR: LazyLock<Generator> = LazyLock::new(Generator::new);
        GENERATOR.next()
    }

    /// The reference as a number below 2^50, to store it.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The reference of a stored number; none if it is not below 2^50.
    pub fn from_bits(bits: u64) -> Option<Reference> {
        (bits >> BITS == 0).then_some(Reference(bits))
    }
}

/// Counts, and shows each number through a keyed permutation of all 50-bit numbers: no two are equal, and without
/// the key their order cannot be seen.
///
/// The permutation is a Feistel network of four rounds, which makes a strong permutation out of a keyed
/// pseudo-random function (Luby and Rackoff, 1988). That function is the standard library's SipHash, under a
/// random key of the operating system.
struct Generator {
    key: RandomState,
    counter: AtomicU64,
}

impl Generator {
    fn new() -> Generator {
        Generator { key: RandomState::new(), counter: AtomicU64::new(0) }
    }

    fn next(&self) -> Reference {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let (mut left, mut right) = ((number >> HALF) & HALF_MASK, number & HALF_MASK);
        for round in 0..4u64 {
            let mixed = self.key.hash_one(round << HALF | right) & HALF_MASK;
            (left, right) = (right, left ^ mixed);
        }
        Reference(left << HALF | right)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = *b"0000-0000-00";
        let places = [0, 1, 2, 3, 5, 6, 7, 8, 10, 11];
        for (index, place) in places.into_iter().enumerate() {
            let shift = BITS - 5 * (index as u32 + 1);
            shown[place] = ALPHABET[(self.0 >> shift & 31) as usize];
        }
        f.pad(str::from_utf8(&shown).unwrap_or_default())
    }
}

/// Why a text is no reference; says what was found and what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAReference {
    /// Too short or too long; dashes do not count.
    #[error("\"{}\" is no reference: it has {characters} characters, a reference like K7Q2-9FTM-XW has 10", found.escape_debug())]
    Length { found: String, characters: usize },
    /// Something that never stands in a reference.
    #[error("\"{}\" is no reference like K7Q2-9FTM-XW: '{}' never stands in one", found.escape_debug(), character.escape_debug())]
    Character { found: String, character: char },
}

impl FromStr for Reference {
    type Err = NotAReference;

    /// Forgives what people do to a reference: small letters, dashes or blanks anywhere or nowhere, `I` and `L`
    /// for 1, `O` for 0, and the square brackets of a reply.
    fn from_str(text: &str) -> Result<Reference, NotAReference> {
        let found = || text.chars().take(40).collect::<String>();
        let trimmed = text.trim();
        let bare = trimmed.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(trimmed);
        let mut bits = 0u64;
        let mut characters = 0;
        for character in bare.chars().filter(|character| !matches!(character, '-' | ' ')) {
            let value = digit(character).ok_or_else(|| NotAReference::Character { found: found(), character })?;
            characters += 1;
            bits = bits << 5 & ((1 << BITS) - 1) | value;
        }
        if characters != 10 {
            return Err(NotAReference::Length { found: found(), characters });
        }
        Ok(Reference(bits))
    }
}

fn digit(character: char) -> Option<u64> {
    let symbol = match character.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == symbol).map(|value| value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn named(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn it_looks_like_the_manual_says() {
        assert_eq!(named("K7Q2-9FTM-XW").to_string(), "K7Q2-9FTM-XW");
        assert_eq!(Reference(0).to_string(), "0000-0000-00");
        assert_eq!(Reference((1 << BITS) - 1).to_string(), "ZZZZ-ZZZZ-ZZ");
    }

    #[test]
    fn it_forgives_what_people_do_to_it() {
        for spelling in ["k7q2-9ftm-xw", "K7Q29FTMXW", "[K7Q2-9FTM-XW]", " K7Q2 9FTM XW\n"] {
            assert_eq!(named(spelling), named("K7Q2-9FTM-XW"), "{spelling}");
        }
        assert_eq!(named("ILO0-ilo1-OO"), named("1100-1101-00"));
    }

    #[test]
    fn it_says_why_a_text_is_none() {
        let problem = |text: &str| text.parse::<Reference>().unwrap_err().to_string();
        assert_eq!(
            problem("K7Q2"),
            r#""K7Q2" is no reference: it has 4 characters, a reference like K7Q2-9FTM-XW has 10"#
        );
        assert!(problem("K7Q2-9FTM-XWA").contains("it has 11 characters"));
        assert_eq!(
            problem("U7Q2-9FTM-XW"),
            r#""U7Q2-9FTM-XW" is no reference like K7Q2-9FTM-XW: 'U' never stands in one"#
        );
        assert!(problem("").contains("0 characters"));
    }

    #[test]
    fn a_run_never_repeats_one() {
        let references: HashSet<Reference> = (0..100_000).map(|_| Reference::generate()).collect();
        assert_eq!(references.len(), 100_000);
    }

    #[test]
    fn each_run_has_its_own() {
        let (one, other) = (Generator::new(), Generator::new());
        let first: HashSet<Reference> = (0..1000).map(|_| one.next()).collect();
        assert!((0..1000).all(|_| !first.contains(&other.next())));
    }

    #[test]
    fn neighbours_do_not_show_their_order() {
        let generator = Generator::new();
        let mut previous = generator.next().to_bits();
        let mut changed = 0;
        for _ in 0..1000 {
            let next = generator.next().to_bits();
            changed += (previous ^ next).count_ones();
            previous = next;
        }
        // Half of 50 bits change from one to the next, give or take far more than chance would.
        assert!((24_000..26_000).contains(&changed), "{changed}");
    }

    proptest! {
        #[test]
        fn every_reference_reads_back(bits in 0..1u64 << BITS) {
            let reference = Reference::from_bits(bits).unwrap();
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            prop_assert_eq!(reference.to_bits(), bits);
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _ = text.parse::<Reference>();
        }
    }

    #[test]
    fn only_fifty_bits_are_one() {
        assert_eq!(Reference::from_bits(1 << BITS), None);
    }
}
