//! The eight-byte number that represents a key in searches, and the choice of an encoding for the
//! keys at hand.
//!
//! Searches compare these numbers, and shortcuts assume that they are evenly distributed. The first
//! eight bytes suffice for evenly distributed keys. Keys with a common prefix need the bytes after
//! it. Digits and letters leave most values of a byte unused, so numbers made of their bytes
//! cluster; such keys are encoded in a mixed radix with one digit per letter, in which each place
//! counts only the letters that occur there. A place with one value in all keys, such as a
//! separator, then takes no room. Where that does not help either, the number is the rank among
//! samples.
#![cfg_attr(sapwood_loom, allow(dead_code, reason = "in models the prefixes are given"))]
use alphabet::AlphabetCoding;
use ranks::RankCoding;
use sapwood_base::key::{common_prefix_len, key_prefix};

mod alphabet;
mod ranks;

/// Lists with fewer entries keep the plain encoding.
const LEARNS_FROM: u64 = 2048;
/// Sample size for the check of the plain encoding.
const FEW_KEYS: usize = 128;
/// Maximum sample size for the choice of another one.
const MANY_KEYS: u64 = 4000;
/// At most one in this many keys is sampled, so that the samples kept are small relative to the
/// list.
const KEYS_FOR_ONE: u64 = 8;
/// Fewer keys than this do not predict later ones.
const LEAST_SAMPLE: usize = 64;
/// Keys among which encodings are compared.
const COMPARED: usize = 512;
/// Fewer samples do not justify the cost of ranks.
const LEAST_RANKED: usize = 1024;
/// One in this many keys at either end of a sample may have another prefix.
const STRAYS: usize = 32;
/// Trailing bytes of the common prefix that stay part of the number: the next values of a counter
/// will differ there.
const SLACK_BYTES: usize = 4;

/// The encoding of the keys of a list as numbers: the bytes after the common prefix of most keys,
/// in one of three forms. It never changes: a list is created with the encoding that suits the keys
/// of its predecessor.
#[derive(Clone, Debug, Default)]
pub struct PrefixCoding {
    base: Box<[u8]>,
    form: Form,
}

#[derive(Clone, Debug, Default)]
enum Form {
    /// The next eight bytes.
    #[default]
    Bytes,
    Alphabet(Box<AlphabetCoding>),
    Ranks(Box<RankCoding>),
}

impl PrefixCoding {
    /// Encodes the eight bytes after `base`.
    pub fn new(base: &[u8]) -> PrefixCoding {
        PrefixCoding { base: base.into(), form: Form::Bytes }
    }

    /// Whether numbers are the first eight bytes of keys.
    pub fn is_plain(&self) -> bool {
        self.base.is_empty() && matches!(self.form, Form::Bytes)
    }

    /// A number that grows with the key: `prefix_of(a) < prefix_of(b)` implies `a < b`.
    #[inline]
    pub fn prefix_of(&self, key: &[u8]) -> u64 {
        if self.is_plain() {
            return key_prefix(key);
        }
        match key.strip_prefix(&*self.base) {
            Some(rest) => match &self.form {
                Form::Bytes => key_prefix(rest),
                Form::Alphabet(coding) => coding.number_of(rest),
                Form::Ranks(coding) => coding.number_of(rest),
            },
            None if key < &*self.base => 0,
            None => u64::MAX,
        }
    }

    /// Chooses the encoding for keys like those of a list with `entries` entries. `sample` returns
    /// about as many keys of the list as its argument, ascending.
    pub(super) fn suiting<'a>(entries: u64, sample: impl Fn(usize) -> Vec<&'a [u8]>) -> PrefixCoding {
        let plain = PrefixCoding::default();
        // A small sample suffices to see that the keys are evenly distributed.
        if entries < LEARNS_FROM || plain.suits(&sample(FEW_KEYS)) {
            return plain;
        }
        let keys = sample((entries / KEYS_FOR_ONE).min(MANY_KEYS) as usize);
        plain.better_for(&keys).unwrap_or(plain)
    }

    /// Whether this encoding distributes keys like the ascending `sample` about as evenly as
    /// possible. True for a sample that is too small to decide.
    fn suits(&self, sample: &[&[u8]]) -> bool {
        sample.len() < LEAST_SAMPLE || self.spread_of(sample) > sample.len() / 2
    }

    /// Returns an encoding that suits keys like the ascending `sample` much better than `self`, or
    /// `None`. Some keys need an encoding made of at least a thousand samples.
    fn better_for(&self, sample: &[&[u8]]) -> Option<PrefixCoding> {
        // A small sample decides between the forms; ranks improve with more samples.
        let some: Vec<&[u8]> = sample.iter().step_by((sample.len() / COMPARED).max(1)).copied().collect();
        if self.suits(&some) {
            return None;
        }
        let mut best = None;
        let mut enough = 2 * self.spread_of(&some);
        // In order of cost; a more expensive one must be clearly better.
        let candidates = [
            Some(PrefixCoding::default()),
            Some(PrefixCoding::of_shared(sample)),
            Some(PrefixCoding::of_alphabet(sample)),
            PrefixCoding::of_ranks(sample),
        ];
        for candidate in candidates.into_iter().flatten() {
            let spread = candidate.spread_of(&some);
            if spread >= enough {
                // Capped, because a spread beyond a good one is unattainable.
                enough = spread + spread.min(some.len() / 2);
                best = Some(candidate);
            }
        }
        best
    }

    /// Number of occupied cells when the range of the sample is cut into twice as many equal cells
    /// as it has keys: about four fifths of the keys if they are evenly distributed.
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

    /// Encodes the eight bytes after the common prefix of `sample`.
    fn of_shared(sample: &[&[u8]]) -> PrefixCoding {
        let shared = shared(sample);
        PrefixCoding::new(&shared[..begin(shared)])
    }

    /// Encodes the letters after the common prefix of `sample`.
    fn of_alphabet(sample: &[&[u8]]) -> PrefixCoding {
        let base = &shared(sample)[..begin(shared(sample))];
        let coding = AlphabetCoding::of(&behind(base, sample));
        PrefixCoding { base: base.into(), form: Form::Alphabet(Box::new(coding)) }
    }

    /// Encodes the rank among the keys of `sample`, if these suffice.
    fn of_ranks(sample: &[&[u8]]) -> Option<PrefixCoding> {
        if sample.len() < LEAST_RANKED {
            return None;
        }
        let base = shared(sample);
        let coding = RankCoding::of(&behind(base, sample))?;
        Some(PrefixCoding { base: base.into(), form: Form::Ranks(Box::new(coding)) })
    }
}

/// The keys of `sample` that begin with `base`, without it.
fn behind<'a>(base: &[u8], sample: &[&'a [u8]]) -> Vec<&'a [u8]> {
    sample.iter().filter_map(|key| key.strip_prefix(base)).collect()
}

/// The common prefix of `sample`, ignoring a few keys at both ends.
fn shared<'a>(sample: &[&'a [u8]]) -> &'a [u8] {
    let strays = sample.len() / STRAYS;
    match sample[strays..sample.len() - strays] {
        [first, .., last] => &first[..common_prefix_len(first, last)],
        _ => &[],
    }
}

/// Where numbers begin, if `shared` is the common prefix.
fn begin(shared: &[u8]) -> usize {
    let is_counter = |byte: &u8| *byte == 0 || byte.is_ascii_digit();
    let slack = shared.iter().rev().take(SLACK_BYTES).take_while(|byte| is_counter(byte)).count();
    shared.len() - slack
}

#[cfg(all(test, not(sapwood_loom)))]
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
            let base = PrefixCoding::new(base);
            for pair in keys.windows(2) {
                assert!(base.prefix_of(pair[0]) <= base.prefix_of(pair[1]), "{base:?} {pair:?}");
            }
        }
    }

    type Draw = fn(&mut fastrand::Rng) -> Vec<u8>;

    fn path(random: &mut fastrand::Rng) -> Vec<u8> {
        let words = ["usr", "share", "lib", "a", "index", "2026", "x"];
        let mut key: Vec<u8> = Vec::new();
        for _ in 0..random.usize(4..20) {
            key.extend_from_slice(random.choice(words).unwrap_or_default().as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(format!("{:x}", random.u32(..)).as_bytes());
        key
    }

    /// With their best form.
    const KINDS: [(&str, Draw, &str); 10] = [
        ("even", |random| random.u64(..).to_be_bytes().to_vec(), "plain"),
        ("counter", |random| random.u64(..100_000).to_be_bytes().to_vec(), "plain"),
        ("shared", |random| [&b"tenant/7/"[..], &random.u64(..).to_be_bytes()].concat(), "bytes"),
        ("decimal", |random| format!("{:020}", random.u64(..300_000_000)).into_bytes(), "alphabet"),
        ("short", |random| format!("{:08}", random.u64(..100_000_000)).into_bytes(), "alphabet"),
        ("hexadecimal", |random| format!("{:032x}", random.u128(..)).into_bytes(), "alphabet"),
        (
            "fields",
            |random| format!("user:{:06}/order:{:06}", random.u32(..999), random.u32(..9999)).into_bytes(),
            "alphabet",
        ),
        ("named", |random| format!("{}-{}", random.u64(..), random.alphabetic()).into_bytes(), "alphabet"),
        ("upper", |random| (0..9).map(|_| random.uppercase() as u8).collect(), "alphabet"),
        ("path", path, "ranks"),
    ];

    fn draw(kind: Draw, count: usize, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = (0..count).map(|_| kind(random)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    #[test]
    fn prefixes_are_chosen_by_what_the_keys_look_like() {
        for (name, kind, best) in KINDS {
            let keys = draw(kind, 2000, &mut fastrand::Rng::with_seed(7));
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let chosen = PrefixCoding::default().better_for(&keys);
            let form = match chosen.as_ref().map(|base| &base.form) {
                None => "plain",
                Some(Form::Bytes) => "bytes",
                Some(Form::Alphabet(_)) => "alphabet",
                Some(Form::Ranks(_)) => "ranks",
            };
            assert_eq!(form, best, "{name}: {chosen:?}");
            if let Some(chosen) = chosen {
                assert!(chosen.better_for(&keys).is_none(), "{name}: a choice stays");
                // Keys outside the sample are spread, too.
                let others = draw(kind, 500, &mut fastrand::Rng::with_seed(8));
                let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
                assert!(
                    chosen.spread_of(&others) > others.len() / 3,
                    "{name}: {}",
                    chosen.spread_of(&others)
                );
            }
            assert!(PrefixCoding::default().better_for(&keys[..LEAST_SAMPLE - 1]).is_none());
        }
    }

    #[test]
    fn every_choice_preserves_the_order_of_all_keys() {
        let mut random = fastrand::Rng::with_seed(8);
        for round in 0..100 {
            let (name, kind, _) = KINDS[round % KINDS.len()];
            // The learned keys and others: of other kinds, truncated, extended, changed in one
            // byte.
            let change = |mut key: Vec<u8>, random: &mut fastrand::Rng| {
                let at = random.usize(..=key.len());
                match random.u32(..7) {
                    0 => key.truncate(at),
                    1 => key.insert(at, random.u8(..)),
                    2 => key.resize(key.len() + random.usize(..20), 0),
                    3 | 4 if at < key.len() => key[at] = key[at].wrapping_add(random.u8(..)),
                    5 => key.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, random.u8(..)]),
                    _ => {}
                }
                key
            };
            let mut learned = draw(kind, 1600, &mut random);
            if round >= KINDS.len() * 3 {
                learned = learned.into_iter().map(|key| change(key, &mut random)).collect();
                learned.sort();
                learned.dedup();
            }
            let refs: Vec<&[u8]> = learned.iter().map(Vec::as_slice).collect();
            let bases = [
                Some(PrefixCoding::of_shared(&refs)),
                Some(PrefixCoding::of_alphabet(&refs)),
                Some(PrefixCoding::of_alphabet(&refs[..3])),
                PrefixCoding::of_ranks(&refs),
                PrefixCoding::of_ranks(&refs[..LEAST_RANKED]),
            ];
            let mut keys = Vec::new();
            for _ in 0..600 {
                let key = match random.u32(..4) {
                    0 => random.choice(&learned).cloned().unwrap_or_default(),
                    1 => random.choice(KINDS).expect("there are kinds").1(&mut random),
                    _ => kind(&mut random),
                };
                keys.push(change(key, &mut random));
            }
            keys.extend(learned);
            keys.sort();
            for base in bases.into_iter().flatten() {
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
