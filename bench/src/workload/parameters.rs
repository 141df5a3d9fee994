//! Counts and sizes of one benchmark.
use crate::engine::WriteMode;
use crate::flags::Flags;

/// Counts and sizes: the flags that a benchmark may change.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Number of keys.
    pub num: u64,
    /// Reads per thread.
    pub reads: u64,
    /// Writes per thread.
    pub writes: u64,
    /// Deletes per thread.
    pub deletes: u64,
    /// Operations per thread of benchmarks that mix reads and writes.
    pub operations: u64,
    /// Number of threads, without the background thread.
    pub threads: usize,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: u64,
    /// Whether the flags set it.
    pub value_size_given: bool,
    /// Keys per batch.
    pub batch_size: u64,
    /// The durability that a write waits for.
    pub mode: WriteMode,
    /// Operations per second in an open loop.
    pub open_loop_rate: Option<f64>,
}

impl Parameters {
    pub(super) fn new(flags: &Flags) -> Parameters {
        Parameters {
            num: flags.num as u64,
            reads: flags.read_count(),
            writes: flags.write_count(),
            deletes: flags.delete_count(),
            operations: match flags.reads.max(flags.writes) {
                both if both < 0 => flags.num as u64,
                larger => larger as u64,
            },
            threads: flags.threads as usize,
            key_size: flags.key_size as usize,
            value_size: flags.value_size as u64,
            value_size_given: flags.given.contains(&"value_size"),
            batch_size: flags.batch_size as u64,
            mode: match (flags.disable_wal, flags.sync) {
                (true, _) => WriteMode::NoLog,
                (false, true) => WriteMode::Sync,
                (false, false) => WriteMode::Default,
            },
            open_loop_rate: (flags.open_loop_rate > 0.0).then_some(flags.open_loop_rate),
        }
    }

    /// Divides keys and operations, for slow benchmarks.
    pub(super) fn divide(&mut self, by: u64) {
        for count in
            [&mut self.num, &mut self.reads, &mut self.writes, &mut self.deletes, &mut self.operations]
        {
            *count = (*count / by).max(1);
        }
    }
}
