//! `sapwood-sim meta`: the same operations return the same results under many settings.
//!
//! Each seed runs under the standard settings and seven others. Every result is compared with the
//! oracle's, and all results of one run with those of the others. The operations include actions
//! that must not be visible: flushes, compactions, background steps, reopenings (with other
//! settings too), and power losses after a flush.
use crate::harness::panic_message;
use crate::oracle::Oracle;
use crate::sim::arguments::{Command, Run, Settings};
use crate::sim::driver::{Driver, Stop};
use crate::sim::jobs::replay_command;
use crate::sim::operation::Operation;
use crate::sim::report::SeedReport;
use crate::sim::shrink::shrink;
use crate::sim::tuning::Tuning;
use crate::sim::workload::Workload;
use sapwood::Env;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "meta",
    help: "the same operations under many settings; compares all results with the oracle's",
    options: &[
        ("--settings", "N", "sets of settings per seed, the standard one included (8)"),
        ("--length", "N", "operations per seed (120)"),
        ("--only", "N", "only the set of settings with this number, from 0"),
        ("--space", "", "check at the end that all space is reclaimed"),
        ("--print", "", "print settings and operations"),
    ],
    run: Run::Seeds { seed, counts: &["runs", "operations"], seconds: 60, seeds: 0..200 },
};

/// The time limit for shortening a failing list.
const SHRINK: Duration = Duration::from_secs(20);

/// Runs one seed.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let length = settings.number("--length").unwrap_or(120) as usize;
    let sets = settings.number("--settings").unwrap_or(8);
    let only = settings.number("--only");
    let checks_space = settings.has("--space");
    let workload = with_power_losses(Workload::new(seed, length));
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5E77_1465);
    let tunings: Vec<Tuning> =
        (0..sets).map(|set| if set == 0 { Tuning::standard() } else { Tuning::draw(&mut random) }).collect();
    let mut report = SeedReport { counts: vec![0, 0], violations: Vec::new() };
    if settings.has("--print") {
        print(&workload.operations, &tunings);
    }
    let mut first: Option<Vec<u64>> = None;
    for (set, tuning) in
        tunings.iter().enumerate().filter(|(set, _)| only.is_none_or(|only| only == *set as u64))
    {
        let operations = for_set(&workload.operations, set);
        let failed =
            match run(seed, tuning, &operations, checks_space) {
                Ok(answers) => {
                    report.counts[0] += 1;
                    report.counts[1] += operations.len() as u64;
                    match &first {
                        None => {
                            first = Some(answers);
                            None
                        }
                        Some(first) => first.iter().zip(&answers).position(|(a, b)| a != b).map(|at| {
                            (at, "the results differ from those under the first settings".to_string())
                        }),
                    }
                }
                Err(failed) => Some(failed),
            };
        let Some((at, what)) = failed else { continue };
        let mut text = format!("seed {seed}, settings {set}, operation {at}: {what}\n  settings: {tuning}\n");
        let shortest = shrink(&operations, SHRINK, |list| run(seed, tuning, list, checks_space).is_err());
        if shortest.len() < operations.len() {
            text += &format!("  {} operations suffice:\n", shortest.len());
            shortest.iter().for_each(|operation| text += &format!("    {operation:?}\n"));
        }
        text += &format!("  replay with: {} --only {set} --length {length}", replay_command("meta", seed));
        if checks_space {
            text += " --space";
        }
        report.violations.push(text);
    }
    report
}

/// The workload with interspersed power losses.
fn with_power_losses(workload: Workload) -> Workload {
    let mut random = fastrand::Rng::with_seed(workload.seed ^ 0x105E);
    let mut operations = Vec::new();
    for operation in workload.operations {
        if random.u8(..20) == 0 {
            operations.push(Operation::PowerLoss(random.u32(..)));
        }
        operations.push(operation);
    }
    Workload { operations, ..workload }
}

/// The operations for one set of settings: reopenings change to settings of its own.
fn for_set(operations: &[Operation], set: usize) -> Vec<Operation> {
    let change = |operation: &Operation| match operation {
        Operation::Reopen(Some(number)) => Operation::Reopen(Some(number.wrapping_add(set as u32 * 7919))),
        other => other.clone(),
    };
    operations.iter().map(change).collect()
}

/// Runs the operations; returns the hash of all results after each of them, or the failing
/// operation and its violation.
fn run(
    seed: u64,
    tuning: &Tuning,
    operations: &[Operation],
    checks_space: bool,
) -> Result<Vec<u64>, (usize, String)> {
    let mut at = 0;
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| -> Result<Vec<u64>, Stop> {
        let (env, fs) = Env::sim_manual(seed);
        let mut driver = Driver::open(&env, &fs, tuning, Oracle::new())?;
        let mut answers = Vec::new();
        for operation in operations {
            driver.apply(operation, &mut ())?;
            answers.push(driver.answers());
            at += 1;
        }
        driver.apply(&Operation::Compare(None), &mut ())?;
        driver.settle()?;
        driver.apply(&Operation::Compare(None), &mut ())?;
        if checks_space {
            driver.check_space()?;
            driver.apply(&Operation::Compare(None), &mut ())?;
        }
        driver.close(&mut ())?;
        Ok(answers)
    }));
    match caught {
        Ok(Ok(answers)) => Ok(answers),
        Ok(Err(stop)) => Err((at, stop.to_string())),
        Err(panic) => Err((at, format!("panic: {}", panic_message(&*panic)))),
    }
}

fn print(operations: &[Operation], tunings: &[Tuning]) {
    for (set, tuning) in tunings.iter().enumerate() {
        println!("settings {set}: {tuning}");
    }
    for (at, operation) in operations.iter().enumerate() {
        println!("{at:>4} {operation:?}");
    }
}
