//! `sapwood-sim kill`: real processes on real directories, killed repeatedly.
//!
//! A [`child`] writes a history that a seed determines. It is killed after a random time: while it
//! works, while it recovers, or while it is stopped. Some children run under a limit of open files,
//! of file sizes or of address space, and some on a file system that is too small. Those get
//! errors, and lose nothing. Each later child checks that every acknowledged commit is present, and
//! at most one more, which was in progress.
#![allow(clippy::disallowed_methods, reason = "kills real processes after real times")]
use super::arguments::{Command, Run, Settings};
use super::jobs::replay_command;
use super::report::SeedReport;
use crate::harness::{contents, small};
use crate::history::{SPACES, State};
use crate::oracle::{Map, difference};
use crate::sim::kill::child::Orders;
use rustix::process::{Pid, Signal, kill_process};
use sapwood::{Db, KeyspaceOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

pub mod child;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "kill",
    help: "real processes are killed and run short of resources; checks every acknowledged commit",
    options: &[("--lives", "N", "children per seed (12)")],
    run: Run::Seeds { seed, counts: &["kills", "refusals", "commits"], seconds: 30, seeds: 0..1_000_000 },
};

/// One directory with one history.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let mut report = SeedReport { counts: vec![0; 3], violations: Vec::new() };
    let lives = settings.number("--lives").unwrap_or(12);
    if let Err(message) = campaign(seed, lives, &mut report.counts) {
        let replay = replay_command("kill", seed);
        report.violations.push(format!("seed {seed}: {message}\n  replay with: {replay} (times differ)"));
    }
    report
}

fn campaign(seed: u64, lives: u64, counts: &mut [u64]) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    // Every third history has too small a disk, if this process may mount one.
    let disk = match random.u8(..3) {
        0 => SmallDisk::mount(folder.path(), random.u32(900..4000)),
        _ => None,
    };
    let path = folder.path().join("db");
    let mut floor = 0;
    for _ in 0..lives {
        let shortage = match random.u8(..8) {
            0 => Some(Shortage::FileBytes(random.u64(20..600) << 10)),
            1 => Some(Shortage::FileBytesFatal(random.u64(20..600) << 10)),
            2 => Some(Shortage::Handles(random.u64(8..60))),
            3 => Some(Shortage::AddressSpace(random.u64(16..200) << 20)),
            _ => None,
        };
        let is_poor = shortage.is_some() || disk.is_some();
        let orders =
            Orders { path: path.to_string_lossy().into_owned(), seed, floor, ceiling: floor + 1, is_poor };
        let running = Running::start(&orders, shortage)?;
        // Some die during recovery, most while they write.
        let life = if random.u8(..4) == 0 { random.u64(..40) } else { random.u64(40..350) };
        std::thread::sleep(Duration::from_millis(life));
        if random.u8(..4) == 0 {
            running.signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(random.u64(..30)));
            if random.bool() {
                running.signal(Signal::CONT);
                std::thread::sleep(Duration::from_millis(random.u64(..30)));
            }
        }
        let (acknowledged, end) = running.kill()?;
        match end {
            End::Killed => counts[0] += 1,
            End::Refused if is_poor => counts[1] += 1,
            End::Refused => return Err("a child without a limit was refused a resource".to_string()),
        }
        for (i, number) in acknowledged.iter().enumerate() {
            // The first report is the commit found, which may be the commit in progress at the last
            // kill.
            if *number != floor + 1 && !(i == 0 && *number == floor) {
                return Err(format!("commit {number} was acknowledged after {floor}"));
            }
            counts[2] += u64::from(i > 0);
            floor = *number;
        }
    }
    if let Some(disk) = &disk {
        disk.grow();
    }
    check(&path, seed, floor)
}

/// A final check from this process, with other settings.
fn check(path: &Path, seed: u64, floor: u64) -> Result<(), String> {
    let look = || -> sapwood::Result<Vec<Map>> {
        let db = Db::builder(path).memory_budget(16 << 20).advanced(small).open()?;
        let mut maps = Vec::new();
        for name in SPACES {
            maps.push(contents(&db.keyspace(name, KeyspaceOptions::default())?)?);
        }
        db.close()?;
        Ok(maps)
    };
    let maps = look().map_err(|error| format!("the last session: {error}"))?;
    let mut state = State::new(seed);
    state.advance_to(floor);
    if maps[..] != state.maps[..] {
        state.advance_to(floor + 1);
    }
    match maps.iter().zip(&state.maps).find_map(|(map, want)| difference(map, want)) {
        Some(difference) => Err(format!("at the end, with {floor} commits acknowledged: {difference}")),
        None => Ok(()),
    }
}

/// Children one after the other, each with more address space than the one before: from too little
/// for an open to more than enough. Each may end only by an error.
pub(super) fn in_little_address_space(megabytes: impl Iterator<Item = u64>) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().join("db");
    let (seed, mut floor, mut refusals) = (1, 0, 0);
    for limit in megabytes {
        let path = path.to_string_lossy().into_owned();
        let orders = Orders { path, seed, floor, ceiling: floor + 1, is_poor: true };
        let running = Running::start(&orders, Some(Shortage::AddressSpace(limit << 20)))?;
        std::thread::sleep(Duration::from_millis(80));
        let (acknowledged, end) = running.kill().map_err(|error| format!("{limit} MiB: {error}"))?;
        refusals += u64::from(end == End::Refused);
        floor = acknowledged.last().copied().unwrap_or(floor);
    }
    if refusals == 0 || floor == 0 {
        return Err(format!("{refusals} refusals and {floor} commits: the limits have no effect"));
    }
    check(&path, seed, floor)
}

/// The limit of a child.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shortage {
    /// File size: writes beyond it fail.
    FileBytes(u64),
    /// File size: a write beyond it ends the process.
    FileBytesFatal(u64),
    /// The number of open files.
    Handles(u64),
    /// Address space.
    AddressSpace(u64),
}

/// The end of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a signal.
    Killed,
    /// By the refusal of a resource.
    Refused,
}

/// A running child.
pub(super) struct Running {
    child: Child,
    output: JoinHandle<Vec<u8>>,
    errors: JoinHandle<Vec<u8>>,
}

/// The program of the child (this one or its neighbour), with its first arguments.
fn program() -> (PathBuf, Option<&'static str>) {
    let this = std::env::current_exe().expect("this program has a path");
    if this.file_stem().is_some_and(|name| name == "sapwood-sim") {
        return (this, Some("kill-child"));
    }
    // A test, which is in a folder below the programs.
    let folder = this.parent().and_then(Path::parent).expect("a test is in a folder of a folder");
    (folder.join("kill_child"), None)
}

impl Running {
    /// Starts a child.
    pub(super) fn start(orders: &Orders, shortage: Option<Shortage>) -> Result<Running, String> {
        let (program, first) = program();
        // The shell sets the limits, since they must apply to the child alone.
        let limits = match shortage {
            None => String::new(),
            Some(Shortage::FileBytes(bytes)) => format!("trap '' XFSZ; ulimit -f {}; ", bytes / 512),
            Some(Shortage::FileBytesFatal(bytes)) => format!("ulimit -c 0; ulimit -f {}; ", bytes / 512),
            Some(Shortage::Handles(count)) => format!("ulimit -n {count}; "),
            Some(Shortage::AddressSpace(bytes)) => format!("ulimit -c 0; ulimit -v {}; ", bytes >> 10),
        };
        let mut child = std::process::Command::new("sh")
            .args(["-c", &format!("{limits}exec \"$0\" \"$@\"")])
            .arg(program)
            .args(first)
            .args(orders.to_arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("a child cannot be started: {error}"))?;
        let output = drain(child.stdout.take().expect("it is a pipe"));
        let errors = drain(child.stderr.take().expect("it is a pipe"));
        Ok(Running { child, output, errors })
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // The child may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills the child, if it has not ended. Returns the numbers of the commits that it
    /// acknowledged, and its end.
    pub(super) fn kill(mut self) -> Result<(Vec<u64>, End), String> {
        // On Unix this is SIGKILL.
        self.child.kill().map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let output = self.output.join().expect("it only reads");
        let message = String::from_utf8_lossy(&self.errors.join().expect("it only reads")).into_owned();
        let numbers = output
            .chunks_exact(8)
            .map(|number| u64::from_le_bytes(number.try_into().expect("eight bytes")))
            .collect();
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status);
        match status.code() {
            // An allocation failed, a panic could not be caught, or memory was missing at an
            // access.
            None if by_signal.is_some_and(|signal| ![libc::SIGKILL, libc::SIGXFSZ].contains(&signal)) => {
                Err(format!("a child ended by itself ({status}): {}", message.trim_end()))
            }
            None => Ok((numbers, End::Killed)),
            Some(code) if code == i32::from(child::REFUSED) => Ok((numbers, End::Refused)),
            // Before its first line: the program or its libraries could not be loaded.
            Some(126 | 127) if message.contains("open") => Ok((numbers, End::Refused)),
            Some(_) => Err(format!("a child ended by itself ({status}): {}", message.trim_end())),
        }
    }
}

/// Reads the whole pipe, so that the child does not block.
fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A killed child leaves the output written so far.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// A file system in memory that is too small; unmounted when dropped.
struct SmallDisk {
    point: PathBuf,
}

impl SmallDisk {
    /// `None` if this process may not mount.
    fn mount(point: &Path, size_kib: u32) -> Option<SmallDisk> {
        let is_root = rustix::process::geteuid().is_root();
        let options = format!("size={size_kib}k");
        let arguments = ["-t", "tmpfs", "-o", &options, "sapwood-kill"];
        (is_root && run("mount", &arguments, point).is_ok()).then(|| SmallDisk { point: point.to_path_buf() })
    }

    fn grow(&self) {
        let _ = run("mount", &["-o", "remount,size=64m"], &self.point);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.point);
    }
}

/// Runs a program of the system on a path.
pub(super) fn run(program: &str, arguments: &[&str], path: &Path) -> Result<(), String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .arg(path)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}

/// Unmounts, at the latest when the last user is gone.
pub(super) fn unmount(point: &Path) {
    if run("umount", &[], point).is_err() {
        let _ = run("umount", &["-l"], point);
    }
}
