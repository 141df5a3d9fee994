//! Mixed-radix numbers of letters: each place of a key counts only the bytes that occur there.

/// A number of letters ends once its range exceeds this: enough to distinguish more keys than fit
/// into memory.
const ENOUGH: u128 = 1 << 48;
/// An alphabet with more members is not worth a table.
const MANY: usize = 200;

/// A mixed-radix encoding.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AlphabetCoding {
    alphabets: Vec<Alphabet>,
    /// For each place: its alphabet, and the weight of one letter. Descending.
    places: Vec<(u8, u64)>,
}

/// The bytes that occur at a place, in order.
#[derive(Clone, Debug, PartialEq)]
struct Alphabet {
    members: usize,
    /// For each byte, twice the number of members below it, plus one if it is a member itself.
    ranks: Box<[u16]>,
}

impl AlphabetCoding {
    /// Derives the encoding from these keys.
    pub(super) fn of(keys: &[&[u8]]) -> AlphabetCoding {
        let mut coding = AlphabetCoding { alphabets: Vec::new(), places: Vec::new() };
        let mut product = 1u128;
        for place in 0.. {
            let alphabet = Alphabet::of(keys.iter().filter_map(|key| key.get(place).copied()));
            product *= alphabet.members as u128;
            // No key has so many bytes, or the number would not fit.
            if alphabet.members == 0 || product > 1 << u64::BITS {
                break;
            }
            let known = coding.alphabets.iter().position(|known| *known == alphabet);
            let at = known.unwrap_or_else(|| {
                coding.alphabets.push(alphabet);
                coding.alphabets.len() - 1
            });
            coding.places.push((at as u8, 0));
            // A place with one value in all keys leaves the product unchanged.
            if product > ENOUGH || coding.places.len() == usize::from(u8::MAX) {
                break;
            }
        }
        let mut worth = 1;
        for (alphabet, of_place) in coding.places.iter_mut().rev() {
            *of_place = worth;
            // The full product may be 2^64; it is not used.
            worth = worth.wrapping_mul(coding.alphabets[usize::from(*alphabet)].members as u64);
        }
        coding
    }

    #[inline]
    pub(super) fn number_of(&self, rest: &[u8]) -> u64 {
        let mut number = 0u64;
        for ((alphabet, worth), byte) in self.places.iter().zip(rest) {
            let rank = self.alphabets[usize::from(*alphabet)].ranks[usize::from(*byte)];
            let below = u64::from(rank / 2);
            if rank.is_multiple_of(2) {
                // Not a member: above all keys with the member below, and not above any with the
                // next member.
                return number.saturating_add(worth.saturating_mul(below));
            }
            number += worth * below;
        }
        number
    }
}

impl Alphabet {
    /// The alphabet of a place with these bytes: whole classes of them, because other members will
    /// follow.
    fn of(bytes: impl Iterator<Item = u8>) -> Alphabet {
        let mut seen = [false; 256];
        bytes.for_each(|byte| seen[usize::from(byte)] = true);
        let is_any = |class: std::ops::RangeInclusive<u8>| class.clone().any(|byte| seen[usize::from(byte)]);
        let count = seen.iter().filter(|seen| **seen).count();
        let mut members = seen;
        let mut add = |class: std::ops::RangeInclusive<u8>| {
            class.for_each(|byte| members[usize::from(byte)] = true);
        };
        let is_hexadecimal = is_any(b'0'..=b'9') && count > 1;
        for (first, last) in [(b'a', b'z'), (b'A', b'Z')] {
            // A byte that is the same in all keys and is no digit is part of their format.
            if is_any(first..=last) && count > 1 {
                let is_beyond = is_any(first + 6..=last);
                add(first..=if is_hexadecimal && !is_beyond { first + 5 } else { last });
            }
        }
        if is_any(b'0'..=b'9') {
            add(b'0'..=b'9');
        }
        if is_any(0..=0x1F) || is_any(0x7F..=0xFF) {
            add(0..=0xFF);
        }
        if count > 0 && members.iter().filter(|is_member| **is_member).count() > MANY {
            members = [true; 256];
        }
        let mut below = 0;
        let ranks = members.map(|is_member| {
            let rank = 2 * below + u16::from(is_member);
            below += u16::from(is_member);
            rank
        });
        Alphabet { members: usize::from(below), ranks: ranks.into() }
    }
}
