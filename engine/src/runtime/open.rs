//! The first half of an opening: the directory, recovery, and a core without threads.
use super::core::Core;
use super::counters::Counters;
use super::health::OPEN;
use super::views::{announce_indexes, keyspace_views};
use crate::background;
use crate::background::state::Background;
use crate::directory::{Place, Terms};
use crate::options::DbOptions;
use crate::read::super_version::{SuperVersion, SuperVersionCell};
use crate::recovery::{self, MemtableSource, Rest};
use crate::wal::{Earlier, SegmentOptions, Wal};
use crate::write::locks::KeyLocks;
use crate::write::stall::Stall;
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_compaction::TableContext;
use sapwood_memtable::{ArenaPool, MemtableOptions};
use sapwood_storage::cache::BufferCache;
use sapwood_storage::env::fork::{Running, StatusWord};
use sapwood_storage::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// The lists of the cache take one byte per this many bytes of the cache.
const CACHE_BYTES_PER_LISTED: usize = 128;

impl Core {
    /// Returns the core, and the part of the log that has no memtable yet.
    pub(crate) fn open(
        terms: &Terms,
        mut options: DbOptions,
        cache_bytes: usize,
    ) -> Result<(Arc<Core>, Option<Rest>)> {
        let running = Running::begin()?;
        let env = options.env.clone();
        let most = options.advanced.max_open_files.unwrap_or(usize::MAX);
        let Place { fs, directory, names, lock } = Place::open(terms, env.fs(), most)?;
        let unfinished = terms.missing(&directory);
        // From here on all files go through this file system: it belongs to this directory, and
        // bounds the number of open files.
        options.env = env.with_file_system(fs.clone());
        let env = &options.env;
        // This includes the lists of the cache: a word or two for each of its blocks.
        env.check_memory(cache_bytes / CACHE_BYTES_PER_LISTED)?;
        let (sender, obsolete_files) = crossbeam::channel::unbounded();
        let files = fs.clone();
        let mut context = TableContext::new(fs, directory, BufferCache::new(cache_bytes)?, sender);
        // An explicit cache size is not reduced by tables; otherwise the budget determines the
        // size.
        context.charges_tables = options.advanced.cache_bytes.is_none();
        let context = Arc::new(context);
        let memtables = MemtableOptions { size_bytes: options.memtable_bytes };
        let arenas = ArenaPool::keeping(memtables, options.advanced.max_memtables);
        let source = MemtableSource {
            arenas: &arenas,
            memtable_bytes: options.memtable_bytes,
            // Without a flush the log must stay in memory.
            most: if options.read_only { usize::MAX } else { options.advanced.max_memtables },
            first_memtable: 0,
            env: env.allows_pools().then_some(env),
        };
        let mut recovered = recovery::analyze(&context, &names, env.random_u64(), &source)?;
        for entry in recovered.manifest.named() {
            let about = |error: Error| error.context(&format!("keyspace {:?}", entry.state.name));
            entry.state.options.check_available().map_err(about)?;
        }
        if recovered.is_new && !terms.may_create() {
            return Err(unfinished);
        }
        let memtables_bytes = options.advanced.max_memtables.saturating_mul(options.memtable_bytes);
        let segments =
            SegmentOptions::new(options.segment_bytes, memtables_bytes, options.advanced.wal_mapped);
        let manifest = match options.read_only {
            true => None,
            false => {
                let manifest = recovery::commit(&context, &mut recovered)?;
                recovery::sweep(&context, &mut recovered, segments);
                Some(manifest)
            }
        };
        let begin = recovered.begin();
        let before = Earlier {
            durable: recovered.durable(),
            retained: recovered.retained,
            unsynced: recovered.unsynced,
            spare_files: recovered.spare_files.into_iter().map(|(number, _)| number).collect(),
        };
        let wal = Wal::new(&context, recovered.database, begin, segments, before);
        let state = manifest.as_ref().map_or(&recovered.manifest, |manifest| &manifest.state);
        for entry in state.named() {
            announce_indexes(state, &entry.state);
        }
        let next_memtable = recovered.generations.len() as u64;
        let view = SuperVersion {
            generations: recovered.generations.into_iter().rev().collect(),
            keyspaces: keyspace_views(state),
        };
        view.expect_appends(&view.active()?.memtable, None)?;
        let subcompactions = options.advanced.subcompactions;
        let pool =
            match subcompactions > 1 && !options.read_only && env.allows_pools() {
                true => {
                    env.check_threads(subcompactions)?;
                    let built = rayon::ThreadPoolBuilder::new()
                        .num_threads(subcompactions)
                        .thread_name(|number| format!("sapwood-merge-{number}"))
                        .build();
                    Some(built.map_err(|error| {
                        Error::new(ErrorKind::Io, format!("cannot start threads: {error}"))
                    })?)
                }
                false => None,
            };
        // Only if it is read: it would keep every table of the opening, and so their files.
        let fixed_state = manifest.is_none().then(|| state.clone());
        let opened_at = env.now();
        let core = Arc::new_cyclic(|this| Core {
            this: this.clone(),
            any_step: background::any_step,
            opened_at,
            replayed_log_bytes: recovered.log_bytes,
            pool,
            fixed_state: Mutex::new(fixed_state),
            context,
            files,
            obsolete_files,
            arenas,
            wal,
            view: SuperVersionCell::new(view),
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
            lock: Mutex::new(lock),
            running: Mutex::new(Some(running)),
            options,
        });
        Ok((core, recovered.rest))
    }
}
