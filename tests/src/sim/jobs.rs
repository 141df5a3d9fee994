//! Seeds distributed over processes: a run is reproducible only with one thread at work, and a
//! process that dies affects no other seed.
//!
//! A job is this program again, with `--part I/N`. It reports each seed as a line on its standard
//! output. If a job dies or is silent for too long, its present seed counts as a violation, and the
//! job is started again after that seed.
#![allow(clippy::disallowed_methods, reason = "starts processes and watches them in real time")]
use crate::patience::{LOOK, Patience};
use crate::sim::arguments::{Command, Run, Settings};
use crate::sim::report::{SeedReport, Tally};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::process::{Child, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// The time limit of a seed. A seed that works or sleeps for longer hangs.
const SEED_LIMIT: Duration = Duration::from_secs(180);

type SeedFunction = fn(u64, &Settings) -> SeedReport;

/// Runs a sub-command. `arguments` are those of the jobs, the sub-command first.
pub fn run(command: &Command, settings: &Settings, arguments: &[String]) -> ExitCode {
    match &command.run {
        Run::Whole(whole) => whole(settings),
        Run::Seeds { seed, counts, seconds, seeds } => {
            let range = settings.seeds.clone().unwrap_or(seeds.clone());
            // Either limit alone is sufficient; without any, the sub-command's own applies.
            let limit = match (settings.seconds, &settings.seeds) {
                (Some(limit), _) => Some(limit),
                (None, Some(_)) => None,
                (None, None) => Some(Duration::from_secs(*seconds)),
            };
            if let Some((part, of)) = settings.part {
                return work(*seed, settings, range, part, of, limit);
            }
            let mut tally = Tally::new(command.name, counts);
            if settings.single {
                for number in range {
                    tally.add(&guarded(*seed, number, command.name, settings));
                }
            } else {
                spread(command, arguments, settings, range, limit, &mut tally);
            }
            tally.finish();
            ExitCode::from(u8::from(tally.violations() > 0))
        }
    }
}

/// The arguments that all jobs share, without those that differ per job.
pub fn for_jobs(arguments: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seeds" | "--seconds" | "--jobs" => drop(rest.next()),
            _ => kept.push(argument.clone()),
        }
    }
    kept
}

/// The command that runs one seed again.
pub fn replay_command(name: &str, seed: u64) -> String {
    format!("cargo run --release -p sapwood-tests --bin sapwood-sim -- {name} --seed {seed}")
}

/// The last panic, with its location.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs one seed on a thread of its own, so that it is independent of the seeds before. A panic is
/// a violation.
fn guarded(function: SeedFunction, seed: u64, name: &str, settings: &Settings) -> SeedReport {
    // The default output would be lost among the seeds of other jobs.
    if !settings.single {
        std::panic::set_hook(Box::new(|panic| {
            *PANIC.lock().expect("not held over a panic") = panic.to_string()
        }));
    }
    for _ in 0..4 {
        crossbeam_epoch::pin().flush();
    }
    let body = || std::panic::catch_unwind(AssertUnwindSafe(|| function(seed, settings)));
    let result = std::thread::scope(|scope| scope.spawn(body).join().expect("panics are caught inside"));
    result.unwrap_or_else(|_| {
        let panic = PANIC.lock().expect("not held over a panic").clone();
        let text = format!("seed {seed}: {panic}\n  replay with: {}", replay_command(name, seed));
        SeedReport { counts: Vec::new(), violations: vec![text] }
    })
}

/// The work of one job.
fn work(
    function: SeedFunction,
    settings: &Settings,
    seeds: Range<u64>,
    part: u64,
    of: u64,
    limit: Option<Duration>,
) -> ExitCode {
    let start = Instant::now();
    let mut output = std::io::stdout();
    for seed in seeds.filter(|seed| seed % of == part) {
        if limit.is_some_and(|limit| start.elapsed() >= limit) {
            break;
        }
        let name = std::env::args().nth(1).unwrap_or_default();
        let mut say = |line: String| writeln!(output, "{line}").and_then(|()| output.flush());
        if say(format!("begin {seed}")).is_err() {
            break;
        }
        let report = guarded(function, seed, &name, settings);
        if say(report.to_line(seed)).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

enum Message {
    Begin(u64),
    Done(SeedReport),
    End,
}

struct Job {
    child: Child,
    /// The present seed, and its timeout.
    at: Option<(u64, Patience)>,
    /// Whether that timeout has passed.
    hangs: bool,
}

fn start(
    number: usize,
    arguments: &[String],
    part: String,
    seeds: &Range<u64>,
    limit: Option<Duration>,
    sender: &Sender<(usize, Message)>,
) -> Job {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = std::process::Command::new(program);
    command.args(arguments).args(["--part", &part, "--seeds", &format!("{}..{}", seeds.start, seeds.end)]);
    if let Some(limit) = limit {
        command.args(["--seconds", &limit.as_secs().max(1).to_string()]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a job can be started");
    let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let sender = sender.clone();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let message = match line.strip_prefix("begin ").and_then(|seed| seed.parse().ok()) {
                Some(seed) => Message::Begin(seed),
                None => match SeedReport::from_line(&line) {
                    Some((_, report)) => Message::Done(report),
                    // Other output of a test is for people.
                    None => {
                        eprintln!("{line}");
                        continue;
                    }
                },
            };
            if sender.send((number, message)).is_err() {
                return;
            }
        }
        let _ = sender.send((number, Message::End));
    });
    Job { child, at: None, hangs: false }
}

/// Starts jobs and sums their reports.
fn spread(
    command: &Command,
    arguments: &[String],
    settings: &Settings,
    seeds: Range<u64>,
    limit: Option<Duration>,
    tally: &mut Tally,
) {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let count = settings.jobs.unwrap_or(processors) as u64;
    let (sender, receiver) = mpsc::channel();
    let mut jobs: Vec<Option<Job>> = (0..count)
        .map(|number| {
            Some(start(number as usize, arguments, format!("{number}/{count}"), &seeds, limit, &sender))
        })
        .collect();
    while jobs.iter().any(Option::is_some) {
        let message = match receiver.recv_timeout(LOOK) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("this function holds a sender"),
        };
        match message {
            Some((number, Message::Begin(seed))) => {
                if let Some(job) = &mut jobs[number] {
                    job.at = Some((seed, Patience::new(job.child.id(), SEED_LIMIT)));
                }
            }
            Some((number, Message::Done(report))) => {
                if let Some(job) = &mut jobs[number] {
                    job.at = None;
                }
                tally.add(&report);
            }
            Some((number, Message::End)) => {
                let Some(mut job) = jobs[number].take() else { continue };
                let status = job.child.wait().expect("it was started here");
                if let Some((seed, _)) = job.at {
                    let what = match job.hangs {
                        true => format!("hangs: not done after {SEED_LIMIT:?}"),
                        false => format!("the process died: {status}"),
                    };
                    let replay = replay_command(command.name, seed);
                    let text = format!("seed {seed}: {what}\n  replay with: {replay}");
                    tally.add(&SeedReport { counts: Vec::new(), violations: vec![text] });
                    let from = seed + 1;
                    if from < seeds.end && limit.is_none_or(|limit| tally.elapsed() < limit) {
                        let left = limit.map(|limit| limit.saturating_sub(tally.elapsed()));
                        let part = format!("{number}/{count}");
                        jobs[number] =
                            Some(start(number, arguments, part, &(from..seeds.end), left, &sender));
                    }
                }
            }
            None => {}
        }
        for job in jobs.iter_mut().flatten() {
            if job.at.as_mut().is_some_and(|(_, patience)| patience.is_over()) {
                // The loop above sees its end.
                job.hangs = true;
                let _ = job.child.kill();
            }
        }
    }
}
