//! The report: one folder with JSON, tables and plots.
//!
//! | file | holds |
//! |---|---|
//! | `results.jsonl` | every measurement, one line each |
//! | `summary.json` | one entry for every workload and engine: means, ratios, intervals |
//! | `conditions.json` | machine, settings, versions, command |
//! | `README.md` | tables, and the workloads in which Sapwood is not first |
//! | `*.svg` | plots |
mod plots;
mod summary;
mod tables;

use crate::campaign::Campaign;
use crate::engine::{Engine, Name, Result, WithEngine};
use crate::measurement::Measurement;
use crate::meter;
use crate::settings::Settings;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use summary::Summary;

/// The conditions of the measurements.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// Day of the first measurement.
    pub date: String,
    /// The machine.
    pub machine: String,
    /// The settings that all engines share.
    pub settings: String,
    /// Number of rounds.
    pub rounds: u32,
    /// The commands that produced the results.
    pub commands: Vec<String>,
    /// Title, version, settings, and the durability of an acknowledged write.
    pub engines: Vec<[String; 4]>,
}

impl Conditions {
    /// The conditions of a campaign that is about to run.
    pub fn now(settings: &Settings, campaign: &Campaign) -> Conditions {
        // Folders of this machine are of no use in a report.
        let mut command = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--out" | "--scratch" => drop(arguments.next()),
                _ if argument.starts_with("--out=") || argument.starts_with("--scratch=") => {}
                _ => command.push(argument),
            }
        }
        let features = if cfg!(feature = "rocksdb") { " --features rocksdb" } else { "" };
        let program = format!("cargo run --release --manifest-path bench/compare/Cargo.toml{features} --");
        Conditions {
            date: today(),
            machine: meter::machine(),
            settings: settings.describe(),
            rounds: campaign.rounds,
            commands: vec![format!("{program} {}", command.join(" "))],
            engines: campaign.engines.iter().map(|name| name.with(About(*name))).collect(),
        }
    }

    /// Saves the conditions, merged with those of earlier campaigns in the folder.
    pub fn save(mut self, out: &Path) -> io::Result<()> {
        let earlier = Conditions::load(out);
        if !earlier.date.is_empty() {
            for engine in earlier.engines {
                if self.engines.iter().all(|known| known[0] != engine[0]) {
                    self.engines.push(engine);
                }
            }
            let mut commands = earlier.commands;
            commands.retain(|command| !self.commands.contains(command));
            commands.append(&mut self.commands);
            self =
                Conditions { date: earlier.date, commands, rounds: self.rounds.max(earlier.rounds), ..self };
        }
        fs::write(out.join("conditions.json"), serde_json::to_string_pretty(&self)?)
    }

    fn load(out: &Path) -> Conditions {
        let text = fs::read_to_string(out.join("conditions.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

struct About(Name);

impl WithEngine for About {
    type Output = [String; 4];
    fn run<E: Engine>(self) -> [String; 4] {
        let info = E::INFO;
        [self.0.title().into(), E::version(), info.settings.into(), info.acknowledged.text().into()]
    }
}

/// A description of an engine in one line.
pub fn describe(name: Name) -> String {
    let [title, version, settings, acknowledged] = name.with(About(name));
    format!("{title} {version}; {settings}; an acknowledged write {acknowledged}")
}

/// Writes all files except the results, which exist already.
pub fn write(out: &Path, measurements: &[Measurement]) -> Result<()> {
    let conditions = Conditions::load(out);
    let summary = Summary::of(measurements);
    fs::write(out.join("summary.json"), serde_json::to_string_pretty(&summary)?)?;
    let plots = plots::draw(out, &summary, measurements)?;
    fs::write(out.join("README.md"), tables::write(&conditions, &summary, measurements, &plots))?;
    Ok(())
}

/// Today's date in UTC, as `2026-11-21`.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Days since 1970 as year, month and day; the method is Howard Hinnant's `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }

    #[test]
    fn conditions_of_several_campaigns_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let one = |engine: &str, command: &str| Conditions {
            date: "2026-01-01".into(),
            commands: vec![command.into()],
            engines: vec![[engine.into(), "1".into(), String::new(), String::new()]],
            ..Conditions::default()
        };
        one("a", "x").save(folder.path()).unwrap();
        one("b", "y").save(folder.path()).unwrap();
        one("b", "y").save(folder.path()).unwrap();
        let both = Conditions::load(folder.path());
        assert_eq!(both.commands, ["x", "y"]);
        assert_eq!(both.engines.iter().map(|engine| &engine[0]).collect::<Vec<_>>(), ["b", "a"]);
    }
}
