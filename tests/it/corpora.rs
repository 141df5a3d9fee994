//! The committed corpora and the seeds, run through every fuzz target: whole, truncated at each
//! byte, and with single bit flips.
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

/// Runs a target. Keeps the input of a finding in a file, and returns its description.
fn finding(target: &Target, what: &str, input: &[u8]) -> Option<String> {
    let kept = std::env::temp_dir().join(format!("sapwood-{}-{}", target.name, std::process::id()));
    if target.decoder {
        catch_unwind(AssertUnwindSafe(|| run(target, input))).err()?;
        std::fs::write(&kept, input).unwrap();
    } else {
        // The behaviour of an engine depends on other threads of its process, so it gets a process
        // of its own.
        std::fs::write(&kept, input).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["corpora::one_input", "--exact"])
            .envs([("TARGET", Path::new(target.name)), ("INPUT", &kept)])
            .output()
            .unwrap();
        if child.status.success() {
            std::fs::remove_file(&kept).unwrap();
            return None;
        }
        eprintln!("{}", String::from_utf8_lossy(&child.stdout));
    }
    let (kept, name) = (kept.display(), target.name);
    let command = "cargo test -p sapwood-tests --test it corpora::one";
    Some(format!("{name}, {what}; replay with: TARGET={name} INPUT={kept} {command}"))
}

/// Fails if there is a finding, with the first one of each target.
fn none(findings: impl Iterator<Item = String>) {
    let findings: Vec<String> = findings.collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// One input, chosen by `TARGET` and `INPUT`.
#[test]
fn one_input() {
    let (Ok(name), Ok(path)) = (std::env::var("TARGET"), std::env::var("INPUT")) else { return };
    run(&sapwood_tests::targets::target(&name), &std::fs::read(path).unwrap());
}

#[test]
fn corpora_hold_no_finding() {
    none(
        TARGETS.iter().filter_map(|target| {
            corpus(target).iter().find_map(|(name, input)| finding(target, name, input))
        }),
    );
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

/// Seeds truncated at each byte and with one bit flipped in each, both as they are and with
/// repaired checksums.
#[test]
fn damaged_seeds_are_survived() {
    let seeds = seeds::all();
    none(TARGETS.iter().filter_map(|target| {
        let mut of_target = seeds.iter().filter(|(name, _)| *name == target.name);
        of_target.find_map(|(_, seed)| damaged(target, seed))
    }));
}

fn damaged(target: &Target, seed: &[u8]) -> Option<String> {
    if !target.decoder {
        return finding(target, "a seed", seed);
    }
    // Long seeds are not truncated everywhere: the time is bounded.
    let step = seed.len() / 600 + 1;
    let found = (0..seed.len()).step_by(step).find_map(|at| {
        let bit = at / step % 8;
        let mut cut = seed[..at].to_vec();
        let mut flipped = seed.to_vec();
        flipped[at] ^= 1 << bit;
        finding(target, &format!("a seed cut at {at}"), &cut)
            .or_else(|| {
                (target.repair)(&mut cut);
                finding(target, &format!("a seed cut at {at} and repaired"), &cut)
            })
            .or_else(|| finding(target, &format!("a seed with bit {bit} of byte {at} flipped"), &flipped))
            .or_else(|| {
                (target.repair)(&mut flipped);
                finding(target, &format!("a seed with bit {bit} of byte {at} flipped, repaired"), &flipped)
            })
    });
    found.or_else(|| finding(target, "a seed", seed))
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
