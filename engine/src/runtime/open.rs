//! The first half of an open: the directory, recovery, and a core without threads.
use super::core::Core;
use super::counters::Counters;
use super::health::OPEN;
use super::views::{announce_indexes, keyspace_views};
use crate::background;
use crate::background::state::Background;
use crate::directory::{Place, Terms};
use crate::manifest::Manifest;
use crate::options::DbOptions;
use crate::read::view::{View, ViewCell};
use crate::recovery::{self, MemtableSource, Recovered, Rest};
use crate::wal::{Earlier, SegmentOptions, Wal};
use crate::write::locks::KeyLocks;
use crate::write::stall::Stall;
use crossbeam::channel::Receiver;
use sapwood_base::format::file_name::FileName;
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_memtable::{ArenaPool, MemtableOptions};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::cache::BufferCache;
use sapwood_storage::env::fork::{Running, StatusWord};
use sapwood_storage::fs::LockGuard;
use sapwood_storage::fs::bounded::BoundedFileSystem;
use sapwood_storage::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// The lists of the cache take one byte per this many bytes of the cache.
const CACHE_BYTES_PER_LISTED: usize = 128;

/// The files of the database, and what holds them.
struct Claimed {
    files: Arc<DatabaseFiles>,
    /// Their file system, which bounds the open ones.
    fs: Arc<BoundedFileSystem>,
    names: Vec<FileName>,
    lock: Option<Box<dyn LockGuard>>,
    obsolete: Receiver<FileName>,
}

impl Claimed {
    /// Claims the directory. From here on all files go through a file system of its own: it
    /// belongs to this directory, and bounds the number of open files.
    fn claim(terms: &Terms, options: &mut DbOptions, cache_bytes: usize) -> Result<Claimed> {
        let most = options.advanced.max_open_files.unwrap_or(usize::MAX);
        let Place { fs, directory, names, lock } = Place::open(terms, options.env.fs(), most)?;
        options.env = options.env.with_file_system(fs.clone());
        // This includes the lists of the cache: a word or two for each of its blocks.
        options.env.check_memory(cache_bytes / CACHE_BYTES_PER_LISTED)?;
        let (sender, obsolete) = crossbeam::channel::unbounded();
        let cache = BufferCache::new(cache_bytes)?;
        let mut files = DatabaseFiles::new(fs.clone(), directory, cache, sender);
        // An explicit cache size is not reduced by tables; otherwise the budget determines the
        // size.
        files.charges_tables = options.advanced.cache_bytes.is_none();
        Ok(Claimed { files: Arc::new(files), fs, names, lock, obsolete })
    }
}

/// Reads the state and replays the log. Writes a new MANIFEST unless the database is read-only.
fn recover(
    terms: &Terms,
    claimed: &Claimed,
    options: &DbOptions,
    arenas: &Arc<ArenaPool>,
    segments: SegmentOptions,
) -> Result<(Recovered, Option<Manifest>)> {
    let (files, env) = (&claimed.files, &options.env);
    let source = MemtableSource {
        arenas,
        memtable_bytes: options.memtable_bytes,
        // Without a flush the log must stay in memory.
        most: if options.read_only { usize::MAX } else { options.advanced.max_memtables },
        first_memtable: 0,
        env: env.allows_pools().then_some(env),
    };
    let mut recovered = recovery::analyze(files, &claimed.names, env.random_u64(), &source)?;
    for entry in recovered.manifest.named() {
        let about = |error: Error| error.context(&format!("keyspace {:?}", entry.state.name));
        entry.state.options.check_available().map_err(about)?;
    }
    if recovered.is_new && !terms.may_create() {
        return Err(terms.missing(&files.directory));
    }
    if options.read_only {
        return Ok((recovered, None));
    }
    let manifest = recovery::commit(files, &mut recovered)?;
    recovery::sweep(files, &mut recovered, segments);
    Ok((recovered, Some(manifest)))
}

/// The threads that share a compaction, if several do.
fn merge_threads(options: &DbOptions) -> Result<Option<rayon::ThreadPool>> {
    let (env, threads) = (&options.env, options.advanced.subcompactions);
    if threads <= 1 || options.read_only || !env.allows_pools() {
        return Ok(None);
    }
    env.check_threads(threads)?;
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|number| format!("sapwood-merge-{number}"))
        .build();
    let failed = |error| Error::new(ErrorKind::Io, format!("cannot start threads: {error}"));
    built.map(Some).map_err(failed)
}

impl Core {
    /// Returns the core, and the part of the log that has no memtable yet.
    pub(crate) fn open(
        terms: &Terms,
        mut options: DbOptions,
        cache_bytes: usize,
    ) -> Result<(Arc<Core>, Option<Rest>)> {
        let running = Running::begin()?;
        let claimed = Claimed::claim(terms, &mut options, cache_bytes)?;
        let memtables = MemtableOptions { size_bytes: options.memtable_bytes };
        let arenas = ArenaPool::keeping(memtables, options.advanced.max_memtables);
        let memtables_bytes = options.advanced.max_memtables.saturating_mul(options.memtable_bytes);
        let (first, full) = options.segment_bytes;
        let segments = SegmentOptions::new(first, full, memtables_bytes, options.advanced.wal_mapped);
        let (recovered, manifest) = recover(terms, &claimed, &options, &arenas, segments)?;
        let begin = recovered.begin();
        let before = Earlier {
            durable: recovered.durable(),
            retained: recovered.retained,
            unsynced: recovered.unsynced,
            spare_files: recovered.spare_files,
        };
        let wal = Wal::new(&claimed.files, recovered.database, begin, segments, before);
        let state = manifest.as_ref().map_or(&recovered.manifest, |manifest| &manifest.state);
        for entry in state.named() {
            announce_indexes(state, &entry.state);
        }
        let next_memtable = recovered.generations.len() as u64;
        let view = View {
            generations: recovered.generations.into_iter().rev().collect(),
            keyspaces: keyspace_views(state),
        };
        view.expect_appends(&view.active()?.memtable, None)?;
        let pool = merge_threads(&options)?;
        // Only if it is read: it would keep every table of the session, and so their files.
        let fixed_state = manifest.is_none().then(|| state.clone());
        let opened_at = options.env.now();
        let core = Arc::new_cyclic(|this| Core {
            this: this.clone(),
            any_step: background::any_step,
            opened_at,
            replayed_log_bytes: recovered.log_bytes,
            pool,
            fixed_state: Mutex::new(fixed_state),
            files: claimed.files,
            fs: claimed.fs,
            obsolete_files: claimed.obsolete,
            arenas,
            wal,
            view: ViewCell::new(view),
            snapshots: Arc::default(),
            stall: Stall::default(),
            counters: Counters::default(),
            background: Background::default(),
            large_commit: Mutex::new(()),
            claimed_bytes: AtomicUsize::new(0),
            flushing: Mutex::new(()),
            making_index: Mutex::new(()),
            key_locks: KeyLocks::default(),
            manifest: Mutex::new(manifest),
            view_change: Mutex::new(()),
            rotating: Mutex::new(()),
            next_memtable: AtomicU64::new(next_memtable),
            reads_seen: AtomicU64::new(0),
            status: StatusWord::new(OPEN),
            watches_puts: AtomicBool::new(false),
            poison: Mutex::new(None),
            no_space: Mutex::default(),
            closing: Mutex::new(false),
            lock: Mutex::new(claimed.lock),
            running: Mutex::new(Some(running)),
            options,
        });
        Ok((core, recovered.rest))
    }
}
