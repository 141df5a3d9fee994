//! `sapwood-sim fault`: every call of a small workload fails in every way, one call per run.
//!
//! The method is that of SQLite's anomaly tests: run a workload once and count its calls of the
//! file system; then run it again for every call and every effect, once or from that call on. The
//! workload opens a database, writes with every durability, creates and drops a keyspace, flushes,
//! compacts, reads through a snapshot, dies, recovers, closes, and opens read-only. Every second
//! workload also creates, rebuilds and drops secondary indexes. It runs on one thread, so call
//! number 137 is the same call in each run.
//!
//! *If the call failed*, the failure is reported (by an error, a poisoned handle, or a bad health),
//! or `may_be_swallowed` states the reason why it is harmless. Every acknowledged commit is
//! present, at once and after a kill; every synced commit is present after a power loss; an index
//! agrees with its rows. A database that is not poisoned accepts writes again after the fault; one
//! that is poisoned opens again. There is no error without a fault, no report of damage after a
//! mere failure, and no panic.
//!
//! *If the device lied* (wrong bits stored, writes lost or misplaced, syncs without effect): reads
//! return the right data, or an error with the place of the damage. They never return wrong data,
//! and never a state inside a commit. Synced data that is missing without a report is counted, and
//! allowed only where no check could notice it: see `may_go_unnoticed`.
use super::arguments::{Command, Run, Settings};
use super::fault::injector::{Call, Effect, Injector, Plan};
use super::jobs::replay_command;
use super::report::SeedReport;
use crate::harness::panic_message;
use crate::journal::Journal;
use crate::oracle::Map;
use sapwood::{Db, Env, Snapshot};
use sapwood_storage::sim::SimFs;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

mod workload;
mod verdict;
mod indexes;
pub mod injector;

use verdict::{Planned, Verdict, ends_a_close, leads_to_removal};

/// Seeds per workload. The calls are dealt out to the seeds in turn.
const SLICES: u64 = 32;
/// The keyspace that is created and dropped.
const SECOND: u8 = 1;
/// The most opens of a database in one run.
const OPENS: usize = 3;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "fault",
    help: "every call of a small workload fails in every way; checks that it is reported and nothing is lost",
    options: &[
        ("--only", "N", "only the run with this number, of the runs of the seed"),
        ("--one-in", "N", "only one run in N of the runs of the seed"),
        ("--indexes", "", "every workload has secondary indexes, not only every second one"),
        ("--quiet", "", "print the calls whose unreported failure was harmless or lost data"),
        ("--trace", "", "print each run before it starts"),
    ],
    run: Run::Seeds {
        seed,
        counts: &["runs", "reported", "harmless", "poisoned", "unnoticed losses", "elsewhere"],
        seconds: 60,
        seeds: 0..SLICES,
    },
};

/// The workload of a run.
#[derive(Clone, Copy)]
struct WorkloadKind {
    seed: u64,
    has_indexes: bool,
}

/// Runs the share of one seed: seed / 32 determines the workload, seed % 32 the share. Odd
/// workloads have indexes.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let (workload, slice) = (seed / SLICES, seed % SLICES);
    let mut report = SeedReport { counts: vec![0; 6], violations: Vec::new() };
    let workload =
        WorkloadKind { seed: workload, has_indexes: workload % 2 == 1 || settings.has("--indexes") };
    let calls = match alone(|| run(workload, None)) {
        Ok((_, calls)) => calls,
        Err(message) => {
            report.violations.push(format!("seed {seed}: without a fault: {message}"));
            return report;
        }
    };
    let mut plans = Vec::new();
    for (at, call) in calls.iter().enumerate().filter(|(at, _)| *at as u64 % SLICES == slice) {
        for effect in Effect::all(call) {
            let plan = Plan { at: at as u64, effect, sticky: false };
            let planned = Planned {
                plan,
                call,
                ends_a_close: ends_a_close(&calls, at),
                leads_to_removal: leads_to_removal(&calls, at),
            };
            plans.push(planned);
            if !effect.is_silent() {
                plans.push(Planned { plan: Plan { sticky: true, ..plan }, ..planned });
            }
        }
    }
    let only = settings.number("--only");
    let one_in = settings.number("--one-in").unwrap_or(1).max(1);
    for (number, planned) in plans.iter().enumerate() {
        let Planned { plan, call, .. } = planned;
        let is_left_out = !(number as u64).is_multiple_of(one_in);
        if is_left_out || only.is_some_and(|only| only != number as u64) {
            continue;
        }
        let sticky = if plan.sticky { " from now on" } else { "" };
        let what = format!("run {number}: call {} ({call}): {:?}{sticky}", plan.at, plan.effect);
        if settings.has("--trace") {
            eprintln!("{what}");
        }
        let result = alone(|| run(workload, Some(*planned)));
        report.counts[0] += 1;
        match result {
            Ok((Verdict::Elsewhere, _)) => report.counts[5] += 1,
            Ok((verdict, _)) => {
                match verdict {
                    Verdict::Told => report.counts[1] += 1,
                    Verdict::Harmless => report.counts[2] += 1,
                    Verdict::Poisoned => report.counts[3] += 1,
                    Verdict::Unnoticed => report.counts[4] += 1,
                    Verdict::Elsewhere => {}
                }
                let swallowed = verdict == Verdict::Harmless && !plan.effect.is_silent();
                if settings.has("--quiet") && (swallowed || verdict == Verdict::Unnoticed) {
                    println!("{verdict:?}: {what}");
                }
            }
            Err(message) => {
                let indexes = if settings.has("--indexes") { " --indexes" } else { "" };
                let replay = format!("{} --only {number}{indexes}", replay_command("fault", seed));
                report.violations.push(format!("seed {seed}: {what}: {message}\n  replay with: {replay}"));
            }
        }
    }
    report
}

/// Runs `body` on a thread of its own, independent of the runs before it: the thread determines
/// when memory and files are reclaimed.
fn alone<R: Send>(body: impl FnOnce() -> Result<R, String> + Send) -> Result<R, String> {
    let caught = || catch_unwind(AssertUnwindSafe(body));
    for _ in 0..4 {
        crossbeam_epoch::pin().flush();
    }
    std::thread::scope(|scope| scope.spawn(caught).join().expect("panics are caught inside"))
        .unwrap_or_else(|panic| Err(format!("panic: {}", panic_message(&*panic))))
}

/// One run. Returns its calls if no failure was planned.
fn run(workload: WorkloadKind, planned: Option<Planned<'_>>) -> Result<(Verdict, Vec<Call>), String> {
    let plan = planned.map(|planned| planned.plan);
    let (machine, sim) = Env::sim_manual(workload.seed);
    let injector = Injector::new(&sim, plan);
    let mut run = Workload {
        random: fastrand::Rng::with_seed(workload.seed),
        env: machine.with_file_system(Arc::new(injector.clone())),
        sim,
        injector,
        journal: Journal::new(),
        plan,
        db: None,
        opens: 0,
        errors: 0,
        was_poisoned: false,
        unnoticed: false,
        snapshot: None,
        number: 0,
        has_indexes: workload.has_indexes,
        indexes: BTreeSet::new(),
    };
    run.work()?;
    let calls = run.injector.record();
    let verdict = run.end(planned)?;
    Ok((verdict, calls))
}

/// The workload in progress.
struct Workload {
    random: fastrand::Rng,
    env: Env,
    sim: SimFs,
    injector: Injector,
    journal: Journal,
    plan: Option<Plan>,
    db: Option<Db>,
    opens: usize,
    /// The number of errors returned to callers, and of bad states of health.
    errors: u64,
    was_poisoned: bool,
    /// Whether synced data was missing after the device had lied.
    unnoticed: bool,
    snapshot: Option<(Snapshot, Map)>,
    number: u64,
    has_indexes: bool,
    /// The indexes that are complete.
    indexes: BTreeSet<u8>,
}

/// A regular end of the workload: the database cannot be opened any more.
struct Over;

type Step<T = ()> = Result<T, String>;
