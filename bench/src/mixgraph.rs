//! RocksDB's `mixgraph`: gets, puts and scans whose keys, value sizes and scan lengths follow
//! measurements at Facebook (Cao, Dong, Vemuri and Du, "Characterizing, Modeling, and Benchmarking
//! RocksDB Key-Value Workloads at Facebook", FAST 2020).
//!
//! * *Keys.* With both `key_dist_*` set, popularity follows the power law `a * x^b`. With
//!   `keyrange_dist_*` as well, the key space is cut into `keyrange_num` ranges with popularity `a
//!   * e^(b x) + c * e^(d x)`. Otherwise keys are uniform.
//! * *Value sizes and scan lengths* are generalised Pareto, drawn by inversion.
//!
//! RocksDB derives the key, the kind of request and its size from one random number, which
//! correlates them; here each is drawn independently. The popular keys differ from RocksDB's, since
//! the random number generator does.
use crate::zipfian::spread;
use fastrand::Rng;

/// The flags of `mixgraph`, by their names in `db_bench`. The defaults are RocksDB's.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Number of keys.
    pub num: u64,
    /// Popularity of key ranges, first factor.
    pub keyrange_dist_a: f64,
    /// Popularity of key ranges, first exponent.
    pub keyrange_dist_b: f64,
    /// Popularity of key ranges, second factor.
    pub keyrange_dist_c: f64,
    /// Popularity of key ranges, second exponent.
    pub keyrange_dist_d: f64,
    /// Number of key ranges.
    pub keyrange_num: u64,
    /// Popularity of keys, factor; 0: uniform.
    pub key_dist_a: f64,
    /// Popularity of keys, exponent; 0: uniform.
    pub key_dist_b: f64,
    /// Value sizes.
    pub value: Pareto,
    /// Scan lengths.
    pub iter: Pareto,
    /// Share of gets.
    pub mix_get_ratio: f64,
    /// Share of puts.
    pub mix_put_ratio: f64,
    /// Share of seeks.
    pub mix_seek_ratio: f64,
    /// The maximum length of a scan.
    pub mix_max_scan_len: u64,
    /// The maximum size of a value.
    pub mix_max_value_size: u64,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            num: 1_000_000,
            keyrange_dist_a: 0.0,
            keyrange_dist_b: 0.0,
            keyrange_dist_c: 0.0,
            keyrange_dist_d: 0.0,
            keyrange_num: 1,
            key_dist_a: 0.0,
            key_dist_b: 0.0,
            value: Pareto { theta: 0.0, k: 0.2615, sigma: 25.45 },
            iter: Pareto { theta: 0.0, k: 2.517, sigma: 14.236 },
            mix_get_ratio: 1.0,
            mix_put_ratio: 0.0,
            mix_seek_ratio: 0.0,
            mix_max_scan_len: 10_000,
            mix_max_value_size: 1024,
        }
    }
}

/// The generalised Pareto distribution with location `theta`, shape `k` and scale `sigma`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pareto {
    /// The smallest value.
    pub theta: f64,
    /// The shape: the weight of the tail.
    pub k: f64,
    /// The scale.
    pub sigma: f64,
}

impl Pareto {
    /// A random value, rounded up.
    #[inline]
    pub fn next(&self, random: &mut Rng) -> u64 {
        // From (0, 1]: at 0 the inverse is infinite.
        self.at(1.0 - random.f64())
    }

    /// The value that the share `above` of all draws exceeds.
    fn at(&self, above: f64) -> u64 {
        let value = if self.k == 0.0 {
            self.theta - self.sigma * above.ln()
        } else {
            self.theta + self.sigma * (above.powf(-self.k) - 1.0) / self.k
        };
        // The cast saturates.
        value.ceil() as u64
    }
}

/// The next operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read this key.
    Get(u64),
    /// Write this key with a value of this size.
    Put(u64, usize),
    /// Seek to this key and read so many entries from there.
    Seek(u64, u64),
}

/// The stream of requests of one thread.
#[derive(Clone, Debug)]
pub struct Requests {
    parameters: Parameters,
    keys: Keys,
    /// Random numbers below the first select a get, below the second a put, else a seek.
    limits: [f64; 2],
}

impl Requests {
    /// The stream of `parameters`. At least one of the three ratios is positive.
    pub fn new(parameters: &Parameters) -> Requests {
        let Parameters { mix_get_ratio, mix_put_ratio, mix_seek_ratio, .. } = *parameters;
        let ratios = [mix_get_ratio, mix_put_ratio, mix_seek_ratio].map(|ratio| ratio.max(0.0));
        let sum: f64 = ratios.iter().sum();
        let limits = [ratios[0] / sum, (ratios[0] + ratios[1]) / sum];
        Requests { parameters: parameters.clone(), keys: Keys::new(parameters), limits }
    }

    /// The next request.
    #[inline]
    pub fn next(&mut self, random: &mut Rng) -> Request {
        let key = self.keys.next(random);
        let kind = random.f64();
        let Parameters { value, iter, mix_max_scan_len, mix_max_value_size, .. } = &self.parameters;
        if kind < self.limits[0] {
            Request::Get(key)
        } else if kind < self.limits[1] {
            // As in RocksDB, a size that is too large is folded back, and one that is too small is
            // raised.
            let size = value.next(random).max(10);
            let most = (*mix_max_value_size).max(1);
            Request::Put(key, if size > most { size % most } else { size } as usize)
        } else {
            Request::Seek(key, iter.next(random) % (*mix_max_scan_len).max(1))
        }
    }

    /// The shares of reads and of writes, by which a rate is divided.
    pub fn shares(&self) -> (f64, f64) {
        let puts = self.limits[1] - self.limits[0];
        (1.0 - puts, puts)
    }
}

/// The distribution of keys.
#[derive(Clone, Debug)]
enum Keys {
    Uniform { num: u64 },
    Power { num: u64, a: f64, b: f64 },
    Ranges { ends: Vec<u64>, range_keys: u64, a: f64, b: f64 },
}

impl Keys {
    fn new(parameters: &Parameters) -> Keys {
        let Parameters { num, key_dist_a: a, key_dist_b: b, .. } = *parameters;
        let num = num.max(1);
        let Parameters { keyrange_dist_a, keyrange_dist_b, keyrange_dist_c, keyrange_dist_d, .. } =
            *parameters;
        let has_ranges = [keyrange_dist_a, keyrange_dist_b, keyrange_dist_c, keyrange_dist_d]
            .iter()
            .any(|parameter| *parameter != 0.0);
        if a == 0.0 || b == 0.0 {
            return Keys::Uniform { num };
        }
        if !has_ranges {
            return Keys::Power { num, a, b };
        }
        let count = parameters.keyrange_num.clamp(1, num);
        let popularity = |range: u64| {
            let x = range as f64;
            let p =
                keyrange_dist_a * (keyrange_dist_b * x).exp() + keyrange_dist_c * (keyrange_dist_d * x).exp();
            if p < 1e-16 { 0.0 } else { p }
        };
        // A factor turns popularities into whole numbers; it maps the least popular range to one.
        let mut ranges: Vec<f64> = (1..=count).rev().map(popularity).collect();
        let least = ranges.iter().copied().find(|p| *p > 0.0).unwrap_or(1.0);
        let factor = (1.0 / least).floor() + 1.0;
        ranges.iter_mut().for_each(|p| *p = (*p * factor).floor());
        let sum: f64 = ranges.iter().sum();
        // Popular ranges must not be neighbours. Equal parameters lead to equal orders.
        Rng::with_seed(sum as u64).shuffle(&mut ranges);
        let mut end = 0;
        let ends = ranges
            .iter()
            .map(|p| {
                end += *p as u64;
                end
            })
            .collect();
        Keys::Ranges { ends, range_keys: num / count, a, b }
    }

    #[inline]
    fn next(&self, random: &mut Rng) -> u64 {
        match self {
            Keys::Uniform { num } => random.u64(..num),
            Keys::Power { num, a, b } => power_seed(random.f64(), *a, *b) % num,
            Keys::Ranges { ends, range_keys, a, b } => {
                let place = random.u64(..ends.last().copied().unwrap_or(1).max(1));
                let range = ends.partition_point(|end| *end <= place).min(ends.len() - 1) as u64;
                range * range_keys + power_seed(random.f64(), *a, *b) % range_keys
            }
        }
    }
}

/// The inverse of the power law at `uniform`, spread, so that popular keys are not neighbours.
#[inline]
fn power_seed(uniform: f64, a: f64, b: f64) -> u64 {
    spread((uniform / a).powf(1.0 / b).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parameters of "prefix_dist" in RocksDB's wiki, which model one of the paper's three
    /// databases.
    fn prefix_dist() -> Parameters {
        Parameters {
            num: 500_000,
            keyrange_dist_a: 14.18,
            keyrange_dist_b: -2.917,
            keyrange_dist_c: 0.0164,
            keyrange_dist_d: -0.08082,
            keyrange_num: 30,
            key_dist_a: 0.002312,
            key_dist_b: 0.3467,
            iter: Pareto { theta: 0.0, k: 0.0819, sigma: 0.8764 },
            mix_get_ratio: 0.83,
            mix_put_ratio: 0.14,
            mix_seek_ratio: 0.03,
            ..Parameters::default()
        }
    }

    #[test]
    fn the_mix_is_as_asked_and_sizes_are_pareto() {
        let mut requests = Requests::new(&prefix_dist());
        let mut random = Rng::with_seed(1);
        let (mut gets, mut puts, mut seeks, mut bytes, mut steps) = (0u32, 0u32, 0u32, 0usize, 0u64);
        for _ in 0..100_000 {
            match requests.next(&mut random) {
                Request::Get(key) => {
                    assert!(key < 500_000);
                    gets += 1;
                }
                Request::Put(_, size) => {
                    assert!(size <= 1024);
                    puts += 1;
                    bytes += size;
                }
                Request::Seek(_, length) => {
                    seeks += 1;
                    steps += length;
                }
            }
        }
        assert!(gets.abs_diff(83_000) < 700 && puts.abs_diff(14_000) < 600 && seeks.abs_diff(3_000) < 300);
        // The mean is sigma / (1 - k), and a little more since sizes are rounded up and at least
        // ten: 34.5 and 0.95 + 0.5.
        let mean_size = bytes as f64 / f64::from(puts);
        assert!((34.0..39.0).contains(&mean_size), "{mean_size}");
        let mean_steps = steps as f64 / f64::from(seeks);
        assert!((1.2..1.7).contains(&mean_steps), "{mean_steps}");
        let (reads, writes) = requests.shares();
        assert!((reads - 0.86).abs() < 1e-9 && (writes - 0.14).abs() < 1e-9);
    }

    #[test]
    fn few_key_ranges_get_most_requests() {
        let keys = Keys::new(&prefix_dist());
        let mut random = Rng::with_seed(2);
        let mut seen = [0u32; 30];
        (0..100_000).for_each(|_| seen[(keys.next(&mut random) / (500_000 / 30)) as usize % 30] += 1);
        seen.sort_unstable();
        // By the formula the first range has 0.782 of 0.989; less popular ones lose more by
        // rounding down.
        assert!((78_500..82_000).contains(&seen[29]), "{seen:?}");
        assert!(seen[0] > 0);
    }

    #[test]
    fn a_power_law_prefers_few_keys_and_no_law_none() {
        let most_popular = |parameters: &Parameters| {
            let keys = Keys::new(parameters);
            let mut random = Rng::with_seed(3);
            let mut seen = std::collections::HashMap::new();
            (0..50_000).for_each(|_| *seen.entry(keys.next(&mut random)).or_insert(0u32) += 1);
            seen.into_values().max().unwrap()
        };
        let mut parameters = Parameters { num: 500_000, ..Parameters::default() };
        assert!(most_popular(&parameters) < 8);
        (parameters.key_dist_a, parameters.key_dist_b) = (0.002312, 0.3467);
        // The law predicts the share a for the first key.
        let count = most_popular(&parameters);
        assert!((85..150).contains(&count), "{count}");
    }

    #[test]
    fn pareto_is_the_inverse_of_its_distribution() {
        let values = Pareto { theta: 0.0, k: 0.2615, sigma: 25.45 };
        // 1 - (1 + k x / sigma)^(-1/k) at x = 19.9 is 0.509.
        assert_eq!(values.at(1.0 - 0.509), 20);
        assert_eq!(Pareto { k: 0.0, ..values }.at(1.0), 0);
        assert_eq!(Pareto { k: 0.0, ..values }.at((-1.0f64).exp()), 26);
        assert_eq!(values.at(0.0), u64::MAX);
    }
}
