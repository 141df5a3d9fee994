//! The state of an index while it is open: its definition, its extractor, its phase, its tree.
//!
//! The entries of an index live in an internal keyspace of the index's own number: in the same
//! memtables as the rows, flushed into delta runs, and from there applied to the tree. The durable
//! part of the state is in the MANIFEST.
use super::extractor::{BuiltinExtractor, Extractor};
use sapwood_base::format::btree_root::TreeRoot;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::index_definition::{ExtractorSpec, IndexDefinition, Maintenance};
use sapwood_base::{Error, ErrorKind, FileNumber, KeyspaceId, Result, SequenceNumber};
use sapwood_btree::{Tree, TreeView};
use sapwood_storage::env::Env;
use sapwood_storage::sync::Mutex;
use sapwood_storage::{DatabaseFiles, FileLifetime};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The state shared by all handles of an index and all work on it.
pub(crate) struct IndexState {
    /// The keyspace of its entries.
    pub(crate) id: KeyspaceId,
    pub(crate) definition: IndexDefinition,
    extractor: OnceLock<Arc<dyn Extractor>>,
    /// Whether it is being built in this session.
    building: AtomicBool,
    /// Rows from this position on were written together with their entries; `u64::MAX` before that
    /// is known.
    start: AtomicU64,
    /// The tree has the entries of all rows up to here.
    built: AtomicU64,
    pub(crate) progress: Progress,
}

/// The progress of an online build.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) rows: AtomicU64,
    pub(crate) rows_expected: AtomicU64,
    pub(crate) entries: AtomicU64,
}

impl IndexState {
    pub(crate) fn new(id: KeyspaceId, definition: IndexDefinition) -> Arc<IndexState> {
        let state = IndexState {
            id,
            definition,
            extractor: OnceLock::new(),
            building: AtomicBool::new(false),
            start: AtomicU64::new(u64::MAX),
            built: AtomicU64::new(0),
            progress: Progress::default(),
        };
        if let ExtractorSpec::Builtin(builtin) = &state.definition.extractor
            && let Ok(extractor) = BuiltinExtractor::new(builtin.clone())
        {
            state.attach(Arc::new(extractor));
        }
        Arc::new(state)
    }

    /// The keyspace whose rows it has.
    pub(crate) fn owner(&self) -> KeyspaceId {
        self.definition.keyspace
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.definition.maintenance == Maintenance::Deferred
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.definition.maintenance == Maintenance::Strict
    }

    /// Sets the extractor. Only the first call has an effect.
    pub(crate) fn attach(&self, extractor: Arc<dyn Extractor>) {
        let _ = self.extractor.set(extractor);
    }

    pub(crate) fn attached(&self) -> Option<&dyn Extractor> {
        self.extractor.get().map(|extractor| &**extractor)
    }

    /// The extractor, or an error if none is attached.
    #[inline]
    pub(crate) fn extractor(&self) -> Result<&dyn Extractor> {
        self.attached().ok_or_else(|| self.not_attached())
    }

    /// The extractor, for another state of the index.
    pub(crate) fn shared_extractor(&self) -> Result<Arc<dyn Extractor>> {
        self.extractor.get().cloned().ok_or_else(|| self.not_attached())
    }

    #[cold]
    fn not_attached(&self) -> Error {
        let message = format!(
            "index {:?} has no extractor yet: call create_index with it, or drop the index",
            self.definition.name
        );
        Error::new(ErrorKind::IndexUnavailable, message)
    }

    fn is_building(&self) -> bool {
        // Relaxed: the view that lists the index is made after the flag is set.
        self.building.load(Ordering::Relaxed)
    }

    /// Once a new view shows the flag, writes add entries.
    pub(crate) fn set_building(&self, building: bool) {
        self.building.store(building, Ordering::Relaxed);
    }

    /// The first position whose rows were written together with entries.
    pub(crate) fn start(&self) -> SequenceNumber {
        // Acquire: pairs with the Release in `set_start`.
        SequenceNumber(self.start.load(Ordering::Acquire))
    }

    pub(crate) fn set_start(&self, start: SequenceNumber) {
        self.start.store(start.0, Ordering::Release);
    }

    /// The tree reflects this state or a later one, so earlier states must not be read. Rows in
    /// memtables up to here are not newer than the tree.
    pub(crate) fn built_sequence(&self) -> SequenceNumber {
        // Acquire: pairs with the Release in `set_built_sequence`.
        SequenceNumber(self.built.load(Ordering::Acquire))
    }

    pub(crate) fn set_built_sequence(&self, built: SequenceNumber) {
        self.built.store(built.0, Ordering::Release);
    }

    /// Whether a write must read first: the old row, or the row that has the index key.
    pub(crate) fn reads_before_writes(&self) -> bool {
        self.is_strict() || self.definition.unique
    }
}

/// The progress of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being built, or the build was interrupted.
    Building,
    /// Readable, for states from [`IndexState::built_sequence`] on.
    Ready,
    /// It has missed changes of rows.
    Outdated,
}

/// An index as one state of the MANIFEST has it.
#[derive(Clone)]
pub(crate) struct IndexMeta {
    pub(crate) state: Arc<IndexState>,
    pub(crate) phase: Phase,
    /// None before the first entries are applied.
    pub(crate) tree: Option<Arc<TreeState>>,
}

impl IndexMeta {
    /// Whether writes add entries.
    pub(crate) fn is_kept_up(&self) -> bool {
        match self.phase {
            Phase::Building => self.state.is_building(),
            Phase::Ready => true,
            Phase::Outdated => false,
        }
    }

    /// Checks that the state at `sequence` can be read.
    ///
    /// Errors: `IndexUnavailable`, with the remedy.
    #[inline]
    pub(crate) fn check_readable(&self, sequence: SequenceNumber) -> Result<()> {
        if self.phase == Phase::Ready && sequence >= self.state.built_sequence() {
            return Ok(());
        }
        Err(self.not_readable())
    }

    #[cold]
    fn not_readable(&self) -> Error {
        let name = &self.state.definition.name;
        let message = match self.phase {
            Phase::Ready => format!("the snapshot is older than index {name:?}"),
            Phase::Outdated => format!(
                "index {name:?} has missed writes that were recovered without its extractor; create_index builds it anew"
            ),
            _ if self.state.is_building() => format!("index {name:?} is being built"),
            _ => format!("the building of index {name:?} was cut short; create_index builds it anew"),
        };
        Error::new(ErrorKind::IndexUnavailable, message)
    }
}

/// The file of a tree and its one writer.
pub(crate) struct TreeFile {
    pub(crate) number: FileNumber,
    writer: Mutex<Option<Tree>>,
    /// Declared below the writer: the file is closed before it is removed.
    lifetime: FileLifetime,
}

impl TreeFile {
    pub(crate) fn new(number: FileNumber) -> Arc<TreeFile> {
        let lifetime = FileLifetime::new(FileName::Tree(number));
        Arc::new(TreeFile { number, writer: Mutex::new(None), lifetime })
    }

    /// Allows the file to be removed once the last state of the tree is dropped.
    pub(crate) fn mark_obsolete(&self, files: &Arc<DatabaseFiles>) {
        self.lifetime.mark_obsolete(files);
    }
}

/// The means to open the trees of a database.
pub(crate) trait TreeAccess {
    fn env(&self) -> &Env;
    fn files(&self) -> &DatabaseFiles;
    fn is_read_only(&self) -> bool;
}

/// One state of a tree. The file is opened when it is first read or changed.
pub(crate) struct TreeState {
    pub(crate) file: Arc<TreeFile>,
    pub(crate) root: TreeRoot,
    view: OnceLock<TreeView>,
}

impl TreeState {
    pub(crate) fn new(file: Arc<TreeFile>, root: TreeRoot) -> Arc<TreeState> {
        Arc::new(TreeState { file, root, view: OnceLock::new() })
    }

    /// This state, for reading.
    #[inline]
    pub(crate) fn view(&self, access: &impl TreeAccess) -> Result<&TreeView> {
        match self.view.get() {
            Some(view) => Ok(view),
            None => self.open(access),
        }
    }

    /// The same if it was opened before.
    #[inline]
    pub(crate) fn opened(&self) -> Option<&TreeView> {
        self.view.get()
    }

    #[cold]
    fn open(&self, access: &impl TreeAccess) -> Result<&TreeView> {
        if access.is_read_only() {
            let path = access.files().path(FileName::Tree(self.file.number));
            let view = Tree::open_view(access.env(), &path, &self.root, &access.files().cache)?;
            return Ok(self.view.get_or_init(|| view));
        }
        // A thread that changes the tree holds the lock until the new root is installed. A state
        // without a view is the newest one then: `change` ensures that its predecessor has one.
        self.with_writer(access, |tree| {
            debug_assert_eq!(tree.root(), &self.root);
            Ok(self.view.get_or_init(|| tree.view()))
        })
    }

    /// Runs `body` with exclusive access to the writer of the tree.
    pub(crate) fn change<R>(
        &self,
        access: &impl TreeAccess,
        body: impl FnOnce(&mut Tree) -> Result<R>,
    ) -> Result<R> {
        self.view(access)?;
        self.with_writer(access, body)
    }

    fn with_writer<R>(
        &self,
        access: &impl TreeAccess,
        body: impl FnOnce(&mut Tree) -> Result<R>,
    ) -> Result<R> {
        let mut writer = self.file.writer.lock();
        let tree = match &mut *writer {
            Some(tree) => tree,
            None => {
                let path = access.files().path(FileName::Tree(self.file.number));
                writer.insert(Tree::open(access.env(), &path, &self.root, &access.files().cache)?)
            }
        };
        body(tree)
    }
}
