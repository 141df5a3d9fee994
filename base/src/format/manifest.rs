//! Version edits: the payload of a MANIFEST record.
//!
//! ```text
//! edit:  field*          field:  varint tag   varint length   bytes
//! ```
//!
//! One record is applied atomically. The first record of a MANIFEST is a snapshot of the full
//! state. A reader refuses an unknown tag below 64. It keeps a field with one from 64 on and writes
//! it into the snapshots that follow, so later versions can add both kinds.
use super::btree_root::{TREE_ROOT_BYTES, TreeRoot};
use super::index_definition::IndexDefinition;
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::key::{FileNumber, KeyspaceId, MAX_KEY_BYTES, MAX_KEYSPACES};
use crate::sequence::SequenceNumber;

/// The bytes at the start of a MANIFEST, before the first record: magic, format version, database.
pub const HEADER_BYTES: usize = 24;
/// The first eight bytes of every MANIFEST.
pub const MANIFEST_MAGIC: [u8; 8] = *b"SAPWMAN1";
const MAGIC: u64 = u64::from_le_bytes(MANIFEST_MAGIC);
/// Levels are numbered from 0 (newest) to this, exclusively.
pub const MAX_LEVELS: u8 = 16;

/// One table as a version sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// The keyspace it belongs to.
    pub keyspace: KeyspaceId,
    /// 0 is the newest level.
    pub level: u8,
    /// The run inside the level; larger is newer.
    pub run: u64,
    /// The number in the file's name.
    pub file: FileNumber,
    /// Size of the file.
    pub file_bytes: u64,
    /// Entries in the file.
    pub entries: u64,
    /// The number of tombstones among them.
    pub tombstones: u64,
    /// The smallest user key in the file.
    pub smallest: Vec<u8>,
    /// The largest user key in the file.
    pub largest: Vec<u8>,
    /// The smallest sequence number in the file.
    pub min_sequence: SequenceNumber,
    /// The largest sequence number in the file.
    pub max_sequence: SequenceNumber,
    /// If set, entries with a user key below it no longer belong to the run: a compaction has taken
    /// them.
    pub lower: Option<Vec<u8>>,
    /// Optional fields of a later version, as they are encoded.
    pub unknown: Vec<u8>,
}

/// One field of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The next file number to hand out is at least this.
    NextFile(FileNumber),
    /// The log is needed from this position on; everything below is in tables.
    LogStart(u64),
    /// The number of commits before the start of the log.
    LogCommits(u64),
    /// The log of a closed session. Complete and synced, unless [`Edit::LogSynced`] says otherwise.
    LogClosed {
        /// First position.
        start: u64,
        /// Position after the last record.
        end: u64,
    },
    /// The log of the open session starts here. Recovery finds its end by reading.
    LogOpened(u64),
    /// Closed sessions are synced below this position; their contents above it may be lost in a
    /// power loss, like the end of the open one. Without this edit they are synced as a whole.
    /// Concerns the sessions that were closed before.
    LogSynced(u64),
    /// A keyspace was created.
    KeyspaceCreated {
        /// Its identity.
        id: KeyspaceId,
        /// Its name.
        name: String,
        /// Its options, `key=value;…`.
        options: String,
    },
    /// A keyspace and all its tables were dropped.
    KeyspaceDropped(KeyspaceId),
    /// A table joins the version.
    TableAdded(TableMeta),
    /// A table leaves the version.
    TableRemoved {
        /// The keyspace it belongs to.
        keyspace: KeyspaceId,
        /// Its level.
        level: u8,
        /// Its run.
        run: u64,
        /// Its file.
        file: FileNumber,
    },
    /// The next keyspace gets at least this number.
    NextKeyspace(u32),
    /// A secondary index was created. It is not complete before an [`Edit::IndexReady`].
    IndexCreated {
        /// The keyspace of its entries: indexes and keyspaces share one sequence of numbers.
        id: KeyspaceId,
        /// Its definition.
        definition: IndexDefinition,
    },
    /// An index was dropped with its tables and its tree.
    IndexDropped(KeyspaceId),
    /// An index is complete.
    IndexReady {
        /// The index.
        id: KeyspaceId,
        /// Every row from this number on was written together with its entries.
        start: SequenceNumber,
        /// Its tree has the entries of all rows up to this number. Earlier states must not be read.
        built: SequenceNumber,
    },
    /// An index has missed writes and must be rebuilt.
    IndexOutdated(KeyspaceId),
    /// The state of an index's tree.
    IndexTree {
        /// The index.
        id: KeyspaceId,
        /// The file of the tree.
        file: FileNumber,
        /// Its root.
        root: TreeRoot,
    },
    /// Optional fields of a later version, as they are encoded.
    Unknown(Vec<u8>),
}

impl Edit {
    /// The file that this edit removes from its version, if any.
    pub fn removed_file(&self) -> Option<FileNumber> {
        match self {
            Edit::TableRemoved { file, .. } => Some(*file),
            _ => None,
        }
    }
}

/// The bytes before the first record.
pub fn encode_header(database: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[8..12].copy_from_slice(&super::FORMAT_VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&database.to_le_bytes());
    let sum = crate::checksum::checksum32(&bytes[..20], MAGIC);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The database of a MANIFEST with this header. Errors carry no file: the caller adds it.
pub fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Result<u64> {
    let mut decoder = Decoder::new(bytes);
    if decoder.u64()? != MAGIC {
        return Err(Error::malformed("not a MANIFEST: wrong magic number"));
    }
    let version = decoder.u32()?;
    let database = decoder.u64()?;
    if decoder.u32()? != crate::checksum::checksum32(&bytes[..20], MAGIC) {
        return Err(Error::malformed("checksum of the MANIFEST header does not match"));
    }
    super::check_version("MANIFEST", version)?;
    Ok(database)
}

const NEXT_FILE: u64 = 1;
const LOG_START: u64 = 2;
const LOG_CLOSED: u64 = 3;
const LOG_OPENED: u64 = 4;
const KEYSPACE_CREATED: u64 = 5;
const KEYSPACE_DROPPED: u64 = 6;
const TABLE_ADDED: u64 = 7;
const TABLE_REMOVED: u64 = 8;
const NEXT_KEYSPACE: u64 = 9;
const INDEX_CREATED: u64 = 10;
const INDEX_DROPPED: u64 = 11;
const INDEX_READY: u64 = 12;
const INDEX_OUTDATED: u64 = 13;
const INDEX_TREE: u64 = 14;
const LOG_SYNCED: u64 = 15;
const LOG_COMMITS: u64 = 16;
/// The field with the lower bound of an added table.
const LOWER_BOUND: u64 = 1;

/// Encodes the fields of one edit.
pub fn encode(edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Vec::new();
    for edit in edits {
        if let Edit::Unknown(fields) = edit {
            out.extend_from_slice(fields);
            continue;
        }
        body.clear();
        let tag = encode_body(edit, &mut body);
        put_field(&mut out, tag, &body);
    }
    out
}

/// Appends the bytes of a field and returns its tag.
fn encode_body(edit: &Edit, body: &mut Vec<u8>) -> u64 {
    let mut numbers = |tag: u64, numbers: &[u64]| {
        numbers.iter().for_each(|number| put_varint(body, *number));
        tag
    };
    match edit {
        Edit::NextFile(file) => numbers(NEXT_FILE, &[file.0]),
        Edit::LogStart(position) => numbers(LOG_START, &[*position]),
        Edit::LogCommits(commits) => numbers(LOG_COMMITS, &[*commits]),
        Edit::LogClosed { start, end } => numbers(LOG_CLOSED, &[*start, *end]),
        Edit::LogOpened(position) => numbers(LOG_OPENED, &[*position]),
        Edit::LogSynced(position) => numbers(LOG_SYNCED, &[*position]),
        Edit::KeyspaceCreated { id, name, options } => {
            let tag = numbers(KEYSPACE_CREATED, &[id.0.into()]);
            put_bytes(body, name.as_bytes());
            put_bytes(body, options.as_bytes());
            tag
        }
        Edit::KeyspaceDropped(id) => numbers(KEYSPACE_DROPPED, &[id.0.into()]),
        Edit::NextKeyspace(id) => numbers(NEXT_KEYSPACE, &[(*id).into()]),
        Edit::TableAdded(table) => {
            encode_table(table, body);
            TABLE_ADDED
        }
        Edit::TableRemoved { keyspace, level, run, file } => {
            numbers(TABLE_REMOVED, &[keyspace.0.into(), (*level).into(), *run, file.0])
        }
        Edit::IndexCreated { id, definition } => {
            let tag = numbers(INDEX_CREATED, &[id.0.into()]);
            put_bytes(body, &definition.encode());
            tag
        }
        Edit::IndexDropped(id) => numbers(INDEX_DROPPED, &[id.0.into()]),
        Edit::IndexReady { id, start, built } => numbers(INDEX_READY, &[id.0.into(), start.0, built.0]),
        Edit::IndexOutdated(id) => numbers(INDEX_OUTDATED, &[id.0.into()]),
        Edit::IndexTree { id, file, root } => {
            let tag = numbers(INDEX_TREE, &[id.0.into(), file.0]);
            body.extend_from_slice(&root.encode());
            tag
        }
        Edit::Unknown(_) => unreachable!("it is encoded already"),
    }
}

fn encode_table(table: &TableMeta, body: &mut Vec<u8>) {
    let TableMeta { keyspace, level, run, file, .. } = table;
    for number in [keyspace.0.into(), (*level).into(), *run, file.0] {
        put_varint(body, number);
    }
    for number in [table.file_bytes, table.entries, table.tombstones] {
        put_varint(body, number);
    }
    put_bytes(body, &table.smallest);
    put_bytes(body, &table.largest);
    put_varint(body, table.min_sequence.0);
    put_varint(body, table.max_sequence.0);
    if let Some(lower) = &table.lower {
        put_varint(body, LOWER_BOUND);
        put_bytes(body, lower);
    }
    body.extend_from_slice(&table.unknown);
}

/// A number up to `most`.
fn number(decoder: &mut Decoder<'_>, what: &str, most: u64) -> Result<u64> {
    match decoder.varint()? {
        number if number <= most => Ok(number),
        number => Err(Error::malformed(format!("{what} number {number} is out of range"))),
    }
}

fn keyspace(decoder: &mut Decoder<'_>) -> Result<KeyspaceId> {
    number(decoder, "keyspace", u64::from(MAX_KEYSPACES) - 1).map(|id| KeyspaceId(id as u32))
}

fn file(decoder: &mut Decoder<'_>) -> Result<FileNumber> {
    number(decoder, "file", FileNumber::MAX.0).map(FileNumber)
}

/// A position of the log; the end position, one past the last, is valid too.
fn position(decoder: &mut Decoder<'_>) -> Result<u64> {
    number(decoder, "position", SequenceNumber::MAX.0 + 1)
}

fn level(decoder: &mut Decoder<'_>) -> Result<u8> {
    number(decoder, "level", u64::from(MAX_LEVELS) - 1).map(|level| level as u8)
}

fn table(body: &mut Decoder<'_>) -> Result<TableMeta> {
    let mut table = TableMeta {
        keyspace: keyspace(body)?,
        level: level(body)?,
        run: body.varint()?,
        file: file(body)?,
        file_bytes: body.varint()?,
        entries: body.varint()?,
        tombstones: body.varint()?,
        smallest: key(body)?,
        largest: key(body)?,
        min_sequence: SequenceNumber(body.varint()?),
        max_sequence: SequenceNumber(body.varint()?),
        lower: None,
        unknown: Vec::new(),
    };
    table_fields(body, &mut table)?;
    // If bounds or numbers contradict each other, searches would be wrong or would miss the table.
    let sound = table.smallest <= table.largest
        && table.lower.as_ref().is_none_or(|lower| *lower <= table.largest)
        && table.min_sequence <= table.max_sequence
        && table.max_sequence <= SequenceNumber::MAX
        && table.tombstones <= table.entries;
    if sound {
        return Ok(table);
    }
    Err(Error::malformed(format!("what is said of table {} contradicts itself", table.file)))
}

/// The fields of an added table; only the lower bound is known.
fn table_fields(decoder: &mut Decoder<'_>, table: &mut TableMeta) -> Result<()> {
    super::fields(decoder, "table in a MANIFEST", |identifier, bytes| {
        if identifier == LOWER_BOUND {
            table.lower = Some(bounded_key(bytes)?);
            return Ok(true);
        }
        if super::is_optional(identifier) {
            put_field(&mut table.unknown, identifier, bytes);
        }
        Ok(false)
    })
}

/// Appends an encoded field.
fn put_field(out: &mut Vec<u8>, identifier: u64, bytes: &[u8]) {
    put_varint(out, identifier);
    put_bytes(out, bytes);
}

fn key(decoder: &mut Decoder<'_>) -> Result<Vec<u8>> {
    bounded_key(decoder.length_prefixed()?)
}

fn bounded_key(bytes: &[u8]) -> Result<Vec<u8>> {
    if bytes.len() > MAX_KEY_BYTES {
        return Err(Error::malformed("key length exceeds its limit"));
    }
    Ok(bytes.to_vec())
}

fn text(decoder: &mut Decoder<'_>) -> Result<String> {
    String::from_utf8(decoder.length_prefixed()?.to_vec()).map_err(|_| Error::malformed("text is not UTF-8"))
}

/// The fields of one edit, decoded one by one: an edit may be long, and a reader need not hold all
/// of it. Errors carry no file: the caller adds it. Iteration ends after an error.
#[derive(Clone, Debug)]
pub struct Edits<'a> {
    fields: Decoder<'a>,
    failed: bool,
}

impl<'a> Edits<'a> {
    /// The fields in the payload of a record.
    pub fn new(payload: &'a [u8]) -> Edits<'a> {
        Edits { fields: Decoder::new(payload), failed: false }
    }

    fn field(&mut self) -> Result<Edit> {
        let tag = self.fields.varint()?;
        edit(tag, self.fields.length_prefixed()?)
    }
}

impl Iterator for Edits<'_> {
    type Item = Result<Edit>;

    fn next(&mut self) -> Option<Result<Edit>> {
        if self.fields.is_empty() || self.failed {
            return None;
        }
        let field = self.field();
        self.failed = field.is_err();
        Some(field)
    }
}

fn edit(tag: u64, bytes: &[u8]) -> Result<Edit> {
    let mut body = Decoder::new(bytes);
    let edit = match tag {
        NEXT_FILE => Edit::NextFile(file(&mut body)?),
        LOG_START => Edit::LogStart(position(&mut body)?),
        // Each takes a position.
        LOG_COMMITS => Edit::LogCommits(position(&mut body)?),
        LOG_CLOSED => {
            let (start, end) = (position(&mut body)?, position(&mut body)?);
            if start > end {
                return Err(Error::malformed("a session of the log ends before it starts"));
            }
            Edit::LogClosed { start, end }
        }
        LOG_OPENED => Edit::LogOpened(position(&mut body)?),
        LOG_SYNCED => Edit::LogSynced(position(&mut body)?),
        KEYSPACE_CREATED => Edit::KeyspaceCreated {
            id: keyspace(&mut body)?,
            name: text(&mut body)?,
            options: text(&mut body)?,
        },
        KEYSPACE_DROPPED => Edit::KeyspaceDropped(keyspace(&mut body)?),
        TABLE_ADDED => Edit::TableAdded(table(&mut body)?),
        TABLE_REMOVED => Edit::TableRemoved {
            keyspace: keyspace(&mut body)?,
            level: level(&mut body)?,
            run: body.varint()?,
            file: file(&mut body)?,
        },
        NEXT_KEYSPACE => Edit::NextKeyspace(number(&mut body, "keyspace", MAX_KEYSPACES.into())? as u32),
        INDEX_CREATED => Edit::IndexCreated {
            id: keyspace(&mut body)?,
            definition: IndexDefinition::decode(body.length_prefixed()?)?,
        },
        INDEX_DROPPED => Edit::IndexDropped(keyspace(&mut body)?),
        INDEX_READY => Edit::IndexReady {
            id: keyspace(&mut body)?,
            start: SequenceNumber(position(&mut body)?),
            built: SequenceNumber(position(&mut body)?),
        },
        INDEX_OUTDATED => Edit::IndexOutdated(keyspace(&mut body)?),
        INDEX_TREE => Edit::IndexTree {
            id: keyspace(&mut body)?,
            file: file(&mut body)?,
            root: TreeRoot::decode(body.bytes(TREE_ROOT_BYTES)?)?,
        },
        tag if super::is_optional(tag) => {
            let mut field = Vec::new();
            put_field(&mut field, tag, bytes);
            return Ok(Edit::Unknown(field));
        }
        tag => return Err(super::unknown_field("edit of a MANIFEST", tag)),
    };
    // The fields of an added table were read above.
    super::fields(&mut body, "part of a MANIFEST", |_, _| Ok(false))?;
    Ok(edit)
}

#[cfg(test)]
mod tests {
    use super::super::index_definition::{ExtractorSpec, Maintenance};
    use super::*;
    use crate::error::ErrorKind;

    fn decode(payload: &[u8]) -> Result<Vec<Edit>> {
        Edits::new(payload).collect()
    }

    fn sample() -> Vec<Edit> {
        vec![
            Edit::NextFile(FileNumber(12)),
            Edit::LogStart(1 << 33),
            Edit::LogCommits(1 << 30),
            Edit::LogClosed { start: 5, end: 9 },
            Edit::LogOpened(77),
            Edit::LogSynced(7),
            Edit::KeyspaceCreated { id: KeyspaceId(1), name: "users".into(), options: "a=b".into() },
            Edit::KeyspaceDropped(KeyspaceId(2)),
            Edit::TableAdded(TableMeta {
                keyspace: KeyspaceId(1),
                level: 6,
                run: 3,
                file: FileNumber(300),
                file_bytes: 1 << 26,
                entries: 100,
                tombstones: 1,
                smallest: b"a".to_vec(),
                largest: b"zz".to_vec(),
                min_sequence: SequenceNumber(1),
                max_sequence: SequenceNumber(1000),
                lower: Some(b"m".to_vec()),
                unknown: vec![64, 2, b'h', b'i', 65, 0],
            }),
            Edit::TableRemoved { keyspace: KeyspaceId(1), level: 0, run: 9, file: FileNumber(4) },
            Edit::NextKeyspace(4),
            Edit::IndexCreated {
                id: KeyspaceId(3),
                definition: IndexDefinition {
                    name: "by_city".into(),
                    keyspace: KeyspaceId(1),
                    extractor: ExtractorSpec::Custom { version: 2 },
                    unique: true,
                    maintenance: Maintenance::Strict,
                },
            },
            Edit::IndexReady { id: KeyspaceId(3), start: SequenceNumber(7), built: SequenceNumber(9) },
            Edit::IndexOutdated(KeyspaceId(3)),
            Edit::IndexTree { id: KeyspaceId(3), file: FileNumber(8), root: TreeRoot::empty(99, 8192) },
            Edit::IndexDropped(KeyspaceId(3)),
        ]
    }

    #[test]
    fn edits_round_trip() {
        assert_eq!(decode(&encode(&sample())).unwrap(), sample());
    }

    #[test]
    fn a_cut_edit_is_an_error_or_a_shorter_edit_and_never_a_panic() {
        let bytes = encode(&sample());
        for cut in 0..bytes.len() {
            if let Ok(edits) = decode(&bytes[..cut]) {
                assert_eq!(edits[..], sample()[..edits.len()]);
            }
        }
    }

    #[test]
    fn unknown_fields_are_refused_below_64_and_kept_from_64_on() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, 63);
        put_bytes(&mut bytes, b"x");
        assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
        bytes[0] = 64;
        let edits = decode(&bytes).unwrap();
        assert_eq!(edits, vec![Edit::Unknown(bytes.clone())]);
        assert_eq!(encode(&edits), bytes);
    }

    #[test]
    fn fields_that_contradict_themselves_or_are_out_of_range_are_refused() {
        let is_table = |edit: &Edit| matches!(edit, Edit::TableAdded(_));
        let Some(Edit::TableAdded(good)) = sample().into_iter().find(is_table) else {
            panic!("the sample has a table")
        };
        let wrong: [fn(&mut TableMeta); 7] = [
            |table| table.smallest = b"zzz".to_vec(),
            |table| table.lower = Some(b"zzz".to_vec()),
            |table| table.min_sequence = SequenceNumber(1001),
            |table| table.max_sequence = SequenceNumber(1 << 57),
            |table| table.tombstones = 101,
            |table| table.file = FileNumber(u64::MAX),
            |table| table.keyspace = KeyspaceId(MAX_KEYSPACES),
        ];
        let mut edits: Vec<Edit> = wrong
            .iter()
            .map(|change| {
                let mut table = good.clone();
                change(&mut table);
                Edit::TableAdded(table)
            })
            .collect();
        edits.extend([
            Edit::NextFile(FileNumber(u64::MAX)),
            Edit::NextKeyspace(MAX_KEYSPACES + 1),
            Edit::KeyspaceDropped(KeyspaceId(u32::MAX)),
            Edit::LogStart(u64::MAX),
            Edit::LogCommits(u64::MAX),
            Edit::LogClosed { start: 0, end: (1 << 57) + 1 },
            Edit::LogOpened(1 << 58),
            Edit::LogSynced(1 << 58),
        ]);
        for edit in edits {
            let error = decode(&encode(std::slice::from_ref(&edit))).expect_err("must be refused");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{edit:?}");
        }
    }

    #[test]
    fn a_newer_database_is_refused() {
        let mut header = encode_header(7);
        assert_eq!(decode_header(&header).unwrap(), 7);
        header[8] = 200;
        let sum = crate::checksum::checksum32(&header[..20], MAGIC);
        header[20..24].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode_header(&header).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
