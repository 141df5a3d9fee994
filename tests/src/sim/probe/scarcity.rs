//! Temporary scarcity: the remains of a failed attempt, and the recovery afterwards.
use crate::harness::builder;
use sapwood::{BackgroundStep, Emit, Env, Health, IndexOptions, KeyspaceOptions};
use sapwood_storage::fs::FileSystem;
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call, SimFs};
use std::path::Path;
use std::time::Duration;

fn count(fs: &SimFs, kind: &str) -> usize {
    let names = fs.list(Path::new("/db")).unwrap();
    names.iter().filter(|name| name.extension().is_some_and(|extension| extension == kind)).count()
}

fn tables(fs: &SimFs) -> usize {
    count(fs, "sst")
}

/// The tree of an index gets its file with its first entries. If the file's name cannot be made
/// durable, the file must be removed, since the next attempt creates another one.
pub(super) fn tree_without_a_name() {
    let (env, fs) = Env::sim_manual(0);
    let db = builder("/db", &env).open().unwrap();
    let rows = db.default_keyspace();
    let by_value = IndexOptions::new(|_: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.key(value));
    let index = rows.create_index("value", by_value).unwrap();
    rows.put("key", "value").unwrap();
    db.flush().unwrap();
    let before = count(&fs, "tree");
    for attempt in 0..3 {
        // No table is created when entries go into the tree: the sync is that of its name.
        fs.fail(FaultRule::new(Call::SyncDirectory, Fault::NoMemory).sticky());
        for _ in 0..20 {
            db.background_step(BackgroundStep::Compaction).unwrap();
            env.sleep(Duration::from_millis(60));
        }
        assert!(matches!(db.health(), Health::NoSpace(_)), "{:?}", db.health());
        assert_eq!(count(&fs, "tree"), before, "attempt {attempt} leaves a tree");
        fs.clear_faults();
    }
    db.settle().unwrap();
    assert_eq!(count(&fs, "tree"), before + 1);
    assert_eq!(index.count("value"..).unwrap(), 1);
    db.close().unwrap();
}

/// The disk becomes full while the log keeps spare segments. A flush needs less space than these
/// take.
pub(super) fn spares_on_full_disk() {
    const ROWS: u32 = 1500;
    let (env, fs) = Env::sim_manual(0);
    let db = builder("/db", &env).advanced(|options| options.memtable_bytes = Some(2 << 20)).open().unwrap();
    let rows = db.default_keyspace();
    let fill = |round: u32, count: u32| {
        let mut random = fastrand::Rng::with_seed(u64::from(round));
        for row in 0..count {
            let value: Vec<u8> = (0..1000).map(|_| random.u8(..)).collect();
            rows.put((round * ROWS + row).to_be_bytes(), value).unwrap();
        }
    };
    fill(0, ROWS);
    db.flush().unwrap();
    // Half of the segments are reused once.
    fs.set_capacity_bytes(Some(fs.used_bytes() + (100 << 10)));
    fill(1, ROWS / 3);
    let log = count(&fs, "wal");
    db.flush().expect("the log releases space");
    assert!(count(&fs, "wal") < log, "{log} segments stay");
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    fs.set_capacity_bytes(None);
    fill(2, ROWS);
    assert_eq!(rows.iter().count() as u32, 2 * ROWS + ROWS / 3);
    db.close().unwrap();
}

/// A flush writes one table after the other, and the disk is full before the last: the first ones
/// must be removed, or each attempt would take the space that was freed for the next.
pub(super) fn flush_on_full_disk() {
    const KEYSPACES: usize = 4;
    const ROWS: u64 = 64;
    let (env, fs) = Env::sim_manual(0);
    // All rows fit into one memtable.
    let db = builder("/db", &env).advanced(|options| options.memtable_bytes = Some(1 << 20)).open().unwrap();
    let keyspaces: Vec<_> = (0..KEYSPACES)
        .map(|number| db.keyspace(&format!("k{number}"), KeyspaceOptions::default()).unwrap())
        .collect();
    let value = |number: usize, row: u64| {
        let mut random = fastrand::Rng::with_seed(number as u64 * 1000 + row);
        (0..500).map(|_| random.u8(..)).collect::<Vec<u8>>()
    };
    for (number, keyspace) in keyspaces.iter().enumerate() {
        for row in 0..ROWS {
            keyspace.put(row.to_be_bytes(), value(number, row)).unwrap();
        }
    }
    // Each attempt gets space for two tables of four.
    for attempt in 0..5 {
        fs.fail(FaultRule::new(Call::Create, Fault::NoSpace).on(".sst").after(2).sticky());
        assert!(db.flush().is_err(), "the flush needs more space than there is");
        while db.background_step(BackgroundStep::Sweep).unwrap() {}
        assert_eq!(tables(&fs), 0, "attempt {attempt} leaves tables");
        assert!(matches!(db.health(), Health::NoSpace(_)), "{:?}", db.health());
        fs.clear_faults();
    }
    db.flush().unwrap();
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    for (number, keyspace) in keyspaces.iter().enumerate() {
        for row in 0..ROWS {
            assert_eq!(keyspace.get(row.to_be_bytes()).unwrap().as_deref(), Some(&value(number, row)[..]));
        }
    }
    db.close().unwrap();
}
