//! A history of commits that follows from a seed alone, so that two processes agree on it without talking.
use crate::model::{Map, Operation, apply};
use sapwood::Durability;
use std::time::Duration;

/// The keyspaces that every commit touches.
pub const SPACES: [&str; 2] = ["default", "second"];
/// The key of the counter, in both keyspaces.
pub const COUNTER: &[u8] = b"commit";
/// Keys of the history.
const KEYS: u64 = 700;

/// One commit.
pub struct Commit {
    /// Index into [`SPACES`], and the operation.
    pub operations: Vec<(usize, Operation)>,
    /// How it is to be committed.
    pub durability: Durability,
}

/// Commit number `number` (from 1) of the history `seed`.
pub fn commit(seed: u64, number: u64) -> Commit {
    let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut operations: Vec<(usize, Operation)> = (0..random.usize(1..7))
        .map(|_| {
            let key = format!("key-{:05}", random.u64(..KEYS)).into_bytes();
            let operation = match random.u8(..5) {
                0 => Operation::Delete(key),
                _ => Operation::Put(key, vec![random.u8(..); random.usize(..400)]),
            };
            (random.usize(..2), operation)
        })
        .collect();
    let counter = || Operation::Put(COUNTER.to_vec(), number.to_be_bytes().to_vec());
    operations.insert(0, (0, counter()));
    operations.push((1, counter()));
    let durability = match random.u8(..32) {
        0 => Durability::Sync,
        1 => Durability::Periodic(Duration::from_millis(5)),
        _ => Durability::Buffered,
    };
    // Now and then a payload that is written apart from its record, where segments are as small as in tests.
    if random.u16(..1000) == 0 {
        let key = format!("large-{}", random.u8(..4)).into_bytes();
        let value = vec![random.u8(..); random.usize(300_000..600_000)];
        operations.push((random.usize(..2), Operation::Put(key, value)));
    }
    Commit { operations, durability }
}

/// The state of the keyspaces after some commits of a history, moved on step by step.
pub struct State {
    seed: u64,
    /// Commits applied.
    pub count: u64,
    /// One map per keyspace.
    pub maps: [Map; 2],
}

impl State {
    /// The beginning.
    pub fn new(seed: u64) -> State {
        State { seed, count: 0, maps: [Map::new(), Map::new()] }
    }

    /// Applies commits up to number `count`.
    pub fn advance_to(&mut self, count: u64) {
        assert!(count >= self.count, "a history has no way back");
        for number in self.count + 1..=count {
            for (space, operation) in commit(self.seed, number).operations {
                apply(&mut self.maps[space], &[operation]);
            }
        }
        self.count = count;
    }
}
