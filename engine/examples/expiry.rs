//! Sessions with a time to live: a deadline in each row, an index on it, and a sweep. `cargo run
//! --example expiry`
use sapwood::{Db, IndexOptions, Keyspace, Result};

/// A row begins with its deadline, in seconds, big-endian.
const DEADLINE: usize = 8;

fn put(sessions: &Keyspace, key: &str, value: &[u8], deadline: u64) -> Result<()> {
    sessions.put(key, [&deadline.to_be_bytes()[..], value].concat())
}

fn get(sessions: &Keyspace, key: &str, now: u64) -> Result<Option<Vec<u8>>> {
    let alive = |row: &[u8]| (row[..DEADLINE] > now.to_be_bytes()[..]).then(|| row[DEADLINE..].to_vec());
    Ok(sessions.get_with(key, alive)?.flatten())
}

/// Deletes expired rows; returns their number.
fn sweep(db: &Db, sessions: &Keyspace, now: u64) -> Result<usize> {
    let mut batch = db.batch();
    for hit in sessions.index("deadline")?.range(..=&now.to_be_bytes()).limit(10_000) {
        batch.delete(sessions, hit?.primary_key());
    }
    let swept = batch.len();
    batch.commit()?;
    Ok(swept)
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let by_deadline = IndexOptions::new(|_key, row, emit| emit.key(&row[..DEADLINE]));
    let db = Db::builder(folder.path().join("data")).index("default", "deadline", by_deadline).open()?;
    let sessions = db.default_keyspace();
    put(&sessions, "ann", b"cart 7", 100)?;
    put(&sessions, "bo", b"cart 8", 200)?;

    // A read checks the deadline: at 150 the sweep has not run yet.
    assert!(get(&sessions, "ann", 150)?.is_none());
    assert!(get(&sessions, "bo", 150)?.is_some());
    assert_eq!(sweep(&db, &sessions, 150)?, 1);
    assert_eq!(sessions.iter().count(), 1);
    println!("one session expired, one is left");
    db.close()
}
