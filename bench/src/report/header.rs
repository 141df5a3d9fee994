//! The lines before the first benchmark: the machine on stderr, the workload on stdout.
use crate::flags::Flags;
use sapwood_bench::process;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Version, date and processor, as lines for stderr. Scripts read the run's date from the second.
pub fn environment() -> String {
    let (count, name) = process::processor();
    let mut text = format!("Sapwood:    version {}\n", env!("CARGO_PKG_VERSION"));
    // Scripts read the version from the line with this beginning.
    let _ = writeln!(text, "RocksDB:    version {}", version());
    let _ = writeln!(text, "Date:       {}", date(seconds_since_epoch()));
    let _ = writeln!(text, "CPU:        {count} * {name}");
    let cache = process::processor_cache();
    if !cache.is_empty() {
        let _ = writeln!(text, "CPUCache:   {}", cache.replace('K', " KB"));
    }
    text
}

/// Name and version in one word, at the place of RocksDB's.
pub fn version() -> String {
    format!("Sapwood-{}", env!("CARGO_PKG_VERSION"))
}

/// The commit of the build, if `SAPWOOD_GIT_SHA` was set for it.
pub fn commit() -> &'static str {
    option_env!("SAPWOOD_GIT_SHA").unwrap_or("unknown")
}

/// The output of `--build_info`.
pub fn build_info() -> String {
    format!(
        "Sapwood {}\n  commit: {}\n  profile: {}\n  target: {} {}, {} bits\n",
        env!("CARGO_PKG_VERSION"),
        commit(),
        if cfg!(debug_assertions) { "debug" } else { "release" },
        std::env::consts::ARCH,
        std::env::consts::OS,
        usize::BITS,
    )
}

/// The workload, as lines for stdout.
pub fn workload(flags: &Flags) -> String {
    let (num, key_size, value_size) = (flags.num as f64, flags.key_size as f64, flags.value_size as f64);
    let ratio = flags.compression_ratio;
    let mut text = String::new();
    let _ = writeln!(text, "Keys:       {} bytes each (+ 0 bytes user-defined timestamp)", flags.key_size);
    if flags.value_size_distribution_type == "fixed" {
        let compressed = (value_size * ratio + 0.5) as i64;
        let _ = writeln!(
            text,
            "Values:     {} bytes each ({compressed} bytes after compression)",
            flags.value_size
        );
    } else {
        let (least, most) = (flags.value_size_min, flags.value_size_max);
        let _ = writeln!(text, "Values:     {least} to {most} bytes, {}", flags.value_size_distribution_type);
    }
    let _ = writeln!(text, "Entries:    {}", flags.num);
    let _ = writeln!(text, "Prefix:    {} bytes", flags.prefix_size);
    let _ = writeln!(text, "Keys per prefix:    {}", flags.keys_per_prefix);
    let megabytes = |bytes: f64| bytes / 1_048_576.0;
    let _ = writeln!(text, "RawSize:    {:.1} MB (estimated)", megabytes((key_size + value_size) * num));
    let _ =
        writeln!(text, "FileSize:   {:.1} MB (estimated)", megabytes((key_size + value_size * ratio) * num));
    let _ = writeln!(text, "Write rate: {} bytes/second", flags.benchmark_write_rate_limit);
    let _ = writeln!(text, "Read rate: {} ops/second", flags.benchmark_read_rate_limit);
    let _ = writeln!(text, "Compression: {}", flags.compression_type);
    let _ = writeln!(text, "Compression sampling rate: 0");
    let _ = writeln!(text, "Memtablerep: UnrolledSkipList");
    let _ = writeln!(text, "Perf Level: 1");
    if let Some(used) = flags.codec_in_place() {
        let asked = &flags.compression_type;
        let _ = writeln!(text, "WARNING: using {used} compression in place of {asked}");
    }
    if cfg!(debug_assertions) {
        let _ = writeln!(text, "WARNING: Assertions are enabled; benchmarks unnecessarily slow");
    }
    let _ = writeln!(text, "------------------------------------------------");
    text
}

/// The time of day (UTC) at the start of progress lines: `2026/11/20-23:45:34`.
pub fn time_of_day() -> String {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::new(seconds_since_epoch());
    format!("{year:04}/{month:02}/{day:02}-{hour:02}:{minute:02}:{second:02}")
}

/// A date in the format of C's `asctime`, in UTC: `Fri Nov 20 23:45:34 2026`.
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Civil { year, month, day, hour, minute, second, weekday } = Civil::new(seconds);
    let (weekday, month) = (DAYS[weekday], MONTHS[month - 1]);
    format!("{weekday} {month} {day:>2} {hour:02}:{minute:02}:{second:02} {year}")
}

/// A moment in the Gregorian calendar, UTC.
struct Civil {
    year: u64,
    month: usize,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// 0 is Sunday.
    weekday: usize,
}

impl Civil {
    /// Converts seconds since 1970. Years begin in March, so that the leap day is the last of its
    /// year.
    fn new(seconds: u64) -> Civil {
        let days = seconds / 86_400;
        // Days since the first of March of the year 0.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Civil {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month: month as usize,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            weekday: ((days + 4) % 7) as usize,
        }
    }
}

/// Seconds since 1970; 0 if the clock is set to an earlier time.
pub fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |duration| duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(date(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(date(951_868_799), "Tue Feb 29 23:59:59 2000");
        assert_eq!(date(1_709_251_200), "Fri Mar  1 00:00:00 2024");
        assert_eq!(date(1_795_218_334), "Fri Nov 20 23:45:34 2026");
    }

    #[test]
    fn the_header_has_the_lines_that_scripts_read() {
        let text = workload(&Flags { num: 1_000_000, ..Flags::default() });
        for line in [
            "Keys:       16 bytes each (+ 0 bytes user-defined timestamp)",
            "Values:     100 bytes each (50 bytes after compression)",
            "Entries:    1000000",
            "Prefix:    0 bytes",
            "RawSize:    110.6 MB (estimated)",
            "FileSize:   62.9 MB (estimated)",
            "Write rate: 0 bytes/second",
            "Compression: default",
            "------------------------------------------------",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        // Fields 3 to 6 of the date, as in benchmark.sh.
        let environment = environment();
        let line = environment.lines().find(|line| line.starts_with("Date:")).unwrap();
        assert_eq!(line.split_whitespace().count(), 6);
    }
}
