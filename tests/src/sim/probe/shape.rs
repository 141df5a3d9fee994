//! The shape of the tree beside many flushes.
use crate::harness::builder;
use sapwood::{BackgroundStep, Db, Env};
use std::collections::HashMap;

/// Rows of a flush, and flushes of a round.
const ROWS: u64 = 60;
const FLUSHES: u64 = 300;

/// Figures of one round.
struct Round {
    /// Bytes that compactions wrote for each byte of flushes.
    written: f64,
    most_runs: usize,
}

/// Flushes rows with keys that `key` draws. After each flush, compactions write at most `most`
/// bytes for each byte of the flush.
fn round(db: &Db, most: f64, mut key: impl FnMut(u64) -> u64) -> Round {
    let before = db.stats();
    let mut most_runs = 0;
    for flush in 0..FLUSHES {
        for row in 0..ROWS {
            let key = key(flush * ROWS + row).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            db.default_keyspace().put(key.to_be_bytes(), [flush as u8; 100]).expect("written");
        }
        let flushed = db.stats().flush_bytes_written;
        db.flush().expect("flushed");
        let now = db.stats();
        let allowed = (now.flush_bytes_written - flushed) as f64 * most;
        let may_write = || {
            let merged = db.stats().compaction_bytes_written - now.compaction_bytes_written;
            (merged as f64) < allowed
        };
        while may_write() && db.background_step(BackgroundStep::Compaction).expect("a healthy machine") {}
        most_runs = most_runs.max(db.stats().keyspaces[0].runs);
    }
    let after = db.stats();
    let flushed = after.flush_bytes_written - before.flush_bytes_written;
    let merged = after.compaction_bytes_written - before.compaction_bytes_written;
    Round { written: merged as f64 / flushed as f64, most_runs }
}

/// 300 flushes of new keys, then 300 of keys that exist. Jobs of half of the databases yield after
/// each slice, and slices are small.
pub(super) fn of_tiers() {
    for seed in 0..2 {
        let (env, _fs) = Env::sim_manual(seed);
        let small = |options: &mut sapwood::AdvancedOptions| options.target_file_bytes = 8 << 10;
        let db = builder("db", &env).advanced(small).open().expect("it opens");
        let fill = round(&db, f64::INFINITY, |number| number);
        let mut random = fastrand::Rng::with_seed(seed);
        let overwrite = round(&db, f64::INFINITY, |_| random.u64(..ROWS * FLUSHES));
        for (name, round, written) in [("fill", fill, 4.5), ("overwrite", overwrite, 7.0)] {
            assert!(
                round.written <= written && round.most_runs <= 18,
                "seed {seed}, {name}: {:.2} bytes per byte of flushes, {} runs",
                round.written,
                round.most_runs
            );
        }
        let space = &db.stats().keyspaces[0];
        let live = ROWS * FLUSHES * 108;
        assert!(
            space.bytes <= live * 8 / 5,
            "seed {seed}: {live} bytes of rows take {} in tables",
            space.bytes
        );
        db.close().expect("closed");
    }
}

/// 300 flushes of keys, of which half exist in the end, with slices that are small beside a merge
/// into the last level, and with compactions that write little more than they have to. Level 0 and
/// tiers fill during long merges, which yield to their merges and continue. Then all rows are read.
pub(super) fn of_merges_that_yield() {
    for seed in 0..2 {
        let (env, _fs) = Env::sim_manual(seed);
        let small = |options: &mut sapwood::AdvancedOptions| options.target_file_bytes = 4 << 10;
        let db = builder("db", &env).advanced(small).open().expect("it opens");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rows = HashMap::new();
        let round = round(&db, 6.0, |number| {
            let key = random.u64(..2 * ROWS * FLUSHES);
            rows.insert(key, number / ROWS);
            key
        });
        assert!(
            round.written <= 4.5 && round.most_runs <= 40,
            "seed {seed}: {:.2} bytes per byte of flushes, {} runs",
            round.written,
            round.most_runs
        );
        for (key, flush) in rows {
            let key = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
            let row = db.default_keyspace().get(key).expect("it reads").expect("the row exists");
            assert_eq!(row.as_ref(), [flush as u8; 100], "seed {seed}: an older version of a row");
        }
        db.close().expect("closed");
    }
}
