//! Resources of a process while databases are opened and closed. This test is alone in its process:
//! every figure is one of the whole process, and would include the threads of other tests.
#![allow(clippy::disallowed_methods, reason = "starts threads beside a real database")]
use sapwood::*;
use sapwood_tests::resources::{Resources, Slack};

mod close;
mod files;
mod guards;

#[test]
fn nothing_is_held_that_is_not_needed() {
    close::a_thread_that_has_read_and_lives_on_keeps_nothing();
    close::a_thread_that_stays_in_another_database_keeps_nothing();
    files::hundreds_of_tables_are_read_written_and_merged_with_ten_open();
    guards::a_call_for_very_many_keys_holds_no_memory_of_later_writes();
    guards::a_lookup_with_very_many_rows_holds_no_memory_of_later_writes();
}

fn key(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
}
