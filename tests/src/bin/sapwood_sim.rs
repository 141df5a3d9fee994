//! `sapwood-sim`: simulated crashes, failures and settings in bulk. See `tests/README.md`, or `sapwood-sim --help`.
use sapwood_tests::sim::arguments::{Command, Parsed, parse};
use sapwood_tests::sim::{crash, jobs, meta};
use std::process::ExitCode;

/// Every sub-command.
const COMMANDS: &[Command] = &[crash::COMMAND, meta::COMMAND];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(COMMANDS, &arguments) {
        Ok(Parsed::Help(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(command, settings)) => jobs::run(command, &settings, &jobs::for_jobs(&arguments)),
        Err(message) => {
            eprintln!("sapwood-sim: {message}");
            ExitCode::from(2)
        }
    }
}
