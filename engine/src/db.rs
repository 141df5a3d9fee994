//! The database: opening, closing, and operations that concern all keyspaces.
use crate::background::{self, sweep};
use crate::directory::{self, Terms};
use crate::index::build;
use crate::index::options::IndexOptions;
use crate::keyspace::{DEFAULT_KEYSPACE, Keyspace, KeyspaceOptions, KeyspaceState};
use crate::options::{AdvancedOptions, DbOptions, Durability};
use crate::planted;
use crate::read::snapshot::Snapshot;
use crate::recovery::Rest;
use crate::runtime::Core;
use crate::stats::{self, Health, Memory, Stats};
use crate::write::batch::WriteBatch;
use sapwood_base::{Error, KeyspaceId, Result};
use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

mod inner;

pub(crate) use inner::DbInner;

const DEFAULT_BUDGET_BYTES: usize = 512 << 20;

/// Opens a database.
#[derive(Clone, Debug)]
pub struct DbBuilder {
    terms: Terms,
    memory_budget: usize,
    durability: Durability,
    indexes: Vec<(String, String, IndexOptions)>,
    advanced: AdvancedOptions,
}

impl DbBuilder {
    /// Memory budget in bytes; 512 MiB if not set, at least 4 MiB. It is divided as follows:
    ///
    /// | part | share |
    /// |---|---|
    /// | memtables: three, and one that readers still use after its flush | a twelfth each, at most 128 MiB |
    /// | log pages, mapped until flushed | two thirds of three memtables, and some spare segments |
    /// | working memory of flushes and compactions | a seventh |
    /// | cache | the rest, at least an eighth |
    ///
    /// The indexes and filters of open tables come out of the cache's part; they take about 2 % of
    /// the data. Flushed memtables that open cursors still read are not included, nor is the excess
    /// of a single batch over the size of a memtable. [`Db::memory`] returns the memory in use.
    /// Sizes set by [`DbBuilder::advanced`] take precedence.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// let db = sapwood::Db::builder(&path).memory_budget(64 << 20).open()?;
    /// assert_eq!(db.memory().budget, 64 << 20);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn memory_budget(mut self, bytes: usize) -> DbBuilder {
        self.memory_budget = bytes;
        self
    }

    /// Default durability of a write; [`Durability::Buffered`] if not set.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// use sapwood::{Db, Durability};
    /// use std::time::Duration;
    ///
    /// let at_most = Durability::Periodic(Duration::from_millis(50));
    /// let db = Db::builder(&path).durability(at_most).open()?;
    /// db.default_keyspace().put("survives", "a power loss, 50 ms from now")?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> DbBuilder {
        self.durability = durability;
        self
    }

    /// Creates the database if there is none (the default). If false, a missing database is an
    /// error.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// use sapwood::{Db, ErrorKind};
    ///
    /// let error = Db::builder(&path).create_if_missing(false).open().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// ```
    pub fn create_if_missing(mut self, create: bool) -> DbBuilder {
        self.terms.create_if_missing = create;
        self
    }

    /// Refuses a database that exists.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// use sapwood::Db;
    ///
    /// Db::builder(&path).error_if_exists(true).open()?.close()?;
    /// assert!(Db::builder(&path).error_if_exists(true).open().is_err());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn error_if_exists(mut self, refuse: bool) -> DbBuilder {
        self.terms.error_if_exists = refuse;
        self
    }

    /// Opens for reading only: no byte on disk changes, and nothing needs to be writable. Any
    /// number of handles and processes may have the database open in this way at the same time, but
    /// none while it is open for writing. Writes return an error.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// use sapwood::{Db, ErrorKind};
    ///
    /// let db = Db::open(&path)?;
    /// db.default_keyspace().put("a", "1")?;
    /// db.close()?;
    /// let db = Db::builder(&path).read_only(true).open()?;
    /// assert_eq!(db.default_keyspace().get("a")?.unwrap(), "1");
    /// assert_eq!(db.default_keyspace().put("a", "2").unwrap_err().kind(), ErrorKind::ReadOnly);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn read_only(mut self, read_only: bool) -> DbBuilder {
        self.terms.read_only = read_only;
        self
    }

    /// Declares an index. With this call alone, at every open, the index `name` of a keyspace
    /// exists and has its extractor. [`DbBuilder::open`] builds an index that is missing, has
    /// another definition or version, or missed rows, on the caller's thread. If the keyspace does
    /// not exist yet, the [`Db::keyspace`] call that creates it also creates the index.
    /// [`Keyspace::index`] returns the handle. A read-only open creates nothing.
    ///
    /// [`Keyspace::create_index`] does the same for a single index after the open. That is
    /// later: if an index of code has no extractor when recovered rows are flushed, it must be
    /// built from the rows.
    ///
    /// If one index of a keyspace is named, all its indexes of code must be named. `open` returns
    /// an error of kind [`IndexUnavailable`](crate::ErrorKind::IndexUnavailable) if one is left
    /// out; otherwise the first write to the keyspace would return it.
    ///
    /// ```
    /// use sapwood::{Db, IndexOptions, Result};
    ///
    /// # fn main() -> Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// let open = || {
    ///     let by_length = IndexOptions::new(|_key, value, emit| emit.value(&(value.len() as u32)));
    ///     Db::builder(folder.path().join("data")).index("default", "by_length", by_length).open()
    /// };
    /// let db = open()?;
    /// db.default_keyspace().put("a", "three")?;
    /// db.close()?;
    /// // The same again: the index is found, and gets its code back.
    /// let db = open()?;
    /// assert_eq!(db.default_keyspace().index("by_length")?.count_all()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn index(mut self, keyspace: &str, name: &str, options: IndexOptions) -> DbBuilder {
        self.indexes.push((keyspace.to_string(), name.to_string(), options));
        self
    }

    /// Changes settings that most programs leave alone.
    pub fn advanced(mut self, change: impl FnOnce(&mut AdvancedOptions)) -> DbBuilder {
        change(&mut self.advanced);
        self
    }

    /// Opens the database, and replays the log after an unclean end. Recovered data may be in the
    /// system's memory only, if it was written without a sync. It is synced in the background, and
    /// before any commit that requests a sync is acknowledged. [`Db::sync`] waits for it.
    ///
    /// If the log exceeds the memtables of `memory_budget`, the open flushes in between. An
    /// index that is not named by [`DbBuilder::index`] misses these rows, and
    /// [`Keyspace::create_index`] rebuilds it.
    ///
    /// Errors: `Locked` if it is open elsewhere, `NotFound` if there is none to open,
    /// `InvalidArgument` for a setting out of range or a directory that holds something else,
    /// `Unsupported` for a newer format, `Corruption` with file and offset for damage,
    /// `OutOfResources` if a thread cannot be started. No data has changed then, and nothing of the
    /// open runs on. With [`DbBuilder::index`]: the errors of [`Keyspace::create_index`] if an
    /// index has to be built and cannot be, and `IndexUnavailable` if one is left out. The database
    /// opens without naming indexes then.
    ///
    /// A directory holds something else if it has no MANIFEST of this engine and contains any file
    /// other than leftovers of an interrupted creation and files that systems put into directories
    /// on their own (`lost+found`, `.DS_Store`, `.gitkeep` and the like). Foreign files beside a
    /// database are left alone.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// let db = sapwood::Db::builder(&path).memory_budget(32 << 20).open()?;
    /// # let _ = db;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn open(self) -> Result<Db> {
        self.advanced.validate()?;
        if self.memory_budget < 4 << 20 {
            return Err(Error::invalid_argument("memory_budget must be at least 4 MiB"));
        }
        let env = self.advanced.env.clone();
        let (memtable_bytes, cache_bytes) = self.advanced.divide(self.memory_budget);
        let options = DbOptions {
            memory_budget: self.memory_budget,
            durability: self.durability,
            read_only: self.terms.read_only,
            memtable_bytes,
            segment_bytes: self.advanced.segment_bytes(memtable_bytes),
            advanced: self.advanced.clone(),
            indexes: self.indexes.clone(),
            env,
        };
        // Invalid index options are reported before anything on disk changes.
        for (_, name, options) in &self.indexes {
            options.definition(name, KeyspaceId(0))?;
            options.extractor()?;
        }
        let (core, rest) = Core::open(&self.terms, options, cache_bytes)?;
        // No handle exists yet whose drop would close the database: a close flushes, and needs
        // threads for it.
        if let Err(error) = self.begin(&core, rest) {
            core.abandon();
            return Err(error);
        }
        let db = Db { inner: Arc::new(DbInner { core }) };
        let core = &db.inner.core;
        if !core.options.read_only {
            core.background.wake_flush();
            core.background.wake_compaction();
        }
        Ok(db)
    }

    /// The second half of an open: extractors, threads, the rest of the log, the default
    /// keyspace.
    fn begin(&self, core: &Arc<Core>, rest: Option<Rest>) -> Result<()> {
        for (keyspace, name, options) in &self.indexes {
            build::attach(core, keyspace, name, options)?;
        }
        if core.options.read_only {
            return Ok(());
        }
        background::start(core)?;
        if let Some(rest) = rest {
            core.replay_rest(rest)?;
        }
        if core.manifest_state(|state| state.by_name(DEFAULT_KEYSPACE).is_none()) {
            // Allocating the first log segment takes the disk a tenth of a second or more, which
            // the first write should not pay. If the allocation fails, the first write reports it.
            if core.options.env.starts_threads()
                && let Err(error) = core.wal.prepare_rotation()
            {
                core.poison_if_final(&error);
            }
            core.create_keyspace(DEFAULT_KEYSPACE, KeyspaceOptions::default())?;
        }
        build::make_named(core, None)?;
        build::check_named(core)
    }
}

/// A database. Cheap to clone, usable from any thread.
///
/// # Lifetime
/// *Handles* do: [`Db`], [`Keyspace`], [`Index`](crate::Index), [`WriteBatch`],
/// [`Commit`](crate::Commit). The database is closed by [`Db::close`], or when the last handle is
/// dropped.
///
/// *Readers* never do: [`Iter`](crate::Iter), [`IndexIter`](crate::IndexIter), [`Hit`](crate::Hit),
/// [`Cursor`](crate::Cursor), [`IndexCursor`](crate::IndexCursor), [`Snapshot`],
/// [`Slice`](crate::Slice). Each reads one state, and retains the memory and the open files that it
/// needs for that. After the database is closed, a reader continues with what it retains. If it
/// needs anything else, such as a table that was not opened before, it returns an error of kind
/// [`Closed`](crate::ErrorKind::Closed), never other data. A snapshot retains nothing, so no read
/// at it is possible any more.
#[derive(Clone)]
pub struct Db {
    inner: Arc<DbInner>,
}

/// Pauses background work while it lives: see [`Db::pause_guard`]. Does not keep the database open.
#[must_use = "background work goes on when the guard is dropped"]
pub struct PauseGuard {
    core: Arc<Core>,
}

impl Drop for PauseGuard {
    fn drop(&mut self) {
        if planted::guard_ends_pause() {
            self.core.resume();
        }
    }
}

impl fmt::Debug for PauseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PauseGuard").finish_non_exhaustive()
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Db {
    /// Settings for the database in `path`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// let db = sapwood::Db::builder(&path).memory_budget(32 << 20).open()?;
    /// # let _ = db;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "options")]
    #[doc(alias = "DB::Open")]
    pub fn builder(path: impl AsRef<Path>) -> DbBuilder {
        DbBuilder {
            terms: Terms {
                path: path.as_ref().to_path_buf(),
                create_if_missing: true,
                error_if_exists: false,
                read_only: false,
            },
            memory_budget: DEFAULT_BUDGET_BYTES,
            durability: Durability::default(),
            indexes: Vec::new(),
            advanced: AdvancedOptions::default(),
        }
    }

    /// Opens the database in `path` with default settings, and creates it if there is none.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// let db = sapwood::Db::open(&path)?;
    /// db.default_keyspace().put("key", "value")?;
    /// db.close()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Db::builder(path).open()
    }

    /// Removes a database's files, and its directory if nothing else is in it. Files that the
    /// database cannot prove to be its own stay, regardless of their names. A path that does not
    /// exist, or an empty directory, is no error.
    ///
    /// Errors: `Locked` if the database is open, `NotFound` for a directory with files and no
    /// database, `InvalidArgument` for the database of another engine. The directory is left alone
    /// then.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// use sapwood::Db;
    ///
    /// Db::open(&path)?.close()?;
    /// Db::destroy(&path)?;
    /// assert!(!path.exists());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "remove")]
    #[doc(alias = "drop_database")]
    pub fn destroy(path: impl AsRef<Path>) -> Result<()> {
        Db::destroy_in(path, &AdvancedOptions::default())
    }

    /// [`Db::destroy`] on the files of `options.env`.
    pub fn destroy_in(path: impl AsRef<Path>, options: &AdvancedOptions) -> Result<()> {
        directory::destroy(options.env.fs(), path.as_ref())
    }

    /// The absolute path of the directory at the time of opening. If the directory is renamed or
    /// replaced while the database is open, the database keeps using the original one (on Unix);
    /// the path then only serves messages.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// assert!(db.path().ends_with("data"));
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn path(&self) -> &Path {
        &self.inner.core.files.directory
    }

    /// The keyspace `name`, created with `options` if there is none. Options of an existing one are
    /// not changed.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// use sapwood::{Codec, KeyspaceOptions};
    ///
    /// let events = db.keyspace("events", KeyspaceOptions { compression: Some(Codec::Lz4), ..KeyspaceOptions::default() })?;
    /// events.put("e1", "started")?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "column family")]
    #[doc(alias = "partition")]
    #[doc(alias = "tree")]
    #[doc(alias = "table")]
    #[doc(alias = "create_cf")]
    #[doc(alias = "open_partition")]
    #[doc(alias = "open_tree")]
    #[doc(alias = "open_table")]
    #[doc(alias = "create_database")]
    pub fn keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let core = &self.inner.core;
        if let Some(state) = core.manifest_state(|state| state.by_name(name).map(|entry| entry.state.clone()))
        {
            core.check_open()?;
            return Ok(Keyspace::new(&self.inner, &state));
        }
        let _call = core.enter(false)?;
        let state = core.create_keyspace(name, options)?;
        build::make_named(core, Some(name))?;
        Ok(Keyspace::new(&self.inner, &state))
    }

    /// The keyspace that every database has, `"default"`. In a read-only database that was never
    /// opened for writing it is missing, and reads of it return an error.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// db.default_keyspace().put("a", "1")?;
    /// assert_eq!(db.default_keyspace().name(), "default");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
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
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// db.keyspace("events", Default::default())?;
    /// assert_eq!(db.list_keyspaces()?, ["default", "events"]);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "list_cf")]
    #[doc(alias = "tree_names")]
    #[doc(alias = "list_tables")]
    pub fn list_keyspaces(&self) -> Result<Vec<String>> {
        let core = &self.inner.core;
        core.check_open()?;
        let mut names: Vec<String> =
            core.manifest_state(|state| state.named().map(|entry| entry.state.name.clone()).collect());
        // Checked again, since a concurrent close takes the state away.
        core.check_open()?;
        names.sort();
        Ok(names)
    }

    /// Drops a keyspace with all its data, durably. Its handles return errors from then on,
    /// snapshots no longer see it, and open cursors continue.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// use sapwood::ErrorKind;
    ///
    /// let events = db.keyspace("events", Default::default())?;
    /// db.drop_keyspace("events")?;
    /// assert_eq!(events.put("late", "").unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "drop_cf")]
    #[doc(alias = "drop_tree")]
    #[doc(alias = "delete_table")]
    #[doc(alias = "truncate")]
    #[doc(alias = "clear")]
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let _call = self.inner.core.enter(false)?;
        self.inner.core.drop_keyspace(name)
    }

    /// An empty batch.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann").delete(&users, "u2");
    /// batch.commit()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "write_batch")]
    #[doc(alias = "transaction")]
    #[doc(alias = "WriteBatch")]
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::new(&self.inner)
    }

    /// A snapshot of the present state, readable as long as the snapshot lives.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put("u1", "Ann")?;
    /// let before = db.snapshot();
    /// users.put("u1", "Bo")?;
    /// assert_eq!(users.get_at("u1", &before)?.unwrap(), "Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "begin_read")]
    #[doc(alias = "read_txn")]
    #[doc(alias = "GetSnapshot")]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.core.snapshot()
    }

    /// Makes everything acknowledged so far survive a power loss. (Writes with [`Durability::None`]
    /// are not in the log; [`Db::flush`] saves them.)
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put("u1", "Ann")?;
    /// db.sync()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "fsync")]
    #[doc(alias = "flush_wal")]
    #[doc(alias = "persist")]
    #[doc(alias = "FlushWAL")]
    #[doc(alias = "SyncWAL")]
    pub fn sync(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_writable()?;
        let _call = core.enter(false)?;
        core.wait_durable(core.wal.published())
    }

    /// Writes everything acknowledged so far into tables, and waits for it.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put("u1", "Ann")?;
    /// db.flush()?;
    /// assert!(db.stats().flushes > 0);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_writable()?;
        let _call = core.enter(true)?;
        core.flush()
    }

    /// Merges every keyspace into its last level. See [`Keyspace::compact_range`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put("u1", "Ann")?;
    /// users.delete("u1")?;
    /// db.compact()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "major_compact")]
    #[doc(alias = "vacuum")]
    pub fn compact(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_writable()?;
        let _call = core.enter(true)?;
        let ids: Vec<KeyspaceId> = core.manifest_state(|state| state.keyspaces.keys().copied().collect());
        ids.into_iter().try_for_each(|id| background::compact_range(core, id, None, None))
    }

    /// Merges `range` of the default keyspace into its last level.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// db.compact_range("a".."m")?;
    /// db.compact_range::<&[u8]>(..)?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.default_keyspace().compact_range(range)
    }

    /// Waits until no flush and no compaction is due or under way. With compaction switched off,
    /// waits for flushes.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put("u1", "Ann")?;
    /// db.flush()?;
    /// db.wait_for_background()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "wait_for_compact")]
    pub fn wait_for_background(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_open()?;
        let _call = core.enter(true)?;
        background::wait_for_work(core, false)
    }

    /// Flushes the memtable and performs now the compactions that an idle database performs
    /// gradually. Waits until they end and until the files of replaced tables are removed.
    ///
    /// * Newer runs are merged into the last level if they amount to a tenth of the data that must
    ///   be rewritten for them, or if they hide or hold garbage of a tenth of it. Deleted and
    ///   overwritten rows count by their size in the tables below.
    /// * Smaller runs are merged among themselves.
    /// * Deltas are merged into the trees of indexes.
    ///
    /// Afterwards less than a tenth of the space is garbage, unless snapshots or cursors need it;
    /// [`Db::compact`] reclaims all of it. With compaction switched off, only flushes.
    ///
    /// Meant for a pause between loading and reading; with concurrent writers it repeatedly merges
    /// what they add.
    ///
    /// Errors: those of [`Db::flush`], and the error that stopped background work.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// for i in 0..1000u32 {
    ///     users.put(i.to_be_bytes(), "loaded")?;
    /// }
    /// db.settle()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn settle(&self) -> Result<()> {
        let core = &self.inner.core;
        core.check_writable()?;
        let _call = core.enter(true)?;
        core.flush()?;
        let _idle = core.background.idle_now();
        background::wait_for_work(core, true)?;
        sweep::wait_for_files(core);
        Ok(())
    }

    /// [`Db::pause_background`] until the guard is dropped, on any path. Pauses nest: work resumes
    /// when the last one has ended.
    ///
    /// ```
    /// # fn main() -> sapwood::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// let pause = db.pause_guard()?;
    /// // The device is the program's own here. An early `?` ends the pause as well.
    /// drop(pause);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause_guard(&self) -> Result<PauseGuard> {
        self.pause_background()?;
        Ok(PauseGuard { core: self.inner.core.clone() })
    }

    /// Stops flushes and compactions, and waits for the end of those under way or of their present
    /// slice. This includes those on callers' threads, which resume after
    /// [`Db::resume_background`]. When this returns, no table and no tree is written, and no
    /// obsolete one is removed: a copy of the directory has each file that existed when the pause
    /// began. Writes continue until memtables are full. Then they wait for half a second at most,
    /// and return an error of kind `Paused`.
    ///
    /// Calls that need flushes or compactions ([`Db::flush`], [`Db::compact`], [`Db::settle`],
    /// [`Db::wait_for_background`], [`Keyspace::compact_range`], [`Keyspace::create_index`],
    /// [`Index::rebuild`](crate::Index::rebuild)) also wait for half a second at most, then return
    /// an error of kind `Paused`. If their own thread has paused the work, they return it at once.
    ///
    /// [`Db::resume_background`] must follow on every path; [`Db::pause_guard`] ensures that.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// db.pause_background()?;
    /// db.resume_background();
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "disable_auto_compactions")]
    #[doc(alias = "PauseBackgroundWork")]
    pub fn pause_background(&self) -> Result<()> {
        self.inner.core.check_open()?;
        self.inner.core.background.pause()
    }

    /// Reverts one [`Db::pause_background`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// db.pause_background()?;
    /// db.resume_background();
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "ContinueBackgroundWork")]
    pub fn resume_background(&self) {
        self.inner.core.resume();
    }

    /// Does one step of background work on the caller's thread, for a database on a machine that
    /// starts no threads ([`Env::sim_manual`](crate::Env::sim_manual)). False if there was nothing
    /// to do, or background work is paused. Errors of the step surface as they do from threads: in
    /// [`Db::health`] and the next write.
    #[cfg(feature = "sim")]
    pub fn background_step(&self, step: background::BackgroundStep) -> Result<bool> {
        self.inner.core.check_open()?;
        Ok(background::run_step(&self.inner.core, step))
    }

    /// Makes writers pay as if the compaction debt were `debt` at least: 1 for a level 0 of twice
    /// the runs that start a compaction.
    #[cfg(feature = "sim")]
    pub fn pretend_debt(&self, debt: f64) {
        self.inner.core.stall.pretend_debt(debt);
    }

    /// How long the thread that does [`BackgroundStep::Log`](background::BackgroundStep::Log) would
    /// sleep before its next step, for a driver of a machine that starts no threads. The call
    /// clears a pending request for an immediate step.
    #[cfg(feature = "sim")]
    pub fn log_sleeps(&self) -> Result<std::time::Duration> {
        self.inner.core.check_open()?;
        Ok(background::log::log_sleeps(&self.inner.core))
    }

    /// Reads every table and checks the invariants that reads and compactions rely on: runs are in
    /// order of age and their tables do not overlap; bounds, counts and sequence numbers of the
    /// MANIFEST are true; of every key newer runs hold newer versions. For tests; takes as long as
    /// reading the database.
    ///
    /// Errors: `Corruption` that names the file.
    #[cfg(feature = "sim")]
    pub fn check_structure(&self) -> Result<()> {
        let _call = self.inner.core.enter(false)?;
        crate::structure::check(&self.inner.core)
    }

    /// Weak references to the database's resources, to be checked after its end. For tests.
    #[cfg(feature = "sim")]
    pub fn remains(&self) -> crate::Remains {
        crate::Remains::of(&self.inner.core)
    }

    /// Figures of all layers.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let stats = db.stats();
    /// println!("{stats}");
    /// assert_eq!(stats.snapshots, 0);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "property")]
    #[doc(alias = "GetProperty")]
    #[doc(alias = "metrics")]
    pub fn stats(&self) -> Stats {
        stats::gather(&self.inner.core)
    }

    /// Memory in use, by purpose.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let memory = db.memory();
    /// assert!(memory.total() >= memory.memtables);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn memory(&self) -> Memory {
        stats::memory(&self.inner.core)
    }

    /// Whether the database accepts writes.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// use sapwood::Health;
    ///
    /// match db.health() {
    ///     Health::Good => {}
    ///     Health::NoSpace(error) => eprintln!("writes wait for room: {error}"),
    ///     Health::Poisoned(error) => eprintln!("reopen the database: {error}"),
    /// }
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn health(&self) -> Health {
        self.inner.core.health()
    }

    /// Flushes, syncs and closes. Other handles of the database return errors of kind `Closed` from
    /// then on. Errors of the last flush are reported; the log still holds everything acknowledged.
    /// A second call does nothing.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put("u1", "Ann")?;
    /// db.close()?;
    /// assert_eq!(users.get("u1").unwrap_err().kind(), sapwood::ErrorKind::Closed);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        self.inner.core.close()
    }
}
