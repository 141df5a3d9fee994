//! The eight bytes that stand for a key in searches, and how to choose them for the keys at hand.
//!
//! Searches compare numbers, and shortcuts take them for evenly spread. The first eight bytes of a key serve for keys
//! drawn evenly. Keys that begin alike are told apart behind what they share. Digits and letters leave most values of a
//! byte unused, so numbers made of their bytes crowd together; these become numbers with as many digits as the key has
//! letters, in which each place counts only the letters that occur there. What all keys have at a place, such as a
//! separator, takes no room then. Where that does not help either, numbers are by rank among samples.
#![cfg_attr(sapwood_loom, allow(dead_code, reason = "in models the prefixes are given"))]
use letters::Letters;
use samples::Samples;
use sapwood_base::key::{common_prefix_len, key_prefix};

mod letters;
mod samples;

/// Fewer keys than this say little about those to come.
const LEAST_SAMPLE: usize = 64;
/// Keys among which forms are compared.
const COMPARED: usize = 512;
/// Fewer samples do not make ranks worth their price.
const LEAST_RANKED: usize = 1024;
/// One in so many keys at either end of a sample may begin differently from the others.
const STRAYS: usize = 32;
/// Bytes at the end of what all keys share that stay part of the number: a counter's next ones will differ there.
const SLACK_BYTES: usize = 4;

/// How keys become numbers: behind the bytes that most keys of a list start with, in one of three forms.
#[derive(Clone, Debug, Default)]
pub struct PrefixBase {
    base: Box<[u8]>,
    form: Form,
}

#[derive(Clone, Debug, Default)]
enum Form {
    /// The next eight bytes.
    #[default]
    Bytes,
    Letters(Box<Letters>),
    Samples(Box<Samples>),
}

impl PrefixBase {
    /// Eight bytes behind `base`.
    pub fn new(base: &[u8]) -> PrefixBase {
        PrefixBase { base: base.into(), form: Form::Bytes }
    }

    /// Whether numbers are the first eight bytes.
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
                Form::Letters(letters) => letters.number_of(rest),
                Form::Samples(samples) => samples.number_of(rest),
            },
            None if key < &*self.base => 0,
            None => u64::MAX,
        }
    }

    /// Whether keys like those of `sample`, which ascends, become numbers that are spread about as well as they can be. True
    /// of a sample that is too small to tell.
    pub(super) fn suits(&self, sample: &[&[u8]]) -> bool {
        sample.len() < LEAST_SAMPLE || self.spread_of(sample) > sample.len() / 2
    }

    /// What suits keys like those of `sample`, which ascends, much better than `self` does, if anything does. For some keys
    /// nothing does that is made of fewer than a thousand.
    pub(super) fn better_for(&self, sample: &[&[u8]]) -> Option<PrefixBase> {
        // A few tell which form it is; ranks are better the more samples there are.
        let some: Vec<&[u8]> = sample.iter().step_by((sample.len() / COMPARED).max(1)).copied().collect();
        if self.suits(&some) {
            return None;
        }
        let mut best = None;
        let mut enough = 2 * self.spread_of(&some);
        // From the cheapest to the dearest; what costs more must be clearly better.
        let candidates = [
            Some(PrefixBase::default()),
            Some(PrefixBase::of_shared(sample)),
            Some(PrefixBase::of_letters(sample)),
            PrefixBase::of_samples(sample),
        ];
        for candidate in candidates.into_iter().flatten() {
            let spread = candidate.spread_of(&some);
            if spread >= enough {
                // More than what serves well is not to be had.
                enough = spread + spread.min(some.len() / 2);
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
        let shared = shared(sample);
        PrefixBase::new(&shared[..begin(shared)])
    }

    /// The letters behind what the keys of `sample` share.
    fn of_letters(sample: &[&[u8]]) -> PrefixBase {
        let base = &shared(sample)[..begin(shared(sample))];
        let letters = Letters::of(&behind(base, sample));
        PrefixBase { base: base.into(), form: Form::Letters(Box::new(letters)) }
    }

    /// The rank among the keys of `sample`, if these are enough.
    fn of_samples(sample: &[&[u8]]) -> Option<PrefixBase> {
        if sample.len() < LEAST_RANKED {
            return None;
        }
        let base = shared(sample);
        let samples = Samples::of(&behind(base, sample))?;
        Some(PrefixBase { base: base.into(), form: Form::Samples(Box::new(samples)) })
    }
}

/// The keys of `sample` that begin with `base`, without it.
fn behind<'a>(base: &[u8], sample: &[&'a [u8]]) -> Vec<&'a [u8]> {
    sample.iter().filter_map(|key| key.strip_prefix(base)).collect()
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
            let base = PrefixBase::new(base);
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

    /// With the form that suits them best.
    const KINDS: [(&str, Draw, &str); 10] = [
        ("even", |random| random.u64(..).to_be_bytes().to_vec(), "plain"),
        ("counter", |random| random.u64(..100_000).to_be_bytes().to_vec(), "plain"),
        ("shared", |random| [&b"tenant/7/"[..], &random.u64(..).to_be_bytes()].concat(), "bytes"),
        ("decimal", |random| format!("{:020}", random.u64(..300_000_000)).into_bytes(), "letters"),
        ("short", |random| format!("{:08}", random.u64(..100_000_000)).into_bytes(), "letters"),
        ("hexadecimal", |random| format!("{:032x}", random.u128(..)).into_bytes(), "letters"),
        (
            "fields",
            |random| format!("user:{:06}/order:{:06}", random.u32(..999), random.u32(..9999)).into_bytes(),
            "letters",
        ),
        ("named", |random| format!("{}-{}", random.u64(..), random.alphabetic()).into_bytes(), "letters"),
        ("upper", |random| (0..9).map(|_| random.uppercase() as u8).collect(), "letters"),
        ("path", path, "samples"),
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
            let chosen = PrefixBase::default().better_for(&keys);
            let form = match chosen.as_ref().map(|base| &base.form) {
                None => "plain",
                Some(Form::Bytes) => "bytes",
                Some(Form::Letters(_)) => "letters",
                Some(Form::Samples(_)) => "samples",
            };
            assert_eq!(form, best, "{name}: {chosen:?}");
            if let Some(chosen) = chosen {
                assert!(chosen.better_for(&keys).is_none(), "{name}: a choice stays");
                // Keys that nobody has seen are spread, too.
                let others = draw(kind, 500, &mut fastrand::Rng::with_seed(8));
                let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
                assert!(
                    chosen.spread_of(&others) > others.len() / 3,
                    "{name}: {}",
                    chosen.spread_of(&others)
                );
            }
            assert!(PrefixBase::default().better_for(&keys[..LEAST_SAMPLE - 1]).is_none());
        }
    }

    #[test]
    fn every_choice_preserves_the_order_of_all_keys() {
        let mut random = fastrand::Rng::with_seed(8);
        for round in 0..100 {
            let (name, kind, _) = KINDS[round % KINDS.len()];
            // Those that are learned from and others: of other kinds, cut, continued, changed in one byte.
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
                Some(PrefixBase::of_shared(&refs)),
                Some(PrefixBase::of_letters(&refs)),
                Some(PrefixBase::of_letters(&refs[..3])),
                PrefixBase::of_samples(&refs),
                PrefixBase::of_samples(&refs[..LEAST_RANKED]),
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
