//! The scenarios of `sapwood-sim probe`, which planted bugs are looked for with, hold where nothing is planted.
use sapwood_tests::sim::probe::{PROBES, check};

#[test]
fn every_promise_is_kept() {
    PROBES.iter().for_each(check);
}
