//! The content and the cost of scans. Costs are counted, not measured: `explain` reports how many
//! versions a scan has met and skipped.
use crate::harness::builder;
use sapwood::{Builtin, Db, Env, Explain, Field, IndexOptions, KeyKind, Keyspace, Maintenance};
use sapwood_storage::ThreadClass;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of deleted rows.
const DELETED: u32 = 2000;
/// The most versions that a scan may skip at an edge of its range.
const FEW: u64 = 4;

/// The places of the rows and the deletions.
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

/// A scan stops at the end of its range, whatever follows.
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
        cheap("prefix after", 1, keyspace.prefix("c/").explain().unwrap());
        cheap("prefix after, back", 1, keyspace.prefix("c/").rev().explain().unwrap());
        cheap("range", 2, range(Included("a"), Excluded("b")).explain().unwrap());
        cheap("included", 2, range(Unbounded, Included("a/2")).explain().unwrap());
        cheap("included back", 2, range(Unbounded, Included("a/2")).rev().explain().unwrap());
        cheap("after a row, back", 1, range(Unbounded, Included("a/3")).rev().limit(1).explain().unwrap());
        cheap("excluded", 1, range(Excluded("a/1"), Included("a/9")).explain().unwrap());
        cheap("after, back", 1, range(Excluded("b/999999"), Unbounded).rev().explain().unwrap());

        // From both ends: each stops at the other.
        let mut ends = keyspace.range("a/1".."a/9");
        assert_eq!(ends.next_back().unwrap().unwrap().key(), b"a/2");
        assert_eq!(ends.next().unwrap().unwrap().key(), b"a/1");
        assert!(ends.next().is_none() && ends.next_back().is_none());
        cheap("both ends", 0, ends.explain().unwrap());

        // The results at the edges, too.
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

/// Jobs with a state: `done`, `ready`, `waiting`. The ready ones become done.
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
    cheap("key after", 1, index.get("waiting").rev().explain().unwrap());
    cheap("prefix", 1, index.prefix("pre").explain().unwrap());
    cheap("no key", 0, index.get("queued").explain().unwrap());
    cheap("range", 1, index.range("prepare".."ready").explain().unwrap());
    assert_eq!(index.count("prepare".."ready").unwrap(), 1);
}

/// An iterator sees the state at its creation.
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
        // The rows of the second and fourth round are the remaining ones of the round before.
        let wanted_rows = if step % 2 == 0 { 50 } else { 60 };
        for iter in old {
            let values: Vec<_> = iter.map(|entry| entry.unwrap().value().unwrap()).collect();
            assert_eq!(values.len(), wanted_rows, "round {step}");
            assert!(values.iter().all(|value| **value == *wanted.as_bytes()), "round {step}");
        }
        assert_eq!(all.count(), wanted_rows);
        assert_eq!(of_key.map(|hit| hit.unwrap().record().unwrap()).collect::<Vec<_>>().len(), wanted_rows);
        assert_eq!(&hit.record().unwrap()[..], wanted.as_bytes());
        // A snapshot takes precedence, whether it was taken before the iterator or after it.
        assert_eq!(keyspace.iter().at(&before).count(), wanted_rows);
        let rows_after = if step % 2 == 0 { 60 } else { 0 };
        assert_eq!(later.at(&after).count(), rows_after);
        assert_eq!(index.iter().at(&before).count(), wanted_rows);
        if step % 2 == 1 {
            (0..50).for_each(|i| keyspace.put(format!("k{i:02}"), "old ").unwrap());
        }
    }
}

/// Readers do not keep the database open, and continue after a close.
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
            // A later iterator reports why it returns nothing.
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
        // A snapshot of an earlier session is refused by a later one.
        assert!(again.default_keyspace().cursor_at(&snapshot).is_err());
        again.close().unwrap();
    }
}

fn waiting_error(mut iter: sapwood::Iter) -> Option<sapwood::ErrorKind> {
    iter.next().map(|item| item.unwrap_err().kind())
}

/// The number of entries that are pushed to each queue and popped from it.
const POPS: usize = 1500;
/// The most versions that the scan of one pop may skip: on average, and in the worst case once a
/// vacancy is known.
const MOST_PASSED: u64 = 64;

/// The way of popping, and the position of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pop {
    Front,
    Back,
    Range,
    /// The first entry of a prefix, with other queues before and after it.
    Prefix,
    /// Batches of a hundred.
    Hundreds,
    /// Each entry is popped before the next one is pushed.
    Polling,
}

/// The scans of pops do not meet the popped entries repeatedly.
pub(super) fn queues_are_linear() {
    use Pop::{Back, Front, Hundreds, Polling, Prefix, Range};
    for pop in [Front, Back, Range, Prefix, Hundreds, Polling] {
        for (flushes, holds_snapshot) in [(false, false), (true, true)] {
            queue(pop, flushes, holds_snapshot);
        }
    }
    for maintenance in [Maintenance::Deferred, Maintenance::Strict] {
        for by_delete in [false, true] {
            queue_in_index(maintenance, by_delete);
        }
    }
}

fn queue(pop: Pop, flushes: bool, holds_snapshot: bool) {
    // Without threads: a flush in the middle of a scan would make it walk over what it passed.
    let (env, _) = Env::sim_manual(1);
    let db = builder("/db", &env).memory_budget(64 << 20).open().unwrap();
    let keyspace = db.default_keyspace();
    let key = |number: usize| match pop {
        Pop::Prefix => format!("q{}/{:08}", number % 3, number / 3),
        _ => format!("q/{number:08}"),
    };
    let batch = if pop == Pop::Hundreds { 100 } else { 1 };
    let range = |number: usize| match pop {
        Pop::Front | Pop::Polling | Pop::Hundreds => keyspace.iter(),
        Pop::Back => keyspace.iter().rev(),
        Pop::Range => keyspace.range("q".."r"),
        Pop::Prefix => keyspace.prefix(format!("q{}/", number % 3)),
    };
    let snapshot = holds_snapshot.then(|| db.snapshot());
    let depth = if pop == Pop::Polling { 0 } else { POPS };
    (0..depth).for_each(|number| keyspace.put(key(number), "x").unwrap());
    let (mut passed, mut most) = (0, 0);
    for popped in (0..POPS).step_by(batch) {
        if pop == Pop::Polling {
            let explain = range(popped).limit(1).explain().unwrap();
            assert_eq!(explain.entries, 0);
            passed += explain.passed_versions;
            keyspace.put(key(popped), "x").unwrap();
        }
        let explain = range(popped).limit(batch).explain().unwrap();
        passed += explain.passed_versions;
        most = most.max(explain.passed_versions);
        for (at, entry) in range(popped).limit(batch).enumerate() {
            let number = if pop == Pop::Back { POPS - 1 - popped } else { popped + at };
            assert_eq!(entry.as_ref().unwrap().key(), key(number).as_bytes(), "{pop:?}");
            keyspace.delete(entry.unwrap().key()).unwrap();
        }
        if flushes && popped % 200 == 0 {
            db.flush().unwrap();
        }
        if flushes && popped == POPS / 2 {
            db.compact().unwrap();
        }
    }
    let what = format!("{pop:?}, flushes {flushes}: {passed} skipped, at most {most} by one scan");
    assert!(passed <= POPS as u64 * MOST_PASSED && most <= 3 * MOST_PASSED.max(batch as u64), "{what}");
    assert_eq!(keyspace.iter().count(), 0);
    drop(snapshot);

    // A new open has no vacancies, and discovers them once.
    drop((keyspace, db));
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let passed = || keyspace.iter().explain().unwrap().passed_versions;
    let scans: Vec<u64> = (0..4).map(|_| passed()).collect();
    assert!(scans[2] <= MOST_PASSED && scans[3] <= MOST_PASSED, "{pop:?}: {scans:?}");
}

/// Jobs are found by their state, and leave it.
fn queue_in_index(maintenance: Maintenance, by_delete: bool) {
    let (env, _) = Env::sim_manual(1);
    let db = builder("/db", &env).memory_budget(64 << 20).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("state", first_word().maintenance(maintenance)).unwrap();
    (0..POPS).for_each(|number| keyspace.put(format!("{number:08}"), "ready ").unwrap());
    let mut passed = 0;
    for number in 0..POPS {
        if number == POPS / 3 {
            db.flush().unwrap();
        }
        if number == POPS / 2 {
            db.settle().unwrap();
        }
        let explain = index.get("ready").limit(1).explain().unwrap();
        passed += explain.passed_versions + explain.stale_entries;
        let hit = index.get("ready").next().unwrap().unwrap();
        assert_eq!(hit.primary_key(), format!("{number:08}").as_bytes());
        match by_delete {
            true => keyspace.delete(hit.primary_key()).unwrap(),
            false => keyspace.put(hit.primary_key(), "done ").unwrap(),
        }
    }
    assert!(passed <= POPS as u64 * MOST_PASSED, "{maintenance:?}, by delete {by_delete}: {passed} skipped");
    assert_eq!((index.get("ready").count(), index.count_prefix("ready").unwrap()), (0, 0));
    let mut seen = 0;
    assert_eq!(index.get_with("ready", |_, _| seen += 1).unwrap(), 0);
    // A job that comes back is found.
    keyspace.put("00000007", "ready ").unwrap();
    assert_eq!(index.get("ready").next().unwrap().unwrap().primary_key(), b"00000007");
    assert_eq!(index.get_with("ready", |_, _| seen += 1).unwrap(), 1);
    assert_eq!(seen, 1);
    assert!(index.verify().unwrap().is_right());
}

/// Vacancies stay exact: for old and new states, with writes concurrent to a scan.
pub(super) fn vacancies_are_exact() {
    (0..24).for_each(vacancies_with);
}

fn vacancies_with(seed: u64) {
    type Map = std::collections::BTreeMap<String, String>;
    const KEYS: usize = 240;
    let mut random = fastrand::Rng::with_seed(seed);
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).memory_budget(8 << 20).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", first_word()).unwrap();
    let key = |number: usize| format!("{number:04}");
    let mut map = Map::new();
    // Readers that were opened earlier, with the rows of that time.
    let mut cursors: Vec<(sapwood::Cursor, Map)> = Vec::new();
    let mut snapshots: Vec<(sapwood::Snapshot, Map)> = Vec::new();
    for step in 0..400u32 {
        let (low, many) = (random.usize(..KEYS), random.usize(1..120));
        match random.u8(..12) {
            0..=2 => {
                for number in low..(low + many).min(KEYS) {
                    keyspace.delete(key(number)).unwrap();
                    map.remove(&key(number));
                }
            }
            3..=5 => {
                let value = format!("{} {step}", random.u8(..3));
                keyspace.put(key(low), &value).unwrap();
                map.insert(key(low), value);
            }
            6 => {
                let mut batch = db.batch();
                for number in (low..(low + many).min(KEYS)).step_by(random.usize(1..20)) {
                    let value = format!("{} {step}", random.u8(..3));
                    batch.put(&keyspace, key(number), &value);
                    map.insert(key(number), value);
                }
                let _ = batch.commit().unwrap();
            }
            7 if cursors.len() < 4 => cursors.push((keyspace.cursor().unwrap(), map.clone())),
            8 if snapshots.len() < 3 => snapshots.push((db.snapshot(), map.clone())),
            9 if random.u8(..8) == 0 => db.flush().unwrap(),
            9 if random.u8(..20) == 0 => db.compact().unwrap(),
            10 if !snapshots.is_empty() && random.u8(..4) == 0 => drop(snapshots.swap_remove(0)),
            _ => {}
        }
        let range = key(low)..key((low + many * 2).min(KEYS));
        let (cursor, of_then);
        let (iter, rows) = match random.u8(..4) {
            0 if !snapshots.is_empty() => {
                let (snapshot, rows) = random.choice(&snapshots).unwrap();
                (keyspace.range(range.clone()).at(snapshot), rows)
            }
            1 if !cursors.is_empty() => {
                (cursor, of_then) = cursors.swap_remove(random.usize(..cursors.len()));
                walk(cursor, &of_then, &key(low), random.bool());
                continue;
            }
            _ => (keyspace.range(range.clone()), &map),
        };
        let iter = if random.bool() { iter.rev() } else { iter };
        let mut got: Vec<_> = iter
            .map(|entry| {
                let (key, value) = entry.unwrap().into_parts();
                (key, value.to_vec())
            })
            .collect();
        got.sort();
        let want: Vec<_> = rows
            .range(range)
            .map(|(key, value)| (key.clone().into_bytes(), value.clone().into_bytes()))
            .collect();
        assert_eq!(got, want, "seed {seed}, step {step}");
        if step % 8 == 0 {
            let word = random.u8(..3).to_string();
            let hits = index.get(&word);
            let hits = if random.bool() { hits.rev() } else { hits };
            let mut got: Vec<_> = hits.map(|hit| hit.unwrap().primary_key().to_vec()).collect();
            got.sort();
            let of_word = map.iter().filter(|(_, value)| value.starts_with(&word));
            let want: Vec<_> = of_word.map(|(key, _)| key.clone().into_bytes()).collect();
            assert_eq!(got, want, "seed {seed}, step {step}: index");
            assert_eq!(index.get_with(&word, |_, _| ()).unwrap(), want.len() as u64);
        }
    }
    assert!(index.verify().unwrap().is_right());
}

/// A cursor with an old state meets a vacancy that was announced later. A row in between, visible
/// to a snapshot, existed in it.
pub(super) fn vacancies_grow_over_what_was_watched() {
    for is_watched_later in [false, true] {
        let (env, _) = Env::sim(1);
        let db = builder("/db", &env).memory_budget(8 << 20).open().unwrap();
        let keyspace = db.default_keyspace();
        let key = |number: usize| format!("{number:04}");
        let delete = |numbers: std::ops::Range<usize>| {
            numbers.for_each(|number| keyspace.delete(key(number)).unwrap());
        };
        let first = || keyspace.iter().next().unwrap().unwrap().into_key();
        (0..100).for_each(|number| keyspace.put(key(number), "1").unwrap());
        delete(0..20);
        // One scan announces, one watches: [.., 20) is known to be vacant, and the range after it
        // is watched, up to a put.
        assert_eq!((first(), first()), (key(20).into_bytes(), key(20).into_bytes()));
        keyspace.put(key(22), "2").unwrap();
        delete(20..22);
        assert_eq!(first(), key(22).into_bytes());
        delete(22..26);
        let mut old = keyspace.cursor().unwrap();
        keyspace.put("0024+", "1").unwrap();
        let between = db.snapshot();
        keyspace.delete("0024+").unwrap();
        delete(26..46);
        // Announces [22, 46).
        assert_eq!(first(), key(46).into_bytes());
        if is_watched_later {
            drop(keyspace.cursor().unwrap());
        }
        old.seek_to_first().unwrap();
        assert_eq!(old.key(), key(26).as_bytes());
        let seen = keyspace.iter().at(&between).next().unwrap().unwrap().into_key();
        assert_eq!(seen.escape_ascii().to_string(), "0024+", "watched later: {is_watched_later}");
        assert_eq!(first(), key(46).into_bytes());
    }
}

/// Moves a cursor from `from` to the end, or backwards to the beginning.
fn walk(
    mut cursor: sapwood::Cursor,
    rows: &std::collections::BTreeMap<String, String>,
    from: &str,
    forward: bool,
) {
    let mut got = Vec::new();
    if forward {
        cursor.seek(from).unwrap()
    } else {
        cursor.seek_before(from).unwrap()
    }
    while cursor.valid() {
        got.push((cursor.key().to_vec(), cursor.value().to_vec()));
        if forward { cursor.next().unwrap() } else { cursor.prev().unwrap() }
    }
    got.sort();
    let is_inside = |key: &str| (key >= from) == forward;
    let want: Vec<_> = rows.iter().filter(|(key, _)| is_inside(key)).collect();
    let want: Vec<_> =
        want.into_iter().map(|(key, value)| (key.clone().into_bytes(), value.clone().into_bytes())).collect();
    assert_eq!(got, want, "a cursor, forward {forward}");
}

/// A key with very many versions does not slow scans of its neighbours, in any state.
pub(super) fn a_hot_key_is_one_step() {
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).memory_budget(64 << 20).open().unwrap();
    let keyspace = db.default_keyspace();
    keyspace.put("a", "1").unwrap();
    keyspace.put("z", "1").unwrap();
    let before = db.snapshot();
    let mut middle = None;
    for version in 0..5000u32 {
        keyspace.put("hot", version.to_le_bytes()).unwrap();
        if version == 1000 {
            middle = Some(db.snapshot());
        }
    }
    let middle = middle.unwrap();
    for (snapshot, rows) in [(&before, 2), (&middle, 3), (&db.snapshot(), 3)] {
        for iter in [keyspace.iter(), keyspace.iter().rev(), keyspace.prefix("h"), keyspace.prefix("i").rev()]
        {
            let explain = iter.at(snapshot).explain().unwrap();
            assert!(explain.entries <= rows && explain.passed_versions <= FEW, "{explain}");
        }
        assert_eq!(keyspace.iter().at(snapshot).count() as u64, rows);
        assert_eq!(keyspace.iter().at(snapshot).rev().count() as u64, rows);
    }
    assert_eq!(keyspace.get_at("hot", &before).unwrap(), None);
    assert_eq!(&keyspace.get_at("hot", &middle).unwrap().unwrap()[..], 1000u32.to_le_bytes());
    // The same key, pushed and popped from the end repeatedly.
    let mut passed = 0;
    for round in 0..2000u32 {
        keyspace.put("zz", round.to_le_bytes()).unwrap();
        passed += keyspace.iter().rev().limit(1).explain().unwrap().passed_versions;
        assert_eq!(keyspace.iter().next_back().unwrap().unwrap().key(), b"zz");
        keyspace.delete("zz").unwrap();
    }
    assert!(passed <= 2000 * FEW, "{passed}");
}

/// A scan reads its sequence number after it has loaded its view. If memtables rotate and rows are
/// deleted in between, the scan returns the earlier state, even where a range is known to be vacant
/// by now.
pub(super) fn late_sequence() {
    const SCHEDULES: u64 = 60;
    for seed in 0..SCHEDULES {
        let (env, _fs, schedule) = Env::sim_scheduled(seed);
        let outcome = schedule.run(move || scan_beside_deletions(&env));
        outcome.unwrap_or_else(|what| panic!("schedule {seed}: {what}"));
    }
}

fn scan_beside_deletions(env: &Env) {
    const ROWS: u32 = 40;
    const ROUNDS: u32 = 5;
    let db = builder("db", env).open().expect("opened");
    let rows = db.default_keyspace();
    let done = Arc::new(AtomicBool::new(false));
    let key = |group: char, number: u32| format!("{group}{number:02}");
    let writer = {
        let (db, rows, done) = (db.clone(), rows.clone(), done.clone());
        let body = move || {
            for _ in 0..ROUNDS {
                let mut batch = db.batch();
                for number in 0..ROWS {
                    batch.put(&rows, key('a', number), "value").put(&rows, key('b', number), "value");
                }
                batch.commit().expect("written");
                db.flush().expect("flushed");
                let mut batch = db.batch();
                for number in 0..ROWS {
                    batch.delete(&rows, key('a', number)).delete(&rows, key('b', number));
                }
                batch.commit().expect("written");
                // So that one half is known to be vacant.
                for _ in 0..3 {
                    assert_eq!(rows.range("a".."b").count(), 0);
                }
            }
            done.store(true, Ordering::Release);
        };
        env.spawn("writer", ThreadClass::Latency, body).expect("a thread")
    };
    let scanners = [false, true].map(|backwards| {
        let (rows, done) = (rows.clone(), done.clone());
        let body = move || {
            while !done.load(Ordering::Acquire) {
                let scan = rows.range("a".."c");
                let scan = if backwards { scan.rev() } else { scan };
                let found: Vec<u8> = scan.map(|row| row.expect("read").key()[0]).collect();
                let of = |group: u8| found.iter().filter(|key| **key == group).count();
                assert_eq!(of(b'a'), of(b'b'), "backwards {backwards}: half of a batch is visible");
            }
        };
        env.spawn("scanner", ThreadClass::Latency, body).expect("a thread")
    });
    writer.join().expect("written");
    scanners.into_iter().for_each(|scanner| scanner.join().expect("scanned"));
    db.close().expect("closed");
}
