//! Writes the database of known content that every later release must read. Run once for each
//! released format.
//!
//! `cargo run -p sapwood-tests --bin make_database -- tests/data/format-2`
use sapwood_tests::golden;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: make_database DIRECTORY");
        return ExitCode::FAILURE;
    };
    let path = Path::new(&path);
    match golden::write(path).and_then(|()| golden::check(path, true)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
