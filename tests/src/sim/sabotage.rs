//! `sapwood-sim sabotage`: plants one bug after the other and checks whether a detector finds it.
//!
//! A sub-command that finds nothing proves nothing, unless it is known to find existing bugs.
//! `detector` names the fastest detector of each bug. With `--size ci` only that one runs, for some
//! seconds. With `--size campaign`, all others follow if it finds nothing, for longer. Each run is
//! a process of its own, which is ended at the first violation, death or hang. If the same seed or
//! scenario also fails without the bug, it does not count.
#![allow(clippy::disallowed_methods, reason = "starts processes and watches them in real time")]
use crate::patience::{LOOK, Patience};
use crate::sim::arguments::{Command, Run, Settings};
use crate::sim::report::SeedReport;
use sapwood_base::planted::Bug;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "sabotage",
    help: "plants one bug after the other; checks that a detector finds it (needs --features planted)",
    options: &[
        (
            "--size",
            "ci|campaign",
            "ci (the default): the fastest detector of each bug; campaign: all others as well",
        ),
        ("--models", "", "run loom models too, which cargo builds"),
        ("--least", "PERCENT", "fail if fewer are found (80)"),
        ("--only", "NAME", "one bug"),
        ("--list", "", "list the bugs and their detectors"),
    ],
    run: Run::Whole(run),
};

/// The number of concurrent processes.
const PROCESSES: usize = 2;
/// The time of one detector for one bug: CI size, campaign size.
const SECONDS: [u64; 2] = [20, 90];
/// The silence after the end of that time that counts as a hang.
const HANG: Duration = Duration::from_secs(40);

/// A detector of bugs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detector {
    /// Seeds of a sub-command, from 0 on.
    Seeds(&'static str),
    /// A scenario of [`crate::sim::probe`].
    Probe(&'static str),
    /// A loom model: package, and the arguments of `cargo test` that choose it.
    Model(&'static str, &'static [&'static str]),
}

/// The detectors of a campaign if the named one finds nothing.
const EVERYTHING: &[Detector] = &[
    Detector::Seeds("crash"),
    Detector::Seeds("meta"),
    Detector::Seeds("fault"),
    Detector::Seeds("sector"),
    Detector::Seeds("shuttle"),
];

/// The fastest detector of a bug.
fn detector(bug: Bug) -> Detector {
    use Bug::*;
    use Detector::*;
    match bug {
        SyncOneSegment
        | StaleRecords
        | SegmentHeaderNotSynced
        | TornBatch
        | RecoveredLogOpen
        | RecoveredLogNotSynced
        | CalledSyncedEarly
        | MarkBeforeSync => Seeds("crash"),
        ForeignManifestTaken => Probe("foreign-files"),
        DestroyByName => Probe("destroy"),
        SweepByName => Probe("strange-table"),
        LockByName => Probe("lock-file-removed"),
        DirectoryByName => Probe("directory-replaced"),
        TableOfAnyDatabase => Probe("table-of-another"),
        RecoveredLogNotAwaited => Probe("replayed-awaited"),
        TornSessionSkipped => Probe("replayed-torn"),
        DirectoryNotSynced
        | ManifestNotSynced
        | NewManifestNotSynced
        | NewManifestNameNotSynced
        | TableNotSynced => Seeds("crash"),
        DropNotLogged | ReplaySkipsKeyspace => Probe("keyspaces"),
        AcknowledgeBeforeSync | UserSpaceBuffer | RecycledBeforeEdit => Seeds("crash"),
        PositionsReused | FileNumbersReused | LogStartBeforeFlush | ReplayedLogDropped | ReplayOffByOne => {
            Seeds("crash")
        }
        DeletedBeforeEdit | GreedySweep => Seeds("crash"),
        SequenceRestarts | CommitsForgotten | CacheKeyWithoutFile | StaleRow => Seeds("meta"),
        TombstoneDroppedEarly | FlushLosesDeletes | NewestDropped | SplitUserKey | LowerBoundIgnored => {
            Seeds("meta")
        }
        KeyAltered | SeekLandsLate | FilterForgets => Seeds("meta"),
        PrevRepeats => Probe("turning"),
        ReadErrorEndsLog => Probe("read-error"),
        DamageEndsLog => Probe("log-damage"),
        StrangeHeader => Probe("half-made-log"),
        GapAcknowledged | GapCalledDurable => Probe("gap"),
        LeadersTarget | LostWakeUp => Probe("waiting"),
        PeriodicForgotten | PeriodicAfterSegments => Probe("periodic"),
        PeriodicRounded => Seeds("crash"),
        IndexEntriesUncounted => Probe("index-weight"),
        SpareSegmentsStay => Probe("spare-segments"),
        SessionUnrecorded => Seeds("crash"),
        ShortSegmentsStay => Probe("short-segments"),
        PausedWritesWait => Probe("paused"),
        PositionsPastTheEnd => Probe("position-limit"),
        FullLogIsFinal => Probe("full-log"),
        ReplayByLogBytes => Probe("replayed-small"),
        BodyUnpinned | BodyNotSynced | BodyAcrossRotation | BodyCutAtReplay => Probe("bodies"),
        VacancyOfLaterState => Probe("late-sequence"),
        SparesOnFullDisk => Probe("full-disk-spares"),
        NamelessTreeStays => Probe("nameless-tree"),
        ReplayedIntoMemory | RestForgotten => Probe("long-log"),
        StallClockUnbounded => Probe("large-price"),
        RetrySync => Probe("sync-error"),
        OutputsTakenBack => Probe("manifest-error"),
        UnreadableSkipped => Probe("table-error"),
        SnapshotBoundary | SnapshotsIgnored => Probe("tiny-batch"),
        OverwrittenVersionsStay | ObsoleteTablesStay => Probe("space"),
        FinishedSlicesStay => Probe("finished-slices"),
        CompactionRetriedAtOnce => Probe("compaction-retries"),
        GarbageByWeight => Probe("hidden-garbage"),
        SnapshotGarbageStays => Probe("snapshot-garbage"),
        LeveledNeverIdle => Probe("leveled-idle"),
        IdleRewrites => Probe("idle-cost"),
        TierNeverFull | MergeBegunForgotten => Probe("shape"),
        NewerRunsSink => Probe("yielding-merges"),
        FirstKeyspaceFirst => Probe("fair-compactions"),
        PrefixBound => Probe("prefix"),
        BoundsNotHandedOn => Probe("scan-bounds"),
        VersionsWalked => Probe("hot-key"),
        VacancyNotCut | VacancyAtOnce | VacancyForOlder => Probe("vacancies"),
        VacancyGrownEarly => Probe("vacancy-growth"),
        IterSeesLater => Probe("iterator-state"),
        ErrorSwallowed => Probe("flush-error"),
        CacheOutlivesClose | ViewOutlivesClose => Probe("leavings"),
        DrainedForNothing => Probe("drained"),
        FilesStayOpen => Probe("descriptors"),
        AnotherFileOpened => Probe("replaced-table"),
        FullDiskIsFinal => Probe("full-disk"),
        MemtableGrows => Probe("memory"),
        ChecksumWithoutOffset => Probe("swapped-blocks"),
        NoLengthCap => Probe("crafted-index"),
        UncheckedAdd => Probe("crafted-footer"),
        NoLock => Probe("lock"),
        EmptyKeyspaceName => Probe("names"),
        StaleEntriesStay | LastBlockForAll | RowsNotAsked | DeleteKeepsEntries | ApplyLosesDeletes
        | CountIgnoresDeltas => Seeds("meta"),
        TreeForgotten => Seeds("meta"),
        ApplyIgnoresSnapshots => Probe("index-snapshot"),
        TreePagesReused => Probe("index-pages"),
        StrictNotLogged => Probe("index-log"),
        NamedIndexNotMade | LeftOutIndexUnnoticed => Probe("index-named"),
        PauseOutlivesGuard => Probe("pause-guard"),
        IndexAheadOfRows | TreeNotSynced => Seeds("crash"),
        SequenceBeforeView => Probe("reading-while-merging"),
        TornLeaf => Model("sapwood-memtable", &["--test", "loom", "a_lookup_sees_whole_leaves"]),
        AppendLeftOut => Model("sapwood-memtable", &["--test", "loom", "readers_that_put_appends_in_order"]),
        CutTooEarly => Model("sapwood-memtable", &["--test", "loom", "a_lookup_beside_the_sorting"]),
        ShortcutBelieved => Seeds("meta"),
        PinnedFrameFreed => Model("sapwood-storage", &["--lib", "a_pinned_frame_is_freed_once"]),
        PublishedUnordered => Model("sapwood", &["--test", "loom", "what_is_published_was_inserted"]),
        IndexEpochUnordered => Model("sapwood", &["--test", "loom", "a_write_behind_the_start_of_an_index"]),
        FlushViewBeforeRotation => Seeds("shuttle --alone --seeds 180..1000000"),
        VacancyUnfenced => Probe("vacancy-fence"),
        CloseLeavesCalls => Probe("closing"),
        ScarcityIsFinal => Seeds("scarcity"),
        ForkUnmarked => Probe("fork"),
        WordWithoutCarry => Seeds("crash"),
        NoRoomLeft => Probe("address-space"),
        FailedFlushKeepsTables => Probe("full-disk-flush"),
        StartNotAwaited => Model("sapwood", &["--test", "loom", "a_frozen_generation"]),
    }
}

/// The way in which a bug was found.
struct Found {
    by: String,
    /// Units of work that the detector counted until then: states, runs; none for probes and
    /// models.
    count: Option<u64>,
    after: Duration,
    what: String,
}

fn run(settings: &Settings) -> ExitCode {
    if settings.has("--list") {
        for bug in Bug::ALL {
            println!("{:<28} {:<28} {}\n  {}", bug.name(), bug.class(), label(detector(*bug)), bug.what());
        }
        return ExitCode::SUCCESS;
    }
    if !cfg!(feature = "planted") {
        eprintln!("sapwood-sim: this build has no bugs to plant: build with --features planted");
        return ExitCode::from(2);
    }
    let campaign = match settings.text("--size") {
        None | Some("ci") => false,
        Some("campaign") => true,
        Some(other) => {
            eprintln!("sapwood-sim: --size is ci or campaign, not {other:?}");
            return ExitCode::from(2);
        }
    };
    let least: usize = settings.text("--least").and_then(|percent| percent.parse().ok()).unwrap_or(80);
    let only = settings.text("--only");
    let models = settings.has("--models");
    let needs_model = |bug: &Bug| matches!(detector(*bug), Detector::Model(..));
    let bugs: Vec<Bug> = Bug::ALL
        .iter()
        .copied()
        .filter(|bug| only.is_none_or(|only| only == bug.name()))
        .filter(|bug| models || campaign || !needs_model(bug))
        .collect();
    if bugs.is_empty() {
        eprintln!("sapwood-sim: no such bug; see sabotage --list (models need --models)");
        return ExitCode::from(2);
    }

    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Found>>> = Mutex::new(bugs.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..PROCESSES {
            scope.spawn(|| {
                loop {
                    // Relaxed: only the number matters.
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bug) = bugs.get(at) else { return };
                    let found = hunt(*bug, campaign, models);
                    println!("{}", line(*bug, found.as_ref()));
                    results.lock().expect("not poisoned")[at] = found;
                }
            });
        }
    });
    let results = results.into_inner().expect("not poisoned");
    let found = results.iter().filter(|found| found.is_some()).count();
    let missed: Vec<&str> =
        bugs.iter().zip(&results).filter(|(_, found)| found.is_none()).map(|(bug, _)| bug.name()).collect();
    if !missed.is_empty() {
        println!("not found: {}", missed.join(", "));
    }
    let left_out = Bug::ALL.len() - bugs.len();
    let left_out = match left_out {
        0 => String::new(),
        count => format!(", {count} left out"),
    };
    println!("sabotage: {found} of {} found{left_out}, {:.0} s", bugs.len(), start.elapsed().as_secs_f64());
    ExitCode::from(u8::from(found * 100 < bugs.len() * least))
}

fn line(bug: Bug, found: Option<&Found>) -> String {
    let start = format!("{:<28} {:<26}", bug.name(), bug.class());
    match found {
        None => format!("{start} NOT FOUND"),
        Some(found) => {
            let count = found.count.map_or(String::new(), |count| format!(" {count}"));
            let what: String = found.what.chars().take(110).collect();
            format!("{start} {:<22} {:>6.1} s{count:>7}  {what}", found.by, found.after.as_secs_f64())
        }
    }
}

fn label(detector: Detector) -> String {
    match detector {
        Detector::Seeds(name) => name.to_string(),
        Detector::Probe(name) => format!("probe {name}"),
        Detector::Model(package, _) => format!("loom {package}"),
    }
}

/// Runs detectors until one finds the bug.
fn hunt(bug: Bug, campaign: bool, models: bool) -> Option<Found> {
    let seconds = SECONDS[usize::from(campaign)];
    let named = detector(bug);
    let others = EVERYTHING.iter().copied().filter(|other| campaign && *other != named);
    let all =
        std::iter::once(named).filter(|named| models || !matches!(named, Detector::Model(..))).chain(others);
    let start = Instant::now();
    for detector in all {
        if let Detector::Probe(name) = detector
            && fails_anyway(name, None)
        {
            continue;
        }
        let found = match detector {
            Detector::Seeds(name) => watch_seeds(name, bug, seconds),
            Detector::Probe(name) => {
                let mut command = this_program();
                command.args(["probe", "--only", name, "--planted", bug.name()]);
                command.env("SAPWOOD_PLANTED", bug.name());
                watch_whole(command).map(|what| (None, what))
            }
            Detector::Model(package, arguments) => {
                watch_model(package, arguments, bug).map(|what| (None, what))
            }
        };
        if let Some((count, what)) = found {
            return Some(Found { by: label(detector), count, after: start.elapsed(), what });
        }
    }
    None
}

fn this_program() -> std::process::Command {
    std::process::Command::new(std::env::current_exe().expect("this program has a path"))
}

/// Runs seeds of a sub-command in a process until one reports a violation. Returns the work until
/// then, and the violation.
fn watch_seeds(name: &str, bug: Bug, seconds: u64) -> Option<(Option<u64>, String)> {
    let mut command = this_program();
    command.args(name.split(' ')).args(["--planted", bug.name(), "--part", "0/1"]);
    if !name.contains("--seeds") {
        command.args(["--seeds", "0..1000000"]);
    }
    command.args(["--seconds", &seconds.to_string()]).env("SAPWOOD_PLANTED", bug.name());
    let mut child = Ended(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a process"));
    let output = BufReader::new(child.0.stdout.take().expect("it is a pipe"));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut patience = Patience::new(child.0.id(), Duration::from_secs(seconds) + HANG);
    let (mut count, mut is_running) = (0, None);
    loop {
        let message = match receiver.recv_timeout(LOOK) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                if !patience.is_over() {
                    continue;
                }
                return Some((Some(count), format!("hangs at seed {is_running:?}")));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.0.wait().expect("it was started here");
                // If the process does not know the sub-command, it ends before its first seed.
                let seed = is_running.filter(|_| !status.success())?;
                return Some((Some(count), format!("the process dies at seed {seed}: {status}")));
            }
        };
        if let Some(seed) = message.strip_prefix("begin ") {
            is_running = Some(seed.to_string());
        } else if let Some((_, report)) = SeedReport::from_line(&message) {
            count += report.counts.first().copied().unwrap_or(0);
            let seed = is_running.take().unwrap_or_default();
            if let Some(violation) = report.violations.first()
                && !fails_anyway(name, Some(&seed))
            {
                return Some((Some(count), violation.lines().next().unwrap_or_default().to_string()));
            }
        }
    }
}

/// Whether a seed of a sub-command, or a scenario, fails in this program with nothing planted. The
/// result is cached.
fn fails_anyway(name: &str, seed: Option<&str>) -> bool {
    static KNOWN: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());
    let mut command = this_program();
    match seed {
        Some(seed) if name == "crash" => command.args([name, "--seed", seed, "--no-shrink"]),
        Some(seed) => {
            // Keep its options, except the range of seeds.
            let words = name.split(" --seeds").next().unwrap_or(name).split(' ');
            command.args(words).args(["--seed", seed])
        }
        None => command.args(["probe", "--only", name]),
    };
    let asked = format!("{:?}", command.get_args().collect::<Vec<_>>());
    if let Some(fails) = KNOWN.lock().expect("not poisoned").get(&asked) {
        return *fails;
    }
    let fails = watch_whole(command).is_some();
    if fails {
        println!("{asked} fails with nothing planted and is not counted");
    }
    KNOWN.lock().expect("not poisoned").insert(asked, fails);
    fails
}

/// Runs a process to its end. Returns its message if it fails or hangs.
fn watch_whole(mut command: std::process::Command) -> Option<String> {
    let mut child = Ended(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a process"));
    let mut errors = child.0.stderr.take().expect("it is a pipe");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let mut patience = Patience::new(child.0.id(), HANG * 2);
    let text = loop {
        match receiver.recv_timeout(LOOK) {
            Ok(text) => break text,
            Err(RecvTimeoutError::Timeout) if !patience.is_over() => {}
            Err(_) => return Some("hangs".to_string()),
        }
    };
    let status = child.0.wait().expect("it was started here");
    // The message of a panic is the line after its location.
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let what = lines.next().unwrap_or("it fails").to_string();
    (!status.success()).then_some(what)
}

/// Builds and runs a loom model through cargo.
fn watch_model(package: &str, arguments: &[&str], bug: Bug) -> Option<String> {
    // One build at a time: cargo serializes them anyway.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().expect("not poisoned");
    let flags = format!("{} --cfg sapwood_loom", std::env::var("RUSTFLAGS").unwrap_or_default());
    let folder = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_string());
    let output = std::process::Command::new("cargo")
        .args(["test", "--release", "-p", package, "--features", "planted"])
        .args(arguments)
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", format!("{folder}/loom"))
        .env("LOOM_MAX_PREEMPTIONS", "2")
        .env("SAPWOOD_PLANTED", bug.name())
        .output()
        .expect("cargo is there");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // A build that fails is no failed test.
    let failed = text.contains("test result: FAILED") || text.contains("(signal: ");
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    failed.then(|| lines.next().unwrap_or("it fails").to_string())
}

/// A process that does not outlive its watcher.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
