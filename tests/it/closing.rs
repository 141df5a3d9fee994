//! A close is final: the database does no work after it, and releases all resources.
#![allow(clippy::disallowed_methods, reason = "real threads meet a close at a gate")]
use sapwood::sim::SimFs;
use sapwood::{
    Builtin, Db, DbBuilder, Env, ErrorKind, Field, Index, IndexOptions, KeyKind, Keyspace, KeyspaceOptions,
    Maintenance, Result,
};
use sapwood_storage::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use sapwood_tests::harness::{builder, within};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Blocks the first write to a file of one kind, and counts changes after a close has returned.
#[derive(Default)]
struct Gate {
    /// The extension of the files whose writes are blocked.
    extension: &'static str,
    armed: AtomicBool,
    reached: AtomicBool,
    closed: AtomicBool,
    late: AtomicU64,
}

impl Gate {
    fn pass(&self, path: &Path, changes: bool) {
        if path.extension().is_some_and(|extension| extension == self.extension)
            && self.armed.load(SeqCst)
            && !self.reached.swap(true, SeqCst)
        {
            // A close that does not wait returns in the meantime.
            let start = Instant::now();
            while !self.closed.load(SeqCst) && start.elapsed() < Duration::from_millis(400) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if changes && self.closed.load(SeqCst) {
            self.late.fetch_add(1, SeqCst);
        }
    }
}

struct Gated {
    fs: SimFs,
    gate: Arc<Gate>,
}

struct GatedFile {
    file: Box<dyn File>,
    gate: Arc<Gate>,
}

impl File for GatedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.gate.pass(self.file.path(), true);
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<()> {
        self.gate.pass(self.file.path(), true);
        self.file.sync_data()
    }
    fn sync_all(&self) -> Result<()> {
        self.gate.pass(self.file.path(), true);
        self.file.sync_all()
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.gate.pass(self.file.path(), true);
        self.file.set_len(len)
    }
    fn len(&self) -> Result<u64> {
        self.file.len()
    }
    fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Gated {
    fn changes(&self, path: &Path) {
        self.gate.pass(path, true);
    }
    fn wrap(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(GatedFile { file, gate: self.gate.clone() })
    }
}

impl FileSystem for Gated {
    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        self.changes(path);
        Ok(self.wrap(self.fs.create_new(path)?))
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        Ok(self.wrap(self.fs.open(path, mode)?))
    }
    fn exists(&self, path: &Path) -> Result<bool> {
        self.fs.exists(path)
    }
    fn file_len(&self, path: &Path) -> Result<u64> {
        self.fs.file_len(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.changes(from);
        self.fs.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.changes(to);
        self.fs.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        self.changes(path);
        self.fs.remove_file(path)
    }
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.changes(path);
        self.fs.create_dir_all(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.changes(path);
        self.fs.remove_dir(path)
    }
    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        self.fs.list(path)
    }
    fn sync_directory(&self, path: &Path) -> Result<()> {
        self.changes(path);
        self.fs.sync_directory(path)
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.fs.lock(path)
    }
    fn space(&self, path: &Path) -> Result<Space> {
        self.fs.space(path)
    }
    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>> {
        self.fs.map_shared(path, len)
    }

    fn check_memory(&self, bytes: usize) -> Result<()> {
        self.fs.check_memory(bytes)
    }
}

fn options() -> IndexOptions {
    IndexOptions::builtin(Builtin::new(Field::value().range(0, 8), KeyKind::Bytes))
}

fn quiet(env: &Env) -> DbBuilder {
    builder("/db", env).advanced(|options| {
        options.idle_compaction = false;
        options.disable_auto_compactions = true;
        options.memtable_bytes = Some(4 << 20);
    })
}

fn rows(db: &Db, count: u32, seed: u64) {
    let keyspace = db.default_keyspace();
    let mut random = fastrand::Rng::with_seed(seed);
    for row in 0..count {
        let value = [random.u64(..).to_be_bytes(), u64::from(row).to_be_bytes()].concat();
        keyspace.put(row.to_be_bytes(), value).unwrap();
    }
}

/// A call of another thread that works on files during the close.
fn closed_beside(extension: &'static str, call: fn(&Db, &Index) -> Result<()>) {
    within(LIMIT, "a close beside a call", move || {
        let fs = SimFs::new();
        let gate = Arc::new(Gate { extension, ..Gate::default() });
        let gated = Gated { fs: fs.clone(), gate: gate.clone() };
        let env = Env::os().with_file_system(Arc::new(gated));
        let db = quiet(&env).open().unwrap();
        let index = db.default_keyspace().create_index("i", options()).unwrap();
        rows(&db, 4000, 1);
        db.compact().unwrap();
        rows(&db, 2000, 2);
        db.flush().unwrap();
        gate.armed.store(true, SeqCst);
        let other = {
            let (db, index) = (db.clone(), index.clone());
            std::thread::spawn(move || call(&db, &index))
        };
        while !gate.reached.load(SeqCst) && !other.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !gate.reached.load(SeqCst) {
            panic!("the call has written no {extension} file: {:?}", other.join().unwrap());
        }
        db.close().unwrap();
        gate.closed.store(true, SeqCst);
        // The closed database may not affect the next open.
        let plain = Env::os().with_file_system(Arc::new(fs.clone()));
        let again = quiet(&plain).open().unwrap();
        let found = again.default_keyspace().create_index("i", options()).unwrap();
        rows(&again, 1500, 3);
        again.compact().unwrap();
        match other.join().unwrap() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
        }
        assert_eq!(gate.late.load(SeqCst), 0, "changes of files after the close has returned");
        assert!(found.verify().unwrap().is_right());
        again.close().unwrap();
        drop((again, found));
        let again = quiet(&plain).open().unwrap();
        let found = again.default_keyspace().create_index("i", options()).unwrap();
        assert!(found.verify().unwrap().is_right());
    });
}

#[test]
fn a_close_waits_for_a_compaction_of_another_thread() {
    closed_beside("sst", |db, _| db.compact());
    closed_beside("tree", |db, _| db.compact());
    closed_beside("sst", |db, _| db.default_keyspace().compact_range([0]..));
}

#[test]
fn a_close_waits_for_an_index_that_is_being_built() {
    closed_beside("tree", |_, index| index.rebuild().map(drop));
    closed_beside("tree", |db, _| {
        let by_end = Builtin::new(Field::value().range(8, 8), KeyKind::Bytes);
        db.default_keyspace().create_index("j", IndexOptions::builtin(by_end)).map(drop)
    });
}

#[test]
fn a_close_waits_for_a_sync_and_a_settling_of_another_thread() {
    closed_beside("wal", |db, _| {
        db.default_keyspace().put("late", [0; 16])?;
        db.sync()
    });
    closed_beside("sst", |db, _| {
        db.default_keyspace().put("late", [0; 16])?;
        db.settle()
    });
}

#[test]
fn calls_that_a_pause_would_hold_up_are_refused() {
    within(LIMIT, "calls while background work is paused", || {
        let (env, _) = Env::sim(1);
        let db = builder("/db", &env).open().unwrap();
        let keyspace = db.default_keyspace();
        let index = keyspace.create_index("i", options()).unwrap();
        keyspace.put("a", [1; 16]).unwrap();
        db.pause_background().unwrap();
        for error in [
            db.flush().unwrap_err(),
            db.settle().unwrap_err(),
            db.compact().unwrap_err(),
            db.wait_for_background().unwrap_err(),
            keyspace.compact_range::<&str>(..).unwrap_err(),
            keyspace.create_index("j", options()).map(drop).unwrap_err(),
            index.rebuild().map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Paused, "{error}");
        }
        // Calls without background work continue.
        keyspace.put("b", [2; 16]).unwrap();
        db.sync().unwrap();
        assert!(index.verify().unwrap().is_right());
        let made = db.keyspace("made", KeyspaceOptions::default()).unwrap();
        made.put("a", "b").unwrap();
        db.drop_keyspace("made").unwrap();
        db.resume_background();
        db.compact().unwrap();
        keyspace.create_index("j", options()).unwrap();
        db.close().unwrap();
    });
}

#[test]
fn short_lives_leave_no_more_runs_than_one_long_life() {
    let (env, fs) = Env::sim(1);
    let mut files = Vec::new();
    for life in 0..120_u32 {
        let db = builder("/db", &env).open().unwrap();
        let keyspace = db.default_keyspace();
        keyspace.create_index("i", options()).unwrap();
        keyspace.put(life.to_be_bytes(), life.to_be_bytes().repeat(4)).unwrap();
        db.close().unwrap();
        files.push(fs.files().len());
    }
    let db = builder("/db", &env).open().unwrap();
    assert_eq!(db.default_keyspace().iter().count(), 120);
    let most = files.iter().max().unwrap();
    assert!(*most < 40, "files after each of 120 lives of one row: {files:?}");
    db.close().unwrap();
}

#[test]
fn calls_wait_for_the_end_of_a_short_pause_of_another_thread_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    for (env, is_simulated) in [(Env::os(), false), (Env::sim(1).0, true)] {
        let db = builder(folder.path().join("db"), &env).open().unwrap();
        let keyspace = db.default_keyspace();
        let (busy, rows) = (db.clone(), keyspace.clone());
        within(LIMIT, "calls beside short pauses", move || {
            // On a simulated machine the half second is over at once.
            let pauses = if is_simulated { 0 } else { 20 };
            std::thread::scope(|scope| {
                let pauses = scope.spawn(|| {
                    for _ in 0..pauses {
                        let pause = busy.pause_guard().unwrap();
                        std::thread::sleep(Duration::from_millis(5));
                        drop(pause);
                    }
                });
                while !pauses.is_finished() {
                    rows.put("a", [1; 16]).unwrap();
                    busy.flush().unwrap();
                    busy.compact().unwrap();
                }
            });
        });
        within(LIMIT, "calls beside a pause that lasts", move || {
            let pause = db.pause_guard().unwrap();
            std::thread::scope(|scope| {
                let refused = scope.spawn(|| db.flush().unwrap_err());
                assert_eq!(refused.join().unwrap().kind(), ErrorKind::Paused);
                // A close ends it.
                let closes = scope.spawn(|| db.close());
                let closed = db.compact().unwrap_err();
                assert!(matches!(closed.kind(), ErrorKind::Paused | ErrorKind::Closed), "{closed}");
                closes.join().unwrap().unwrap();
            });
            drop(pause);
        });
    }
}

#[test]
fn writes_wait_for_the_work_that_a_beginning_pause_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::builder(folder.path().join("db"))
        .memory_budget(4 << 20)
        .advanced(|options| {
            options.memtable_bytes = Some(64 << 10);
            options.max_memtables = 2;
        })
        .open()
        .unwrap();
    let rows = db.default_keyspace();
    // The flush calls the extractor for rows that were overwritten, and finds the gate closed.
    let (is_closed, is_reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (closed, reached) = (is_closed.clone(), is_reached.clone());
    let options = IndexOptions::new(move |_: &[u8], value: &[u8], emit| {
        let is_writer = std::thread::current().name().is_some_and(|name| name == "writer");
        while !is_writer && closed.load(SeqCst) {
            reached.store(true, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        emit.key(&value[..1]);
    });
    rows.create_index("first byte", options.maintenance(Maintenance::Deferred)).unwrap();
    let put_all =
        |rows: &Keyspace, byte: u8| (0..400u32).try_for_each(|i| rows.put(i.to_be_bytes(), [byte; 1000]));
    put_all(&rows, 1).unwrap();
    db.flush().unwrap();
    is_closed.store(true, SeqCst);
    within(LIMIT, "writes beside a pause that begins", move || {
        let writer =
            std::thread::Builder::new().name("writer".into()).spawn(move || put_all(&rows, 2)).unwrap();
        while !is_reached.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let pausing = db.clone();
        let pauses = std::thread::spawn(move || drop(pausing.pause_guard().unwrap()));
        // Longer than writes wait for the end of a pause. A machine that is slow here finds less.
        std::thread::sleep(Duration::from_millis(900));
        is_closed.store(false, SeqCst);
        pauses.join().unwrap();
        writer.join().unwrap().expect("writes wait for the flush under way");
    });
}

#[test]
fn a_pause_holds_up_a_compaction_of_another_thread() {
    within(LIMIT, "a pause beside a compaction", || {
        let (env, fs) = Env::sim(1);
        let small = |options: &mut sapwood::AdvancedOptions| {
            options.target_file_bytes = 4 << 10;
            options.disable_auto_compactions = true;
        };
        let db = builder("/db", &env).advanced(small).open().unwrap();
        for seed in 0..3 {
            rows(&db, 4000, seed);
            db.flush().unwrap();
        }
        let other = {
            let db = db.clone();
            std::thread::spawn(move || db.compact())
        };
        let before = db.stats().compactions;
        while db.stats().compactions == before && !other.is_finished() {
            std::thread::yield_now();
        }
        db.pause_background().unwrap();
        // The log continues.
        let tables = || -> BTreeMap<PathBuf, u64> {
            let is_table = |path: &PathBuf| {
                let name = path.to_string_lossy();
                name.contains(".sst") || name.contains(".tree")
            };
            let files = fs.files().into_iter().filter(is_table);
            files.filter_map(|path| Some((path.clone(), fs.file_len(&path).ok()?))).collect()
        };
        let before = tables();
        for _ in 0..200 {
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(before, tables(), "files are written or removed while background work is paused");
        db.resume_background();
        other.join().unwrap().unwrap();
        db.close().unwrap();
    });
}

/// A copy of the directory during a pause must find the files that existed when it began.
#[test]
fn a_pause_keeps_files_that_nobody_needs_any_more() {
    for threads in [false, true] {
        within(LIMIT, "a pause with a reader that ends", move || {
            let (env, fs) = if threads { Env::sim(1) } else { Env::sim_manual(1) };
            let db = builder("/db", &env).open().unwrap();
            let space = db.keyspace("dropped", KeyspaceOptions::default()).unwrap();
            space.put("a", "b").unwrap();
            rows(&db, 400, 1);
            db.flush().unwrap();
            let cursor = db.default_keyspace().cursor().unwrap();
            rows(&db, 400, 2);
            db.compact().unwrap();
            let sweep = || !threads && db.background_step(sapwood::BackgroundStep::Sweep).unwrap();
            while sweep() {}
            let files = || {
                let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
                fs.files().into_iter().filter(is_table).collect::<Vec<_>>()
            };
            db.pause_background().unwrap();
            let before = files();
            // The old tables and those of the keyspace may be removed now.
            drop((cursor, space));
            db.drop_keyspace("dropped").unwrap();
            for _ in 0..20 {
                // Some thread has to collect the files that readers have released.
                crossbeam_epoch::pin().flush();
                assert!(!sweep());
                std::thread::sleep(Duration::from_millis(1));
                assert_eq!(files(), before, "a file goes while background work is paused");
            }
            db.resume_background();
            let mut patience = 0;
            while files().len() >= before.len() {
                crossbeam_epoch::pin().flush();
                sweep();
                std::thread::sleep(Duration::from_millis(1));
                patience += 1;
                assert!(patience < 50_000, "files remain after the pause");
            }
            db.close().unwrap();
        });
    }
}

#[test]
fn code_within_a_call_that_a_close_waits_for_cannot_close() {
    within(LIMIT, "a close within an extractor", || {
        let (env, _) = Env::sim(1);
        let db = builder("/db", &env).open().unwrap();
        db.default_keyspace().put("a", "b").unwrap();
        let (handle, met) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Vec::new())));
        let (held, noted) = (handle.clone(), met.clone());
        let extract = move |key: &[u8], _: &[u8], emit: &mut sapwood::Emit<'_>| {
            if let Some(db) = held.get().and_then(|db: &Mutex<Option<Db>>| db.lock().unwrap().clone()) {
                let mut noted = noted.lock().unwrap();
                noted.push(db.close().unwrap_err().kind());
                noted.push(db.pause_background().unwrap_err().kind());
            }
            emit.key(key);
        };
        handle.set(Mutex::new(Some(db.clone()))).ok().unwrap();
        db.default_keyspace().create_index("i", IndexOptions::new(extract)).unwrap();
        // The extractor's handle would keep the database open.
        handle.get().unwrap().lock().unwrap().take();
        let met = met.lock().unwrap();
        assert!(met.len() >= 2 && met.iter().all(|kind| *kind == ErrorKind::InvalidArgument), "{met:?}");
        db.close().unwrap();
    });
}

#[test]
fn an_opening_that_fails_halfway_leaves_nothing_running() {
    within(LIMIT, "an open that fails", || {
        let (env, fs) = Env::sim(1);
        let db = builder("/db", &env).open().unwrap();
        db.default_keyspace().create_index("i", options()).unwrap();
        db.default_keyspace().put("a", [7; 16]).unwrap();
        let fs = {
            let killed = fs.kill();
            drop(db);
            killed
        };
        let env = env.with_file_system(Arc::new(fs.clone()));
        let before = fs.image_hash();
        let broken = IndexOptions::builtin(Builtin::new(Field::value().pointer("no slash"), KeyKind::Bytes));
        let error = builder("/db", &env).index("default", "i", broken).open().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(fs.image_hash(), before, "a refused open changes nothing");
        assert_eq!(fs.open_handles(), 0);
        let db = builder("/db", &env).index("default", "i", options()).open().unwrap();
        assert_eq!(db.default_keyspace().get("a").unwrap().as_deref(), Some(&[7; 16][..]));
        db.close().unwrap();
    });
}

#[test]
fn what_a_database_held_is_gone_after_its_close_though_handles_live() {
    within(LIMIT, "a close with handles", || {
        let (env, fs) = Env::sim(1);
        let db = builder("/db", &env).open().unwrap();
        let index = db.default_keyspace().create_index("i", options()).unwrap();
        rows(&db, 3000, 1);
        db.flush().unwrap();
        rows(&db, 100, 2);
        assert!(db.default_keyspace().get(5u32.to_be_bytes()).unwrap().is_some());
        let (batch, snapshot) = (db.batch(), db.snapshot());
        db.close().unwrap();
        assert_eq!(db.stats().memtable_bytes, 0, "memtables stay");
        assert_eq!(fs.open_handles(), 0, "files stay open");
        assert_eq!(db.memory().wal, 0, "segments stay mapped");
        drop((batch, snapshot, index));
    });
}

/// The files of a simulated machine, with their content.
fn content(fs: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    fs.files().into_iter().map(|path| (path.clone(), fs.read_file(&path).unwrap())).collect()
}

fn manifest_of(fs: &SimFs) -> PathBuf {
    let mut manifests = fs.files();
    manifests.retain(|path| path.to_string_lossy().contains("MANIFEST"));
    assert_eq!(manifests.len(), 1);
    manifests.remove(0)
}

#[test]
fn an_open_after_a_clean_close_writes_nothing_until_the_database_does() {
    let (env, fs) = Env::sim_manual(1);
    let rows = |db: &Db| db.default_keyspace().iter().count();
    let db = builder("db", &env).open().unwrap();
    db.default_keyspace().put("a", "1").unwrap();
    db.close().unwrap();
    let (before, manifest) = (content(&fs), manifest_of(&fs));
    for _ in 0..3 {
        let db = builder("db", &env).open().unwrap();
        assert_eq!(rows(&db), 1);
        db.close().unwrap();
        assert_eq!(content(&fs), before);
    }
    // Not even a kill changes that.
    std::mem::forget(builder("db", &env).open().unwrap());
    let killed = fs.kill();
    let env = env.with_file_system(Arc::new(killed.clone()));
    assert_eq!(content(&killed), before);
    let db = builder("db", &env).open().unwrap();
    db.default_keyspace().put("b", "2").unwrap();
    // The log of the continued MANIFEST is replayed.
    let killed_again = killed.kill();
    std::mem::forget(db);
    let env = env.with_file_system(Arc::new(killed_again.clone()));
    let db = builder("db", &env).open().unwrap();
    assert_eq!(rows(&db), 2);
    assert_ne!(manifest_of(&killed_again), manifest, "there was a log to record");
    db.close().unwrap();
    let env = env.with_file_system(Arc::new(killed_again.crash_with(|_| false)));
    assert_eq!(rows(&builder("db", &env).open().unwrap()), 2);
}

#[test]
fn a_manifest_that_may_have_lost_its_end_is_not_continued() {
    let (env, fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().unwrap();
    db.default_keyspace().put("a", "1").unwrap();
    db.close().unwrap();
    let manifest = manifest_of(&fs);
    let whole = fs.read_file(&manifest).unwrap();
    let with = |more: &[u8]| [&whole, more].concat();
    // The sync mark has 32 bytes.
    for bytes in
        [with(&[0; 8]), with(b"torn"), whole[..whole.len() - 32].to_vec(), whole[..whole.len() - 1].to_vec()]
    {
        let fs = fs.kill();
        fs.write_file(&manifest, &bytes).unwrap();
        let env = env.with_file_system(Arc::new(fs.clone()));
        let db = builder("db", &env).open().unwrap();
        assert_ne!(manifest_of(&fs), manifest, "{} of {} bytes", bytes.len(), whole.len());
        assert_eq!(db.default_keyspace().iter().count(), 1);
    }
}

#[test]
fn a_manifest_does_not_grow_with_the_number_of_opens() {
    let (env, fs) = Env::sim_manual(1);
    for number in 0..100u32 {
        let db = builder("db", &env).open().unwrap();
        db.default_keyspace().put(number.to_be_bytes(), "1").unwrap();
        db.close().unwrap();
    }
    assert!(fs.read_file(manifest_of(&fs)).unwrap().len() < 8 << 10);
}
