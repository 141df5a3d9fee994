//! Compares Sapwood with other engines by the same workloads.
//!
//! ```text
//! report ──> campaign ──> a process for every step ──> workload ──> engine
//!               │                                         │
//!            results <────────── a line of JSON ──────────┘
//!               │
//!               └──> tables and plots
//! ```
//!
//! README.md has the commands, the settings that all engines share, and those that cannot be
//! shared.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures the real machine: its clock, its threads, its files"
)]

mod settings;
mod engine;
mod versions;
mod stream;
mod meter;
mod measurement;
mod workload;
mod station;
mod campaign;
mod statistics;
mod report;

use campaign::{Campaign, Results};
use clap::{Parser, Subcommand};
use engine::Name;
use settings::{Codec, Settings};
use std::collections::HashSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures Sapwood beside other embedded engines.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures, and writes tables and plots.
    Report(Box<ReportArguments>),
    /// Lists engines, stations and workloads.
    List,
    /// Runs one task; `report` calls it.
    #[command(hide = true)]
    Cell {
        /// The task as JSON.
        task: String,
    },
}

#[derive(clap::Args)]
struct ReportArguments {
    /// A tenth of the rows, one round: a check that everything works, not a source of figures.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// All stations but the sustained load: takes hours.
    #[arg(long)]
    full: bool,
    /// Engines, separated by commas; by default all that are built in.
    #[arg(long, value_delimiter = ',', value_parser = Name::parse)]
    engines: Vec<Name>,
    /// Stations, separated by commas; by default those of the standard comparison.
    #[arg(long, value_delimiter = ',')]
    stations: Vec<String>,
    /// Number of rounds.
    #[arg(long)]
    rounds: Option<u32>,
    /// The folder of the report; by default `bench/results/<date>`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Skips measurements whose results are in the folder.
    #[arg(long)]
    resume: bool,
    /// Measures nothing; only writes tables and plots of existing results.
    #[arg(long)]
    render: bool,
    /// Rows.
    #[arg(long)]
    rows: Option<u64>,
    /// Limit of a workload in seconds; some last a few times as long.
    #[arg(long)]
    seconds: Option<f64>,
    /// Limit of the measured part of a random fill, in seconds.
    #[arg(long)]
    fill_seconds: Option<f64>,
    /// Seconds of the sustained load.
    #[arg(long, default_value_t = 300.0)]
    sustained_seconds: f64,
    /// Compresses with lz4; engines without it are shown as such.
    #[arg(long)]
    lz4: bool,
    /// Parent folder of the databases.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Limit of a process, in seconds; a longer run is a failure.
    #[arg(long)]
    timeout_seconds: Option<f64>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Report(arguments) => report(*arguments),
        Command::List => {
            list();
            Ok(())
        }
        Command::Cell { task } => cell(&task),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cell(task: &str) -> engine::Result<()> {
    let task: workload::Task = serde_json::from_str(task)?;
    workload::run(&task, &mut |measurement| {
        // If nothing reads the pipe, the parent process has ended and the result is of no use.
        if let Ok(line) = serde_json::to_string(&measurement) {
            let mut stdout = std::io::stdout().lock();
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        }
    })
}

fn list() {
    println!("engines");
    for name in Name::ALL {
        println!("  {:<18} {}", name.id(), report::describe(*name));
    }
    println!("stations (* standard)");
    for station in station::ALL {
        let mark = if station.standard { "*" } else { " " };
        println!("{mark} {:<18} {}: {}", station.id, station.title, station.processes.concat().join(", "));
    }
    println!("workloads");
    for workload in workload::ALL {
        println!("  {:<18} {}", workload.id, workload.title);
    }
}

fn report(arguments: ReportArguments) -> engine::Result<()> {
    let mut settings = Settings::default();
    let mut rounds = 3;
    if arguments.quick {
        settings.rows /= 10;
        settings.cache_bytes /= 8;
        settings.memtable_bytes /= 8;
        settings.fill_seconds = 3.0;
        settings.seconds = 0.3;
        rounds = 1;
    }
    settings.rows = arguments.rows.unwrap_or(settings.rows).clamp(1000, 1 << 30);
    settings.seconds = arguments.seconds.unwrap_or(settings.seconds).max(0.01);
    settings.fill_seconds = arguments.fill_seconds.unwrap_or(settings.fill_seconds).max(0.01);
    if arguments.lz4 {
        settings.codec = Codec::Lz4;
    }
    let stations = if arguments.stations.is_empty() {
        let chosen =
            |station: &&station::Station| station.standard || (arguments.full && station.id != "sustained");
        station::ALL.iter().filter(chosen).collect()
    } else {
        arguments.stations.iter().map(|id| station::find(id)).collect::<Result<Vec<_>, _>>()?
    };
    let out = arguments.out.unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results").join(report::today())
    });
    std::fs::create_dir_all(&out)?;
    let mut results = Results::open(&out.join("results.jsonl"))?;
    if !arguments.render {
        let done: HashSet<_> = if arguments.resume {
            results.all.iter().map(|m| (m.station.clone(), m.engine, m.round)).collect()
        } else {
            HashSet::new()
        };
        let slowest =
            60.0 + settings.rows as f64 / 5_000.0 + settings.fill_seconds + 100.0 * settings.seconds;
        let campaign = Campaign {
            engines: if arguments.engines.is_empty() { Name::ALL.to_vec() } else { arguments.engines },
            stations,
            rounds: arguments.rounds.unwrap_or(rounds).max(1),
            settings: settings.clone(),
            scratch: arguments.scratch,
            timeout_seconds: arguments.timeout_seconds.unwrap_or(slowest + 2.0 * arguments.sustained_seconds),
            sustained_seconds: arguments.sustained_seconds,
            done,
        };
        // Before the first measurement, so that an interrupted campaign can be rendered, too.
        report::Conditions::now(&settings, &campaign).save(&out)?;
        campaign.run(&mut results)?;
    }
    report::write(&out, &results.latest())?;
    eprintln!("{}", out.join("README.md").display());
    Ok(())
}
