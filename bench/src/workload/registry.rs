//! The benchmarks by name, and the plan of a run.
use super::parameters::Parameters;
use super::runner::Bench;
use super::worker::Worker;
use super::{
    beside, checksum, codec, fill, index, maintenance, mixed, mixgraph, queue, read, rounds, scan, series,
    truth, ttl, verified, ycsb,
};
use crate::engine::WriteMode;
use crate::flags::{Flags, columns, nearest};
use crate::report::Stats;
use sapwood_base::Result;
use std::fmt::Write as _;

/// The loop of one thread.
pub(super) type Loop = fn(&mut Worker<'_>) -> Result<()>;
/// What comes before the loops and is not timed.
type Prepare = fn(&mut Bench, &Parameters) -> Result<()>;
/// A body that works on the whole database.
type Whole = fn(&mut Bench, &Parameters, &mut Stats) -> Result<()>;

/// A benchmark of `--benchmarks`.
pub(super) struct Benchmark {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Whether it starts with an empty database.
    pub(super) fresh: bool,
    /// Changes the parameters of the flags.
    pub(super) adjust: fn(&mut Parameters),
    pub(super) body: Body,
}

impl Benchmark {
    /// Each run starts with an empty database.
    const fn fresh(self) -> Benchmark {
        Benchmark { fresh: true, ..self }
    }

    /// Changes the parameters of the flags.
    const fn with(self, adjust: fn(&mut Parameters)) -> Benchmark {
        Benchmark { adjust, ..self }
    }

    /// The minimum size of its keys in bytes.
    pub(super) fn least_key_size(&self) -> usize {
        match self.name {
            "timeseries" | "scanbeside" => 16,
            "queue" | "ttlchurn" => 8,
            _ => 4,
        }
    }
}

/// The work of a benchmark.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// A loop for every thread.
    Threads(Loop),
    /// The same, after a preparation that is not timed.
    Prepared(Prepare, Loop),
    /// The same, with one more thread, number 0, that works in the background until the others end.
    Background(Loop),
    /// Runs once, alone on the database, and is reported like the others.
    Alone(Whole),
    /// Runs once and prints its own output.
    Silent(fn(&mut Bench) -> Result<()>),
}

const fn benchmark(name: &'static str, help: &'static str, body: Body) -> Benchmark {
    Benchmark { name, help, fresh: false, adjust: |_| (), body }
}

const fn threads(name: &'static str, body: Loop, help: &'static str) -> Benchmark {
    benchmark(name, help, Body::Threads(body))
}

const fn prepared(name: &'static str, prepare: Prepare, body: Loop, help: &'static str) -> Benchmark {
    benchmark(name, help, Body::Prepared(prepare, body))
}

const fn background(name: &'static str, body: Loop, help: &'static str) -> Benchmark {
    benchmark(name, help, Body::Background(body))
}

const fn alone(name: &'static str, body: Whole, help: &'static str) -> Benchmark {
    benchmark(name, help, Body::Alone(body))
}

const fn silent(name: &'static str, body: fn(&mut Bench) -> Result<()>, help: &'static str) -> Benchmark {
    benchmark(name, help, Body::Silent(body))
}

/// Benchmarks of one kind.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) benchmarks: &'static [Benchmark],
}

/// All benchmarks, in the order of the help.
#[rustfmt::skip]
pub(super) static GROUPS: &[Group] = &[
    Group { title: "Writing", benchmarks: &[
        threads("fillseq", fill::sequential, "Write num keys in order.").fresh(),
        threads("fillrandom", fill::random, "Write num random keys.").fresh(),
        threads("filluniquerandom", fill::unique_random,
            "Write every key once, in random order, with one thread.").fresh().with(|p| p.threads = 1),
        threads("fillanddeleteuniquerandom", fill::unique_random_and_delete,
            "The same in groups: disposable_entries_batch_size entries that are deleted later, persistent_entries_batch_size that stay.").fresh().with(|p| p.threads = 1),
        threads("fillsync", fill::random,
            "Write num/1000 random keys, each to the device.").fresh().with(|p| { p.divide(1000); p.mode = WriteMode::Sync }),
        threads("fillbatch", fill::sequential,
            "Write num keys in order, 1000 in a batch.").fresh().with(|p| p.batch_size = 1000),
        threads("fill100K", fill::random,
            "Write num/1000 random keys with values of 100,000 bytes.").fresh().with(|p| { p.divide(1000); p.value_size = 100_000 }),
        threads("overwrite", fill::random, "Write num random keys over what is there."),
        threads("deleteseq", fill::delete_sequential, "Delete keys in order."),
        threads("deleterandom", fill::delete_random, "Delete random keys."),
    ] },
    Group { title: "Reading", benchmarks: &[
        threads("readrandom", read::random, "Read random keys."),
        threads("readrandomsmall", read::random,
            "The same, with a thousandth of the reads.").with(|p| p.reads = (p.reads / 1000).max(1)),
        threads("readrandomfast", read::random_fast,
            "Read random keys below the next power of two, counted by the hundred."),
        threads("readmissing", read::random,
            "Read random keys that do not exist, between those that do.").with(|p| p.key_size += 1),
        threads("readhot", read::hot, "Read random keys of the first hundredth."),
        threads("readtocache", read::in_order,
            "Read every key in order, with one thread: warms the cache.").with(|p| p.threads = 1),
        threads("readtorowcache", read::in_order,
            "The same; there is no cache of rows.").with(|p| p.threads = 1),
        threads("multireadrandom", read::multi, "Read batch_size random keys with one call."),
        threads("approximatesizerandom", read::approximate_size, "Estimate the bytes between random keys."),
    ] },
    Group { title: "Iterating", benchmarks: &[
        threads("readseq", scan::forward, "Iterate over reads entries from the first."),
        threads("readreverse", scan::backward, "Iterate over reads entries from the last."),
        threads("seekrandom", scan::seek_random, "Seek to random keys, with seek_nexts steps each."),
        threads("seekordered", scan::seek_ordered, "Seek to keys in ascending order."),
        threads("multiscan", scan::multi,
            "Read multiscan_size ranges of seek_nexts entries (0: 50) with one iterator, and count them as one."),
        threads("multiscanrandom", scan::multi_random,
            "The same with up to multiscan_size ranges of random length at random places, in order and apart from each other."),
        threads("newiterator", scan::new_iterator, "Create and drop an iterator."),
        threads("fillseekseq", scan::fill_seek_sequential, "Write num keys in order, then seek to each."),
    ] },
    Group { title: "Mixed", benchmarks: &[
        background("readwhilewriting", mixed::read_while_writing, "readrandom while one more thread writes."),
        background("multireadwhilewriting", mixed::multi_read_while_writing,
            "multireadrandom while one more thread writes."),
        background("seekrandomwhilewriting", mixed::seek_while_writing,
            "seekrandom while one more thread writes."),
        background("newiteratorwhilewriting", mixed::new_iterator_while_writing,
            "newiterator while one more thread writes."),
        background("readwhilescanning", mixed::read_while_scanning,
            "readrandom while one more thread iterates over everything."),
        threads("readrandomwriterandom", mixed::read_random_write_random,
            "Of random keys, read readwritepercent and write the rest."),
        threads("updaterandom", mixed::update_random, "Read a random key and write it."),
        threads("xorupdaterandom", mixed::xor_update_random,
            "Read a random key and write it back xor another value."),
        threads("appendrandom", mixed::append_random,
            "Read a random key and write it back with a value appended."),
        threads("randomwithverify", verified::run,
            "Read, write and delete numdistinct groups of three keys; a snapshot that sees them differ is an error."),
    ] },
    Group { title: "A secondary index", benchmarks: &[
        prepared("fillindexed", index::prepare, index::write,
            "fillrandom with an index on 8 random bytes of each value. The others make the index if it is not there.").fresh(),
        prepared("updateindexed", index::prepare, index::write,
            "overwrite with the index: each write moves the index key of its row."),
        prepared("indexlookup", index::prepare, index::lookup, "Read all rows of random index keys."),
        prepared("indexrange", index::prepare, index::range,
            "Read the rows of seek_nexts entries (0: 50) from random index keys on."),
        prepared("indexonlyscan", index::prepare, index::scan,
            "Iterate over reads entries of the index, without their rows."),
        prepared("indexcount", index::prepare, index::count, "Count the entries between random index keys."),
    ] },
    Group { title: "Like applications", benchmarks: &[
        prepared("ycsbload", ycsb::prepare_load, ycsb::load,
            "Insert num records, all threads together, for the six that follow. They run it by themselves if the database is empty. Records have 1000 bytes unless value_size is given.").fresh().with(ycsb::adjust),
        prepared("ycsba", ycsb::prepare, ycsb::a,
            "YCSB A: 50 % reads, 50 % updates of zipfian records. Every record that was inserted must be found.").with(ycsb::adjust),
        prepared("ycsbb", ycsb::prepare, ycsb::b, "YCSB B: 95 % reads, 5 % updates.").with(ycsb::adjust),
        prepared("ycsbc", ycsb::prepare, ycsb::c, "YCSB C: reads.").with(ycsb::adjust),
        prepared("ycsbd", ycsb::prepare, ycsb::d,
            "YCSB D: 95 % reads of the latest records, 5 % inserts.").with(ycsb::adjust),
        prepared("ycsbe", ycsb::prepare, ycsb::e,
            "YCSB E: 95 % scans of 1 to 100 records, 5 % inserts.").with(ycsb::adjust),
        prepared("ycsbf", ycsb::prepare, ycsb::f,
            "YCSB F: 50 % reads, 50 % read-modify-writes.").with(ycsb::adjust),
        threads("mixgraph", mixgraph::run,
            "Gets, puts and scans with the distributions measured at Facebook; see the flags of mixgraph."),
        background("timeseries", series::run,
            "One more thread appends to key_id_range series while threads read whole series, or delete what has expired.").fresh(),
        threads("queue", queue::run,
            "Each thread fills a queue to queue_depth, then pops what an iterator finds first and appends another entry, in turn. Finding the first (seek) and deleting it (pop) have histograms of their own.").fresh(),
        threads("ttlchurn", ttl::run,
            "Insert records and delete those that are ttl_writes old, all over the key space, and read both kinds (readwritepercent, 50 unless given).").fresh(),
        prepared("scanbeside", beside::prepare_scans, beside::scan,
            "Read all rows of prefixes beside deleted_neighbours deleted rows, which are made if the database has none; flush or compact may come between two runs."),
        background("smallputs", beside::small_puts,
            "Write num/100 random keys on the schedule of open_loop_rate (0: 1000 a second) while one more thread commits large_commit_size bytes at once; latencies count from the schedule.").with(|p| { p.divide(100); p.open_loop_rate = p.open_loop_rate.or(Some(1000.0)) }),
    ] },
    Group { title: "The whole database", benchmarks: &[
        alone("open", maintenance::open,
            "Close and open the database num/10000 times.").with(|p| p.divide(10_000)),
        alone("openclose", rounds::open_close,
            "Open a database, write a row and close it open_rounds times, then have open_databases of them open at once; prints memory, descriptors and threads before and after. None may be left behind.").fresh(),
        alone("verify", truth::verify, "Compare all rows with those of the database in truth_db."),
        alone("flush", maintenance::flush, "Write the memtables to tables."),
        alone("compact", maintenance::compact, "Compact everything."),
        alone("compactall", maintenance::compact, "The same."),
        silent("compact0", maintenance::compact_level,
            "Flush, and wait for the compactions that are due: the engine chooses them."),
        silent("compact1", maintenance::compact_level, "The same."),
        silent("waitforcompaction", maintenance::wait_for_compaction,
            "Wait until no flush and no compaction is due."),
    ] },
    Group { title: "Printing", benchmarks: &[
        silent("stats", maintenance::stats, "Print the engine's statistics."),
        silent("resetstats", maintenance::reset_stats, "Count statistics from here."),
        silent("levelstats", maintenance::level_stats, "Print files and bytes of every level."),
        silent("sstables", maintenance::tables, "Print name and size of every table."),
        silent("memstats", maintenance::memory_stats,
            "Print the memory in use, and what the process has written."),
    ] },
    Group { title: "Of the machine", benchmarks: &[
        threads("crc32c", checksum::crc32c, "CRC-32C of block_size bytes."),
        threads("xxhash", checksum::xxhash, "XXH32 of block_size bytes."),
        threads("xxhash64", checksum::xxhash64, "XXH64 of block_size bytes."),
        threads("xxh3", checksum::xxh3, "XXH3, the engine's checksum, of block_size bytes."),
        threads("compress", codec::compress, "Compress block_size bytes with compression_type."),
        threads("compressreject", codec::compress_reject,
            "Compress block_size random bytes, which become no smaller."),
        threads("uncompress", codec::uncompress, "Decompress them."),
        threads("acquireload", checksum::acquire_load, "A thousand atomic loads with acquire ordering."),
    ] },
];

/// Benchmarks of RocksDB that need a missing feature.
pub(super) static UNSUPPORTED: &[(&str, &str)] = &[
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
pub(super) static ELSEWHERE: &[(&str, &str)] = &[
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
pub(super) fn name_here(name: &str) -> Option<String> {
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

pub(super) fn benchmarks() -> impl Iterator<Item = &'static Benchmark> {
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
    pub(super) benchmark: &'static Benchmark,
    pub(super) repeats: u32,
    pub(super) warm_ups: u32,
}

/// Parses `--benchmarks`. The error names the unknown benchmark.
pub fn plan(benchmarks: &str) -> std::result::Result<Vec<Planned>, String> {
    benchmarks.split(',').map(str::trim).filter(|item| !item.is_empty()).map(plan_one).collect()
}

pub(super) fn plan_one(item: &str) -> std::result::Result<Planned, String> {
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
