//! The result of one workload: the output of a process and a line of the results file.
use crate::engine::{Failure, Name, NotOffered};
use sapwood_bench::histogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One workload of one engine in one round: a line of the results file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The engine.
    pub engine: Name,
    /// The station, as `station::ALL` names it.
    pub station: String,
    /// The workload, as `workload::ALL` names it.
    pub workload: String,
    /// The round, from 1.
    pub round: u32,
    /// Its result.
    pub outcome: Outcome,
}

/// The result of a workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Figures, checked against the expected contents of the database.
    Measured(Box<Figures>),
    /// The engine has no such operation.
    NotOffered(String),
    /// An error, a wrong result, a time limit, a crash.
    Failed(String),
}

impl Outcome {
    /// The outcome of a workload that ended with `result`.
    pub fn of(result: Result<Figures, Failure>) -> Outcome {
        match result {
            Ok(figures) => Outcome::Measured(Box::new(figures)),
            Err(error) => match error.downcast_ref::<NotOffered>() {
                Some(NotOffered(why)) => Outcome::NotOffered((*why).to_owned()),
                None => Outcome::Failed(error.to_string()),
            },
        }
    }

    /// The figures, if the workload was measured.
    pub fn figures(&self) -> Option<&Figures> {
        match self {
            Outcome::Measured(figures) => Some(figures),
            _ => None,
        }
    }
}

/// Figures of one workload. "Settled" is after the engine has flushed its memory and ended its
/// compactions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Acknowledged operations.
    pub operations: u64,
    /// Seconds until the last acknowledgement.
    pub seconds: f64,
    /// Bytes of keys and values that they wrote.
    pub user_bytes: u64,
    /// Seconds from there until settled.
    pub settle_seconds: Option<f64>,
    /// Processor seconds of all threads of the process until the last acknowledgement, and until
    /// settled.
    pub cpu_seconds: f64,
    /// See `cpu_seconds`.
    pub cpu_seconds_settled: Option<f64>,
    /// Bytes sent towards the device or made dirty in the page cache, until the last
    /// acknowledgement.
    pub device_bytes: u64,
    /// The same until settled.
    pub device_bytes_settled: Option<u64>,
    /// Bytes passed to system calls that write, until the last acknowledgement.
    pub call_bytes: u64,
    /// The same until settled.
    pub call_bytes_settled: Option<u64>,
    /// Bytes of the database's files on the device at the last acknowledgement.
    pub space_bytes: u64,
    /// The same when settled.
    pub space_bytes_settled: Option<u64>,
    /// Bytes of the keys and values that were in the database at the last acknowledgement.
    pub live_bytes_acknowledged: u64,
    /// The same at the end.
    pub live_bytes: u64,
    /// Peak of resident memory, mapped files included.
    pub peak_memory_bytes: u64,
    /// Resident memory at the end, without mapped files.
    pub anonymous_memory_bytes: u64,
    /// Processors kept busy by other processes, on average: the noise of the machine.
    pub foreign_processors: f64,
    /// Latencies, if sampled.
    pub latency: Option<Latency>,
    /// Further figures, by name.
    pub more: BTreeMap<String, f64>,
    /// The state after each part of a fill.
    pub growth: Vec<Growth>,
    /// Second by second, for sustained loads.
    pub timeline: Vec<Second>,
}

impl Figures {
    /// Operations per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }

    /// Operations per second if the time to settle counts.
    pub fn settled_rate(&self) -> Option<f64> {
        Some(self.operations as f64 / (self.seconds + self.settle_seconds?).max(1e-9))
    }

    /// Processor microseconds per operation, including background work up to settling if that was
    /// measured.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu_seconds_settled.unwrap_or(self.cpu_seconds) * 1e6 / self.operations.max(1) as f64
    }
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The sampling interval: one of so many operations was timed. The maximum of a sample can miss
    /// the maximum of all.
    pub sampled_every: u64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p99_9: f64,
    /// The 99.99th percentile.
    pub p99_99: f64,
    /// The slowest timed operation.
    pub max: f64,
}

impl Latency {
    /// Converts a histogram of nanoseconds. `None` if it is empty.
    pub fn of(histogram: &Histogram, sampled_every: u64) -> Option<Latency> {
        let micros = |percent| histogram.percentile(percent) / 1e3;
        (histogram.count() > 0).then(|| Latency {
            sampled_every,
            p50: micros(50.0),
            p99: micros(99.0),
            p99_9: micros(99.9),
            p99_99: micros(99.99),
            max: histogram.max() as f64 / 1e3,
        })
    }
}

/// The state after a part of a fill, with background work still running.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Growth {
    /// Bytes of keys and values written so far.
    pub user_bytes: u64,
    /// Bytes sent towards the device.
    pub device_bytes: u64,
    /// Bytes of the files.
    pub space_bytes: u64,
    /// Bytes of the keys and values in the database.
    pub live_bytes: u64,
}

/// One second of a sustained load.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Operations that ended in it.
    pub operations: u64,
    /// Their latencies.
    pub latency: Latency,
}
