//! The command line of `sapwood-sim`: sub-commands and options, read from tables.
use crate::sim::report::SeedReport;
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

/// A sub-command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its purpose in one line.
    pub help: &'static str,
    /// Its own options, in addition to `OPTIONS`: name, placeholder of the value (empty for a
    /// switch), help.
    pub options: &'static [(&'static str, &'static str, &'static str)],
    /// Its implementation.
    pub run: Run,
}

/// The implementation of a sub-command.
pub enum Run {
    /// One seed after the other, distributed over processes.
    Seeds {
        /// Runs one seed. Called on a thread of its own; a panic is a violation.
        seed: fn(u64, &Settings) -> SeedReport,
        /// The names of [`SeedReport::counts`]. The speed is measured in the first one.
        counts: &'static [&'static str],
        /// The default duration. Without a limit of seeds the run continues until then.
        seconds: u64,
        /// The default seeds.
        seeds: Range<u64>,
    },
    /// One run in this process.
    Whole(fn(&Settings) -> ExitCode),
}

/// Options that all sub-commands have.
const OPTIONS: [(&str, &str, &str); 7] = [
    ("--seconds", "N", "stop after N seconds"),
    ("--seeds", "A..B", "the seeds from A to B - 1"),
    ("--seed", "N", "one seed, in this process"),
    ("--jobs", "N", "processes that share the seeds; all processors if not given"),
    ("--part", "I/N", "every Nth seed from the Ith on, in this process (jobs are started with it)"),
    ("--planted", "NAME", "plant this bug first; needs the feature `planted`, see `sabotage --list`"),
    ("--help", "", "print this help"),
];

/// The parsed settings.
#[derive(Clone, Default)]
pub struct Settings {
    /// See `--seconds`.
    pub seconds: Option<Duration>,
    /// See `--seeds` and `--seed`.
    pub seeds: Option<Range<u64>>,
    /// Whether one seed runs in this process, for debugging.
    pub single: bool,
    /// See `--jobs`.
    pub jobs: Option<usize>,
    /// See `--part`.
    pub part: Option<(u64, u64)>,
    /// See `--planted`.
    pub planted: Option<String>,
    /// Options of the sub-command, with their values (empty for a switch).
    pub own: BTreeMap<String, String>,
}

impl Settings {
    /// An option of the sub-command as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        // Checked by `parse`.
        self.own.get(name).and_then(|value| value.parse().ok())
    }

    /// An option of the sub-command as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.own.get(name).map(String::as_str)
    }

    /// Whether a switch of the sub-command is set.
    pub fn has(&self, name: &str) -> bool {
        self.own.contains_key(name)
    }

    /// Adds an option of the sub-command, for tests.
    pub fn with(mut self, name: &str, value: impl ToString) -> Settings {
        self.own.insert(name.to_string(), value.to_string());
        self
    }
}

/// The meaning of a command line.
pub enum Parsed<'c> {
    /// A text to print instead of running anything.
    Help(String),
    /// A sub-command with settings.
    Run(&'c Command, Settings),
}

/// Parses arguments, without the program's name.
///
/// Errors: a message for the user.
pub fn parse<'c>(commands: &'c [Command], arguments: &[String]) -> Result<Parsed<'c>, String> {
    let Some((name, rest)) = arguments.split_first() else {
        return Err(format!("a sub-command is missing\n\n{}", overview(commands)));
    };
    if ["--help", "-h", "help"].contains(&name.as_str()) {
        return Ok(Parsed::Help(overview(commands)));
    }
    let Some(command) = commands.iter().find(|command| command.name == name) else {
        return Err(format!("no sub-command {name:?}\n\n{}", overview(commands)));
    };
    let mut settings = Settings::default();
    let mut rest = rest.iter();
    while let Some(option) = rest.next() {
        let known = OPTIONS.iter().chain(command.options).find(|(known, ..)| known == option);
        let Some((_, value_name, _)) = known else {
            return Err(format!("{name} has no option {option:?}; see: sapwood-sim {name} --help"));
        };
        let value = match value_name.is_empty() {
            true => "",
            false => rest.next().ok_or_else(|| format!("{option} needs a value: {option} {value_name}"))?,
        };
        let number =
            || value.parse::<u64>().map_err(|_| format!("{option} needs a number, which {value:?} is not"));
        match option.as_str() {
            "--help" => return Ok(Parsed::Help(details(command))),
            "--seconds" => settings.seconds = Some(Duration::from_secs(number()?)),
            "--planted" => settings.planted = Some(value.to_string()),
            "--jobs" => settings.jobs = Some(number()?.max(1) as usize),
            "--seed" => {
                let seed = number()?;
                settings.seeds = Some(seed..seed + 1);
                settings.single = true;
            }
            "--seeds" => {
                let range = value.split_once("..").and_then(|(from, to)| {
                    let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
                    (from < to).then_some(from..to)
                });
                settings.seeds =
                    Some(range.ok_or_else(|| {
                        format!("--seeds needs two numbers A..B with A < B, not {value:?}")
                    })?);
            }
            "--part" => {
                let part = value
                    .split_once('/')
                    .and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok().filter(|of| *of > 0)?)));
                settings.part = Some(part.ok_or_else(|| format!("--part needs I/N, not {value:?}"))?);
            }
            _ => {
                if *value_name == "N" {
                    number()?;
                }
                settings.own.insert(option.clone(), value.to_string());
            }
        }
    }
    Ok(Parsed::Run(command, settings))
}

fn overview(commands: &[Command]) -> String {
    let mut text = String::from("usage: sapwood-sim SUB-COMMAND [OPTIONS]\n\nsub-commands:\n");
    for command in commands {
        text += &format!("  {:<10} {}\n", command.name, command.help);
    }
    text + "\nsapwood-sim SUB-COMMAND --help lists the options of one"
}

fn details(command: &Command) -> String {
    let mut text = format!("usage: sapwood-sim {} [OPTIONS]\n\n{}\n\noptions:\n", command.name, command.help);
    let shared = match command.run {
        Run::Seeds { .. } => &OPTIONS[..],
        Run::Whole(_) => &OPTIONS[OPTIONS.len() - 1..],
    };
    for (name, value, help) in command.options.iter().chain(shared) {
        text += &format!("  {:<20} {help}\n", format!("{name} {value}"));
    }
    text.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: [Command; 1] = [Command {
        name: "crash",
        help: "asks",
        options: &[("--states", "N", "states"), ("--shrink", "", "shrinks")],
        run: Run::Whole(|_| ExitCode::SUCCESS),
    }];

    fn settings(text: &str) -> Result<Settings, String> {
        let arguments: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        match parse(&COMMANDS, &arguments)? {
            Parsed::Run(_, settings) => Ok(settings),
            Parsed::Help(help) => Err(help),
        }
    }

    #[test]
    fn options_are_read() {
        let read = settings("crash --seeds 3..9 --seconds 5 --jobs 2 --states 7 --shrink").unwrap();
        assert_eq!(read.seeds, Some(3..9));
        assert_eq!(read.seconds, Some(Duration::from_secs(5)));
        assert_eq!((read.jobs, read.number("--states"), read.has("--shrink")), (Some(2), Some(7), true));
        assert_eq!(settings("crash --part 1/4").unwrap().part, Some((1, 4)));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, says) in [
            ("", "missing"),
            ("dance", "no sub-command"),
            ("crash --seed", "needs a value"),
            ("crash --seed x", "needs a number"),
            ("crash --states x", "needs a number"),
            ("crash --seeds 9..3", "A < B"),
            ("crash --part 1/0", "I/N"),
            ("crash --colour red", "no option"),
            ("crash --help", "--states N"),
            ("--help", "crash"),
        ] {
            let message = settings(text).err().expect(text);
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
