//! Scripts for RocksDB's `db_bench` parse this program's output: the tests run grep, sed and awk on
//! it, with the patterns of `benchmark.sh`, `benchmark_leveldb.sh` and `regression_test.sh`.
#![allow(clippy::disallowed_methods, reason = "runs the real program on real files")]
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The output and the files of a run.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// The run that all tests share: stdout and stderr in one file, as in the scripts.
    fn shared() -> &'static Run {
        static RUN: OnceLock<Run> = OnceLock::new();
        RUN.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name).display().to_string();
            let output = db_bench(&[
                &format!("--db={} --wal_dir={}", path("db"), path("log")),
                "--benchmarks=fillseq,overwrite[X3-W1],readrandom,seekrandom,waitforcompaction,stats,levelstats",
                "--use_existing_db=0 --num=3000 --value_size=400 --key_size=20 --seed=1 --threads=2 --duration=0",
                "--histogram=1 --statistics=1 --stats_per_interval=1 --stats_interval_seconds=60 --progress=0",
                "--write_buffer_size=1048576 --cache_size=8388608 --seek_nexts=10 --reverse_iterator=1 --bloom_bits=10",
                // Without a meaning here, but passed by benchmark.sh.
                "--cache_numshardbits=6 --bytes_per_sync=8388608 --verify_checksum=1",
                "--delete_obsolete_files_period_micros=62914560 --open_files=-1 --memtablerep=skip_list --num_levels=8",
                "--compaction_style=0 --level_compaction_dynamic_level_bytes=true --min_level_to_compress=-1",
                "--pin_l0_filter_and_index_blocks_in_cache=1 --level0_slowdown_writes_trigger=20",
                "--allow_concurrent_memtable_write=false --merge_operator=\"put\"",
            ]);
            assert!(output.status.success());
            let text = [&output.stderr[..], &output.stdout[..]].concat();
            std::fs::write(folder.path().join("out"), text).unwrap();
            Run { folder }
        })
    }

    /// The output of a shell for `script`, in which `$out` is the output and `$db` the database.
    fn shell(&self, script: &str) -> String {
        let path = |name: &str| self.folder.path().join(name);
        let output = Command::new("sh")
            .args(["-c", script])
            .env("out", path("out"))
            .env("db", path("db"))
            .env("log", path("log"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The same, parsed as a number.
    fn number(&self, script: &str) -> f64 {
        let text = self.shell(script);
        text.parse()
            .unwrap_or_else(|_| panic!("{script}\nsays {text:?}, which is no number, about\n{}", self.text()))
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("out")).unwrap()
    }
}

/// Runs the program; each argument may hold several flags.
fn db_bench(arguments: &[&str]) -> Output {
    let arguments = arguments.iter().flat_map(|line| line.split(' '));
    Command::new(env!("CARGO_BIN_EXE_db_bench")).args(arguments).output().unwrap()
}

#[test]
fn benchmark_sh_finds_rates_and_percentiles() {
    let run = Run::shared();
    for name in ["fillseq", "readrandom", "seekrandom"] {
        let format =
            format!(r#"grep ^{name} $out | awk '{{ if (NF >= 10 && $8 == "seconds") {{ print "V2" }} }}'"#);
        assert_eq!(run.shell(&format), "V2");
        let field = |number: u32| run.number(&format!("grep ^{name} $out | awk '{{ print ${number} }}'"));
        let (micros, rate, seconds, operations) = (field(3), field(5), field(7), field(9));
        assert!(micros > 0.0 && rate > 0.0 && field(11) > 0.0);
        assert!((operations / rate - seconds).abs() < 0.001, "{operations} in {seconds} s are {rate}/s");
    }
    assert_eq!(run.number("grep ^fillseq $out | awk '{ print $9 }'"), 6000.0);
    // The last histogram is that of the last benchmark.
    let percentile =
        |field: u32| run.number(&format!("grep '^Percentiles:' $out | tail -1 | awk '{{ print ${field} }}'"));
    let percentiles = [3, 5, 7, 9, 11].map(percentile);
    assert!(percentiles[0] > 0.0 && percentiles.is_sorted(), "{percentiles:?}");
    let largest =
        run.number(r#"grep "^Min: " $out | grep Median: | grep Max: | tail -1 | awk '{ print $6 }'"#);
    // One is rounded to two digits, the other to three.
    assert!(largest + 0.01 > percentiles[4], "{largest} {percentiles:?}");
}

#[test]
fn regression_test_sh_finds_rates() {
    let run = Run::shared();
    let rate = r"s/^readrandom[[:blank:]]+:.*[[:blank:]]+([0-9\.]+)[[:blank:]]+ops\/sec.*/\1/p";
    assert!(run.number(&format!("sed -nE '{rate}' $out")) > 0.0);
    for (number, percentile) in [("P50", 3), ("P75", 5), ("P99", 7), ("P99.9", 9), ("P99.99", 11)] {
        let pattern = format!(r"^Percentiles:.*[[:blank:]]{number}:[[:blank:]]([0-9\.]+).*");
        let found = run.number(&format!("sed -nE 's/{pattern}/\\1/p' $out | tail -1"));
        assert_eq!(
            found,
            run.number(&format!("grep ^Percentiles: $out | tail -1 | awk '{{ print ${percentile} }}'"))
        );
    }
}

#[test]
fn benchmark_sh_finds_the_state_of_the_database() {
    let run = Run::shared();
    assert!(run.number(r"grep ^Uptime\(secs $out | tail -1 | awk '{ print $2 }'") > 0.0);
    assert!(run.number(r#"grep "^Cumulative stall" $out | tail -1 | awk '{ print $5 }'"#) >= 0.0);
    assert!(
        run.number(
            r"grep ^Stalls\(count\): $out | tail -1 | awk '{ print $2 + $6 + $10 + $14 + $18 + $20 }'"
        ) >= 0.0
    );
    assert!(
        run.number(
            r#"grep "^Flush(GB)" $out | tail -1 | awk '{ print $3 }' | tr ',' ' ' | awk '{ print $1 }'"#
        ) > 0.0
    );
    assert!(run.number(r#"grep "^Cumulative compaction" $out | tail -1 | awk '{ print $3 }'"#) >= 0.0);
    assert!(run.number(r#"grep "^Cumulative compaction" $out | tail -1 | awk '{ print $6 }'"#) >= 0.0);
    assert_eq!(run.number(r#"grep "^ Sum" $out | tail -1 | awk '{ print NF }'"#), 22.0);
    let size = run.shell(r#"grep "^ Sum" $out | tail -1 | awk '{ printf "%.0f%s", $3, $4 }'"#);
    assert!(size.ends_with("MB"), "{size}");
    assert_eq!(
        run.shell(r#"grep "^Blob file count:" $out | tail -1 | awk '{ printf "%s%s", $7, $8 }'"#),
        "0.0GB,"
    );
    assert!(run.number("ls -l $db | grep sst | awk '{ c += 1; b += $5 } END { print b }'") > 0.0);
    assert!(run.number("ls -l $log | grep log | awk '{ c += 1; b += $5 } END { print b }'") > 0.0);
    assert_eq!(run.shell("ls $db | grep wal"), "");
    let version = run.shell(r#"grep "RocksDB version:" "$db"/LOG | head -1 | awk '{ printf "%s", $5 }'"#);
    assert!(version.starts_with("Sapwood-"), "{version}");
    assert!(
        !run.shell(r#"grep "Git sha" "$db"/LOG | head -1 | awk '{ printf "%s", substr($5, 1, 10) }'"#)
            .is_empty()
    );
    assert!(run.shell("grep ^RocksDB: $out | awk '{ print $3 }'").starts_with("Sapwood-"));
    // Fields 3 to 6 of the date: day, time and year after the name of the month.
    let date = run.shell(r#"grep ^Date: $out | awk '{ print $6 "-" $3 "-" $4 "T" $5 }'"#);
    assert!(date.starts_with("20") && date.contains(':'), "{date}");
    assert!(run.number(r"sed -nE 's/^sapwood.number.keys.written COUNT : ([0-9]+)$/\1/p' $out") >= 6000.0);
}

#[test]
fn reports_in_the_middle_of_a_run_count_what_was_written_so_far() {
    // Without the log as well: the writes are not counted from the log.
    let output = db_bench(&[
        "--benchmarks=fillseq --num=4000 --value_size=1000 --threads=2 --histogram=1 --disable_wal=1",
        "--stats_per_interval=1 --stats_interval=1000 --seed=1 --write_buffer_size=1048576",
    ]);
    let text = String::from_utf8(output.stderr).unwrap();
    let lines = |start: &str| {
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect::<Vec<_>>()
    };
    let writes: Vec<u64> = lines("Cumulative writes: ")
        .iter()
        .map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
        .collect();
    assert!(writes.len() >= 3 && writes[0] >= 1000 && writes.is_sorted() && writes[2] >= 3000, "{writes:?}");
    let stalls = lines("Cumulative stall: ");
    let percents = stalls.iter().map(|line| line.split_whitespace().nth(4).unwrap().parse::<f64>().unwrap());
    assert!(percents.clone().count() >= 3 && percents.clone().all(|share| share <= 100.0), "{stalls:?}");
    assert!(lines("Cumulative writes: ").last().unwrap().contains(", ingest: 0.0"), "{text}");
    assert!(
        lines("Cumulative WAL: ").iter().all(|line| line.starts_with("Cumulative WAL: 0 writes")),
        "{text}"
    );
    // Progress is shown on a terminal only: a file receives the requested lines and no others.
    assert!(text.contains(" ... thread 0: (1000,1000) ops and ("), "{text}");
    assert!(!text.contains("... finished"), "{text}");
}

#[test]
fn a_background_writer_that_wrote_nothing_has_no_rate() {
    let output = db_bench(&[
        "--benchmarks=fillseq,readwhilewriting --num=100 --writes=0 --finish_after_writes=1 --seed=1",
    ]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("background writer: 0 writes, 0 ops/sec\n"), "{text}");
    assert!(!text.contains("... finished"), "{text}");
}

#[test]
fn flags_without_an_effect_are_named_once_and_codecs_that_took_another_place_too() {
    let output = db_bench(&[
        "--benchmarks=levelstats --use_ribbon_filter=1 --open_files=-1 --report_bg_io_stats --open_files=5",
        "--compression_type=LZ4HC --transaction_db=0 --env_uri= --seed=1",
    ]);
    assert!(output.status.success());
    let warnings: Vec<String> = [&output.stderr[..], &output.stdout[..]]
        .concat()
        .split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .filter(|line| line.starts_with("WARNING: ") && !line.contains("Assertions"))
        .collect();
    assert_eq!(
        warnings,
        [
            "WARNING: these flags are accepted and have no effect: --open_files, --report_bg_io_stats, \
             --use_ribbon_filter",
            "WARNING: using lz4 compression in place of lz4hc",
        ]
    );
}

#[test]
fn the_log_has_a_folder_of_its_own_and_the_rate_of_tables_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(folder.path().join("log")).unwrap();
    std::fs::write(folder.path().join("log/000001.log"), "of another engine").unwrap();
    let run = |flags: &str| {
        let place = format!("--db={} --wal_dir={} --seed=1 --num=2000", path("db"), path("log"));
        db_bench(&[&place, "--write_buffer_size=1048576 --wal_segment_size=1048576 --value_size=1000", flags])
    };
    // Two megabytes at four per second.
    let start = std::time::Instant::now();
    assert!(run("--benchmarks=fillseq,flush --rate_limiter_bytes_per_sec=4000000").status.success());
    assert!(start.elapsed().as_millis() >= 300, "{:?}", start.elapsed());
    // Rows that are only in the log are found.
    assert!(run("--benchmarks=overwrite --use_existing_db").status.success());
    let output = run("--benchmarks=readrandom --use_existing_db");
    assert!(String::from_utf8(output.stdout).unwrap().contains("(2000 of 2000 found)"));
    assert!(run("--benchmarks=fillseq --num=10").status.success());
    let output = run("--benchmarks=readrandom --use_existing_db --num=2000");
    assert!(String::from_utf8(output.stdout).unwrap().contains(" of 2000 found)"));
    assert!(folder.path().join("log/000001.log").exists());
    // Without the flag the log would be missing silently.
    let output = db_bench(&[&format!("--db={} --benchmarks=readrandom --use_existing_db", path("db"))]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("give --wal_dir="), "{text}");
}

#[test]
fn opening_and_closing_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let output = db_bench(&[
        &format!("--db={}", db.display()),
        "--benchmarks=openclose,levelstats --open_rounds=30 --open_databases=3 --seed=1",
        "--write_buffer_size=1048576 --wal_segment_size=1048576 --cache_size=1048576",
    ]);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    let usage = |what: &str| -> Vec<f64> {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(what));
        let line = line.unwrap_or_else(|| panic!("no line {what} in\n{text}"));
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let (warm, rounds, open) =
        (usage("after 10 rounds"), usage("after 30 rounds"), usage("3 databases open"));
    assert_eq!((warm.len(), &warm[3..]), (5, &rounds[3..]));
    assert!(open[3] > warm[3] && open[4] > warm[4], "{text}");
    assert_eq!(usage("all of them closed")[3..], warm[3..]);
    assert!(!db.join("openclose").exists());
}

#[test]
fn repeated_runs_have_averages_and_medians() {
    let run = Run::shared();
    // One warm-up and three runs; the second and the third report the average so far.
    assert_eq!(run.number("grep -c '^overwrite  *:.*ops/sec' $out"), 4.0);
    assert_eq!(
        run.number("grep -c '^overwrite \\[AVG [23] runs\\] : [0-9]* (± [0-9]*) ops/sec; ' $out"),
        2.0
    );
    let average = run.number(r"sed -nE 's/^overwrite \[AVG    3 runs\] : ([0-9]+) .*MB\/sec$/\1/p' $out");
    let median = run.number(r"sed -nE 's/^overwrite \[MEDIAN 3 runs\] : ([0-9]+) ops\/sec; .*/\1/p' $out");
    assert!(average > 0.0 && median > 0.0);
}

#[test]
fn the_report_file_has_a_header_and_a_row_per_second() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.csv");
    let output = db_bench(&[
        &format!("--report_file={} --report_interval_seconds=1", report.display()),
        "--benchmarks=fillseq,readrandom --num=1000 --duration=1 --progress=0",
    ]);
    assert!(output.status.success());
    let text = std::fs::read_to_string(report).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("secs_elapsed,interval_qps"));
    let rows: Vec<(u64, u64)> = lines
        .map(|line| line.split_once(',').unwrap())
        .map(|(seconds, rate)| (seconds.parse().unwrap(), rate.parse().unwrap()))
        .collect();
    // The read alone takes a second. The number of operations depends on the machine.
    assert!(!rows.is_empty() && rows[0].0 >= 1, "{rows:?}");
}

#[test]
fn an_open_loop_tells_its_latencies() {
    let output = db_bench(&[
        "--benchmarks=ycsba --num=500 --open_loop_rate=5000 --open_loop_spacing=fixed --progress=0 --seed=3",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        text.contains("\nopen loop    : this benchmark does not go by a schedule\n"),
        "the load does not: {text}"
    );
    let (_, report) = text.split_once("\nopen loop    : 5000 ops/sec asked for (fixed), ").expect(&text);
    let lines: Vec<&str> = report.lines().collect();
    assert!(lines[0].ends_with(" done; micros from the intended start:"), "{text}");
    assert!(
        lines[1].starts_with("  all seconds              P50: ") && lines[1].ends_with(" (500 ops)"),
        "{text}"
    );
    assert!(lines[2].starts_with("  worst second (0 to 1)    P50: "), "{text}");
    // The schedule lasts a tenth of a second, which is the minimum time.
    let line = text.lines().find(|line| line.starts_with("ycsba ")).unwrap();
    let seconds: f64 = line.split_whitespace().nth(6).unwrap().parse().unwrap();
    assert!(seconds >= 0.0998, "{line}");
}

#[test]
fn what_cannot_be_done_is_refused_with_a_hint_and_nothing_is_run() {
    let refused = |arguments: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let output = db_bench(&[arguments, &format!("--db={}", path.display())]);
        assert!(!output.status.success());
        assert!(!Path::new(&path).exists());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("--nums=5").contains("did you mean --num"));
    assert!(refused("--benchmarks=fillseq,fillrandon").contains("did you mean fillrandom"));
    assert!(refused("--benchmarks=mergerandom").contains("needs merge operators"));
    assert!(
        refused("--compression_type=zip --benchmarks=fillseq")
            .contains("none of default, none, lz4, zstd, snappy, lz4hc")
    );
    assert!(refused("--disable_wal=1 --sync=1 --benchmarks=fillseq").contains("--sync needs the log"));
    assert!(refused("--disable_wal=1 --benchmarks=fillseq,fillsync").contains("fillsync syncs the log"));
    assert!(refused("--options_file=options.ini").contains("give the settings as flags"));
    assert!(refused("--benchmarks=ycsbfilldb,ycsbwklda").contains("it is called ycsbload here"));
    // Other data would break the count of YCSB's records.
    let output = db_bench(&["--benchmarks=fillseq,ycsba --num=100 --progress=0"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("ycsbload makes a new one"), "{text}");
}
