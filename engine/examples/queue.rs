//! A queue of jobs that loses none in a crash. `cargo run --example queue`
use sapwood::{Db, Keyspace, Result};
use std::sync::Mutex;

struct Queue {
    db: Db,
    /// Waiting jobs, by number.
    ready: Keyspace,
    /// Claimed jobs, by the same number.
    taken: Keyspace,
    /// Holds one row: the number of the next job.
    numbers: Keyspace,
    state: Mutex<State>,
}

struct State {
    next: u64,
    /// The key of the last claim.
    last: Vec<u8>,
}

impl Queue {
    fn open(db: &Db) -> Result<Queue> {
        let ready = db.keyspace("ready", Default::default())?;
        let taken = db.keyspace("taken", Default::default())?;
        let numbers = db.keyspace("numbers", Default::default())?;
        // The workers of an earlier process are gone, and their jobs wait again.
        let mut batch = db.batch();
        for entry in taken.iter() {
            let (key, job) = entry?.into_parts();
            batch.delete(&taken, &key).put(&ready, &key, &job);
        }
        batch.commit()?;
        let stored = numbers.get_with("next", |value| value.try_into().map(u64::from_be_bytes).ok())?;
        let state = State { next: stored.flatten().unwrap_or(0), last: Vec::new() };
        Ok(Queue { db: db.clone(), ready, taken, numbers, state: Mutex::new(state) })
    }

    fn push(&self, job: &[u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let mut batch = self.db.batch();
        batch.put(&self.ready, state.next.to_be_bytes(), job);
        batch.put(&self.numbers, "next", (state.next + 1).to_be_bytes());
        batch.commit()?;
        state.next += 1;
        Ok(())
    }

    fn claim(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut state = self.state.lock().unwrap();
        // From the last claim on: earlier rows have been deleted.
        let mut waiting = self.ready.range(state.last.as_slice()..);
        let Some(entry) = waiting.next().transpose()? else { return Ok(None) };
        let (key, job) = entry.into_parts();
        let mut batch = self.db.batch();
        batch.delete(&self.ready, &key).put(&self.taken, &key, &job);
        batch.commit()?;
        state.last.clone_from(&key);
        Ok(Some((key, job.into_vec())))
    }

    fn done(&self, key: &[u8]) -> Result<()> {
        self.taken.delete(key)
    }
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let db = Db::open(&path)?;
    let queue = Queue::open(&db)?;
    queue.push(b"first")?;
    queue.push(b"second")?;
    let (key, job) = queue.claim()?.expect("two jobs");
    assert_eq!(job, b"first");
    queue.done(&key)?;
    assert_eq!(queue.claim()?.expect("one job").1, b"second");
    assert!(queue.claim()?.is_none());

    // The second job was never done: after a restart it waits again.
    drop(queue);
    db.close()?;
    let db = Db::open(&path)?;
    let queue = Queue::open(&db)?;
    let (key, job) = queue.claim()?.expect("one job");
    assert_eq!(job, b"second");
    queue.done(&key)?;
    // Numbers are not reused, even if no job remains.
    queue.push(b"third")?;
    assert!(queue.claim()?.expect("one job").0 > key);
    println!("three jobs, each done once");
    drop(queue);
    db.close()
}
