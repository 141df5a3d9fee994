//! Plans, runs of every benchmark, and their checks.
use super::parameters::Parameters;
use super::registry::{ELSEWHERE, GROUPS, UNSUPPORTED, benchmarks, check, help, plan};
use super::runner::Bench;
use crate::engine::{Engine, WriteMode};
use crate::flags::Flags;
use sapwood_bench::keys::KeyBuffer;

#[test]
fn plans_have_names_repeats_and_warm_ups() {
    let planned = plan("fillseq, readrandom[X3],,readseq[W2-X5]").ok().unwrap();
    let shape: Vec<_> =
        planned.iter().map(|planned| (planned.benchmark.name, planned.repeats, planned.warm_ups)).collect();
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
        (stats.megabytes_per_second().unwrap() * stats.elapsed_seconds() * 1_048_576.0 / 116.0).round() as u64
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
        let flags =
            Flags { num: 10_000, seed: 7, progress: false, wal_segment_size: 1 << 20, ..Flags::default() };
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
