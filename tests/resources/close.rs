//! After the last handle is dropped, all resources of the database are released.
use super::*;
use std::sync::mpsc;

fn open(path: &std::path::Path) -> Db {
    let small = |o: &mut AdvancedOptions| {
        o.cache_bytes = Some(16 << 20);
        o.memtable_bytes = Some(2 << 20);
        o.wal_segment_bytes = 1 << 20;
    };
    Db::builder(path).memory_budget(32 << 20).advanced(small).open().unwrap()
}

fn fill(db: &Db, rows: u64) {
    let rows = 0..rows;
    rows.for_each(|i| db.default_keyspace().put(key(i), [i as u8; 100]).unwrap());
    db.settle().unwrap();
}

/// More than the cache holds, so that the reading thread evicts blocks.
const ROWS: u64 = 300_000;

fn read_all(space: &Keyspace, rows: u64) {
    for i in 0..rows {
        // In an order different from that of the blocks, like typical gets.
        assert!(space.get(key(i)).unwrap().is_some());
    }
}

/// An idle thread kept the frames that it had evicted as a reader, and with them the whole cache.
pub(super) fn a_thread_that_has_read_and_lives_on_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fill(&open(folder.path()), ROWS);
    let parked = Parked::start();
    parked.run(|| {});
    let before = Resources::now().unwrap();
    for _ in 0..3 {
        let db = open(folder.path());
        let space = db.default_keyspace();
        parked.run(move || read_all(&space, ROWS));
        let remains = db.remains();
        db.close().unwrap();
        drop(db);
        assert_eq!(remains.left(), [""; 0]);
        before.check_back(Slack::default()).unwrap();
    }
}

/// A long read of another database of the process holds one epoch guard.
pub(super) fn a_thread_that_stays_in_another_database_keeps_nothing() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    fill(&open(folders[0].path()), ROWS);
    let other = open(folders[1].path());
    other.default_keyspace().put("row", "value").unwrap();
    let (enter, entered) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let space = other.default_keyspace();
    let thread = std::thread::spawn(move || {
        space.get_with("row", |_| {
            enter.send(()).unwrap();
            left.recv().unwrap();
        })
    });
    entered.recv().unwrap();
    // The first round is for the allocator: each concurrent thread leaves it some mebibytes.
    let mut before = None;
    for round in 0..4 {
        let db = open(folders[0].path());
        let space = db.default_keyspace();
        (0..50_000).for_each(|i| space.put(key(i), [1; 100]).unwrap());
        (0..ROWS).step_by(4).for_each(|i| assert!(space.get(key(i)).unwrap().is_some()));
        db.flush().unwrap();
        (0..50_000).for_each(|i| space.put(key(i), [i as u8; 100]).unwrap());
        let remains = db.remains();
        db.close().unwrap();
        drop((space, db));
        assert_eq!(remains.left(), [""; 0]);
        match before {
            None => before = Resources::now(),
            Some(before) => {
                // Until the reader leaves, the collector keeps a note of each evicted block: at
                // most half a cache per round. The blocks would be another whole cache, and the
                // memtables another half.
                let anonymous_bytes = round * (12 << 20);
                before.check_back(Slack { anonymous_bytes, ..Slack::default() }).unwrap();
            }
        }
    }
    leave.send(()).unwrap();
    thread.join().unwrap().unwrap();
}

/// Threads that wait for jobs, like those of a pool, and run them.
struct Parked {
    work: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    done: mpsc::Receiver<()>,
}

impl Parked {
    fn start() -> Parked {
        let (work, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (say, done) = mpsc::channel();
        std::thread::spawn(move || {
            for job in jobs {
                job();
                if say.send(()).is_err() {
                    return;
                }
            }
        });
        Parked { work, done }
    }

    /// Runs the job on the thread, and waits for its end.
    fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.work.send(Box::new(job)).unwrap();
        self.done.recv().unwrap();
    }
}
