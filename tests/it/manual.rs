//! A database on a machine without threads: the caller does the background work.
use sapwood::{BackgroundStep, Env};
use sapwood_tests::harness::{builder, contents};
use sapwood_tests::oracle::Map;
use std::time::Duration;

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
            model.insert(key, value.into());
        }
        // The writes exceed the memtables by far, so waiting writers have flushed.
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

#[test]
fn writers_are_slowed_down_before_the_memory_for_them_is_used_up() {
    let (env, _fs) = Env::sim_manual(11);
    let small = |options: &mut sapwood::AdvancedOptions| {
        options.memtable_bytes = Some(256 << 10);
        options.max_memtables = 2;
    };
    let db = builder("db", &env).advanced(small).open().unwrap();
    let keyspace = db.default_keyspace();
    let mut longest = Duration::ZERO;
    for number in 0..40_000u32 {
        let start = env.now();
        keyspace.put(number.to_be_bytes(), [7; 100]).unwrap();
        longest = longest.max(env.now() - start);
    }
    let stalls = db.stats().stalls;
    assert!(stalls.memtables_full > Duration::ZERO, "memory was never short");
    assert_eq!(stalls.memtable_waits, 0, "a writer had to wait for a flush");
    // A step of sleep is 50 microseconds of this machine's clock.
    assert!(longest < Duration::from_millis(2), "a writer was delayed by {longest:?}");
}
