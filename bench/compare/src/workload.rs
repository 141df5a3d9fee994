//! The workloads by name, and the run of one process: open, one workload after the other, close.
//!
//! A workload returns [`Figures`] or an error, and checks its results: reads know how many keys
//! must be found, scans know the number of entries, and `verify` reads all entries after a
//! reopening and compares every value.
mod indexed;
mod mixed;
mod open;
mod read;
mod write;

use crate::engine::{Direction, Engine, Name, Result, WithEngine};
use crate::measurement::{Figures, Measurement, Outcome};
use crate::settings::Settings;
use crate::stream::{History, Values};
use sapwood_bench::keys::Order;
use sapwood_bench::ycsb;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The description of a workload in the report.
pub struct Workload {
    /// The name on the command line and in files.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// The unit of its figure.
    pub kind: Kind,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Operations per second, writes.
    Write,
    /// Operations per second, reads.
    Read,
    /// Operations per second, reads and writes.
    Mixed,
    /// Milliseconds; less is better.
    Time,
    /// No figure: prepares or checks.
    Silent,
}

/// All workloads, in the order of the tables.
#[rustfmt::skip]
pub const ALL: &[Workload] = &[
    Workload { id: "fillrandom", title: "fill, random keys", kind: Kind::Write },
    Workload { id: "fillseq", title: "fill, keys in order", kind: Kind::Write },
    Workload { id: "fillbatch", title: "fill, in order, batches of 100", kind: Kind::Write },
    Workload { id: "overwrite", title: "overwrite random keys", kind: Kind::Write },
    Workload { id: "fillsync", title: "durable writes, 1 thread", kind: Kind::Write },
    Workload { id: "fillsync8", title: "durable writes, 8 threads", kind: Kind::Write },
    Workload { id: "readrandom", title: "read random keys, 1 thread", kind: Kind::Read },
    Workload { id: "readrandom2", title: "read random keys, 2 threads", kind: Kind::Read },
    Workload { id: "readhot", title: "read, 99 % of reads on 1 % of keys", kind: Kind::Read },
    Workload { id: "readmissing", title: "read keys that do not exist", kind: Kind::Read },
    Workload { id: "seekrandom", title: "seek, then 10 entries", kind: Kind::Read },
    Workload { id: "scan", title: "scan everything forward (entries/s)", kind: Kind::Read },
    Workload { id: "scanback", title: "scan everything backward (entries/s)", kind: Kind::Read },
    Workload { id: "readwhilewriting", title: "read random keys beside a writer", kind: Kind::Mixed },
    Workload { id: "readwhilewriting80k", title: "read random keys beside 80 k writes/s", kind: Kind::Mixed },
    Workload { id: "fillindexed", title: "fill with a secondary index, random keys", kind: Kind::Write },
    Workload { id: "indexscan", title: "scan the index alone (entries/s)", kind: Kind::Read },
    Workload { id: "indexlookup", title: "read the row of a random index key", kind: Kind::Read },
    Workload { id: "readpresent", title: "read existing rows by their own keys", kind: Kind::Read },
    Workload { id: "updateindexed", title: "overwrite, each write moves an index key", kind: Kind::Write },
    Workload { id: "ycsba", title: "YCSB A: 50 % reads, 50 % updates", kind: Kind::Mixed },
    Workload { id: "ycsbb", title: "YCSB B: 95 % reads, 5 % updates", kind: Kind::Mixed },
    Workload { id: "ycsbc", title: "YCSB C: reads", kind: Kind::Read },
    Workload { id: "ycsbd", title: "YCSB D: reads of the latest, 5 % inserts", kind: Kind::Mixed },
    Workload { id: "ycsbf", title: "YCSB F: reads and read-modify-writes", kind: Kind::Mixed },
    Workload { id: "ycsbe", title: "YCSB E: short scans, 5 % inserts", kind: Kind::Mixed },
    Workload { id: "open", title: "open after a clean close, first get", kind: Kind::Time },
    Workload { id: "openkilled", title: "open after kill -9, first get", kind: Kind::Time },
    Workload { id: "sustained", title: "sustained overwrite", kind: Kind::Write },
    Workload { id: "load", title: "load in batches of 1000", kind: Kind::Silent },
    Workload { id: "ycsbload", title: "load the records of YCSB", kind: Kind::Silent },
    Workload { id: "kill", title: "fill the log, then kill -9", kind: Kind::Silent },
    Workload { id: "warm", title: "read everything once", kind: Kind::Silent },
    Workload { id: "verify", title: "compare every key and value", kind: Kind::Silent },
];

/// The name under which `readwhilewriting` stores the rate of its writer.
pub const WRITES_BESIDE: &str = "writes per second beside";

/// Finds a workload.
pub fn find(id: &str) -> Option<&'static Workload> {
    ALL.iter().find(|workload| workload.id == id)
}

/// The work of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The engine.
    pub engine: Name,
    /// The station.
    pub station: String,
    /// The round, from 1.
    pub round: u32,
    /// The workloads, in order.
    pub workloads: Vec<String>,
    /// The sizes.
    pub settings: Settings,
    /// The folder, which the processes of one station share.
    pub folder: PathBuf,
    /// Duration of the sustained load, in seconds.
    pub sustained_seconds: f64,
}

/// Runs a task in this process and passes every measurement to `emit`. An error ends the task.
pub fn run(task: &Task, emit: &mut dyn FnMut(Measurement)) -> Result<()> {
    struct Run<'a>(&'a Task, &'a mut dyn FnMut(Measurement));
    impl WithEngine for Run<'_> {
        type Output = Result<()>;
        fn run<E: Engine>(self) -> Result<()> {
            run_with::<E>(self.0, self.1)
        }
    }
    task.engine.with(Run(task, emit))
}

fn run_with<E: Engine>(task: &Task, emit: &mut dyn FnMut(Measurement)) -> Result<()> {
    let mut context = Context::<E>::new(task)?;
    for workload in &task.workloads {
        let outcome = Outcome::of(context.run(workload));
        let failed = match &outcome {
            Outcome::Failed(why) => Some(why.clone()),
            _ => None,
        };
        emit(Measurement {
            engine: task.engine,
            station: task.station.clone(),
            workload: workload.clone(),
            round: task.round,
            outcome,
        });
        if let Some(why) = failed {
            return Err(why.into());
        }
        if workload == "kill" {
            open::die();
        }
    }
    context.finish()
}

/// The state of one process.
struct Context<'a, E> {
    task: &'a Task,
    settings: &'a Settings,
    values: Values,
    history: History,
    /// Opened by the first workload that needs it.
    engine: Option<E>,
    /// Number of records inserted by YCSB's workloads.
    ycsb_records: u64,
    /// Number of workloads done; part of the seed, so that no two draw the same keys.
    done: u64,
}

impl<'a, E: Engine> Context<'a, E> {
    fn new(task: &'a Task) -> Result<Context<'a, E>> {
        let history = history_path(&task.folder);
        let history =
            if history.exists() { History::load(&history)? } else { History::new(task.settings.rows) };
        let values = Values::new(&task.settings);
        Ok(Context {
            task,
            settings: &task.settings,
            values,
            history,
            engine: None,
            ycsb_records: 0,
            done: 0,
        })
    }

    /// The open engine; opens it first if necessary.
    fn engine(&mut self) -> Result<&E> {
        if self.engine.is_none() {
            self.engine = Some(E::open(&self.task.folder, self.settings)?);
        }
        self.engine.as_ref().ok_or_else(|| "the engine is not open".into())
    }

    /// A seed that is equal for all engines and differs between workloads and rounds.
    fn seed(&self, workload: &str) -> u64 {
        let mut seed = u64::from(self.task.round) << 32 | self.done;
        for byte in workload.bytes().chain(self.task.station.bytes()) {
            seed = sapwood_bench::zipfian::spread(seed ^ u64::from(byte));
        }
        seed
    }

    fn run(&mut self, workload: &str) -> Result<Figures> {
        self.done += 1;
        let seed = self.seed(workload);
        let (fill_seconds, seconds) = (self.settings.fill_seconds, self.settings.seconds);
        let fill = write::Plan { order: Order::Random, seconds: fill_seconds, ..write::Plan::new(seed) };
        match workload {
            "fillrandom" => self.write(&write::Plan { rest: true, ..fill }),
            "fillseq" => {
                self.write(&write::Plan { order: Order::Sequential, seconds: 3.0 * seconds, ..fill })
            }
            "fillbatch" => self.write(&write::Plan {
                order: Order::Sequential,
                mode: write::Mode::Batches(100),
                seconds: 3.0 * seconds,
                ..fill
            }),
            "overwrite" => self.write(&write::Plan { seconds: 4.0 * seconds, ..fill }),
            "fillsync" => {
                self.write(&write::Plan { mode: write::Mode::Durable, seconds, sample_every: 1, ..fill })
            }
            "fillsync8" => self.write(&write::Plan {
                mode: write::Mode::Durable,
                threads: 8,
                seconds,
                sample_every: 1,
                ..fill
            }),
            "fillindexed" => self.write(&write::Plan { mode: write::Mode::Indexed, rest: true, ..fill }),
            "updateindexed" => {
                self.write(&write::Plan { mode: write::Mode::Indexed, seconds: 4.0 * seconds, ..fill })
            }
            "indexlookup" => self.index_lookup(seed),
            "readpresent" => self.read_present(seed),
            "indexscan" => self.index_scan(),
            "load" => self.load(seed),
            "sustained" => self.write(&write::Plan {
                seconds: self.task.sustained_seconds,
                operations: Some(u64::from(u32::MAX) - self.settings.rows * 2),
                sample_every: 1,
                timeline: true,
                ..fill
            }),
            "readrandom" => self.read(&read::Plan::new(seed, seconds)),
            "readrandom2" => self.read(&read::Plan { threads: 2, ..read::Plan::new(seed, seconds) }),
            "readhot" => {
                self.read(&read::Plan { choice: read::Choice::Hot, ..read::Plan::new(seed, seconds) })
            }
            "readmissing" => {
                self.read(&read::Plan { choice: read::Choice::Missing, ..read::Plan::new(seed, seconds) })
            }
            "seekrandom" => self.seek(seed),
            "scan" => self.scan(Direction::Forward),
            "scanback" => self.scan(Direction::Backward),
            "readwhilewriting" => self.read_while_writing(seed, None),
            "readwhilewriting80k" => self.read_while_writing(seed, Some(80_000)),
            "ycsbload" => self.ycsb_load(seed),
            "open" | "openkilled" => self.open(workload == "openkilled"),
            "warm" => self.warm(seed),
            "verify" => self.verify(),
            "kill" => self.kill(seed),
            _ => match ycsb::Workload::ALL.iter().find(|known| workload == format!("ycsb{}", known.letter()))
            {
                Some(which) => self.ycsb(*which, seed),
                None => Err(format!("there is no workload '{workload}'").into()),
            },
        }
    }

    fn finish(self) -> Result<()> {
        self.history.save(&history_path(&self.task.folder))?;
        self.engine.map_or(Ok(()), E::close)
    }
}

fn history_path(folder: &Path) -> PathBuf {
    folder.join("history")
}

/// Counts the operations of one thread, up to a number or a time.
struct Limit {
    operations: u64,
    done: u64,
    end: std::time::Instant,
    /// The clock is read once in `mask + 1` operations, a power of two.
    mask: u64,
}

impl Limit {
    fn new(operations: u64, seconds: f64, check_every: u64) -> Limit {
        let end = std::time::Instant::now() + std::time::Duration::from_secs_f64(seconds);
        Limit { operations, done: 0, end, mask: check_every.next_power_of_two() - 1 }
    }

    /// Whether one more operation may begin.
    #[inline]
    fn next(&mut self) -> bool {
        if self.done == self.operations
            || (self.done & self.mask == 0 && std::time::Instant::now() >= self.end)
        {
            return false;
        }
        self.done += 1;
        true
    }
}
