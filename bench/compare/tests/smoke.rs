//! Runs every engine at every kind of station with few rows, and checks the report.
#![allow(clippy::disallowed_methods, reason = "the report's files are read as a user would read them")]
#![allow(missing_docs, reason = "a test")]
use std::path::Path;
use std::process::Command;

fn compare(arguments: &[&str], out: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sapwood-compare"))
        .arg("report")
        .args(["--rows", "3000", "--seconds", "0.05", "--fill-seconds", "5", "--sustained-seconds", "2.2"])
        .arg("--out")
        .arg(out)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn every_engine_passes_every_station_and_the_report_has_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    compare(
        &["--quick", "--stations", "random,batches,sequential,durable8,indexed,killed,ycsb,sustained"],
        out,
    );
    let results = std::fs::read_to_string(out.join("results.jsonl")).unwrap();
    let failed: Vec<&str> = results.lines().filter(|line| line.contains("\"failed\"")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let page = std::fs::read_to_string(out.join("README.md")).unwrap();
    for title in [
        "Sapwood",
        "fjall",
        "LMDB",
        "redb",
        "sled",
        "bf-tree",
        "seek, then 10 entries",
        "YCSB E",
        "not offered",
    ] {
        assert!(page.contains(title), "the page lacks '{title}'");
    }
    for file in ["throughput.svg", "latency.svg", "sustained.svg", "amplification.svg", "summary.json"] {
        assert!(page.contains(file) || file.ends_with("json"), "the page does not show {file}");
        assert!(out.join(file).metadata().unwrap().len() > 1000, "{file}");
    }

    // With `--resume`, a second campaign measures only missing results. Without it, new results
    // replace old ones.
    let lines = results.lines().count();
    let count = || std::fs::read_to_string(out.join("results.jsonl")).unwrap().lines().count();
    compare(&["--quick", "--stations", "batches", "--engines", "sapwood,redb", "--resume"], out);
    assert_eq!(count(), lines);
    compare(&["--quick", "--stations", "batches", "--engines", "redb"], out);
    assert_eq!(count(), lines + 2);
}

#[test]
fn lz4_is_not_offered_by_trees() {
    let folder = tempfile::tempdir().unwrap();
    let text = compare(
        &["--lz4", "--rounds", "1", "--stations", "batches", "--engines", "sapwood,fjall,lmdb"],
        folder.path(),
    );
    assert!(text.contains("not offered: LMDB does not compress"), "{text}");
    assert!(!text.contains("FAILED"), "{text}");
}
