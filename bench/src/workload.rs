//! The benchmarks by name, and the run of one: plan, fresh database, threads that start together,
//! merged report.
//!
//! A benchmark is a row of [`GROUPS`]: a name, its requirements, and a function. Most functions are
//! the loop of one thread ([`Worker`]). They are in the modules below, by the calls that they make
//! to the engine.
mod beside;
mod checksum;
mod codec;
mod fill;
mod index;
mod maintenance;
mod mixed;
mod mixgraph;
mod queue;
mod read;
mod rounds;
mod scan;
mod series;
mod ttl;
mod truth;
mod verified;
mod ycsb;

use crate::engine::{Engine, WriteMode};
use crate::flags::{Flags, columns, nearest};
use crate::folder::Folder;
use crate::limit::{Limit, RateLimiter};
use crate::log_file;
use crate::report::combined::Combined;
use crate::report::interval::IntervalReport;
use crate::report::{Counters, Progress, Stats};
use fastrand::Rng;
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_bench::keys::{KeyBuffer, Numbers, Order, ReadKeys};
use sapwood_bench::process::Cpu;
use sapwood_bench::schedule::{Schedule, Spacing};
use sapwood_bench::values::{Sizes, ValuePool, Values};
use sapwood_bench::ycsb::Records;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// A benchmark of `--benchmarks`.
struct Benchmark {
    name: &'static str,
    help: &'static str,
    /// Whether it starts with an empty database.
    fresh: bool,
    /// Changes the parameters of the flags.
    adjust: fn(&mut Parameters),
    body: Body,
}

impl Benchmark {
    /// The minimum size of its keys in bytes.
    fn least_key_size(&self) -> usize {
        match self.name {
            "timeseries" | "scanbeside" => 16,
            "queue" | "ttlchurn" => 8,
            _ => 4,
        }
    }
}

#[derive(Clone, Copy)]
enum Body {
    /// A loop for every thread.
    Threads(fn(&mut Worker<'_>) -> Result<()>),
    /// The same, after a preparation that is not timed.
    Prepared(fn(&mut Bench, &Parameters) -> Result<()>, fn(&mut Worker<'_>) -> Result<()>),
    /// The same, with one more thread, number 0, that works in the background until the others end.
    Background(fn(&mut Worker<'_>) -> Result<()>),
    /// Runs once, alone on the database, and is reported like the others.
    Alone(fn(&mut Bench, &Parameters, &mut Stats) -> Result<()>),
    /// Runs once and prints its own output.
    Silent(fn(&mut Bench) -> Result<()>),
}

/// Counts and sizes: the flags that a benchmark may change.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Number of keys.
    pub num: u64,
    /// Reads per thread.
    pub reads: u64,
    /// Writes per thread.
    pub writes: u64,
    /// Deletes per thread.
    pub deletes: u64,
    /// Operations per thread of benchmarks that mix reads and writes.
    pub operations: u64,
    /// Number of threads, without the background thread.
    pub threads: usize,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: u64,
    /// Whether the flags set it.
    pub value_size_given: bool,
    /// Keys per batch.
    pub batch_size: u64,
    /// The durability that a write waits for.
    pub mode: WriteMode,
    /// Operations per second in an open loop.
    pub open_loop_rate: Option<f64>,
}

impl Parameters {
    fn new(flags: &Flags) -> Parameters {
        Parameters {
            num: flags.num as u64,
            reads: flags.read_count(),
            writes: flags.write_count(),
            deletes: flags.delete_count(),
            operations: match flags.reads.max(flags.writes) {
                both if both < 0 => flags.num as u64,
                larger => larger as u64,
            },
            threads: flags.threads as usize,
            key_size: flags.key_size as usize,
            value_size: flags.value_size as u64,
            value_size_given: flags.given.contains(&"value_size"),
            batch_size: flags.batch_size as u64,
            mode: match (flags.disable_wal, flags.sync) {
                (true, _) => WriteMode::NoLog,
                (false, true) => WriteMode::Sync,
                (false, false) => WriteMode::Default,
            },
            open_loop_rate: (flags.open_loop_rate > 0.0).then_some(flags.open_loop_rate),
        }
    }

    /// Divides keys and operations, for slow benchmarks.
    fn divide(&mut self, by: u64) {
        for count in
            [&mut self.num, &mut self.reads, &mut self.writes, &mut self.deletes, &mut self.operations]
        {
            *count = (*count / by).max(1);
        }
    }
}

fn unchanged(_: &mut Parameters) {}

/// Benchmarks of one kind.
struct Group {
    title: &'static str,
    benchmarks: &'static [Benchmark],
}

/// All benchmarks, in the order of the help.
#[rustfmt::skip]
static GROUPS: &[Group] = &[
    Group { title: "Writing", benchmarks: &[
        Benchmark { name: "fillseq", fresh: true, adjust: unchanged, body: Body::Threads(fill::sequential),
            help: "Write num keys in order." },
        Benchmark { name: "fillrandom", fresh: true, adjust: unchanged, body: Body::Threads(fill::random),
            help: "Write num random keys." },
        Benchmark { name: "filluniquerandom", fresh: true, adjust: |p| p.threads = 1, body: Body::Threads(fill::unique_random),
            help: "Write every key once, in random order, with one thread." },
        Benchmark { name: "fillanddeleteuniquerandom", fresh: true, adjust: |p| p.threads = 1, body: Body::Threads(fill::unique_random_and_delete),
            help: "The same in groups: disposable_entries_batch_size entries that are deleted later, persistent_entries_batch_size that stay." },
        Benchmark { name: "fillsync", fresh: true, adjust: |p| { p.divide(1000); p.mode = WriteMode::Sync }, body: Body::Threads(fill::random),
            help: "Write num/1000 random keys, each to the device." },
        Benchmark { name: "fillbatch", fresh: true, adjust: |p| p.batch_size = 1000, body: Body::Threads(fill::sequential),
            help: "Write num keys in order, 1000 in a batch." },
        Benchmark { name: "fill100K", fresh: true, adjust: |p| { p.divide(1000); p.value_size = 100_000 }, body: Body::Threads(fill::random),
            help: "Write num/1000 random keys with values of 100,000 bytes." },
        Benchmark { name: "overwrite", fresh: false, adjust: unchanged, body: Body::Threads(fill::random),
            help: "Write num random keys over what is there." },
        Benchmark { name: "deleteseq", fresh: false, adjust: unchanged, body: Body::Threads(fill::delete_sequential),
            help: "Delete keys in order." },
        Benchmark { name: "deleterandom", fresh: false, adjust: unchanged, body: Body::Threads(fill::delete_random),
            help: "Delete random keys." },
    ] },
    Group { title: "Reading", benchmarks: &[
        Benchmark { name: "readrandom", fresh: false, adjust: unchanged, body: Body::Threads(read::random),
            help: "Read random keys." },
        Benchmark { name: "readrandomsmall", fresh: false, adjust: |p| p.reads = (p.reads / 1000).max(1), body: Body::Threads(read::random),
            help: "The same, with a thousandth of the reads." },
        Benchmark { name: "readrandomfast", fresh: false, adjust: unchanged, body: Body::Threads(read::random_fast),
            help: "Read random keys below the next power of two, counted by the hundred." },
        Benchmark { name: "readmissing", fresh: false, adjust: |p| p.key_size += 1, body: Body::Threads(read::random),
            help: "Read random keys that do not exist, between those that do." },
        Benchmark { name: "readhot", fresh: false, adjust: unchanged, body: Body::Threads(read::hot),
            help: "Read random keys of the first hundredth." },
        Benchmark { name: "readtocache", fresh: false, adjust: |p| p.threads = 1, body: Body::Threads(read::in_order),
            help: "Read every key in order, with one thread: warms the cache." },
        Benchmark { name: "readtorowcache", fresh: false, adjust: |p| p.threads = 1, body: Body::Threads(read::in_order),
            help: "The same; there is no cache of rows." },
        Benchmark { name: "multireadrandom", fresh: false, adjust: unchanged, body: Body::Threads(read::multi),
            help: "Read batch_size random keys with one call." },
        Benchmark { name: "approximatesizerandom", fresh: false, adjust: unchanged, body: Body::Threads(read::approximate_size),
            help: "Estimate the bytes between random keys." },
    ] },
    Group { title: "Iterating", benchmarks: &[
        Benchmark { name: "readseq", fresh: false, adjust: unchanged, body: Body::Threads(scan::forward),
            help: "Iterate over reads entries from the first." },
        Benchmark { name: "readreverse", fresh: false, adjust: unchanged, body: Body::Threads(scan::backward),
            help: "Iterate over reads entries from the last." },
        Benchmark { name: "seekrandom", fresh: false, adjust: unchanged, body: Body::Threads(scan::seek_random),
            help: "Seek to random keys, with seek_nexts steps each." },
        Benchmark { name: "seekordered", fresh: false, adjust: unchanged, body: Body::Threads(scan::seek_ordered),
            help: "Seek to keys in ascending order." },
        Benchmark { name: "multiscan", fresh: false, adjust: unchanged, body: Body::Threads(scan::multi),
            help: "Read multiscan_size ranges of seek_nexts entries (0: 50) with one iterator, and count them as one." },
        Benchmark { name: "multiscanrandom", fresh: false, adjust: unchanged, body: Body::Threads(scan::multi_random),
            help: "The same with up to multiscan_size ranges of random length at random places, in order and apart from each other." },
        Benchmark { name: "newiterator", fresh: false, adjust: unchanged, body: Body::Threads(scan::new_iterator),
            help: "Create and drop an iterator." },
        Benchmark { name: "fillseekseq", fresh: false, adjust: unchanged, body: Body::Threads(scan::fill_seek_sequential),
            help: "Write num keys in order, then seek to each." },
    ] },
    Group { title: "Mixed", benchmarks: &[
        Benchmark { name: "readwhilewriting", fresh: false, adjust: unchanged, body: Body::Background(mixed::read_while_writing),
            help: "readrandom while one more thread writes." },
        Benchmark { name: "multireadwhilewriting", fresh: false, adjust: unchanged, body: Body::Background(mixed::multi_read_while_writing),
            help: "multireadrandom while one more thread writes." },
        Benchmark { name: "seekrandomwhilewriting", fresh: false, adjust: unchanged, body: Body::Background(mixed::seek_while_writing),
            help: "seekrandom while one more thread writes." },
        Benchmark { name: "newiteratorwhilewriting", fresh: false, adjust: unchanged, body: Body::Background(mixed::new_iterator_while_writing),
            help: "newiterator while one more thread writes." },
        Benchmark { name: "readwhilescanning", fresh: false, adjust: unchanged, body: Body::Background(mixed::read_while_scanning),
            help: "readrandom while one more thread iterates over everything." },
        Benchmark { name: "readrandomwriterandom", fresh: false, adjust: unchanged, body: Body::Threads(mixed::read_random_write_random),
            help: "Of random keys, read readwritepercent and write the rest." },
        Benchmark { name: "updaterandom", fresh: false, adjust: unchanged, body: Body::Threads(mixed::update_random),
            help: "Read a random key and write it." },
        Benchmark { name: "xorupdaterandom", fresh: false, adjust: unchanged, body: Body::Threads(mixed::xor_update_random),
            help: "Read a random key and write it back xor another value." },
        Benchmark { name: "appendrandom", fresh: false, adjust: unchanged, body: Body::Threads(mixed::append_random),
            help: "Read a random key and write it back with a value appended." },
        Benchmark { name: "randomwithverify", fresh: false, adjust: unchanged, body: Body::Threads(verified::run),
            help: "Read, write and delete numdistinct groups of three keys; a snapshot that sees them differ is an error." },
    ] },
    Group { title: "A secondary index", benchmarks: &[
        Benchmark { name: "fillindexed", fresh: true, adjust: unchanged, body: Body::Prepared(index::prepare, index::write),
            help: "fillrandom with an index on 8 random bytes of each value. The others make the index if it is not there." },
        Benchmark { name: "updateindexed", fresh: false, adjust: unchanged, body: Body::Prepared(index::prepare, index::write),
            help: "overwrite with the index: each write moves the index key of its row." },
        Benchmark { name: "indexlookup", fresh: false, adjust: unchanged, body: Body::Prepared(index::prepare, index::lookup),
            help: "Read all rows of random index keys." },
        Benchmark { name: "indexrange", fresh: false, adjust: unchanged, body: Body::Prepared(index::prepare, index::range),
            help: "Read the rows of seek_nexts entries (0: 50) from random index keys on." },
        Benchmark { name: "indexonlyscan", fresh: false, adjust: unchanged, body: Body::Prepared(index::prepare, index::scan),
            help: "Iterate over reads entries of the index, without their rows." },
        Benchmark { name: "indexcount", fresh: false, adjust: unchanged, body: Body::Prepared(index::prepare, index::count),
            help: "Count the entries between random index keys." },
    ] },
    Group { title: "Like applications", benchmarks: &[
        Benchmark { name: "ycsbload", fresh: true, adjust: ycsb::adjust, body: Body::Prepared(ycsb::prepare_load, ycsb::load),
            help: "Insert num records, all threads together, for the six that follow. They run it by themselves if the database is empty. Records have 1000 bytes unless value_size is given." },
        Benchmark { name: "ycsba", fresh: false, adjust: ycsb::adjust, body: Body::Prepared(ycsb::prepare, ycsb::a),
            help: "YCSB A: 50 % reads, 50 % updates of zipfian records. Every record that was inserted must be found." },
        Benchmark { name: "ycsbb", fresh: false, adjust: ycsb::adjust, body: Body::Prepared(ycsb::prepare, ycsb::b),
            help: "YCSB B: 95 % reads, 5 % updates." },
        Benchmark { name: "ycsbc", fresh: false, adjust: ycsb::adjust, body: Body::Prepared(ycsb::prepare, ycsb::c),
            help: "YCSB C: reads." },
        Benchmark { name: "ycsbd", fresh: false, adjust: ycsb::adjust, body: Body::Prepared(ycsb::prepare, ycsb::d),
            help: "YCSB D: 95 % reads of the latest records, 5 % inserts." },
        Benchmark { name: "ycsbe", fresh: false, adjust: ycsb::adjust, body: Body::Prepared(ycsb::prepare, ycsb::e),
            help: "YCSB E: 95 % scans of 1 to 100 records, 5 % inserts." },
        Benchmark { name: "ycsbf", fresh: false, adjust: ycsb::adjust, body: Body::Prepared(ycsb::prepare, ycsb::f),
            help: "YCSB F: 50 % reads, 50 % read-modify-writes." },
        Benchmark { name: "mixgraph", fresh: false, adjust: unchanged, body: Body::Threads(mixgraph::run),
            help: "Gets, puts and scans with the distributions measured at Facebook; see the flags of mixgraph." },
        Benchmark { name: "timeseries", fresh: true, adjust: unchanged, body: Body::Background(series::run),
            help: "One more thread appends to key_id_range series while threads read whole series, or delete what has expired." },
        Benchmark { name: "queue", fresh: true, adjust: unchanged, body: Body::Threads(queue::run),
            help: "Each thread fills a queue to queue_depth, then pops what an iterator finds first and appends another entry, in turn. Finding the first (seek) and deleting it (pop) have histograms of their own." },
        Benchmark { name: "ttlchurn", fresh: true, adjust: unchanged, body: Body::Threads(ttl::run),
            help: "Insert records and delete those that are ttl_writes old, all over the key space, and read both kinds (readwritepercent, 50 unless given)." },
        Benchmark { name: "scanbeside", fresh: false, adjust: unchanged, body: Body::Prepared(beside::prepare_scans, beside::scan),
            help: "Read all rows of prefixes beside deleted_neighbours deleted rows, which are made if the database has none; flush or compact may come between two runs." },
        Benchmark { name: "smallputs", fresh: false, adjust: |p| { p.divide(100); p.open_loop_rate = p.open_loop_rate.or(Some(1000.0)) }, body: Body::Background(beside::small_puts),
            help: "Write num/100 random keys on the schedule of open_loop_rate (0: 1000 a second) while one more thread commits large_commit_size bytes at once; latencies count from the schedule." },
    ] },
    Group { title: "The whole database", benchmarks: &[
        Benchmark { name: "open", fresh: false, adjust: |p| p.divide(10_000), body: Body::Alone(maintenance::open),
            help: "Close and open the database num/10000 times." },
        Benchmark { name: "openclose", fresh: true, adjust: unchanged, body: Body::Alone(rounds::open_close),
            help: "Open a database, write a row and close it open_rounds times, then have open_databases of them open at once; prints memory, descriptors and threads before and after. None may be left behind." },
        Benchmark { name: "verify", fresh: false, adjust: unchanged, body: Body::Alone(truth::verify),
            help: "Compare all rows with those of the database in truth_db." },
        Benchmark { name: "flush", fresh: false, adjust: unchanged, body: Body::Alone(maintenance::flush),
            help: "Write the memtables to tables." },
        Benchmark { name: "compact", fresh: false, adjust: unchanged, body: Body::Alone(maintenance::compact),
            help: "Compact everything." },
        Benchmark { name: "compactall", fresh: false, adjust: unchanged, body: Body::Alone(maintenance::compact),
            help: "The same." },
        Benchmark { name: "compact0", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::compact_level),
            help: "Flush, and wait for the compactions that are due: the engine chooses them." },
        Benchmark { name: "compact1", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::compact_level),
            help: "The same." },
        Benchmark { name: "waitforcompaction", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::wait_for_compaction),
            help: "Wait until no flush and no compaction is due." },
    ] },
    Group { title: "Printing", benchmarks: &[
        Benchmark { name: "stats", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::stats),
            help: "Print the engine's statistics." },
        Benchmark { name: "resetstats", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::reset_stats),
            help: "Count statistics from here." },
        Benchmark { name: "levelstats", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::level_stats),
            help: "Print files and bytes of every level." },
        Benchmark { name: "sstables", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::tables),
            help: "Print name and size of every table." },
        Benchmark { name: "memstats", fresh: false, adjust: unchanged, body: Body::Silent(maintenance::memory_stats),
            help: "Print the memory in use, and what the process has written." },
    ] },
    Group { title: "Of the machine", benchmarks: &[
        Benchmark { name: "crc32c", fresh: false, adjust: unchanged, body: Body::Threads(checksum::crc32c),
            help: "CRC-32C of block_size bytes." },
        Benchmark { name: "xxhash", fresh: false, adjust: unchanged, body: Body::Threads(checksum::xxhash),
            help: "XXH32 of block_size bytes." },
        Benchmark { name: "xxhash64", fresh: false, adjust: unchanged, body: Body::Threads(checksum::xxhash64),
            help: "XXH64 of block_size bytes." },
        Benchmark { name: "xxh3", fresh: false, adjust: unchanged, body: Body::Threads(checksum::xxh3),
            help: "XXH3, the engine's checksum, of block_size bytes." },
        Benchmark { name: "compress", fresh: false, adjust: unchanged, body: Body::Threads(codec::compress),
            help: "Compress block_size bytes with compression_type." },
        Benchmark { name: "compressreject", fresh: false, adjust: unchanged, body: Body::Threads(codec::compress_reject),
            help: "Compress block_size random bytes, which become no smaller." },
        Benchmark { name: "uncompress", fresh: false, adjust: unchanged, body: Body::Threads(codec::uncompress),
            help: "Decompress them." },
        Benchmark { name: "acquireload", fresh: false, adjust: unchanged, body: Body::Threads(checksum::acquire_load),
            help: "A thousand atomic loads with acquire ordering." },
    ] },
];

/// Benchmarks of RocksDB that need a missing feature.
static UNSUPPORTED: &[(&str, &str)] = &[
    ("fillembeddedblob", "values in files of their own"),
    ("fillembeddedentity", "wide columns"),
    ("multireadentity", "wide columns"),
    ("readrandomentity", "wide columns"),
    ("readrandomcoroutine", "reads in coroutines; readrandom with --threads does several at a time"),
    ("multireadrandomcoroutine", "reads in coroutines; multireadrandom reads a batch with one call"),
    ("heapprofile", "a heap profiler; memstats prints the memory in use"),
    ("mergerandom", "merge operators"),
    ("readrandommergerandom", "merge operators"),
    ("readwhilemerging", "merge operators"),
    ("seekrandomwhilemerging", "merge operators"),
    ("getmergeoperands", "merge operators"),
    ("readrandomoperands", "merge operators"),
    ("randomtransaction", "transactions"),
    ("randomreplacekeys", "single deletes"),
    ("fillseqdeterministic", "a way to place tables in levels"),
    ("filluniquerandomdeterministic", "a way to place tables in levels"),
    ("backup", "backups"),
    ("restore", "backups"),
    ("ingestexternalfile", "ingestion of tables"),
    ("replay", "traces of operations"),
    ("verifychecksum", "a check of all checksums at once"),
    ("verifyfilechecksums", "a check of all checksums at once"),
    ("stats_history", "a history of statistics"),
    ("approximatememtablestats", "estimates of memtables"),
    ("block_cache_entry_stats", "statistics of the cache's entries"),
    ("cache_report_problems", "statistics of the cache's entries"),
    ("openandcompact", "compaction by another process"),
];

/// Names in other programs, and the names here.
static ELSEWHERE: &[(&str, &str)] = &[
    ("ycsbfilldb", "ycsbload"),
    ("ycsbwarmup", "ycsbc[W1]"),
    ("ycsb_load", "ycsbload"),
    ("load", "ycsbload"),
    ("snappycomp", "compress with --compression_type=lz4"),
    ("snappyuncomp", "uncompress with --compression_type=lz4"),
    ("zstdcomp", "compress with --compression_type=zstd"),
    ("zstduncomp", "uncompress with --compression_type=zstd"),
    ("fillseqbatch", "fillbatch"),
    ("fillrandbatch", "fillrandom with --batch_size=1000"),
    ("fillrandsync", "fillsync"),
    ("fillseqsync", "fillseq with --sync"),
    ("fillrand100K", "fill100K"),
    ("fillseq100K", "fillseq with --value_size=100000"),
    ("readrand100K", "readrandom with --value_size=100000"),
];

/// The name here of a benchmark that another program calls `name`.
fn name_here(name: &str) -> Option<String> {
    if let Some((_, here)) = ELSEWHERE.iter().find(|(there, _)| *there == name) {
        return Some((*here).to_owned());
    }
    // ycsbwklda, ycsbworkloada, ycsb_a, YCSB-A, workloada: the letter is common to all.
    let lower = name.to_ascii_lowercase();
    let (rest, is_ycsb) = match lower.strip_prefix("ycsb") {
        Some(rest) => (rest.trim_start_matches(['_', '-']), true),
        None => (lower.as_str(), false),
    };
    let letter = ["workload", "wkld"].iter().find_map(|word| rest.strip_prefix(word));
    let letter = match letter {
        Some(letter) => letter.trim_start_matches(['_', '-']),
        None if is_ycsb => rest,
        None => return None,
    };
    matches!(letter, "a" | "b" | "c" | "d" | "e" | "f").then(|| format!("ycsb{letter}"))
}

fn benchmarks() -> impl Iterator<Item = &'static Benchmark> {
    GROUPS.iter().flat_map(|group| group.benchmarks)
}

/// The list of benchmarks in the help.
pub fn help() -> String {
    let mut text = String::new();
    for Group { title, benchmarks } in GROUPS {
        let _ = writeln!(text, "\n  {title}");
        for Benchmark { name, help, fresh, .. } in *benchmarks {
            let star = if *fresh { " *" } else { "" };
            text += &columns(&format!("  {name}{star}"), help);
        }
    }
    text + "\n  * makes a new database, and is skipped with --use_existing_db\n"
}

/// One entry of `--benchmarks`.
pub struct Planned {
    benchmark: &'static Benchmark,
    repeats: u32,
    warm_ups: u32,
}

/// Parses `--benchmarks`. The error names the unknown benchmark.
pub fn plan(benchmarks: &str) -> std::result::Result<Vec<Planned>, String> {
    benchmarks.split(',').map(str::trim).filter(|item| !item.is_empty()).map(plan_one).collect()
}

fn plan_one(item: &str) -> std::result::Result<Planned, String> {
    let (name, arguments) = match item.split_once('[') {
        Some((name, rest)) => {
            let inside =
                rest.strip_suffix(']').ok_or_else(|| format!("'{item}' lacks its closing bracket"))?;
            (name, Some(inside))
        }
        None => (item, None),
    };
    let Some(benchmark) = benchmarks().find(|benchmark| benchmark.name == name) else {
        if let Some((_, missing)) = UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name) {
            return Err(format!("benchmark '{name}' needs {missing}, which Sapwood does not have"));
        }
        if let Some(here) = name_here(name) {
            return Err(format!("unknown benchmark '{name}'; it is called {here} here"));
        }
        let near = nearest(name, benchmarks().map(|benchmark| benchmark.name));
        let hint =
            if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) };
        return Err(format!("unknown benchmark '{name}'{hint} (--help lists those there are)"));
    };
    let mut planned = Planned { benchmark, repeats: 1, warm_ups: 0 };
    for argument in arguments.into_iter().flat_map(|arguments| arguments.split('-')) {
        let bad = || format!("'{argument}' in '{item}' is neither X (runs) nor W (warm-ups) and a number");
        let target = match argument.get(..1) {
            Some("X" | "x") => &mut planned.repeats,
            Some("W" | "w") => &mut planned.warm_ups,
            _ => return Err(bad()),
        };
        *target = argument[1..].parse().map_err(|_| bad())?;
    }
    if planned.repeats == 0 {
        return Err(format!("'{item}' would run zero times"));
    }
    Ok(planned)
}

/// Checks, before the first run, that the flags suit every benchmark of the plan.
pub fn check(plan: &[Planned], flags: &Flags) -> std::result::Result<(), String> {
    for Planned { benchmark, .. } in plan {
        let mut parameters = Parameters::new(flags);
        (benchmark.adjust)(&mut parameters);
        let name = benchmark.name;
        if parameters.mode == WriteMode::Sync && flags.disable_wal {
            return Err(format!("{name} syncs the log, and --disable_wal leaves it out"));
        }
        if flags.use_existing_keys && (name == "readmissing" || name.starts_with("ycsb")) {
            return Err(format!(
                "{name} makes its keys from numbers, and --use_existing_keys takes those there are"
            ));
        }
        if parameters.key_size < benchmark.least_key_size() {
            return Err(format!("{name} needs a --key_size of at least {}", benchmark.least_key_size()));
        }
    }
    Ok(())
}

/// A run of `db_bench`: the flags, the database, and the state that outlives one benchmark.
pub struct Bench {
    flags: Flags,
    /// Dropped before `folder`, which may remove the files.
    engine: Option<Arc<Engine>>,
    folder: Folder,
    interval_report: Option<IntervalReport>,
    last_writer: Option<LastWriter>,
    /// The records of the YCSB workloads, if known.
    records: Option<Arc<Records>>,
    /// See `--use_existing_keys`.
    existing_keys: Option<Arc<[Box<[u8]>]>>,
    /// Number of runs so far.
    runs: u64,
    /// Number of threads started so far. Each has its own random numbers, also in later benchmarks:
    /// a read that replayed the keys of the fill would find all of them, in the order of their
    /// insertion.
    threads_started: AtomicU64,
}

/// The last benchmark that wrote: later background work belongs to it.
struct LastWriter {
    name: &'static str,
    writes: u64,
    before: Cpu,
}

impl Bench {
    /// Prepares a run. Removes an existing database, unless the flags use it.
    pub fn new(flags: Flags) -> Result<Bench> {
        let folder =
            Folder::new(&flags.db).map_err(|error| Error::io("create a folder", &flags.db, error))?;
        if !flags.use_existing_db && !flags.readonly {
            destroy(&folder, &flags)?;
        }
        let interval_report = match u64::try_from(flags.report_interval_seconds) {
            Ok(seconds @ 1..) => {
                let path = Path::new(&flags.report_file);
                let report = IntervalReport::start(path, Duration::from_secs(seconds));
                Some(report.map_err(|error| Error::io("create", path, error))?)
            }
            _ => None,
        };
        Ok(Bench {
            flags,
            engine: None,
            folder,
            interval_report,
            last_writer: None,
            records: None,
            existing_keys: None,
            runs: 0,
            threads_started: AtomicU64::new(0),
        })
    }

    /// Runs the plan in order.
    pub fn run(&mut self, plan: &[Planned]) -> Result<()> {
        for planned in plan {
            self.run_planned(planned)?;
        }
        if self.flags.statistics {
            let engine = self.engine()?;
            crate::print(&format!("STATISTICS:\n{}{}\n", engine.figures().counters(), engine.statistics()));
        }
        match self.engine.take().map(Arc::try_unwrap) {
            Some(Ok(engine)) => engine.close(),
            _ => Ok(()),
        }
    }

    /// The open database; opens it first if necessary.
    fn engine(&mut self) -> Result<Arc<Engine>> {
        if let Some(engine) = &self.engine {
            return Ok(Arc::clone(engine));
        }
        log_file::check(self.folder.path(), &self.flags)?;
        let engine = Arc::new(Engine::open(self.folder.path(), &self.flags)?);
        if let (Folder::Named(folder), false) = (&self.folder, self.flags.readonly) {
            log_file::write(folder, &self.flags)?;
        }
        self.engine = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// Closes the database, if it is open.
    fn close(&mut self) -> Result<()> {
        match self.engine.take().map(Arc::try_unwrap) {
            Some(Ok(engine)) => engine.close(),
            Some(Err(_)) => unreachable!("nothing else holds the engine between benchmarks"),
            None => Ok(()),
        }
    }

    /// Reads the existing keys; their number replaces `--num`.
    fn read_keys(&mut self) -> Result<()> {
        let mut keys = Vec::new();
        let mut cursor = self.engine()?.cursor()?;
        cursor.seek_to_first()?;
        while cursor.valid() {
            keys.push(Box::from(cursor.key()));
            cursor.next()?;
        }
        if keys.is_empty() {
            return Err(Error::invalid_argument("--use_existing_keys: the database has no keys"));
        }
        self.flags.num = keys.len() as i64;
        self.existing_keys = Some(keys.into());
        Ok(())
    }

    fn run_planned(&mut self, planned: &Planned) -> Result<()> {
        let Planned { benchmark, repeats, warm_ups } = planned;
        let Benchmark { name, fresh, adjust, body, .. } = **benchmark;
        if fresh && (self.flags.use_existing_db || self.flags.readonly) {
            crate::print(&format!("{name:<12} : skipped (--use_existing_db is true)\n"));
            return Ok(());
        }
        if self.flags.use_existing_keys && self.existing_keys.is_none() {
            self.read_keys()?;
        }
        let mut parameters = Parameters::new(&self.flags);
        adjust(&mut parameters);
        if let Body::Silent(body) = body {
            let before = Cpu::now();
            let start = Instant::now();
            body(self)?;
            if name == "waitforcompaction" {
                self.report_cpu(name, 0, before, start.elapsed());
            }
            return Ok(());
        }
        if parameters.threads as i64 != self.flags.threads {
            eprintln!("{name} uses {} thread", parameters.threads);
        }
        crate::print(&format!("DB path: [{}]\n", self.folder.path().display()));
        if *warm_ups > 0 {
            crate::print(&format!("Warming up benchmark by running {warm_ups} times\n"));
        }
        if *repeats > 1 && *warm_ups == 0 {
            crate::print(&format!("Running benchmark for {repeats} times\n"));
        }
        let mut combined = Combined::default();
        for run in 0..warm_ups + repeats {
            if fresh {
                // Every run of a filling benchmark has an empty database, so that all runs are
                // alike.
                self.close()?;
                destroy(&self.folder, &self.flags)?;
                self.records = None;
            }
            if run == *warm_ups && *warm_ups > 0 {
                crate::print(&format!("Running benchmark for {repeats} times\n"));
            }
            let stats = self.run_once(name, body, &parameters)?;
            if run >= *warm_ups {
                combined.add(&stats);
                let interval_only = self.flags.confidence_interval_only;
                crate::print(&if interval_only {
                    combined.report_interval(name)
                } else {
                    combined.report(name)
                });
            }
        }
        crate::print(&combined.report_final(name));
        Ok(())
    }

    /// One run of one benchmark, with its line of output.
    fn run_once(&mut self, name: &'static str, body: Body, parameters: &Parameters) -> Result<Stats> {
        // Opening and preparing count neither as time nor as processor time.
        self.engine()?;
        if let Body::Prepared(prepare, _) = body {
            prepare(self, parameters)?;
        }
        self.runs += 1;
        let before = Cpu::now();
        let mut open_loop = String::new();
        let stats = match body {
            Body::Threads(body) | Body::Prepared(_, body) => {
                self.run_threads(body, parameters, 0, &mut open_loop)?
            }
            Body::Background(body) => self.run_threads(body, parameters, 1, &mut open_loop)?,
            Body::Alone(body) => {
                let mut stats = self.start_stats(0, None);
                body(self, parameters, &mut stats)?;
                stats.stop();
                stats
            }
            Body::Silent(_) => unreachable!("silent benchmarks have no line"),
        };
        crate::print(&(stats.report(name) + &open_loop));
        if stats.writes() > 0 {
            self.last_writer = Some(LastWriter { name, writes: stats.writes(), before });
        }
        self.report_cpu(name, stats.done(), before, Duration::from_secs_f64(stats.elapsed_seconds()));
        Ok(stats)
    }

    fn run_threads(
        &mut self,
        body: fn(&mut Worker<'_>) -> Result<()>,
        parameters: &Parameters,
        background: usize,
        open_loop: &mut String,
    ) -> Result<Stats> {
        let engine = self.engine()?;
        let threads = parameters.threads + background;
        let flags = &self.flags;
        let values = ValuePool::new(flags.compression_ratio, sizes(flags, parameters.value_size))
            .with_same_percent(flags.same_value_percentage as u32);
        let shared = Shared {
            barrier: Barrier::new(threads),
            foreground: AtomicUsize::new(parameters.threads),
            // A changing rate is set by the threads that use it.
            write_rate: RateLimiter::new(
                flags.benchmark_write_rate_limit.max(i64::from(flags.sine_write_rate)),
            ),
            read_rate: RateLimiter::new(flags.benchmark_read_rate_limit),
            mix_rate: RateLimiter::new(i64::from(flags.sine_mix_rate)),
            schedule: parameters.open_loop_rate.map(|rate| schedule(flags, rate)),
            records: self.records.clone(),
            clock: AtomicU64::new(0),
        };
        let results: Vec<Result<Stats>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads)
                .map(|thread| {
                    let (engine, shared, values) = (&*engine, &shared, &values);
                    let (bench, each_line) = (&*self, self.each_line());
                    // Relaxed: only the number is used.
                    let number = bench.threads_started.fetch_add(1, Ordering::Relaxed);
                    // Forked, since random numbers of neighbouring seeds are similar.
                    let mut random = Rng::with_seed((flags.seed as u64).wrapping_add(number)).fork();
                    scope.spawn(move || {
                        let values = values.walk(&mut random);
                        let keys = bench.key_buffer(parameters);
                        shared.barrier.wait();
                        let stats = bench.start_stats(thread, each_line);
                        let mut worker = Worker {
                            thread,
                            engine,
                            flags: &bench.flags,
                            parameters,
                            shared,
                            random,
                            keys,
                            values,
                            stats,
                        };
                        let result = body(&mut worker);
                        worker.stats.stop();
                        if thread >= background {
                            // Relaxed: only the number is used; join publishes the results.
                            shared.foreground.fetch_sub(1, Ordering::Relaxed);
                        }
                        result.map(|()| worker.stats)
                    })
                })
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut merged: Option<Stats> = None;
        for stats in results {
            let stats = stats?;
            match &mut merged {
                Some(merged) => merged.merge(&stats),
                None => merged = Some(stats),
            }
        }
        let merged = merged.expect("there is at least one thread");
        if let Some(schedule) = &shared.schedule {
            *open_loop = self.open_loop_report(schedule, parameters, &merged);
        }
        Ok(merged)
    }

    /// The lines on an open loop, which follow the result.
    fn open_loop_report(&self, schedule: &Schedule, parameters: &Parameters, stats: &Stats) -> String {
        let Some(latencies) = stats.latencies() else {
            return "open loop    : this benchmark does not go by a schedule\n".to_owned();
        };
        let rate = parameters.open_loop_rate.unwrap_or_default();
        let spacing = &self.flags.open_loop_spacing;
        let mut text = format!(
            "open loop    : {rate} ops/sec asked for ({spacing}), {:.1} done; micros from the intended start:\n",
            latencies.all().count() as f64 / stats.elapsed_seconds(),
        );
        for line in latencies.to_string().lines() {
            let _ = writeln!(text, "  {line}");
        }
        let waiting = if stats.out_of_time() { schedule.waiting(stats.finished()) } else { 0 };
        if waiting > 0 {
            let _ = writeln!(text, "  {waiting} more were due and had not begun when the time was over");
        }
        text
    }

    fn key_buffer(&self, parameters: &Parameters) -> KeyBuffer {
        if let Some(keys) = &self.existing_keys {
            return KeyBuffer::of(Arc::clone(keys));
        }
        let flags = &self.flags;
        KeyBuffer::new(
            parameters.key_size,
            flags.prefix_size as usize,
            flags.keys_per_prefix as u64,
            flags.num as u64,
        )
    }

    fn start_stats(&self, thread: usize, each_line: Option<Arc<dyn Fn() + Send + Sync>>) -> Stats {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let progress = Progress {
            shown: self.flags.shows_progress(),
            slow: self.slow_operation(),
            every_operations: positive(self.flags.stats_interval),
            every_seconds: positive(self.flags.stats_interval_seconds),
            each_line,
        };
        let counters = Counters {
            operations: self.interval_report.as_ref().map(IntervalReport::counter),
            written: self.engine.as_ref().map(|engine| engine.writer(self.runs)),
        };
        Stats::start(thread, self.flags.histogram, progress, counters)
    }

    /// The latency from which an operation is reported as slow.
    fn slow_operation(&self) -> Option<Duration> {
        let told = self.flags.given.contains(&"slow_usecs") || self.flags.shows_progress();
        let micros = u64::try_from(self.flags.slow_usecs).ok().filter(|micros| *micros > 0)?;
        let alone = self.flags.stats_interval == 0 && self.flags.stats_interval_seconds == 0;
        (told && alone).then(|| Duration::from_micros(micros))
    }

    /// The output of `--stats_per_interval`.
    fn each_line(&self) -> Option<Arc<dyn Fn() + Send + Sync>> {
        let engine = self.engine.as_ref().filter(|_| self.flags.stats_per_interval > 0).map(Arc::clone)?;
        Some(Arc::new(move || eprintln!("{}", engine.statistics())))
    }

    /// The line on processor time: of all threads of the process, the engine's included.
    fn report_cpu(&self, name: &str, operations: u64, before: Cpu, elapsed: Duration) {
        if !self.flags.cpu_report {
            return;
        }
        let now = Cpu::now();
        let used = now.since(before);
        let share = 100.0 * used.total.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        let per_operation = |cpu: Cpu, count: u64| cpu.total.as_secs_f64() * 1e6 / count.max(1) as f64;
        // The line does not begin with the name: scripts read results from lines that do.
        let mut line = format!("cpu          : {name}");
        if operations > 0 {
            let _ = write!(line, " {:.3} micros/op;", per_operation(used, operations));
        }
        let _ = write!(
            line,
            " {:.3} seconds, {:.3} of them in the kernel; {share:.0}% of one core",
            used.total.as_secs_f64(),
            used.system.as_secs_f64(),
        );
        // After `waitforcompaction` the line also has the cost of the writes with their background
        // work.
        if let Some(writer) = self.last_writer.as_ref().filter(|_| name == "waitforcompaction") {
            let all = now.since(writer.before);
            let per_write = per_operation(all, writer.writes);
            let _ = write!(line, "; {} and all after it: {per_write:.3} micros/write", writer.name);
        }
        eprintln!("{line}");
    }
}

/// Removes the database, if it exists, and the file beside it.
fn destroy(folder: &Folder, flags: &Flags) -> Result<()> {
    log_file::remove(folder.path())?;
    Engine::destroy(folder.path(), flags)
}

/// The sizes of values: those of the flags, unless the benchmark sets its own.
fn sizes(flags: &Flags, value_size: u64) -> Sizes {
    let (least, most) = (flags.value_size_min as usize, flags.value_size_max as usize);
    match flags.value_size_distribution_type.as_str() {
        "uniform" if value_size == flags.value_size as u64 => Sizes::Uniform(least, most),
        "normal" if value_size == flags.value_size as u64 => Sizes::Normal(least, most),
        _ => Sizes::Fixed(value_size as usize),
    }
}

/// The state that the threads of one benchmark share.
pub struct Shared {
    barrier: Barrier,
    /// Number of running threads, without the background thread.
    foreground: AtomicUsize,
    write_rate: Option<RateLimiter>,
    read_rate: Option<RateLimiter>,
    /// The limit that `--sine_mix_rate` changes.
    mix_rate: Option<RateLimiter>,
    /// The start times of operations in an open loop.
    schedule: Option<Schedule>,
    /// See [`Bench::records`].
    records: Option<Arc<Records>>,
    /// The time of `timeseries`: the number of writes so far.
    clock: AtomicU64,
}

/// The schedule of an open loop.
fn schedule(flags: &Flags, rate: f64) -> Schedule {
    let spacing = if flags.open_loop_spacing == "fixed" { Spacing::Fixed } else { Spacing::Poisson };
    Schedule::new(rate, spacing, flags.seed as u64)
}

impl Shared {
    /// Whether a foreground thread is running; a background thread ends with the last one.
    fn foreground_works(&self) -> bool {
        // Relaxed: one more round does not matter.
        self.foreground.load(Ordering::Relaxed) > 0
    }

    /// The records of the YCSB workloads. Only for benchmarks that prepare them.
    fn records(&self) -> &Records {
        self.records.as_ref().expect("the benchmark prepares its records")
    }
}

/// One thread of a benchmark.
pub struct Worker<'a> {
    thread: usize,
    engine: &'a Engine,
    flags: &'a Flags,
    parameters: &'a Parameters,
    shared: &'a Shared,
    random: Rng,
    keys: KeyBuffer,
    values: Values<'a>,
    stats: Stats,
}

impl<'a> Worker<'a> {
    /// The end of a loop: `operations`, or `--duration` seconds. In an open loop, also its start
    /// times.
    fn limit(&self, operations: u64) -> Limit<'a> {
        Limit::new(operations, self.flags.duration, self.flags.ops_between_duration_checks)
            .at(self.shared.schedule.as_ref())
    }

    /// The same without `--duration`, for loops that end with the keys.
    fn count_limit(&self, operations: u64) -> Limit<'a> {
        Limit::new(operations, 0, 1).at(self.shared.schedule.as_ref())
    }

    /// The keys of random reads.
    fn read_keys(&self) -> ReadKeys {
        ReadKeys::new(self.parameters.num, self.flags.read_random_exp_range)
    }

    /// The numbers of the keys in `order`.
    fn numbers(&mut self, order: Order) -> Numbers {
        Numbers::new(order, self.parameters.num, &mut self.random)
    }
}

/// The error of a benchmark that reads wrong data.
fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Corruption, what)
}

/// Reads are throttled in groups of this size, since a read is faster than a limiter.
const READS_PER_REQUEST: u64 = 256;

/// Waits, once in [`READS_PER_REQUEST`] reads, if reads are throttled.
#[inline]
fn throttle_reads(shared: &Shared, done: u64) {
    if let Some(limiter) = &shared.read_rate
        && done % READS_PER_REQUEST == READS_PER_REQUEST - 1
    {
        limiter.request(READS_PER_REQUEST);
    }
}

/// Counts the `bytes` of a write; if writes are throttled, waits for the limiter first.
#[inline]
fn throttle_writes(shared: &Shared, stats: &mut Stats, bytes: u64) {
    stats.add_written(bytes);
    if let Some(limiter) = &shared.write_rate {
        limiter.request(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_have_names_repeats_and_warm_ups() {
        let planned = plan("fillseq, readrandom[X3],,readseq[W2-X5]").ok().unwrap();
        let shape: Vec<_> = planned
            .iter()
            .map(|planned| (planned.benchmark.name, planned.repeats, planned.warm_ups))
            .collect();
        assert_eq!(shape, [("fillseq", 1, 0), ("readrandom", 3, 0), ("readseq", 5, 2)]);
        for (wrong, message) in [
            ("fillsec", "unknown benchmark 'fillsec'; did you mean fillseq, "),
            ("mergerandom", "needs merge operators"),
            ("fillembeddedentity", "needs wide columns"),
            ("readrandomcoroutine", "readrandom with --threads"),
            ("ycsbfilldb", "unknown benchmark 'ycsbfilldb'; it is called ycsbload here"),
            ("ycsbwklda", "it is called ycsba here"),
            ("ycsbworkloade", "it is called ycsbe here"),
            ("YCSB-F", "it is called ycsbf here"),
            ("workloadb", "it is called ycsbb here"),
            ("ycsbwkldx", "unknown benchmark 'ycsbwkldx'"),
            ("snappycomp", "it is called compress with --compression_type=lz4 here"),
            ("fillseq[X3", "closing bracket"),
            ("fillseq[Y3]", "neither X"),
            ("fillseq[X]", "neither X"),
            ("fillseq[X0]", "zero times"),
        ] {
            let error = plan(wrong).err().unwrap();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn names_are_unique_and_the_default_list_is_known() {
        let mut names: Vec<&str> = benchmarks().map(|benchmark| benchmark.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), benchmarks().count());
        assert!(UNSUPPORTED.iter().chain(ELSEWHERE).all(|(name, _)| !names.contains(name)));
        assert!(plan(&Flags::default().benchmarks).is_ok());
        assert!(names.iter().all(|name| help().contains(name)));
    }

    #[test]
    fn every_benchmark_runs_from_the_first_to_the_last() {
        let mut flags = Flags {
            num: 2_000,
            threads: 2,
            seek_nexts: 3,
            batch_size: 8,
            histogram: true,
            statistics: true,
            progress: false,
            write_buffer_size: 1 << 20,
            wal_segment_size: 1 << 20,
            // 0 is "none" for limits of time and of rates; the high rate only makes their code run.
            benchmark_write_rate_limit: 1 << 40,
            benchmark_read_rate_limit: 1 << 40,
            overwrite_probability: 0.5,
            overwrite_window_size: 10,
            disposable_entries_batch_size: 7,
            persistent_entries_batch_size: 3,
            disposable_entries_delete_delay: 10,
            max_scan_distance: 2,
            deleted_neighbours: 1_500,
            large_commit_size: 3 << 20,
            large_commit_pause: 0,
            ..Flags::default()
        };
        // The benchmarks of the machine process gigabytes without an engine; openclose measures the
        // whole process; verify needs another database. The first one loads a YCSB database
        // implicitly.
        let engines = GROUPS.iter().filter(|group| group.title != "Of the machine");
        let mut names = vec!["ycsba"];
        names.extend(engines.flat_map(|group| group.benchmarks).map(|benchmark| benchmark.name));
        names.retain(|name| !["openclose", "verify"].contains(name));
        // Deletes are last; otherwise the reads would find nothing.
        names.sort_by_key(|name| name.starts_with("delete"));
        let all = plan(&names.join(",")).ok().unwrap();
        Bench::new(flags.clone()).unwrap().run(&all).unwrap();

        // A named database is found again, and filling benchmarks do not change it.
        let folder = tempfile::tempdir().unwrap();
        flags.db = folder.path().join("db").display().to_string();
        Bench::new(flags.clone()).unwrap().run(&plan("fillseq[X2]").ok().unwrap()).unwrap();
        flags.use_existing_db = true;
        let mut bench = Bench::new(flags).unwrap();
        bench.run(&plan("fillrandom,readrandom[W1-X2]").ok().unwrap()).unwrap();
        let mut read = |key: u64| {
            let keys = &mut bench.key_buffer(&Parameters::new(&bench.flags));
            bench.engine().unwrap().get(keys.make(key), <[u8]>::len).unwrap()
        };
        assert_eq!((read(0), read(1_999), read(2_000)), (Some(100), Some(100), None));
    }

    #[test]
    fn rows_are_compared_with_those_of_another_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let run = |db: &str, benchmarks: &str, change: fn(&mut Flags)| {
            let mut flags = Flags { db: path(db), truth_db: path("truth"), ..small() };
            change(&mut flags);
            let mut bench = Bench::new(flags).unwrap();
            bench.run(&plan(benchmarks).ok().unwrap()).map_err(|error| error.to_string())
        };
        run("truth", "fillseq", |_| ()).unwrap();
        run("same", "filluniquerandom,verify", |flags| flags.same_value_percentage = 0).unwrap_err();
        run("same", "fillseq,verify", |_| ()).unwrap();
        let error = run("more", "fillseq,verify", |flags| flags.num = 1_001).unwrap_err();
        assert!(error.contains("row 1000 is not that of --truth_db"), "{error}");
        let error = run("less", "fillseq,verify", |flags| flags.num = 999).unwrap_err();
        assert!(error.contains("a get does not return row 999"), "{error}");
    }

    #[test]
    fn keys_that_there_are_take_the_place_of_those_from_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let mut flags = Flags { db: folder.path().join("db").display().to_string(), ..small() };
        let mut bench = Bench::new(flags.clone()).unwrap();
        for key in ["", "one", "a longer key than the others", "two"] {
            bench.engine().unwrap().put(key.as_bytes(), b"value", WriteMode::Default).unwrap();
        }
        bench.close().unwrap();
        (flags.use_existing_db, flags.use_existing_keys) = (true, true);
        let mut bench = Bench::new(flags).unwrap();
        for name in ["readrandom", "seekrandom"] {
            let planned = &plan(name).ok().unwrap()[0];
            bench.run_planned(planned).unwrap();
            assert_eq!(bench.flags.num, 4);
            let parameters = Parameters::new(&bench.flags);
            let stats = bench.run_once(name, planned.benchmark.body, &parameters).unwrap();
            assert!(stats.report(name).contains("(4 of 4 found)"), "{}", stats.report(name));
        }
        bench.run_planned(&plan("overwrite").ok().unwrap()[0]).unwrap();
        assert_eq!(bench.engine().unwrap().prefix(b"", false).unwrap().0, 4);
    }

    #[test]
    fn what_a_benchmark_cannot_do_with_the_flags_is_refused() {
        let refused = |benchmarks: &str, change: fn(&mut Flags)| {
            let mut flags = Flags::default();
            change(&mut flags);
            check(&plan(benchmarks).ok().unwrap(), &flags)
        };
        assert_eq!(refused("fillseq,fillsync,queue,timeseries", |_| ()), Ok(()));
        let error = refused("fillseq,fillsync", |flags| flags.disable_wal = true).unwrap_err();
        assert_eq!(error, "fillsync syncs the log, and --disable_wal leaves it out");
        let existing = |flags: &mut Flags| flags.use_existing_keys = true;
        assert!(refused("readrandom,readmissing", existing).unwrap_err().starts_with("readmissing makes"));
        let error = refused("timeseries", |flags| flags.key_size = 15).unwrap_err();
        assert_eq!(error, "timeseries needs a --key_size of at least 16");
    }

    #[test]
    fn disposable_entries_are_deleted_and_the_others_stay() {
        let flags = Flags {
            disposable_entries_batch_size: 30,
            persistent_entries_batch_size: 10,
            disposable_entries_delete_delay: 1,
            ..small()
        };
        let mut bench = Bench::new(flags).unwrap();
        bench.run_planned(&plan("fillanddeleteuniquerandom").ok().unwrap()[0]).unwrap();
        let (rows, bytes) = bench.engine().unwrap().prefix(b"", false).unwrap();
        assert_eq!((rows, bytes), (250, 250 * (16 + 64)));
    }

    #[test]
    fn scans_stop_at_the_distance_and_at_the_end_of_the_prefix() {
        // Bytes of 16 + 100 for each entry that the steps visit.
        let steps = |change: fn(&mut Flags)| {
            let mut flags = Flags { num: 100, seek_nexts: 50, reads: 200, ..small() };
            change(&mut flags);
            let mut bench = Bench::new(flags).unwrap();
            bench.run_planned(&plan("fillseq").ok().unwrap()[0]).unwrap();
            let benchmark = plan("seekrandom").ok().unwrap()[0].benchmark;
            let parameters = Parameters::new(&bench.flags);
            let stats = bench.run_once("seekrandom", benchmark.body, &parameters).unwrap();
            (stats.megabytes_per_second().unwrap() * stats.elapsed_seconds() * 1_048_576.0 / 116.0) as u64
        };
        assert_eq!(steps(|flags| flags.max_scan_distance = 1), 200);
        let short = steps(|flags| flags.max_scan_distance = 3);
        assert!((500..=600).contains(&short), "{short}");
        let backward = steps(|flags| {
            flags.max_scan_distance = 1;
            flags.reverse_iterator = true;
        });
        assert!((390..=400).contains(&backward), "{backward}");
        let prefixes = |flags: &mut Flags| {
            (flags.prefix_size, flags.keys_per_prefix) = (8, 5);
            flags.prefix_same_as_start = true;
        };
        assert!(steps(prefixes) <= 1000);
    }

    #[test]
    fn seeks_delete_what_follows_if_asked_to() {
        let flags = Flags { num: 1_000, reads: 1, seek_nexts_to_delete: 30, seek_nexts: 5, ..small() };
        let mut bench = Bench::new(Flags { reverse_iterator: true, ..flags.clone() }).unwrap();
        for (run, rows) in [(1, 970), (2, 940)] {
            let benchmarks = if run == 1 { "fillseq,seekrandom" } else { "seekrandom" };
            plan(benchmarks).ok().unwrap().iter().for_each(|planned| bench.run_planned(planned).unwrap());
            let left = bench.engine().unwrap().prefix(b"", false).unwrap().0;
            // A seek near the end has fewer entries to delete.
            assert!((rows..1_000).contains(&left), "{run}: {left}");
        }
    }

    fn small() -> Flags {
        Flags { num: 1_000, seed: 5, progress: false, wal_segment_size: 1 << 20, ..Flags::default() }
    }

    #[test]
    fn a_record_that_is_lost_or_has_the_value_of_another_ends_the_benchmark() {
        let mut bench = Bench::new(small()).unwrap();
        let mut run = |benchmarks: &str, change: &dyn Fn(&Engine, &mut KeyBuffer)| {
            bench.run_planned(&plan("ycsbload").ok().unwrap()[0]).unwrap();
            let mut keys = bench.key_buffer(&Parameters::new(&bench.flags));
            change(&bench.engine().unwrap(), &mut keys);
            let planned = &plan(benchmarks).ok().unwrap()[0];
            bench.run_planned(planned).map_err(|error| error.to_string())
        };
        let record = 77;
        let key = sapwood_bench::ycsb::record_key(record);
        let delete = |engine: &Engine, keys: &mut KeyBuffer| {
            engine.delete(keys.make(key), WriteMode::Default).unwrap();
        };
        let swap = |engine: &Engine, keys: &mut KeyBuffer| {
            engine.put(keys.make(key), &[1; 100], WriteMode::Default).unwrap();
        };
        run("ycsbb", &|_, _| ()).unwrap();
        let lost = run("ycsbc[X5]", &delete).unwrap_err();
        assert!(lost.contains("record 77 was inserted and is not there"), "{lost}");
        let lost = run("ycsbe[X5]", &delete).unwrap_err();
        assert!(lost.contains("record 77 was inserted and a seek does not find it"), "{lost}");
        let other = run("ycsbf[X5]", &swap).unwrap_err();
        assert!(other.contains("record 77 has the value of record"), "{other}");
    }

    #[test]
    fn records_are_counted_in_a_database_that_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut flags = Flags { db: folder.path().join("db").display().to_string(), ..small() };
        let mut bench = Bench::new(flags.clone()).unwrap();
        bench.run_planned(&plan("ycsbd").ok().unwrap()[0]).unwrap();
        let count = bench.records.as_ref().unwrap().count();
        assert!((1_020..1_090).contains(&count), "{count}");
        bench.close().unwrap();
        flags.use_existing_db = true;
        // With another number of keys, the existing records count.
        flags.num = 500;
        let mut bench = Bench::new(flags).unwrap();
        bench.run_planned(&plan("ycsba").ok().unwrap()[0]).unwrap();
        assert_eq!(bench.records.as_ref().unwrap().count(), count);
    }

    #[test]
    fn a_second_benchmark_draws_other_keys_and_a_second_run_with_the_seed_the_same() {
        let keys_after = |benchmarks: &str| {
            let flags = Flags {
                num: 10_000,
                seed: 7,
                progress: false,
                wal_segment_size: 1 << 20,
                ..Flags::default()
            };
            let mut bench = Bench::new(flags).unwrap();
            plan(benchmarks).ok().unwrap().iter().for_each(|planned| bench.run_planned(planned).unwrap());
            let mut cursor = bench.engine().unwrap().cursor().unwrap();
            cursor.seek_to_first().unwrap();
            let mut count = 0;
            while cursor.valid() {
                count += 1;
                cursor.next().unwrap();
            }
            count
        };
        // One round of random draws hits 1 - 1/e of the keys, two hit 1 - 1/e^2.
        let once = keys_after("fillrandom");
        assert!((6_200..6_450).contains(&once), "{once}");
        assert_eq!(once, keys_after("fillrandom"));
        let twice = keys_after("fillrandom,overwrite");
        assert!((8_550..8_750).contains(&twice), "{twice}");
    }

    #[test]
    fn slow_benchmarks_do_a_thousandth() {
        let mut parameters = Parameters::new(&Flags { num: 5_000, writes: 10, ..Flags::default() });
        parameters.divide(1000);
        assert_eq!((parameters.num, parameters.reads, parameters.writes), (5, 5, 1));
    }
}
