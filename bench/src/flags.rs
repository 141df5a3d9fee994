//! The command line: gflags' syntax and the flag names of RocksDB's `db_bench`.
//!
//! `--name=value`, `-name=value` and `--name value` set a flag, `--name` and `--noname` set a
//! boolean, `--undefok=a,b` accepts unknown names, `--flagfile=path` reads more flags from a file,
//! one per line. Later flags win.
//!
//! | name | effect |
//! |---|---|
//! | known to RocksDB, without meaning here | accepted; the caller warns once |
//! | known to RocksDB, would change the meaning of figures | refused unless it is off |
//! | unknown | error that lists the nearest names, since scripts rely on that |
mod ignored;
mod refused;

use refused::Refused;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

macro_rules! define_flags {
    ($($group:literal { $($name:ident: $kind:ty = $default:expr, $help:literal;)* })*) => {
        /// The value of every flag.
        #[derive(Clone, Debug)]
        pub struct Flags {
            $($(#[doc = $help] pub $name: $kind,)*)*
            /// Names on the command line that RocksDB knows and that have no meaning here.
            pub ignored: Vec<String>,
            /// Names on the command line that have a meaning.
            pub given: Vec<&'static str>,
        }

        impl Default for Flags {
            fn default() -> Flags {
                Flags { $($($name: $default,)*)* ignored: Vec::new(), given: Vec::new() }
            }
        }

        impl Flags {
            /// Sets flag `name` from `text`. `None`: no such flag. `Some(Err(kind))`: `text` is not
            /// a `kind`.
            fn set(&mut self, name: &str, text: &str) -> Option<Result<(), &'static str>> {
                match name {
                    $($(stringify!($name) => Some(match FlagValue::parse(text) {
                        Some(value) => {
                            self.$name = value;
                            self.given.push(stringify!($name));
                            Ok(())
                        }
                        None => Err(<$kind as FlagValue>::KIND),
                    }),)*)*
                    _ => None,
                }
            }

            /// Every flag with its value as text.
            fn definitions(&self) -> Vec<Definition> {
                vec![$($(Definition {
                    group: $group,
                    name: stringify!($name),
                    kind: <$kind as FlagValue>::KIND,
                    value: self.$name.to_string(),
                    help: $help,
                },)*)*]
            }
        }
    };
}

define_flags! {
    "What to run" {
        benchmarks: String = DEFAULT_BENCHMARKS.into(), "Comma-separated benchmarks, in this order. `name[X3]` repeats three times, `name[W1]` runs once before that to warm up, `name[X3-W1]` both.";
        num: i64 = 1_000_000, "Number of keys, and of operations per thread unless reads, writes or deletes say otherwise.";
        reads: i64 = -1, "Read operations per thread; negative: num.";
        writes: i64 = -1, "Write operations per thread; negative: num.";
        deletes: i64 = -1, "Delete operations per thread; negative: num.";
        duration: i64 = 0, "Seconds that random benchmarks run; 0: they run their number of operations.";
        threads: i64 = 1, "Threads that run the benchmark at the same time.";
        seed: i64 = 0, "Seed of all randomness; 0: the time of day.";
        use_existing_db: bool = false, "Use the database that is there. Benchmarks that need a fresh one are skipped.";
        use_existing_keys: bool = false, "With use_existing_db, take the keys that the first keyspace has, whatever num says; they are read into memory first.";
        db: String = String::new(), "Folder of the database; empty: a temporary folder that is removed at the end. A file LOG beside the database tells scripts the version.";
        readonly: bool = false, "Open the database for reading only.";
        wal_dir: String = String::new(), "Folder of the log; empty or the same as db: with the tables. A database that was made with one needs it whenever it is opened.";
        truth_db: String = "/dev/shm/truth_db/dbbench".into(), "Folder of the database that verify compares with.";
    }
    "Keys and values" {
        key_size: i64 = 16, "Bytes of a key: a big-endian number, filled up with '0'.";
        value_size: i64 = 100, "Bytes of a value.";
        value_size_distribution_type: String = "fixed".into(), "How large values are: fixed, uniform or normal (between value_size_min and value_size_max).";
        value_size_min: i64 = 100, "Smallest value of the uniform and the normal distribution.";
        value_size_max: i64 = 102_400, "Largest value of the uniform and the normal distribution.";
        compression_ratio: f64 = 0.5, "Values are made so that they can be compressed to this fraction.";
        prefix_size: i64 = 0, "Bytes of a prefix in front of the number; 0: none.";
        keys_per_prefix: i64 = 0, "Keys that share a prefix; 0: no prefixes.";
        same_value_percentage: i64 = 0, "Share of values that are all the same bytes, in percent.";
        read_random_exp_range: f64 = 0.0, "Skew of random reads: keys are drawn with density exp(-range * x); 0: uniform.";
    }
    "How operations are made" {
        batch_size: i64 = 1, "Keys per write batch, and per multi-get.";
        sync: bool = false, "Every write waits until it is on the device.";
        disable_wal: bool = false, "Writes do not go to the log.";
        benchmark_write_rate_limit: i64 = 0, "Bytes per second that all writers together may write; 0: no limit.";
        benchmark_read_rate_limit: i64 = 0, "Operations per second that all readers together may do; 0: no limit.";
        readwritepercent: i64 = 90, "Share of reads in readrandomwriterandom, in percent.";
        seek_nexts: i64 = 0, "Steps after each seek.";
        seek_nexts_to_delete: i64 = 0, "Entries that are deleted after each seek and its steps.";
        reverse_iterator: bool = false, "Step backwards after each seek.";
        max_scan_distance: i64 = 0, "Seeks stop at the key that is so many numbers away; 0: they do not.";
        prefix_same_as_start: bool = false, "Seeks stop where the prefix of prefix_size bytes ends.";
        reuse_iterator: bool = false, "Keep one iterator for all seeks of a thread instead of a new one for each (not in RocksDB).";
        overwrite_probability: f64 = 0.0, "Share of the writes of filluniquerandom that overwrite a key written lately.";
        overwrite_window_size: i64 = 1, "How many keys count as written lately.";
        disposable_entries_batch_size: i64 = 0, "Entries of fillanddeleteuniquerandom that are deleted together; 0: none are.";
        disposable_entries_delete_delay: i64 = 0, "Microseconds at least from writing the last of them to deleting the first.";
        disposable_entries_value_size: i64 = 64, "Bytes of their values.";
        persistent_entries_batch_size: i64 = 0, "Entries that are written between two such groups, and stay.";
        persistent_entries_value_size: i64 = 64, "Bytes of their values.";
        multiread_stride: i64 = 0, "Distance between the keys of one multi-get; 0: random keys.";
        finish_after_writes: bool = false, "A background writer stops after writes operations.";
        ops_between_duration_checks: i64 = 1000, "With duration, look at the clock after so many operations.";
        multiscan_size: i64 = 10, "Ranges of one multiscan.";
        multiscan_stride: i64 = 100, "Distance between the starts of a multiscan's ranges.";
        deletepercent: i64 = 2, "Share of deletes in randomwithverify, in percent.";
        numdistinct: i64 = 1000, "Number of keys of randomwithverify.";
        key_id_range: i64 = 100_000, "Number of series of timeseries.";
        time_range: i64 = 100_000, "Entries of timeseries that are older than so many writes are expired.";
        expire_style: String = "none".into(), "How timeseries gets rid of expired entries: none or delete.";
        num_deletion_threads: i64 = 1, "With expire_style=delete, threads of timeseries that delete what has expired.";
        queue_depth: i64 = -1, "Entries that each thread's queue holds; negative: a quarter of its operations, so that what is popped is in tables by then (not in RocksDB).";
        deleted_neighbours: i64 = 3_000_000, "Deleted rows that scanbeside reads beside (not in RocksDB).";
        large_commit_size: i64 = 64 << 20, "Bytes of each large commit of smallputs (not in RocksDB).";
        large_commit_pause: i64 = 1000, "Milliseconds between two of them (not in RocksDB).";
        open_rounds: i64 = 1000, "Rounds of openclose (not in RocksDB).";
        open_databases: i64 = 100, "Databases that openclose has open at once (not in RocksDB).";
        ttl_writes: i64 = 0, "A record of ttlchurn lives for so many writes of its thread; 0: a quarter of num (not in RocksDB).";
    }
    "Open loop (not in RocksDB)" {
        open_loop_rate: f64 = 0.0, "Operations per second that begin on schedule, whether or not earlier ones are over, from all threads together; a batch counts as one. Latencies are counted from the intended start, so waiting behind a stall is part of them. 0: each operation begins when the one before is over.";
        open_loop_spacing: String = "poisson".into(), "Distances of the schedule: poisson (independent arrivals) or fixed.";
    }
    "mixgraph" {
        mix_get_ratio: f64 = 1.0, "Share of gets.";
        mix_put_ratio: f64 = 0.0, "Share of puts.";
        mix_seek_ratio: f64 = 0.0, "Share of seeks.";
        mix_max_scan_len: i64 = 10_000, "No seek reads more entries.";
        mix_max_value_size: i64 = 1024, "No value is larger.";
        mix_accesses: i64 = -1, "Operations per thread; negative: reads.";
        keyrange_num: i64 = 1, "Number of key ranges.";
        keyrange_dist_a: f64 = 0.0, "Popularity of the x-th key range: a*exp(b*x)+c*exp(d*x).";
        keyrange_dist_b: f64 = 0.0, "See keyrange_dist_a.";
        keyrange_dist_c: f64 = 0.0, "See keyrange_dist_a.";
        keyrange_dist_d: f64 = 0.0, "See keyrange_dist_a.";
        key_dist_a: f64 = 0.0, "Popularity of the x-th key: a*x^b; uniform if a or b is 0.";
        key_dist_b: f64 = 0.0, "See key_dist_a.";
        value_theta: f64 = 0.0, "Location of the Pareto distribution of value sizes.";
        value_k: f64 = 0.2615, "Its shape.";
        value_sigma: f64 = 25.45, "Its scale.";
        iter_theta: f64 = 0.0, "Location of the Pareto distribution of scan lengths.";
        iter_k: f64 = 2.517, "Its shape.";
        iter_sigma: f64 = 14.236, "Its scale.";
        sine_mix_rate: bool = false, "Limit mixgraph to a rate of a*sin(b*seconds+c)+d operations per second.";
        sine_mix_rate_interval_milliseconds: i64 = 10_000, "How long such a rate stays.";
        sine_mix_rate_noise: f64 = 0.0, "Noise of the rate, as a share of sine_a.";
        sine_write_rate: bool = false, "Limit background writers to a*sin(b*seconds+c)+d bytes per second.";
        sine_write_rate_interval_milliseconds: i64 = 10_000, "How long such a rate stays.";
        sine_a: f64 = 1.0, "Amplitude of a rate.";
        sine_b: f64 = 1.0, "Its angular frequency, per second.";
        sine_c: f64 = 0.0, "Its phase.";
        sine_d: f64 = 1.0, "Its mean.";
    }
    "The engine" {
        cache_size: i64 = 32 << 20, "Bytes of the buffer cache; negative: the engine's own choice.";
        write_buffer_size: i64 = 64 << 20, "Bytes of one memtable.";
        max_write_buffer_number: i64 = 2, "Memtables in memory, with those that wait for their flush.";
        memory_budget: i64 = 0, "Bytes for everything the engine keeps in memory; 0: cache and memtables with a margin (not in RocksDB).";
        compression_type: String = "default".into(), "Codec of tables: default (the engine chooses by level), none, lz4 or zstd; lz4 takes the place of snappy and lz4hc.";
        compression_level: i64 = 3, "Level of zstd.";
        bloom_bits: f64 = -1.0, "Filter bits per key; 0: no filter; negative: the engine's own choice.";
        filter_type: String = String::new(), "Filter of tables: none, blocked or standard; empty: the engine's own choice (not in RocksDB).";
        block_size: i64 = 4096, "Bytes of a table's data block before compression.";
        target_file_size_base: i64 = 0, "Bytes of a table file; 0: the engine's own choice.";
        compaction_style: String = "hybrid".into(), "hybrid (1, for scripts that say universal), leveled (0) or none (3: no compaction unless asked for).";
        max_background_jobs: i64 = 0, "Threads for flushes and compactions; 0: the engine's own choice.";
        max_background_compactions: i64 = 0, "Threads for compactions, if max_background_jobs is not given.";
        subcompactions: i64 = 0, "Threads that share one compaction; 0: the engine's own choice.";
        level0_file_num_compaction_trigger: i64 = 0, "Runs of level 0 that start a compaction; 0: the engine's own choice.";
        num_column_families: i64 = 1, "Keyspaces; a key's place is computed from the key. Iterators read the first.";
        rate_limiter_bytes_per_sec: i64 = 0, "Bytes per second that flushes and compactions may write together; 0: no limit.";
        disable_auto_compactions: bool = false, "No compaction unless a benchmark asks for one.";
        wal_segment_size: i64 = 0, "Bytes of a log segment; 0: the engine's own choice (not in RocksDB).";
    }
    "What to report" {
        histogram: bool = false, "Print the latencies of operations.";
        statistics: bool = false, "Print the engine's statistics at the end.";
        stats_interval: i64 = 0, "Report progress every so many operations; 0: at growing intervals.";
        stats_interval_seconds: i64 = 0, "Report progress every so many seconds; overrides stats_interval.";
        stats_per_interval: i64 = 0, "With 1 or more, print the engine's statistics at every progress report of the first thread.";
        report_file: String = "report.csv".into(), "File for report_interval_seconds: seconds and operations per second.";
        report_interval_seconds: i64 = 0, "Write a line to report_file every so many seconds; 0: never.";
        confidence_interval_only: bool = false, "With `[X]`, print the 95 % confidence interval after every run.";
        cpu_report: bool = true, "After every benchmark, a line on stderr with the processor time of the whole process (not in RocksDB).";
        progress_reports: bool = true, "Show the operations finished so far, if stderr is a terminal.";
        progress: bool = true, "The same (not in RocksDB).";
        slow_usecs: i64 = 1_000_000, "With histogram, and if stderr is a terminal or this is given, tell of operations that took so many microseconds.";
    }
}

/// The benchmarks that run without `--benchmarks`.
const DEFAULT_BENCHMARKS: &str = "fillseq,fillsync,fillrandom,overwrite,readrandom,readrandom,readseq,readreverse,\
                                  compact,readrandom,readseq,readreverse,fill100K,xxh3";

/// The request of a command line.
#[derive(Debug)]
pub enum Command {
    /// Run benchmarks.
    Run(Box<Flags>),
    /// Print the help and stop.
    Help,
    /// Print the version and stop.
    Version,
    /// Print the build information and stop.
    BuildInfo,
}

struct Definition {
    group: &'static str,
    name: &'static str,
    kind: &'static str,
    value: String,
    help: &'static str,
}

/// The type of a flag, with its gflags name for messages.
trait FlagValue: Sized {
    const KIND: &'static str;
    fn parse(text: &str) -> Option<Self>;
}

impl FlagValue for bool {
    const KIND: &'static str = "bool";
    fn parse(text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "y" | "yes" => Some(true),
            "0" | "f" | "false" | "n" | "no" => Some(false),
            _ => None,
        }
    }
}

impl FlagValue for i64 {
    const KIND: &'static str = "int64";
    fn parse(text: &str) -> Option<i64> {
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }
}

impl FlagValue for f64 {
    const KIND: &'static str = "double";
    fn parse(text: &str) -> Option<f64> {
        text.parse().ok().filter(|value: &f64| value.is_finite())
    }
}

impl FlagValue for String {
    const KIND: &'static str = "string";
    fn parse(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
}

impl Flags {
    /// Parses the arguments of a command line, without the program's name. The error is a message
    /// for a person.
    pub fn parse<I: IntoIterator<Item = String>>(arguments: I) -> Result<Command, String> {
        let mut parser =
            Parser { flags: Flags::default(), undefok: Vec::new(), unknown: Vec::new(), command: None };
        parser.all(arguments.into_iter().collect(), 0)?;
        parser.finish()
    }

    /// The operations of a reading thread.
    pub fn read_count(&self) -> u64 {
        count_or(self.reads, self.num)
    }

    /// The operations of a writing thread.
    pub fn write_count(&self) -> u64 {
        count_or(self.writes, self.num)
    }

    /// The operations of a deleting thread.
    pub fn delete_count(&self) -> u64 {
        count_or(self.deletes, self.num)
    }

    /// The text of `--help`: the flags by group, then the ignored ones.
    pub fn help() -> String {
        let mut text = String::new();
        let mut group = "";
        for definition in Flags::default().definitions() {
            if definition.group != group {
                group = definition.group;
                let _ = writeln!(text, "\n{group}:");
            }
            let Definition { name, kind, value, help, .. } = definition;
            let value = match kind {
                // The help of such a flag contains its long default.
                "string" if value.is_empty() || value.len() > 20 => "...".to_owned(),
                _ => value,
            };
            text += &columns(&format!("--{name}={value}"), help);
        }
        let ignored = ignored::BOOLEANS.len() + ignored::VALUES.len();
        let _ = writeln!(text, "\nOf the command line itself:");
        text += &columns("--flagfile=...", "Read flags from this file, one a line.");
        text += &columns("--undefok=...", "Comma-separated names of flags that may be unknown.");
        text += &columns(
            "--help, --version, --build_info",
            "Print this, the version, or how the program was built.",
        );
        let _ = writeln!(
            text,
            "\nFlags are written --name=value, --name value, -name=value, and if they are true or false --name or \
             --noname.\n{ignored} more flags of RocksDB's db_bench are accepted; a warning says that they have no \
             effect here.\n{} more are accepted when they are off, and refused with the reason when they are not.",
            refused::ALL.len()
        );
        text
    }
}

/// A line of the help: the name on the left, then wrapped text.
pub fn columns(left: &str, help: &str) -> String {
    const LEFT: usize = 34;
    const RIGHT: usize = 84;
    let mut lines = vec![String::new()];
    for word in help.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        if line.len() + 1 + word.len() > RIGHT {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let mut text = format!("  {left:<LEFT$}");
    if left.len() >= LEFT {
        let _ = write!(text, "\n  {:<LEFT$}", "");
    }
    for (number, line) in lines.iter().enumerate() {
        let indent = if number == 0 { 0 } else { LEFT + 2 };
        let _ = writeln!(text, "{:indent$}{line}", "");
    }
    text
}

/// The message of gflags for a value of the wrong type.
fn illegal(name: &str, value: &str, kind: &str) -> String {
    format!("illegal value '{value}' specified for {kind} flag '{name}'")
}

/// `count`, or `num` if it is negative.
fn count_or(count: i64, num: i64) -> u64 {
    u64::try_from(count).unwrap_or_else(|_| u64::try_from(num).unwrap_or(0))
}

/// Whether a flag without '=' takes the next argument as its value.
enum Kind {
    Boolean,
    Value,
    IgnoredBoolean,
    IgnoredValue,
    Refused(&'static Refused),
    Unknown,
}

struct Parser {
    flags: Flags,
    undefok: Vec<String>,
    unknown: Vec<String>,
    command: Option<Command>,
}

impl Parser {
    fn all(&mut self, arguments: Vec<String>, depth: u32) -> Result<(), String> {
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(body) = argument.strip_prefix('-') else {
                return Err(format!("'{argument}' is not a flag; flags look like --name=value"));
            };
            let body = body.strip_prefix('-').unwrap_or(body);
            if body.is_empty() && argument == "--" {
                return match arguments.next() {
                    Some(rest) => Err(format!("'{rest}' is not a flag; db_bench takes flags only")),
                    None => Ok(()),
                };
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            // RocksDB's scripts write both --use_existing_db and --use-existing-db.
            let name = name.replace('-', "_");
            self.one(&name, value, &mut arguments, depth)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        name: &str,
        value: Option<String>,
        rest: &mut std::vec::IntoIter<String>,
        depth: u32,
    ) -> Result<(), String> {
        match name {
            "help" | "helpfull" | "helpshort" => {
                self.command = Some(Command::Help);
                return Ok(());
            }
            "version" => {
                self.command = Some(Command::Version);
                return Ok(());
            }
            "build_info" | "nobuild_info" => {
                let wanted = match value {
                    None => name == "build_info",
                    Some(text) => bool::parse(&text).ok_or_else(|| illegal(name, &text, bool::KIND))?,
                };
                if wanted {
                    self.command = Some(Command::BuildInfo);
                }
                return Ok(());
            }
            "undefok" | "flagfile" => {
                let value = value
                    .or_else(|| rest.next())
                    .ok_or_else(|| format!("flag '--{name}' is missing its argument"))?;
                for item in value.split(',').filter(|item| !item.is_empty()) {
                    if name == "undefok" {
                        self.undefok.push(item.trim_start_matches('-').replace('-', "_"));
                    } else {
                        self.file(item, depth)?;
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        match self.kind(name) {
            Kind::Boolean => self.assign(name, &value.unwrap_or_else(|| "true".to_owned())),
            Kind::Value => {
                let value = value
                    .or_else(|| rest.next())
                    .ok_or_else(|| format!("flag '--{name}' is missing its argument"))?;
                self.assign(name, &value)
            }
            Kind::IgnoredBoolean => {
                self.flags.ignored.push(name.to_owned());
                Ok(())
            }
            Kind::IgnoredValue => {
                if value.is_none() && rest.next().is_none() {
                    return Err(format!("flag '--{name}' is missing its argument"));
                }
                self.flags.ignored.push(name.to_owned());
                Ok(())
            }
            Kind::Refused(refused) => {
                let value = match value {
                    None if refused.boolean => "true".to_owned(),
                    None => rest.next().ok_or_else(|| format!("flag '--{name}' is missing its argument"))?,
                    Some(value) => value,
                };
                refused.check(&value)
            }
            Kind::Unknown => match name.strip_prefix("no").map(|positive| (positive, self.kind(positive))) {
                Some((positive, Kind::Boolean)) if value.is_none() => self.assign(positive, "false"),
                Some((positive, Kind::IgnoredBoolean)) if value.is_none() => {
                    self.flags.ignored.push(positive.to_owned());
                    Ok(())
                }
                Some((_, Kind::Refused(refused))) if refused.boolean && value.is_none() => Ok(()),
                _ => {
                    // Collected, not reported at once: --undefok may follow.
                    self.unknown.push(name.to_owned());
                    Ok(())
                }
            },
        }
    }

    fn kind(&self, name: &str) -> Kind {
        // The lists of ignored names are searched last, so that a flag that gains a meaning needs
        // no edit there.
        let known = self.flags.definitions().into_iter().find(|definition| definition.name == name);
        match known.map(|definition| definition.kind) {
            Some("bool") => Kind::Boolean,
            Some(_) => Kind::Value,
            None if ignored::BOOLEANS.contains(&name) => Kind::IgnoredBoolean,
            None if ignored::VALUES.contains(&name) => Kind::IgnoredValue,
            None => Refused::find(name).map_or(Kind::Unknown, Kind::Refused),
        }
    }

    fn assign(&mut self, name: &str, value: &str) -> Result<(), String> {
        match self.flags.set(name, value) {
            Some(Err(kind)) => Err(illegal(name, value, kind)),
            _ => Ok(()),
        }
    }

    fn file(&mut self, path: &str, depth: u32) -> Result<(), String> {
        // A file may name further files; the depth bounds cycles.
        if depth > 16 {
            return Err(format!("flag files are nested too deeply at '{path}'"));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read flag file '{path}': {error}"))?;
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with('-')).map(str::to_owned);
        self.all(lines.collect(), depth + 1)
    }

    fn finish(mut self) -> Result<Command, String> {
        if let Some(command) = self.command {
            return Ok(command);
        }
        let undefok = self.undefok;
        self.unknown.retain(|name| {
            let positive = name.strip_prefix("no").unwrap_or(name);
            !undefok.iter().any(|allowed| allowed == name || allowed == positive)
        });
        if self.unknown.is_empty() {
            self.flags.ignored.sort();
            self.flags.ignored.dedup();
            // RocksDB ignores the case of codec names.
            self.flags.compression_type.make_ascii_lowercase();
            self.flags.check()?;
            return Ok(Command::Run(Box::new(self.flags)));
        }
        let mut message = String::new();
        for name in &self.unknown {
            let _ = write!(
                message,
                "{}unknown command line flag '{name}'",
                if message.is_empty() { "" } else { "\n" }
            );
            let definitions = Flags::default().definitions();
            let mut near = nearest(name, definitions.iter().map(|definition| definition.name));
            if near.is_empty() {
                near = nearest(name, ignored::BOOLEANS.iter().chain(ignored::VALUES).copied());
            }
            if !near.is_empty() {
                let _ = write!(message, "; did you mean --{}?", near.join(", --"));
            }
        }
        Err(message)
    }
}

impl Flags {
    /// Refuses values that no benchmark can run with.
    fn check(&self) -> Result<(), String> {
        let range = |name: &str, value: i64, least: i64, most: i64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("--{name}={value} is out of range: it is {least} to {most}"))
            }
        };
        let choice = |name: &str, value: &str, choices: &[&str]| {
            if choices.contains(&value) {
                Ok(())
            } else {
                Err(format!("--{name}={value} is none of {}", choices.join(", ")))
            }
        };
        range("num", self.num, 1, 1 << 48)?;
        range("threads", self.threads, 1, 4096)?;
        range("key_size", self.key_size, 4, 65_535)?;
        range("value_size", self.value_size, 0, 1 << 28)?;
        range("value_size_min", self.value_size_min, 0, 1 << 28)?;
        range("value_size_max", self.value_size_max, self.value_size_min, 1 << 28)?;
        range("batch_size", self.batch_size, 1, 1 << 20)?;
        range("prefix_size", self.prefix_size, 0, self.key_size)?;
        range("keys_per_prefix", self.keys_per_prefix, 0, i64::MAX)?;
        range("readwritepercent", self.readwritepercent, 0, 100)?;
        range("write_buffer_size", self.write_buffer_size, 1, i64::MAX)?;
        range("max_write_buffer_number", self.max_write_buffer_number, 1, 1024)?;
        range("ops_between_duration_checks", self.ops_between_duration_checks, 1, i64::MAX)?;
        // Only randomwithverify uses both, and readwritepercent=100 alone is common.
        let writes = 100 - self.readwritepercent;
        if self.given.contains(&"deletepercent") {
            range("deletepercent", self.deletepercent, 0, writes)?;
        }
        range("numdistinct", self.numdistinct, 1, 1 << 40)?;
        range("multiscan_size", self.multiscan_size, 1, 1 << 20)?;
        range("multiscan_stride", self.multiscan_stride, 0, 1 << 40)?;
        range("key_id_range", self.key_id_range, 1, 1 << 48)?;
        range("time_range", self.time_range, 1, i64::MAX)?;
        range("num_deletion_threads", self.num_deletion_threads, 0, 4096)?;
        range("queue_depth", self.queue_depth, -1, 1 << 40)?;
        range("deleted_neighbours", self.deleted_neighbours, 0, 1 << 40)?;
        range("large_commit_size", self.large_commit_size, 1, 1 << 30)?;
        range("large_commit_pause", self.large_commit_pause, 0, 1 << 30)?;
        range("open_rounds", self.open_rounds, 0, 1 << 40)?;
        range("open_databases", self.open_databases, 0, 100_000)?;
        range("ttl_writes", self.ttl_writes, 0, 1 << 40)?;
        range("keyrange_num", self.keyrange_num, 1, 1 << 24)?;
        range("num_column_families", self.num_column_families, 1, 10_000)?;
        if [self.mix_get_ratio, self.mix_put_ratio, self.mix_seek_ratio].iter().all(|ratio| *ratio <= 0.0) {
            return Err("--mix_get_ratio, --mix_put_ratio and --mix_seek_ratio are all 0".to_owned());
        }
        if self.open_loop_rate < 0.0 {
            return Err(format!("--open_loop_rate={} is negative", self.open_loop_rate));
        }
        choice("open_loop_spacing", &self.open_loop_spacing, &["poisson", "fixed"])?;
        if ["zlib", "bzip2", "xpress"].contains(&self.compression_type.as_str()) {
            return Err(format!(
                "--compression_type={} is refused: Sapwood has no such codec, and another one's figures would be \
                 those of another one; zstd is the nearest",
                self.compression_type
            ));
        }
        choice(
            "compression_type",
            &self.compression_type,
            &["default", "none", "lz4", "zstd", "snappy", "lz4hc"],
        )?;
        if self.compaction_style == "2" {
            return Err(
                "--compaction_style=2 is refused: Sapwood has no style that drops the oldest data (FIFO)"
                    .to_owned(),
            );
        }
        choice("compaction_style", &self.compaction_style, &["hybrid", "1", "leveled", "0", "none", "3"])?;
        if self.expire_style == "compaction_filter" {
            return Err(
                "--expire_style=compaction_filter is refused: Sapwood has no compaction filters; delete has \
                        threads that delete what has expired"
                    .to_owned(),
            );
        }
        choice("expire_style", &self.expire_style, &["none", "delete"])?;
        range("same_value_percentage", self.same_value_percentage, 0, 100)?;
        range("overwrite_window_size", self.overwrite_window_size, 1, i64::from(u32::MAX))?;
        if !(0.0..=1.0).contains(&self.overwrite_probability) {
            return Err(format!(
                "--overwrite_probability={} is out of range: it is 0 to 1",
                self.overwrite_probability
            ));
        }
        for (name, size) in [
            ("disposable_entries_value_size", self.disposable_entries_value_size),
            ("persistent_entries_value_size", self.persistent_entries_value_size),
        ] {
            range(name, size, 0, 1 << 28)?;
        }
        for (name, count) in [
            ("disposable_entries_batch_size", self.disposable_entries_batch_size),
            ("persistent_entries_batch_size", self.persistent_entries_batch_size),
            ("disposable_entries_delete_delay", self.disposable_entries_delete_delay),
            ("max_scan_distance", self.max_scan_distance),
            ("seek_nexts_to_delete", self.seek_nexts_to_delete),
        ] {
            range(name, count, 0, 1 << 48)?;
        }
        self.check_together()?;
        choice(
            "value_size_distribution_type",
            &self.value_size_distribution_type,
            &["fixed", "uniform", "normal"],
        )?;
        if !(0.0..=1.0).contains(&self.compression_ratio) {
            return Err(format!(
                "--compression_ratio={} is out of range: it is 0 to 1",
                self.compression_ratio
            ));
        }
        Ok(())
    }
}

impl Flags {
    /// Refuses flags that contradict each other.
    fn check_together(&self) -> Result<(), String> {
        if self.disable_wal && self.sync {
            return Err("--sync needs the log, and --disable_wal leaves it out".to_owned());
        }
        if self.use_existing_keys && !(self.use_existing_db || self.readonly) {
            return Err("--use_existing_keys needs --use_existing_db".to_owned());
        }
        Ok(())
    }

    /// The codec that replaces the requested one, if any.
    ///
    /// lz4 has the speed of snappy; lz4 decompresses the output of lz4hc.
    pub fn codec_in_place(&self) -> Option<&'static str> {
        matches!(self.compression_type.as_str(), "snappy" | "lz4hc").then_some("lz4")
    }

    /// The folder of the log, if it differs from that of the database.
    pub fn log_folder(&self) -> Option<PathBuf> {
        let same = self.wal_dir.is_empty() || Path::new(&self.wal_dir) == Path::new(&self.db);
        (!same).then(|| PathBuf::from(&self.wal_dir))
    }

    /// Whether progress is shown: only on a terminal.
    pub fn shows_progress(&self) -> bool {
        self.progress && self.progress_reports && std::io::stderr().is_terminal()
    }
}

/// The names that resemble `name`, nearest first, three at most.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = names
        .map(|known| {
            // A part of a name counts like one typing error.
            let distance =
                if known.contains(name) || name.contains(known) { 1 } else { edit_distance(name, known) };
            (distance, known)
        })
        .filter(|&(distance, known)| distance <= 1 + known.len().min(name.len()) / 4)
        .collect();
    near.sort();
    near.truncate(3);
    near.into_iter().map(|(_, known)| known).collect()
}

/// Levenshtein's distance: insertions, deletions and replacements that turn `left` into `right`.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Flags, String> {
        match Flags::parse(arguments.iter().map(|&argument| argument.to_owned()))? {
            Command::Run(flags) => Ok(*flags),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn every_spelling_of_gflags_is_understood() {
        let flags =
            parse(&["--num=5", "-reads=7", "--writes", "9", "--histogram", "--nocpu_report"]).unwrap();
        assert_eq!((flags.num, flags.reads, flags.writes), (5, 7, 9));
        assert!(flags.histogram && !flags.cpu_report);
        let flags =
            parse(&["--histogram=false", "--sync=1", "-use-existing-db", "--seed=0x10", "--deletes=-1"])
                .unwrap();
        assert!(!flags.histogram && flags.sync && flags.use_existing_db);
        assert_eq!((flags.seed, flags.deletes), (16, -1));
        assert_eq!(parse(&["--num=1", "--num=2"]).unwrap().num, 2);
        assert_eq!(parse(&["--benchmarks=a,b=c"]).unwrap().benchmarks, "a,b=c");
        assert_eq!(parse(&["--bloom_bits=10"]).unwrap().bloom_bits, 10.0);
    }

    #[test]
    fn counts_fall_back_to_num() {
        let flags = parse(&["--num=50", "--writes=3"]).unwrap();
        assert_eq!((flags.read_count(), flags.write_count(), flags.delete_count()), (50, 3, 50));
    }

    #[test]
    fn an_unknown_flag_is_an_error_that_names_near_ones() {
        let error = parse(&["--value_sise=3"]).unwrap_err();
        assert!(
            error.starts_with("unknown command line flag 'value_sise'; did you mean --value_size"),
            "{error}"
        );
        assert!(
            parse(&["--no_such_thing"]).unwrap_err().contains("unknown command line flag 'no_such_thing'")
        );
        assert!(parse(&["--nonum"]).is_err());
        assert!(parse(&["fillseq"]).unwrap_err().contains("is not a flag"));
    }

    #[test]
    fn undefok_lets_unknown_flags_pass_wherever_it_stands() {
        let flags = parse(&["--mystery=1", "--num=3", "--nosuch", "--undefok=mystery,such"]).unwrap();
        assert_eq!(flags.num, 3);
        assert!(parse(&["--undefok=mystery", "--other"]).is_err());
    }

    #[test]
    fn flags_of_rocksdb_without_a_meaning_are_collected() {
        let flags = parse(&[
            "--cache_index_and_filter_blocks",
            "--max_bytes_for_level_base=1",
            "--nouse_direct_reads",
            "--open_files",
            "-1",
            "--open_files=3",
            "--num=2",
        ])
        .unwrap();
        assert_eq!(
            flags.ignored,
            ["cache_index_and_filter_blocks", "max_bytes_for_level_base", "open_files", "use_direct_reads"]
        );
        assert_eq!(flags.num, 2);
    }

    #[test]
    fn flags_that_change_what_is_measured_pass_only_when_they_are_off() {
        for off in [
            "--transaction_db=0",
            "--notransaction_db",
            "--options_file=",
            "--num_multi_db=1",
            "--user_timestamp_size=0",
            "--compression_manager=None",
        ] {
            assert!(parse(&[off, "--num=7"]).unwrap().ignored.is_empty(), "{off}");
        }
        for (on, reason) in [
            ("--transaction_db", "--transaction_db=true is refused: Sapwood has no transactions"),
            (
                "--options_file=a.ini",
                "--options_file=a.ini is refused: options files of RocksDB are not read",
            ),
            ("--num_multi_db=4", "openclose"),
            ("--env_uri=posix://", "--db chooses the file system"),
            ("--expire_style=compaction_filter", "Sapwood has no compaction filters"),
            ("--compression_type=zlib", "zstd is the nearest"),
            ("--compression_type=BZip2", "zstd is the nearest"),
            ("--compaction_style=2", "drops the oldest data"),
            ("--compaction_style=4", "none of hybrid, 1, leveled"),
        ] {
            let error = parse(&[on]).unwrap_err();
            assert!(error.contains(reason), "{on}: {error}");
        }
        let error = parse(&["--trace_file"]).unwrap_err();
        assert_eq!(error, "flag '--trace_file' is missing its argument");
        // The separate value of the flag is consumed, so that the next flag is parsed as one.
        assert_eq!(parse(&["--num_multi_db", "0", "--num", "3"]).unwrap().num, 3);
    }

    #[test]
    fn every_flag_of_rocksdb_is_known() {
        let names = include_str!("../tests/rocksdb_flags.txt").lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for name in names {
            count += 1;
            let parser =
                Parser { flags: Flags::default(), undefok: Vec::new(), unknown: Vec::new(), command: None };
            let known = !matches!(parser.kind(name), Kind::Unknown) || name == "build_info";
            assert!(known, "--{name} is unknown");
            if let Kind::Refused(refused) = parser.kind(name) {
                let error = parse(&[&format!("--{name}=7")]).unwrap_err();
                assert!(refused.check("").is_ok() || refused.boolean, "{name}");
                assert!(error.starts_with(&format!("--{name}=7 is refused: ")) || refused.boolean, "{error}");
                let error = parse(&[&format!("--{name}=1")]);
                assert!(error.is_err() || name == "num_multi_db", "{name}");
            }
        }
        assert!(count > 400, "{count}");
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        assert!(parse(&["--disable_wal=1", "--sync=1"]).unwrap_err().contains("--sync needs the log"));
        assert!(parse(&["--disable_wal=1", "--sync=0"]).is_ok());
        assert!(parse(&["--use_existing_keys"]).unwrap_err().contains("needs --use_existing_db"));
        assert!(parse(&["--use_existing_keys", "--use_existing_db"]).is_ok());
        assert!(parse(&["--prefix_size=17"]).is_err() && parse(&["--compression_ratio=1.5"]).is_err());
    }

    #[test]
    fn names_of_codecs_are_of_any_case_and_some_have_another_in_their_place() {
        let codec = |text: &str| {
            let flags = parse(&[&format!("--compression_type={text}")]).unwrap();
            (flags.compression_type.clone(), flags.codec_in_place())
        };
        assert_eq!(codec("ZSTD"), ("zstd".to_owned(), None));
        assert_eq!(codec("snappy"), ("snappy".to_owned(), Some("lz4")));
        assert_eq!(codec("lz4hc").1, Some("lz4"));
    }

    #[test]
    fn the_build_is_told_only_when_asked_for() {
        let command = |text: &str| Flags::parse([text.to_owned()]);
        assert!(matches!(command("--build_info"), Ok(Command::BuildInfo)));
        assert!(matches!(command("--build_info=0"), Ok(Command::Run(_))));
        assert!(matches!(command("--nobuild_info"), Ok(Command::Run(_))));
        assert!(command("--build_info=x").is_err());
    }

    #[test]
    fn wrong_values_are_refused_with_the_type() {
        assert_eq!(parse(&["--num=x"]).unwrap_err(), "illegal value 'x' specified for int64 flag 'num'");
        assert_eq!(
            parse(&["--sync=maybe"]).unwrap_err(),
            "illegal value 'maybe' specified for bool flag 'sync'"
        );
        assert_eq!(parse(&["--num"]).unwrap_err(), "flag '--num' is missing its argument");
        assert!(parse(&["--threads=0"]).unwrap_err().contains("out of range"));
        assert!(parse(&["--key_size=3"]).is_err());
    }

    #[test]
    fn given_flags_are_told_from_defaults() {
        let flags = parse(&["--num=5", "--value_size=100"]).unwrap();
        assert_eq!(flags.given, ["num", "value_size"]);
        assert!(parse(&["--open_loop_spacing=fix"]).unwrap_err().contains("none of poisson, fixed"));
        assert!(parse(&["--mix_get_ratio=0"]).unwrap_err().contains("all 0"));
        assert!(parse(&["--readwritepercent=99", "--deletepercent=2"]).is_err());
        assert!(parse(&["--readwritepercent=100"]).is_ok());
    }

    #[test]
    fn a_flag_file_is_read_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags");
        std::fs::write(&path, "# a comment\n--num=12\n\n  --sync\n").unwrap();
        let flags = parse(&[&format!("--flagfile={}", path.display()), "--threads=2"]).unwrap();
        assert!(flags.sync && flags.num == 12 && flags.threads == 2);
        std::fs::write(&path, format!("--flagfile={}\n", path.display())).unwrap();
        assert!(
            parse(&[&format!("--flagfile={}", path.display())]).unwrap_err().contains("nested too deeply")
        );
        assert!(parse(&["--flagfile=/does/not/exist"]).unwrap_err().contains("cannot read flag file"));
    }

    #[test]
    fn help_lists_every_flag_in_its_group() {
        assert!(matches!(Flags::parse(["--help".to_owned()]), Ok(Command::Help)));
        let help = Flags::help();
        for definition in Flags::default().definitions() {
            assert!(help.contains(&format!("  --{}=", definition.name)), "{}", definition.name);
        }
        assert!(help.contains("\nThe engine:\n"));
        assert!(help.lines().all(|line| line.len() <= 120), "{help}");
    }

    #[test]
    fn no_flag_is_both_known_and_ignored() {
        let mut all: Vec<&str> = ignored::BOOLEANS.iter().chain(ignored::VALUES).copied().collect();
        all.extend(refused::ALL.iter().map(|refused| refused.name));
        for definition in Flags::default().definitions() {
            assert!(!all.contains(&definition.name), "--{} has a meaning and is ignored", definition.name);
        }
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len(), "a name stands twice in the lists of ignored flags");
    }
}
