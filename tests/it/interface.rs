//! Programs against the interface compile, and values print their meaning.
//!
//! The build of this file finds calls that the compiler refuses.
#![allow(clippy::disallowed_methods, clippy::op_ref, clippy::cmp_owned, reason = "as programs write it")]
use sapwood::*;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as _;
use std::fmt::Debug;
use std::ops::Bound;
use std::panic::{RefUnwindSafe, UnwindSafe};

fn database() -> (Db, Keyspace) {
    let (env, _fs) = Env::sim_manual(1);
    let db = Db::builder("db").memory_budget(4 << 20).advanced(|o| o.env = env).open().unwrap();
    let keyspace = db.default_keyspace();
    for key in ["a", "b", "bb", "c"] {
        keyspace.put(key, key.to_uppercase()).unwrap();
    }
    (db, keyspace)
}

fn keys(entries: impl Iterator<Item = Result<Entry>>) -> String {
    let keys: Vec<String> =
        entries.map(|entry| String::from_utf8(entry.unwrap().key().to_vec()).unwrap()).collect();
    keys.join(" ")
}

#[test]
fn ranges_need_no_annotations() {
    let (_db, keyspace) = database();
    assert_eq!(keys(keyspace.range(..)), "a b bb c");
    assert_eq!(keys(keyspace.range::<&[u8]>(..)), "a b bb c");
    assert_eq!(keys(keyspace.range("b"..)), "b bb c");
    assert_eq!(keys(keyspace.range(.."b")), "a");
    assert_eq!(keys(keyspace.range(..="b")), "a b");
    assert_eq!(keys(keyspace.range("b"..="bb")), "b bb");
    assert_eq!(keys(keyspace.range(b"a"..b"b")), "a");
    assert_eq!(keys(keyspace.range(*b"a"..*b"b")), "a");
    assert_eq!(keys(keyspace.range(&b"a"[..]..b"bb")), "a b");
    let (low, high) = (b"b".to_vec(), String::from("c"));
    assert_eq!(keys(keyspace.range(&low..)), "b bb c");
    assert_eq!(keys(keyspace.range(low.as_slice()..high.as_bytes())), "b bb");
    assert_eq!(keys(keyspace.range(..&high)), "a b bb");
    assert_eq!(keys(keyspace.range((Bound::Excluded("a"), Bound::Unbounded))), "b bb c");
    assert_eq!(keys(keyspace.range((Bound::Unbounded, Bound::Included(&low)))), "a b");
    assert_eq!(keys(keyspace.range::<&str>((Bound::Unbounded, Bound::Included("a")))), "a");
    assert_eq!(keys(keyspace.range::<Vec<u8>>((Bound::Excluded(low.clone()), Bound::Unbounded))), "bb c");
    assert_eq!(keys(keyspace.range(low..)), "b bb c");
    // A function of the application that forwards ranges.
    fn count<K>(keyspace: &Keyspace, range: impl KeyRange<K>) -> usize {
        keyspace.range(range).count()
    }
    assert_eq!((count(&keyspace, ..), count(&keyspace, "b"..)), (4, 3));
}

#[test]
fn calls_that_name_the_type_of_the_ends_still_compile() {
    let (db, keyspace) = database();
    keyspace.compact_range::<&[u8]>(..).unwrap();
    keyspace.compact_range::<Vec<u8>>(..).unwrap();
    keyspace.compact_range("a".."b").unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    assert!(keyspace.approximate_size::<Vec<u8>>(..).unwrap() > 0);
    let index = keyspace.create_index("whole", IndexOptions::new(|_, value, emit| emit.key(value))).unwrap();
    let snapshot = db.snapshot();
    assert_eq!(index.count::<Vec<u8>>(..).unwrap(), 4);
    assert_eq!(index.count_at::<Vec<u8>>(.., &snapshot).unwrap(), 4);
    assert!(!index.cursor::<[u8; 8]>(..).unwrap().valid());
    assert!(!index.cursor_at::<Vec<u8>>(.., &snapshot).unwrap().valid());
    // The calls without bounds need no type.
    keyspace.compact().unwrap();
    assert!(keyspace.approximate_bytes().unwrap() > 0);
    assert_eq!(index.count_all().unwrap(), 4);
    assert_eq!(index.range(..).count(), 4);
    assert_eq!(index.range("A".."C").rev().count(), 3);
    assert_eq!(index.range(&b"A".to_vec()..).count(), 4);
}

#[test]
fn an_extractor_is_a_closure_without_types_or_a_type_of_its_own() {
    struct First;
    impl Extractor for First {
        fn extract(&self, _key: &[u8], value: &[u8], emit: &mut Emit<'_>) {
            emit.key(&value[..1]);
        }
    }
    let (_db, keyspace) = database();
    let by_value = keyspace.create_index("by_value", IndexOptions::new(|_k, v, e| e.key(v))).unwrap();
    let by_first = keyspace.create_index("by_first", IndexOptions::from_extractor(First)).unwrap();
    let word = |_key: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.entry(value, b"");
    let by_word = keyspace.create_index("by_word", IndexOptions::new(word)).unwrap();
    assert_eq!(by_value.get("BB").count(), 1);
    assert_eq!(by_first.get("B").count(), 2);
    assert_eq!((&by_word).into_iter().count(), 4);
}

#[test]
fn values_compare_hash_and_convert_as_bytes_do() {
    let (_db, keyspace) = database();
    let value = || keyspace.get("b").unwrap().unwrap();
    assert!(value() == *b"B" && value() == b"B" && value() == b"B"[..] && value() == &b"B"[..]);
    assert!(value() == vec![b'B'] && value() == *"B" && value() == "B" && value() == String::from("B"));
    assert!(
        *b"B" == value()
            && b"B" == value()
            && &b"B"[..] == value()
            && vec![b'B'] == value()
            && "B" == value()
    );
    assert_eq!(value(), b"B");
    assert_ne!(value(), "b");
    assert_eq!(keyspace.get("b").unwrap().as_deref(), Some(&b"B"[..]));
    assert!(value() < keyspace.get("c").unwrap().unwrap());
    assert_eq!(Slice::default(), b"");
    let owned: (Vec<u8>, Box<[u8]>) = (Vec::from(value()), Box::from(value()));
    assert_eq!((owned.0.as_slice(), &*owned.1), (&b"B"[..], &b"B"[..]));
    assert_eq!(value().into_vec(), b"B");
    assert_eq!(std::sync::Arc::<[u8]>::from(value())[..], b"B"[..]);
    let map = HashMap::from([(value(), 1)]);
    assert_eq!(map.get(&b"B"[..]), Some(&1));
    let set: BTreeSet<Slice> = ["b", "a"].iter().map(|key| keyspace.get(key).unwrap().unwrap()).collect();
    assert!(set.contains(&b"A"[..]) && set.first().unwrap() == "A");
    let slice = value();
    let borrowed: &[u8] = slice.borrow();
    assert_eq!(borrowed, b"B");
}

#[test]
fn keyspaces_and_indexes_are_what_a_loop_goes_over() -> Result<()> {
    let (_db, keyspace) = database();
    let mut count = 0;
    for entry in &keyspace {
        let (key, value) = entry?.into_parts();
        assert!(value == key.to_ascii_uppercase());
        count += 1;
    }
    assert_eq!(count, 4);
    assert!(keyspace.contains_key("a")? && !keyspace.contains_key("x")?);
    Ok(())
}

#[test]
fn a_value_that_was_left_out_is_not_an_empty_one() {
    let (_db, keyspace) = database();
    let entry = keyspace.iter().keys_only().next().unwrap().unwrap();
    assert_eq!(entry.key(), b"a");
    assert_eq!(entry.value().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(keyspace.iter().next().unwrap().unwrap().value().unwrap(), b"A");
}

#[test]
fn a_commit_can_be_left_alone() -> Result<()> {
    let (db, keyspace) = database();
    let mut batch = db.batch();
    batch.put(&keyspace, "d", "D");
    let again = batch.clone();
    batch.commit()?;
    assert!(batch.is_empty() && again.len() == 1);
    keyspace.delete("d")?;
    let mut again = again;
    again.commit()?.wait_durable()?;
    assert!(keyspace.contains_key("d")?);
    Ok(())
}

#[test]
fn everything_prints_and_no_handle_prints_what_rows_hold() -> Result<()> {
    let (db, keyspace) = database();
    keyspace.put("secret-key", "secret-value")?;
    let options = IndexOptions::new(|_, value, emit| emit.key(value));
    let index = keyspace.create_index("whole", options.clone())?;
    let mut batch = db.batch();
    batch.put(&keyspace, "secret-key", "secret-value");
    let mut cursor = keyspace.cursor()?;
    cursor.seek("secret-key")?;
    let mut entries = index.cursor("secret".."t")?;
    entries.seek_to_first()?;
    assert!(cursor.valid() && entries.valid());
    let mut iter = keyspace.range("secret"..);
    iter.next();
    let mut hits = index.prefix("secret");
    hits.next();
    let commit = batch.clone().commit()?;
    let builder = Db::builder("elsewhere").index("default", "whole", options.clone());
    let things: [&dyn Debug; 18] = [
        &db,
        &builder,
        &keyspace,
        &batch,
        &commit,
        &db.snapshot(),
        &cursor,
        &iter,
        &index,
        &hits,
        &entries,
        &options,
        &AdvancedOptions::default(),
        &WriteOptions::sync(),
        &db.stats(),
        &db.memory(),
        &db.health(),
        &index.progress(),
    ];
    for thing in things {
        let text = format!("{thing:?}");
        assert!(!text.is_empty() && !text.contains("secret") && !text.contains("115, 101, 99"), "{text}");
    }
    assert!(format!("{keyspace:?}").contains("default") && format!("{db:?}").contains("db"));
    Ok(())
}

#[test]
fn handles_go_anywhere_and_survive_panics() {
    fn promises<T: Send + Sync + UnwindSafe + RefUnwindSafe + Debug>() {}
    promises::<Db>();
    promises::<DbBuilder>();
    promises::<Keyspace>();
    promises::<WriteBatch>();
    promises::<Commit>();
    promises::<Snapshot>();
    promises::<Cursor>();
    promises::<Iter>();
    promises::<Entry>();
    promises::<Slice>();
    promises::<Index>();
    promises::<IndexCursor>();
    promises::<IndexIter>();
    promises::<Hit>();
    promises::<IndexOptions>();
    promises::<AdvancedOptions>();
    promises::<Stats>();
    promises::<Error>();
    let (_db, keyspace) = database();
    std::panic::catch_unwind(|| keyspace.get_with("a", |_| panic!("no luck")).map(|_: Option<()>| ()))
        .unwrap_err();
    assert_eq!(keyspace.get("a").unwrap().unwrap(), "A");
}

#[test]
fn what_is_returned_can_be_named() -> Result<()> {
    let (db, keyspace) = database();
    let field = Field::value().range(0, 1);
    let (part, place): (RowPart, Place) = (field.part, field.place.clone());
    assert_eq!((part, place), (RowPart::Value, Place::Range { offset: 0, len: Some(1) }));
    let index = keyspace.create_index("first", IndexOptions::builtin(Builtin::new(field, KeyKind::Bytes)))?;
    let definition: &IndexDefinition = index.definition();
    let (id, spec): (KeyspaceId, &ExtractorSpec) = (definition.keyspace, &definition.extractor);
    assert!(matches!(spec, ExtractorSpec::Builtin(_)) && id == index.definition().keyspace);
    let stats: Stats = db.stats();
    let keyspaces: &[KeyspaceStats] = &stats.keyspaces;
    let levels: Vec<&LevelStats> = keyspaces.iter().flat_map(|keyspace| &keyspace.levels).collect();
    let (stalls, tree): (StallStats, Option<TreeStats>) = (stats.stalls, keyspaces[0].tree);
    assert!(!levels.is_empty() && tree.is_none() && stalls.memtable_waits == 0);
    let explain: Explain = keyspace.explain_get("a")?;
    let source: &ExplainedSource = &explain.sources[0];
    let (place, outcome): (&ExplainedPlace, &ExplainedOutcome) = (&source.place, &source.outcome);
    assert!(matches!(place, ExplainedPlace::ActiveMemtable) && !format!("{outcome:?}").is_empty());
    let _machine: std::sync::Arc<dyn env::FileSystem> = Env::os().fs().clone();
    let _class: env::ThreadClass = env::ThreadClass::Background;
    Ok(())
}

#[test]
fn errors_can_be_kept_in_two_places_and_say_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let _db = Db::open(folder.path()).unwrap();
    let error = Db::open(folder.path()).unwrap_err();
    assert_eq!(error.clone().kind(), ErrorKind::Locked);
    assert!(!error.to_string().contains("at byte"), "{error}");
    // A file where a directory should be: the message includes the operating system's.
    let file = folder.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let error = Db::open(&file).unwrap_err();
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    if let Some(system) = error.io_error() {
        assert_eq!(chain.join(": ").matches(&system.to_string()).count(), 1, "{chain:?}");
    }
}

#[test]
fn background_work_goes_on_when_the_pause_is_dropped() -> Result<()> {
    let (db, keyspace) = database();
    fn stops_early(db: &Db) -> Result<()> {
        let _pause = db.pause_guard()?;
        Err(Error::new(ErrorKind::Timeout, "of the application"))
    }
    stops_early(&db).unwrap_err();
    keyspace.put("d", "D")?;
    db.flush()?;
    db.pause_background()?;
    let pause = db.pause_guard()?;
    db.resume_background();
    drop(pause);
    db.flush()?;
    db.close()
}

#[test]
fn settings_are_text_both_ways() {
    let options = KeyspaceOptions {
        compression: Some(Codec::Zstd(5)),
        block_bytes: Some(8192),
        ..KeyspaceOptions::default()
    };
    assert_eq!(options.to_string().parse::<KeyspaceOptions>().unwrap(), options);
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(-3)] {
        assert_eq!(codec.to_string().parse::<Codec>().unwrap(), codec);
    }
    for style in [CompactionStyle::Hybrid, CompactionStyle::Leveled] {
        assert_eq!(style.to_string().parse::<CompactionStyle>().unwrap(), style);
    }
    let advanced = AdvancedOptions { block_bytes: 8192, ..Default::default() };
    assert_eq!(advanced.block_bytes, 8192);
    let write = WriteOptions { durability: Some(Durability::Sync) };
    assert_eq!(write.durability, WriteOptions::sync().durability);
    assert_eq!(BTreeMap::from([(1, Durability::Buffered)])[&1], Durability::default());
}

/// The length of the value.
fn by_length() -> IndexOptions {
    IndexOptions::new(|_key, value, emit| emit.value(&(value.len() as u32)))
}

#[test]
fn an_index_is_named_once_whether_it_exists_or_not() -> Result<()> {
    let (mut env, mut fs) = Env::sim_manual(1);
    let open = |env: &Env, version: u64| {
        let builder = Db::builder("db").memory_budget(4 << 20).advanced(|options| options.env = env.clone());
        let builder = builder.index("default", "by_length", by_length().version(version));
        builder.index("later", "by_length", by_length()).open()
    };
    let kill = |db: Db, env: &mut Env, fs: &mut sim::SimFs| {
        *fs = fs.kill();
        drop(db);
        *env = env.with_file_system(std::sync::Arc::new(fs.clone()));
    };
    // The open creates the index; for a keyspace that does not exist yet, its creation does.
    let db = open(&env, 1)?;
    assert_eq!(db.default_keyspace().list_indexes()?, ["by_length"]);
    let later = db.keyspace("later", KeyspaceOptions::default())?;
    for keyspace in [db.default_keyspace(), later] {
        keyspace.put("a", "xx")?;
        keyspace.put("b", "yyy")?;
        assert_eq!(keyspace.index("by_length")?.count_all()?, 2);
    }
    kill(db, &mut env, &mut fs);
    // The index has its code, so writes work at once; another version is rebuilt.
    for version in [1, 1, 2] {
        let db = open(&env, version)?;
        for keyspace in [db.default_keyspace(), db.keyspace("later", KeyspaceOptions::default())?] {
            keyspace.put(version.to_be_bytes(), "zzzz")?;
            let report = keyspace.index("by_length")?.verify()?;
            assert!(report.is_right() && report.rows > 2, "{report:?}");
        }
        kill(db, &mut env, &mut fs);
    }
    // On existing rows.
    let builder = |env: &Env| Db::builder("db").memory_budget(4 << 20).advanced(|o| o.env = env.clone());
    let first = || IndexOptions::new(|_key, value, emit| emit.key(&value[..1]));
    let db = builder(&env)
        .index("default", "by_length", by_length().version(2))
        .index("default", "first", first())
        .open()?;
    assert_eq!(db.default_keyspace().index("first")?.count_all()?, 4);
    db.close()?;
    // The open reports the omitted index; without any named index the database opens as before.
    let error = builder(&env).index("default", "first", first()).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IndexUnavailable);
    assert!(error.to_string().contains("by_length"), "{error}");
    let db = builder(&env).open()?;
    assert_eq!(db.default_keyspace().put("x", "y").unwrap_err().kind(), ErrorKind::IndexUnavailable);
    db.default_keyspace().drop_index("by_length")?;
    db.default_keyspace().create_index("first", first())?;
    db.default_keyspace().put("x", "y")?;
    db.close()?;
    // Rows that violate an index: the open reports it, and the next one without it is
    // unaffected.
    let unique = || by_length().unique(true);
    let named = |env: &Env| builder(env).index("default", "first", first());
    let error = named(&env).index("default", "unique", unique()).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    assert!(error.to_string().contains("unique"), "{error}");
    let db = named(&env).open()?;
    db.default_keyspace().put("x", "z")?;
    assert_eq!(db.default_keyspace().list_indexes()?, ["first"]);
    db.close()
}

#[test]
fn a_read_only_opening_makes_no_index() -> Result<()> {
    let (env, _fs) = Env::sim_manual(1);
    let builder = || Db::builder("db").memory_budget(4 << 20).advanced(|options| options.env = env.clone());
    builder().open()?.close()?;
    let db = builder().read_only(true).index("default", "by_length", by_length()).open()?;
    assert!(db.default_keyspace().list_indexes()?.is_empty());
    db.close()
}
