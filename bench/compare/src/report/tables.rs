//! The tables, as Markdown.
use super::Conditions;
use super::summary::{Cell, Row, Summary};
use crate::engine::Name;
use crate::measurement::{Measurement, Outcome};
use crate::settings::grouped;
use crate::statistics::Verdict;
use crate::workload::{self, Kind, WRITES_BESIDE};
use std::fmt::Write as _;

/// The whole page. `plots` are file names and captions.
pub fn write(
    conditions: &Conditions,
    summary: &Summary,
    measurements: &[Measurement],
    plots: &[(String, String)],
) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut page, conditions, summary, measurements, plots);
    page
}

fn write_page(
    page: &mut String,
    conditions: &Conditions,
    summary: &Summary,
    measurements: &[Measurement],
    plots: &[(String, String)],
) -> std::fmt::Result {
    writeln!(page, "# Sapwood beside other engines, {}\n", conditions.date)?;
    writeln!(page, "{}\n", conditions.machine)?;
    writeln!(
        page,
        "{}, one client thread unless said, log on and not synced unless said.",
        conditions.settings
    )?;
    let noisy = summary.rows.iter().flat_map(|row| &row.cells).map(|cell| cell.foreign_processors);
    let noisy: Vec<f64> = noisy.collect();
    let disturbed = noisy.iter().filter(|foreign| **foreign > 0.1).count();
    writeln!(
        page,
        "Rounds: {}; ratios are of engines measured in the same round, with 95 % intervals. Other processes kept more \
         than a tenth of a processor busy in {disturbed} of {} cells.\n",
        conditions.rounds,
        noisy.len()
    )?;
    writeln!(page, "Measured by:\n\n```text")?;
    for command in &conditions.commands {
        writeln!(page, "{command}")?;
    }
    writeln!(page, "```\n")?;

    writeln!(page, "## At a glance\n")?;
    glance(page, summary)?;
    losses(page, summary)?;
    for (file, caption) in plots {
        writeln!(page, "![{caption}]({file})\n")?;
    }

    writeln!(page, "## Every workload\n")?;
    writeln!(
        page,
        "*ratio*: Sapwood by the engine; above 1 Sapwood is better. *settled*: the time in which memtables are written \
         out and compactions end counts, too. *CPU*: processor time of all threads per operation, settled. *written*: \
         bytes written per byte of the user; *space*: bytes of files per live byte; both when the last write was \
         acknowledged, then settled. *memory*: the most that was resident, mapped files included. Latencies in \
         microseconds, medians of the rounds.\n"
    )?;
    for row in &summary.rows {
        details(page, row)?;
    }
    failures(page, measurements)?;

    writeln!(page, "## Engines\n")?;
    writeln!(page, "| engine | version | settings | an acknowledged write |\n|---|---|---|---|")?;
    for [title, version, settings, acknowledged] in &conditions.engines {
        writeln!(page, "| {title} | {version} | {settings} | {acknowledged} |")?;
    }
    Ok(())
}

/// All engines that appear, in order.
fn engines(summary: &Summary) -> Vec<Name> {
    let there = |name: &Name| summary.rows.iter().flat_map(|row| &row.cells).any(|cell| cell.engine == *name);
    Name::EVERY.into_iter().filter(there).collect()
}

fn glance(page: &mut String, summary: &Summary) -> std::fmt::Result {
    let engines = engines(summary);
    write!(page, "| operations per second |")?;
    engines.iter().try_for_each(|name| write!(page, " {} |", name.title()))?;
    writeln!(page, " Sapwood by the best other |")?;
    writeln!(page, "|---|{}---|", "---:|".repeat(engines.len()))?;
    for row in &summary.rows {
        let unit = if row.kind == Kind::Time { ", ms" } else { "" };
        write!(page, "| {}{unit} |", row.title)?;
        let best_peer = row.best_peer().map(|cell| cell.engine);
        let sapwood_first = row.best_peer().and_then(|cell| cell.ratio).is_none_or(|(mean, _)| mean > 1.0);
        for name in &engines {
            let cell = row.cells.iter().find(|cell| cell.engine == *name);
            let text = cell.map_or_else(|| "–".to_owned(), |cell| value_text(row.kind, cell));
            let best = if *name == Name::Sapwood {
                sapwood_first
            } else {
                best_peer == Some(*name) && !sapwood_first
            };
            if best { write!(page, " **{text}** |")? } else { write!(page, " {text} |")? }
        }
        writeln!(page, " {} |", verdict_text(row))?;
    }
    writeln!(page)
}

fn value_text(kind: Kind, cell: &Cell) -> String {
    match (cell.value, &cell.problem) {
        (Some([mean, ..]), problem) => {
            let mut text = if kind == Kind::Time { format!("{mean:.1}") } else { short(mean) };
            if let Some((_, writes)) = cell.more.iter().find(|(name, _)| name == WRITES_BESIDE) {
                let _ = write!(text, " ({} w)", short(*writes));
            }
            if problem.is_some() { format!("{text} (failed once)") } else { text }
        }
        (None, Some(problem)) if problem.starts_with("not offered") => "not offered".into(),
        (None, _) => "failed".into(),
    }
}

fn verdict_text(row: &Row) -> String {
    let Some((cell, (mean, interval))) = row.best_peer().and_then(|cell| Some((cell, cell.ratio?))) else {
        return "–".into();
    };
    let said = match row.verdict() {
        Some(Verdict::Better) => "",
        Some(Verdict::Worse) => " **loses**",
        Some(Verdict::Open) if interval.is_some() => " open",
        _ => "",
    };
    format!("{}{said} ({})", ratio_text(mean, interval), cell.engine.title())
}

fn ratio_text(mean: f64, interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("{mean:.2} [{low:.2}, {high:.2}]"),
        None => format!("{mean:.2} [one round]"),
    }
}

/// Lists the workloads in which Sapwood is not first.
fn losses(page: &mut String, summary: &Summary) -> std::fmt::Result {
    let mut lines = String::new();
    for row in &summary.rows {
        let Some((cell, (mean, interval))) = row.best_peer().and_then(|cell| Some((cell, cell.ratio?)))
        else {
            continue;
        };
        let what = match (row.verdict(), mean < 1.0) {
            (Some(Verdict::Worse), _) => "loses to",
            // A single round has no interval; its ratio is reported as such.
            (Some(Verdict::Open), true) if interval.is_none() => "trails, in the only round,",
            (Some(Verdict::Open), false) if interval.is_none() => continue,
            (Some(Verdict::Open), true) => "trails, within the interval,",
            (Some(Verdict::Open), false) => "leads only within the interval:",
            _ => continue,
        };
        writeln!(lines, "* {}: {what} {} ({mean:.2})", row.title, cell.engine.title())?;
    }
    for row in &summary.rows {
        let cost = |cell: &Cell| cell.write_amplification.and_then(|(_, settled)| settled);
        let sapwood = row.cells.iter().find(|cell| cell.engine == Name::Sapwood);
        let Some(mine) = sapwood.and_then(cost) else { continue };
        let worse: Vec<String> = row
            .cells
            .iter()
            .filter_map(|cell| Some((cell.engine.title(), cost(cell)?)))
            .filter(|(_, theirs)| *theirs < mine * 0.98)
            .map(|(title, theirs)| format!("{title} {theirs:.2}"))
            .collect();
        if !worse.is_empty() {
            writeln!(
                lines,
                "* {}: writes {mine:.2} bytes per byte, more than {}",
                row.title,
                worse.join(", ")
            )?;
        }
    }
    if !lines.is_empty() {
        writeln!(page, "### Where Sapwood is not first\n\n{lines}")?;
    }
    Ok(())
}

fn details(page: &mut String, row: &Row) -> std::fmt::Result {
    writeln!(page, "### {}\n", row.title)?;
    if row.kind == Kind::Time {
        writeln!(page, "| engine | ms | ratio | |\n|---|---:|---:|---|")?;
        for cell in &row.cells {
            let range = cell.value.map_or_else(
                || "–".into(),
                |[mean, least, most]| format!("{mean:.1} ({least:.1} to {most:.1})"),
            );
            writeln!(
                page,
                "| {} | {range} | {} | {} |",
                cell.engine.title(),
                cell_ratio(cell),
                remarks(cell)
            )?;
        }
        return writeln!(page);
    }
    let writes = row.cells.iter().any(|cell| cell.write_amplification.is_some());
    write!(page, "| engine | ops/s | ratio |")?;
    if writes {
        write!(page, " settled ops/s |")?;
    }
    write!(page, " CPU µs/op | CPU ratio |")?;
    if writes {
        write!(page, " written | space |")?;
    }
    writeln!(page, " memory MiB | p50 | p99 | p99.9 | max | |")?;
    writeln!(page, "|---|{}---|", "---:|".repeat(if writes { 12 } else { 9 }))?;
    for cell in &row.cells {
        let number = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| format!("{value:.2}"));
        let two = |value: Option<(f64, Option<f64>)>| match value {
            Some((first, Some(then))) => format!("{first:.2}, {then:.2}"),
            Some((first, None)) => format!("{first:.2}"),
            None => "–".into(),
        };
        let rate = cell.value.map_or_else(|| "–".into(), |[mean, ..]| grouped(mean.round() as u64));
        write!(page, "| {} | {rate} | {} |", cell.engine.title(), cell_ratio(cell))?;
        if writes {
            let settled = cell.settled_rate.map_or_else(|| "–".into(), |rate| grouped(rate.round() as u64));
            write!(page, " {settled} |")?;
        }
        write!(page, " {} | {} |", number(cell.cpu_micros), number(cell.cpu_ratio))?;
        if writes {
            write!(page, " {} | {} |", two(cell.write_amplification), two(cell.space_amplification))?;
        }
        let memory =
            cell.peak_memory.map_or_else(|| "–".into(), |bytes| format!("{:.0}", bytes / 1_048_576.0));
        write!(page, " {memory} |")?;
        match cell.latency {
            Some([p50, p99, p99_9, _, max]) => {
                for micros in [p50, p99, p99_9, max] {
                    write!(page, " {} |", micros_text(micros))?;
                }
            }
            None => write!(page, " – | – | – | – |")?,
        }
        writeln!(page, " {} |", remarks(cell))?;
    }
    writeln!(page)
}

fn cell_ratio(cell: &Cell) -> String {
    match cell.ratio {
        Some((mean, interval)) => ratio_text(mean, interval),
        None => String::new(),
    }
}

fn micros_text(micros: f64) -> String {
    match micros {
        0.0..10.0 => format!("{micros:.2}"),
        10.0..1000.0 => format!("{micros:.0}"),
        _ => grouped(micros as u64),
    }
}

fn remarks(cell: &Cell) -> String {
    let mut remarks: Vec<String> = Vec::new();
    for (name, value) in &cell.more {
        let shown = match name.as_str() {
            "rows compared" => continue,
            _ if *value == 0.0 => format!("{name}: none"),
            _ => format!("{name}: {}", grouped(value.round() as u64)),
        };
        remarks.push(shown);
    }
    if cell.foreign_processors > 0.1 {
        remarks.push(format!("noise: {:.1} processors", cell.foreign_processors));
    }
    remarks.extend(cell.problem.clone());
    remarks.join("; ").replace('|', "/")
}

fn failures(page: &mut String, measurements: &[Measurement]) -> std::fmt::Result {
    let failed: Vec<String> = measurements
        .iter()
        .filter_map(|m| match &m.outcome {
            Outcome::Failed(why) => Some(format!(
                "* {}, {}, {}, round {}: {}",
                m.engine.title(),
                m.station,
                workload::find(&m.workload).map_or(m.workload.as_str(), |workload| workload.title),
                m.round,
                why.replace('\n', " ")
            )),
            _ => None,
        })
        .collect();
    if !failed.is_empty() {
        writeln!(page, "## Failed\n\n{}\n", failed.join("\n"))?;
    }
    Ok(())
}

/// A number with three digits.
pub fn short(number: f64) -> String {
    let (scaled, suffix) = match number {
        n if n >= 999_500.0 => (n / 1e6, " M"),
        n if n >= 999.5 => (n / 1e3, " k"),
        n => (n, ""),
    };
    match scaled {
        s if s >= 100.0 => format!("{s:.0}{suffix}"),
        s if s >= 10.0 => format!("{s:.1}{suffix}"),
        s => format!("{s:.2}{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::Figures;

    #[test]
    fn numbers_are_short() {
        assert_eq!([1.0, 12_345.0, 999_000.0, 2_345_678.0].map(short), ["1.00", "12.3 k", "999 k", "2.35 M"]);
        assert_eq!([0.5, 55.0, 12_345.6].map(micros_text), ["0.50", "55", "12 345"]);
    }

    #[test]
    fn a_loss_and_a_failure_are_said_plainly() {
        let mut all = Vec::new();
        for round in 1..=3 {
            for (engine, operations) in [(Name::Sapwood, 1000), (Name::Lmdb, 2000 + u64::from(round))] {
                let figures = Figures { operations, seconds: 1.0, ..Figures::default() };
                all.push(Measurement {
                    engine,
                    station: "random".into(),
                    workload: "scan".into(),
                    round,
                    outcome: Outcome::Measured(Box::new(figures)),
                });
            }
            all.push(Measurement {
                engine: Name::Sled,
                station: "random".into(),
                workload: "scan".into(),
                round,
                outcome: Outcome::Failed("lost a key".into()),
            });
        }
        let page = write(&Conditions::default(), &Summary::of(&all), &all, &[]);
        assert!(page.contains("* scan everything forward (entries/s): loses to LMDB (0.50)"), "{page}");
        assert!(
            page.contains("| 1.00 k | **2.00 k** | failed | 0.50 [0.50, 0.50] **loses** (LMDB) |"),
            "{page}"
        );
        assert!(page.contains("* sled, random, scan everything forward (entries/s), round 2: lost a key"));
    }
}
