//! The command line: gflags' syntax and the flag names that people know from RocksDB's `db_bench`.
//!
//! `--name=value`, `-name=value` and `--name value` set a flag, `--name` and `--noname` set a boolean,
//! `--undefok=a,b` lets unknown names pass, `--flagfile=path` reads more flags from a file, one a line. Later flags
//! win. A name that RocksDB knows and that means nothing here is accepted, and the caller warns about it once; any
//! other unknown name is an error that lists the names nearest to it, since scripts rely on that.
mod ignored;

use std::fmt::Write as _;

macro_rules! define_flags {
    ($($group:literal { $($name:ident: $kind:ty = $default:expr, $help:literal;)* })*) => {
        /// The value of every flag.
        #[derive(Clone, Debug)]
        pub struct Flags {
            $($(#[doc = $help] pub $name: $kind,)*)*
            /// Names that were given, are known from RocksDB, and have no meaning here.
            pub ignored: Vec<String>,
            /// Names that were given and have one.
            pub given: Vec<&'static str>,
        }

        impl Default for Flags {
            fn default() -> Flags {
                Flags { $($($name: $default,)*)* ignored: Vec::new(), given: Vec::new() }
            }
        }

        impl Flags {
            /// Sets flag `name` from `text`. `None`: no such flag. `Some(Err(kind))`: `text` is not a `kind`.
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
        use_existing_keys: bool = false, "Accepted for scripts; keys are computed from num, so only use_existing_db matters.";
        db: String = String::new(), "Folder of the database; empty: a temporary folder that is removed at the end.";
        readonly: bool = false, "Open the database for reading only.";
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
        reverse_iterator: bool = false, "Step backwards after each seek.";
        reuse_iterator: bool = false, "Keep one iterator for all seeks of a thread instead of a new one for each (not in RocksDB).";
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
        queue_depth: i64 = 1000, "Entries that each thread's queue holds (not in RocksDB).";
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
        compression_type: String = "default".into(), "Codec of tables: default (the engine chooses by level), none, lz4 or zstd; snappy is taken as lz4.";
        compression_level: i64 = 3, "Level of zstd.";
        bloom_bits: f64 = -1.0, "Filter bits per key; 0: no filter; negative: the engine's own choice.";
        filter_type: String = String::new(), "Filter of tables: none, blocked or standard; empty: the engine's own choice (not in RocksDB).";
        block_size: i64 = 4096, "Bytes of a table's data block before compression.";
        target_file_size_base: i64 = 0, "Bytes of a table file; 0: the engine's own choice.";
        compaction_style: String = "hybrid".into(), "hybrid (1, for scripts that say universal) or leveled (0).";
        max_background_jobs: i64 = 0, "Threads for flushes and compactions; 0: the engine's own choice.";
        subcompactions: i64 = 0, "Threads that share one compaction; 0: the engine's own choice.";
        level0_file_num_compaction_trigger: i64 = 0, "Runs of level 0 that start a compaction; 0: the engine's own choice.";
        num_column_families: i64 = 1, "Keyspaces; a key's place is computed from the key. Iterators read the first.";
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
        progress: bool = true, "Show the operations finished so far on stderr (not in RocksDB).";
    }
}

/// What runs without `--benchmarks`.
const DEFAULT_BENCHMARKS: &str = "fillseq,fillsync,fillrandom,overwrite,readrandom,readrandom,readseq,readreverse,\
                                  compact,readrandom,readseq,readreverse,fill100K,xxh3";

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run benchmarks.
    Run(Box<Flags>),
    /// Print the help and stop.
    Help,
    /// Print the version and stop.
    Version,
}

struct Definition {
    group: &'static str,
    name: &'static str,
    kind: &'static str,
    value: String,
    help: &'static str,
}

/// A type that flags have, with the name that gflags gives it in messages.
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
    /// Parses the arguments of a command line, without the program's name. The error is a message for a person.
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

    /// The flags in the text of `--help`: in groups, then what is accepted and ignored.
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
                // A long default is told with the help of its flag.
                "string" if value.is_empty() || value.len() > 20 => "...".to_owned(),
                _ => value,
            };
            text += &columns(&format!("--{name}={value}"), help);
        }
        let ignored = ignored::BOOLEANS.len() + ignored::VALUES.len();
        let _ = writeln!(text, "\nOf the command line itself:");
        text += &columns("--flagfile=...", "Read flags from this file, one a line.");
        text += &columns("--undefok=...", "Comma-separated names of flags that may be unknown.");
        text += &columns("--help, --version", "Print this, or the version.");
        let _ = writeln!(
            text,
            "\nFlags are written --name=value, --name value, -name=value, and if they are true or false --name or \
             --noname.\n{ignored} more flags of RocksDB's db_bench are accepted; a warning says that they mean \
             nothing here."
        );
        text
    }
}

/// A line of the help: what it is about on the left, then text that is wrapped.
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

/// `count`, or `num` where it is negative.
fn count_or(count: i64, num: i64) -> u64 {
    u64::try_from(count).unwrap_or_else(|_| u64::try_from(num).unwrap_or(0))
}

/// Whether a flag takes no value when none is attached with '='.
enum Kind {
    Boolean,
    Value,
    IgnoredBoolean,
    IgnoredValue,
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
            Kind::Unknown => match name.strip_prefix("no").map(|positive| (positive, self.kind(positive))) {
                Some((positive, Kind::Boolean)) if value.is_none() => self.assign(positive, "false"),
                Some((positive, Kind::IgnoredBoolean)) if value.is_none() => {
                    self.flags.ignored.push(positive.to_owned());
                    Ok(())
                }
                _ => {
                    // Collected, not reported at once: --undefok may still come.
                    self.unknown.push(name.to_owned());
                    Ok(())
                }
            },
        }
    }

    fn kind(&self, name: &str) -> Kind {
        // The lists of ignored names are asked last, so that a flag that gains a meaning needs no edit there.
        let known = self.flags.definitions().into_iter().find(|definition| definition.name == name);
        match known.map(|definition| definition.kind) {
            Some("bool") => Kind::Boolean,
            Some(_) => Kind::Value,
            None if ignored::BOOLEANS.contains(&name) => Kind::IgnoredBoolean,
            None if ignored::VALUES.contains(&name) => Kind::IgnoredValue,
            None => Kind::Unknown,
        }
    }

    fn assign(&mut self, name: &str, value: &str) -> Result<(), String> {
        match self.flags.set(name, value) {
            Some(Err(kind)) => Err(format!("illegal value '{value}' specified for {kind} flag '{name}'")),
            _ => Ok(()),
        }
    }

    fn file(&mut self, path: &str, depth: u32) -> Result<(), String> {
        // A file may name further files; one that names itself must not go on forever.
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
            let near = nearest(name, definitions.iter().map(|definition| definition.name));
            if !near.is_empty() {
                let _ = write!(message, "; did you mean --{}?", near.join(", --"));
            }
        }
        Err(message)
    }
}

impl Flags {
    /// Refuses what no benchmark can run with.
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
        range("queue_depth", self.queue_depth, 0, 1 << 40)?;
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
        choice("expire_style", &self.expire_style, &["none", "delete"])?;
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

/// The names that resemble `name`, nearest first, three at most.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = names
        .map(|known| {
            // A piece of a name is as good as a slip of the finger.
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
            parse(&["--histogram=false", "--sync=1", "-disable-wal", "--seed=0x10", "--deletes=-1"]).unwrap();
        assert!(!flags.histogram && flags.sync && flags.disable_wal);
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
        let all: Vec<&str> = ignored::BOOLEANS.iter().chain(ignored::VALUES).copied().collect();
        for definition in Flags::default().definitions() {
            assert!(!all.contains(&definition.name), "--{} has a meaning and is ignored", definition.name);
        }
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len(), "a name stands twice in the lists of ignored flags");
    }
}
