//! Latencies of an open loop: of the whole run and of each second, since users feel the worst
//! second.
use crate::histogram::Histogram;
use std::fmt;
use std::time::{Duration, Instant};

/// Latencies by the second in which the operation was due.
#[derive(Clone, Debug)]
pub struct Latencies {
    start: Instant,
    seconds: Vec<Histogram>,
}

/// The last second also counts all later ones.
const MOST_SECONDS: usize = 1 << 16;

impl Latencies {
    /// No operations; seconds begin at `start`.
    pub fn new(start: Instant) -> Latencies {
        Latencies { start, seconds: Vec::new() }
    }

    /// Counts one operation that was `due` and ends `now`.
    #[inline]
    pub fn record(&mut self, due: Instant, now: Instant) {
        let second = due.saturating_duration_since(self.start).as_secs() as usize;
        let second = second.min(MOST_SECONDS);
        if second >= self.seconds.len() {
            self.seconds.resize_with(second + 1, Histogram::new);
        }
        let nanos = now.saturating_duration_since(due).as_nanos();
        self.seconds[second].record(u64::try_from(nanos).unwrap_or(u64::MAX));
    }

    /// Adds the latencies of another thread with the same start.
    pub fn merge(&mut self, other: &Latencies) {
        if other.seconds.len() > self.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), Histogram::new);
        }
        self.seconds.iter_mut().zip(&other.seconds).for_each(|(mine, theirs)| mine.merge(theirs));
    }

    /// The latencies of all seconds.
    pub fn all(&self) -> Histogram {
        let mut all = Histogram::new();
        self.seconds.iter().for_each(|second| all.merge(second));
        all
    }

    /// The histograms of the seconds, in order.
    pub fn seconds(&self) -> &[Histogram] {
        &self.seconds
    }

    /// The second with the highest 99th percentile, if any operation was counted.
    pub fn worst_second(&self) -> Option<usize> {
        (0..self.seconds.len())
            .filter(|second| self.seconds[*second].count() > 0)
            .max_by(|a, b| self.seconds[*a].percentile(99.0).total_cmp(&self.seconds[*b].percentile(99.0)))
    }
}

/// Two lines, in microseconds: all operations, and those of the worst second.
impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, what: &str, latencies: &Histogram| {
            let micros = |percent| latencies.percentile(percent) / 1e3;
            writeln!(
                f,
                "{what:<24} P50: {:.2} P99: {:.2} P99.9: {:.2} Max: {:.2} ({} ops)",
                micros(50.0),
                micros(99.0),
                micros(99.9),
                Duration::from_nanos(latencies.max()).as_secs_f64() * 1e6,
                latencies.count(),
            )
        };
        line(f, "all seconds", &self.all())?;
        if let Some(second) = self.worst_second() {
            line(f, &format!("worst second ({second} to {})", second + 1), &self.seconds[second])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_those_of_the_intended_start_and_the_worst_is_found() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut first = Latencies::new(start);
        let mut second = Latencies::new(start);
        for milli in 0..1000 {
            first.record(at(milli), at(milli) + Duration::from_micros(5));
            // A stall of a second: the operations due in it end when it ends.
            second.record(at(2000 + milli), at(3000));
        }
        first.merge(&second);
        assert_eq!((first.seconds().len(), first.worst_second()), (3, Some(2)));
        let all = first.all();
        assert_eq!((all.count(), all.max(), all.min()), (2000, 1_000_000_000, 5_000));
        let text = first.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("all seconds              P50: 6.60 P99: "), "{text}");
        assert!(lines[1].starts_with("worst second (2 to 3)    P50: "), "{text}");
        assert!(lines[1].ends_with("Max: 1000000.00 (1000 ops)"), "{text}");
        assert_eq!(Latencies::new(start).worst_second(), None);
    }
}
