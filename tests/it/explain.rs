//! Reports of reads: the result equals that of the ordinary read, and each source reports its
//! outcome.
use sapwood::{Builtin, Db, Explain, Field, IndexOptions, KeyKind};
use sapwood::{ExplainedOutcome as Outcome, ExplainedPlace as Place};
use sapwood_tests::harness::small;

fn outcomes(explain: &Explain) -> Vec<Outcome> {
    explain.sources.iter().map(|source| source.outcome).collect()
}

fn read_blocks(explain: &Explain) -> u64 {
    explain.sources.iter().map(|source| source.read_blocks).sum()
}

fn cached_blocks(explain: &Explain) -> u64 {
    explain.sources.iter().map(|source| source.cached_blocks).sum()
}

fn open(path: &std::path::Path) -> Db {
    let builder = Db::builder(path).memory_budget(8 << 20);
    let builder = builder.advanced(|options| {
        small(options);
        // Only the test's own flushes make runs, and the runs stay: automatic rotations of
        // memtables depend on timing.
        options.memtable_bytes = Some(1 << 20);
        options.cache_bytes = Some(4 << 20);
        options.disable_auto_compactions = true;
        options.idle_compaction = false;
    });
    builder.open().unwrap()
}

#[test]
fn a_get_tells_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(folder.path());
    let keyspace = db.default_keyspace();
    for i in 0..500u32 {
        keyspace.put(format!("key{i:04}"), vec![b'v'; 50]).unwrap();
    }
    db.flush().unwrap();
    for i in 100..200u32 {
        keyspace.put(format!("key{i:04}"), vec![b'w'; 60]).unwrap();
    }
    keyspace.delete("key0000").unwrap();
    db.flush().unwrap();
    keyspace.put("key0001", "newest").unwrap();
    let snapshot = db.snapshot();
    keyspace.delete("key0001").unwrap();
    drop(db);
    let db = {
        drop(keyspace);
        drop(snapshot);
        open(folder.path())
    };
    let keyspace = db.default_keyspace();

    // From the old run, after a run that has other keys, or whose filter excludes the key.
    let explain = keyspace.explain_get("key0300").unwrap();
    let found = outcomes(&explain);
    assert_eq!(found.last(), Some(&Outcome::Value { bytes: 50 }), "{explain}");
    assert_eq!((read_blocks(&explain), cached_blocks(&explain)), (1, 0), "{explain}");
    assert!(explain.sources.iter().all(|source| source.read_blocks == 0 || source.read_bytes > 0));
    assert_eq!((explain.entries, explain.bytes), (1, 50));
    // The next time, the block is in the cache.
    let again = keyspace.explain_get("key0300").unwrap();
    assert_eq!((read_blocks(&again), cached_blocks(&again)), (0, 1), "{again}");
    assert_eq!(outcomes(&again), found);

    // The newer run has it; the older one is not read.
    let explain = keyspace.explain_get("key0150").unwrap();
    let found = outcomes(&explain);
    let at = found.iter().position(|outcome| *outcome == Outcome::Value { bytes: 60 }).unwrap();
    assert!(at + 1 < found.len() && found[at + 1..].iter().all(|it| *it == Outcome::NotReached), "{explain}");
    let text = explain.to_string();
    assert!(text.contains("get \"key0150\"") && text.contains("value of 60 bytes"), "{text}");
    assert!(text.contains("not reached") && text.contains(".sst"), "{text}");

    // Deleted, absent by range, absent by filter.
    let explain = keyspace.explain_get("key0000").unwrap();
    assert!(outcomes(&explain).contains(&Outcome::Tombstone), "{explain}");
    assert_eq!(explain.entries, 0);
    let explain = keyspace.explain_get("zzz").unwrap();
    assert!(outcomes(&explain).contains(&Outcome::OutOfRange), "{explain}");
    let absent = (0..50).map(|i| keyspace.explain_get(format!("key0300x{i}")).unwrap());
    assert!(absent.flat_map(|explain| outcomes(&explain)).any(|outcome| outcome == Outcome::Filter));

    // From the memtable, and from an older state.
    keyspace.put("fresh", "value").unwrap();
    let snapshot = db.snapshot();
    keyspace.delete("fresh").unwrap();
    let explain = keyspace.explain_get("fresh").unwrap();
    assert_eq!(explain.sources[0].place, Place::ActiveMemtable);
    assert_eq!(explain.sources[0].outcome, Outcome::Tombstone);
    let explain = keyspace.explain_get_at("fresh", &snapshot).unwrap();
    assert_eq!(explain.sources[0].outcome, Outcome::Value { bytes: 5 });
    for key in ["key0000", "key0001", "key0300", "key0150", "fresh", "zzz"] {
        let explain = keyspace.explain_get(key).unwrap();
        assert_eq!(explain.entries == 1, keyspace.contains(key).unwrap(), "{explain}");
    }
}

#[test]
fn a_scan_tells_what_it_merged() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(folder.path());
    let keyspace = db.default_keyspace();
    for i in 0..3000u32 {
        keyspace.put(format!("key{i:05}"), vec![b'v'; 50]).unwrap();
    }
    db.flush().unwrap();
    drop((keyspace, db));
    let db = open(folder.path());
    let keyspace = db.default_keyspace();
    keyspace.put("key00007", "short").unwrap();

    let few = keyspace.range("key00000".."key02999").limit(10).explain().unwrap();
    assert_eq!((few.entries, few.operation), (10, "scan"));
    assert_eq!(few.bytes, 10 * 8 + 9 * 50 + 5);
    // One block of each run, to find its start.
    let runs =
        outcomes(&few).iter().filter(|it| matches!(it, Outcome::Merged { tables: 1.. })).count() as u64;
    assert!(runs >= 1);
    assert_eq!(read_blocks(&few), runs, "{few}");
    let all = keyspace.iter().explain().unwrap();
    assert_eq!(all.entries, 3000);
    assert!(read_blocks(&all) > 20 && cached_blocks(&all) >= 1, "{all}");
    let again = keyspace.iter().rev().explain().unwrap();
    assert_eq!((read_blocks(&again), again.entries), (0, 3000), "{again}");
    let last = keyspace.iter().rev().limit(5).explain().unwrap();
    assert_eq!((cached_blocks(&last), read_blocks(&last), last.entries), (runs, 0, 5), "{last}");
    let none = keyspace.range("x".."y").explain().unwrap();
    assert_eq!(outcomes(&none).last(), Some(&Outcome::OutOfRange), "{none}");
    assert_eq!(none.target, "\"x\"..\"y\"");
    assert_eq!(outcomes(&all)[0], Outcome::Merged { tables: 0 });
}

#[test]
fn a_query_of_an_index_tells_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let city = || Builtin::new(Field::value().range(0, 4), KeyKind::Bytes);
    let fill = |db: &Db, numbers: std::ops::Range<u32>, city: u32| {
        let keyspace = db.default_keyspace();
        for i in numbers {
            keyspace.put(format!("row{i:05}"), format!("{:04}{:050}", (i + city) % 10, i)).unwrap();
        }
    };
    let db = open(folder.path());
    fill(&db, 0..3000, 0);
    db.flush().unwrap();
    // Built on existing rows, so all of them are in the tree.
    db.default_keyspace().create_index("city", IndexOptions::builtin(city())).unwrap();
    drop(db);

    let db = open(folder.path());
    let keyspace = db.default_keyspace();
    let index = keyspace.index("city").unwrap();
    let few = index.get("0003").limit(5).explain().unwrap();
    assert_eq!((few.operation, few.index.as_deref(), few.entries), ("index scan", Some("city"), 5));
    let Some(Place::Tree { height, entries: 3000, .. }) = few.sources.last().map(|it| it.place.clone())
    else {
        panic!("{few}");
    };
    assert!(height >= 2, "{few}");
    // A page of each level, and none of the rows.
    assert_eq!((read_blocks(&few), cached_blocks(&few)), (u64::from(height), 0), "{few}");
    assert!(few.rows.is_none() && few.stale_entries == 0);
    let again = index.get("0003").limit(5).explain().unwrap();
    assert_eq!((read_blocks(&again), cached_blocks(&again)), (0, u64::from(height)), "{again}");
    let all = index.iter().rev().explain_with_rows().unwrap();
    let rows = all.rows.as_ref().unwrap();
    assert_eq!((all.entries, rows.rows, rows.bytes), (3000, 3000, 3000 * 54), "{all}");
    assert!(rows.read_blocks > 20 && rows.read_blocks + rows.cached_blocks >= 3000, "{all}");
    assert!(read_blocks(&all) >= 3, "{all}");
    assert_eq!(cached_blocks(&all), u64::from(height), "{all}");
    assert_eq!(index.iter().limit(0).explain().unwrap().entries, 0);

    // Rows that have changed since, in a memtable: their entries in the tree are skipped.
    fill(&db, 0..200, 1);
    let moved = index.get("0003").explain().unwrap();
    assert_eq!((moved.entries, moved.stale_entries), (300, 20), "{moved}");
    assert_eq!(moved.sources[0].outcome, Outcome::Merged { tables: 0 }, "{moved}");
    let text = moved.to_string();
    assert!(
        text.contains("index \"city\" of keyspace") && text.contains("20 stale ones passed over"),
        "{text}"
    );
    assert!(text.contains(".tree, "), "{text}");
    let snapshot = db.snapshot();
    fill(&db, 0..200, 2);
    let old = index.get("0003").at(&snapshot).explain_with_rows().unwrap();
    assert_eq!((old.entries, old.stale_entries), (300, 20), "{old}");
    assert_eq!(old.rows.map(|rows| rows.rows), Some(300));
}
