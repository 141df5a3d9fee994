//! The child process of the kill test: see `sapwood_tests::sim::kill::child`.
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    sapwood_tests::sim::kill::child::live(&arguments)
}
