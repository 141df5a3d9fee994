//! `Durability::Periodic` by the clock: a power loss removes no commit that is older than its
//! interval and a sync.
//!
//! The threads of a schedule write in bursts and pause, in three settings: on a device whose syncs
//! take time while other threads run; with log segments whose creation takes longer than any
//! interval; and on a disk that becomes full. At moments of the simulated clock the power fails:
//! every commit that was due before must be there.
use crate::harness::builder;
use sapwood::{Db, Durability, Env, ErrorKind, WriteOptions};
use sapwood_base::Result;
use sapwood_storage::ThreadClass;
use sapwood_storage::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use sapwood_storage::sim::SimFs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The number of schedules.
const SCHEDULES: u64 = 48;
/// The time that threads may need until they are scheduled.
const TURNS: Duration = Duration::from_millis(20);

/// A device with latency, during which other threads run.
struct Device {
    env: Env,
    fs: SimFs,
    /// The duration of a sync of a log segment with records, in milliseconds.
    sync_millis: AtomicU64,
    /// The duration of the creation of a log segment, in milliseconds.
    create_millis: AtomicU64,
}

struct Slow(Arc<Device>);

struct SlowFile {
    device: Arc<Device>,
    file: Box<dyn File>,
}

impl Device {
    fn wait(&self, millis: &AtomicU64) {
        match millis.load(Ordering::Relaxed) {
            0 => {}
            millis => self.env.sleep(Duration::from_millis(millis)),
        }
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

impl File for SlowFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync_data(&self) -> Result<()> {
        // It covers the bytes present at the start of the call.
        let result = self.file.sync_data();
        if is_log(self.file.path()) {
            self.device.wait(&self.device.sync_millis);
        }
        result
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Slow {
    fn wrap(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(SlowFile { device: self.0.clone(), file })
    }
}

impl FileSystem for Slow {
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        self.0.fs.absolute(path)
    }

    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        let file = self.0.fs.create_new(path)?;
        if is_log(path) {
            self.0.wait(&self.0.create_millis);
        }
        Ok(self.wrap(file))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        Ok(self.wrap(self.0.fs.open(path, mode)?))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.0.fs.exists(path)
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        self.0.fs.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.fs.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.fs.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.0.fs.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.0.fs.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.0.fs.remove_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        self.0.fs.list(path)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        self.0.fs.sync_directory(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.0.fs.lock(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.0.fs.space(path)
    }

    fn map_shared(&self, _: &Path, _: usize) -> Result<Option<MappedFile>> {
        Ok(None)
    }
}

/// An acknowledged commit.
struct Commit {
    key: Vec<u8>,
    /// The time from which a power loss may no longer remove it, apart from the duration of a sync.
    due: Duration,
}

/// Runs every schedule.
pub(super) fn kept() {
    for seed in 0..SCHEDULES {
        let (env, fs, schedule) = Env::sim_scheduled(seed);
        // The promise holds on a machine that schedules the thread on time.
        schedule.keep_punctual("sapwood-sync");
        if let Err(what) = schedule.run(move || run(seed, &env, &fs)) {
            panic!("schedule {seed}: {what}");
        }
    }
}

fn open(env: &Env) -> Db {
    builder("db", env)
        .advanced(|options| {
            options.memtable_bytes = Some(1 << 20);
            options.wal_mapped = false;
        })
        .open()
        .expect("it opens")
}

fn run(seed: u64, machine: &Env, fs: &SimFs) {
    let mut random = fastrand::Rng::with_seed(seed);
    let device = Arc::new(Device {
        env: machine.clone(),
        fs: fs.clone(),
        sync_millis: AtomicU64::new(0),
        create_millis: AtomicU64::new(0),
    });
    let env = machine.with_file_system(Arc::new(Slow(device.clone())));
    let db = open(&env);
    let (interval, sync) = (
        *random.choice(&[1, 10, 100, 260, 300, 499, 1000]).expect("some"),
        random.choice([0, 5, 30]).expect("some"),
    );
    device.sync_millis.store(sync, Ordering::Relaxed);
    // Half of the schedules fill segments whose creation takes longer than the interval.
    let is_long = random.bool();
    device.create_millis.store(if is_long { interval * 3 + 100 } else { 0 }, Ordering::Relaxed);
    let fills_disk = random.u8(..3) == 0;
    // A sync in progress at the due time, and one of its own. New segments cost some syncs of
    // headers.
    let allowance = Duration::from_millis(2 * sync) + TURNS;
    let commits: Arc<Mutex<Vec<Commit>>> = Arc::default();
    let mut threads = Vec::new();
    for thread in 0..2u8 {
        let (db, clock, commits) = (db.clone(), env.clone(), commits.clone());
        let mut random = fastrand::Rng::with_seed(random.u64(..));
        let body = move || {
            let keyspace = db.default_keyspace();
            for number in 0..60u8 {
                let key = vec![thread, number];
                let every = Duration::from_millis(interval);
                let options = WriteOptions { durability: Some(Durability::Periodic(every)) };
                let value = vec![number; if is_long { 1500 } else { 20 }];
                match keyspace.put_with(&key, value, &options) {
                    Ok(()) => {
                        let due = clock.now() + every;
                        commits.lock().expect("no panic held it").push(Commit { key, due });
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
                }
                match random.u8(..8) {
                    0 => clock.sleep(Duration::from_millis(interval + random.u64(..3))),
                    1 => clock.sleep(Duration::from_millis(random.u64(..8))),
                    _ => clock.sleep(Duration::from_micros(random.u64(..900))),
                }
            }
        };
        threads.push(env.spawn("writer", ThreadClass::Latency, body).expect("a thread"));
    }
    for moment in 0..12 {
        env.sleep(Duration::from_millis(random.u64(..interval + 60)));
        if moment == 3 && fills_disk {
            fs.set_capacity_bytes(Some(1));
        }
        power_loss(fs, &env, &commits, allowance);
    }
    threads.into_iter().for_each(|thread| thread.join().expect("writes are right"));
    // The writers have ended.
    env.sleep(Duration::from_millis(interval + 1000));
    power_loss(fs, &env, &commits, allowance);
    fs.set_capacity_bytes(None);
    db.close().expect("closed");
}

/// Discards everything that is not durable, and looks for the commits that were due.
fn power_loss(fs: &SimFs, env: &Env, commits: &Mutex<Vec<Commit>>, allowance: Duration) {
    let now = env.now();
    let image = fs.crash_with(|_| false);
    image.set_capacity_bytes(None);
    let due: Vec<(Vec<u8>, Duration)> = {
        let commits = commits.lock().expect("no panic held it");
        let due = commits.iter().filter(|commit| commit.due + allowance < now);
        due.map(|commit| (commit.key.clone(), now - commit.due)).collect()
    };
    // Recovery needs a clock of its own.
    let (quiet, _) = Env::sim_manual(1);
    let db = open(&quiet.with_file_system(Arc::new(image)));
    let keyspace = db.default_keyspace();
    for (key, late) in &due {
        let is_there = keyspace.contains(key).expect("read");
        assert!(is_there, "of {} commits, {key:?} is gone {late:?} after it was due", due.len());
    }
}
