//! Small scenarios at the edges of promises: those of `sapwood-sim probe`.
#![allow(clippy::disallowed_methods, reason = "starts the tool")]
use std::process::Command;

/// In a process of their own, since some schedule threads by a seed.
#[test]
fn every_promise_is_kept() {
    let output = Command::new(env!("CARGO_BIN_EXE_sapwood-sim")).arg("probe").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
