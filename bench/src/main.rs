//! `db_bench` for Sapwood: the benchmarks, flags and output lines of RocksDB's and LevelDB's.
//!
//! ```text
//! flags ──> workload ──> engine        one thread or many run a loop of keys, values and calls to the engine
//!              │
//!              └──> report             each thread counts; the sum becomes the line that scripts read
//! ```
//!
//! The loops cost less than 20 ns per operation beside the engine: keys and values are made without
//! allocation, no lock is acquired, and the clock is read only if latencies are measured.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures the real machine: its clock, its threads, its files"
)]

mod flags;
mod limit;
mod files;
mod engine;
mod workload;
mod report;
mod folder;
mod log_file;

use flags::{Command, Flags};
use std::io::Write as _;
use std::process::ExitCode;
use workload::Bench;

/// The beginning of the help.
const USAGE: &str = "\
db_bench: measures Sapwood with the benchmarks and flags of RocksDB's and LevelDB's db_bench

  db_bench                                                          the default list, in a temporary folder
  db_bench --benchmarks=fillrandom,readrandom[X3-W1] --num=5000000  fill, then read: once to warm up, then three times
  db_bench --db=/some/folder --benchmarks=ycsba,ycsbb,ycsbc,ycsbf,ycsbd,ycsbe --threads=2
  db_bench --db=/some/folder --use_existing_db --benchmarks=readrandom --duration=30 --histogram --statistics
  db_bench --benchmarks=fillseq,readwhilewriting --duration=20 --open_loop_rate=50000

Benchmarks, as --benchmarks names them, separated by commas; name[X3] runs one three times and tells average and
median, name[W1] runs it once before to warm up, name[X3-W1] does both:
";

fn main() -> ExitCode {
    match Flags::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => print(&format!("{USAGE}{}{}", workload::help(), Flags::help())),
        Ok(Command::Version) => print(&format!("db_bench of Sapwood {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::BuildInfo) => print(&report::header::build_info()),
        Ok(Command::Run(flags)) => match run(*flags) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => fail(&message),
        },
        Err(message) => fail(&message),
    }
}

fn run(mut flags: Flags) -> Result<(), String> {
    let plan = workload::plan(&flags.benchmarks)?;
    workload::check(&plan, &flags)?;
    eprint!("{}", report::header::environment());
    if !flags.ignored.is_empty() {
        eprintln!("WARNING: these flags are accepted and have no effect: --{}", flags.ignored.join(", --"));
    }
    if flags.seed == 0 {
        flags.seed = (report::header::seconds_since_epoch() & 0x7FFF_FFFF) as i64;
        eprintln!("Set seed to {} because --seed was 0", flags.seed);
    }
    print(&report::header::workload(&flags));
    Bench::new(flags).and_then(|mut bench| bench.run(&plan)).map_err(|error| error.to_string())
}

/// Prints to stdout and flushes, so that the reader of a pipe receives every line at once.
fn print(text: &str) -> ExitCode {
    if cfg!(test) {
        // The test harness captures only the output of the macro.
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the pipe (`db_bench --help | head`); a message would not reach it
        // either.
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str) -> ExitCode {
    for line in message.lines() {
        eprintln!("ERROR: {line}");
    }
    ExitCode::FAILURE
}
