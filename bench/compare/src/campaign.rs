//! Runs stations: one process per step, engines in the order A-B-C-C-B-A-…, and stores every result
//! at once.
//!
//! If a process fails, hangs or dies, each of its missing workloads becomes a failed measurement.
//! Nothing is left out, so that no engine gains from a workload that it cannot do.
use crate::engine::Name;
use crate::measurement::{Measurement, Outcome};
use crate::settings::{Settings, grouped};
use crate::station::Station;
use crate::workload::{self, Kind, Task};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A comparison: engines, stations, rounds and sizes.
pub struct Campaign {
    /// The engines.
    pub engines: Vec<Name>,
    /// The stations.
    pub stations: Vec<&'static Station>,
    /// Number of rounds.
    pub rounds: u32,
    /// The sizes.
    pub settings: Settings,
    /// The parent folder of the databases.
    pub scratch: PathBuf,
    /// The limit of a process, in seconds.
    pub timeout_seconds: f64,
    /// Duration of the sustained load, in seconds.
    pub sustained_seconds: f64,
    /// Existing measurements to skip: station, engine, round.
    pub done: HashSet<(String, Name, u32)>,
}

/// The file of results, one line each.
pub struct Results {
    file: File,
    /// All results, in the order of measurement.
    pub all: Vec<Measurement>,
}

impl Results {
    /// Opens the file and reads the results in it.
    pub fn open(path: &Path) -> io::Result<Results> {
        let all = match File::open(path) {
            Ok(file) => {
                let lines = BufReader::new(file).lines();
                lines
                    .map(|line| Ok(serde_json::from_str(&line?)?))
                    .collect::<io::Result<Vec<Measurement>>>()?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Results { file, all })
    }

    fn add(&mut self, measurement: Measurement) -> io::Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&measurement)?)?;
        self.all.push(measurement);
        Ok(())
    }

    /// The latest result of every engine, station, workload and round.
    pub fn latest(&self) -> Vec<Measurement> {
        let mut seen = HashSet::new();
        let key = |m: &Measurement| (m.engine, m.station.clone(), m.workload.clone(), m.round);
        let mut latest: Vec<Measurement> =
            self.all.iter().rev().filter(|m| seen.insert(key(m))).cloned().collect();
        latest.reverse();
        latest
    }
}

/// The outcome of a process.
struct Ended {
    measurements: Vec<Measurement>,
    /// The reason for missing measurements.
    failure: Option<String>,
}

impl Campaign {
    /// Runs the comparison. Only errors of this program itself end it.
    pub fn run(&self, results: &mut Results) -> io::Result<()> {
        let start = Instant::now();
        let cells = self.stations.len() * self.engines.len() * self.rounds as usize;
        let mut cell = 0;
        // The outer loop is over rounds: a campaign that is ended early has all stations, with
        // fewer rounds.
        for round in 1..=self.rounds {
            for station in &self.stations {
                let mut engines = self.engines.clone();
                if round % 2 == 0 {
                    engines.reverse();
                }
                for engine in engines {
                    cell += 1;
                    if self.done.contains(&(station.id.to_owned(), engine, round)) {
                        continue;
                    }
                    let elapsed = start.elapsed().as_secs();
                    let title = engine.title();
                    eprintln!(
                        "[{cell}/{cells}, {}:{:02}] round {round}, {}: {title}",
                        elapsed / 60,
                        elapsed % 60,
                        station.title
                    );
                    for measurement in self.cell(station, engine, round)? {
                        results.add(measurement)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One database: create, measure, remove.
    fn cell(&self, station: &Station, engine: Name, round: u32) -> io::Result<Vec<Measurement>> {
        let mut settings = self.settings.clone();
        (station.adjust)(&mut settings);
        let folder = tempfile::Builder::new().prefix("sapwood-compare-").tempdir_in(&self.scratch)?;
        let mut measurements: Vec<Measurement> = Vec::new();
        let mut failed: Option<String> = None;
        for workloads in station.processes {
            if round > 1 && *workloads == ["verify"] {
                continue;
            }
            let task = Task {
                engine,
                station: station.id.to_owned(),
                round,
                workloads: workloads.iter().map(|&id| id.to_owned()).collect(),
                settings: settings.clone(),
                folder: folder.path().to_owned(),
                sustained_seconds: self.sustained_seconds,
            };
            let ended = match &failed {
                None => self.process(&task)?,
                Some(why) => Ended { measurements: Vec::new(), failure: Some(format!("not run: {why}")) },
            };
            let wrong_data = ended.measurements.iter().any(|measurement| {
                measurement.workload == "verify" && matches!(measurement.outcome, Outcome::Failed(_))
            });
            if wrong_data {
                // Figures of an engine with wrong data do not count.
                for measurement in &mut measurements {
                    measurement.outcome = Outcome::Failed("its data did not verify".into());
                }
            }
            measurements.extend(ended.measurements);
            if let Some(why) = ended.failure {
                for missing in &task.workloads[..] {
                    let there = measurements.iter().any(|m| m.workload == *missing);
                    if !there {
                        measurements.push(Measurement {
                            engine,
                            station: station.id.to_owned(),
                            workload: missing.clone(),
                            round,
                            outcome: Outcome::Failed(why.clone()),
                        });
                    }
                }
                failed.get_or_insert(why);
            }
            // If the engine does not offer the first workload, the next process has no database.
            if let [Measurement { outcome: Outcome::NotOffered(_), .. }] = &measurements[..] {
                break;
            }
        }
        folder.close()?;
        // Dirty pages of this engine must not be written during the turn of the next one.
        rustix::fs::sync();
        Ok(measurements)
    }

    /// Runs one process and collects its results.
    fn process(&self, task: &Task) -> io::Result<Ended> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("cell")
            .arg(serde_json::to_string(task)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("the process has no pipes"));
        };
        let (sender, lines) = mpsc::channel();
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let complaints = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let deadline = Instant::now() + Duration::from_secs_f64(self.timeout_seconds);
        let mut measurements: Vec<Measurement> = Vec::new();
        let mut timed_out = false;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Ok(measurement) = serde_json::from_str::<Measurement>(&line) {
                        show(&measurement);
                        measurements.push(measurement);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    timed_out = true;
                    let _ = child.kill();
                    break;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait()?;
        let _ = listener.join();
        let complaints = complaints.join().unwrap_or_default();
        let complete = measurements.len() == task.workloads.len();
        let killed_itself = complete && task.workloads.last().is_some_and(|last| last == "kill");
        let failure = if timed_out {
            Some(format!("took longer than {} s", self.timeout_seconds))
        } else if status.success() || killed_itself {
            None
        } else {
            let last_words = complaints.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
            Some(format!("ended with {status}: {last_words}"))
        };
        if let Some(why) = &failure {
            eprintln!("    FAILED: {why}");
        }
        Ok(Ended { measurements, failure })
    }
}

fn show(measurement: &Measurement) {
    let Some(workload) = workload::find(&measurement.workload) else { return };
    let id = workload.id;
    match &measurement.outcome {
        Outcome::NotOffered(why) => eprintln!("    {id:<18} not offered: {why}"),
        Outcome::Failed(why) => eprintln!("    {id:<18} FAILED: {why}"),
        Outcome::Measured(figures) => match workload.kind {
            Kind::Silent => eprintln!("    {id:<18} {:>12.1} s", figures.seconds),
            Kind::Time => eprintln!("    {id:<18} {:>12.1} ms", figures.seconds * 1e3),
            Kind::Write | Kind::Read | Kind::Mixed => {
                let settled =
                    figures.settle_seconds.map_or(String::new(), |s| format!(", settled {s:.1} s later"));
                let rate = grouped(figures.rate() as u64);
                eprintln!("    {id:<18} {rate:>12} /s, {:.2} us CPU{settled}", figures.cpu_micros());
            }
        },
    }
}
