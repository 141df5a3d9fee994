//! A database on a machine without threads: the caller does the background work.
use sapwood::{BackgroundStep, Env};
use sapwood_tests::harness::{builder, contents};
use sapwood_tests::model::Map;

#[test]
fn background_work_is_done_in_steps_and_while_waiting() {
    let (env, _fs) = Env::sim_manual(7);
    let mut model = Map::new();
    for round in 0..3u32 {
        let db = builder("db", &env).open().unwrap();
        let keyspace = db.default_keyspace();
        assert_eq!(contents(&keyspace).unwrap(), model);
        for number in 0..3000u32 {
            let key = format!("{:05}", number.wrapping_mul(7919) % 2000).into_bytes();
            let value = vec![round as u8; 100];
            keyspace.put(&key, &value).unwrap();
            model.insert(key, value);
        }
        // Far more was written than memtables hold, so writers that would have waited have flushed.
        assert!(db.stats().flushes > 0);
        db.flush().unwrap();
        assert!(!db.background_step(BackgroundStep::Flush).unwrap(), "nothing is left to flush");
        db.pause_background().unwrap();
        assert!(!db.background_step(BackgroundStep::Compaction).unwrap(), "paused");
        db.resume_background();
        while db.background_step(BackgroundStep::Compaction).unwrap() {}
        db.wait_for_background().unwrap();
        db.compact().unwrap();
        db.background_step(BackgroundStep::Log).unwrap();
        db.background_step(BackgroundStep::Sweep).unwrap();
        assert_eq!(contents(&keyspace).unwrap(), model);
        db.close().unwrap();
    }
}
