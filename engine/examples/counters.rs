//! Counters for concurrent threads, under locks of the program. `cargo run --example counters`
use sapwood::{Db, Keyspace, Result};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

struct Counters {
    keyspace: Keyspace,
    hasher: RandomState,
    locks: [Mutex<()>; 64],
}

impl Counters {
    fn new(keyspace: Keyspace) -> Counters {
        let locks = std::array::from_fn(|_| Mutex::new(()));
        Counters { keyspace, hasher: RandomState::new(), locks }
    }

    fn add(&self, key: &str, by: u64) -> Result<u64> {
        let lock = &self.locks[self.hasher.hash_one(key) as usize % self.locks.len()];
        let _alone = lock.lock().unwrap();
        let stored = self.keyspace.get_with(key, |value| value.try_into().map(u64::from_be_bytes).ok())?;
        let sum = stored.flatten().unwrap_or(0) + by;
        self.keyspace.put(key, sum.to_be_bytes())?;
        Ok(sum)
    }
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(folder.path().join("data"))?;
    let counters = Counters::new(db.keyspace("hits", Default::default())?);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    counters.add("front page", 1).unwrap();
                }
            });
        }
    });
    let hits = counters.add("front page", 0)?;
    assert_eq!(hits, 100);
    println!("front page: {hits} hits");
    db.close()
}
