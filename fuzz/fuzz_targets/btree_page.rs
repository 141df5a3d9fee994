//! libFuzzer's program for the target of this name; see `tests/src/targets.rs`.
#![no_main]
sapwood_fuzz::program!("btree_page");
