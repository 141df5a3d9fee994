//! Keys: the conversion of numbers to bytes, and the order in which a benchmark visits the numbers.
//!
//! A key is the number as big-endian bytes, padded with '0' to the key size. So keys sort like
//! their numbers, and databases made by RocksDB's `db_bench` hold the same keys. With prefixes, the
//! big-endian number of the prefix precedes.
//!
//! All of this runs inside the timed loops: no key needs an allocation, and no order needs memory
//! proportional to the number of keys.
use fastrand::Rng;
use std::sync::Arc;

/// Writes keys into a reused buffer.
#[derive(Clone, Debug)]
pub struct KeyBuffer {
    bytes: Vec<u8>,
    /// Bytes of the prefix; 0 without prefixes.
    prefix_size: usize,
    /// Number of different prefixes.
    prefix_count: u64,
    /// The keys themselves, if they are not made from numbers.
    existing: Option<Arc<[Box<[u8]>]>>,
}

impl KeyBuffer {
    /// Keys of `key_size` bytes for numbers below `num`. Prefixes need both: a size and a number of
    /// keys per prefix.
    pub fn new(key_size: usize, prefix_size: usize, keys_per_prefix: u64, num: u64) -> KeyBuffer {
        let prefix_size = if keys_per_prefix == 0 { 0 } else { prefix_size.min(key_size) };
        let prefix_count = num.checked_div(keys_per_prefix).unwrap_or(0).max(1);
        KeyBuffer { bytes: vec![b'0'; key_size], prefix_size, prefix_count, existing: None }
    }

    /// The keys in `existing`, by index. Numbers beyond the end map to the last key.
    pub fn of(existing: Arc<[Box<[u8]>]>) -> KeyBuffer {
        // A nonzero prefix size selects the slow path of `make`.
        KeyBuffer { bytes: Vec::new(), prefix_size: 1, prefix_count: 1, existing: Some(existing) }
    }

    /// The key of `number`.
    #[inline]
    pub fn make(&mut self, number: u64) -> &[u8] {
        if self.prefix_size == 0
            && let Some(head) = self.bytes.first_chunk_mut::<8>()
        {
            *head = number.to_be_bytes();
        } else {
            self.make_parts(number);
        }
        &self.bytes
    }

    /// Keys with prefixes, keys of less than eight bytes, and existing keys. The bytes after the
    /// numbers are '0' since `new`.
    fn make_parts(&mut self, number: u64) {
        if let Some(existing) = &self.existing {
            self.bytes.clear();
            let at = (number as usize).min(existing.len().saturating_sub(1));
            self.bytes.extend_from_slice(existing.get(at).map_or(&[], |key| key));
            return;
        }
        let (prefix, rest) = self.bytes.split_at_mut(self.prefix_size);
        put_low_bytes(prefix, number % self.prefix_count);
        put_low_bytes(rest, number);
    }
}

/// Writes the low bytes of `number`, at most eight, big-endian to the start of `bytes`.
fn put_low_bytes(bytes: &mut [u8], number: u64) {
    let length = bytes.len().min(8);
    bytes[..length].copy_from_slice(&number.to_be_bytes()[8 - length..]);
}

/// The last key made.
impl AsRef<[u8]> for KeyBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The order in which a writing benchmark visits its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// 0, 1, 2, …
    Sequential,
    /// Drawn at random: some twice, some never.
    Random,
    /// Every number once, in random order.
    UniqueRandom,
}

/// The numbers below `num` in some order, repeated forever.
#[derive(Clone, Debug)]
pub struct Numbers {
    order: Order,
    num: u64,
    next: u64,
    permutation: Permutation,
}

impl Numbers {
    /// The numbers below `num` (at least 1) in `order`.
    pub fn new(order: Order, num: u64, random: &mut Rng) -> Numbers {
        Numbers { order, num, next: 0, permutation: Permutation::new(num, random) }
    }

    /// The next number.
    #[inline]
    pub fn next(&mut self, random: &mut Rng) -> u64 {
        if self.order == Order::Random {
            return random.u64(..self.num);
        }
        let number = self.next;
        self.next = if number + 1 == self.num { 0 } else { number + 1 };
        if self.order == Order::UniqueRandom { self.permutation.apply(number) } else { number }
    }
}

/// A random permutation of the numbers below a bound, without a table: three rounds of multiply and
/// xor-shift, each a bijection on the next power of two, repeated until the result is below the
/// bound (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). A shuffled table would
/// cost eight bytes and a cache miss per key.
#[derive(Clone, Debug)]
struct Permutation {
    num: u64,
    mask: u64,
    shift: u32,
    /// An odd factor and a summand of each round.
    rounds: [(u64, u64); 3],
}

impl Permutation {
    fn new(num: u64, random: &mut Rng) -> Permutation {
        let bits = (u64::BITS - num.saturating_sub(1).leading_zeros()).max(1);
        let mask = u64::MAX >> (u64::BITS - bits);
        Permutation {
            num,
            mask,
            shift: bits.div_ceil(2),
            rounds: [(); 3].map(|()| (random.u64(..) | 1, random.u64(..))),
        }
    }

    #[inline]
    fn apply(&self, mut number: u64) -> u64 {
        loop {
            for (factor, summand) in self.rounds {
                // A product carries upwards only; the shift mixes the upper half into the lower.
                number = number.wrapping_mul(factor).wrapping_add(summand) & self.mask;
                number ^= number >> self.shift;
            }
            if number < self.num {
                return number;
            }
        }
    }
}

/// Draws the keys of random reads: uniform, or with the skew of `--read_random_exp_range`.
#[derive(Clone, Copy, Debug)]
pub struct ReadKeys {
    num: u64,
    /// 0: uniform.
    exponent: f64,
}

impl ReadKeys {
    /// Numbers below `num`, with density exp(-exponent * x) over the keys.
    pub fn new(num: u64, exponent: f64) -> ReadKeys {
        ReadKeys { num, exponent }
    }

    /// The next number.
    #[inline]
    pub fn next(&self, random: &mut Rng) -> u64 {
        if self.exponent == 0.0 {
            return random.u64(..self.num);
        }
        let rank = ((-random.f64() * self.exponent).exp() * self.num as f64) as u64;
        // A prime spreads the ranks, so that popular keys are not neighbours.
        rank.wrapping_mul(0x5BD1_E995) % self.num
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_big_endian_number_and_zeros() {
        let mut keys = KeyBuffer::new(16, 0, 0, 1000);
        assert_eq!(keys.make(0x0102), b"\0\0\0\0\0\0\x01\x0200000000");
        assert_eq!(keys.make(7), b"\0\0\0\0\0\0\0\x0700000000");
        assert_eq!(KeyBuffer::new(4, 0, 0, 1000).make(0x0102_0304_0506), b"\x03\x04\x05\x06");
        assert_eq!(KeyBuffer::new(8, 0, 0, 1000).make(1), b"\0\0\0\0\0\0\0\x01");
    }

    #[test]
    fn a_prefix_stands_in_front() {
        // 1000 keys, ten for each prefix: number 234 has prefix 234 % 100.
        let mut keys = KeyBuffer::new(14, 2, 10, 1000);
        assert_eq!(keys.make(234), b"\0\x22\0\0\0\0\0\0\0\xEA0000");
        let mut keys = KeyBuffer::new(20, 10, 10, 1000);
        assert_eq!(keys.make(1), b"\0\0\0\0\0\0\0\x0100\0\0\0\0\0\0\0\x0100");
        // A prefix size without keys per prefix has no effect.
        assert_eq!(KeyBuffer::new(8, 2, 0, 1000).make(1), b"\0\0\0\0\0\0\0\x01");
    }

    #[test]
    fn keys_sort_as_their_numbers() {
        let mut keys = KeyBuffer::new(16, 0, 0, u64::MAX);
        let mut last = keys.make(0).to_vec();
        for shift in 0..64 {
            let key = keys.make(1 << shift).to_vec();
            assert!(last < key);
            last = key;
        }
    }

    #[test]
    fn unique_random_visits_every_number_once_in_each_round() {
        for num in [1, 2, 3, 100, 1000, 4096, 65_537] {
            let mut random = Rng::with_seed(num);
            let mut numbers = Numbers::new(Order::UniqueRandom, num, &mut random);
            let first: Vec<u64> = (0..num).map(|_| numbers.next(&mut random)).collect();
            let mut sorted = first.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..num), "not a permutation of {num} numbers");
            assert!((0..num).all(|i| numbers.next(&mut random) == first[i as usize]));
            // Consecutive numbers are rarely neighbours in the key space.
            let close = first.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < num / 100).count();
            assert!(num < 1000 || close < first.len() / 25, "{close} of {num} steps are short");
        }
    }

    #[test]
    fn sequential_and_random_stay_below_num() {
        let mut random = Rng::with_seed(1);
        let mut numbers = Numbers::new(Order::Sequential, 3, &mut random);
        assert_eq!([0; 7].map(|_| numbers.next(&mut random)), [0, 1, 2, 0, 1, 2, 0]);
        let mut numbers = Numbers::new(Order::Random, 10, &mut random);
        let mut seen = [0u32; 10];
        (0..10_000).for_each(|_| seen[numbers.next(&mut random) as usize] += 1);
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
    }

    #[test]
    fn skewed_reads_prefer_few_keys() {
        let mut random = Rng::with_seed(1);
        let keys = ReadKeys::new(1000, 10.0);
        let mut seen = vec![0u32; 1000];
        (0..100_000).for_each(|_| seen[keys.next(&mut random) as usize] += 1);
        seen.sort_unstable();
        // A hundredth of the keys receives about half of the reads.
        assert!(seen[990..].iter().sum::<u32>() > 40_000);
    }
}
