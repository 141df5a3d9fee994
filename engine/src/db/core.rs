//! The core of a database: opening, health, and how an edit becomes durable and visible.
//!
//! Lock order: `flushing`, `rotating`, `manifest`, `view_change`. Reads acquire none of them, nor
//! do commits that do not rotate.
use super::catalog::{announce_indexes, keyspace_view, keyspace_views};
use super::{DbBuilder, DbOptions};
use crate::background::attempt::FLUSH;
use crate::background::pause::Call;
use crate::background::state::Background;
use crate::background::{compactions, sweep};
use crate::directory::Place;
use crate::manifest::{Manifest, ManifestState};
use crate::read::keyspace_views::KeyspaceView;
use crate::read::snapshot::{Snapshot, SnapshotList};
use crate::read::super_version::{CoveringView, Generation, Replaced, SuperVersion, SuperVersionCell};
use crate::read::vacancy::Vacancies;
use crate::recovery::{self, MemtableSource, Rest};
use crate::stats::{Counters, Health};
use crate::wal::{Earlier, SegmentOptions, Wal};
use crate::write::locks::KeyLocks;
use crate::write::stall::Stall;
use crossbeam::channel::Receiver;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::manifest::Edit;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, ErrorKind, FileNumber, KeyspaceId, Result, SequenceNumber};
use sapwood_compaction::{CompactionOptions, TableContext, TableHandle, Version, picker};
use sapwood_memtable::{ArenaPool, MemtableOptions};
use sapwood_sstable::FilterKind;
use sapwood_storage::cache::BufferCache;
use sapwood_storage::env::fork::{FORKED, Running, StatusWord};
use sapwood_storage::fs::LockGuard;
use sapwood_storage::fs::bounded::BoundedFileSystem;
use sapwood_storage::sync::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// With fewer block reads between two flushes, new tables are not worth a place in the cache.
const READS_THAT_COUNT: u64 = 1000;
/// Turns of the collector of replaced views at a close.
const RELEASE_TURNS: usize = 1024;
/// The lists of the cache take one byte per this many bytes of the cache.
const CACHE_BYTES_PER_LISTED: usize = 128;
const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const POISONED: u8 = 2;

/// The shared state of all handles.
pub(crate) struct Core {
    pub(crate) options: DbOptions,
    pub(crate) context: Arc<TableContext>,
    /// The file system of `context`.
    files: Arc<BoundedFileSystem>,
    pub(crate) obsolete_files: Receiver<FileName>,
    pub(crate) arenas: Arc<ArenaPool>,
    pub(crate) wal: Wal,
    pub(crate) view: SuperVersionCell,
    pub(crate) snapshots: Arc<SnapshotList>,
    pub(crate) stall: Stall,
    pub(crate) counters: Counters,
    pub(crate) background: Background,
    pub(crate) opened_at: Duration,
    pub(crate) replayed_log_bytes: u64,
    /// Threads that share a compaction; none if one thread does all of it.
    pub(crate) pool: Option<rayon::ThreadPool>,
    /// Acquired by batches above a megabyte.
    pub(crate) large_commit: Mutex<()>,
    /// Arena bytes claimed by commits under way, small commits excluded.
    pub(crate) claimed_bytes: AtomicUsize,
    /// Held during a flush: one at a time, oldest memtable first.
    pub(crate) flushing: Mutex<()>,
    /// Held while an index is created: one at a time.
    pub(crate) making_index: Mutex<()>,
    /// Acquired by commits that read before they write.
    pub(crate) key_locks: KeyLocks,
    pub(super) manifest: Mutex<Option<Manifest>>,
    /// The state of a read-only database, which has no open MANIFEST.
    fixed_state: Mutex<Option<ManifestState>>,
    /// Guards replacing the view. Acquired after `manifest` if both are held.
    pub(super) view_change: Mutex<()>,
    pub(super) rotating: Mutex<()>,
    pub(super) next_memtable: AtomicU64,
    /// Block reads at the time of the last flush.
    reads_seen: AtomicU64,
    status: StatusWord,
    /// Whether a keyspace has, or had, vacant ranges that puts must cut.
    pub(crate) watches_puts: AtomicBool,
    poison: Mutex<Option<Error>>,
    /// Kinds of background work that met a full disk, with the error of each.
    no_space: Mutex<Vec<(&'static str, Error)>>,
    closing: Mutex<bool>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
    /// Held until the end of a close: a child that was forked before cannot open databases.
    running: Mutex<Option<Running>>,
}

impl Core {
    /// Returns the core, and the part of the log that has no memtable yet.
    pub(super) fn open(
        builder: &DbBuilder,
        mut options: DbOptions,
        cache_bytes: usize,
    ) -> Result<(Arc<Core>, Option<Rest>)> {
        let running = Running::begin()?;
        let env = options.env.clone();
        let most = options.advanced.max_open_files.unwrap_or(usize::MAX);
        let terms = &builder.terms;
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
        let before = Earlier {
            durable: recovered.durable(),
            retained: recovered.retained,
            unsynced: recovered.unsynced,
            spare_files: recovered.spare_files.into_iter().map(|(number, _)| number).collect(),
        };
        let wal = Wal::new(&context, recovered.database, recovered.base, segments, before);
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
        let core = Arc::new(Core {
            opened_at: env.now(),
            replayed_log_bytes: recovered.log_bytes,
            pool,
            // Only if it is read: it would keep every table of the opening, and so their files.
            fixed_state: Mutex::new(manifest.is_none().then(|| state.clone())),
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

    /// The last sequence number that is visible. REQUIRES: the view was loaded before.
    #[inline]
    pub(crate) fn visible_sequence(&self) -> SequenceNumber {
        crate::sync::step();
        SequenceNumber(self.wal.published() - 1)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.snapshots, || self.visible_sequence())
    }

    /// Position up to which `view` is known to be complete, for a reader that has loaded the view
    /// and then `sequence`.
    pub(crate) fn covered(&self, view: &Arc<SuperVersion>, sequence: SequenceNumber) -> SequenceNumber {
        if self.view.is_current(view) { sequence } else { SequenceNumber::ZERO }
    }

    /// The latest view, the sequence number to read it at (`at`, or the latest), and the position
    /// up to which the view is known to be complete.
    #[inline]
    pub(crate) fn latest(
        &self,
        at: Option<SequenceNumber>,
    ) -> (Arc<SuperVersion>, SequenceNumber, SequenceNumber) {
        // In this order: see `super_version`.
        let (view, sequence, is_current) =
            self.view.reference_around(|| at.unwrap_or_else(|| self.visible_sequence()));
        (view, sequence, if is_current { sequence } else { SequenceNumber::ZERO })
    }

    /// [`Core::watch`] for a keyspace in a view, if it is there.
    #[inline]
    pub(crate) fn watch_in(&self, view: &SuperVersion, id: KeyspaceId) {
        if let Some(space) = view.keyspace(id) {
            self.watch_announced(space);
        }
    }

    /// [`Core::watch`] if there is something to watch.
    #[inline]
    pub(crate) fn watch_announced(&self, space: &KeyspaceView) {
        if space.state.vacancies.has_announced() {
            self.watch(&space.state.vacancies);
        }
    }

    /// Watches the ranges that scans have announced as vacant. REQUIRES: the caller reads the
    /// sequence number of its scan afterwards.
    #[cold]
    pub(crate) fn watch(&self, vacancies: &Vacancies) {
        let planted = planted::is(Bug::VacancyUnfenced).then(|| self.visible_sequence().0 + 1);
        vacancies.watch(|| {
            // Relaxed: the tail of the log orders it before every put that could miss it.
            self.watches_puts.store(true, Ordering::Relaxed);
            planted.unwrap_or_else(|| self.wal.fence())
        });
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
        if self.status.load(Ordering::Relaxed) & (CLOSED | FORKED) != 0 {
            return Err(self.refuse());
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self) -> Error {
        if self.status.is_forked() { forked() } else { closed() }
    }

    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        // Acquire: pairs with the Release in `poison`.
        if self.status.load(Ordering::Acquire) == OPEN && !self.options.read_only {
            return Ok(());
        }
        self.refuse_write()
    }

    /// After a commit was published: an error if an earlier failure poisoned the log.
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

    /// Closes the write path after an error of kind `Poisoned`, the kind of a failed sync of log,
    /// MANIFEST or directory.
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

    /// Notes that background work of the kind `what` found room again, or has nothing to do. True
    /// if a full disk was noted.
    pub(crate) fn clear_no_space(&self, what: &'static str) -> bool {
        let mut met = self.no_space.lock();
        let before = met.len();
        met.retain(|(other, _)| *other != what);
        met.len() < before
    }

    /// Returns the error of a flush that met a full disk.
    pub(super) fn check_flush_has_space(&self) -> Result<()> {
        self.check_has_space(&[FLUSH])
    }

    /// Returns the error of background work of these kinds that met a full disk.
    pub(crate) fn check_has_space(&self, kinds: &[&str]) -> Result<()> {
        match self.no_space.lock().iter().find(|(what, _)| kinds.contains(what)) {
            Some((_, error)) => Err(error.duplicate()),
            None => Ok(()),
        }
    }

    pub(crate) fn health(&self) -> Health {
        if self.status.is_forked() {
            return Health::Poisoned(forked());
        }
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
            None => read(self.fixed_state.lock().as_ref().unwrap_or(&ManifestState::default())),
        }
    }

    /// The options of a keyspace, or of the delta runs of an index.
    pub(crate) fn compaction_options(&self, space: &KeyspaceView) -> CompactionOptions {
        let options = &space.state.options;
        let options = options.compaction(&self.options.advanced, self.options.memtable_bytes);
        match space.index {
            Some(_) => delta_options(options),
            None => options,
        }
    }

    pub(crate) fn keyspace_compaction_options(&self, id: KeyspaceId) -> Option<CompactionOptions> {
        let view = self.view.reference();
        Some(self.compaction_options(view.keyspace(id)?))
    }

    /// Waits until everything below `position` survives a power loss.
    pub(crate) fn wait_durable(&self, position: u64) -> Result<()> {
        self.wal.wait_durable(position, &|error| self.poison(error), &|| self.check_not_poisoned(), true)
    }

    /// Makes everything published survive a power loss, without allocating a segment on the way.
    pub(crate) fn sync_by_the_clock(&self) -> Result<()> {
        let (poison, check) = (|error: &Error| self.poison(error), || self.check_not_poisoned());
        self.wal.wait_durable(self.wal.published(), &poison, &check, false)
    }

    /// Syncs the log that the opening has replayed, unless that is done, and records it in the
    /// MANIFEST. False if there was nothing to do.
    pub(crate) fn sync_replayed(&self) -> Result<bool> {
        if self.options.read_only || !self.wal.claim_replayed() {
            return Ok(false);
        }
        // Syncs up to the published position, so that an observer of the step knows what it made
        // durable.
        self.wait_durable(self.wal.published())?;
        if let Some(manifest) = self.manifest.lock().as_mut() {
            let edits = vec![Edit::LogSynced(self.wal.base())];
            match self.append(manifest, edits, &HashMap::new()) {
                // Without the edit, the next opening takes damage there for a tear.
                Err(error) if error.is_scarcity() => {}
                result => result?,
            }
        }
        Ok(true)
    }

    /// Sets the price of writes from the shape of all trees.
    pub(crate) fn update_debt(&self, view: &SuperVersion) {
        let debt = view
            .keyspaces
            .iter()
            .map(|space| picker::debt(&space.version, &self.compaction_options(space)))
            .fold(0.0, f64::max);
        let unpaid = self.options.advanced.disable_auto_compactions;
        self.stall.set_debt(if unpaid { 0.0 } else { debt });
    }

    /// Whether tables were read since the last call.
    pub(crate) fn reads_since_last_flush(&self) -> bool {
        let stats = self.context.cache.stats();
        let reads = stats.hits + stats.misses;
        // Relaxed: only flushes call this, one at a time.
        reads > self.reads_seen.swap(reads, Ordering::Relaxed) + READS_THAT_COUNT
    }

    /// Makes an edit durable, then visible. The same step removes `flushed` from the view.
    pub(crate) fn install(
        &self,
        mut edits: Vec<Edit>,
        handles: HashMap<FileNumber, Arc<TableHandle>>,
        flushed: Option<&Arc<Generation>>,
    ) -> Result<()> {
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        // The tables of a keyspace that was dropped meanwhile are dropped too.
        let gone = |keyspace: &KeyspaceId| !manifest.state.keyspaces.contains_key(keyspace);
        edits.retain(|edit| match edit {
            Edit::TableAdded(table) if gone(&table.keyspace) => {
                if let Some(handle) = handles.get(&table.file) {
                    handle.mark_obsolete();
                }
                false
            }
            Edit::TableRemoved { keyspace, .. } => !gone(keyspace),
            Edit::IndexTree { id, .. } | Edit::IndexReady { id, .. } | Edit::IndexOutdated(id) => !gone(id),
            _ => true,
        });
        let touched = manifest.state.keyspaces.touched_by(&edits, true);
        let outdated: Vec<KeyspaceId> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::IndexOutdated(id) => Some(*id),
                _ => None,
            })
            .collect();
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
            // After a failed sync the edit may be on disk, so only a clean refusal removes the
            // files.
            if error.is_scarcity() || planted::is(Bug::OutputsTakenBack) {
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
        let changes: Vec<_> =
            touched.into_iter().map(|id| (id, keyspace_view(&manifest.state, id))).collect();
        let _replaced = self.change_view(|view| SuperVersion {
            generations: view
                .generations
                .iter()
                .filter(|generation| flushed.is_none_or(|flushed| !Arc::ptr_eq(flushed, generation)))
                .cloned()
                .collect(),
            keyspaces: view.keyspaces.with(changes),
        });
        let owners = outdated.iter().filter_map(|id| manifest.state.keyspaces.get(id)?.index.as_ref());
        for owner in owners.map(|index| index.state.owner()) {
            if let Some(entry) = manifest.state.keyspaces.get(&owner) {
                announce_indexes(&manifest.state, &entry.state);
            }
        }
        Ok(())
    }

    /// Appends to the MANIFEST. If the MANIFEST closes itself for good, the write path closes too.
    pub(super) fn append(
        &self,
        manifest: &mut Manifest,
        edits: Vec<Edit>,
        handles: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<()> {
        manifest.append(edits, handles).inspect_err(|error| self.poison_if_final(error))
    }

    /// Replaces the view by the result of `change`.
    pub(super) fn change_view(&self, change: impl FnOnce(&SuperVersion) -> SuperVersion) -> Replaced {
        let _changing = self.view_change.lock();
        let next = change(&self.view.reference());
        self.view.replace(next)
    }

    /// Waits until everything below `position` is published, then loads a view.
    pub(crate) fn view_covering(&self, position: u64) -> CoveringView {
        self.wal.wait_published(position);
        CoveringView::new(self.view.reference())
    }

    /// Begins a call that writes files from the caller's thread, or waits for such calls. A close
    /// waits for it. With `needs_work`, the call needs flushes and compactions.
    ///
    /// Errors: `Closed` in a forked child, where another thread may have held any lock at the fork.
    pub(crate) fn enter(&self, needs_work: bool) -> Result<Call<'_>> {
        if self.status.is_forked() {
            return Err(forked());
        }
        self.background.enter(self, needs_work)
    }

    /// Ends one pause of background work.
    pub(crate) fn resume(&self) {
        // A forked child has no background work, and the lock may have been held at the fork.
        if !self.status.is_forked() {
            self.background.resume();
        }
    }

    /// Whether this process is a child that was forked since the database was opened.
    pub(crate) fn is_forked(&self) -> bool {
        self.status.is_forked()
    }

    /// Flushes, ends all work, and releases all resources, the lock last.
    ///
    /// In a forked child it only closes the child's copies of the locked files, and leaves the rest
    /// to the parent.
    pub(crate) fn close(&self) -> Result<()> {
        if self.status.is_forked() {
            if let Some(mut lock) = self.lock.try_lock() {
                lock.take();
            }
            return Err(forked());
        }
        self.background.refuse_inside("close")?;
        let mut closing = self.closing.lock();
        if std::mem::replace(&mut *closing, true) {
            return Ok(());
        }
        // From here on no call begins, and nothing is paused.
        self.background.resume_for_good();
        let result = match self.options.read_only {
            true => Ok(()),
            false => {
                // The flush makes writes of a lesser durability durable. If it fails, the log is
                // synced, so that the next opening finds everything. A replayed log need not be
                // synced: tables will replace it.
                self.wal.claim_replayed();
                match self.flush() {
                    Ok(()) => {
                        compactions::finish_small_compactions(self);
                        // Errors of these compactions are reported like those of the flush, because
                        // this is the last chance.
                        self.check_not_poisoned()
                    }
                    Err(error) => self.wait_durable(self.wal.published()).and(Err(error)),
                }
            }
        };
        self.end(result.is_ok());
        result
    }

    /// Ends an opening that has failed halfway: recovered data stays in the log, and nothing is
    /// written.
    pub(super) fn abandon(&self) {
        let mut closing = self.closing.lock();
        if !std::mem::replace(&mut *closing, true) {
            self.background.resume_for_good();
            self.end(false);
        }
    }

    /// Ends all work, and releases all resources. `flushed`: everything published is in tables.
    fn end(&self, flushed: bool) {
        self.status.fetch_or(CLOSED, Ordering::Release);
        // Not in the middle of a rotation, which relies on the room that the seal takes.
        let sealed = (!self.options.read_only).then(|| {
            let _rotating = self.rotating.lock();
            self.wal.seal()
        });
        self.background.shut_down(self);
        // Calls under way fail by now: the status is closed, and no background work serves them any
        // more.
        self.background.wait_for_calls();
        if let Some(end) = sealed {
            let is_empty = |generation: &Arc<Generation>| generation.memtable.is_empty();
            let all_in_tables = flushed
                && self.view.reference().generations.iter().all(is_empty)
                && self.check_not_poisoned().is_ok();
            if all_in_tables {
                self.wal.set_durable(end);
            } else if flushed {
                // Commits between the flush and the seal, some of which may wait for a sync.
                let _ = self.wait_durable(self.wal.published());
            }
            // A large payload is copied into a place that is published. Its commit finds no other
            // place any more.
            drop(self.large_commit.lock());
            self.wal.close();
            if all_in_tables && let Some(manifest) = self.manifest.lock().as_mut() {
                // With empty memtables, the next opening need not read the log at all. This only
                // saves time; without the edit the log is read.
                let _ = manifest.append(vec![Edit::LogStart(end), Edit::LogOpened(end)], &HashMap::new());
            }
        }
        self.manifest.lock().take();
        self.fixed_state.lock().take();
        // Readers continue with what they retain. A file opened from here on could be another
        // opening's.
        self.files.end_opening();
        // Memtables and tables are freed with the last view, unless a cursor or a read under way
        // holds an older one.
        drop(self.change_view(|_| SuperVersion::closed()));
        self.view.release_retired(RELEASE_TURNS);
        // Handles may live for long; all their calls return errors by now and need no memory.
        // (Blocks are freed with the last handle: evicted before, they would wait for readers of
        // other databases.)
        self.arenas.trim(0);
        // Removes tables released by the last versions now rather than at the next opening.
        sweep::remove_obsolete(self);
        self.lock.lock().take();
        self.running.lock().take();
    }
}

/// The options of the delta runs of an index: they lie above a tree, and point lookups never read
/// them.
fn delta_options(mut options: CompactionOptions) -> CompactionOptions {
    options.has_base = true;
    options.table.filter = FilterKind::None;
    options.table.filter_bits_per_key = 0.0;
    options
}

#[cold]
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}

#[cold]
fn forked() -> Error {
    let message = "the database was opened before this process was forked; close it before the fork, and open it \
                   after the fork, in the process that uses it";
    Error::new(ErrorKind::Closed, message)
}
