//! A history of commits that is a function of a seed, so that two processes agree on it without
//! communication.
use crate::journal::{Write, apply};
use crate::oracle::{Bytes, Map};
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
    /// The writes. The number of a keyspace is an index into [`SPACES`].
    pub writes: Vec<Write>,
    /// The durability of the commit.
    pub durability: Durability,
}

/// Commit number `number` (from 1) of the history `seed`.
pub fn commit(seed: u64, number: u64) -> Commit {
    let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut writes: Vec<Write> = (0..random.usize(1..7))
        .map(|_| {
            let key = format!("key-{:05}", random.u64(..KEYS)).into_bytes();
            let value = match random.u8(..5) {
                0 => None,
                _ => Some(Bytes::from(vec![random.u8(..); random.usize(..400)])),
            };
            (random.usize(..2) as u8, key, value)
        })
        .collect();
    let counter = |space| (space, COUNTER.to_vec(), Some(Bytes::from(number.to_be_bytes())));
    writes.insert(0, counter(0));
    writes.push(counter(1));
    let durability = match random.u8(..32) {
        0 => Durability::Sync,
        1 => Durability::Periodic(Duration::from_millis(5)),
        _ => Durability::Buffered,
    };
    // Occasionally a payload that is written apart from its record, since test segments are small.
    if random.u16(..1000) == 0 {
        let key = format!("large-{}", random.u8(..4)).into_bytes();
        let value = vec![random.u8(..); random.usize(300_000..600_000)];
        writes.push((random.usize(..2) as u8, key, Some(value.into())));
    }
    Commit { writes, durability }
}

/// The state of the keyspaces after a prefix of a history, advanced step by step.
pub struct State {
    seed: u64,
    /// Commits applied.
    pub count: u64,
    /// One map per keyspace.
    pub maps: [Map; 2],
}

impl State {
    /// The state before the first commit.
    pub fn new(seed: u64) -> State {
        State { seed, count: 0, maps: [Map::new(), Map::new()] }
    }

    /// Applies commits up to number `count`.
    pub fn advance_to(&mut self, count: u64) {
        assert!(count >= self.count, "a history only advances");
        for number in self.count + 1..=count {
            apply(&mut self.maps, &commit(self.seed, number).writes);
        }
        self.count = count;
    }
}
