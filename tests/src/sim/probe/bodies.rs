//! Payloads that are written apart from their records, while small commits are synced, flushed and
//! rotated past them. Reopens the states after a kill or a power loss repeatedly.
use crate::harness::builder;
use sapwood::{AdvancedOptions, Db, Durability, Env};
use sapwood_storage::ThreadClass;
use sapwood_storage::sim::SimFs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const SEEDS: u64 = 8;
const LARGE: u32 = 5;
/// A dozen segments of the log.
const LARGE_BYTES: usize = 700_000;
const IMAGES: usize = 6;

/// Commits of each kind that were acknowledged, and acknowledged as durable.
#[derive(Clone, Copy, Default)]
struct Promise {
    large: [u32; 2],
    small: [u32; 2],
}

struct Image {
    fs: SimFs,
    promise: Promise,
    /// Whether the machine lost power.
    power: bool,
}

fn memtables(bytes: usize, count: usize) -> impl FnOnce(&mut AdvancedOptions) {
    move |options| {
        options.memtable_bytes = Some(bytes);
        options.max_memtables = count;
        options.wal_segment_bytes = 64 << 10;
    }
}

fn large_value(number: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(number));
    std::iter::repeat_with(|| random.u64(..).to_le_bytes()).flatten().take(LARGE_BYTES).collect()
}

fn small_value(number: u32) -> Vec<u8> {
    number.to_be_bytes().repeat(60 + 1500 * (number % 2) as usize)
}

fn write(
    db: &Db,
    promise: &Mutex<Promise>,
    key: String,
    value: &[u8],
    kind: fn(&mut Promise) -> &mut [u32; 2],
    sync: bool,
) {
    let durability = if sync { Durability::Sync } else { Durability::Buffered };
    let mut batch = db.batch();
    batch.put(&db.default_keyspace(), key, value);
    batch.commit_durable(durability).expect("written");
    let mut promise = promise.lock().expect("no panic held it");
    let counts = kind(&mut promise);
    counts[0] += 1;
    if sync {
        counts[1] = counts[0];
    }
}

/// Every promised commit is present, with the written value.
fn check(db: &Db, image: &Image, what: &str) {
    let rows = db.default_keyspace();
    type Value = fn(u32) -> Vec<u8>;
    let large = ("large", image.promise.large, large_value as Value);
    let small = ("small", image.promise.small, small_value as Value);
    for (kind, promised, value) in [large, small] {
        let floor = promised[usize::from(image.power)];
        let mut number = 0;
        while let Some(found) = rows.get(format!("{kind}-{number:05}")).expect("read") {
            assert!(found[..] == value(number), "{what}: {kind} value {number} is wrong");
            number += 1;
        }
        assert!(number >= floor, "{what}: of {floor} {kind} values {number} are there");
    }
}

fn run(seed: u64) -> Vec<Image> {
    let (env, fs, schedule) = Env::sim_scheduled(seed);
    let images = Arc::new(Mutex::new(Vec::new()));
    let outcome = {
        let images = images.clone();
        schedule.run(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            // In half of the seeds memtables rotate while a payload is copied, in the others
            // rarely.
            let bytes = if seed.is_multiple_of(2) { 1 << 20 } else { 64 << 10 };
            let db = builder("/db", &env).advanced(memtables(bytes, 3)).open().expect("opened");
            let promise = Arc::new(Mutex::new(Promise::default()));
            let done = Arc::new(AtomicBool::new(false));
            let large = {
                let (db, promise, done) = (db.clone(), promise.clone(), done.clone());
                let mut random = random.fork();
                let body = move || {
                    for number in 0..LARGE {
                        let (key, value) = (format!("large-{number:05}"), large_value(number));
                        write(&db, &promise, key, &value, |promise| &mut promise.large, random.u8(..3) == 0);
                    }
                    done.store(true, Ordering::Release);
                };
                env.spawn("large", ThreadClass::Latency, body).expect("a thread")
            };
            let small = {
                let (db, promise, done) = (db.clone(), promise.clone(), done.clone());
                let mut random = random.fork();
                let body = move || {
                    for number in 0.. {
                        let (key, value) = (format!("small-{number:05}"), small_value(number));
                        write(&db, &promise, key, &value, |promise| &mut promise.small, random.u8(..20) == 0);
                        if done.load(Ordering::Acquire) {
                            break;
                        }
                        if random.u8(..200) == 0 {
                            db.flush().expect("flushed");
                        }
                    }
                };
                env.spawn("small", ThreadClass::Latency, body).expect("a thread")
            };
            for number in 0..IMAGES {
                let turns = random.u32(..3000);
                for _ in 0..turns {
                    sapwood_storage::sync::step();
                }
                let power = number % 2 == 1;
                let promise = *promise.lock().expect("no panic held it");
                let fs = if power { fs.crash(random.u64(..)) } else { fs.kill() };
                images.lock().expect("no panic held it").push(Image { fs, promise, power });
            }
            large.join().expect("written");
            small.join().expect("written");
            let promise = *promise.lock().expect("no panic held it");
            let last = Image { fs: fs.kill(), promise, power: false };
            check(&db, &last, "before the close");
            images.lock().expect("no panic held it").push(last);
            db.close().expect("closed");
        })
    };
    outcome.expect("the schedule ends");
    Arc::into_inner(images).expect("all threads have ended").into_inner().expect("no panic held it")
}

/// See the module.
pub(super) fn written_apart() {
    for seed in 0..SEEDS {
        for (number, image) in run(seed).into_iter().enumerate() {
            let what = format!("seed {seed}, image {number}");
            // With little memory an open flushes during replay, and releases parts of the log.
            let mut fs = image.fs.clone();
            for session in 0..3 {
                let (env, _) = Env::sim_manual(seed);
                let env = env.with_file_system(Arc::new(fs.clone()));
                let db = builder("/db", &env).advanced(memtables(64 << 10, 2)).open();
                let db = db.unwrap_or_else(|error| panic!("{what}, session {session}: {error}"));
                check(&db, &image, &format!("{what}, session {session}"));
                fs.crash_at(0);
                drop(db);
                fs = fs.kill();
            }
        }
    }
}
