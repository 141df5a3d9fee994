//! The shape of the tree beside many flushes.
use crate::harness::builder;
use sapwood::{BackgroundStep, Db, Env};

/// Rows of a flush, and flushes of a round.
const ROWS: u64 = 60;
const FLUSHES: u64 = 300;

/// Figures of one round.
struct Round {
    /// Bytes that compactions wrote for each byte of flushes.
    written: f64,
    most_runs: usize,
}

/// Flushes rows with keys that `key` draws; compactions keep up.
fn round(db: &Db, mut key: impl FnMut(u64) -> u64) -> Round {
    let before = db.stats();
    let mut most_runs = 0;
    for flush in 0..FLUSHES {
        for row in 0..ROWS {
            let key = key(flush * ROWS + row).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            db.default_keyspace().put(key.to_be_bytes(), [flush as u8; 100]).expect("written");
        }
        db.flush().expect("flushed");
        while db.background_step(BackgroundStep::Compaction).expect("a healthy machine") {}
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
        let fill = round(&db, |number| number);
        let mut random = fastrand::Rng::with_seed(seed);
        let overwrite = round(&db, |_| random.u64(..ROWS * FLUSHES));
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
