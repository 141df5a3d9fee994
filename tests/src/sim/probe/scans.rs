//! What a scan sees, and what it costs. Costs are counted, not measured: `explain` tells how many versions a scan has met
//! and passed over.
use crate::harness::builder;
use sapwood::{Builtin, Db, Env, Explain, Field, IndexOptions, KeyKind, Keyspace, Maintenance};
use std::ops::Bound;

/// Rows of the part that is deleted.
const DELETED: u32 = 2000;
/// What a scan may pass over at an edge of its range.
const FEW: u64 = 4;

/// Where the rows and the deletions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Places {
    Memtable,
    TableUnderMemtable,
    TwoTables,
}

/// `a/1`, `a/2`, deleted rows `b/…`, and `c/1`.
fn neighbours(env: &Env, places: Places) -> (Db, Keyspace) {
    let db = builder("/db", env).memory_budget(64 << 20);
    let db = db.advanced(|options| options.disable_auto_compactions = true).open().unwrap();
    let keyspace = db.default_keyspace();
    for key in ["a/1", "a/2", "c/1"] {
        keyspace.put(key, "x").unwrap();
    }
    (0..DELETED).for_each(|i| keyspace.put(format!("b/{i:06}"), [1; 20]).unwrap());
    if places != Places::Memtable {
        db.flush().unwrap();
    }
    (0..DELETED).for_each(|i| keyspace.delete(format!("b/{i:06}")).unwrap());
    if places == Places::TwoTables {
        db.flush().unwrap();
    }
    (db, keyspace)
}

/// An index on the first word of values.
fn first_word() -> IndexOptions {
    IndexOptions::builtin(Builtin::new(Field::value().separated(b' ', 0), KeyKind::Bytes))
}

fn bounds<'k>(lower: Bound<&'k str>, upper: Bound<&'k str>) -> (Bound<&'k str>, Bound<&'k str>) {
    (lower, upper)
}

/// A scan ends where its range does, whatever lies behind it.
pub(super) fn bounds_are_handed_on() {
    use Bound::{Excluded, Included, Unbounded};
    for places in [Places::Memtable, Places::TableUnderMemtable, Places::TwoTables] {
        let (env, _) = Env::sim(1);
        let (_db, keyspace) = neighbours(&env, places);
        let range = |lower, upper| keyspace.range::<&str>(bounds(lower, upper));
        let cheap = |what: &str, entries: u64, explain: Explain| {
            assert_eq!(explain.entries, entries, "{what}: {explain}");
            assert!(explain.passed_versions <= FEW, "{what}, {places:?}: {explain}");
        };
        cheap("prefix", 2, keyspace.prefix("a/").explain().unwrap());
        cheap("prefix back", 2, keyspace.prefix("a/").rev().explain().unwrap());
        cheap("limit", 1, keyspace.prefix("a/").limit(1).explain().unwrap());
        cheap("empty prefix", 0, keyspace.prefix("aa").explain().unwrap());
        cheap("empty prefix back", 0, keyspace.prefix("bb").rev().explain().unwrap());
        cheap("prefix behind", 1, keyspace.prefix("c/").explain().unwrap());
        cheap("prefix behind, back", 1, keyspace.prefix("c/").rev().explain().unwrap());
        cheap("range", 2, range(Included("a"), Excluded("b")).explain().unwrap());
        cheap("included", 2, range(Unbounded, Included("a/2")).explain().unwrap());
        cheap("included back", 2, range(Unbounded, Included("a/2")).rev().explain().unwrap());
        cheap("behind a row, back", 1, range(Unbounded, Included("a/3")).rev().limit(1).explain().unwrap());
        cheap("excluded", 1, range(Excluded("a/1"), Included("a/9")).explain().unwrap());
        cheap("behind, back", 1, range(Excluded("b/999999"), Unbounded).rev().explain().unwrap());

        // From both ends: each goes as far as the other end, and no further.
        let mut ends = keyspace.range("a/1".."a/9");
        assert_eq!(ends.next_back().unwrap().unwrap().key(), b"a/2");
        assert_eq!(ends.next().unwrap().unwrap().key(), b"a/1");
        assert!(ends.next().is_none() && ends.next_back().is_none());
        cheap("both ends", 0, ends.explain().unwrap());

        // The answer at the edges, too.
        let mut cursor = keyspace.cursor().unwrap();
        cursor.seek_for_prev("a/3").unwrap();
        assert_eq!(cursor.key(), b"a/2");
        cursor.seek_for_prev("a/2").unwrap();
        assert_eq!(cursor.key(), b"a/2");
        cursor.next().unwrap();
        assert_eq!(cursor.key(), b"c/1");
        cursor.prev().unwrap();
        assert_eq!(cursor.key(), b"a/2");
        cursor.seek_for_prev(vec![0xFF; 64 << 10]).unwrap();
        assert_eq!(cursor.key(), b"c/1");
        cursor.seek_for_prev("").unwrap();
        assert!(!cursor.valid());
    }
    for maintenance in [Maintenance::Deferred, Maintenance::Strict] {
        index_bounds(maintenance);
    }
}

/// Jobs with a state: `done`, `ready`, `waiting`. Those that were ready are done.
fn index_bounds(maintenance: Maintenance) {
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).memory_budget(64 << 20);
    let db = db.advanced(|options| options.disable_auto_compactions = true).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("state", first_word().maintenance(maintenance)).unwrap();
    (0..DELETED).for_each(|i| keyspace.put(format!("{i:06}"), "ready ").unwrap());
    keyspace.put("first", "preparing ").unwrap();
    keyspace.put("last", "waiting ").unwrap();
    db.flush().unwrap();
    for i in 0..DELETED {
        keyspace.put(format!("{i:06}"), "done ").unwrap();
    }
    db.flush().unwrap();
    let cheap = |what: &str, entries: u64, explain: Explain| {
        assert_eq!(explain.entries, entries, "{what}: {explain}");
        assert!(explain.passed_versions <= FEW, "{what}, {maintenance:?}: {explain}");
    };
    cheap("key", 1, index.get("preparing").explain().unwrap());
    cheap("key back", 1, index.get("preparing").rev().explain().unwrap());
    cheap("key behind", 1, index.get("waiting").rev().explain().unwrap());
    cheap("prefix", 1, index.prefix("pre").explain().unwrap());
    cheap("no key", 0, index.get("queued").explain().unwrap());
    cheap("range", 1, index.range("prepare".."ready").explain().unwrap());
    assert_eq!(index.count("prepare".."ready").unwrap(), 1);
}

/// An iterator sees what there was when it was made.
pub(super) fn iterators_fix_their_state() {
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", first_word()).unwrap();
    (0..50).for_each(|i| keyspace.put(format!("k{i:02}"), "old ").unwrap());
    for step in 0..4 {
        let before = db.snapshot();
        let old = [keyspace.iter(), keyspace.range("k"..), keyspace.prefix("k").rev()];
        let word = if step % 2 == 0 { "old" } else { "new" };
        let (all, of_key) = (index.iter(), index.get(word));
        let hit = index.get(word).next().unwrap().unwrap();
        let later = keyspace.iter();
        for i in 0..60 {
            match step % 2 {
                0 => keyspace.put(format!("k{i:02}"), "new ").unwrap(),
                _ => keyspace.delete(format!("k{i:02}")).unwrap(),
            }
        }
        if step < 2 {
            db.compact().unwrap();
        }
        let after = db.snapshot();
        let wanted = format!("{word} ");
        // The rows of the second and fourth round are those that the round before has left.
        let wanted_rows = if step % 2 == 0 { 50 } else { 60 };
        for iter in old {
            let values: Vec<_> = iter.map(|entry| entry.unwrap().value().unwrap()).collect();
            assert_eq!(values.len(), wanted_rows, "round {step}");
            assert!(values.iter().all(|value| **value == *wanted.as_bytes()), "round {step}");
        }
        assert_eq!(all.count(), wanted_rows);
        assert_eq!(of_key.map(|hit| hit.unwrap().record().unwrap()).collect::<Vec<_>>().len(), wanted_rows);
        assert_eq!(&hit.record().unwrap()[..], wanted.as_bytes());
        // A snapshot counts, whether it was taken before the iterator or after it.
        assert_eq!(keyspace.iter().at(&before).count(), wanted_rows);
        let rows_after = if step % 2 == 0 { 60 } else { 0 };
        assert_eq!(later.at(&after).count(), rows_after);
        assert_eq!(index.iter().at(&before).count(), wanted_rows);
        if step % 2 == 1 {
            (0..50).for_each(|i| keyspace.put(format!("k{i:02}"), "old ").unwrap());
        }
    }
}

/// What is read does not keep the database open, and goes on when it is closed.
pub(super) fn readers_do_not_keep_it_open() {
    for by_close in [false, true] {
        let (env, _) = Env::sim(1);
        let db = builder("/db", &env).open().unwrap();
        let keyspace = db.default_keyspace();
        let index = keyspace.create_index("first", first_word()).unwrap();
        (0..100).for_each(|i| keyspace.put(format!("k{i:02}"), "x y").unwrap());
        let (mut begun, waiting, mut cursor) = (keyspace.iter(), keyspace.iter(), keyspace.cursor().unwrap());
        begun.next().unwrap().unwrap();
        cursor.seek_to_first().unwrap();
        let (mut hits, waiting_hits) = (index.iter(), index.iter());
        let hit = hits.next().unwrap().unwrap();
        let mut index_cursor = index.cursor::<&str>(..).unwrap();
        index_cursor.seek_to_last().unwrap();
        let (snapshot, slice) = (db.snapshot(), keyspace.get("k00").unwrap().unwrap());
        if by_close {
            db.close().unwrap();
            // What is made now says why it gives nothing.
            let mut late = keyspace.iter();
            assert_eq!(late.next().unwrap().unwrap_err().kind(), sapwood::ErrorKind::Closed);
            assert!(late.next().is_none());
            let error = waiting_error(keyspace.range("b".."a").at(&snapshot));
            assert_eq!(error, Some(sapwood::ErrorKind::Closed));
            assert_eq!(index.iter().next().unwrap().unwrap_err().kind(), sapwood::ErrorKind::Closed);
        }
        drop((db, keyspace, index));
        let again = builder("/db", &env).open().unwrap();
        again.default_keyspace().put("k00", "later").unwrap();
        assert_eq!(begun.map(|entry| entry.unwrap()).collect::<Vec<_>>().len(), 99);
        assert_eq!(waiting.map(|entry| entry.unwrap()).collect::<Vec<_>>().len(), 100);
        assert_eq!(hits.map(|hit| hit.unwrap().record().unwrap()).collect::<Vec<_>>().len(), 99);
        assert_eq!(waiting_hits.map(|hit| hit.unwrap()).collect::<Vec<_>>().len(), 100);
        assert_eq!((&hit.record().unwrap()[..], &slice[..]), (&b"x y"[..], &b"x y"[..]));
        for _ in 0..100 {
            assert!(cursor.valid() && index_cursor.valid());
            assert_eq!(cursor.value(), b"x y");
            cursor.next().unwrap();
            index_cursor.prev().unwrap();
        }
        assert!(!cursor.valid() && !index_cursor.valid());
        // A snapshot of an earlier opening is not one of this one.
        assert!(again.default_keyspace().cursor_at(&snapshot).is_err());
        again.close().unwrap();
    }
}

fn waiting_error(mut iter: sapwood::Iter) -> Option<sapwood::ErrorKind> {
    iter.next().map(|item| item.unwrap_err().kind())
}
