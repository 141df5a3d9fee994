//! A close concurrent with calls that write files on threads of their own.
use crate::harness::builder;
use sapwood::{Db, Env, ErrorKind, Result};
use sapwood_storage::ThreadClass;
use sapwood_storage::sim::SimFs;
use sapwood_storage::sync::step;
use std::sync::Arc;

/// Thread schedules. The close occurs at another point of the merge in each.
const SCHEDULES: u64 = 160;
/// The keyspaces that are merged. The more merges there are, and the shorter they are, the more
/// often one of them is between its last look for a close and its last change of a file.
const SPACES: [&str; 4] = ["first", "second", "third", "fourth"];
const ROWS: u32 = 2;

/// After a close returns, the database has no file open and changes none any more, although merges
/// on other threads were in progress.
pub(super) fn calls_are_awaited() {
    for seed in 0..SCHEDULES {
        let (env, fs, schedule) = Env::sim_scheduled(seed);
        let outcome = schedule.run(move || close_beside_merges(&env, &fs, seed));
        outcome.unwrap_or_else(|what| panic!("schedule {seed}: {what}"));
    }
}

fn close_beside_merges(env: &Env, fs: &SimFs, seed: u64) {
    let (fs, user) = fs.for_user();
    let own = env.with_file_system(Arc::new(fs));
    let db = builder("db", &own).advanced(|options| options.disable_auto_compactions = true).open();
    let db = db.expect("it opens");
    for name in SPACES {
        let keyspace = db.keyspace(name, Default::default()).expect("made");
        for round in 0..2u8 {
            for row in 0..ROWS {
                keyspace.put(row.to_be_bytes(), [round; 800]).expect("written");
            }
            db.flush().expect("flushed");
        }
    }
    let merge = |name: &'static str| {
        let db: Db = db.clone();
        let body = move || {
            let merged =
                || -> Result<()> { db.keyspace(name, Default::default())?.compact_range::<&[u8]>(..) };
            if let Err(error) = merged() {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            }
        };
        env.spawn("merger", ThreadClass::Latency, body).expect("a thread")
    };
    let threads = SPACES.map(merge);
    (0..seed % 40 * 2).for_each(|_| step());
    db.close().expect("closed");
    // A merge that is left alone has its inputs open, even if it notices the close before it
    // writes.
    assert_eq!(user.files(), 0, "files are open after the close");
    user.retire();
    assert_eq!(user.locks(), 0, "the lock is released");
    threads.into_iter().for_each(|thread| thread.join().expect("merged, or refused"));
    let (count, calls) = user.late_calls();
    assert_eq!(count, 0, "changing calls after the close: {calls:?}");
}
