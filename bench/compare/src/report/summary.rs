//! Combines the measurements of each workload.
use crate::engine::Name;
use crate::measurement::{Figures, Measurement, Outcome};
use crate::station;
use crate::statistics::{Ratio, Verdict, geometric_mean};
use crate::workload::{self, Kind};
use serde::Serialize;

/// All workloads, in the order of the stations.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Measured workloads.
    pub rows: Vec<Row>,
}

/// One workload at one station.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The station.
    pub station: &'static str,
    /// The workload.
    pub workload: &'static str,
    /// Its title in the report.
    pub title: String,
    /// The unit of its figure.
    #[serde(skip)]
    pub kind: Kind,
    /// One for each engine, in the order of the engines.
    pub cells: Vec<Cell>,
}

/// One engine's part of a row.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// The engine.
    pub engine: Name,
    /// Number of measured rounds.
    pub rounds: usize,
    /// Operations per second or milliseconds: geometric mean, smallest, largest.
    pub value: Option<[f64; 3]>,
    /// Sapwood's value divided by this one, inverted for times, so that Sapwood is better above 1:
    /// mean and interval.
    pub ratio: Option<(f64, Option<(f64, f64)>)>,
    /// Operations per second if the time to settle counts.
    pub settled_rate: Option<f64>,
    /// Processor microseconds per operation, settled.
    pub cpu_micros: Option<f64>,
    /// This engine's divided by Sapwood's.
    pub cpu_ratio: Option<f64>,
    /// Bytes written per byte of the user: at the last acknowledgement and settled.
    pub write_amplification: Option<(f64, Option<f64>)>,
    /// Space per live byte: at the last acknowledgement and settled.
    pub space_amplification: Option<(f64, Option<f64>)>,
    /// Peak of memory, in bytes.
    pub peak_memory: Option<f64>,
    /// Microseconds of p50, p99, p99.9, p99.99 and the maximum: medians of the rounds.
    pub latency: Option<[f64; 5]>,
    /// The sampling interval of latencies.
    pub sampled_every: u64,
    /// Processors kept busy by other processes, in the noisiest round.
    pub foreign_processors: f64,
    /// Means of further figures.
    pub more: Vec<(String, f64)>,
    /// The reason for a missing value, or for missing rounds.
    pub problem: Option<String>,
}

/// The compared figure of a measurement.
pub fn value(kind: Kind, figures: &Figures) -> f64 {
    if kind == Kind::Time { figures.seconds * 1e3 } else { figures.rate() }
}

impl Summary {
    /// Combines measurements.
    pub fn of(measurements: &[Measurement]) -> Summary {
        let mut rows = Vec::new();
        for station in station::ALL {
            for id in station.processes.concat() {
                let Some(workload) = workload::find(id).filter(|workload| workload.kind != Kind::Silent)
                else {
                    continue;
                };
                let of: Vec<&Measurement> =
                    measurements.iter().filter(|m| m.station == station.id && m.workload == id).collect();
                if of.is_empty() {
                    continue;
                }
                let is_first = rows.iter().all(|row: &Row| row.title != workload.title);
                let title = if is_first && (station.standard || matches!(station.id, "ycsb" | "sustained")) {
                    workload.title.to_owned()
                } else {
                    format!("{}: {}", station.title, workload.title)
                };
                let cells = Name::EVERY
                    .into_iter()
                    .filter(|engine| of.iter().any(|m| m.engine == *engine))
                    .map(|engine| Cell::of(engine, workload.kind, &of))
                    .collect();
                rows.push(Row {
                    station: station.id,
                    workload: workload.id,
                    title,
                    kind: workload.kind,
                    cells,
                });
            }
        }
        Summary { rows }
    }
}

impl Row {
    /// The best of the other engines, by its mean.
    pub fn best_peer(&self) -> Option<&Cell> {
        let better = |a: f64, b: f64| if self.kind == Kind::Time { a < b } else { a > b };
        let peers = self.cells.iter().filter(|cell| cell.engine != Name::Sapwood && cell.value.is_some());
        peers.reduce(|best, cell| match (best.value, cell.value) {
            (Some([best_value, ..]), Some([value, ..])) if better(value, best_value) => cell,
            _ => best,
        })
    }

    /// The verdict on Sapwood against the best of the others.
    pub fn verdict(&self) -> Option<Verdict> {
        let (mean, interval) = self.best_peer()?.ratio?;
        Some(Ratio { mean, interval }.verdict())
    }
}

impl Cell {
    fn of(engine: Name, kind: Kind, of: &[&Measurement]) -> Cell {
        let mine: Vec<&&Measurement> = of.iter().filter(|m| m.engine == engine).collect();
        let figures: Vec<&Figures> = mine.iter().filter_map(|m| m.outcome.figures()).collect();
        let mean = |pick: &dyn Fn(&Figures) -> Option<f64>| {
            geometric_mean(&figures.iter().filter_map(|figures| pick(figures)).collect::<Vec<f64>>())
        };
        let pairs = |pick: &dyn Fn(&Figures) -> f64| -> Vec<(f64, f64)> {
            let sapwood =
                |round| of.iter().find(|m| m.engine == Name::Sapwood && m.round == round)?.outcome.figures();
            let pair = |m: &&&Measurement| Some((pick(sapwood(m.round)?), pick(m.outcome.figures()?)));
            mine.iter().filter_map(pair).collect()
        };
        let values: Vec<f64> = figures.iter().map(|figures| value(kind, figures)).collect();
        let ratio = Ratio::of(&pairs(&|figures| {
            if kind == Kind::Time { 1.0 / value(kind, figures).max(1e-6) } else { value(kind, figures) }
        }));
        let two =
            |acknowledged: Option<f64>, settled: Option<f64>| acknowledged.map(|first| (first, settled));
        let writes = |bytes: u64, figures: &Figures| {
            (figures.user_bytes > 0 && kind == Kind::Write).then(|| bytes as f64 / figures.user_bytes as f64)
        };
        let spaces = |bytes: u64, live: u64| (live > 0 && bytes > 0).then(|| bytes as f64 / live as f64);
        let problem = mine.iter().find_map(|m| match &m.outcome {
            Outcome::Measured(_) => None,
            Outcome::NotOffered(why) => Some(format!("not offered: {why}")),
            Outcome::Failed(why) => Some(format!("failed in round {}: {why}", m.round)),
        });
        let mut more: Vec<(String, f64)> = Vec::new();
        for name in figures.iter().flat_map(|figures| figures.more.keys()) {
            if more.iter().all(|(known, _)| known != name) {
                let all: Vec<f64> = figures.iter().filter_map(|f| f.more.get(name).copied()).collect();
                more.push((name.clone(), all.iter().sum::<f64>() / all.len().max(1) as f64));
            }
        }
        Cell {
            engine,
            rounds: figures.len(),
            value: geometric_mean(&values).map(|mean| {
                let least = values.iter().copied().fold(f64::INFINITY, f64::min);
                [mean, least, values.iter().copied().fold(0.0, f64::max)]
            }),
            ratio: (engine != Name::Sapwood)
                .then_some(ratio)
                .flatten()
                .map(|ratio| (ratio.mean, ratio.interval)),
            settled_rate: mean(&|figures| figures.settled_rate()),
            cpu_micros: mean(&|figures| (kind != Kind::Time).then(|| figures.cpu_micros())),
            cpu_ratio: Ratio::of(&pairs(&|figures| figures.cpu_micros())).map(|ratio| 1.0 / ratio.mean),
            write_amplification: two(
                mean(&|figures| writes(figures.device_bytes, figures)),
                mean(&|figures| writes(figures.device_bytes_settled?, figures)),
            ),
            space_amplification: two(
                mean(&|figures| spaces(figures.space_bytes, figures.live_bytes_acknowledged)),
                mean(&|figures| spaces(figures.space_bytes_settled?, figures.live_bytes)),
            ),
            peak_memory: mean(&|figures| Some(figures.peak_memory_bytes as f64)),
            latency: median_latency(&figures),
            sampled_every: figures.iter().find_map(|f| Some(f.latency?.sampled_every)).unwrap_or(0),
            foreign_processors: figures.iter().map(|f| f.foreign_processors).fold(0.0, f64::max),
            more,
            problem,
        }
    }
}

/// The median over the rounds, for each percentile.
fn median_latency(figures: &[&Figures]) -> Option<[f64; 5]> {
    let rounds: Vec<[f64; 5]> = figures
        .iter()
        .filter_map(|figures| figures.latency)
        .map(|latency| [latency.p50, latency.p99, latency.p99_9, latency.p99_99, latency.max])
        .collect();
    if rounds.is_empty() {
        return None;
    }
    Some(std::array::from_fn(|at| {
        let mut all: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(engine: Name, workload: &str, station: &str, round: u32, rate: f64) -> Measurement {
        let figures = Figures {
            operations: 1000,
            seconds: 1000.0 / rate,
            cpu_seconds: 0.001,
            user_bytes: 100,
            device_bytes: 200,
            ..Figures::default()
        };
        Measurement {
            engine,
            station: station.into(),
            workload: workload.into(),
            round,
            outcome: Outcome::Measured(Box::new(figures)),
        }
    }

    #[test]
    fn rounds_become_means_ratios_and_verdicts() {
        let mut all = Vec::new();
        for (round, noise) in [(1, 1.0), (2, 1.1), (3, 0.9)] {
            all.push(measured(Name::Sapwood, "fillrandom", "random", round, 1000.0 * noise));
            all.push(measured(Name::Fjall, "fillrandom", "random", round, 250.0 * noise));
            all.push(measured(Name::Lmdb, "fillrandom", "random", round, 100.0));
            all.push(measured(Name::Sapwood, "open", "random", round, 100.0));
            all.push(measured(Name::Lmdb, "open", "random", round, 1000.0 * noise));
        }
        all[2].outcome = Outcome::Failed("it broke".into());
        let summary = Summary::of(&all);
        assert_eq!(summary.rows.len(), 2);
        let fill = &summary.rows[0];
        let best = fill.best_peer().unwrap();
        assert_eq!((best.engine, best.rounds), (Name::Fjall, 3));
        assert!((best.ratio.unwrap().0 - 4.0).abs() < 1e-9);
        assert_eq!(fill.verdict(), Some(Verdict::Better));
        assert_eq!(fill.cells[0].write_amplification, Some((2.0, None)));
        assert!(fill.cells[2].problem.as_ref().is_some_and(|why| why == "failed in round 1: it broke"));
        assert_eq!(fill.cells[2].rounds, 2);
        // Opening takes Sapwood a tenth of the time here: less is better.
        let open = &summary.rows[1];
        assert!(open.best_peer().unwrap().ratio.unwrap().0 < 0.2);
        assert_eq!(open.verdict(), Some(Verdict::Worse));
    }
}
