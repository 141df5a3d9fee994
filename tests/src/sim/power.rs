//! `sapwood-sim power`: power losses of a real file system.
//!
//! A [`child`](super::kill::child) writes to an ext4 on a loop device. It is stopped, and the file
//! system is shut down at once: from then on neither data nor journal reaches the device
//! (`xfstests` calls this "godown"). At the next mount ext4 replays its journal as after a power
//! loss, and the next child finds the result of a real crash: every commit that a sync had covered,
//! and a prefix of the others.
//!
//! Needs root, `mkfs.ext4`, loop devices and a memory file system; without them it reports so and
//! does nothing.
#![allow(clippy::disallowed_methods, reason = "stops real processes after real times")]
use super::arguments::{Command, Run, Settings};
use super::jobs::replay_command;
use super::kill::child::{Orders, is_flushed_after};
use super::kill::{End, Running, run, unmount};
use super::report::SeedReport;
use crate::history::commit;
use rustix::process::Signal;
use sapwood::Durability;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "power",
    help: "power losses of a real ext4 on a loop device; checks every synced commit, and that the rest is a prefix",
    options: &[("--lives", "N", "power losses per seed (8)")],
    run: Run::Seeds {
        seed,
        counts: &["power losses", "commits", "commits lost"],
        seconds: 30,
        seeds: 0..1_000_000,
    },
};

/// The directory of the device's image.
const MEMORY: &str = "/dev/shm";
const DISK_BYTES: u64 = 64 << 20;

/// One file system with one history.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let mut report = SeedReport { counts: vec![0; 3], violations: Vec::new() };
    let lives = settings.number("--lives").unwrap_or(8);
    match campaign(seed, lives, &mut report.counts) {
        Ok(()) => {}
        Err(Stop::Missing(reason)) => {
            eprintln!("power: skipped: {reason}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(Stop::Wrong(message)) => {
            let replay = replay_command("power", seed);
            report.violations.push(format!("seed {seed}: {message}\n  replay with: {replay} (times differ)"));
        }
    }
    report
}

enum Stop {
    /// This machine lacks a requirement.
    Missing(String),
    Wrong(String),
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Wrong(message)
    }
}

fn campaign(seed: u64, lives: u64, counts: &mut [u64]) -> Result<(), Stop> {
    if !rustix::process::geteuid().is_root() {
        return Err(Stop::Missing("only root may mount".to_string()));
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::Builder::new()
        .prefix("sapwood-power-")
        .tempdir_in(MEMORY)
        .map_err(|error| Stop::Missing(format!("{MEMORY}: {error}")))?;
    let disk = folder.path().join("disk");
    let file = File::create(&disk).and_then(|file| file.set_len(DISK_BYTES));
    file.map_err(|error| Stop::Missing(format!("{}: {error}", disk.display())))?;
    let block_bytes = *random.choice(["1024", "4096"].iter()).expect("there are two");
    run("mkfs.ext4", &["-q", "-F", "-b", block_bytes], &disk).map_err(Stop::Missing)?;
    let options = *random
        .choice(["data=ordered", "data=ordered,commit=1", "data=writeback"].iter())
        .expect("there are some");
    let point = folder.path().join("mounted");
    std::fs::create_dir(&point).map_err(|error| Stop::Missing(error.to_string()))?;

    let (mut durable, mut last) = (0, 0);
    for life in 0..=lives {
        let mounted = Mounted::mount(&disk, &point, options).map_err(|error| match life {
            0 => Stop::Missing(error),
            _ => Stop::Wrong(format!("after a power loss: {error}")),
        })?;
        let path = point.join("db").to_string_lossy().into_owned();
        let orders = Orders { path, seed, floor: durable, ceiling: last, is_poor: false };
        let running = Running::start(&orders, None)?;
        let life = if random.u8(..4) == 0 { random.u64(..60) } else { random.u64(60..400) };
        std::thread::sleep(Duration::from_millis(life));
        running.signal(Signal::STOP);
        // A stopped child acknowledges nothing, so every acknowledgement came before.
        std::thread::sleep(Duration::from_millis(5));
        mounted.shut_down().map_err(Stop::Missing)?;
        let (numbers, end) = running.kill()?;
        if end != End::Killed {
            return Err(Stop::Wrong("a child without a limit was refused a resource".to_string()));
        }
        drop(mounted);
        counts[0] += 1;
        if let Some(found) = numbers.first() {
            counts[2] += last - found.min(&last);
            // The commits found after a power loss were on the disk.
            durable = *found;
            last = *found;
        }
        for number in numbers.into_iter().skip(1) {
            counts[1] += 1;
            last = number;
            if commit(seed, number).durability == Durability::Sync {
                durable = number;
            }
            // A flush is complete when the next commit is acknowledged.
            if is_flushed_after(number - 1) {
                durable = durable.max(number - 1);
            }
        }
        // One commit may have been in progress.
        last += 1;
    }
    Ok(())
}

/// A mounted file system; unmounted when dropped, which also frees its loop device.
struct Mounted {
    point: PathBuf,
}

impl Mounted {
    fn mount(disk: &Path, point: &Path, options: &str) -> Result<Mounted, String> {
        let options = format!("loop,{options}");
        let disk = disk.to_string_lossy();
        run("mount", &["-t", "ext4", "-o", &options, &disk], point)?;
        Ok(Mounted { point: point.to_path_buf() })
    }

    /// From here on nothing reaches the device.
    #[allow(unsafe_code)]
    fn shut_down(&self) -> Result<(), String> {
        /// `EXT4_IOC_SHUTDOWN`.
        const SHUT_DOWN: rustix::ioctl::Opcode = 0x8004_587D;
        /// Without writing the journal first.
        const AT_ONCE: u32 = 2;
        let root = File::open(&self.point).map_err(|error| error.to_string())?;
        // SAFETY: the kernel reads one u32 at the address that it is given, and writes nothing.
        let result =
            unsafe { rustix::ioctl::ioctl(&root, rustix::ioctl::Setter::<SHUT_DOWN, u32>::new(AT_ONCE)) };
        result.map_err(|error| format!("this ext4 cannot be shut down: {error}"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.point);
    }
}
