//! Values: slices of a buffer with the requested compressibility.
//!
//! Making the bytes of each value would cost more than storing them. So a buffer is made before the
//! clock starts, and every value is a slice of it. The buffer is a mebibyte, like RocksDB's: larger
//! than the windows of the fast codecs, so that repeated values do not compress better.
//!
//! A *stamped* value begins with a number, by which a reader verifies that it is the right value.
use fastrand::Rng;

/// The bytes of all values; shared by all threads.
#[derive(Debug)]
pub struct ValuePool {
    bytes: Vec<u8>,
    sizes: Sizes,
    /// Percentage of values that are the first bytes of the pool.
    same_percent: u32,
}

/// The distribution of value sizes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// One size.
    Fixed(usize),
    /// Every size in the range, limits included, with equal probability.
    Uniform(usize, usize),
    /// A normal distribution around the middle of the range, cut at its limits, which are three
    /// standard deviations away.
    Normal(usize, usize),
}

impl Sizes {
    /// The largest size.
    fn most(self) -> usize {
        match self {
            Sizes::Fixed(size) => size,
            Sizes::Uniform(_, most) | Sizes::Normal(_, most) => most,
        }
    }

    #[inline]
    fn draw(self, random: &mut Rng) -> usize {
        match self {
            Sizes::Fixed(size) => size,
            Sizes::Uniform(least, most) => random.usize(least..=most),
            Sizes::Normal(least, most) => {
                // The sum of twelve uniform numbers less six is a sufficient approximation of a
                // normal one: its variance is one.
                let deviations = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
                let (least, most) = (least as f64, most as f64);
                ((least + most) / 2.0 + deviations * (most - least) / 6.0).clamp(least, most) as usize
            }
        }
    }
}

impl ValuePool {
    /// A pool whose bytes can be compressed to `compression_ratio` (0 to 1) of their size.
    pub fn new(compression_ratio: f64, sizes: Sizes) -> ValuePool {
        // The seed is fixed, so that values do not differ between runs.
        let mut random = Rng::with_seed(301);
        let length = sizes.most().max(1 << 20);
        let mut bytes = Vec::with_capacity(length + 100);
        while bytes.len() < length {
            // A random piece, repeated up to 100 bytes: a codec stores the piece once and refers to
            // it for the rest.
            let piece = ((100.0 * compression_ratio) as usize).max(1);
            let start = bytes.len();
            bytes.extend((0..piece).map(|_| random.u8(b' '..=b'~')));
            (piece..100).for_each(|at| bytes.push(bytes[start + at % piece]));
        }
        ValuePool { bytes, sizes, same_percent: 0 }
    }

    /// The same pool with `same_percent` of the values, drawn at random, equal.
    pub fn with_same_percent(self, same_percent: u32) -> ValuePool {
        ValuePool { same_percent, ..self }
    }

    /// A sequence of values for one thread. All begin at the start of the pool.
    pub fn walk(&self, random: &mut Rng) -> Values<'_> {
        let random = random.fork();
        Values { pool: self, position: 0, random, stamped: Vec::new() }
    }
}

/// The sequence of values of one thread.
#[derive(Debug)]
pub struct Values<'a> {
    pool: &'a ValuePool,
    position: usize,
    random: Rng,
    /// The last stamped value.
    stamped: Vec<u8>,
}

impl<'a> Values<'a> {
    /// The next value.
    #[inline]
    pub fn next_value(&mut self) -> &'a [u8] {
        let size = self.pool.sizes.draw(&mut self.random);
        self.take(size)
    }

    /// The next value, with `size` bytes instead of the pool's sizes; at most as many as the pool
    /// has.
    #[inline]
    pub fn take(&mut self, size: usize) -> &'a [u8] {
        let size = size.min(self.pool.bytes.len());
        if self.pool.same_percent > 0 && self.random.u32(..100) < self.pool.same_percent {
            return &self.pool.bytes[..size];
        }
        if self.position + size > self.pool.bytes.len() {
            self.position = 0;
        }
        let value = &self.pool.bytes[self.position..self.position + size];
        self.position += size;
        value
    }

    /// The next value, which begins with `number` if it is long enough. See [`stamp`].
    #[inline]
    pub fn next_stamped(&mut self, number: u64) -> &[u8] {
        let value = self.next_value();
        self.stamped.clear();
        self.stamped.extend_from_slice(value);
        if let Some(head) = self.stamped.first_chunk_mut::<8>() {
            *head = number.to_be_bytes();
        }
        &self.stamped
    }
}

/// The number in a value of [`Values::next_stamped`]; `None` for values of less than eight bytes.
#[inline]
pub fn stamp(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|head| u64::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_values_is_the_same() {
        let pool = ValuePool::new(0.5, Sizes::Fixed(100)).with_same_percent(30);
        let mut values = pool.walk(&mut Rng::with_seed(1));
        let same = (0..1000).filter(|_| values.next_value() == &pool.bytes[..100]).count();
        assert!((250..350).contains(&same), "{same}");
    }

    #[test]
    fn values_have_the_size_and_differ() {
        let pool = ValuePool::new(0.5, Sizes::Fixed(100));
        let mut values = pool.walk(&mut Rng::with_seed(1));
        let first = values.next_value();
        assert_eq!(first.len(), 100);
        assert_ne!(first, values.next_value());
        // Half of a value is new; the other half repeats it.
        assert_eq!(first[..50], first[50..]);
        (0..50_000).for_each(|_| assert_eq!(values.next_value().len(), 100));
    }

    #[test]
    fn a_ratio_of_one_repeats_nothing_and_zero_one_byte() {
        let pool = ValuePool::new(1.0, Sizes::Fixed(100));
        let value = pool.walk(&mut Rng::with_seed(1)).next_value();
        assert_ne!(value[..50], value[50..]);
        let pool = ValuePool::new(0.0, Sizes::Fixed(100));
        let value = pool.walk(&mut Rng::with_seed(1)).next_value();
        assert!(value.iter().all(|byte| *byte == value[0]));
    }

    #[test]
    fn a_value_can_be_larger_than_the_buffer_or_empty() {
        let pool = ValuePool::new(0.5, Sizes::Fixed(3 << 20));
        assert_eq!(pool.walk(&mut Rng::with_seed(1)).next_value().len(), 3 << 20);
        let pool = ValuePool::new(0.5, Sizes::Fixed(0));
        assert!(pool.walk(&mut Rng::with_seed(1)).next_value().is_empty());
    }

    #[test]
    fn distributions_stay_in_their_range() {
        for sizes in [Sizes::Normal(10, 70), Sizes::Uniform(10, 70)] {
            let pool = ValuePool::new(0.5, sizes);
            let mut values = pool.walk(&mut Rng::with_seed(1));
            let lengths: Vec<usize> = (0..10_000).map(|_| values.next_value().len()).collect();
            assert!(lengths.iter().all(|length| (10..=70).contains(length)));
            let mean = lengths.iter().sum::<usize>() as f64 / 10_000.0;
            assert!((39.0..41.0).contains(&mean), "{sizes:?}: {mean}");
        }
    }

    #[test]
    fn a_stamp_is_found_again() {
        let pool = ValuePool::new(0.5, Sizes::Fixed(100));
        let mut values = pool.walk(&mut Rng::with_seed(1));
        let value = values.next_stamped(77);
        assert_eq!((value.len(), stamp(value)), (100, Some(77)));
        assert_eq!(stamp(values.take(7)), None);
        assert_eq!(values.take(3000).len(), 3000);
        assert_eq!(values.take(usize::MAX).len(), pool.bytes.len());
    }
}
