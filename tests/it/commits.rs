//! Numbers of commits: dense, in the order in which commits become visible, across sessions and
//! crashes.
use sapwood::{Db, Durability, Env, IndexOptions, KeyspaceOptions, WriteBatch};
use std::sync::{Arc, Mutex};

fn number(mut batch: WriteBatch, durability: Durability) -> u64 {
    batch.commit_durable(durability).expect("a commit").number()
}

/// The number of a batch that puts one row.
fn put(db: &Db, key: &str, durability: Durability) -> u64 {
    let mut batch = db.batch();
    batch.put(&db.default_keyspace(), key, "value");
    number(batch, durability)
}

#[test]
fn threads_get_numbers_without_gaps_and_snapshots_see_exactly_the_commits_up_to_theirs() {
    const THREADS: u64 = 4;
    const COMMITS: u64 = 3000;
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        Db::builder(folder.path().join("db"))
            .memory_budget(16 << 20)
            // Small, so that the memtable is rotated, and sync marks lie between the commits.
            .advanced(|options| options.memtable_bytes = Some(1 << 20))
            .open()
            .unwrap()
    };
    let db = open();
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, all) = (&db, &all);
            scope.spawn(move || {
                let keyspace = db.default_keyspace();
                let mut numbers = Vec::new();
                for i in 0..COMMITS {
                    let mut batch = db.batch();
                    let key = [&thread.to_be_bytes()[..], &i.to_be_bytes()].concat();
                    batch.put(&keyspace, &key, [7; 100]);
                    let durability = match i % 64 {
                        0 => Durability::Sync,
                        1 => Durability::None,
                        _ => Durability::Buffered,
                    };
                    let number = number(batch, durability);
                    let snapshot = db.snapshot();
                    assert!(snapshot.commits() >= number, "an acknowledged commit is visible");
                    if i % 100 == 0 {
                        let rows = keyspace.iter().at(&snapshot).keys_only().count() as u64;
                        assert_eq!(rows, snapshot.commits(), "each commit puts a row");
                    }
                    numbers.push(number);
                }
                assert!(numbers.is_sorted(), "commits of a thread are in order");
                all.lock().unwrap().extend(numbers);
            });
        }
    });
    let mut numbers = all.into_inner().unwrap();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=THREADS * COMMITS), "each number once");
    let last = THREADS * COMMITS;
    assert_eq!(db.snapshot().commits(), last);
    assert_eq!(db.batch().commit().unwrap().number(), last, "an empty batch is no commit of its own");
    db.close().unwrap();
    let db = open();
    assert_eq!((db.snapshot().commits(), put(&db, "more", Durability::Buffered)), (last, last + 1));
}

#[test]
fn openings_flushes_and_lost_commits_leave_no_gap() {
    let (env, fs) = Env::sim_manual(3);
    let open = |env: &Env| {
        let builder = Db::builder("db").memory_budget(32 << 20);
        builder.advanced(|options| options.env = env.clone()).open().unwrap()
    };
    let db = open(&env);
    assert_eq!(put(&db, "a", Durability::Buffered), 1);
    assert_eq!(put(&db, "b", Durability::None), 2);
    db.flush().unwrap();
    assert_eq!(put(&db, "c", Durability::Sync), 3);
    // Large payloads are written apart from their records.
    let mut batch = db.batch();
    batch.put(&db.default_keyspace(), "d", vec![1; 9 << 20]);
    assert_eq!(number(batch, Durability::Buffered), 4);
    db.close().unwrap();
    drop(db);

    let db = open(&env);
    assert_eq!(db.snapshot().commits(), 4);
    assert_eq!(put(&db, "e", Durability::Sync), 5);
    assert_eq!(put(&db, "f", Durability::Buffered), 6);
    assert_eq!(put(&db, "g", Durability::Buffered), 7);
    // A power loss removes unsynced commits; the next open continues after the others.
    let left = fs.crash(1);
    drop(db);
    let db = open(&env.with_file_system(Arc::new(left)));
    let left = db.snapshot().commits();
    let rows = db.default_keyspace().iter().count() as u64;
    assert!(left >= 5 && rows == left, "{left} commits, {rows} rows");
    assert_eq!(put(&db, "h", Durability::Buffered), left + 1);

    // The beginning of an index may take numbers of commits without rows; none is missing.
    let before = db.snapshot().commits();
    let keyspace = db.keyspace("rows", KeyspaceOptions::default()).unwrap();
    let options = IndexOptions::new(|_: &[u8], value: &[u8], emit| emit.key(value));
    let index = keyspace.create_index("values", options).unwrap();
    let begun = db.snapshot().commits();
    assert!(begun >= before);
    assert_eq!(put(&db, "i", Durability::Buffered), begun + 1);
    let mut batch = db.batch();
    batch.put(&keyspace, "1", "red").put(&keyspace, "2", "blue");
    assert_eq!(number(batch, Durability::Sync), begun + 2, "rows and entries are one commit");
    assert_eq!(index.count::<Vec<u8>>(..).unwrap(), 2);
}
