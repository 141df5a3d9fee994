//! Several runs of one benchmark (`fillseq[X5]`): averages, medians and the 95 % confidence
//! interval.
use super::Stats;
use std::fmt::Write as _;

/// The rates of the runs so far.
#[derive(Clone, Debug, Default)]
pub struct Combined {
    operations: Vec<f64>,
    megabytes: Vec<f64>,
}

impl Combined {
    /// Adds the result of one run.
    pub fn add(&mut self, stats: &Stats) {
        self.operations.push(stats.operations_per_second());
        self.megabytes.extend(stats.megabytes_per_second());
    }

    /// The line after every run but the first: the average so far.
    pub fn report(&self, name: &str) -> String {
        if self.operations.len() < 2 { String::new() } else { self.average(name, "AVG") }
    }

    /// The line after every run but the first, with `--confidence_interval_only`.
    pub fn report_interval(&self, name: &str) -> String {
        let runs = self.operations.len();
        if runs < 2 {
            return String::new();
        }
        let interval = |values: &[f64]| {
            let (mean, radius) = (mean(values), radius(values));
            (mean - radius, mean + radius)
        };
        let (low, high) = interval(&self.operations);
        let mut line = format!("{name} [CI95 {runs} runs] : ({}, {}) ops/sec", low as i64, high as i64);
        if self.moves_bytes() {
            let (low, high) = interval(&self.megabytes);
            let _ = write!(line, "; ({low:.1}, {high:.1}) MB/sec");
        }
        line + "\n"
    }

    /// The two lines after the last run: average and median.
    pub fn report_final(&self, name: &str) -> String {
        let runs = self.operations.len();
        if runs < 2 {
            return String::new();
        }
        let mut text = self.average(name, "AVG   ");
        let _ = write!(text, "{name} [MEDIAN {runs} runs] : {} ops/sec", median(&self.operations) as i64);
        if self.moves_bytes() {
            let _ = write!(text, "; {:6.1} MB/sec", median(&self.megabytes));
        }
        text + "\n"
    }

    fn average(&self, name: &str, word: &str) -> String {
        let runs = self.operations.len();
        let mut line = format!(
            "{name} [{word} {runs} runs] : {} (\u{b1} {}) ops/sec",
            mean(&self.operations) as i64,
            radius(&self.operations) as i64
        );
        if self.moves_bytes() {
            let _ = write!(
                line,
                "; {:6.1} (\u{b1} {:.1}) MB/sec",
                mean(&self.megabytes),
                radius(&self.megabytes)
            );
        }
        line + "\n"
    }

    fn moves_bytes(&self) -> bool {
        self.megabytes.len() == self.operations.len()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Half the width of the 95 % confidence interval of the mean, assuming normally distributed runs.
fn radius(values: &[f64]) -> f64 {
    let mean = mean(values);
    let variance =
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0);
    1.96 * (variance / values.len() as f64).sqrt()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_rocksdb() {
        let mut combined = Combined { operations: vec![100.0], megabytes: vec![1.0] };
        assert_eq!(combined.report("fillseq"), "");
        assert_eq!(combined.report_final("fillseq"), "");
        combined.operations.extend([200.0, 600.0]);
        combined.megabytes.extend([2.0, 6.0]);
        // Variance (200^2 + 100^2 + 300^2) / 2 = 70000; 1.96 * sqrt(70000 / 3) = 299.397.
        assert_eq!(
            combined.report("fillseq"),
            "fillseq [AVG 3 runs] : 300 (± 299) ops/sec;    3.0 (± 3.0) MB/sec\n"
        );
        assert_eq!(
            combined.report_interval("fillseq"),
            "fillseq [CI95 3 runs] : (0, 599) ops/sec; (0.0, 6.0) MB/sec\n"
        );
        assert_eq!(
            combined.report_final("fillseq"),
            "fillseq [AVG    3 runs] : 300 (± 299) ops/sec;    3.0 (± 3.0) MB/sec\n\
             fillseq [MEDIAN 3 runs] : 200 ops/sec;    2.0 MB/sec\n"
        );
        let combined = Combined { operations: vec![1.0, 3.0], megabytes: vec![] };
        assert_eq!(
            combined.report_final("compact"),
            "compact [AVG    2 runs] : 2 (± 1) ops/sec\ncompact [MEDIAN 2 runs] : 2 ops/sec\n"
        );
    }
}
