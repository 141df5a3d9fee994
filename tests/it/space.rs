//! Space: the size of a range, and the reclamation of data that no reader can see.
use sapwood::{BackgroundStep, Env};
use sapwood_tests::harness::builder;
use std::path::PathBuf;

#[test]
fn the_size_of_a_range_is_told_without_opening_what_lies_inside() {
    let (env, fs) = Env::sim_manual(1);
    let open = || builder("db", &env).open().unwrap();
    let db = open();
    for row in 0..2000u32 {
        db.default_keyspace().put(row.to_be_bytes(), [1; 200]).unwrap();
    }
    db.compact().unwrap();
    db.close().unwrap();
    drop(db);
    let db = open();
    let keyspace = db.default_keyspace();
    let before = fs.open_handles();
    let whole = keyspace.approximate_size::<&[u8]>(..).unwrap();
    assert_eq!(whole, db.stats().keyspaces.iter().map(|keyspace| keyspace.bytes).sum::<u64>());
    assert_eq!(fs.open_handles(), before, "tables were opened");
    let half = keyspace.approximate_size(500u32.to_be_bytes()..1500u32.to_be_bytes()).unwrap();
    assert!((whole * 4 / 10..whole * 6 / 10).contains(&half), "{half} of {whole}");
    assert!(fs.open_handles() <= before + 2, "more was opened than the tables at both ends");
}

#[test]
fn what_a_compaction_has_taken_is_not_counted_twice() {
    let mut cut = 0;
    for seed in 0..4 {
        let (env, _fs) = Env::sim_manual(seed);
        let db = builder("db", &env).advanced(|options| options.level0_runs = 6).open().unwrap();
        let keyspace = db.default_keyspace();
        for round in 0..6u8 {
            for row in 0..600u32 {
                keyspace.put(row.to_be_bytes(), [round; 1000]).unwrap();
            }
            db.flush().unwrap();
        }
        let mut last = keyspace.approximate_size::<&[u8]>(..).unwrap();
        while db.background_step(BackgroundStep::Compaction).unwrap() {
            let now = keyspace.approximate_size::<&[u8]>(..).unwrap();
            // A table that is cut inside a block counts with the whole block.
            assert!(now <= last + 60_000, "seed {seed}: {last} bytes became {now}");
            cut += 1;
            last = now;
        }
    }
    assert!(cut > 8, "no compaction stopped half way");
}

#[test]
fn a_compaction_returns_when_the_files_that_it_replaced_are_gone() {
    let (env, fs) = Env::sim_manual(3);
    let db = builder("db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    for round in 0..3u8 {
        (0..400u32).for_each(|row| keyspace.put(row.to_be_bytes(), [round; 100]).unwrap());
        db.flush().unwrap();
    }
    db.compact().unwrap();
    let listed: usize =
        db.stats().keyspaces.iter().flat_map(|space| &space.levels).map(|level| level.files).sum();
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    assert_eq!(fs.files().iter().filter(|path| is_table(path)).count(), listed);
}
