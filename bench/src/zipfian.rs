//! Skewed distributions: the popularity of item `i` falls with `1 / (i + 1)^0.99`, as in YCSB.
//!
//! The method is that of Gray, Sundaresan, Englert, Baclawski and Weinberger, "Quickly generating
//! billion-record synthetic databases" (1994), section 3: one uniform number and one power per
//! draw, no table.
use fastrand::Rng;

/// YCSB's constant: the steepness of the distribution.
pub const THETA: f64 = 0.99;

/// Numbers below a bound; 0 is the most popular, then 1, and so on.
#[derive(Clone, Copy, Debug)]
pub struct Zipfian {
    items: u64,
    /// The sum of `1 / i^THETA` over all items.
    zeta: f64,
    alpha: f64,
    eta: f64,
    /// Below this, the result is item 1.
    second: f64,
}

impl Zipfian {
    /// Numbers below `items`, which is at least 1.
    pub fn new(items: u64) -> Zipfian {
        let items = items.max(1);
        let mut zipfian = Zipfian {
            items,
            zeta: zeta(items),
            alpha: 1.0 / (1.0 - THETA),
            eta: 0.0,
            second: 1.0 + 0.5f64.powf(THETA),
        };
        zipfian.set_eta();
        zipfian
    }

    /// Number of items.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Raises the bound to `items`. The cost is small for few new items, so a call after every
    /// insert is possible.
    pub fn grow(&mut self, items: u64) {
        if items <= self.items {
            return;
        }
        if items - self.items < 16 {
            self.zeta += (self.items + 1..=items).map(|item| (item as f64).powf(-THETA)).sum::<f64>();
        } else {
            self.zeta = zeta(items);
        }
        self.items = items;
        self.set_eta();
    }

    fn set_eta(&mut self) {
        let two = zeta(2);
        let spread = 1.0 - (2.0 / self.items as f64).powf(1.0 - THETA);
        self.eta = spread / (1.0 - two / self.zeta);
    }

    /// The next number.
    #[inline]
    pub fn next(&self, random: &mut Rng) -> u64 {
        let uniform = random.f64();
        let place = uniform * self.zeta;
        if place < 1.0 {
            return 0;
        }
        if place < self.second {
            return 1.min(self.items - 1);
        }
        let item = self.items as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        // Rounding can reach the bound itself.
        (item as u64).min(self.items - 1)
    }
}

/// A zipfian distribution whose popular items are spread over all numbers.
///
/// As in YCSB, ranks are drawn from ten thousand million items regardless of the real number, so
/// that the share of the most popular item does not depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Scrambled {
    ranks: Zipfian,
    items: u64,
}

impl Scrambled {
    /// Numbers below `items`, which is at least 1.
    pub fn new(items: u64) -> Scrambled {
        Scrambled { ranks: Zipfian::new(10_000_000_000), items: items.max(1) }
    }

    /// The next number.
    #[inline]
    pub fn next(&self, random: &mut Rng) -> u64 {
        spread(self.ranks.next(random)) % self.items
    }
}

/// A distribution that prefers the latest items.
#[derive(Clone, Copy, Debug)]
pub struct Latest {
    ages: Zipfian,
}

impl Latest {
    /// Starts with `items` items.
    pub fn new(items: u64) -> Latest {
        Latest { ages: Zipfian::new(items) }
    }

    /// The next number, below `items`; `items` may grow from call to call.
    #[inline]
    pub fn next(&mut self, items: u64, random: &mut Rng) -> u64 {
        self.ages.grow(items);
        let items = items.max(1);
        items - 1 - self.ages.next(random).min(items - 1)
    }
}

/// Spreads neighbours over all 64-bit numbers. A bijection, so there are no collisions (the
/// finisher of Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[inline]
pub const fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The sum of `1 / i^THETA` for `i` from 1 to `items`. The first terms are added, the rest follows
/// from the Euler-Maclaurin formula, whose error is below 10^-12 here.
fn zeta(items: u64) -> f64 {
    let exact = items.min(1000);
    let sum: f64 = (1..=exact).map(|item| (item as f64).powf(-THETA)).sum();
    if items == exact {
        return sum;
    }
    let (from, to) = (exact as f64, items as f64);
    let power = |exponent: f64| (to.powf(exponent), from.powf(exponent));
    let (integral_to, integral_from) = power(1.0 - THETA);
    let (end_to, end_from) = power(-THETA);
    let (slope_to, slope_from) = power(-THETA - 1.0);
    sum + (integral_to - integral_from) / (1.0 - THETA)
        + (end_to - end_from) / 2.0
        + THETA / 12.0 * (slope_from - slope_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeta_is_the_constant_that_ycsb_computed_for_weeks() {
        // The constant of ScrambledZipfianGenerator for 10^10 items.
        assert!((zeta(10_000_000_000) - 26.469_028_201_783_02).abs() < 1e-8, "{}", zeta(10_000_000_000));
        let term_by_term: f64 = (1..=50_000).map(|item| f64::from(item).powf(-THETA)).sum();
        assert!((zeta(50_000) - term_by_term).abs() < 1e-9);
        let mut grown = Zipfian::new(5);
        (6..=50_000).for_each(|items| grown.grow(items));
        assert!((grown.zeta - term_by_term).abs() < 1e-6);
        assert_eq!(grown.items(), 50_000);
    }

    #[test]
    fn popularity_falls_as_the_law_says() {
        let (items, draws) = (1000u64, 400_000u32);
        let zipfian = Zipfian::new(items);
        let mut random = Rng::with_seed(1);
        let mut seen = vec![0u32; items as usize];
        (0..draws).for_each(|_| seen[zipfian.next(&mut random) as usize] += 1);
        // The method is exact for the first two items and a good approximation for ranges of the
        // others.
        for (from, to) in [(0, 1), (1, 2), (2, 10), (10, 100), (100, 1000)] {
            let law = (from..to).map(|item| (item as f64 + 1.0).powf(-THETA)).sum::<f64>() / zipfian.zeta;
            let share = f64::from(seen[from..to].iter().sum::<u32>()) / f64::from(draws);
            assert!((share / law - 1.0).abs() < 0.12, "{from}..{to}: {share:.4}, by the law {law:.4}");
        }
    }

    #[test]
    fn scrambling_keeps_the_shares_and_moves_the_items() {
        let scrambled = Scrambled::new(1_000_000);
        let mut random = Rng::with_seed(2);
        let mut seen = std::collections::HashMap::new();
        (0..100_000).for_each(|_| *seen.entry(scrambled.next(&mut random)).or_insert(0u32) += 1);
        assert!(seen.keys().all(|&item| item < 1_000_000));
        let (&hottest, &count) = seen.iter().max_by_key(|(_, count)| **count).unwrap();
        // The share 1 / zeta(10^10) of all draws.
        assert!((3_500..4_100).contains(&count), "{count}");
        assert_eq!(hottest, spread(0) % 1_000_000);
    }

    #[test]
    fn the_latest_are_preferred_while_they_grow() {
        let mut latest = Latest::new(100);
        let mut random = Rng::with_seed(3);
        let (mut young, mut draws) = (0, 0);
        for items in 100..10_000 {
            let item = latest.next(items, &mut random);
            assert!(item < items);
            draws += 1;
            young += u32::from(items - item <= items / 10);
        }
        assert!(f64::from(young) > 0.7 * f64::from(draws), "{young} of {draws}");
        assert_eq!(Latest::new(1).next(1, &mut random), 0);
        assert_eq!(Zipfian::new(0).next(&mut random), 0);
    }

    #[test]
    fn spreading_is_a_bijection_on_a_sample() {
        let mut all: Vec<u64> = (0..100_000).map(spread).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 100_000);
    }
}
