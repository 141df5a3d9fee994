//! Secondary indexes compared with a model: under any sequence of operations, an index agrees with
//! its rows.
use sapwood::{
    BackgroundStep, Builtin, Db, Durability, Emit, Env, ErrorKind, Field, Index, IndexOptions, KeyKind,
    Keyspace, KeyspaceOptions, Maintenance, Snapshot, WriteOptions,
};
use sapwood_storage::sim::SimFs;
use sapwood_tests::harness::{Replay, builder, eventually, plant, seeds};
use sapwood_tests::oracle::{Bytes, Map};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An entry: index key, primary key, covering bytes.
type Entry = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Every word of a value is a key; the covering byte is the length of the value.
fn words(_key: &[u8], value: &[u8], emit: &mut Emit<'_>) {
    for word in value.split(|byte| *byte == b' ').filter(|word| !word.is_empty()) {
        emit.entry(word, [value.len() as u8]);
    }
}

/// The expected entries of `words` for these rows.
fn words_of(rows: &Map) -> BTreeSet<Entry> {
    let entries = |(key, value): (&Vec<u8>, &Bytes)| {
        let (key, covering) = (key.clone(), vec![value.len() as u8]);
        let words = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        words.map(|word| (word.to_vec(), key.clone(), covering.clone())).collect::<Vec<Entry>>()
    };
    rows.iter().flat_map(entries).collect()
}

/// The expected entries of an index on the first word.
fn first_words_of(rows: &Map) -> BTreeSet<Entry> {
    let first = |value: &[u8]| value.split(|byte| *byte == b' ').next().map(<[u8]>::to_vec);
    rows.iter().filter_map(|(key, value)| Some((first(value)?, key.clone(), Vec::new()))).collect()
}

fn first_word() -> Builtin {
    Builtin::new(Field::value().separated(b' ', 0), KeyKind::Bytes)
}

/// Compares an index with its expected entries, by every kind of query.
fn check(index: &Index, expected: &BTreeSet<Entry>, at: Option<&Snapshot>, random: &mut fastrand::Rng) {
    let collect = |iter: sapwood::IndexIter| -> Vec<Entry> {
        let iter = if let Some(at) = at { iter.at(at) } else { iter };
        iter.map(|hit| {
            let hit = hit.unwrap();
            hit.record().unwrap();
            (hit.index_key().to_vec(), hit.primary_key().to_vec(), hit.covering().to_vec())
        })
        .collect()
    };
    let expected: Vec<Entry> = expected.iter().cloned().collect();
    let name = index.name();
    assert_eq!(collect(index.iter()), expected, "{name} forwards");
    let mut backward = collect(index.iter().rev());
    backward.reverse();
    assert_eq!(backward, expected, "{name} backwards");
    for _ in 0..3 {
        let mut word = || vec![random.u8(b'a'..b'f'); random.usize(0..3)];
        let (low, high) = (word(), word());
        let within = |keep: &dyn Fn(&[u8]) -> bool| -> Vec<Entry> {
            expected.iter().filter(|(key, ..)| keep(key)).cloned().collect()
        };
        assert_eq!(collect(index.get(&low)), within(&|key| key == low), "{name} get {low:?}");
        assert_eq!(
            collect(index.prefix(&low)),
            within(&|key| key.starts_with(&low)),
            "{name} prefix {low:?}"
        );
        let between = within(&|key| key >= low.as_slice() && key < high.as_slice());
        assert_eq!(
            collect(index.range(low.as_slice()..high.as_slice())),
            between,
            "{name} {low:?}..{high:?}"
        );
        // From both ends, in any order of them: each entry comes once, up to the limit.
        let (reversed, limit) = (random.bool(), random.usize(0..between.len() + 3));
        let mut iter = index.range(low.as_slice()..high.as_slice()).limit(limit);
        iter = if let Some(at) = at { iter.at(at) } else { iter };
        iter = if reversed { iter.rev() } else { iter };
        let mut left = std::collections::VecDeque::from(between.clone());
        for taken in 0.. {
            let is_first = random.bool();
            let hit = if is_first { iter.next() } else { iter.next_back() };
            let wanted = match is_first == reversed {
                _ if taken == limit => None,
                true => left.pop_back(),
                false => left.pop_front(),
            };
            let hit = hit.map(|hit| hit.unwrap());
            let found = hit
                .map(|hit| (hit.index_key().to_vec(), hit.primary_key().to_vec(), hit.covering().to_vec()));
            assert_eq!(found, wanted, "{name} {low:?}..{high:?} from both ends");
            if wanted.is_none() {
                break;
            }
        }
        let count = match at {
            Some(at) => index.count_at(low.as_slice()..high.as_slice(), at).unwrap(),
            None => index.count(low.as_slice()..high.as_slice()).unwrap(),
        };
        assert_eq!(count, between.len() as u64, "{name} count {low:?}..{high:?}");
        if at.is_none() {
            let mut rows = Vec::new();
            let count = index
                .get_with(&low, |key, value| {
                    assert_eq!(index.keyspace().get(key).unwrap().as_deref(), Some(value));
                    rows.push(key.to_vec());
                })
                .unwrap();
            let wanted: Vec<_> =
                within(&|key| key == low).into_iter().map(|(_, primary, _)| primary).collect();
            assert_eq!((count, rows), (wanted.len() as u64, wanted), "{name} get_with {low:?}");
            let below = within(&|key| key < low.as_slice()).len() as u64;
            assert_eq!(index.rank(&low).unwrap(), below, "{name} rank {low:?}");
            let n = random.usize(0..expected.len() + 2);
            let hit = index.nth(n as u64).unwrap();
            let hit = hit
                .map(|hit| (hit.index_key().to_vec(), hit.primary_key().to_vec(), hit.covering().to_vec()));
            assert_eq!(hit.as_ref(), expected.get(n), "{name} nth {n}");
        }
    }
}

struct Run {
    env: Env,
    fs: SimFs,
    random: fastrand::Rng,
    /// Always set, except during a reopening.
    db: Option<Db>,
    rows: Map,
    snapshots: Vec<(Snapshot, Map)>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let (env, fs) = Env::sim_manual(seed);
        let db = Some(builder("db", &env).open().unwrap());
        let random = fastrand::Rng::with_seed(seed);
        let run = Run { env, fs, random, db, rows: Map::new(), snapshots: Vec::new() };
        run.attach();
        run
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn keyspace(&self) -> Keyspace {
        self.db().keyspace("rows", KeyspaceOptions::default()).unwrap()
    }

    fn attach(&self) {
        let keyspace = self.keyspace();
        keyspace.create_index("words", IndexOptions::new(words)).unwrap();
        let strict = IndexOptions::new(words).maintenance(Maintenance::Strict);
        keyspace.create_index("strict", strict).unwrap();
        keyspace.create_index("first", IndexOptions::builtin(first_word())).unwrap();
    }

    fn key(&mut self) -> Vec<u8> {
        format!("{:03}", self.random.u32(0..150)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        let words = self.random.usize(0..4);
        let mut value = Vec::new();
        for _ in 0..words {
            value.extend(vec![self.random.u8(b'a'..b'f'); self.random.usize(0..3)]);
            value.push(b' ');
        }
        if self.random.u8(..) == 0 {
            // Bytes that are escaped in entries.
            value.extend([0, 1, 255]);
        }
        value
    }

    fn check(&mut self) {
        let keyspace = self.keyspace();
        let [words, strict, first] = ["words", "strict", "first"].map(|name| keyspace.index(name).unwrap());
        for index in [&words, &strict] {
            check(index, &words_of(&self.rows), None, &mut self.random);
        }
        check(&first, &first_words_of(&self.rows), None, &mut self.random);
        for (snapshot, rows) in &self.snapshots {
            check(&words, &words_of(rows), Some(snapshot), &mut self.random);
            check(&strict, &words_of(rows), Some(snapshot), &mut self.random);
            check(&first, &first_words_of(rows), Some(snapshot), &mut self.random);
        }
    }

    fn step(&mut self) {
        let keyspace = self.keyspace();
        match self.random.u32(0..1000) {
            0..500 => {
                let (key, value) = (self.key(), self.value());
                keyspace.put(&key, &value).unwrap();
                self.rows.insert(key, value.into());
            }
            500..600 => {
                let key = self.key();
                keyspace.delete(&key).unwrap();
                self.rows.remove(&key);
            }
            600..750 => {
                let mut batch = self.db().batch();
                for _ in 0..self.random.u32(1..8) {
                    let key = self.key();
                    if self.random.u32(0..3) == 0 {
                        batch.delete(&keyspace, &key);
                        self.rows.remove(&key);
                    } else {
                        let value = self.value();
                        batch.put(&keyspace, &key, &value);
                        self.rows.insert(key, value.into());
                    }
                }
                drop(batch.commit().unwrap());
            }
            750..780 => {
                if self.snapshots.len() > 2 {
                    let at = self.random.usize(0..self.snapshots.len());
                    self.snapshots.swap_remove(at);
                }
                self.snapshots.push((self.db().snapshot(), self.rows.clone()));
            }
            780..800 => self.snapshots.clear(),
            800..850 => self.db().flush().unwrap(),
            850..860 => self.db().compact().unwrap(),
            860..870 => keyspace.compact_range::<&[u8]>(..).unwrap(),
            870..940 => {
                let step = BackgroundStep::ALL[self.random.usize(0..4)];
                self.db().background_step(step).unwrap();
            }
            940..950 => {
                drop(keyspace);
                self.reopen();
            }
            950..955 => {
                // Earlier snapshots cannot be read.
                self.snapshots.clear();
                let name = ["words", "strict", "first"][self.random.usize(0..3)];
                keyspace.index(name).unwrap().rebuild().unwrap();
            }
            955..960 => {
                self.snapshots.clear();
                keyspace.drop_index("words").unwrap();
                keyspace.create_index("words", IndexOptions::new(words)).unwrap();
            }
            960..965 => {
                let report = keyspace.index("words").unwrap().verify().unwrap();
                assert!(report.is_right(), "{report:?}");
                self.db().check_structure().unwrap();
            }
            _ => self.check(),
        }
    }

    /// A clean end, a kill, or a power loss after a sync of everything.
    fn reopen(&mut self) {
        self.snapshots.clear();
        let db = self.db.take().unwrap();
        let kind = self.random.u8(0..3);
        if kind == 0 {
            db.close().unwrap();
        } else {
            db.sync().unwrap();
            // The remaining calls of the old process must not reach the disk.
            self.fs.crash_at(0);
            let next = if kind == 1 { self.fs.kill() } else { self.fs.crash(self.random.u64(..)) };
            drop(db);
            self.fs = next;
            self.env = self.env.with_file_system(Arc::new(self.fs.clone()));
        }
        self.db = Some(builder("db", &self.env).open().unwrap());
        self.attach();
    }
}

#[test]
fn indexes_say_what_their_rows_say() {
    for seed in seeds(0..6) {
        let _replay = Replay::new(seed, "index::indexes_say_what_their_rows_say");
        let mut run = Run::new(seed);
        for _ in 0..700 {
            run.step();
        }
        run.check();
    }
}

#[test]
fn a_snapshot_sees_the_index_of_its_time() {
    plant();
    let (env, _fs) = Env::sim_manual(3);
    let db = builder("db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("words", IndexOptions::new(words)).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut rows = Map::new();
    let round = |rows: &mut Map, letter: u8| {
        for number in 0..2000u32 {
            let key = format!("{number:06}").into_bytes();
            let value = vec![letter + (number % 3) as u8; 1 + number as usize % 2];
            keyspace.put(&key, &value).unwrap();
            rows.insert(key, value.into());
        }
    };
    round(&mut rows, b'a');
    let (snapshot, before) = (db.snapshot(), rows.clone());
    for letter in [b'b', b'c'] {
        round(&mut rows, letter);
        db.flush().unwrap();
        db.compact().unwrap();
    }
    check(&index, &words_of(&before), Some(&snapshot), &mut random);
    check(&index, &words_of(&rows), None, &mut random);
    drop(snapshot);
    db.compact().unwrap();
    check(&index, &words_of(&rows), None, &mut random);
    db.check_structure().unwrap();
}

#[test]
fn a_unique_index_refuses_a_second_row_with_a_key() {
    plant();
    let (env, _fs) = Env::sim_manual(4);
    let db = builder("db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    keyspace.put("1", "a").unwrap();
    keyspace.put("2", "a").unwrap();
    let unique = || IndexOptions::builtin(first_word()).unique(true);
    let refused = keyspace.create_index("first", unique()).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UniqueViolation);
    assert!(keyspace.list_indexes().unwrap().is_empty());
    keyspace.put("2", "b").unwrap();
    let index = keyspace.create_index("first", unique()).unwrap();
    for round in 0..3 {
        let violates = |result: sapwood::Result<()>| {
            let error = result.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::UniqueViolation, "{error}");
            assert!(error.to_string().contains("first"), "{error}");
        };
        violates(keyspace.put("3", "a"));
        violates(keyspace.put("1", "b other"));
        keyspace.put("1", "a again").unwrap();
        let mut batch = db.batch();
        batch.put(&keyspace, "3", "c").put(&keyspace, "4", "c");
        violates(batch.commit().map(drop));
        batch.clear();
        // The two swap their keys.
        batch.put(&keyspace, "1", "b").put(&keyspace, "2", "a");
        drop(batch.commit().unwrap());
        batch.delete(&keyspace, "2").put(&keyspace, "5", "a");
        drop(batch.commit().unwrap());
        violates(keyspace.put("2", "a"));
        keyspace.delete("5").unwrap();
        keyspace.put("1", "a").unwrap();
        keyspace.put("2", "b").unwrap();
        assert_eq!(index.iter().count(), 2);
        match round {
            0 => db.flush().unwrap(),
            _ => db.compact().unwrap(),
        }
    }
}

#[test]
fn an_index_asks_for_its_extractor_and_notices_another_version() {
    plant();
    let (env, _fs) = Env::sim_manual(5);
    let mut rows = Map::new();
    {
        let db = builder("db", &env).open().unwrap();
        let keyspace = db.default_keyspace();
        keyspace.create_index("words", IndexOptions::new(words)).unwrap();
        keyspace.create_index("first", IndexOptions::builtin(first_word())).unwrap();
        keyspace.put("1", "b a").unwrap();
        rows.insert(b"1".to_vec(), b"b a"[..].into());
        db.close().unwrap();
    }
    let db = builder("db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let refused = keyspace.put("2", "c").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::IndexUnavailable);
    assert!(refused.to_string().contains("create_index"), "{refused}");
    let mut random = fastrand::Rng::with_seed(5);
    // Reads need no extractor.
    check(&keyspace.index("words").unwrap(), &words_of(&rows), None, &mut random);
    let index = keyspace.create_index("words", IndexOptions::new(words)).unwrap();
    keyspace.put("2", "c").unwrap();
    rows.insert(b"2".to_vec(), b"c"[..].into());
    check(&index, &words_of(&rows), None, &mut random);
    check(&keyspace.index("first").unwrap(), &first_words_of(&rows), None, &mut random);
    // Another version of the code.
    let whole = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.key(value);
    let changed = keyspace.create_index("words", IndexOptions::new(whole).version(2)).unwrap();
    let keys: Vec<Vec<u8>> = changed.iter().map(|hit| hit.unwrap().index_key().to_vec()).collect();
    assert_eq!(keys, [b"b a".to_vec(), b"c".to_vec()]);
    assert_eq!(index.count::<&[u8]>(..).unwrap_err().kind(), ErrorKind::Closed);
    keyspace.drop_index("words").unwrap();
    assert_eq!(keyspace.list_indexes().unwrap(), ["first"]);
    assert_eq!(keyspace.drop_index("words").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(db.list_keyspaces().unwrap(), ["default"]);
    // A closed database returns an error instead of an empty list of indexes.
    db.close().unwrap();
    assert_eq!(keyspace.index("first").err().unwrap().kind(), ErrorKind::Closed);
    assert_eq!(keyspace.list_indexes().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(db.list_keyspaces().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn an_index_is_built_while_others_write() {
    plant();
    let folder = tempfile::tempdir().unwrap();
    let db = builder(folder.path().join("db"), &Env::os()).open().unwrap();
    let keyspace = db.default_keyspace();
    let put = |number: u32| {
        let value = format!("{} {}", number % 7, number.wrapping_mul(2_654_435_761) % 1000);
        keyspace.put(format!("{:06}", number % 20_000), value).unwrap();
    };
    (0..20_000).for_each(put);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u32)
            .map(|thread| scope.spawn(move || (0..10_000).for_each(|i| put(20_000 + thread + i * 2))))
            .collect();
        for _ in 0..3 {
            let index = keyspace.create_index("words", IndexOptions::new(words)).unwrap();
            assert!(index.progress().rows > 0);
            let report = index.verify().unwrap();
            assert!(report.is_right(), "{report:?}");
            keyspace.drop_index("words").unwrap();
        }
        keyspace.create_index("words", IndexOptions::new(words)).unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    let index = keyspace.index("words").unwrap();
    let report = index.verify().unwrap();
    assert!(report.is_right() && report.rows == 20_000, "{report:?}");
    db.compact().unwrap();
    assert_eq!(index.verify().unwrap().entries, report.entries);
    assert_eq!(index.count::<&[u8]>(..).unwrap(), report.entries);
}

#[test]
fn what_a_later_commit_has_read_is_not_lost_before_it() {
    plant();
    let (env, fs) = Env::sim_manual(6);
    let without_log = WriteOptions { durability: Some(Durability::None) };
    let strict = || IndexOptions::builtin(first_word()).maintenance(Maintenance::Strict);
    let unique = || IndexOptions::builtin(first_word()).unique(true);
    let options = KeyspaceOptions::default;
    {
        let db = builder("db", &env).open().unwrap();
        let (rows, others) =
            (db.keyspace("strict", options()).unwrap(), db.keyspace("unique", options()).unwrap());
        rows.create_index("index", strict()).unwrap();
        others.create_index("index", unique()).unwrap();
        rows.put("1", "a").unwrap();
        rows.put("2", "a").unwrap();
        rows.put_with("1", "b", &without_log).unwrap();
        rows.delete_with("2", &without_log).unwrap();
        rows.put("1", "c").unwrap();
        rows.put("2", "c").unwrap();
        others.put("1", "a").unwrap();
        let mut batch = db.batch();
        batch.put(&others, "1", "b");
        drop(batch.commit_with(&without_log).unwrap());
        others.put("2", "a").unwrap();
        fs.crash_at(0);
    }
    let env = env.with_file_system(Arc::new(fs.kill()));
    let db = builder("db", &env).open().unwrap();
    for (keyspace, options) in [("strict", strict()), ("unique", unique())] {
        let keyspace = db.keyspace(keyspace, KeyspaceOptions::default()).unwrap();
        let index = keyspace.create_index("index", options).unwrap();
        let report = index.verify().unwrap();
        assert!(report.is_right(), "{}: {report:?}", keyspace.name());
        let keys: BTreeSet<Vec<u8>> = index.iter().map(|hit| hit.unwrap().index_key().to_vec()).collect();
        assert_eq!(
            keys.len(),
            if keyspace.name() == "unique" { 2 } else { 1 },
            "{}: {keys:?}",
            keyspace.name()
        );
    }
}

/// Works until the machine stops.
fn work_until_crash(db: &Db, fs: &SimFs, random: &mut fastrand::Rng) -> sapwood::Result<()> {
    let keyspace = db.default_keyspace();
    while !fs.has_crashed() {
        match random.u32(0..200) {
            0..4 => db.flush()?,
            4 => db.compact()?,
            5..10 => {
                db.background_step(BackgroundStep::ALL[random.usize(0..4)])?;
            }
            10 => db.sync()?,
            11 => drop(keyspace.index("words")?.rebuild()?),
            12 => {
                keyspace.drop_index("first")?;
                keyspace.create_index("first", IndexOptions::builtin(first_word()))?;
            }
            _ => {
                let mut batch = db.batch();
                for _ in 0..random.u32(1..5) {
                    let key = format!("{:03}", random.u32(0..300));
                    let word = |random: &mut fastrand::Rng| char::from(random.u8(b'a'..b'f'));
                    match random.u8(0..4) {
                        0 => drop(batch.delete(&keyspace, key)),
                        _ => drop(batch.put(&keyspace, key, format!("{} {}", word(random), word(random)))),
                    }
                }
                drop(batch.commit()?);
            }
        }
    }
    Ok(())
}

#[test]
fn an_index_says_what_its_rows_say_after_a_crash_anywhere() {
    for seed in seeds(0..6) {
        let _replay = Replay::new(seed, "index::an_index_says_what_its_rows_say_after_a_crash_anywhere");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut env, mut fs) = Env::sim_manual(seed);
        for _ in 0..12 {
            // In many runs the code is attached later.
            let mut builder = builder("db", &env);
            if random.bool() {
                builder = builder.index("default", "words", IndexOptions::new(words));
            }
            let opened = builder.open().and_then(|db| {
                let keyspace = db.default_keyspace();
                let names = keyspace.list_indexes()?;
                let words = keyspace.create_index("words", IndexOptions::new(words))?;
                let first = keyspace.create_index("first", IndexOptions::builtin(first_word()))?;
                let strict = IndexOptions::builtin(first_word()).maintenance(Maintenance::Strict);
                let strict = keyspace.create_index("strict", strict)?;
                for index in [words, first, strict] {
                    let report = index.verify()?;
                    assert!(report.is_right(), "{} of {names:?}: {report:?}", index.name());
                }
                db.check_structure()?;
                Ok(db)
            });
            let db = match opened {
                Ok(db) => Some(db),
                Err(error) => {
                    assert!(fs.has_crashed(), "opening failed: {error}");
                    None
                }
            };
            if let Some(db) = &db {
                fs.crash_at(fs.operations() + random.u64(1..250));
                if let Err(error) = work_until_crash(db, &fs, &mut random) {
                    assert!(fs.has_crashed(), "an operation failed: {error}");
                }
            }
            fs.crash_at(0);
            let next = if random.bool() { fs.kill() } else { fs.crash(random.u64(..)) };
            drop(db);
            fs = next;
            env = env.with_file_system(Arc::new(fs.clone()));
            if random.u8(0..3) == 0 {
                // Inside the next open.
                fs.crash_at(fs.operations() + random.u64(1..120));
            }
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "looks at the folder from outside")]
fn the_file_of_a_tree_shrinks_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Db::builder(folder.path()).memory_budget(16 << 20);
    let db = builder.advanced(|options| options.idle_compaction = false).open().unwrap();
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", IndexOptions::builtin(first_word())).unwrap();
    let tree_bytes = || -> u64 {
        let files = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
        let trees = files.filter(|file| file.path().extension().is_some_and(|it| it == "tree"));
        trees.map(|file| file.metadata().unwrap().len()).sum()
    };
    let key = |i: u32| format!("row{i:08}");
    for i in 0..10_000 {
        keyspace.put(key(i), format!("word{:08}", i.wrapping_mul(2_654_435_761))).unwrap();
    }
    keyspace.compact_range::<&[u8]>(..).unwrap();
    let full = tree_bytes();
    assert!(full > 200 << 10, "{full} bytes");
    for i in 0..10_000 {
        keyspace.delete(key(i)).unwrap();
    }
    // The pages that a batch replaces are free for the next one, and truncated after the batch
    // after that: a few batches later if a reader still holds an older tree.
    let mut rows = 0;
    eventually("the file of the tree shrinks", || {
        keyspace.put(key(rows), "word").unwrap();
        keyspace.compact_range::<&[u8]>(..).unwrap();
        rows += 1;
        tree_bytes() < full / 4
    });
    assert_eq!(index.count::<&[u8]>(..).unwrap(), u64::from(rows));
    drop((index, keyspace, db));
    let db = Db::builder(folder.path()).open().unwrap();
    let report = db.default_keyspace().index("first").unwrap().verify().unwrap();
    assert!(report.is_right(), "{report:?}");
}
