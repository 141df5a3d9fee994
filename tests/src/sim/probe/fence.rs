//! Puts that are under way while scans find their range vacant.
use crate::harness::builder;
use sapwood::{Db, Env, Keyspace};
use sapwood_storage::ThreadClass;
use sapwood_storage::sync::step;

/// Thread schedules.
const SCHEDULES: u64 = 40;
/// The number of ranges in each.
const ROUNDS: u32 = 4;
/// The number of deletions in a range: enough for a scan to record it.
const DELETED: u32 = 20;
/// The number of rows of a commit after the one in the vacant range. A put into another known range
/// is a place where other threads may have their turns.
const OTHERS: u32 = 40;

/// A range is watched from the next position of the log on. So a commit that has a position, but
/// is not published, is not overlooked: scans find its row.
pub(super) fn puts_under_way_are_found() {
    for seed in 0..SCHEDULES {
        let (env, _fs, schedule) = Env::sim_scheduled(seed);
        let outcome = schedule.run(move || scan_beside_a_commit(&env, seed));
        outcome.unwrap_or_else(|what| panic!("schedule {seed}: {what}"));
    }
}

fn scan_beside_a_commit(env: &Env, seed: u64) {
    let db = builder("db", env).open().expect("it opens");
    let rows = db.default_keyspace();
    make_vacant(&rows, "other");
    // One scan announces the range, one watches it, one finds it vacant again.
    (0..3).for_each(|_| assert_eq!(rows.prefix("other").count(), 0));
    for round in 0..ROUNDS {
        let range = format!("{round}-");
        make_vacant(&rows, &range);
        let writer = {
            let (db, rows, range) = (db.clone(), rows.clone(), range.clone());
            let body = move || commit(&db, &rows, &range);
            env.spawn("writer", ThreadClass::Latency, body).expect("a thread")
        };
        (0..seed % 8 * 4).for_each(|_| step());
        (0..3).for_each(|_| assert!(rows.prefix(&range).count() <= 1));
        writer.join().expect("written");
        assert_eq!(rows.prefix(&range).count(), 1, "round {round}: a committed row is found");
        assert_eq!(rows.prefix(&range).rev().count(), 1, "round {round}: also backwards");
    }
    db.close().expect("closed");
}

/// Puts rows into a range, and deletes them.
fn make_vacant(rows: &Keyspace, range: &str) {
    let keys = || (0..DELETED).map(|number| format!("{range}{number:02}"));
    keys().for_each(|key| rows.put(key, "").expect("written"));
    keys().for_each(|key| rows.delete(key).expect("written"));
}

fn commit(db: &Db, rows: &Keyspace, range: &str) {
    let mut batch = db.batch();
    batch.put(rows, format!("{range}07"), "");
    for number in 0..OTHERS {
        batch.put(rows, format!("other{number:02}+"), "");
    }
    let _ = batch.commit().expect("written");
}
