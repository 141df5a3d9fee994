//! `RLIMIT_AS` on real processes. An allocation that fails ends a Rust process; so does a new
//! thread without memory for the stack of its signal handlers. The engine must notice in time, and
//! give an error.
use crate::sim::kill;

pub(super) fn limited() {
    kill::in_little_address_space((20..=200).step_by(4)).expect("errors, and nothing lost");
}
