//! A latency histogram.
//!
//! The bucket limits are those of RocksDB's reports (1, 2, 3, 4, 6, 10, 15, 22, 34, …): each limit
//! is the one before times 1.5, cut to its two leading digits. So a percentile read from it is off
//! by a sixth at most, and a table of it stays readable. Bucket `b` counts values in
//! `(limit[b - 1], limit[b]]`.
//!
//! A histogram belongs to one thread. Each thread has its own, and [`Histogram::merge`] adds them
//! up.
use std::fmt;

/// Number of buckets; the limit of the last one is the largest `u64` that the rule of growth
/// reaches.
const BUCKETS: usize = 109;

/// The largest value of every bucket.
const LIMITS: [u64; BUCKETS] = limits();

/// For every bit length of a value (0 to 64), the first bucket that can hold such a value.
const FIRST_BUCKET: [u8; 65] = first_buckets();

/// Counts values of any unit; returns averages and percentiles.
///
/// One record costs a few nanoseconds: the bit length of the value selects the first bucket, and at
/// most two more are examined.
#[derive(Clone, Debug)]
pub struct Histogram {
    count: u64,
    sum: u128,
    sum_of_squares: u128,
    min: u64,
    max: u64,
    buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// Creates an empty histogram.
    pub const fn new() -> Histogram {
        Histogram { count: 0, sum: 0, sum_of_squares: 0, min: u64::MAX, max: 0, buckets: [0; BUCKETS] }
    }

    /// Counts `value` once.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.buckets[bucket_of(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        // A square of the largest value fills 128 bits, so adding a second one must not wrap
        // around.
        self.sum_of_squares = self.sum_of_squares.saturating_add(u128::from(value) * u128::from(value));
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Adds all values counted by `other`.
    pub fn merge(&mut self, other: &Histogram) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.sum_of_squares = self.sum_of_squares.saturating_add(other.sum_of_squares);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Resets the histogram to empty.
    pub fn clear(&mut self) {
        *self = Histogram::new();
    }

    /// The number of values counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all values.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// The smallest value; 0 if there is none.
    pub fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The largest value; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean; 0 if nothing was counted.
    pub fn average(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The standard deviation of the counted values (the whole population, not a sample of it).
    pub fn standard_deviation(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let average = self.average();
        // Rounding can leave a tiny negative variance when all values are alike.
        (self.sum_of_squares as f64 / self.count as f64 - average * average).max(0.0).sqrt()
    }

    /// The value that half of all values do not exceed.
    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    /// The value that `percent` (0 to 100) of all values do not exceed; 0 if nothing was counted.
    ///
    /// Assumes that values are spread evenly inside their bucket. The result never leaves
    /// `[min, max]`.
    pub fn percentile(&self, percent: f64) -> f64 {
        let threshold = self.count as f64 * (percent / 100.0);
        let mut below = 0u64;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            if count > 0 && (below + count) as f64 >= threshold {
                let (left, right) = bounds(bucket);
                let position = (threshold - below as f64) / count as f64;
                let value = left as f64 + (right - left) as f64 * position;
                return value.clamp(self.min as f64, self.max as f64);
            }
            below += count;
        }
        self.max as f64
    }

    /// The non-empty buckets, smallest values first: lower bound (exclusive), upper bound
    /// (inclusive), count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.buckets.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bucket, &count)| {
            let (left, right) = bounds(bucket);
            (left, right, count)
        })
    }

    /// The report with every value divided by 1000: counted in nanoseconds, printed in
    /// microseconds.
    ///
    /// Same lines as [`fmt::Display`]. The whole numbers in it (minimum, maximum, bucket limits)
    /// get three decimals, since operations of this engine take less than one microsecond.
    pub fn thousandths(&self) -> impl fmt::Display + '_ {
        Thousandths(self)
    }

    /// Writes the report. `whole` prints the numbers that are integers in their own unit.
    fn report(
        &self,
        f: &mut fmt::Formatter<'_>,
        scale: f64,
        whole: impl Fn(u64, usize) -> String,
    ) -> fmt::Result {
        let percentile = |percent| self.percentile(percent) / scale;
        writeln!(
            f,
            "Count: {} Average: {:.4}  StdDev: {:.2}",
            self.count,
            self.average() / scale,
            self.standard_deviation() / scale
        )?;
        writeln!(
            f,
            "Min: {}  Median: {:.4}  Max: {}",
            whole(self.min(), 0),
            self.median() / scale,
            whole(self.max, 0)
        )?;
        writeln!(
            f,
            "Percentiles: P50: {:.2} P75: {:.2} P99: {:.2} P99.9: {:.2} P99.99: {:.2}",
            percentile(50.0),
            percentile(75.0),
            percentile(99.0),
            percentile(99.9),
            percentile(99.99)
        )?;
        writeln!(f, "------------------------------------------------------")?;
        let percent_of = |count: u64| 100.0 * count as f64 / self.count as f64;
        let mut cumulative = 0;
        for (left, right, count) in self.buckets() {
            cumulative += count;
            // Twenty marks represent all values.
            let marks = "#".repeat((percent_of(count) / 5.0 + 0.5) as usize);
            writeln!(
                f,
                "{} {}, {} ] {count:>8} {:>7.3}% {:>7.3}% {marks}",
                if left == 0 { '[' } else { '(' },
                whole(left, 7),
                whole(right, 7),
                percent_of(count),
                percent_of(cumulative),
            )?;
        }
        Ok(())
    }
}

/// The report in the histogram's own unit, in the lines that scripts around `db_bench` read.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report(f, 1.0, |value, width| format!("{value:>width$}"))
    }
}

struct Thousandths<'a>(&'a Histogram);

impl fmt::Display for Thousandths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.report(f, 1000.0, |value, width| {
            let (whole, rest) = (value / 1000, value % 1000);
            format!("{:>width$}", format!("{whole}.{rest:03}"))
        })
    }
}

/// Lower (exclusive) and upper (inclusive) bound of a bucket.
fn bounds(bucket: usize) -> (u64, u64) {
    (if bucket == 0 { 0 } else { LIMITS[bucket - 1] }, LIMITS[bucket])
}

/// The first bucket whose limit is `>= value`; values beyond the last limit go into the last
/// bucket.
#[inline]
fn bucket_of(value: u64) -> usize {
    let mut bucket = usize::from(FIRST_BUCKET[(u64::BITS - value.leading_zeros()) as usize]);
    while bucket < BUCKETS - 1 && LIMITS[bucket] < value {
        bucket += 1;
    }
    bucket
}

const fn limits() -> [u64; BUCKETS] {
    let mut limits = [0; BUCKETS];
    limits[0] = 1;
    limits[1] = 2;
    // The exact value grows by 1.5 and each limit is cut from it, so that rounding does not
    // accumulate.
    let mut exact = 2.0f64;
    let mut bucket = 2;
    while bucket < BUCKETS {
        exact *= 1.5;
        let mut limit = exact as u64;
        let mut power_of_ten = 1;
        while limit / 10 > 10 {
            limit /= 10;
            power_of_ten *= 10;
        }
        limits[bucket] = limit * power_of_ten;
        bucket += 1;
    }
    limits
}

const fn first_buckets() -> [u8; 65] {
    let mut first = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let smallest = 1u64 << (bits - 1);
        let mut bucket = 0;
        while bucket < BUCKETS - 1 && LIMITS[bucket] < smallest {
            bucket += 1;
        }
        first[bits] = bucket as u8;
        bits += 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_by_half_and_have_two_digits() {
        assert_eq!(LIMITS[..16], [1, 2, 3, 4, 6, 10, 15, 22, 34, 51, 76, 110, 170, 250, 380, 580]);
        assert!(LIMITS.windows(2).all(|pair| pair[0] < pair[1]));
        // One more step of the rule would exceed 64 bits.
        assert!(LIMITS[BUCKETS - 1] as f64 * 1.5 * 1.1 > u64::MAX as f64);
    }

    #[test]
    fn every_value_falls_between_its_limits() {
        let mut value = 1u64;
        while value < u64::MAX / 3 {
            for value in [value - 1, value, value + 1] {
                let bucket = bucket_of(value);
                assert!(value <= LIMITS[bucket], "{value} is above its bucket");
                assert!(bucket == 0 || value > LIMITS[bucket - 1], "{value} is below its bucket");
            }
            value = value * 3 / 2 + 1;
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn averages_and_percentiles_are_those_computed_by_hand() {
        let mut histogram = Histogram::new();
        for value in [1, 2, 2, 3, 5, 5, 6, 100] {
            histogram.record(value);
        }
        assert_eq!(histogram.count(), 8);
        assert_eq!((histogram.min(), histogram.max(), histogram.sum()), (1, 100, 124));
        assert_eq!(histogram.average(), 15.5);
        // Squares: 1 + 4 + 4 + 9 + 25 + 25 + 36 + 10000 = 10104; 10104 / 8 - 15.5^2 = 1022.75.
        assert!((histogram.standard_deviation() - 1022.75f64.sqrt()).abs() < 1e-9);
        // Buckets: [0,1] 1, (1,2] 2, (2,3] 1, (4,6] 3, (76,110] 1. The 4th of 8 values ends bucket
        // (2,3].
        assert_eq!(histogram.median(), 3.0);
        // The 6th value is two thirds into (4,6].
        assert!((histogram.percentile(75.0) - (4.0 + 2.0 * 2.0 / 3.0)).abs() < 1e-9);
        // 7.92 values: 0.92 into (76,110] is 107.28, which no value reaches.
        assert_eq!(histogram.percentile(99.0), 100.0);
        assert_eq!(histogram.percentile(0.0), 1.0);
    }

    #[test]
    fn an_empty_histogram_reports_zeros() {
        let text = Histogram::new().to_string();
        assert_eq!(
            text,
            "Count: 0 Average: 0.0000  StdDev: 0.00\n\
             Min: 0  Median: 0.0000  Max: 0\n\
             Percentiles: P50: 0.00 P75: 0.00 P99: 0.00 P99.9: 0.00 P99.99: 0.00\n\
             ------------------------------------------------------\n"
        );
    }

    #[test]
    fn the_report_has_the_known_lines() {
        let mut histogram = Histogram::new();
        for value in [1, 5, 5, 6] {
            histogram.record(value);
        }
        assert_eq!(
            histogram.to_string(),
            "Count: 4 Average: 4.2500  StdDev: 1.92\n\
             Min: 1  Median: 4.6667  Max: 6\n\
             Percentiles: P50: 4.67 P75: 5.33 P99: 5.97 P99.9: 6.00 P99.99: 6.00\n\
             ------------------------------------------------------\n\
             [       0,       1 ]        1  25.000%  25.000% #####\n\
             (       4,       6 ]        3  75.000% 100.000% ###############\n"
        );
    }

    #[test]
    fn nanoseconds_are_shown_as_microseconds() {
        let mut histogram = Histogram::new();
        histogram.record(500);
        histogram.record(2_000);
        let text = histogram.thousandths().to_string();
        assert!(
            text.starts_with(
                "Count: 2 Average: 1.2500  StdDev: 0.75\nMin: 0.500  Median: 0.5800  Max: 2.000\n"
            )
        );
        assert!(text.contains("\n(   0.380,   0.580 ]        1  50.000%  50.000% ##########\n"), "{text}");
    }

    #[test]
    fn merged_histograms_equal_one_that_saw_everything() {
        let (mut left, mut right, mut all) = (Histogram::new(), Histogram::new(), Histogram::new());
        for value in 0..1000u64 {
            let value = value * value;
            if value % 3 == 0 {
                left.record(value)
            } else {
                right.record(value)
            }
            all.record(value);
        }
        left.merge(&right);
        assert_eq!(left.to_string(), all.to_string());
        left.merge(&Histogram::new());
        assert_eq!(left.to_string(), all.to_string());
        left.clear();
        assert_eq!(left.count(), 0);
    }
}
