//! `sapwood-sim`: simulated crashes, failures and settings in bulk. See `tests/README.md`, or
//! `sapwood-sim --help`.
use sapwood_tests::harness::{plant, plant_named};
use sapwood_tests::sim::arguments::{Command, Parsed, parse};
use sapwood_tests::sim::{
    crash, fault, jobs, kill, meta, places, power, probe, sabotage, scarcity, sector, shuttle,
};
use std::process::ExitCode;

/// Every sub-command.
const COMMANDS: &[Command] = &[
    crash::COMMAND,
    meta::COMMAND,
    fault::COMMAND,
    scarcity::COMMAND,
    places::COMMAND,
    sector::COMMAND,
    shuttle::COMMAND,
    kill::COMMAND,
    power::COMMAND,
    probe::COMMAND,
    sabotage::COMMAND,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    plant();
    // Started by `kill` and `power`; not part of the interface.
    if let Some((name, rest)) = arguments.split_first()
        && name == "kill-child"
    {
        return kill::child::live(rest);
    }
    match parse(COMMANDS, &arguments) {
        Ok(Parsed::Help(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(command, settings)) => {
            if let Some(Err(message)) = settings.planted.as_deref().map(plant_named) {
                eprintln!("sapwood-sim: {message}");
                return ExitCode::from(2);
            }
            jobs::run(command, &settings, &jobs::for_jobs(&arguments))
        }
        Err(message) => {
            eprintln!("sapwood-sim: {message}");
            ExitCode::from(2)
        }
    }
}
