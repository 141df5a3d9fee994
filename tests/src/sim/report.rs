//! The report of a seed, the sum over a campaign, and their output.
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The outcome of one seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeedReport {
    /// The amount of work, in the order of the sub-command's words.
    pub counts: Vec<u64>,
    /// The violations, each with everything that is needed to examine it, including the replay
    /// command.
    pub violations: Vec<String>,
}

impl SeedReport {
    /// A line for the process that started this one.
    pub fn to_line(&self, seed: u64) -> String {
        let counts: Vec<String> = self.counts.iter().map(u64::to_string).collect();
        let mut line = format!("done {seed} {}", counts.join(","));
        for violation in &self.violations {
            line += &format!("\t{}", violation.escape_debug());
        }
        line
    }

    /// Reads [`SeedReport::to_line`].
    pub fn from_line(line: &str) -> Option<(u64, SeedReport)> {
        let mut parts = line.strip_prefix("done ")?.split('\t');
        let (seed, counts) = parts.next()?.split_once(' ')?;
        let counts = counts.split(',').filter(|count| !count.is_empty()).map(|count| count.parse().ok());
        let counts: Option<Vec<u64>> = counts.collect();
        Some((seed.parse().ok()?, SeedReport { counts: counts?, violations: parts.map(unescape).collect() }))
    }
}

/// Reverses `escape_debug`, as far as it matters for reading.
fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => result.push('\n'),
                Some('t') => result.push('\t'),
                Some('u') => result.push_str("\\u"),
                Some(other) => result.push(other),
                None => {}
            },
            other => result.push(other),
        }
    }
    result
}

/// The number of violations that are printed in full; the others are counted.
const SHOWN: u64 = 10;

/// The sum over the seeds of a campaign, printed while it grows.
pub struct Tally {
    name: &'static str,
    words: &'static [&'static str],
    counts: Vec<u64>,
    seeds: u64,
    violations: u64,
    start: Instant,
    shown: Instant,
}

impl Tally {
    /// A tally of the sub-command `name`, which counts `words`.
    #[allow(clippy::disallowed_methods, reason = "speed is measured in real time")]
    pub fn new(name: &'static str, words: &'static [&'static str]) -> Tally {
        let now = Instant::now();
        Tally { name, words, counts: vec![0; words.len()], seeds: 0, violations: 0, start: now, shown: now }
    }

    /// Adds a seed; prints its violations.
    pub fn add(&mut self, report: &SeedReport) {
        self.seeds += 1;
        self.counts.iter_mut().zip(&report.counts).for_each(|(sum, count)| *sum += count);
        for violation in &report.violations {
            self.violations += 1;
            if self.violations <= SHOWN {
                self.clear_line();
                eprintln!("VIOLATION {violation}");
            }
        }
        self.show();
    }

    /// Violations so far.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Updates the progress line: every second, or every ten on an output that is no terminal.
    #[allow(clippy::disallowed_methods, reason = "speed is measured in real time")]
    fn show(&mut self) {
        let terminal = std::io::stderr().is_terminal();
        let every = Duration::from_secs(if terminal { 1 } else { 10 });
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let seconds = self.elapsed().as_secs_f64();
        let done = self.counts.first().copied().unwrap_or(self.seeds) as f64;
        let word = self.words.first().copied().unwrap_or("seeds");
        let line = format!("{}, {:.0} {word}/s", self.summary(), done / seconds);
        if terminal {
            eprint!("\r\x1B[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn clear_line(&self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1B[K");
        }
    }

    /// `crash: 31204 states, 3310 nested, 112 seeds, 0 violations, 74.2 s`.
    pub fn summary(&self) -> String {
        let mut text = format!("{}: ", self.name);
        for (count, word) in self.counts.iter().zip(self.words) {
            text += &format!("{count} {word}, ");
        }
        let seconds = self.elapsed().as_secs_f64();
        text + &format!("{} seeds, {} violations, {seconds:.1} s", self.seeds, self.violations)
    }

    /// Prints the last line.
    pub fn finish(&self) {
        self.clear_line();
        println!("{}", self.summary());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_travel_between_processes() {
        let report = SeedReport {
            counts: vec![31, 4],
            violations: vec!["O2: \"a\\n\"\n  is\tgone".to_string(), "hang".to_string()],
        };
        assert_eq!(SeedReport::from_line(&report.to_line(7)), Some((7, report)));
        assert_eq!(SeedReport::from_line("done 7 "), Some((7, SeedReport::default())));
        assert_eq!(SeedReport::from_line("done x 1"), None);
    }

    #[test]
    fn the_summary_has_a_fixed_form() {
        let mut tally = Tally::new("crash", &["states", "nested"]);
        tally.add(&SeedReport { counts: vec![3, 1], violations: Vec::new() });
        assert!(tally.summary().starts_with("crash: 3 states, 1 nested, 1 seeds, 0 violations, "));
    }
}
