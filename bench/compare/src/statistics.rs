//! Ratios of paired measurements, with confidence intervals.
//!
//! In every round two engines run one after the other, so that a slow minute of the machine affects
//! both. The ratio of a round is one sample; logarithms of ratios are averaged, and the
//! interval is Student's t. With three rounds it is wide.

/// A ratio and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The geometric mean.
    pub mean: f64,
    /// The interval; `None` with fewer than two pairs.
    pub interval: Option<(f64, f64)>,
}

impl Ratio {
    /// The ratio of the first to the second numbers of the pairs. `None` without pairs of positive
    /// numbers.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Ratio> {
        let logs: Vec<f64> =
            pairs.iter().filter(|(a, b)| *a > 0.0 && *b > 0.0).map(|(a, b)| (a / b).ln()).collect();
        if logs.is_empty() {
            return None;
        }
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let interval = (logs.len() > 1).then(|| {
            let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
            let half = quantile(logs.len() - 1) * (variance / count).sqrt();
            ((mean - half).exp(), (mean + half).exp())
        });
        Some(Ratio { mean: mean.exp(), interval })
    }

    /// Whether the first is better, within the interval; for numbers of which more is better.
    pub fn verdict(&self) -> Verdict {
        match self.interval {
            Some((low, _)) if low > 1.0 => Verdict::Better,
            Some((_, high)) if high < 1.0 => Verdict::Worse,
            _ => Verdict::Open,
        }
    }
}

/// The conclusion from an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it lies above 1.
    Better,
    /// All of it lies below 1.
    Worse,
    /// It includes 1.
    Open,
}

/// The geometric mean of positive numbers.
pub fn geometric_mean(numbers: &[f64]) -> Option<f64> {
    let logs: Vec<f64> = numbers.iter().filter(|number| **number > 0.0).map(|number| number.ln()).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// Student's t: the 97.5 % quantile with so many degrees of freedom.
fn quantile(degrees: usize) -> f64 {
    const TABLE: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    TABLE.get(degrees.wrapping_sub(1)).copied().unwrap_or(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pairs_leave_no_interval_and_noisy_ones_a_wide_one() {
        let ratio = Ratio::of(&[(4.0, 2.0), (8.0, 4.0), (2.0, 1.0)]).unwrap();
        let (low, high) = ratio.interval.unwrap();
        assert!((ratio.mean - 2.0).abs() < 1e-9 && (high - low).abs() < 1e-9);
        assert_eq!(ratio.verdict(), Verdict::Better);
        let ratio = Ratio::of(&[(1.0, 1.0), (2.0, 1.0), (1.0, 2.0)]).unwrap();
        let (low, high) = ratio.interval.unwrap();
        assert!((ratio.mean - 1.0).abs() < 1e-9);
        // The logarithms are 0 and ±0.693: deviation 0.693, t 4.303, divided by the root of 3.
        assert!((high.ln() - 4.303 * std::f64::consts::LN_2 / 3f64.sqrt()).abs() < 1e-9 && low < 1.0);
        assert_eq!(ratio.verdict(), Verdict::Open);
        assert_eq!(Ratio::of(&[(1.0, 2.0)]).unwrap().interval, None);
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[(1.0, 2.0), (1.01, 2.0), (0.99, 2.0)]).unwrap().verdict(), Verdict::Worse);
        assert_eq!(geometric_mean(&[1.0, 4.0]), Some(2.0));
    }
}
