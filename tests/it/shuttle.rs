//! The engine's threads under schedules that a seed determines; in bulk: `sapwood-sim shuttle`.
#![allow(clippy::disallowed_methods, reason = "starts the tool")]
use std::process::Command;

/// The tool, in a process of its own: a run is reproducible only if no other thread works.
fn shuttle(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sapwood-sim")).arg("shuttle").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn threads_agree_in_any_order() {
    shuttle(&["--seeds", "0..12", "--jobs", "1", "--commits", "25"]);
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    let turns = |seed: &str| {
        let text = shuttle(&["--seed", seed, "--print", "--commits", "20"]);
        text.lines().find(|line| line.starts_with("turns: ")).expect("turns are printed").to_owned()
    };
    let seeds = ["3", "4", "5", "6"];
    let first: Vec<String> = seeds.iter().map(|seed| turns(seed)).collect();
    let again: Vec<String> = seeds.iter().map(|seed| turns(seed)).collect();
    assert_eq!(first, again);
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "different seeds have different schedules");
}
