//! `RLIMIT_AS` on real processes. A failed allocation ends a Rust process; so does a new thread
//! without memory for the stack of its signal handlers. The engine must detect both in advance, and
//! return an error.
use crate::sim::kill;

pub(super) fn limited() {
    kill::in_little_address_space((20..=200).step_by(4)).expect("errors, and nothing lost");
}
