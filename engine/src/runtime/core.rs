//! The core of a database: the state that all handles share, and how calls read it.
//!
//! Lock order: `making_index`, `large_commit`, `flushing`, `rotating`, `manifest`, `view_change`
//! (ARCHITECTURE.md has the locks of other files, too). Reads acquire none of them.
use super::counters::Counters;
use crate::background::state::Background;
use crate::index::state::TreeAccess;
use crate::manifest::{Manifest, ManifestState};
use crate::options::DbOptions;
use crate::planted;
use crate::read::keyspace_views::KeyspaceView;
use crate::read::snapshot::{Snapshot, SnapshotList};
use crate::read::vacancy::Vacancies;
use crate::read::view::{CoveringView, Replaced, View, ViewCell};
use crate::wal::Wal;
use crate::write::locks::KeyLocks;
use crate::write::stall::Stall;
use crossbeam::channel::Receiver;
use sapwood_base::format::file_name::FileName;
use sapwood_base::{Error, KeyspaceId, Result, SequenceNumber};
use sapwood_compaction::{CompactionOptions, picker};
use sapwood_memtable::ArenaPool;
use sapwood_sstable::FilterKind;
use sapwood_storage::DatabaseFiles;
use sapwood_storage::env::Env;
use sapwood_storage::env::fork::{Running, StatusWord};
use sapwood_storage::fs::LockGuard;
use sapwood_storage::fs::bounded::BoundedFileSystem;
use sapwood_storage::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// With fewer block reads between two flushes, new tables are not worth a place in the cache.
const READS_THAT_COUNT: u64 = 1000;
/// The shared state of all handles.
pub(crate) struct Core {
    /// This core, for threads that are started later.
    pub(crate) this: Weak<Core>,
    /// Does one step of background work that is due; false if none is. Waiting calls do it on a
    /// machine without threads. The work lies above this file, so an open sets it.
    pub(super) any_step: fn(&Core) -> bool,
    pub(crate) options: DbOptions,
    pub(crate) files: Arc<DatabaseFiles>,
    /// Their file system, which bounds the open ones.
    pub(super) fs: Arc<BoundedFileSystem>,
    pub(crate) obsolete_files: Receiver<FileName>,
    pub(crate) arenas: Arc<ArenaPool>,
    pub(crate) wal: Wal,
    pub(crate) view: ViewCell,
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
    pub(super) fixed_state: Mutex<Option<ManifestState>>,
    /// Guards replacing the view. Acquired after `manifest` if both are held.
    pub(super) view_change: Mutex<()>,
    pub(crate) rotating: Mutex<()>,
    pub(crate) next_memtable: AtomicU64,
    /// Block reads at the time of the last flush.
    pub(super) reads_seen: AtomicU64,
    pub(super) status: StatusWord,
    /// Whether a keyspace has, or had, vacant ranges that puts must cut.
    pub(crate) watches_puts: AtomicBool,
    pub(super) poison: Mutex<Option<Error>>,
    /// Kinds of background work that met a full disk, with the error of each.
    pub(super) no_space: Mutex<Vec<(&'static str, Error)>>,
    pub(super) closing: Mutex<bool>,
    pub(super) lock: Mutex<Option<Box<dyn LockGuard>>>,
    /// Held until the end of a close: a child that was forked before cannot open databases.
    pub(super) running: Mutex<Option<Running>>,
}

impl Core {
    /// The last sequence number that is visible. REQUIRES: the view was loaded before.
    #[inline]
    pub(crate) fn visible_sequence(&self) -> SequenceNumber {
        crate::sync::step();
        SequenceNumber(self.wal.published() - 1)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.snapshots, || {
            crate::sync::step();
            self.wal.published_point()
        })
    }

    /// Position up to which `view` is known to be complete, for a reader that has loaded the view
    /// and then `sequence`.
    pub(crate) fn covered(&self, view: &Arc<View>, sequence: SequenceNumber) -> SequenceNumber {
        if self.view.is_current(view) { sequence } else { SequenceNumber::ZERO }
    }

    /// The latest view, the sequence number to read it at (`at`, or the latest), and the position
    /// up to which the view is known to be complete.
    #[inline]
    pub(crate) fn latest(&self, at: Option<SequenceNumber>) -> (Arc<View>, SequenceNumber, SequenceNumber) {
        // In this order: see `read::view`.
        let (view, sequence, is_current) =
            self.view.reference_around(|| at.unwrap_or_else(|| self.visible_sequence()));
        (view, sequence, if is_current { sequence } else { SequenceNumber::ZERO })
    }

    /// [`Core::watch`] for a keyspace in a view, if it is there.
    #[inline]
    pub(crate) fn watch_in(&self, view: &View, id: KeyspaceId) {
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
        vacancies.watch(|| {
            // Relaxed: the tail of the log orders it before every put that could miss it.
            self.watches_puts.store(true, Ordering::Relaxed);
            planted::fence(|| self.wal.published(), || self.wal.fence())
        });
    }

    /// The number to read at for a snapshot of this database.
    pub(crate) fn sequence_of(&self, snapshot: &Snapshot) -> Result<SequenceNumber> {
        if !snapshot.belongs_to(&self.snapshots) {
            return Err(Error::invalid_argument(
                "the snapshot belongs to another database, or to an earlier session",
            ));
        }
        Ok(snapshot.sequence())
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
        let options = options.compaction(&self.options);
        match space.index {
            Some(_) => delta_options(options),
            None => options,
        }
    }

    pub(crate) fn keyspace_compaction_options(&self, id: KeyspaceId) -> Option<CompactionOptions> {
        let view = self.view.reference();
        Some(self.compaction_options(view.keyspace(id)?))
    }

    /// Sets the price of writes from the shape of all trees.
    pub(crate) fn update_debt(&self, view: &View) {
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
        let stats = self.files.cache.stats();
        let reads = stats.hits + stats.misses;
        // Relaxed: only flushes call this, one at a time.
        reads > self.reads_seen.swap(reads, Ordering::Relaxed) + READS_THAT_COUNT
    }

    /// Replaces the view by the result of `change`.
    pub(crate) fn change_view(&self, change: impl FnOnce(&View) -> View) -> Replaced {
        let _changing = self.view_change.lock();
        let next = change(&self.view.reference());
        self.view.replace(next)
    }

    /// Waits until everything below `position` is published, then loads a view.
    pub(crate) fn view_covering(&self, position: u64) -> CoveringView {
        self.wal.wait_published(position);
        CoveringView::new(self.view.reference())
    }
}

impl TreeAccess for Core {
    fn env(&self) -> &Env {
        &self.options.env
    }

    fn files(&self) -> &DatabaseFiles {
        &self.files
    }

    fn is_read_only(&self) -> bool {
        self.options.read_only
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
