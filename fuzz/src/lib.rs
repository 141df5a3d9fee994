//! Wraps a target as a libFuzzer program: counts its memory, and repairs checksums after mutations.

#[doc(hidden)]
pub use libfuzzer_sys;
#[doc(hidden)]
pub use sapwood_tests::targets;

/// The program of one target: `program!("wal_reader");`.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        use $crate::libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
        use $crate::targets::{self, Target};

        #[global_allocator]
        static COUNTING: targets::allocation::Counting = targets::allocation::Counting;

        const TARGET: Target = targets::target($name);

        fuzz_target!(|data: &[u8]| targets::run(&TARGET, data));

        fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            targets::mutate(&TARGET, data, size, max_size, seed, fuzzer_mutate)
        });
    };
}
