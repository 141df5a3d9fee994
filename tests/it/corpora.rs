//! The committed corpora and the seeds, through every fuzz target, whole, cut at each byte and with single flips.
#![allow(clippy::disallowed_methods, reason = "reads the corpora, which are real files")]
use sapwood_tests::targets::allocation::{Counting, measure};
use sapwood_tests::targets::{TARGETS, Target, run, seeds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[global_allocator]
static COUNTING: Counting = Counting;

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz/corpus").join(target.name)
}

/// The files of a target's corpus, by name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder(target))
        .map(|entries| {
            entries
                .map(|entry| {
                    let path = entry.unwrap().path();
                    (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
                })
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found
}

/// Runs a target; a finding is left in a file, with the command that shows it again.
fn try_input(target: &Target, what: &str, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(target, input))) {
        let kept = std::env::temp_dir().join(format!("sapwood-{}-finding", target.name));
        std::fs::write(&kept, input).unwrap();
        eprintln!("{}: {what}", target.name);
        eprintln!(
            "replay with: INPUT={} TARGET={} cargo test -p sapwood-tests --test it corpora::one",
            kept.display(),
            target.name
        );
        std::panic::resume_unwind(panic);
    }
}

/// One input, by hand: `TARGET` and `INPUT` say which.
#[test]
fn one_input() {
    let (Ok(name), Ok(path)) = (std::env::var("TARGET"), std::env::var("INPUT")) else { return };
    run(sapwood_tests::targets::target(&name), &std::fs::read(path).unwrap());
}

#[test]
fn corpora_hold_no_finding() {
    for target in TARGETS {
        for (name, input) in corpus(target) {
            try_input(target, &name, &input);
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    for target in TARGETS {
        assert!(
            !corpus(target).is_empty(),
            "{} has no corpus: cargo run -p sapwood-tests --bin make_corpus",
            target.name
        );
        let program = folder(target).join(format!("../../fuzz_targets/{}.rs", target.name));
        assert!(program.exists(), "{} has no program", target.name);
    }
    for entry in std::fs::read_dir(folder(&TARGETS[0]).join("..")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            TARGETS.iter().any(|target| target.name == name),
            "there is a corpus for {name}, and no target"
        );
    }
}

/// Seeds cut at each byte and with one bit flipped in each, as they are and with checksums made right again.
#[test]
fn damaged_seeds_are_survived() {
    for (name, seed) in seeds::all() {
        let target = sapwood_tests::targets::target(name);
        if !target.decoder {
            try_input(target, "a seed", &seed);
            continue;
        }
        // Long seeds are not cut everywhere: the time is bounded.
        let step = seed.len() / 600 + 1;
        for at in (0..seed.len()).step_by(step) {
            try_input(target, &format!("cut at {at}"), &seed[..at]);
            let mut cut = seed[..at].to_vec();
            (target.repair)(&mut cut);
            try_input(target, &format!("cut at {at} and repaired"), &cut);
            let mut flipped = seed.clone();
            flipped[at] ^= 1 << (at / step % 8);
            try_input(target, &format!("bit {} of byte {at} flipped", at / step % 8), &flipped);
            (target.repair)(&mut flipped);
            try_input(target, &format!("byte {at} flipped and repaired"), &flipped);
        }
        try_input(target, "a seed", &seed);
    }
}

#[test]
fn allocations_are_counted() {
    let used = measure(|| {
        let first = vec![1u8; 5000];
        drop(std::hint::black_box(first));
        let second: Vec<u8> = Vec::with_capacity(3000);
        let third: Vec<u8> = Vec::with_capacity(4000);
        drop(std::hint::black_box((second, third)));
    });
    assert_eq!((used.largest, used.peak), (5000, 7000));
}
