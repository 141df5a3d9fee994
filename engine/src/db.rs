//! The database: opening, closing, and what concerns all keyspaces.
use crate::background::{self, Background, FLUSH};
use crate::keyspace::{Keyspace, KeyspaceOptions, KeyspaceState, check_name};
use crate::manifest::{self, Manifest, ManifestState};
use crate::options::{AdvancedOptions, Durability};
use crate::read::snapshot::{Snapshot, SnapshotList};
use crate::read::super_version::{Generation, KeyspaceView, SuperVersion, SuperVersionCell};
use crate::recovery::{self, MemtableSource, keyspace_capacity};
use crate::stats::{self, Counters, Health, Memory, Stats};
use crate::wal::Wal;
use crate::write::batch::WriteBatch;
use crate::write::stall::{STEP, Stall};
use crossbeam::channel::Receiver;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{HEADER_BYTES, RecordKind};
use sapwood_base::format::manifest::Edit;
use sapwood_base::key::MAX_KEYSPACES;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, ErrorKind, FileNumber, KeyspaceId, Result, SequenceNumber};
use sapwood_compaction::{CompactionOptions, TableContext, TableHandle, Version, picker};
use sapwood_memtable::{ArenaPool, Memtable, MemtableOptions};
use sapwood_storage::cache::BufferCache;
use sapwood_storage::fs::{FileSystem, LockGuard};
use sapwood_storage::sync::Mutex;
use std::collections::{HashMap, HashSet};
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Fewer block reads between two flushes make the new tables not worth a place in the cache.
const READS_THAT_COUNT: u64 = 1000;
const DEFAULT_KEYSPACE: &str = "default";
const DEFAULT_BUDGET_BYTES: usize = 512 << 20;

/// Settings as `open` found them.
pub(crate) struct DbOptions {
    pub(crate) memory_budget: usize,
    pub(crate) durability: Durability,
    pub(crate) read_only: bool,
    pub(crate) memtable_bytes: usize,
    pub(crate) advanced: AdvancedOptions,
    pub(crate) env: sapwood_storage::env::Env,
}

/// Opens a database.
#[derive(Clone)]
pub struct DbBuilder {
    path: PathBuf,
    memory_budget: usize,
    durability: Durability,
    create_if_missing: bool,
    error_if_exists: bool,
    read_only: bool,
    advanced: AdvancedOptions,
}

impl DbBuilder {
    /// Bytes for memtables and cache together; 512 MiB if not set, at least 4 MiB. Indexes and filters of open tables
    /// (about 2 % of the data), and mapped log segments, which are file pages, come on top: see [`Db::memory`].
    pub fn memory_budget(mut self, bytes: usize) -> DbBuilder {
        self.memory_budget = bytes;
        self
    }

    /// What a write survives unless it says otherwise; [`Durability::Buffered`] if not set.
    pub fn durability(mut self, durability: Durability) -> DbBuilder {
        self.durability = durability;
        self
    }

    /// Makes the database if there is none (the default); otherwise that is an error.
    pub fn create_if_missing(mut self, create: bool) -> DbBuilder {
        self.create_if_missing = create;
        self
    }

    /// Refuses a database that exists.
    pub fn error_if_exists(mut self, refuse: bool) -> DbBuilder {
        self.error_if_exists = refuse;
        self
    }

    /// Opens for reading only: no byte on disk changes. Writes are an error.
    pub fn read_only(mut self, read_only: bool) -> DbBuilder {
        self.read_only = read_only;
        self
    }

    /// Changes settings that most programs leave alone.
    pub fn advanced(mut self, change: impl FnOnce(&mut AdvancedOptions)) -> DbBuilder {
        change(&mut self.advanced);
        self
    }

    /// Opens the database; replays the log of an unclean end.
    ///
    /// Errors: `Locked` if it is open elsewhere, `NotFound` if there is none to open, `InvalidArgument` for a setting
    /// out of range or a directory that holds something else, `Unsupported` for a newer format, `Corruption` with
    /// file and offset for damage. Nothing on disk has changed then.
    pub fn open(self) -> Result<Db> {
        self.advanced.validate()?;
        if self.memory_budget < 4 << 20 {
            return Err(Error::invalid_argument("memory_budget must be at least 4 MiB"));
        }
        let env = self.advanced.env.clone();
        let memtable_bytes =
            self.advanced.memtable_bytes.unwrap_or((self.memory_budget / 8).clamp(1 << 20, 128 << 20));
        // What the log maps beyond the memtables' own size: a spare segment or two.
        let write_bytes = self.advanced.max_memtables * memtable_bytes;
        let cache_bytes =
            self.advanced.cache_bytes.unwrap_or_else(|| self.memory_budget.saturating_sub(write_bytes));
        let options = DbOptions {
            memory_budget: self.memory_budget,
            durability: self.durability,
            read_only: self.read_only,
            memtable_bytes,
            advanced: self.advanced.clone(),
            env,
        };
        let core = Core::open(&self, options, cache_bytes)?;
        let inner = Arc::new(DbInner { core: core.clone() });
        let db = Db { inner };
        if !core.options.read_only {
            Background::start(&core)?;
            if core.manifest_state(|state| state.by_name(DEFAULT_KEYSPACE).is_none()) {
                db.keyspace(DEFAULT_KEYSPACE, KeyspaceOptions::default())?;
            }
            core.background.wake_flush();
            core.background.wake_compaction();
        }
        Ok(db)
    }
}

/// A database. Cheap to clone, usable from any thread; closed when the last handle (of it or of a keyspace, batch or
/// commit) is dropped.
#[derive(Clone)]
pub struct Db {
    inner: Arc<DbInner>,
}

/// What handles share. Dropping the last one closes the database.
pub(crate) struct DbInner {
    pub(crate) core: Arc<Core>,
}

impl Drop for DbInner {
    fn drop(&mut self) {
        // Who wants to know of errors calls `close`.
        let _ = self.core.close();
    }
}

impl Db {
    /// Settings for the database in `path`.
    pub fn builder(path: impl AsRef<Path>) -> DbBuilder {
        DbBuilder {
            path: path.as_ref().to_path_buf(),
            memory_budget: DEFAULT_BUDGET_BYTES,
            durability: Durability::default(),
            create_if_missing: true,
            error_if_exists: false,
            read_only: false,
            advanced: AdvancedOptions::default(),
        }
    }

    /// Opens the database in `path` with default settings, making it if there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Db::builder(path).open()
    }

    /// Removes a database's files, and its directory if nothing else is in it. A directory without a database is left
    /// alone, and is no error.
    pub fn destroy(path: impl AsRef<Path>) -> Result<()> {
        Db::destroy_in(path, &AdvancedOptions::default())
    }

    /// [`Db::destroy`] on the files of `options.env`.
    pub fn destroy_in(path: impl AsRef<Path>, options: &AdvancedOptions) -> Result<()> {
        let (path, fs) = (path.as_ref(), options.env.fs());
        if !fs.exists(path)? {
            return Ok(());
        }
        let names = manifest::list(&**fs, path)?;
        if !names.iter().any(|name| matches!(name, FileName::Manifest(_))) {
            return Ok(());
        }
        let lock = fs.lock(&path.join(FileName::Lock.format()))?;
        // Tables first: what is left after a crash in between is still recognised as a database to destroy.
        let (manifests, others): (Vec<FileName>, Vec<FileName>) =
            names.into_iter().partition(|name| matches!(name, FileName::Manifest(_)));
        for name in others.iter().filter(|name| **name != FileName::Lock).chain(&manifests) {
            fs.remove_file(&path.join(name.format()))?;
        }
        drop(lock);
        let lock_path = path.join(FileName::Lock.format());
        if fs.exists(&lock_path)? {
            fs.remove_file(&lock_path)?;
        }
        if fs.list(path)?.is_empty() {
            fs.remove_dir(path)?;
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.core.context.directory
    }

    /// The keyspace `name`, made with `options` if there is none. Options of one that exists are not changed.
    pub fn keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let core = &self.inner.core;
        if let Some(state) = core.manifest_state(|state| state.by_name(name).map(|entry| entry.state.clone()))
        {
            core.check_open()?;
            core.make_room_for_keyspace(state.id)?;
            return Ok(Keyspace::new(&self.inner, &state));
        }
        let state = core.create_keyspace(name, options)?;
        core.make_room_for_keyspace(state.id)?;
        Ok(Keyspace::new(&self.inner, &state))
    }

    /// The keyspace that every database has, `"default"`. In a read-only database that was never opened for writing
    /// it is missing, and reads of it say so.
    pub fn default_keyspace(&self) -> Keyspace {
        let core = &self.inner.core;
        let state = core
            .manifest_state(|state| state.by_name(DEFAULT_KEYSPACE).map(|entry| entry.state.clone()))
            .unwrap_or_else(|| {
                let state =
                    KeyspaceState::new(KeyspaceId(u32::MAX), DEFAULT_KEYSPACE, KeyspaceOptions::default());
                state.mark_dropped();
                state
            });
        Keyspace::new(&self.inner, &state)
    }

    /// The names of all keyspaces, sorted.
    pub fn list_keyspaces(&self) -> Result<Vec<String>> {
        self.inner.core.check_open()?;
        let mut names: Vec<String> = self
            .inner
            .core
            .manifest_state(|state| state.keyspaces.values().map(|entry| entry.state.name.clone()).collect());
        names.sort();
        Ok(names)
    }

    /// Drops a keyspace with all its data, durably. Handles of it give errors from then on; snapshots no longer see
    /// it; cursors that are open go on.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.inner.core.drop_keyspace(name)
    }

    /// An empty batch.
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::new(&self.inner)
    }

    /// The present state, to be read as long as the snapshot lives.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.core.snapshot()
    }

    /// Makes everything acknowledged so far survive a power loss. (What was written with [`Durability::None`] is not
    /// in the log; [`Db::flush`] saves it.)
    pub fn sync(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_writable()?;
        core.wait_durable(core.wal.published())
    }

    /// Writes everything acknowledged so far into tables, and waits for it.
    pub fn flush(&self) -> Result<()> {
        self.inner.core.flush()
    }

    /// Merges every keyspace into its last level. See [`Keyspace::compact_range`].
    pub fn compact(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_writable()?;
        let ids: Vec<KeyspaceId> = core.manifest_state(|state| state.keyspaces.keys().copied().collect());
        ids.into_iter().try_for_each(|id| core.compact_range(id, None, None))
    }

    /// Merges `range` of the default keyspace into its last level.
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.default_keyspace().compact_range(range)
    }

    /// Waits until no flush and no compaction is due or under way. With compaction switched off, waits for flushes.
    pub fn wait_for_background(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_open()?;
        core.background.wake_flush();
        core.background.wake_compaction();
        background::wait_until(core, || {
            core.check_not_poisoned()?;
            let flushed = core.view.reference().generations.len() == 1;
            Ok(flushed && !core.background.is_running() && !background::compaction_due(core))
        })
    }

    /// Stops flushes and compactions, waiting for the present slice. Writes go on until memtables are full.
    pub fn pause_background(&self) -> Result<()> {
        self.inner.core.check_open()?;
        self.inner.core.background.pause();
        Ok(())
    }

    /// Takes one [`Db::pause_background`] back.
    pub fn resume_background(&self) {
        self.inner.core.background.resume();
    }

    /// Does one step of background work on the caller's thread, for a database on a machine that starts no threads
    /// ([`Env::sim_manual`](sapwood_storage::env::Env::sim_manual)). False if there was nothing to do, or background
    /// work is paused. Errors of the step surface as they do from threads: in [`Db::health`] and the next write.
    #[cfg(feature = "sim")]
    pub fn background_step(&self, step: background::BackgroundStep) -> Result<bool> {
        self.inner.core.check_open()?;
        Ok(background::run_step(&self.inner.core, step))
    }

    /// Reads every table and checks everything that reads and compactions take for granted: that runs are in order of
    /// age and their tables lie apart, that bounds, counts and sequence numbers of the MANIFEST are true, and that of
    /// every key newer runs hold newer versions. For tests; takes as long as reading the database.
    ///
    /// Errors: `Corruption` that names the file.
    #[cfg(feature = "sim")]
    pub fn check_structure(&self) -> Result<()> {
        self.inner.core.check_open()?;
        crate::structure::check(&self.inner.core)
    }

    /// Figures of all layers.
    pub fn stats(&self) -> Stats {
        stats::gather(&self.inner.core)
    }

    /// Memory in use, by purpose.
    pub fn memory(&self) -> Memory {
        stats::memory(&self.inner.core)
    }

    /// Whether the database takes writes.
    pub fn health(&self) -> Health {
        self.inner.core.health()
    }

    /// Flushes, syncs and closes. Other handles of the database give errors of kind `Closed` from then on. Errors of
    /// the last flush are reported; the log still holds what was acknowledged. A second call does nothing.
    pub fn close(&self) -> Result<()> {
        self.inner.core.close()
    }
}

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const POISONED: u8 = 2;

/// The database behind the handles.
pub(crate) struct Core {
    pub(crate) options: DbOptions,
    pub(crate) context: Arc<TableContext>,
    pub(crate) obsolete_files: Receiver<FileNumber>,
    pub(crate) arenas: Arc<ArenaPool>,
    pub(crate) wal: Wal,
    pub(crate) view: SuperVersionCell,
    pub(crate) snapshots: Arc<SnapshotList>,
    pub(crate) stall: Stall,
    pub(crate) counters: Counters,
    pub(crate) background: Background,
    pub(crate) opened_at: Duration,
    pub(crate) replayed_log_bytes: u64,
    /// Threads that share a compaction; none when one thread does it all.
    pub(crate) pool: Option<rayon::ThreadPool>,
    /// Taken by batches above a megabyte.
    pub(crate) large_commit: Mutex<()>,
    /// Held during a flush: there is one at a time, oldest memtable first.
    pub(crate) flushing: Mutex<()>,
    manifest: Mutex<Option<Manifest>>,
    /// The state of a read-only database, which has no open MANIFEST.
    fixed_state: ManifestState,
    /// Guards replacing the view. Taken after `manifest` where both are.
    view_change: Mutex<()>,
    rotating: Mutex<()>,
    next_memtable: AtomicU64,
    /// Block reads when the last memtable was flushed.
    reads_seen: AtomicU64,
    status: AtomicU8,
    poison: Mutex<Option<Error>>,
    /// What met a full disk, and what it met.
    no_space: Mutex<Vec<(&'static str, Error)>>,
    closing: Mutex<bool>,
    /// What [`Bug::StaleRow`] remembers.
    pub(crate) stale_rows: planted::Rows,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

impl Core {
    fn open(builder: &DbBuilder, options: DbOptions, cache_bytes: usize) -> Result<Arc<Core>> {
        let env = &options.env;
        let fs = env.fs().clone();
        let directory = builder.path.clone();
        let missing = || {
            let message = "there is no database here; create_if_missing makes one";
            Error::new(ErrorKind::NotFound, message).in_file(&directory)
        };
        let may_create = builder.create_if_missing && !builder.read_only;
        if !fs.exists(&directory)? {
            if !may_create {
                return Err(missing());
            }
            make_directory(&*fs, &directory)?;
        }
        let mut names = manifest::list(&*fs, &directory)?;
        let exists = names.iter().any(|name| matches!(name, FileName::Manifest(_)));
        if !exists {
            if !may_create {
                return Err(missing());
            }
            // Half of a database, or somebody else's files: both are left as they are.
            let strangers = fs.list(&directory)?.into_iter().find(|path| {
                path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse)
                    != Some(FileName::Lock)
            });
            if let Some(stranger) = strangers {
                let message = "the directory is not a database and not empty; choose another one";
                return Err(Error::invalid_argument(message).in_file(stranger));
            }
            // Who made the directory, an earlier attempt that was cut short perhaps, may not have synced its name.
            if let Some(parent) = parent_of(&directory)
                && let Err(error) = fs.sync_directory(&parent)
                && !is_permission_denied(&error)
            {
                return Err(error);
            }
        }
        let lock = match fs.lock(&directory.join(FileName::Lock.format())) {
            Err(_) if planted::is(Bug::NoLock) => None,
            lock => Some(lock?),
        };
        // Listed again: the directory may have changed before the lock was ours.
        names.clear();
        names.extend(manifest::list(&*fs, &directory)?);
        if builder.error_if_exists && exists {
            let message = "the database exists, and error_if_exists is set";
            return Err(Error::invalid_argument(message).in_file(&directory));
        }

        let (sender, obsolete_files) = crossbeam::channel::unbounded();
        let context = Arc::new(TableContext::new(fs, directory, BufferCache::new(cache_bytes)?, sender));
        let arenas = ArenaPool::new(MemtableOptions { size_bytes: options.memtable_bytes });
        let source = MemtableSource {
            arenas: &arenas,
            memtable_bytes: options.memtable_bytes,
            threads: env.allows_pools(),
            sync: !options.read_only,
        };
        let mut recovered = recovery::analyze(&context, &names, env.random_u64(), &source)?;
        let segment_bytes = options.advanced.wal_segment_bytes;
        let manifest = match options.read_only {
            true => None,
            false => {
                let manifest = recovery::commit(&context, &mut recovered)?;
                recovery::sweep(&context, &mut recovered, segment_bytes as u64);
                Some(manifest)
            }
        };
        let wal = Wal::new(
            &context,
            recovered.database,
            recovered.base,
            segment_bytes,
            options.advanced.wal_mapped,
            recovered.retained,
            recovered.spare_files.into_iter().map(|(number, _)| number).collect(),
        );
        let state = manifest.as_ref().map_or(&recovered.manifest, |manifest| &manifest.state);
        let next_memtable = recovered.generations.len() as u64;
        let view = SuperVersion {
            generations: recovered.generations.into_iter().rev().collect(),
            keyspaces: keyspace_views(state),
        };
        let subcompactions = options.advanced.subcompactions;
        let pool =
            match subcompactions > 1 && !options.read_only && env.allows_pools() {
                true => {
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
        let core = Arc::new(Core {
            opened_at: env.now(),
            replayed_log_bytes: recovered.log_bytes,
            pool,
            // Only where it is read: it would keep every table of the opening, and so their files.
            fixed_state: if manifest.is_none() { state.clone() } else { ManifestState::default() },
            context,
            obsolete_files,
            arenas,
            wal,
            view: SuperVersionCell::new(view),
            snapshots: Arc::default(),
            stall: Stall::default(),
            counters: Counters::default(),
            background: Background::default(),
            large_commit: Mutex::new(()),
            flushing: Mutex::new(()),
            manifest: Mutex::new(manifest),
            view_change: Mutex::new(()),
            rotating: Mutex::new(()),
            next_memtable: AtomicU64::new(next_memtable),
            reads_seen: AtomicU64::new(0),
            status: AtomicU8::new(OPEN),
            poison: Mutex::new(None),
            no_space: Mutex::default(),
            closing: Mutex::new(false),
            stale_rows: Default::default(),
            lock: Mutex::new(lock),
            options,
        });
        Ok(core)
    }

    /// The last sequence number that is visible. REQUIRES: the view was loaded before.
    #[inline]
    pub(crate) fn visible_sequence(&self) -> SequenceNumber {
        crate::sync::step();
        SequenceNumber(self.wal.published() - 1)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.snapshots, || self.visible_sequence())
    }

    /// The number to read at for a snapshot of this database.
    pub(crate) fn sequence_of(&self, snapshot: &Snapshot) -> Result<SequenceNumber> {
        if !snapshot.belongs_to(&self.snapshots) {
            return Err(Error::invalid_argument(
                "the snapshot belongs to another database, or to an earlier opening",
            ));
        }
        Ok(snapshot.sequence())
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        // Relaxed: a call that races with `close` may go either way.
        if self.status.load(Ordering::Relaxed) & CLOSED != 0 {
            return Err(closed());
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        // Acquire: pairs with the Release in `poison`.
        if self.status.load(Ordering::Acquire) == OPEN && !self.options.read_only {
            return Ok(());
        }
        self.refuse_write()
    }

    /// After a commit was published: whether something before it poisoned the log.
    #[inline]
    pub(crate) fn check_not_gapped(&self) -> Result<()> {
        // Acquire: pairs with the Release in `poison`.
        if self.status.load(Ordering::Acquire) & POISONED == 0 {
            return Ok(());
        }
        self.check_not_poisoned()
    }

    #[cold]
    fn refuse_write(&self) -> Result<()> {
        self.check_open()?;
        self.check_not_poisoned()?;
        Err(Error::new(ErrorKind::ReadOnly, "the database was opened read-only"))
    }

    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        match &*self.poison.lock() {
            Some(cause) => {
                let message = format!("writes are closed after an error; reopen the database ({cause})");
                Err(Error::new(ErrorKind::Poisoned, message))
            }
            None => Ok(()),
        }
    }

    /// Closes the write path for good.
    #[cold]
    pub(crate) fn poison(&self, cause: &Error) {
        self.poison.lock().get_or_insert_with(|| cause.duplicate());
        // Release: pairs with the Acquire in `check_writable`.
        self.status.fetch_or(POISONED, Ordering::Release);
    }

    /// Closes the write path after an error of kind `Poisoned`, which a failed sync of log, MANIFEST or directory has.
    pub(crate) fn poison_if_final(&self, error: &Error) {
        if error.kind() == ErrorKind::Poisoned {
            self.poison(error);
        }
    }

    /// Notes that background work of the kind `what` met a full disk.
    pub(crate) fn report_no_space(&self, what: &'static str, error: Error) {
        let mut met = self.no_space.lock();
        met.retain(|(other, _)| *other != what);
        met.push((what, error));
    }

    /// Notes that background work of the kind `what` found room again, or has nothing to do.
    pub(crate) fn clear_no_space(&self, what: &'static str) {
        self.no_space.lock().retain(|(other, _)| *other != what);
    }

    /// Flushes meet a full disk.
    fn check_flush_has_space(&self) -> Result<()> {
        match self.no_space.lock().iter().find(|(what, _)| *what == FLUSH) {
            Some((_, error)) => Err(error.duplicate()),
            None => Ok(()),
        }
    }

    pub(crate) fn health(&self) -> Health {
        if let Some(error) = &*self.poison.lock() {
            return Health::Poisoned(error.duplicate());
        }
        match self.no_space.lock().first() {
            Some((_, error)) => Health::NoSpace(error.duplicate()),
            None => Health::Good,
        }
    }

    pub(crate) fn manifest_state<R>(&self, read: impl FnOnce(&ManifestState) -> R) -> R {
        match &*self.manifest.lock() {
            Some(manifest) => read(&manifest.state),
            None => read(&self.fixed_state),
        }
    }

    pub(crate) fn compaction_options(&self, keyspace: &KeyspaceOptions) -> CompactionOptions {
        manifest::compaction_options(&self.options.advanced, self.options.memtable_bytes, keyspace)
    }

    pub(crate) fn keyspace_compaction_options(&self, id: KeyspaceId) -> Option<CompactionOptions> {
        let view = self.view.reference();
        Some(self.compaction_options(&view.keyspace(id)?.state.options))
    }

    /// Waits until everything below `position` survives a power loss.
    pub(crate) fn wait_durable(&self, position: u64) -> Result<()> {
        self.wal.wait_durable(position, &|error| self.poison(error), &|| self.check_not_poisoned())
    }

    /// Sets the price of writes from the shape of all trees.
    pub(crate) fn update_debt(&self, view: &SuperVersion) {
        let debt = view
            .keyspaces
            .iter()
            .flatten()
            .map(|space| picker::debt(&space.version, &self.compaction_options(&space.state.options)))
            .fold(0.0, f64::max);
        let unpaid = self.options.advanced.disable_auto_compactions;
        self.stall.set_debt(if unpaid { 0.0 } else { debt });
    }

    /// Whether tables were read since the last call.
    pub(crate) fn reads_since_last_flush(&self) -> bool {
        let stats = self.context.cache.stats();
        let reads = stats.hits + stats.misses;
        // Relaxed: only flushes ask, one at a time.
        reads > self.reads_seen.swap(reads, Ordering::Relaxed) + READS_THAT_COUNT
    }

    /// Makes an edit durable, then visible. `flushed` leaves the view in the same step.
    pub(crate) fn install(
        &self,
        mut edits: Vec<Edit>,
        handles: HashMap<FileNumber, Arc<TableHandle>>,
        flushed: Option<&Arc<Generation>>,
    ) -> Result<()> {
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        // A keyspace that was dropped meanwhile takes its tables with it.
        let gone = |keyspace: &KeyspaceId| !manifest.state.keyspaces.contains_key(keyspace);
        edits.retain(|edit| match edit {
            Edit::TableAdded(table) if gone(&table.keyspace) => {
                if let Some(handle) = handles.get(&table.file) {
                    handle.mark_obsolete();
                }
                false
            }
            Edit::TableRemoved { keyspace, .. } => !gone(keyspace),
            _ => true,
        });
        let removed: HashSet<FileNumber> = edits.iter().filter_map(Edit::removed_file).collect();
        let losing: HashSet<KeyspaceId> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::TableRemoved { keyspace, .. } => Some(*keyspace),
                _ => None,
            })
            .collect();
        let before: Vec<(KeyspaceId, Arc<Version>)> = losing
            .into_iter()
            .filter_map(|id| Some((id, manifest.state.keyspaces.get(&id)?.version.clone())))
            .collect();
        if planted::is(Bug::DeletedBeforeEdit) {
            removed
                .iter()
                .for_each(|file| drop(self.context.fs.remove_file(&self.context.table_path(*file))));
        }
        if let Err(error) = self.append(manifest, edits, &handles) {
            // The edit may be on disk all the same after a failed sync, so only a clean refusal takes the files back.
            if error.kind() == ErrorKind::NoSpace || planted::is(Bug::OutputsTakenBack) {
                handles.values().for_each(|handle| handle.mark_obsolete());
            }
            return Err(error);
        }
        for (id, version) in before {
            // A table that moved to another level was removed and added.
            let now = manifest.state.keyspaces.get(&id);
            let kept: HashSet<FileNumber> = now
                .iter()
                .flat_map(|now| now.version.tables())
                .map(|table| table.handle.file())
                .filter(|file| removed.contains(file))
                .collect();
            for table in version.tables() {
                let file = table.handle.file();
                if removed.contains(&file) && !kept.contains(&file) {
                    table.handle.mark_obsolete();
                }
            }
        }
        let keyspaces = keyspace_views(&manifest.state);
        self.change_view(|view| SuperVersion {
            generations: view
                .generations
                .iter()
                .filter(|generation| flushed.is_none_or(|flushed| !Arc::ptr_eq(flushed, generation)))
                .cloned()
                .collect(),
            keyspaces,
        });
        Ok(())
    }

    /// Appends to the MANIFEST. One that closed itself for good closes the write path with it.
    fn append(
        &self,
        manifest: &mut Manifest,
        edits: Vec<Edit>,
        handles: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<()> {
        manifest.append(edits, handles).inspect_err(|error| self.poison_if_final(error))
    }

    fn change_view(&self, change: impl FnOnce(&SuperVersion) -> SuperVersion) {
        let _changing = self.view_change.lock();
        let next = change(&self.view.reference());
        self.view.replace(next);
    }

    fn create_keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Arc<KeyspaceState>> {
        check_name(name)?;
        options.validate()?;
        self.check_writable()?;
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        if let Some(entry) = manifest.state.by_name(name) {
            return Ok(entry.state.clone());
        }
        let id = KeyspaceId(manifest.state.next_keyspace);
        if id.0 >= MAX_KEYSPACES {
            let message =
                format!("{MAX_KEYSPACES} keyspaces have been made in this database, which is the limit");
            return Err(Error::invalid_argument(message));
        }
        let edit = Edit::KeyspaceCreated { id, name: name.to_string(), options: options.to_text() };
        self.append(manifest, vec![edit], &HashMap::new())?;
        let state = manifest.state.keyspaces[&id].state.clone();
        let keyspaces = keyspace_views(&manifest.state);
        self.change_view(|view| SuperVersion { generations: view.generations.clone(), keyspaces });
        Ok(state)
    }

    /// A memtable has room for a fixed number of keyspaces. Before a handle is given out, also by a thread that did not
    /// make the keyspace, the active memtable takes it.
    fn make_room_for_keyspace(&self, id: KeyspaceId) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        while self.view.reference().active().memtable.keyspace_capacity() <= id.0 {
            if !self.rotate(true)? {
                self.wait_for_flush_step()?;
            }
        }
        Ok(())
    }

    fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.check_writable()?;
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        let Some(entry) = manifest.state.by_name(name).cloned() else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no keyspace {name:?}")));
        };
        if name == DEFAULT_KEYSPACE {
            return Err(Error::invalid_argument("the default keyspace cannot be dropped"));
        }
        if planted::is(Bug::DropNotLogged) {
            manifest.state.keyspaces.remove(&entry.state.id);
        } else {
            self.append(manifest, vec![Edit::KeyspaceDropped(entry.state.id)], &HashMap::new())?;
        }
        entry.state.mark_dropped();
        entry.version.tables().for_each(|table| table.handle.mark_obsolete());
        let keyspaces = keyspace_views(&manifest.state);
        self.change_view(|view| SuperVersion { generations: view.generations.clone(), keyspaces });
        Ok(())
    }

    /// Makes sure that the active memtable is not full. Its arena reaches far beyond that point, so any batch fits.
    #[inline]
    pub(crate) fn make_room(&self) -> Result<()> {
        {
            let guard = crossbeam_epoch::pin();
            let memtable = &self.view.load(&guard).active().memtable;
            if memtable.size_bytes() < self.options.memtable_bytes || planted::is(Bug::MemtableGrows) {
                return Ok(());
            }
        }
        self.make_room_slowly()
    }

    #[cold]
    fn make_room_slowly(&self) -> Result<()> {
        let mut waited_since = None;
        let result = loop {
            let view = self.view.reference();
            let memtable = &view.active().memtable;
            if memtable.size_bytes() < self.options.memtable_bytes {
                break Ok(());
            }
            if self.rotate(false)? {
                continue;
            }
            // No free memtable. A little more fits into this one while the flush works.
            if memtable.size_bytes() < self.options.memtable_bytes + self.options.memtable_bytes / 8 {
                break Ok(());
            }
            if let Err(error) = self.check_flush_has_space().and_then(|()| self.check_writable()) {
                break Err(error);
            }
            waited_since.get_or_insert_with(|| self.options.env.now());
            drop(view);
            background::give_way(self);
        };
        if let Some(since) = waited_since {
            let waited = self.options.env.now().saturating_sub(since).as_nanos() as u64;
            self.stall.memtable_nanos.fetch_add(waited, Ordering::Relaxed);
            self.stall.memtable_waits.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Starts a new memtable; with `force` also if the active one is not full. False if there is no free memtable.
    ///
    /// The rotation is a point in the log: the new generation is put into the view first, its start is reserved
    /// second. A writer that reserves a later position sees the new generation, because both went through the log's
    /// tail; one that meets the new generation with an earlier position goes to the old one.
    fn rotate(&self, force: bool) -> Result<bool> {
        let _rotating = self.rotating.lock();
        let view = self.view.reference();
        let old = &view.active().memtable;
        if !force && old.size_bytes() < self.options.memtable_bytes {
            return Ok(true);
        }
        if view.generations.len() >= self.options.advanced.max_memtables {
            self.background.wake_flush();
            return Ok(false);
        }
        let capacity = keyspace_capacity(view.keyspaces.len() as u32);
        let id = self.next_memtable.fetch_add(1, Ordering::Relaxed);
        let memtable = Memtable::new(id, self.arenas.take()?, capacity);
        memtable.expect_prefixes_of(old)?;
        self.wal.prepare_rotation().inspect_err(|error| self.poison_if_final(error))?;
        let generation = Generation::pending(memtable);
        self.change_view(|view| SuperVersion {
            generations: std::iter::once(generation.clone())
                .chain(view.generations.iter().cloned())
                .collect(),
            keyspaces: view.keyspaces.clone(),
        });
        // From here on nothing may fail: writers wait for the start.
        let at = loop {
            match self.wal.reserve_rotation() {
                Ok(at) => break at,
                Err(_) => self.options.env.sleep(STEP),
            }
        };
        generation.begin(at.position);
        let written = self.wal.write(&at, &mut [0; HEADER_BYTES], RecordKind::Rotate, 0);
        self.wal.complete(&at);
        if let Err(error) = written {
            self.poison(&error);
        }
        self.wal.wait_published(at.end);
        self.background.wake_flush();
        Ok(true)
    }

    /// Flushes everything that is published now.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check_writable()?;
        // Only a full disk that is met from now on counts.
        self.clear_no_space(FLUSH);
        let target = loop {
            let view = self.view.reference();
            if view.generations.len() == 1 && view.active().memtable.is_empty() {
                return Ok(());
            }
            if view.active().memtable.is_empty() {
                break view.active().memtable.id();
            }
            let id = view.active().memtable.id();
            if self.rotate(true)? {
                break id + 1;
            }
            drop(view);
            self.wait_for_flush_step()?;
        };
        self.background.wake_flush();
        background::wait_until(self, || {
            self.check_writable()?;
            self.check_flush_has_space()?;
            let view = self.view.reference();
            Ok(view.generations.iter().all(|generation| generation.memtable.id() >= target))
        })
    }

    fn wait_for_flush_step(&self) -> Result<()> {
        self.check_writable()?;
        self.check_flush_has_space()?;
        background::give_way(self);
        Ok(())
    }

    pub(crate) fn compact_range(
        &self,
        id: KeyspaceId,
        lower: Option<Vec<u8>>,
        upper: Option<Vec<u8>>,
    ) -> Result<()> {
        self.flush()?;
        background::compact_range(self, id, lower.as_deref(), upper.as_deref())
    }

    /// Flushes, ends the threads, releases the lock.
    pub(crate) fn close(&self) -> Result<()> {
        let mut closing = self.closing.lock();
        if std::mem::replace(&mut *closing, true) {
            return Ok(());
        }
        let result = match self.options.read_only {
            true => Ok(()),
            false => {
                // Whatever was written with a lesser durability is made durable by the flush; if that fails, the log
                // is synced, so that the next opening finds everything.
                self.background.resume_for_good();
                match self.flush() {
                    Ok(()) => Ok(()),
                    Err(error) => self.wait_durable(self.wal.published()).and(Err(error)),
                }
            }
        };
        self.status.fetch_or(CLOSED, Ordering::Release);
        if !self.options.read_only {
            // Not in the middle of a rotation, which counts on the room that the seal takes.
            let end = {
                let _rotating = self.rotating.lock();
                self.wal.seal()
            };
            self.background.shut_down(self);
            // With nothing left in memtables, the next opening need not look at the log at all.
            let empty =
                self.view.reference().generations.iter().all(|generation| generation.memtable.is_empty());
            if result.is_ok() && empty && self.check_not_poisoned().is_ok() {
                let edits = vec![Edit::LogStart(end), Edit::LogOpened(end)];
                if let Some(manifest) = self.manifest.lock().as_mut() {
                    // Only saves time; without it the log is read.
                    let _ = manifest.append(edits, &HashMap::new());
                }
            }
            // Tables that the last versions let go are removed now rather than at the next opening.
            background::sweep_step(self);
        }
        self.manifest.lock().take();
        self.lock.lock().take();
        result
    }
}

/// Makes a directory and those above it, durably: each needs its name in the one above.
fn make_directory(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let mut made = Vec::new();
    let mut path = directory.to_path_buf();
    while !fs.exists(&path)? {
        let parent = parent_of(&path);
        made.push(path);
        let Some(parent) = parent else { break };
        path = parent;
    }
    fs.create_dir_all(directory)?;
    let synced =
        made.iter().filter_map(|path| parent_of(path)).try_for_each(|parent| fs.sync_directory(&parent));
    if synced.is_err() {
        // A failed sync cannot be tried again, but a new directory can be made.
        for path in &made {
            let _ = fs.remove_dir(path);
        }
    }
    synced
}

/// The directory above; "." for a relative path of one name.
fn parent_of(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() })
}

/// Whether the system refused: a directory above may be closed to us and still hold ours.
fn is_permission_denied(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::PermissionDenied)
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}

fn keyspace_views(state: &ManifestState) -> Vec<Option<Arc<KeyspaceView>>> {
    let mut views = vec![None; state.next_keyspace as usize];
    for (id, entry) in &state.keyspaces {
        let view = KeyspaceView { state: entry.state.clone(), version: entry.version.clone() };
        views[id.0 as usize] = Some(Arc::new(view));
    }
    views
}
