//! A version: the immutable list of runs of a keyspace, newest first.
//!
//! Readers hold a version and see its tables unchanged; an edit creates a new version. After an
//! edit removed a table, its file is sent to the deleter when the last version that lists it is
//! dropped.
use crate::held::{Held, Hidden};
use crate::planted;
use crossbeam::epoch::Guard;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::footer::FOOTER_BYTES;
use sapwood_base::format::manifest::{Edit, TableMeta};
use sapwood_base::format::properties::TableProperties;
use sapwood_base::key::{begins_with, common_prefix_len, key_prefix};
use sapwood_base::{Error, FileNumber, KeyspaceId, Result, SequenceNumber};
use sapwood_sstable::Table;
use sapwood_storage::files::{DatabaseFiles, FileLifetime};
use sapwood_storage::fs::OpenMode;
use sapwood_storage::sync::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

pub mod iterator;

/// The file of one table, opened on first use.
pub struct TableHandle {
    files: Arc<DatabaseFiles>,
    number: FileNumber,
    file_bytes: u64,
    table: OnceLock<Arc<Table>>,
    opening: Mutex<()>,
    held: OnceLock<Held>,
    /// Declared below the table: the file is closed before it is removed.
    lifetime: FileLifetime,
}

impl TableHandle {
    /// Creates a handle for an existing file.
    pub fn new(files: &Arc<DatabaseFiles>, number: FileNumber, file_bytes: u64) -> Arc<TableHandle> {
        Arc::new(TableHandle {
            files: files.clone(),
            number,
            file_bytes,
            table: OnceLock::new(),
            opening: Mutex::new(()),
            held: OnceLock::new(),
            lifetime: FileLifetime::new(FileName::Table(number)),
        })
    }

    /// The table's own properties. Does not keep the file open.
    ///
    /// Errors: those of opening the file, and `Corruption` if it is not what was written.
    pub fn properties(&self) -> Result<TableProperties> {
        if let Some(table) = self.opened() {
            return Ok(table.properties().clone());
        }
        let file = self.files.fs.open(&self.files.table_path(self.number), OpenMode::Read)?;
        Table::read_properties(&*file, self.number)
    }

    /// The bytes that the table holds only for snapshots; `None` if unknown, as for a table from an
    /// earlier session.
    pub fn held(&self) -> Option<&Held> {
        self.held.get()
    }

    /// Records the bytes that the table holds only for snapshots. The first call wins.
    pub fn set_held(&self, held: Held) {
        let _ = self.held.set(held);
    }

    /// The number in the file's name.
    pub fn file(&self) -> FileNumber {
        self.number
    }

    /// The size of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Returns the table and opens it if needed.
    #[inline]
    pub fn table(&self) -> Result<&Arc<Table>> {
        match self.table.get() {
            Some(table) => Ok(table),
            None => self.open(),
        }
    }

    /// Returns the table if it is already open.
    #[inline(always)]
    pub fn opened(&self) -> Option<&Arc<Table>> {
        self.table.get()
    }

    #[cold]
    fn open(&self) -> Result<&Arc<Table>> {
        let _opening = self.opening.lock();
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let path = self.files.table_path(self.number);
        let file = self.files.fs.open_on_demand(&path, OpenMode::Read)?;
        let len = file.len()?;
        if len != self.file_bytes {
            let message = format!("table has {len} bytes, the MANIFEST says {}", self.file_bytes);
            return Err(Error::corruption(&path, len.min(self.file_bytes), message));
        }
        let table = Table::open(file, self.number, &self.files.cache)?;
        let (of, ours) = (table.database(), self.files.database());
        // Tables written by earlier versions do not record it.
        if !planted::is_of_database(of, ours) {
            let message = format!("table is of another database: {of:016x}, this one is {ours:016x}");
            return Err(Error::corruption(&path, len - FOOTER_BYTES as u64, message));
        }
        if self.files.charges_tables {
            self.files.cache.charge(table.pinned_bytes());
        }
        Ok(self.table.get_or_init(|| table))
    }

    /// Allows the file to be removed once the last version that lists it is dropped.
    pub fn mark_obsolete(&self) {
        self.lifetime.mark_obsolete(&self.files);
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if self.files.charges_tables
            && let Some(table) = self.table.get()
        {
            self.files.cache.discharge(table.pinned_bytes());
        }
    }
}

/// A table as a member of a run.
#[derive(Clone)]
pub struct RunTable {
    /// The handle of its file.
    pub handle: Arc<TableHandle>,
    /// Its metadata in the MANIFEST.
    pub meta: Arc<TableMeta>,
    /// The older versions that it hides, once known.
    hides: Arc<OnceLock<Hidden>>,
}

impl RunTable {
    /// Creates a member whose table is described by `meta`.
    pub fn new(handle: Arc<TableHandle>, meta: TableMeta) -> RunTable {
        RunTable { handle, meta: Arc::new(meta), hides: Arc::default() }
    }

    /// The older versions that its entries hide; `None` if not yet estimated.
    pub fn hides(&self) -> Option<Hidden> {
        self.hides.get().copied()
    }

    /// Records the older versions that its entries hide. The first call wins.
    pub fn set_hides(&self, hidden: Hidden) {
        let _ = self.hides.set(hidden);
    }

    /// The smallest user key that can be in the table's live part.
    pub fn first(&self) -> &[u8] {
        match &self.meta.lower {
            Some(lower) => lower.as_slice().max(&self.meta.smallest),
            None => &self.meta.smallest,
        }
    }

    /// The largest user key.
    pub fn last(&self) -> &[u8] {
        &self.meta.largest
    }
}

/// Tables with disjoint key ranges, in key order.
pub struct Run {
    /// 0 is the newest level.
    pub level: u8,
    /// Larger is newer within a level.
    pub id: u64,
    /// In key order, disjoint.
    pub tables: Vec<RunTable>,
    /// Bytes that all bounds share. Prefixes start after them.
    shared: Box<[u8]>,
    /// The bounds of each table, after the shared bytes.
    bounds: Box<[Bounds]>,
}

/// The prefixes of the first and the largest key of a table.
#[derive(Clone, Copy)]
struct Bounds {
    first: u64,
    largest: u64,
}

/// Up to this many tables are searched by comparing with all of them, which avoids unpredictable
/// branches.
const FEW_TABLES: usize = 6;

impl Run {
    /// Creates a run of tables and sorts them by key.
    pub fn new(level: u8, id: u64, mut tables: Vec<RunTable>) -> Run {
        tables.sort_by(|a, b| a.first().cmp(b.first()));
        debug_assert!(
            tables.windows(2).all(|pair| pair[0].last() < pair[1].first()),
            "tables of a run overlap"
        );
        let shared: Box<[u8]> = match (tables.first(), tables.last()) {
            (Some(first), Some(last)) => {
                let len = common_prefix_len(first.first(), last.last());
                first.first()[..len].into()
            }
            _ => Box::default(),
        };
        let skip = shared.len();
        let bounds = |table: &RunTable| Bounds {
            first: key_prefix(&table.first()[skip..]),
            largest: key_prefix(&table.last()[skip..]),
        };
        let bounds = tables.iter().map(bounds).collect();
        Run { level, id, tables, shared, bounds }
    }

    /// The index of the first table whose largest key is `>= key`; the number of tables if there is
    /// none.
    #[inline]
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let skip = self.shared.len();
        if skip > 0 {
            match key.get(..skip).unwrap_or(key).cmp(&self.shared) {
                std::cmp::Ordering::Less => return 0,
                std::cmp::Ordering::Greater => return self.tables.len(),
                std::cmp::Ordering::Equal => {}
            }
        }
        let prefix = key_prefix(&key[skip..]);
        let mut at = self.first_not_below(prefix);
        while let (Some(bounds), Some(table)) = (self.bounds.get(at), self.tables.get(at))
            && bounds.largest == prefix
            && table.last() < key
        {
            at += 1;
        }
        at
    }

    /// The first table whose largest key has a prefix of at least `prefix`.
    #[inline]
    fn first_not_below(&self, prefix: u64) -> usize {
        if self.bounds.len() <= FEW_TABLES {
            return self.bounds.iter().map(|bounds| usize::from(bounds.largest < prefix)).sum();
        }
        self.bounds.partition_point(|bounds| bounds.largest < prefix)
    }

    /// The table that can hold `key`.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<&RunTable> {
        // All keys between the bounds begin with the bounds' shared bytes.
        if !begins_with(key, &self.shared) {
            return None;
        }
        let prefix = key_prefix(&key[self.shared.len()..]);
        let at = self.first_not_below(prefix);
        let bounds = self.bounds.get(at)?;
        if bounds.largest == prefix || bounds.first == prefix {
            return self.find_slowly(key);
        }
        if bounds.first < prefix { self.tables.get(at) } else { None }
    }

    /// [`Run::find`] for a key whose eight-byte prefix equals that of a bound.
    #[cold]
    fn find_slowly(&self, key: &[u8]) -> Option<&RunTable> {
        self.tables.get(self.lower_bound(key)).filter(|table| table.first() <= key)
    }

    /// Whether the run has an entry whose user key begins with `prefix`: see [`Table::has_prefix`].
    ///
    /// Errors: those of opening the table and of reading it.
    pub fn has_prefix(&self, prefix: &[u8], guard: &Guard) -> Result<bool> {
        // This table contains the smallest key of the run that is not below the prefix, if there is
        // one.
        match self.tables.get(self.lower_bound(prefix)) {
            Some(table) => table.handle.table()?.has_prefix(prefix, guard),
            None => Ok(false),
        }
    }

    /// The tables that overlap `[lower, upper]`; `None` is unbounded.
    pub fn overlapping(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> &[RunTable] {
        let from = lower.map_or(0, |lower| self.lower_bound(lower));
        let to = upper
            .map_or(self.tables.len(), |upper| self.tables.partition_point(|table| table.first() <= upper));
        &self.tables[from..to.max(from)]
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.handle.file_bytes()).sum()
    }

    /// Entries of all files.
    pub fn entries(&self) -> u64 {
        self.tables.iter().map(|table| table.meta.entries).sum()
    }

    /// The range of user keys.
    pub fn bounds(&self) -> Option<(&[u8], &[u8])> {
        Some((self.tables.first()?.first(), self.tables.last()?.last()))
    }
}

/// The runs of one keyspace, newest first.
#[derive(Default)]
pub struct Version {
    /// Level ascending, then run descending.
    pub runs: Vec<Arc<Run>>,
}

impl Version {
    /// The runs of a level, newest first.
    pub fn level(&self, level: u8) -> impl Iterator<Item = &Arc<Run>> {
        self.runs.iter().filter(move |run| run.level == level)
    }

    /// Bytes of all files of a level.
    pub fn level_bytes(&self, level: u8) -> u64 {
        self.level(level).map(|run| run.file_bytes()).sum()
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.file_bytes()).sum()
    }

    /// Entries of all files.
    pub fn entries(&self) -> u64 {
        self.runs.iter().map(|run| run.entries()).sum()
    }

    /// Every table.
    pub fn tables(&self) -> impl Iterator<Item = &RunTable> {
        self.runs.iter().flat_map(|run| run.tables.iter())
    }

    /// The approximate size in bytes of the entries of `[lower, upper]`; `None` is unbounded. Opens
    /// only tables that extend beyond the range, or that a compaction has partly consumed.
    ///
    /// Errors: those of opening a table.
    pub fn approximate_bytes(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Result<u64> {
        let mut bytes = 0;
        for run in &self.runs {
            for table in run.overlapping(lower, upper) {
                let from = lower.filter(|lower| *lower > table.first()).or(table.meta.lower.as_deref());
                let to = upper.filter(|upper| *upper < table.last());
                let (mut start, mut end) = (0, table.handle.file_bytes());
                if from.is_some() || to.is_some() {
                    let open = table.handle.table()?;
                    start = from.map_or(start, |key| open.approximate_offset(key));
                    end = to.map_or(end, |key| open.approximate_offset(key));
                }
                bytes += end.saturating_sub(start);
            }
        }
        Ok(bytes)
    }

    /// The largest sequence number in any table.
    pub fn max_sequence(&self) -> SequenceNumber {
        self.tables().map(|table| table.meta.max_sequence).max().unwrap_or_default()
    }

    /// Returns this version with the edits of `keyspace` applied. `new` has the handles of new
    /// files.
    ///
    /// Errors: an edit that removes a table that does not exist, adds one twice (to one run or
    /// two), or states two lengths for one (a damaged MANIFEST).
    pub fn apply(
        &self,
        keyspace: KeyspaceId,
        edits: &[Edit],
        new: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<Version> {
        let mut handles: HashMap<FileNumber, Arc<TableHandle>> =
            self.tables().map(|table| (table.handle.file(), table.handle.clone())).collect();
        let mut runs: HashMap<(u8, u64), Vec<RunTable>> =
            self.runs.iter().map(|run| ((run.level, run.id), run.tables.clone())).collect();
        let mut changed: Vec<(u8, u64)> = Vec::new();
        let broken = |what: &str, file: FileNumber| {
            Error::new(sapwood_base::ErrorKind::Corruption, format!("version edit {what} table {file}"))
        };
        for edit in edits {
            match edit {
                Edit::TableAdded(meta) if meta.keyspace == keyspace => {
                    let handle = handles
                        .get(&meta.file)
                        .or_else(|| new.get(&meta.file))
                        .ok_or_else(|| broken("adds an unknown", meta.file))?
                        .clone();
                    if handle.file_bytes() != meta.file_bytes {
                        return Err(broken("gives another length to", meta.file));
                    }
                    handles.insert(meta.file, handle.clone());
                    let run = runs.entry((meta.level, meta.run)).or_default();
                    if run.iter().any(|table| table.handle.file() == meta.file) {
                        return Err(broken("adds twice", meta.file));
                    }
                    run.push(RunTable::new(handle, meta.clone()));
                    changed.push((meta.level, meta.run));
                }
                Edit::TableRemoved { keyspace: of, level, run, file } if *of == keyspace => {
                    let tables =
                        runs.get_mut(&(*level, *run)).ok_or_else(|| broken("removes a missing", *file))?;
                    let before = tables.len();
                    tables.retain(|table| table.handle.file() != *file);
                    if tables.len() == before {
                        return Err(broken("removes a missing", *file));
                    }
                    changed.push((*level, *run));
                }
                _ => {}
            }
        }
        let mut list: Vec<Arc<Run>> =
            self.runs.iter().filter(|run| !changed.contains(&(run.level, run.id))).cloned().collect();
        changed.sort_unstable();
        changed.dedup();
        for (level, id) in changed {
            let mut tables = runs.remove(&(level, id)).unwrap_or_default();
            if tables.is_empty() {
                continue;
            }
            tables.sort_by(|a, b| a.first().cmp(b.first()));
            if let Some(pair) = tables.windows(2).find(|pair| pair[0].last() >= pair[1].first()) {
                return Err(broken("makes a run overlap at", pair[1].handle.file()));
            }
            list.push(Arc::new(Run::new(level, id, tables)));
        }
        list.sort_by(|a, b| a.level.cmp(&b.level).then(b.id.cmp(&a.id)));
        let version = Version { runs: list };
        // A table may move within one edit, so only the result of the edit counts. A table in two
        // runs would be removed with the first of them.
        let mut listed = HashSet::with_capacity(handles.len());
        if let Some(twice) = version.tables().find(|table| !listed.insert(table.handle.file())) {
            return Err(broken("puts into two runs", twice.handle.file()));
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapwood_base::ErrorKind;
    use sapwood_storage::BufferCache;
    use sapwood_storage::env::Env;
    use std::path::{Path, PathBuf};

    fn context(env: &Env) -> DatabaseFiles {
        env.fs().create_dir_all(Path::new("db")).unwrap();
        let (obsolete, _) = crossbeam::channel::unbounded();
        DatabaseFiles::new(
            env.fs().clone(),
            PathBuf::from("db"),
            BufferCache::new(1 << 20).unwrap(),
            obsolete,
        )
    }

    fn added(run: u64, file_bytes: u64) -> Edit {
        Edit::TableAdded(TableMeta {
            keyspace: KeyspaceId(0),
            level: 0,
            run,
            file: FileNumber(9),
            file_bytes,
            entries: 1,
            tombstones: 0,
            smallest: vec![b'a'],
            largest: vec![b'b'],
            min_sequence: SequenceNumber(1),
            max_sequence: SequenceNumber(1),
            lower: None,
            unknown: Vec::new(),
        })
    }

    #[test]
    fn a_table_is_in_one_run() {
        let context = Arc::new(context(&Env::sim_manual(1).0));
        let handles = HashMap::from([(FileNumber(9), TableHandle::new(&context, FileNumber(9), 336))]);
        let version = Version::default().apply(KeyspaceId(0), &[added(1, 336)], &handles).unwrap();
        let error = version.apply(KeyspaceId(0), &[added(2, 336)], &handles).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        // One edit may move it, in any order.
        let removed = Edit::TableRemoved { keyspace: KeyspaceId(0), level: 0, run: 1, file: FileNumber(9) };
        for edits in [[added(2, 336), removed.clone()], [removed, added(2, 336)]] {
            let moved = version.apply(KeyspaceId(0), &edits, &handles).unwrap();
            assert_eq!(moved.runs.iter().map(|run| run.id).collect::<Vec<_>>(), [2]);
        }
    }

    #[test]
    fn a_table_has_one_length() {
        let context = Arc::new(context(&Env::sim_manual(1).0));
        let handles = HashMap::from([(FileNumber(9), TableHandle::new(&context, FileNumber(9), 336))]);
        let version = Version::default().apply(KeyspaceId(0), &[added(1, 336)], &handles).unwrap();
        let again = HashMap::from([(FileNumber(9), TableHandle::new(&context, FileNumber(9), 400))]);
        for handles in [&again, &HashMap::new()] {
            let error = version.apply(KeyspaceId(0), &[added(2, 400)], handles).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        }
    }
}
