//! Access to decoders without a public name, for fuzz targets only. Requires the feature `sim`.
pub use crate::index::extractor::EmitBuffer;
use crate::manifest::{self, ManifestState};
use crate::read::view::Generation;
use crate::recovery::{self, MemtableSource};
use crate::wal::commit_ring::LogPoint;
use crate::wal::reader::{FoundSegment, LogReader};
use sapwood_base::format::log_record::{HEADER_BYTES, RecordKind, UNIT_BYTES, parse_header};
use sapwood_base::format::log_segment::{DATA_OFFSET, SegmentHeader};
use sapwood_base::format::manifest::Edit;
use sapwood_base::{FileNumber, Result};
use sapwood_memtable::{ArenaPool, MemtableOptions};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::cache::BufferCache;
use sapwood_storage::fs::{File, FileSystem};
use std::path::Path;
use std::sync::Arc;

/// The result of reading a part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOutcome {
    /// The position after the last valid record.
    pub end: u64,
    /// A durable position above `end`, if one is proven: then the end is damage, not a tear.
    pub witness: Option<u64>,
}

/// Reads the log that starts at `from` in these segments, as recovery reads the last part.
pub fn read_log(
    segments: Vec<(SegmentHeader, Box<dyn File>)>,
    database: u64,
    from: u64,
    mut visit: impl FnMut(u64, RecordKind, &[u8]),
) -> Result<LogOutcome> {
    let mut found = Vec::new();
    for (header, file) in segments {
        let file_bytes = file.len()?;
        found.push(FoundSegment {
            number: FileNumber(header.file_number),
            header,
            file: file.into(),
            file_bytes,
        });
    }
    found.sort_by_key(|segment| segment.header.base_position);
    let commits = commits_before(&found, from)?;
    let mut reader = LogReader::new(&found, database, LogPoint { position: from, commits });
    // Small, so that short inputs contain records that exceed it.
    let mut buffer = [0; 512];
    'log: loop {
        let span = reader.span(u64::MAX, &mut buffer)?;
        let LogPoint { mut position, mut commits } = span.start();
        let mut rest = &buffer[..span.bytes];
        while let Some(header) = rest.first_chunk().and_then(|bytes| parse_header(bytes, position)) {
            if !header.verify(rest, database, position) {
                reader.return_to(LogPoint { position, commits });
                break 'log;
            }
            visit(position, header.kind, &rest[HEADER_BYTES..header.covered_bytes()]);
            position += header.units();
            commits = header.commits_after();
            rest = &rest[header.units() as usize * UNIT_BYTES..];
        }
        if span.bytes == 0 {
            let Some(record) = reader.next()? else { break };
            visit(record.position, record.kind, record.payload());
        }
    }
    let end = reader.position();
    let witness = reader.witness_above(end)?;
    let _ = reader.place(end);
    let _ = reader.damage(end, "is damaged");
    Ok(LogOutcome { end, witness })
}

/// The number of commits before `position`, from the header of the record there.
fn commits_before(segments: &[FoundSegment], position: u64) -> Result<u64> {
    for segment in segments {
        let Some(units) = position.checked_sub(segment.header.base_position) else { continue };
        let offset = DATA_OFFSET as u64 + units.saturating_mul(UNIT_BYTES as u64);
        let mut header = [0; HEADER_BYTES];
        if units < u64::from(segment.header.data_units)
            && offset.saturating_add(HEADER_BYTES as u64) <= segment.file_bytes
        {
            segment.file.read_exact_at(offset, &mut header)?;
            return Ok(parse_header(&header, position).map_or(0, |header| header.commits));
        }
    }
    Ok(0)
}

/// The environment of decoders without a database, kept from input to input.
pub struct Surroundings {
    files: Arc<DatabaseFiles>,
    arenas: Arc<ArenaPool>,
}

impl Surroundings {
    /// A database in `directory` of `fs`, with the smallest memtables.
    pub fn new(fs: Arc<dyn FileSystem>, directory: &Path) -> Result<Surroundings> {
        // Without a receiver: files of dropped tables are not removed.
        let (obsolete, _) = crossbeam::channel::unbounded();
        let files = DatabaseFiles::new(fs, directory.to_path_buf(), BufferCache::new(0)?, obsolete);
        let files = Arc::new(files);
        Ok(Surroundings { files, arenas: ArenaPool::new(MemtableOptions { size_bytes: 64 << 10 }) })
    }

    /// Replays the bytes of MANIFEST 1.
    pub fn replay_manifest(&self, bytes: &[u8]) -> Result<Replayed> {
        let loaded = manifest::replay_bytes(&self.files, bytes)?;
        Ok(Replayed { database: loaded.database, state: loaded.state })
    }

    /// The steps of an open that change no files, with a single memtable.
    pub fn recover(&self) -> Result<Recovery> {
        let names = manifest::list(&*self.files.fs, &self.files.directory)?;
        let source = MemtableSource {
            arenas: &self.arenas,
            memtable_bytes: 64 << 10,
            most: 1,
            first_memtable: 0,
            env: None,
        };
        let mut recovered = recovery::analyze(&self.files, &names, 7, &source)?;
        let count = |generations: &[Arc<Generation>]| -> u64 {
            generations.iter().map(|generation| generation.memtable.entries()).sum()
        };
        let mut entries = count(&recovered.generations);
        if let Some(rest) = &mut recovered.rest {
            while let Some(generations) = rest.replay(&source, recovered.manifest.clone())? {
                entries += count(&generations);
            }
        }
        Ok(Recovery { base: recovered.base, entries, state: recovered.manifest })
    }
}

/// The owner under which the records of a MANIFEST are sealed.
pub fn manifest_owner(database: u64, number: FileNumber) -> u64 {
    manifest::owner(database, number)
}

/// The bytes of MANIFEST 1 that holds these edits, one record per element. The first should be a
/// snapshot.
pub fn encode_manifest(database: u64, records: &[Vec<Edit>]) -> Vec<u8> {
    let mut bytes = sapwood_base::format::manifest::encode_header(database).to_vec();
    for edits in records {
        let record =
            manifest::encode_record(edits, manifest_owner(database, FileNumber(1)), bytes.len() as u64);
        bytes.extend(record);
    }
    bytes
}

/// The result of a MANIFEST's replay.
pub struct Replayed {
    /// The number of its database.
    pub database: u64,
    state: ManifestState,
}

impl Replayed {
    /// The state, which is checked, as a snapshot.
    pub fn edits(&self) -> Vec<Edit> {
        check(&self.state);
        self.state.snapshot()
    }
}

/// The state from which an open would continue.
pub struct Recovery {
    /// The start of the new log.
    pub base: u64,
    /// Entries in memtables.
    pub entries: u64,
    state: ManifestState,
}

impl Recovery {
    /// The state, which is checked, as a snapshot.
    pub fn edits(&self) -> Vec<Edit> {
        check(&self.state);
        self.state.snapshot()
    }
}

/// The invariants of every state, whatever its bytes.
fn check(state: &ManifestState) {
    let mut files: Vec<FileNumber> = Vec::new();
    for (id, entry) in state.keyspaces.iter() {
        assert!(id.0 < state.next_keyspace, "keyspace {id} is not below the next one");
        assert_eq!(*id, entry.state.id);
        match &entry.index {
            None => {
                let same_name = state.named().filter(|other| other.state.name == entry.state.name);
                assert_eq!(same_name.count(), 1, "two keyspaces have one name");
            }
            Some(index) => {
                let definition = &index.state.definition;
                let named = state.index_by_name(definition.keyspace, &definition.name).expect("by name");
                assert_eq!(named.state.id, *id, "two indexes of a keyspace have one name");
                assert!(state.keyspaces[&definition.keyspace].index.is_none(), "an index of an index");
            }
        }
        let runs = &entry.version.runs;
        let order = |pair: &[Arc<sapwood_compaction::Run>]| {
            (pair[0].level, std::cmp::Reverse(pair[0].id)) < (pair[1].level, std::cmp::Reverse(pair[1].id))
        };
        assert!(runs.windows(2).all(order), "runs are not newest first");
        for run in runs {
            assert!(!run.tables.is_empty(), "a run is empty");
            for table in &run.tables {
                files.push(table.handle.file());
                assert!(table.first() <= table.last(), "a table ends before it begins");
                assert!(
                    run.find(table.first()).is_some_and(|found| found.handle.file() == table.handle.file())
                );
                assert!(
                    run.find(table.last()).is_some_and(|found| found.handle.file() == table.handle.file())
                );
            }
            assert!(run.tables.windows(2).all(|pair| pair[0].last() < pair[1].first()), "a run overlaps");
        }
    }
    files.sort_unstable();
    assert!(files.windows(2).all(|pair| pair[0] != pair[1]), "a table is in two places");
}
