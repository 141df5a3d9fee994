//! After a close every handle returns `Closed`, and every reader returns its rows or `Closed`:
//! never other rows, a panic, a hang, or a reopened file.
#![allow(clippy::disallowed_methods, reason = "looks at the descriptors of this process")]
use sapwood::{
    Builtin, Cursor, Db, DbBuilder, ErrorKind, Field, Hit, Index, IndexCursor, IndexOptions, KeyKind,
    Keyspace, KeyspaceOptions, Result,
};
use sapwood_tests::harness::{builder, within};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
/// In tables of about nine rows each; the last writes of `written` are in the memtable.
const ROWS: u32 = 160;
const VALUE_BYTES: usize = 400;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(row: u32) -> Vec<u8> {
    row.to_be_bytes().to_vec()
}

/// Its index key is the first byte and the row: in the order of the rows within each first byte.
fn value(row: u32, round: u8) -> Vec<u8> {
    let mut value = vec![(row % 3) as u8];
    value.extend_from_slice(&row.to_be_bytes());
    // Not compressible, so that tables end at the expected rows.
    let mut random = fastrand::Rng::with_seed(u64::from(row) << 8 | u64::from(round));
    value.extend(std::iter::repeat_with(|| random.u8(..)).take(VALUE_BYTES));
    value
}

fn options() -> IndexOptions {
    let covering = Field::value().range(1, 4);
    IndexOptions::builtin(Builtin::new(Field::value().range(0, 5), KeyKind::Bytes).covering(covering))
}

/// The parameters: the limit of open files, the mode, and the end of the database.
#[derive(Clone, Copy, Debug)]
struct Case {
    most: Option<usize>,
    read_only: bool,
    by_drop: bool,
}

impl Case {
    const ALL: [Case; 5] = [
        Case { most: Some(1), read_only: false, by_drop: false },
        Case { most: Some(1), read_only: true, by_drop: true },
        Case { most: None, read_only: false, by_drop: false },
        Case { most: None, read_only: false, by_drop: true },
        Case { most: Some(4), read_only: true, by_drop: false },
    ];

    fn builder(self, path: &Path) -> DbBuilder {
        builder(path, &sapwood::Env::os())
            .read_only(self.read_only)
            .index("default", "i", options())
            .advanced(|advanced| {
                advanced.target_file_bytes = 4 << 10;
                advanced.max_open_files = self.most;
                advanced.idle_compaction = false;
                advanced.disable_auto_compactions = true;
            })
    }
}

/// Writes the rows: most are in tables of the last level, some above them in level 0, the rest in
/// the log.
fn written(path: &Path) -> Rows {
    let db = Case { most: None, read_only: false, by_drop: false }.builder(path).open().unwrap();
    let keyspace = db.default_keyspace();
    let mut rows = Rows::new();
    let mut put = |row: u32, round: u8| {
        keyspace.put(key(row), value(row, round)).unwrap();
        rows.insert(key(row), value(row, round));
    };
    (0..ROWS).for_each(|row| put(row, 0));
    db.compact().unwrap();
    (0..ROWS).step_by(13).for_each(|row| put(row, 1));
    db.flush().unwrap();
    db.close().unwrap();
    rows
}

/// Descriptors of this process for files in a folder.
fn open_files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return 0 };
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(folder)).count()
}

fn is_closed<T>(what: &str, result: Result<T>) {
    match result {
        Ok(_) => panic!("{what} works after the close"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}"),
    }
}

/// The right result, or `Closed`.
fn right_or_closed<T: PartialEq + std::fmt::Debug>(what: &str, got: Result<T>, want: &T) -> bool {
    match got {
        Ok(got) => {
            assert!(got == *want, "{what}: {got:?} after the close, not {want:?}");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}");
            false
        }
    }
}

fn entries(rows: &Rows) -> Vec<(Vec<u8>, Vec<u8>)> {
    rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Hits in the order of the index: index key and primary key.
fn hits(rows: &Rows) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut hits: Vec<_> = rows.iter().map(|(key, value)| (value[..5].to_vec(), key.clone())).collect();
    hits.sort();
    hits
}

/// The rest of a scan must be the rest of `want`, up to an error; after an error the scan has
/// ended.
fn rest_of<T: PartialEq + std::fmt::Debug>(
    what: &str,
    mut scan: impl Iterator<Item = Result<T>>,
    want: &[T],
) -> usize {
    let mut want = want.iter();
    let mut count = 0;
    loop {
        match (scan.next(), want.next()) {
            (Some(Ok(got)), Some(want)) => assert!(got == *want, "{what}: {got:?}, not {want:?}"),
            (None, None) => return count,
            (Some(Err(error)), _) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}");
                assert!(scan.next().is_none(), "{what} continues after its error");
                return count;
            }
            (got, want) => panic!("{what}: {got:?}, not {want:?}"),
        }
        count += 1;
    }
}

/// Moves a cursor at random, and compares its position.
fn wander(what: &str, cursor: &mut Cursor, rows: &Rows, random: &mut fastrand::Rng) {
    let all = entries(rows);
    for _ in 0..6 {
        let target = random.u32(..ROWS);
        let was_at = cursor.valid().then(|| {
            let at = all.binary_search_by(|(key, _)| key.as_slice().cmp(cursor.key()));
            at.expect("it is at a row")
        });
        let (moved, want) = match (random.u8(..6), was_at) {
            (0, _) => (cursor.seek_to_first(), Some(0)),
            (1, _) => (cursor.seek_to_last(), Some(all.len() - 1)),
            (2, _) => (cursor.seek(key(target)), Some(target as usize)),
            (3, _) => (cursor.seek_for_prev(key(target)), Some(target as usize)),
            (4, Some(at)) => (cursor.prev(), at.checked_sub(1)),
            (5, Some(at)) => (cursor.next(), Some(at + 1).filter(|at| *at < all.len())),
            _ => continue,
        };
        match moved {
            Ok(()) => {
                let got = cursor.valid().then(|| (cursor.key().to_vec(), cursor.value().to_vec()));
                assert!(got.as_ref() == want.map(|at| &all[at]), "{what} is at {got:?}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}");
                assert!(!cursor.valid(), "{what} has a position after an error");
            }
        }
    }
}

fn wander_in_index(what: &str, cursor: &mut IndexCursor, rows: &Rows, random: &mut fastrand::Rng) {
    let all = hits(rows);
    let mut at: Option<usize> = None;
    for _ in 0..6 {
        let target = random.usize(..all.len());
        let (moved, want) = match (random.u8(..6), at) {
            (0, _) => (cursor.seek_to_first(), Some(0)),
            (1, _) => (cursor.seek_to_last(), Some(all.len() - 1)),
            (2, _) => (cursor.seek(&all[target].0), Some(target)),
            (3, _) => (cursor.seek_for_prev(&all[target].0), Some(target)),
            (4, Some(at)) => (cursor.prev(), at.checked_sub(1)),
            (5, Some(at)) => (cursor.next(), Some(at + 1).filter(|at| *at < all.len())),
            _ => continue,
        };
        at = match moved {
            Ok(()) => {
                let got = cursor
                    .valid()
                    .then(|| (cursor.index_key().map(|key| key.to_vec()), cursor.primary_key().to_vec()));
                match (got, want.map(|at| &all[at])) {
                    (None, None) => {}
                    (Some((Ok(index_key), primary)), Some(want)) => {
                        assert!((&index_key, &primary) == (&want.0, &want.1), "{what}: {primary:?}");
                    }
                    (Some((Err(error), _)), _) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
                    (got, want) => panic!("{what} is at {got:?}, not {want:?}"),
                }
                want
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}");
                assert!(!cursor.valid(), "{what} has a position after an error");
                None
            }
        };
    }
}

/// Readers of every kind, positioned after each row, so at every border of a table as well. Some
/// are before the first row, when no table was opened yet.
fn readers(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("db");
    let mut rows = written(&path);
    let db = case.builder(&path).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.index("i").unwrap();
    if !case.read_only {
        for row in (0..ROWS).step_by(29) {
            keyspace.put(key(row), value(row, 2)).unwrap();
            rows.insert(key(row), value(row, 2));
        }
    }
    let (all, all_hits) = (entries(&rows), hits(&rows));
    let backward = |all: &[(Vec<u8>, Vec<u8>)]| -> Vec<_> { all.iter().rev().cloned().collect() };
    let (all_back, all_hits_back) = (backward(&all), backward(&all_hits));
    let keys_only: Vec<_> = all.iter().map(|(key, _)| (key.clone(), Vec::<u8>::new())).collect();

    let untouched = (0..4).map(|_| (keyspace.iter(), keyspace.cursor().unwrap(), index.iter()));
    let untouched: Vec<_> = untouched.collect();
    let snapshot = db.snapshot();
    let mut scans = Vec::new();
    let mut cursors = Vec::new();
    let mut index_scans = Vec::new();
    let mut index_cursors = Vec::new();
    let mut last_hits: Vec<Hit> = Vec::new();
    let mut last_slices = Vec::new();
    for at in 0..all.len() {
        for back in [false, true] {
            let mut scan = if back { keyspace.iter().rev() } else { keyspace.iter() };
            scan.by_ref().take(at).for_each(|entry| last_slices.push(entry.unwrap().into_parts()));
            last_slices.truncate(64);
            scans.push((at, back, scan));
            let mut scan = if back { index.iter().rev() } else { index.iter() };
            last_hits.extend(scan.by_ref().take(at).map(|hit| hit.unwrap()).last());
            index_scans.push((at, back, scan));
        }
        let mut cursor = keyspace.cursor().unwrap();
        cursor.seek(&all[at].0).unwrap();
        cursors.push(cursor);
        let mut cursor = index.cursor::<&[u8]>(..).unwrap();
        cursor.seek(&all_hits[at].0).unwrap();
        index_cursors.push(cursor);
    }
    let mut keys = keyspace.iter().keys_only();
    assert_eq!(keys.by_ref().take(20).filter(|entry| entry.is_ok()).count(), 20);
    let pinned = keyspace.get(key(5)).unwrap().unwrap();
    match case.by_drop {
        true => drop((db, keyspace, index)),
        false => {
            db.close().unwrap();
            handles(&db, &keyspace, &index, &snapshot);
        }
    }

    let after = open_files(&path);
    let no_more_files = |what: &str| {
        let now = open_files(&path);
        assert!(now <= after, "{what} opened files of a closed database: {now} are open, {after} were");
    };
    let mut random = fastrand::Rng::with_seed(7);
    let pairs = |entry: Result<sapwood::Entry>| {
        entry.map(|entry| {
            let (key, value) = entry.into_parts();
            (key, value.to_vec())
        })
    };
    let hit_pair = |hit: Result<Hit>| hit.map(|hit| (hit.index_key().to_vec(), hit.primary_key().to_vec()));
    for (mut scan, mut cursor, mut hits) in untouched {
        rest_of("an unstarted scan", scan.by_ref().map(pairs), &all);
        wander("an unmoved cursor", &mut cursor, &rows, &mut random);
        rest_of("an unstarted index scan", hits.by_ref().map(hit_pair), &all_hits);
        no_more_files("readers without a read");
    }
    let mut went_on = 0;
    for (at, back, scan) in scans {
        let want = if back { &all_back } else { &all };
        went_on += rest_of("a scan", scan.map(pairs), &want[at..]);
    }
    no_more_files("scans");
    assert!(went_on > 0, "some have the next row of their block");
    for (at, back, scan) in index_scans {
        let want = if back { &all_hits_back } else { &all_hits };
        rest_of("an index scan", scan.map(hit_pair), &want[at..]);
    }
    no_more_files("index scans");
    for mut cursor in cursors {
        assert!(cursor.valid(), "its position does not change");
        assert_eq!(cursor.value(), rows[cursor.key()], "nor does its row");
        wander("a cursor", &mut cursor, &rows, &mut random);
    }
    no_more_files("cursors");
    for mut cursor in index_cursors {
        assert!(cursor.valid() && rows.contains_key(cursor.primary_key()), "nor does an entry of an index");
        assert_eq!(cursor.covering(), cursor.primary_key(), "with its covering bytes");
        wander_in_index("an index cursor", &mut cursor, &rows, &mut random);
    }
    no_more_files("index cursors");
    for hit in last_hits {
        let record = hit.record().map(|record| record.to_vec());
        right_or_closed("the row of a hit", record, &rows[hit.primary_key()]);
    }
    no_more_files("rows of hits");
    let keys = keys.map(|entry| entry.map(|entry| (entry.key().to_vec(), Vec::new())));
    rest_of("a scan of keys", keys, &keys_only[20..]);
    no_more_files("scans of keys");
    for (key, value) in last_slices {
        assert_eq!(value, rows[&key], "a slice changes with the close");
    }
    assert_eq!(pinned, rows[&key(5)]);
    no_more_files("slices");
    // The next open is unaffected by this one.
    let again = case.builder(&path).open().unwrap();
    assert_eq!(again.default_keyspace().iter().count(), rows.len());
    again.close().unwrap();
}

/// Every call of every handle.
fn handles(db: &Db, keyspace: &Keyspace, index: &Index, snapshot: &sapwood::Snapshot) {
    let some = key(3);
    is_closed("Db::keyspace", db.keyspace("default", KeyspaceOptions::default()));
    is_closed("Db::keyspace", db.keyspace("new", KeyspaceOptions::default()));
    is_closed("Db::list_keyspaces", db.list_keyspaces());
    is_closed("Db::drop_keyspace", db.drop_keyspace("default"));
    is_closed("Db::sync", db.sync());
    is_closed("Db::flush", db.flush());
    is_closed("Db::compact", db.compact());
    is_closed("Db::compact_range", db.compact_range::<&[u8]>(..));
    is_closed("Db::wait_for_background", db.wait_for_background());
    is_closed("Db::settle", db.settle());
    is_closed("Db::pause_guard", db.pause_guard());
    is_closed("Db::pause_background", db.pause_background());
    db.resume_background();
    let (_, _, _) = (db.stats(), db.memory(), db.health());
    assert!(db.path().ends_with("db"));
    is_closed("Keyspace::put", keyspace.put(&some, "new"));
    is_closed("Keyspace::delete", keyspace.delete(&some));
    is_closed("Keyspace::get", keyspace.get(&some));
    is_closed("Keyspace::get_at", keyspace.get_at(&some, snapshot));
    is_closed("Keyspace::get_with", keyspace.get_with(&some, |_| ()));
    is_closed("Keyspace::contains", keyspace.contains(&some));
    is_closed("Keyspace::explain_get", keyspace.explain_get(&some));
    is_closed("Keyspace::explain_get_at", keyspace.explain_get_at(&some, snapshot));
    is_closed("Keyspace::multi_get", keyspace.multi_get(&[&some, &some]));
    is_closed("Keyspace::multi_get", keyspace.multi_get(&[&some; 100]));
    is_closed("Keyspace::create_index", keyspace.create_index("j", options()));
    is_closed("Keyspace::create_index", keyspace.create_index("i", options()));
    is_closed("Keyspace::index", keyspace.index("i"));
    is_closed("Keyspace::list_indexes", keyspace.list_indexes());
    is_closed("Keyspace::drop_index", keyspace.drop_index("i"));
    is_closed("Keyspace::cursor", keyspace.cursor());
    is_closed("Keyspace::cursor_at", keyspace.cursor_at(snapshot));
    is_closed("Keyspace::compact", keyspace.compact());
    is_closed("Keyspace::compact_range", keyspace.compact_range::<&[u8]>(..));
    is_closed("Keyspace::approximate_bytes", keyspace.approximate_bytes());
    is_closed("Keyspace::approximate_size", keyspace.approximate_size::<&[u8]>(..));
    for (what, mut iter) in [
        ("Keyspace::iter", keyspace.iter()),
        ("Keyspace::range", keyspace.range([0]..)),
        ("Keyspace::prefix", keyspace.prefix([0])),
        ("Iter::at", keyspace.iter().at(snapshot)),
        ("Iter::rev", keyspace.iter().rev()),
    ] {
        is_closed(what, iter.next().expect("an error"));
        assert!(iter.next().is_none(), "{what} continues after its error");
    }
    is_closed("Iter::explain", keyspace.iter().explain());
    assert_eq!((keyspace.name(), index.name()), ("default", "i"));
    for (what, mut iter) in [
        ("Index::iter", index.iter()),
        ("Index::get", index.get([0])),
        ("Index::range", index.range([0]..)),
        ("Index::prefix", index.prefix([0])),
        ("IndexIter::at", index.iter().at(snapshot)),
        ("IndexIter::rev", index.iter().rev()),
    ] {
        is_closed(what, iter.next().expect("an error"));
        assert!(iter.next().is_none(), "{what} continues after its error");
    }
    is_closed("IndexIter::explain", index.iter().explain());
    is_closed("Index::get_with", index.get_with([0], |_, _| ()));
    is_closed("Index::cursor", index.cursor::<&[u8]>(..));
    is_closed("Index::cursor_at", index.cursor_at::<&[u8]>(.., snapshot));
    is_closed("Index::count", index.count::<&[u8]>(..));
    is_closed("Index::count_all", index.count_all());
    is_closed("Index::count_at", index.count_at::<&[u8]>(.., snapshot));
    is_closed("Index::count_prefix", index.count_prefix([0]));
    is_closed("Index::rank", index.rank([0]));
    is_closed("Index::nth", index.nth(1));
    is_closed("Index::rebuild", index.rebuild());
    is_closed("Index::verify", index.verify());
    let _ = (index.progress(), index.is_attached(), index.definition());
    let mut batch = db.batch();
    batch.put(keyspace, &some, "new");
    is_closed("WriteBatch::commit", batch.commit());
    is_closed("WriteBatch::commit_durable", batch.commit_durable(sapwood::Durability::Sync));
    is_closed("an empty WriteBatch::commit", db.batch().commit());
    // A second close has no effect.
    db.close().unwrap();
}

#[test]
fn readers_give_their_rows_or_say_closed_and_open_no_file() {
    for case in Case::ALL {
        within(LIMIT, "readers after a close", move || readers(case));
    }
}

#[test]
fn a_batch_and_a_commit_of_before_the_close_are_refused_or_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = Case::ALL[2].builder(&path);
    let db = db.create_if_missing(true).open().unwrap();
    let keyspace = db.default_keyspace();
    let mut done = db.batch();
    done.put(&keyspace, "a", value(1, 0));
    let done = done.commit().unwrap();
    let mut late = db.batch();
    late.put(&keyspace, "b", value(2, 0));
    db.close().unwrap();
    // The close has made it durable.
    done.wait_durable().unwrap();
    is_closed("a batch of before", late.commit());
    drop((db, keyspace, late));
    let db = Case::ALL[2].builder(&path).open().unwrap();
    let keys: Vec<_> = db.default_keyspace().iter().map(|entry| entry.unwrap().into_key()).collect();
    assert_eq!(keys, [b"a"]);
}
