//! Every flag with its group, type, default and help.

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
            pub(super) fn set(&mut self, name: &str, text: &str) -> Option<Result<(), &'static str>> {
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
            pub(super) fn definitions(&self) -> Vec<Definition> {
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

pub(super) struct Definition {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) value: String,
    pub(super) help: &'static str,
}

/// The type of a flag, with its gflags name for messages.
pub(super) trait FlagValue: Sized {
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
