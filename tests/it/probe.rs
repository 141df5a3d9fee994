//! Small scenarios for promises at the edges: those of `sapwood-sim probe`.
#![allow(clippy::disallowed_methods, reason = "starts the tool")]
use std::process::Command;

/// In a process of their own: some let threads go on in an order that a seed decides.
#[test]
fn every_promise_is_kept() {
    let output = Command::new(env!("CARGO_BIN_EXE_sapwood-sim")).arg("probe").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
