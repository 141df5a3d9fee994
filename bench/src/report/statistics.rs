//! The `stats` benchmark: the engine's figures in RocksDB's lines, which `benchmark.sh` parses.
//!
//! The columns are those before RocksDB added one for pre-compressed bytes, since the scripts count
//! them. A figure that the engine does not measure is a dash, not a zero.
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Sums since the database was opened or the sums were reset, and the current levels.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The time of the sums.
    pub uptime: Duration,
    /// Write operations of the benchmarks.
    pub writes: u64,
    /// Bytes of keys and values written by the benchmarks, with or without the log.
    pub ingest_bytes: u64,
    /// The maximum number of threads that wrote at the same time.
    pub writers: u32,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Number of flushes.
    pub flushes: u64,
    /// Bytes written by flushes.
    pub flush_bytes: u64,
    /// Number of compactions.
    pub compactions: u64,
    /// Bytes read by compactions.
    pub compaction_bytes_read: u64,
    /// Bytes written by compactions.
    pub compaction_bytes_written: u64,
    /// Bytes moved as whole files.
    pub compaction_bytes_moved: u64,
    /// Time in which writers were delayed for compaction debt.
    pub stalled_by_debt: Duration,
    /// Time in which writers waited for a memtable.
    pub stalled_by_memtables: Duration,
    /// Number of these waits.
    pub memtable_waits: u64,
    /// Blocks read from files.
    pub cache_misses: u64,
    /// Blocks found in the cache, if the engine counts them.
    pub cache_hits: u64,
    /// The nonempty levels, newest first.
    pub levels: Vec<Level>,
}

/// The contents of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Its number; 0 is the newest.
    pub level: u8,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Figures {
    /// The increments since `earlier`; the levels are the current ones.
    pub fn since(self, earlier: &Figures) -> Figures {
        Figures {
            uptime: self.uptime.saturating_sub(earlier.uptime),
            writes: self.writes.saturating_sub(earlier.writes),
            ingest_bytes: self.ingest_bytes.saturating_sub(earlier.ingest_bytes),
            writers: self.writers,
            log_bytes: self.log_bytes.saturating_sub(earlier.log_bytes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
            flush_bytes: self.flush_bytes.saturating_sub(earlier.flush_bytes),
            compactions: self.compactions.saturating_sub(earlier.compactions),
            compaction_bytes_read: self.compaction_bytes_read.saturating_sub(earlier.compaction_bytes_read),
            compaction_bytes_written: self
                .compaction_bytes_written
                .saturating_sub(earlier.compaction_bytes_written),
            compaction_bytes_moved: self
                .compaction_bytes_moved
                .saturating_sub(earlier.compaction_bytes_moved),
            stalled_by_debt: self.stalled_by_debt.saturating_sub(earlier.stalled_by_debt),
            stalled_by_memtables: self.stalled_by_memtables.saturating_sub(earlier.stalled_by_memtables),
            memtable_waits: self.memtable_waits.saturating_sub(earlier.memtable_waits),
            cache_misses: self.cache_misses.saturating_sub(earlier.cache_misses),
            cache_hits: self.cache_hits.saturating_sub(earlier.cache_hits),
            levels: self.levels,
        }
    }

    /// The counters of `--statistics`, one per line, in RocksDB's form: `name COUNT : number`.
    pub fn counters(&self) -> String {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut text = String::new();
        for (name, count) in [
            ("block.cache.miss", self.cache_misses),
            ("block.cache.hit", self.cache_hits),
            ("number.keys.written", self.writes),
            ("bytes.written", self.ingest_bytes),
            ("wal.bytes", self.log_bytes),
            ("flush.count", self.flushes),
            ("flush.write.bytes", self.flush_bytes),
            ("compact.count", self.compactions),
            ("compact.read.bytes", self.compaction_bytes_read),
            ("compact.write.bytes", self.compaction_bytes_written),
            ("compact.moved.bytes", self.compaction_bytes_moved),
            ("stall.memtable.count", self.memtable_waits),
            ("stall.micros", micros(self.stalled_by_debt + self.stalled_by_memtables)),
        ] {
            let _ = writeln!(text, "sapwood.{name} COUNT : {count}");
        }
        text
    }

    /// The time for which a writer was delayed, and its share in percent.
    ///
    /// The engine counts the time of each thread. The same cause delays all threads, so their mean
    /// corresponds to wall-clock time; the sum can exceed it.
    fn stall(&self) -> (Duration, f64) {
        let stalled = (self.stalled_by_debt + self.stalled_by_memtables) / self.writers.max(1);
        let stalled = stalled.min(self.uptime);
        (stalled, 100.0 * stalled.as_secs_f64() / self.uptime.as_secs_f64().max(1e-3))
    }

    /// Bytes that flushes and compactions wrote, per byte flushed.
    fn write_amplification(&self) -> f64 {
        (self.flush_bytes + self.compaction_bytes_written) as f64 / self.flush_bytes.max(1) as f64
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `00:00:01.250 H:M:S`
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03} H:M:S", seconds % 60, time.subsec_millis())
}

/// `%6d/%-3d %8s`: files, of which none is in a compaction, and their size.
fn files_and_size(files: u64, bytes: u64) -> String {
    let size = if bytes >= 10 << 30 {
        format!("{:.2} GB", gigabytes(bytes))
    } else {
        format!("{:.2} MB", megabytes(bytes))
    };
    format!("{files:>6}/{:<3} {size:>8}", 0)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.uptime.as_secs_f64().max(1e-3);
        writeln!(f, "\n** Compaction Stats [default] **")?;
        writeln!(
            f,
            "Level    Files   Size     Score Read(GB)  Rn(GB) Rnp1(GB) Write(GB) Wnew(GB) Moved(GB) W-Amp \
             Rd(MB/s) Wr(MB/s) Comp(sec) CompMergeCPU(sec) Comp(cnt) Avg(sec) KeyIn KeyDrop Rblob(GB) Wblob(GB)"
        )?;
        writeln!(f, "{}", "-".repeat(190))?;
        for level in &self.levels {
            let name = format!("L{}", level.level);
            write!(f, "{name:>4} {} {:>5}", files_and_size(level.files, level.bytes), "-")?;
            for width in [8, 7, 8, 9, 8, 9, 5, 8, 8, 9, 17, 9, 8, 5, 7, 9, 9] {
                write!(f, " {:>width$}", "-")?;
            }
            writeln!(f)?;
        }
        let files = self.levels.iter().map(|level| level.files).sum();
        let bytes = self.levels.iter().map(|level| level.bytes).sum();
        let written = self.flush_bytes + self.compaction_bytes_written;
        writeln!(
            f,
            "{:>4} {} {:>5} {:8.1} {:>7} {:>8} {:9.1} {:>8} {:9.1} {:5.1} {:8.1} {:8.1} {:>9} {:>17} {:9} {:>8} {:>5} \
             {:>7} {:9.1} {:9.1}",
            " Sum",
            files_and_size(files, bytes),
            "-",
            gigabytes(self.compaction_bytes_read),
            "-",
            "-",
            gigabytes(written),
            "-",
            gigabytes(self.compaction_bytes_moved),
            self.write_amplification(),
            megabytes(self.compaction_bytes_read) / seconds,
            megabytes(written) / seconds,
            "-",
            "-",
            self.flushes + self.compactions,
            "-",
            "-",
            "-",
            0.0,
            0.0,
        )?;
        writeln!(f)?;
        writeln!(f, "Blob file count: 0, total size: 0.0 GB, garbage size: 0.0 GB, space amp: 0.0")?;
        writeln!(f)?;
        writeln!(f, "Uptime(secs): {seconds:.1} total, {seconds:.1} interval")?;
        let flushed = gigabytes(self.flush_bytes);
        writeln!(f, "Flush(GB): cumulative {flushed:.3}, interval {flushed:.3}")?;
        writeln!(
            f,
            "Cumulative compaction: {:.2} GB write, {:.2} MB/s write, {:.2} GB read, {:.2} MB/s read, - seconds",
            gigabytes(written),
            megabytes(written) / seconds,
            gigabytes(self.compaction_bytes_read),
            megabytes(self.compaction_bytes_read) / seconds,
        )?;
        // Old and new scripts read different lines.
        let waits = self.memtable_waits;
        writeln!(
            f,
            "Stalls(count): {waits} memtable_compaction, 0 level0_slowdown, 0 pending_compaction_bytes"
        )?;
        writeln!(f, "Write Stall (count): memtable-limit-stops: {waits}, total-stops: {waits}")?;
        writeln!(f, "\n** DB Stats **")?;
        writeln!(
            f,
            "Cumulative writes: {} writes, {} keys, - commit groups, - writes per commit group, ingest: {:.2} GB, \
             {:.2} MB/s",
            self.writes,
            self.writes,
            gigabytes(self.ingest_bytes),
            megabytes(self.ingest_bytes) / seconds,
        )?;
        // A log with all writes is larger than their keys and values; otherwise the writes were not
        // logged.
        let logged = if self.log_bytes < self.ingest_bytes { 0 } else { self.writes };
        writeln!(f, "Cumulative WAL: {logged} writes, written: {:.2} GB", gigabytes(self.log_bytes))?;
        let (stalled, percent) = self.stall();
        writeln!(f, "Cumulative stall: {}, {percent:.1} percent", clock(stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            uptime: Duration::from_secs(100),
            writes: 1000,
            ingest_bytes: 3 << 30,
            writers: 1,
            log_bytes: 4 << 30,
            flushes: 4,
            flush_bytes: 2 << 30,
            compactions: 6,
            compaction_bytes_read: 5 << 30,
            compaction_bytes_written: 4 << 30,
            stalled_by_debt: Duration::from_millis(1_250),
            memtable_waits: 7,
            levels: vec![
                Level { level: 0, files: 3, bytes: 5 << 20 },
                Level { level: 6, files: 2, bytes: 1 << 20 },
            ],
            ..Figures::default()
        }
    }

    #[test]
    fn the_lines_that_scripts_look_for_are_there() {
        let text = figures().to_string();
        let line = |start: &str| {
            let found = text.lines().find(|line| line.starts_with(start));
            found.unwrap_or_else(|| panic!("no line starts with {start:?} in\n{text}")).to_owned()
        };
        assert_eq!(line("Uptime(secs):"), "Uptime(secs): 100.0 total, 100.0 interval");
        assert!(line("Cumulative writes:").contains("ingest: 3.00 GB, 30.72 MB/s"));
        assert_eq!(line("Cumulative stall:"), "Cumulative stall: 00:00:01.250 H:M:S, 1.2 percent");
        assert!(
            line("Cumulative compaction:")
                .starts_with("Cumulative compaction: 6.00 GB write, 61.44 MB/s write, ")
        );
        assert_eq!(line("Flush(GB):"), "Flush(GB): cumulative 2.000, interval 2.000");
        assert!(line("Stalls(count):").contains(" 7 "));
        line("** Compaction Stats [default] **");
        line("Blob file count:");
        // The fields of awk: Sum is 1, files 2, size 3 and its unit 4, then one per column.
        let sum: Vec<String> = line(" Sum").split_whitespace().map(str::to_owned).collect();
        assert_eq!((sum[1].as_str(), sum[2].as_str(), sum[3].as_str()), ("5/0", "6.00", "MB"));
        assert_eq!((sum[5].as_str(), sum[8].as_str(), sum[11].as_str()), ("5.0", "6.0", "3.0"));
        assert_eq!(sum.len(), 22);
        assert_eq!(line("  L6").split_whitespace().count(), 22);
    }

    #[test]
    fn a_stall_is_that_of_a_writer_and_never_longer_than_the_time() {
        let line = |writers, millis| {
            let figures = Figures { writers, stalled_by_debt: Duration::from_millis(millis), ..figures() };
            figures.to_string().lines().find(|line| line.starts_with("Cumulative stall")).unwrap().to_owned()
        };
        // 64 threads that wait for 40 seconds each have waited for 2560 seconds in a run of a
        // hundred.
        assert_eq!(line(64, 2_560_000), "Cumulative stall: 00:00:40.000 H:M:S, 40.0 percent");
        assert_eq!(line(0, 2_560_000), "Cumulative stall: 00:01:40.000 H:M:S, 100.0 percent");
        let text = Figures { log_bytes: 0, ..figures() }.to_string();
        assert!(text.contains("ingest: 3.00 GB") && text.contains("Cumulative WAL: 0 writes"), "{text}");
    }

    #[test]
    fn counters_are_a_line_each() {
        let text = figures().counters();
        assert!(text.contains("\nsapwood.flush.write.bytes COUNT : 2147483648\n"), "{text}");
        assert!(text.ends_with("sapwood.stall.micros COUNT : 1250000\n"));
    }

    #[test]
    fn differences_leave_the_levels() {
        let reset = figures();
        let mut later = figures();
        later.writes += 5;
        later.levels.pop();
        let difference = later.since(&reset);
        assert_eq!((difference.writes, difference.flushes, difference.levels.len()), (5, 0, 1));
    }
}
