//! The result of a benchmark, and its lines of output.
//!
//! Every thread counts in its own [`Stats`]. At the end they are merged, and the sum prints the
//! line that scripts read: name, microseconds per operation, operations per second. The formats
//! equal those of RocksDB's `db_bench` to the letter, since many scripts parse them.
//!
//! Counting is part of the timed loop: without `--histogram` it costs an addition and a comparison
//! per operation.
pub mod combined;
pub mod header;
pub mod interval;
pub mod statistics;

use interval::Counter;
use sapwood_bench::histogram::Histogram;
use sapwood_bench::latency::Latencies;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The kind of operation of a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Point reads and steps of a scan.
    Read,
    /// Puts, single or in batches.
    Write,
    /// Puts of new keys.
    Insert,
    /// Deletes.
    Delete,
    /// Seeks, with the steps after them.
    Seek,
    /// Seeks with a fixed number of steps.
    Scan,
    /// A removal of the first entry.
    Pop,
    /// A read and a write of the same key.
    Update,
    /// Checksums (CRC).
    Crc,
    /// Hashes.
    Hash,
    /// Compressed blocks.
    Compress,
    /// Decompressed blocks.
    Uncompress,
    /// All others.
    Other,
}

impl Operation {
    const ALL: [Operation; 13] = [
        Operation::Read,
        Operation::Write,
        Operation::Insert,
        Operation::Delete,
        Operation::Seek,
        Operation::Scan,
        Operation::Pop,
        Operation::Update,
        Operation::Crc,
        Operation::Hash,
        Operation::Compress,
        Operation::Uncompress,
        Operation::Other,
    ];

    /// The word that follows "Microseconds per".
    fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Insert => "insert",
            Operation::Delete => "delete",
            Operation::Seek => "seek",
            Operation::Scan => "scan",
            Operation::Pop => "pop",
            Operation::Update => "update",
            Operation::Crc => "crc",
            Operation::Hash => "hash",
            Operation::Compress => "compress",
            Operation::Uncompress => "uncompress",
            Operation::Other => "op",
        }
    }
}

/// The progress reports of a running benchmark.
#[derive(Clone, Default)]
pub struct Progress {
    /// Whether the number of finished operations is shown.
    pub shown: bool,
    /// A line every so many operations; 0: at growing intervals, each line overwriting the last.
    pub every_operations: u64,
    /// A line every so many seconds; 0: never.
    pub every_seconds: u64,
    /// Called at each line of the first thread; prints the engine's statistics.
    pub each_line: Option<Arc<dyn Fn() + Send + Sync>>,
    /// With latencies: the latency from which an operation is reported as slow.
    pub slow: Option<Duration>,
}

/// Counters that a thread shares with others.
#[derive(Clone, Default)]
pub struct Counters {
    /// Its operations, for the report file.
    pub operations: Option<Arc<Counter>>,
    /// Its writes, for the engine's statistics.
    pub written: Option<Arc<Written>>,
}

/// The writes of one thread.
#[derive(Debug, Default)]
pub struct Written {
    /// The run of a benchmark to which the thread belongs.
    pub run: u64,
    /// Write operations.
    pub writes: AtomicU64,
    /// Bytes of keys and values.
    pub bytes: AtomicU64,
}

/// The counts of one thread, or of all.
#[derive(Clone)]
pub struct Stats {
    thread: usize,
    started: Instant,
    finished: Instant,
    /// The sum of the times of all threads.
    busy: Duration,
    done: u64,
    writes: u64,
    bytes: u64,
    /// Bytes of the written keys and values.
    written: u64,
    /// Reads that found their key, and all reads.
    found: Option<(u64, u64)>,
    message: String,
    /// Sums over all threads, and the function that formats them.
    tally: Option<Tally>,
    /// Whether the thread is a background thread, whose work is not part of the result.
    excluded: bool,
    progress: Progress,
    next_progress: u64,
    last_progress: (u64, Instant),
    /// Latencies in nanoseconds, by operation.
    histograms: Option<Box<[Histogram; Operation::ALL.len()]>>,
    last_finished: Instant,
    /// In an open loop, the time at which the running operation was due.
    due: Option<Instant>,
    latencies: Option<Box<Latencies>>,
    /// Whether the time ended before the schedule.
    out_of_time: bool,
    counters: Counters,
    /// Whether operations are observed, besides being counted.
    observed: bool,
}

/// See [`Stats::set_tally`].
#[derive(Clone, Debug)]
struct Tally {
    text: fn(&[u64]) -> String,
    numbers: Vec<u64>,
}

impl Stats {
    /// No operations; the time starts now.
    pub fn start(thread: usize, histogram: bool, progress: Progress, counters: Counters) -> Stats {
        let now = Instant::now();
        let next_progress = match &progress {
            Progress { shown: false, every_seconds: 0, every_operations: 0, .. } => u64::MAX,
            Progress { every_seconds: 1.., .. } => CLOCK_INTERVAL,
            Progress { every_operations: 0, .. } => 100,
            Progress { every_operations, .. } => *every_operations,
        };
        Stats {
            thread,
            started: now,
            finished: now,
            busy: Duration::ZERO,
            done: 0,
            writes: 0,
            bytes: 0,
            written: 0,
            found: None,
            message: String::new(),
            tally: None,
            excluded: false,
            observed: histogram || counters.operations.is_some() || progress.each_line.is_some(),
            progress,
            next_progress,
            last_progress: (0, now),
            histograms: histogram.then(|| Box::new([const { Histogram::new() }; Operation::ALL.len()])),
            last_finished: now,
            due: None,
            latencies: None,
            out_of_time: false,
            counters,
        }
    }

    /// Counts `operations` that have ended, and their latency if latencies are measured.
    #[inline]
    pub fn finish_operations(&mut self, operations: u64, operation: Operation) {
        self.done += operations;
        if matches!(
            operation,
            Operation::Write | Operation::Insert | Operation::Delete | Operation::Pop | Operation::Update
        ) {
            self.writes += operations;
        }
        if self.observed || self.due.is_some() {
            self.observe(operations, operation);
        }
        if self.done >= self.next_progress {
            self.show_progress();
        }
    }

    /// Adds to the bytes of the rate in MB/s.
    #[inline]
    pub fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Counts bytes of written keys and values, for the engine's statistics.
    #[inline]
    pub fn add_written(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Sets the text at the end of the line.
    pub fn set_message(&mut self, message: impl Into<String>) {
        self.message = message.into();
    }

    /// Begins an operation of an open loop with the given `start`; the operation was `due` at that
    /// time.
    #[inline]
    pub fn begin(&mut self, start: Instant, due: Instant) {
        self.due = Some(due);
        if self.latencies.is_none() {
            self.latencies = Some(Box::new(Latencies::new(start)));
        }
    }

    /// The latencies of an open loop.
    pub fn latencies(&self) -> Option<&Latencies> {
        self.latencies.as_deref()
    }

    /// Marks that the time of an open loop ended while operations were due.
    pub fn set_out_of_time(&mut self) {
        self.out_of_time = true;
    }

    /// Whether [`Stats::set_out_of_time`] was called, on any thread.
    pub fn out_of_time(&self) -> bool {
        self.out_of_time
    }

    /// Sets the text at the end of the line, formatted from sums over all threads.
    pub fn set_tally(&mut self, numbers: &[u64], text: fn(&[u64]) -> String) {
        self.tally = Some(Tally { text, numbers: numbers.to_vec() });
    }

    /// Sets the number of reads that found their key, and the number of reads; they are summed over
    /// all threads.
    pub fn set_found(&mut self, found: u64, reads: u64) {
        self.found = Some((found, reads));
    }

    /// Excludes this thread, a background thread of the benchmark, from the result.
    pub fn exclude(&mut self) {
        self.excluded = true;
    }

    /// Operations done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The writes among [`Stats::done`].
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Ends the time of this thread, unless it has ended: checks may follow.
    pub fn stop(&mut self) {
        if self.busy.is_zero() {
            self.finished = Instant::now();
            self.busy = self.finished - self.started;
            self.publish();
        }
    }

    /// Publishes the writes so far.
    fn publish(&self) {
        if let Some(written) = &self.counters.written {
            // Relaxed: readers need the numbers, not an order.
            written.writes.store(self.writes, Ordering::Relaxed);
            written.bytes.store(self.written, Ordering::Relaxed);
        }
    }

    /// The time at which the last thread ended.
    pub fn finished(&self) -> Instant {
        self.finished
    }

    /// Adds another thread, unless that is excluded.
    pub fn merge(&mut self, other: &Stats) {
        if other.excluded {
            return;
        }
        if self.excluded {
            *self = other.clone();
            return;
        }
        self.started = self.started.min(other.started);
        self.finished = self.finished.max(other.finished);
        self.busy += other.busy;
        self.done += other.done;
        self.writes += other.writes;
        self.bytes += other.bytes;
        self.out_of_time |= other.out_of_time;
        if let Some((found, reads)) = other.found {
            let (sum, all) = self.found.unwrap_or_default();
            self.found = Some((sum + found, all + reads));
        }
        if self.message.is_empty() {
            self.message.clone_from(&other.message);
        }
        match (&mut self.tally, &other.tally) {
            (Some(mine), Some(theirs)) => {
                mine.numbers.iter_mut().zip(&theirs.numbers).for_each(|(mine, theirs)| *mine += theirs);
            }
            (None, Some(theirs)) => self.tally = Some(theirs.clone()),
            _ => {}
        }
        match (&mut self.latencies, &other.latencies) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (None, Some(theirs)) => self.latencies = Some(theirs.clone()),
            _ => {}
        }
        if let (Some(mine), Some(theirs)) = (&mut self.histograms, &other.histograms) {
            mine.iter_mut().zip(theirs.iter()).for_each(|(mine, theirs)| mine.merge(theirs));
        }
    }

    /// Seconds from the first start to the last finish; never zero.
    pub fn elapsed_seconds(&self) -> f64 {
        (self.finished - self.started).as_secs_f64().max(1e-9)
    }

    /// Operations per second of all threads together.
    pub fn operations_per_second(&self) -> f64 {
        self.done.max(1) as f64 / self.elapsed_seconds()
    }

    /// Mebibytes per second of all threads together; `None` if the benchmark moves no bytes.
    pub fn megabytes_per_second(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.bytes as f64 / 1_048_576.0 / self.elapsed_seconds())
    }

    /// The result: its line, and the latencies if they are measured.
    ///
    /// `micros/op` is the time of all threads divided by all operations. With more than one thread
    /// it is not the inverse of `ops/sec`, which is computed from the elapsed time. RocksDB does
    /// the same.
    pub fn report(&self, name: &str) -> String {
        // A benchmark without operations counts as one operation, so that the rate is defined.
        let done = self.done.max(1);
        let mut extra = String::new();
        if let Some(rate) = self.megabytes_per_second() {
            let _ = write!(extra, " {rate:6.1} MB/s");
        }
        if let Some((found, reads)) = self.found {
            let _ = write!(extra, " ({found} of {reads} found)");
        }
        if let Some(Tally { text, numbers }) = &self.tally {
            let _ = write!(extra, " {}", text(numbers));
        }
        if !self.message.is_empty() {
            let _ = write!(extra, " {}", self.message);
        }
        let mut text = format!(
            "{name:<12} : {:11.3} micros/op {} ops/sec {:.3} seconds {done} operations;{extra}\n",
            self.busy.as_secs_f64() * 1e6 / done as f64,
            self.operations_per_second() as i64,
            self.elapsed_seconds(),
        );
        for (histogram, operation) in self.histograms.iter().flat_map(|all| all.iter()).zip(Operation::ALL) {
            if histogram.count() > 0 {
                let _ = write!(text, "Microseconds per {}:\n{}\n", operation.name(), histogram.thousandths());
            }
        }
        text
    }

    #[inline(never)]
    fn observe(&mut self, operations: u64, operation: Operation) {
        let due = self.due.take();
        if self.histograms.is_some() || due.is_some() {
            let now = Instant::now();
            if let (Some(due), Some(latencies)) = (due, &mut self.latencies) {
                latencies.record(due, now);
            }
            if let Some(histograms) = &mut self.histograms {
                let latency = now.saturating_duration_since(due.unwrap_or(self.last_finished));
                histograms[operation as usize].record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
                if self.progress.slow.is_some_and(|slow| latency >= slow) {
                    eprintln!("long op: {} micros{:30}", latency.as_micros(), "");
                }
            }
            self.last_finished = now;
        }
        if let Some(counter) = &self.counters.operations {
            counter.add(operations);
        }
        if self.progress.each_line.is_some() {
            self.publish();
        }
    }

    #[cold]
    fn show_progress(&mut self) {
        let Progress { shown, every_operations, every_seconds, .. } = self.progress;
        let now = Instant::now();
        let (last_done, last_time) = self.last_progress;
        if every_seconds > 0 {
            self.next_progress = self.done + CLOCK_INTERVAL;
            if now - last_time < Duration::from_secs(every_seconds) {
                return;
            }
        } else if every_operations > 0 {
            self.next_progress = self.done + every_operations;
        } else {
            self.next_progress = self.done + progress_step(self.done);
            if shown {
                eprint!("... finished {} ops{:30}\r", self.done, "");
            }
            return;
        }
        self.publish();
        let seconds = |since: Instant| (now - since).as_secs_f64().max(1e-9);
        let interval = self.done - last_done;
        eprintln!(
            "{} ... thread {}: ({interval},{}) ops and ({:.1},{:.1}) ops/second in ({:.6},{:.6}) seconds",
            header::time_of_day(),
            self.thread,
            self.done,
            interval as f64 / seconds(last_time),
            self.done as f64 / seconds(self.started),
            seconds(last_time),
            seconds(self.started),
        );
        self.last_progress = (self.done, now);
        if self.thread == 0
            && let Some(each_line) = &self.progress.each_line
        {
            each_line();
        }
        // Printing is not part of the next operation's latency.
        self.last_finished = Instant::now();
    }
}

/// With a progress line every so many seconds, the clock is read after so many operations.
const CLOCK_INTERVAL: u64 = 1000;

/// Number of operations until the next progress line: about a tenth of `done`, and at most a
/// hundred thousand.
fn progress_step(done: u64) -> u64 {
    match done {
        0..1_000 => 100,
        1_000..5_000 => 500,
        5_000..10_000 => 1_000,
        10_000..50_000 => 5_000,
        50_000..100_000 => 10_000,
        100_000..500_000 => 50_000,
        _ => 100_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that ran from `from` to `to` seconds.
    fn thread(base: Instant, from: u64, to: u64, done: u64) -> Stats {
        let mut stats = Stats::start(0, false, Progress::default(), Counters::default());
        stats.started = base + Duration::from_secs(from);
        stats.finished = base + Duration::from_secs(to);
        stats.busy = stats.finished - stats.started;
        stats.done = done;
        stats
    }

    /// The operations per second, extracted as in RocksDB's regression script:
    /// `<name>[[:blank:]]+:.*[[:blank:]]+([0-9.]+)[[:blank:]]+ops/sec`.
    fn operations_per_second(name: &str, line: &str) -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let trimmed = rest.trim_start_matches([' ', '\t']);
        if trimmed.len() == rest.len() {
            return None;
        }
        let words: Vec<&str> = trimmed.strip_prefix(':')?.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "ops/sec")?;
        words[at - 1].parse().ok()
    }

    #[test]
    fn the_result_line_is_that_of_rocksdb() {
        let base = Instant::now();
        let mut stats = thread(base, 0, 8, 1_000_000);
        stats.set_found(981_548, 1_000_000);
        stats.add_bytes(8 * 1_048_576 * 50);
        let line = stats.report("readrandom");
        assert_eq!(
            line,
            "readrandom   :       8.000 micros/op 125000 ops/sec 8.000 seconds 1000000 operations;   50.0 MB/s \
             (981548 of 1000000 found)\n"
        );
        assert_eq!(operations_per_second("readrandom", &line), Some(125_000.0));
        let line = thread(base, 0, 1, 0).report("compact");
        assert_eq!(line, "compact      : 1000000.000 micros/op 1 ops/sec 1.000 seconds 1 operations;\n");
        // LevelDB's script reads the rate from the word after "operations;".
        let words: Vec<String> = stats.report("a").split_whitespace().map(str::to_owned).collect();
        assert_eq!(words[words.iter().position(|word| word == "operations;").unwrap() + 1], "50.0");
    }

    #[test]
    fn threads_are_merged_by_wall_time_and_background_threads_left_out() {
        let base = Instant::now();
        let mut background = thread(base, 0, 9, 77);
        background.exclude();
        let mut all = background.clone();
        let mut first = thread(base, 1, 3, 10);
        first.set_found(1, 2);
        let mut second = thread(base, 2, 5, 30);
        second.set_found(3, 4);
        second.set_message("second");
        let sum: fn(&[u64]) -> String = |numbers| format!("( a:{} b:{})", numbers[0], numbers[1]);
        first.set_tally(&[1, 10], sum);
        second.set_tally(&[2, 20], sum);
        for stats in [&first, &second, &background] {
            all.merge(stats);
        }
        assert_eq!(
            all.report("x"),
            "x            :  125000.000 micros/op 10 ops/sec 4.000 seconds 40 operations; (4 of 6 found) ( a:3 b:30) second\n"
        );
    }

    #[test]
    fn histograms_follow_the_line() {
        let mut stats = Stats::start(0, true, Progress::default(), Counters::default());
        (0..100).for_each(|_| stats.finish_operations(1, Operation::Read));
        stats.finish_operations(5, Operation::Write);
        stats.stop();
        assert_eq!((stats.done(), stats.writes()), (105, 5));
        let text = stats.report("mixed");
        assert!(text.contains("\nMicroseconds per read:\nCount: 100 Average: "));
        assert!(text.contains("\nMicroseconds per write:\nCount: 1 Average: "));
        let line = text.lines().find(|line| line.starts_with("Percentiles:")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            [words[1], words[3], words[5], words[7], words[9]],
            ["P50:", "P75:", "P99:", "P99.9:", "P99.99:"]
        );
        assert!([2, 4, 6, 8, 10].iter().all(|&at| words[at].parse::<f64>().is_ok()));
        assert!(text.contains("------------------------------------------------------\n"));
    }

    #[test]
    fn progress_comes_less_and_less_often() {
        let mut at = 0;
        let mut shown = 0;
        while at < 1_000_000 {
            at += progress_step(at);
            shown += 1;
        }
        assert_eq!((at, shown), (1_000_000, 10 + 8 + 5 + 8 + 5 + 8 + 5));
    }
}
