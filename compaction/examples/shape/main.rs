//! Runs the picker without files, on databases of up to 100 TB, and prints the bytes written, read
//! and occupied, the runs, and the debt.
//!
//! ```text
//! cargo run --release -p sapwood-compaction --example shape -- [OPTIONS]
//! --bandwidth=BYTES   bytes that compactions write for each byte of the program (unlimited)
//! --tier-runs=N       runs of a tier (6)
//! --most=MEMTABLES    the largest database (1,600,000: 100 TB with memtables of 64 MiB)
//! --style=STYLE       hybrid (the default) or leveled
//! --plot=FILE         also draw bytes written beside theoretical curves, as SVG
//! ```
//!
//! Sizes are in memtables, because only the ratio counts. The first table of each run is that of
//! unlimited bandwidth; a limited one shows how far level 0 and the tiers grow beside a writer that
//! never waits unless level 0 has three times its runs.
mod machine;
mod plot;
mod workload;

use machine::{ENTRY, Figures, Machine};
use sapwood_compaction::{CompactionOptions, CompactionStyle};
use workload::{Kind, Workload};

/// Sizes in memtables. With 64 MiB: 2.3, 9, 38, 100 GB, 1, 10, 100 TB.
const SIZES: [u64; 7] = [36, 144, 600, 1_600, 16_000, 160_000, 1_600_000];
/// Ordered keys need a cell of the key axis for each memtable.
const MOST_ORDERED: u64 = 2_000;
const MEMTABLE: u64 = 64 << 20;

struct Arguments {
    bandwidth: f64,
    most: u64,
    plot: Option<String>,
    options: CompactionOptions,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        bandwidth: f64::INFINITY,
        most: u64::MAX,
        plot: None,
        options: CompactionOptions { slice_bytes: 4 * MEMTABLE, ..CompactionOptions::default() },
    };
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        let bad = |_| format!("{name} cannot be {value:?}");
        match name {
            "--bandwidth" => arguments.bandwidth = value.parse().map_err(|_| bad(()))?,
            "--tier-runs" => arguments.options.tier_runs = value.parse().map_err(|_| bad(()))?,
            "--most" => arguments.most = value.replace(',', "").parse().map_err(|_| bad(()))?,
            "--style" => {
                arguments.options.style = value.parse::<CompactionStyle>().map_err(|e| e.to_string())?
            }
            "--plot" => arguments.plot = Some(value.to_owned()),
            _ => return Err(format!("there is no option {name}; see the head of examples/shape/main.rs")),
        }
    }
    Ok(arguments)
}

/// Runs a workload of `size` memtables.
fn simulate(kind: Kind, size: u64, arguments: &Arguments) -> Figures {
    let memtable = MEMTABLE as f64 / ENTRY;
    let workload = Workload::new(kind, memtable * size as f64, memtable);
    let options = CompactionOptions {
        // Larger than those of the engine: their number costs time and changes little.
        target_file_bytes: MEMTABLE.max(size * MEMTABLE / 256),
        ..arguments.options.clone()
    };
    let mut machine = Machine::new(&workload, options);
    if kind.begins_full() {
        machine.begin_full();
    }
    for number in 0..size {
        machine.flush(number as f64 * memtable, memtable, arguments.bandwidth);
    }
    machine.settle();
    machine.figures
}

fn print(kind: Kind, size: u64, figures: &Figures) {
    println!(
        "| {kind} | {size} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} | {:.2} |",
        figures.written / figures.user,
        figures.read / figures.user,
        figures.peak_space,
        figures.settled_space,
        figures.runs / figures.flushes,
        figures.peak_runs,
        figures.peak_level0,
        figures.waited / figures.user,
    );
}

fn main() -> Result<(), String> {
    let arguments = arguments()?;
    println!(
        "| workload | memtables | written | read | peak space | settled | runs | most runs | most in level 0 | waited |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut curves = Vec::new();
    for kind in Kind::ALL {
        let mut curve = Vec::new();
        let sizes = SIZES.iter().filter(|size| **size <= arguments.most);
        for size in sizes.filter(|size| !kind.is_ordered() || **size <= MOST_ORDERED) {
            let figures = simulate(kind, *size, &arguments);
            print(kind, *size, &figures);
            curve.push((*size as f64, figures.written / figures.user));
        }
        curves.push((kind.to_string(), curve));
    }
    match arguments.plot {
        #[expect(clippy::disallowed_methods, reason = "a plot is no file of a database")]
        Some(path) => std::fs::write(&path, plot::draw(&curves)).map_err(|error| format!("{path}: {error}")),
        None => Ok(()),
    }
}
