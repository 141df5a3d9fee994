//! The eight bytes that stand for a key in searches, and how to choose them for the keys at hand.
//!
//! Searches compare numbers, and shortcuts take them for evenly spread. The first eight bytes of a key serve for keys
//! drawn evenly. Keys that begin alike are told apart behind what they share. Digits and letters leave most values of a
//! byte unused, so numbers made of their bytes crowd together; these become numbers with as many digits as the key has
//! letters, in which each place counts only the letters that occur there. What all keys have at a place, such as a
//! separator, takes no room then.
use sapwood_base::key::{common_prefix_len, key_prefix};

/// Fewer keys than this say little about those to come.
pub(super) const LEAST_SAMPLE: usize = 64;
/// One in so many keys at either end of a sample may begin differently from the others.
const STRAYS: usize = 32;
/// Bytes at the end of what all keys share that stay part of the number: a counter's next ones will differ there.
const SLACK_BYTES: usize = 4;
/// A number of letters ends where it is above this: room for the differences among more keys than fit into memory.
const ENOUGH: u128 = 1 << 48;
/// Members of an alphabet that is not worth its table.
const MANY: usize = 200;

/// How keys become numbers: behind the bytes that most keys of a list start with, by eight bytes or letter by letter.
#[derive(Clone, Debug, Default)]
pub struct PrefixBase {
    base: Box<[u8]>,
    letters: Option<Box<Letters>>,
}

/// A number of letters.
#[derive(Clone, Debug, PartialEq)]
struct Letters {
    alphabets: Vec<Alphabet>,
    /// For each place: which alphabet, and what one letter further is worth. Descending.
    places: Vec<(u8, u64)>,
}

/// The bytes that occur at a place, in order.
#[derive(Clone, Debug, PartialEq)]
struct Alphabet {
    members: usize,
    /// For each byte, twice the members below it, and one more if it is a member itself.
    ranks: Box<[u16]>,
}

impl PrefixBase {
    /// Eight bytes behind `base`.
    pub fn new(base: &[u8]) -> PrefixBase {
        PrefixBase { base: base.into(), letters: None }
    }

    /// Whether numbers are the first eight bytes.
    pub fn is_plain(&self) -> bool {
        self.base.is_empty() && self.letters.is_none()
    }

    /// A number that grows with the key: `prefix_of(a) < prefix_of(b)` implies `a < b`.
    #[inline]
    pub fn prefix_of(&self, key: &[u8]) -> u64 {
        if self.is_plain() {
            return key_prefix(key);
        }
        match key.strip_prefix(&*self.base) {
            Some(rest) => match &self.letters {
                None => key_prefix(rest),
                Some(letters) => letters.number_of(rest),
            },
            None if key < &*self.base => 0,
            None => u64::MAX,
        }
    }

    /// What suits keys like those of `sample`, which ascends, much better than `self` does; `None` if nothing does or if the
    /// sample is small.
    pub fn better_for(&self, sample: &[&[u8]]) -> Option<PrefixBase> {
        if sample.len() < LEAST_SAMPLE {
            return None;
        }
        let mut best = None;
        let mut enough = 2 * self.spread_of(sample);
        // Evenly drawn keys leave room for little: they stay with what costs least.
        for candidate in
            [PrefixBase::default(), PrefixBase::of_shared(sample), PrefixBase::of_letters(sample)]
        {
            let spread = candidate.spread_of(sample);
            if spread >= enough {
                // The next one, which costs more, must be clearly better than this one.
                enough = spread + spread / 2;
                best = Some(candidate);
            }
        }
        best
    }

    /// In how many of twice as many cells as there are keys in the sample one of them falls, where cells part the stretch
    /// between the first and the last evenly: about four fifths of the keys if they are drawn evenly.
    fn spread_of(&self, sample: &[&[u8]]) -> usize {
        let (Some(first), Some(last)) = (sample.first(), sample.last()) else { return 0 };
        let (first, last) = (self.prefix_of(first), self.prefix_of(last));
        let width = u128::from(last - first) + 1;
        let cell = |key: &&[u8]| u128::from(self.prefix_of(key) - first) * 2 * sample.len() as u128 / width;
        let mut spread = 1;
        for pair in sample.windows(2) {
            spread += usize::from(cell(&pair[0]) != cell(&pair[1]));
        }
        spread
    }

    /// Eight bytes behind what the keys of `sample` share.
    fn of_shared(sample: &[&[u8]]) -> PrefixBase {
        PrefixBase::new(&shared(sample)[..begin(shared(sample))])
    }

    /// The letters behind what the keys of `sample` share.
    fn of_letters(sample: &[&[u8]]) -> PrefixBase {
        let base = &shared(sample)[..begin(shared(sample))];
        let rests: Vec<&[u8]> = sample.iter().filter_map(|key| key.strip_prefix(base)).collect();
        let mut letters = Letters { alphabets: Vec::new(), places: Vec::new() };
        let mut product = 1u128;
        for place in 0.. {
            let alphabet = Alphabet::of(rests.iter().filter_map(|rest| rest.get(place).copied()));
            product *= alphabet.members as u128;
            // None has so many bytes, or the number would not fit.
            if alphabet.members == 0 || product > 1 << u64::BITS {
                break;
            }
            let known = letters.alphabets.iter().position(|known| *known == alphabet);
            let at = known.unwrap_or_else(|| {
                letters.alphabets.push(alphabet);
                letters.alphabets.len() - 1
            });
            // Places are few: each but a separator's makes the product grow, and separators are not longer than keys.
            letters.places.push((at as u8, 0));
            if product > ENOUGH || letters.places.len() == usize::from(u8::MAX) {
                break;
            }
        }
        let mut worth = 1;
        for (alphabet, of_place) in letters.places.iter_mut().rev() {
            *of_place = worth;
            // The first place's product may be two to the 64, and is not used.
            worth = worth.wrapping_mul(letters.alphabets[usize::from(*alphabet)].members as u64);
        }
        PrefixBase { base: base.into(), letters: Some(Box::new(letters)) }
    }
}

/// What the keys of `sample` begin with, a few at both ends left out.
fn shared<'a>(sample: &[&'a [u8]]) -> &'a [u8] {
    let strays = sample.len() / STRAYS;
    match sample[strays..sample.len() - strays] {
        [first, .., last] => &first[..common_prefix_len(first, last)],
        _ => &[],
    }
}

/// Where numbers begin, if `shared` is what keys share.
fn begin(shared: &[u8]) -> usize {
    let is_counter = |byte: &u8| *byte == 0 || byte.is_ascii_digit();
    let slack = shared.iter().rev().take(SLACK_BYTES).take_while(|byte| is_counter(byte)).count();
    shared.len() - slack
}

impl Letters {
    #[inline]
    fn number_of(&self, rest: &[u8]) -> u64 {
        let mut number = 0u64;
        for ((alphabet, worth), byte) in self.places.iter().zip(rest) {
            let rank = self.alphabets[usize::from(*alphabet)].ranks[usize::from(*byte)];
            let below = u64::from(rank / 2);
            if rank.is_multiple_of(2) {
                // Not a member: behind all keys with the member below, and not behind any with the one above.
                return number.saturating_add(worth.saturating_mul(below));
            }
            number += worth * below;
        }
        number
    }
}

impl Alphabet {
    /// The alphabet of a place where these bytes stand: whole classes of them, because others will come.
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
            // What stands at a place in all keys and is no digit is part of their form.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn prefixes_behind_a_base_preserve_order() {
        let mut keys: Vec<&[u8]> = vec![
            b"",
            b"a",
            b"user",
            b"user:",
            b"user:\0",
            b"user:1",
            b"user:12345678",
            b"user:123456789",
            b"user;",
            b"z",
        ];
        keys.push(b"use");
        keys.push(b"user:\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF");
        keys.sort();
        for base in [&b""[..], b"user:", b"user:1234", b"\xFF"] {
            let base = PrefixBase::new(base);
            for pair in keys.windows(2) {
                assert!(base.prefix_of(pair[0]) <= base.prefix_of(pair[1]), "{base:?} {pair:?}");
            }
        }
    }

    type Form = fn(&mut fastrand::Rng) -> Vec<u8>;

    /// With whether a number of letters suits them best.
    const FORMS: [(&str, Form, Option<bool>); 9] = [
        ("even", |random| random.u64(..).to_be_bytes().to_vec(), None),
        ("counter", |random| random.u64(..100_000).to_be_bytes().to_vec(), None),
        ("shared", |random| [&b"tenant/7/"[..], &random.u64(..).to_be_bytes()].concat(), Some(false)),
        ("decimal", |random| format!("{:020}", random.u64(..300_000_000)).into_bytes(), Some(true)),
        ("short", |random| format!("{:08}", random.u64(..100_000_000)).into_bytes(), Some(true)),
        ("hexadecimal", |random| format!("{:032x}", random.u128(..)).into_bytes(), Some(true)),
        (
            "fields",
            |random| format!("user:{:06}/order:{:06}", random.u32(..999), random.u32(..9999)).into_bytes(),
            Some(true),
        ),
        ("named", |random| format!("{}-{}", random.u64(..), random.alphabetic()).into_bytes(), Some(true)),
        ("upper", |random| (0..9).map(|_| random.uppercase() as u8).collect(), Some(true)),
    ];

    fn sample(form: Form, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = (0..150).map(|_| form(random)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    #[test]
    fn prefixes_are_chosen_by_what_the_keys_look_like() {
        for (name, form, is_letters) in FORMS {
            let keys = sample(form, &mut fastrand::Rng::with_seed(7));
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let better = PrefixBase::default().better_for(&keys);
            assert_eq!(better.as_ref().map(|base| base.letters.is_some()), is_letters, "{name}: {better:?}");
            if let Some(better) = better {
                assert!(better.spread_of(&keys) > keys.len() / 2, "{name}: {better:?}");
                assert!(better.better_for(&keys).is_none(), "{name}: a choice stays");
            }
            assert!(PrefixBase::default().better_for(&keys[..LEAST_SAMPLE - 1]).is_none());
        }
    }

    #[test]
    fn every_choice_preserves_the_order_of_all_keys() {
        let mut random = fastrand::Rng::with_seed(8);
        for round in 0..60 {
            let (name, form, _) = FORMS[round % FORMS.len()];
            let learned = sample(form, &mut random);
            let learned: Vec<&[u8]> = learned.iter().map(Vec::as_slice).collect();
            let bases = [
                PrefixBase::of_shared(&learned),
                PrefixBase::of_letters(&learned),
                PrefixBase::of_letters(&learned[..3]),
            ];
            // Those and others: of other forms, cut, continued, changed in one byte.
            let mut keys: Vec<Vec<u8>> = Vec::new();
            for _ in 0..400 {
                let other = random.choice(FORMS).expect("there are forms").1;
                let mut key = if random.bool() { form(&mut random) } else { other(&mut random) };
                let at = random.usize(..=key.len());
                match random.u32(..6) {
                    0 => key.truncate(at),
                    1 => key.insert(at, random.u8(..)),
                    2 => key.extend([0; 3]),
                    3 | 4 if at < key.len() => key[at] = key[at].wrapping_add(random.u8(..)),
                    _ => {}
                }
                keys.push(key);
            }
            keys.sort();
            for base in bases {
                for pair in keys.windows(2) {
                    let numbers = [base.prefix_of(&pair[0]), base.prefix_of(&pair[1])];
                    assert!(
                        numbers[0] <= numbers[1],
                        "round {round}, {name}, {base:?}: {pair:?} {numbers:?}"
                    );
                }
            }
        }
    }
}
