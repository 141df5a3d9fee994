//! The writer of new tables: a sequence of files, cut by size but never between versions of one
//! key.
use crate::held::Held;
use crate::options::CompactionOptions;
use crate::planted;
use crate::survivors::Survivor;
use crate::version::TableHandle;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::manifest::TableMeta;
use sapwood_base::{FileNumber, KeyspaceId, Result, SequenceNumber, ValueKind};
use sapwood_sstable::{TableBuilder, TableOptions};
use sapwood_storage::DatabaseFiles;
use std::ops::Range;
use std::sync::Arc;

/// A table that is written and synced, but not yet part of a version.
pub struct Output {
    /// Its handle.
    pub handle: Arc<TableHandle>,
    /// Its metadata for the MANIFEST.
    pub meta: TableMeta,
}

/// Writes entries in internal order into tables.
pub struct OutputWriter<'a> {
    context: &'a Arc<DatabaseFiles>,
    keyspace: KeyspaceId,
    level: u8,
    run: u64,
    table: TableOptions,
    target_file_bytes: u64,
    builder: Option<(TableBuilder, FileNumber)>,
    outputs: Vec<Output>,
    started: Vec<FileNumber>,
    finished: bool,
    /// Ascending.
    snapshots: &'a [SequenceNumber],
    /// Bytes that the open table holds for the snapshots.
    held: Held,
}

impl<'a> OutputWriter<'a> {
    /// Creates a writer of tables of run `run` in `level`. `snapshots`, ascending, are those that
    /// versions are kept for.
    pub fn new(
        context: &'a Arc<DatabaseFiles>,
        options: &CompactionOptions,
        keyspace: KeyspaceId,
        level: u8,
        run: u64,
        snapshots: &'a [SequenceNumber],
    ) -> OutputWriter<'a> {
        OutputWriter {
            context,
            keyspace,
            level,
            run,
            table: options.table_options(level),
            target_file_bytes: options.target_file_bytes,
            builder: None,
            outputs: Vec::new(),
            started: Vec::new(),
            finished: false,
            snapshots,
            held: Held::default(),
        }
    }

    /// Appends a survivor.
    #[inline(always)]
    pub fn write(&mut self, survivor: Survivor<'_>) -> Result<()> {
        let Survivor { key, is_newest, sequence, kind, value, held_for } = survivor;
        self.add(is_newest, key, sequence, kind, value)?;
        if let Some(readers) = held_for {
            // An empty key without a value counts as an entry too.
            self.note_held(readers, (key.len() + value.len()).max(1));
        }
        Ok(())
    }

    #[cold]
    fn note_held(&mut self, readers: Range<SequenceNumber>, bytes: usize) {
        self.held.note(readers.start, readers.end, bytes as u64, self.snapshots);
    }

    /// Appends an entry. `new_key`: its user key differs from that of the previous entry.
    #[inline]
    pub fn add(
        &mut self,
        new_key: bool,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<()> {
        if planted::may_end_table(new_key)
            && self.builder.as_ref().is_some_and(|(b, _)| b.estimated_bytes() >= self.target_file_bytes)
        {
            self.finish_table()?;
        }
        if self.builder.is_none() {
            self.start_table()?;
        }
        let (builder, _) = self.builder.as_mut().expect("started");
        let key = planted::written_key(key, self.level, builder.last_key());
        builder.add(&key, sequence, kind, value)
    }

    #[cold]
    fn start_table(&mut self) -> Result<()> {
        let number = self.context.allocate_name(FileName::Table)?;
        let file = self.context.fs.create_new(&self.context.unfinished_path(FileName::Table(number)))?;
        self.started.push(number);
        let builder = TableBuilder::new(file, number, self.keyspace, &self.table);
        self.builder = Some((builder.for_database(self.context.database()), number));
        Ok(())
    }

    #[cold]
    fn finish_table(&mut self) -> Result<()> {
        let Some((builder, number)) = self.builder.take() else { return Ok(()) };
        let summary = builder.finish()?;
        self.context.finish_file(FileName::Table(number))?;
        let meta = TableMeta {
            keyspace: self.keyspace,
            level: self.level,
            run: self.run,
            file: number,
            file_bytes: summary.file_bytes,
            entries: summary.properties.entries,
            tombstones: summary.properties.tombstones,
            smallest: summary.properties.smallest_key,
            largest: summary.properties.largest_key,
            min_sequence: summary.properties.min_sequence,
            max_sequence: summary.properties.max_sequence,
            lower: None,
            unknown: Vec::new(),
        };
        let handle = TableHandle::new(self.context, number, summary.file_bytes);
        let raw_bytes = summary.properties.raw_key_bytes + summary.properties.raw_value_bytes;
        handle.set_held(std::mem::take(&mut self.held).scaled(summary.file_bytes, raw_bytes));
        self.outputs.push(Output { handle, meta });
        Ok(())
    }

    /// Finishes the last table. The files are synced, their names are not: the caller syncs the
    /// directory.
    pub fn finish(mut self) -> Result<Vec<Output>> {
        self.finish_table()?;
        self.finished = true;
        Ok(std::mem::take(&mut self.outputs))
    }
}

impl Drop for OutputWriter<'_> {
    /// Removes the output of a failed job, so that a full disk does not get fuller.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.builder = None;
        for number in &self.started {
            // One of the two names exists. A file that cannot be removed now is removed when the
            // database is next opened.
            let name = FileName::Table(*number);
            for path in [self.context.unfinished_path(name), self.context.path(name)] {
                let _ = self.context.fs.remove_file(&path);
            }
        }
    }
}
