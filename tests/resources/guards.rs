//! Long calls of readers: they do not extend the lifetime of memory written in the meantime.
use super::*;
use sapwood_tests::harness::{builder, eventually};

/// The first word of a value.
fn first_word() -> Builtin {
    Builtin::new(Field::value().separated(b' ', 0), KeyKind::Bytes)
}

/// Rows of 200 bytes that fill a memtable, which is flushed.
fn fill_a_memtable(db: &Db, keyspace: &Keyspace, prefix: &str) {
    for i in 0..200 {
        keyspace.put(format!("{prefix}{i:04}"), [b'x'; 200]).unwrap();
    }
    db.flush().unwrap();
}

/// Memtables shrink to `bound` bytes again: background threads hold memory as well, but only
/// briefly.
fn comes_back(db: &Db, bound: u64) {
    eventually(&format!("memtables come back to {bound} bytes"), || db.memory().memtables <= bound);
}

pub(super) fn a_call_for_very_many_keys_holds_no_memory_of_later_writes() {
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    (0..1000).for_each(|i| keyspace.put(format!("{i:04}"), format!("value {i}")).unwrap());
    db.compact().unwrap();
    let wanted: Vec<String> = (0..20_000).map(|i| format!("{:04}", i % 1000)).collect();
    let bound = db.memory().memtables + (1 << 20);
    let mut seen = 0_u32;
    keyspace
        .multi_get_with(&wanted, |key, value| {
            assert_eq!(value, Some(format!("value {}", key.parse::<u32>().unwrap()).as_bytes()));
            seen += 1;
            if seen.is_multiple_of(100) {
                // Another memtable each time, with other rows than those at the beginning.
                fill_a_memtable(&db, &keyspace, "");
                if seen.is_multiple_of(5000) {
                    comes_back(&db, bound);
                }
            }
        })
        .unwrap();
    assert_eq!(seen, 20_000);
}

pub(super) fn a_lookup_with_very_many_rows_holds_no_memory_of_later_writes() {
    const ROWS: u32 = 20_000;
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", IndexOptions::builtin(first_word())).unwrap();
    let value = |i: u32| format!("same {i}");
    (0..ROWS).for_each(|i| keyspace.put(format!("{i:05}"), value(i)).unwrap());
    db.compact().unwrap();
    // From the tree alone; with stale entries in the tree; with an entry that is not in the tree
    // yet.
    for round in 0..3 {
        let is_stale = |i: u32| round > 0 && (i == 30 || i == 10_300);
        (0..ROWS).filter(|i| is_stale(*i)).for_each(|i| keyspace.put(format!("{i:05}"), "other").unwrap());
        if round == 2 {
            keyspace.put("10301", value(10_301)).unwrap();
        }
        let mut wanted = (0..ROWS).filter(|i| !is_stale(*i));
        let bound = db.memory().memtables + (1 << 20);
        let mut seen = 0_u32;
        let count = index
            .get_with("same", |key, row| {
                let i = wanted.next().expect("a row that should be there");
                assert_eq!((key, row), (format!("{i:05}").as_bytes(), value(i).as_bytes()));
                seen += 1;
                if seen.is_multiple_of(100) {
                    // Another memtable each time, with later rows, others, and a new one.
                    keyspace.put(format!("{:05}", ROWS - 1 - i / 2), "other").unwrap();
                    keyspace.put(format!("{:05}x", ROWS - 1 - i), value(i)).unwrap();
                    fill_a_memtable(&db, &keyspace, "z");
                    if seen.is_multiple_of(5000) {
                        comes_back(&db, bound);
                    }
                }
            })
            .unwrap();
        assert_eq!((count, wanted.next()), (u64::from(seen), None));
        (0..ROWS).for_each(|i| {
            keyspace.delete(format!("{i:05}x")).unwrap();
            keyspace.put(format!("{i:05}"), value(i)).unwrap();
        });
        db.compact().unwrap();
    }
}
