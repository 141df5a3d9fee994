//! The plots, as SVG.
//!
//! An engine has the same colour in all plots. Scales are logarithmic where engines differ by large
//! factors.
mod bars;
mod lines;

use super::summary::Summary;
use crate::engine::{Name, Result};
use crate::measurement::Measurement;
use crate::workload::Kind;
use lines::{Panel, Scale, Series};
use plotters::prelude::*;
use std::path::Path;

/// Draws the plots that have data; returns file names and captions.
pub fn draw(out: &Path, summary: &Summary, measurements: &[Measurement]) -> Result<Vec<(String, String)>> {
    let mut plots = Vec::new();
    let mut add = |file: &str, caption: &str, drawn: Result<bool>| -> Result<()> {
        if drawn? {
            plots.push((file.to_owned(), caption.to_owned()));
        } else if out.join(file).exists() {
            // A plot of an earlier rendering that no longer has data.
            std::fs::remove_file(out.join(file))?;
        }
        Ok(())
    };
    let throughput = bars::throughput(&out.join("throughput.svg"), summary);
    add("throughput.svg", "Operations per second of every workload", throughput)?;
    let latency = latency(&out.join("latency.svg"), summary);
    add("latency.svg", "Latency percentiles", latency)?;
    let sustained = sustained(&out.join("sustained.svg"), measurements);
    add("sustained.svg", "Throughput and latency over time during a sustained overwrite", sustained)?;
    let amplification = amplification(&out.join("amplification.svg"), measurements);
    add("amplification.svg", "Write and space amplification while a database grows", amplification)?;
    Ok(plots)
}

/// The colour of an engine: from the palette of Okabe and Ito for colour-blind readers, the accent
/// for Sapwood.
pub fn colour(name: Name) -> RGBColor {
    match name {
        Name::Sapwood => RGBColor(0, 114, 60),
        Name::Rocksdb => RGBColor(213, 94, 0),
        Name::Fjall => RGBColor(0, 114, 178),
        Name::Lmdb => RGBColor(204, 121, 167),
        Name::Redb => RGBColor(230, 159, 0),
        Name::Sled => RGBColor(86, 180, 233),
        Name::Bftree => RGBColor(120, 120, 120),
    }
}

/// Names of the percentiles that [`super::summary::Cell::latency`] holds.
const PERCENTILES: [&str; 5] = ["p50", "p99", "p99.9", "p99.99", "max"];

fn latency(path: &Path, summary: &Summary) -> Result<bool> {
    let shown =
        ["fillrandom", "overwrite", "sustained", "fillsync8", "readrandom", "readwhilewriting", "ycsba"];
    let mut panels = Vec::new();
    for row in &summary.rows {
        if !shown.contains(&row.workload) || row.kind == Kind::Time {
            continue;
        }
        let series: Vec<Series> = row
            .cells
            .iter()
            .filter_map(|cell| {
                let points =
                    cell.latency?.into_iter().enumerate().map(|(at, micros)| (at as f64, micros.max(0.1)));
                Some(Series { engine: cell.engine, points: points.collect(), thin: false, dots: true })
            })
            .collect();
        let every = row.cells.iter().map(|cell| cell.sampled_every).max().unwrap_or(1);
        let sampled = if every > 1 { format!(" (1 of {every} timed)") } else { String::new() };
        panels.push(Panel {
            title: format!("{}{sampled}", row.title),
            y_label: "µs",
            x_label: "",
            categories: PERCENTILES.map(str::to_owned).to_vec(),
            scale: Scale::Logarithmic,
            series,
        });
    }
    lines::draw(path, "Latency: lower is better", &panels, 2)
}

fn sustained(path: &Path, measurements: &[Measurement]) -> Result<bool> {
    let mut throughput = Vec::new();
    let (mut median, mut worst) = (Vec::new(), Vec::new());
    for engine in Name::EVERY {
        let of = |m: &&Measurement| {
            m.engine == engine && m.workload == "sustained" && m.outcome.figures().is_some()
        };
        let Some(figures) = measurements.iter().filter(of).find_map(|m| m.outcome.figures()) else {
            continue;
        };
        let points = |pick: &dyn Fn(&crate::measurement::Second) -> f64| -> Vec<(f64, f64)> {
            figures.timeline.iter().enumerate().map(|(second, at)| (second as f64 + 1.0, pick(at))).collect()
        };
        let series = |points| Series { engine, points, thin: true, dots: false };
        throughput.push(series(points(&|second| second.operations as f64)));
        median.push(series(points(&|second| second.latency.p99_9.max(0.1))));
        worst.push(series(points(&|second| second.latency.max.max(0.1))));
    }
    let panel = |title: &str, y_label, scale, series| Panel {
        title: title.into(),
        y_label,
        x_label: "seconds",
        categories: Vec::new(),
        scale,
        series,
    };
    let panels = [
        panel("writes per second", "writes/s", Scale::Linear, throughput),
        panel("p99.9 of every second", "µs", Scale::Logarithmic, median),
        panel("slowest write of every second", "µs", Scale::Logarithmic, worst),
    ];
    lines::draw(path, "Sustained overwrite of random keys, one thread", &panels, 1)
}

fn amplification(path: &Path, measurements: &[Measurement]) -> Result<bool> {
    let mut panels = Vec::new();
    for (station, what) in [("random", "random fill"), ("large", "20 M rows")] {
        let (mut written, mut space) = (Vec::new(), Vec::new());
        for engine in Name::EVERY {
            let of =
                |m: &&Measurement| m.engine == engine && m.station == station && m.workload == "fillrandom";
            let Some(figures) = measurements.iter().filter(of).find_map(|m| m.outcome.figures()) else {
                continue;
            };
            let points = |pick: &dyn Fn(&crate::measurement::Growth) -> f64| -> Vec<(f64, f64)> {
                let growth = figures.growth.iter().filter(|growth| growth.live_bytes > 0);
                let points = growth.map(|growth| (growth.user_bytes as f64 / 1_048_576.0, pick(growth)));
                // Before the first flush the amplification has no meaning.
                points.filter(|(_, amplification)| *amplification >= 0.1).collect()
            };
            let series = |points: Vec<(f64, f64)>| Series { engine, points, thin: false, dots: false };
            written.push(series(points(&|growth| growth.device_bytes as f64 / growth.user_bytes as f64)));
            space.push(series(points(&|growth| growth.space_bytes as f64 / growth.live_bytes as f64)));
        }
        let panel = |title: String, series| Panel {
            title,
            y_label: "bytes per byte",
            x_label: "MiB written by the user",
            categories: Vec::new(),
            scale: Scale::Logarithmic,
            series,
        };
        panels.push(panel(format!("{what}: bytes written per byte of the user"), written));
        panels.push(panel(format!("{what}: space per live byte, log included"), space));
    }
    lines::draw(path, "Amplification while the database grows, background work under way", &panels, 2)
}
