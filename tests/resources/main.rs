//! What a process holds while databases come and go. In a process of its own, one test at a time: every figure here is one
//! of the whole process.
#![allow(clippy::disallowed_methods, reason = "starts threads beside a real database")]
use sapwood::*;
use sapwood_tests::resources::{Resources, Slack};
use std::sync::{Mutex, MutexGuard, PoisonError};

mod close;
mod files;
mod guards;

/// Held by each test.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
}
