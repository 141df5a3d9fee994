//! Whole databases: an archive of files is laid out as a directory and opened.
//!
//! An archive is a list of files: a byte for the kind, one for the number, two for the length, then
//! the bytes. A log segment is stored without the zeros between its header and its data, as in
//! `log.rs`.
use super::allocation::producing;
use super::manifest::state_bytes;
use super::memory::{MemoryDirectory, MemoryFile};
use sapwood::fuzzing::Surroundings;
use sapwood::{AdvancedOptions, Db, Env, ErrorKind, Result, SequenceNumber};
use sapwood_base::FileNumber;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIRECTORY: &str = "/db";

/// One file of an archive.
pub struct Archived {
    /// The name.
    pub name: FileName,
    /// The start of its bytes in the archive.
    pub start: usize,
    /// The end of its bytes in the archive.
    pub end: usize,
}

/// The files of an archive. Of two with the same name the first counts.
pub fn files(archive: &[u8]) -> Vec<Archived> {
    let mut found: Vec<Archived> = Vec::new();
    let mut at = 0;
    while at + 4 <= archive.len() && found.len() < 16 {
        let number = FileNumber(u64::from(archive[at + 1]));
        let name = match archive[at] % 3 {
            0 => FileName::Manifest(number),
            1 => FileName::Table(number),
            _ => FileName::Log(number),
        };
        let len = usize::from(u16::from_le_bytes([archive[at + 2], archive[at + 3]]));
        let (start, end) = (at + 4, (at + 4 + len).min(archive.len()));
        if found.iter().all(|other| other.name != name) {
            found.push(Archived { name, start, end });
        }
        at = end;
    }
    found
}

/// Adds a file to an archive.
pub fn append(archive: &mut Vec<u8>, name: FileName, bytes: &[u8]) {
    let (kind, number) = match name {
        FileName::Manifest(number) => (0, number),
        FileName::Table(number) => (1, number),
        FileName::Log(number) => (2, number),
        FileName::Lock | FileName::Unsynced | FileName::Tree(_) | FileName::Unfinished(..) => return,
    };
    let mut packed = bytes.to_vec();
    if kind == 2 && bytes.len() >= DATA_OFFSET {
        packed.drain(HEADER_BYTES..DATA_OFFSET);
    }
    let len = u16::try_from(packed.len()).expect("a small file");
    archive.extend_from_slice(&[kind, u8::try_from(number.0).expect("a small number")]);
    archive.extend_from_slice(&len.to_le_bytes());
    archive.extend_from_slice(&packed);
}

fn path(name: FileName) -> PathBuf {
    Path::new(DIRECTORY).join(name.format())
}

fn file(archive: &[u8], entry: &Archived) -> MemoryFile {
    let bytes = &archive[entry.start..entry.end];
    match bytes.split_at_checked(HEADER_BYTES) {
        Some((header, data)) if matches!(entry.name, FileName::Log(_)) => {
            MemoryFile::with_hole(path(entry.name), header, DATA_OFFSET, data)
        }
        _ => MemoryFile::new(path(entry.name), bytes),
    }
}

thread_local! {
    static PLACE: (MemoryDirectory, Surroundings) = {
        let directory = MemoryDirectory::default();
        let place = Surroundings::new(Arc::new(directory.clone()), Path::new(DIRECTORY));
        (directory, place.expect("memory for a small memtable"))
    };
}

/// The part of an open that changes no file: an error with its place, or a state, twice the
/// same.
pub fn recover_image(data: &[u8]) {
    PLACE.with(|(directory, place)| {
        directory.set(files(data).iter().map(|entry| file(data, entry)).collect());
        let manifests = files(data).into_iter().filter(|file| matches!(file.name, FileName::Manifest(_)));
        let state: usize = manifests.map(|file| state_bytes(&data[file.start..file.end])).sum();
        match producing("recover_image", data.len(), || (place.recover(), state)) {
            Ok(recovery) => {
                assert!(recovery.base <= SequenceNumber::MAX.0 + 1, "positions have 57 bits");
                let again = place.recover().expect("the second recovery succeeds like the first");
                assert_eq!((again.base, again.entries), (recovery.base, recovery.entries));
                assert_eq!(again.edits(), recovery.edits());
            }
            Err(error) => {
                let kinds = [
                    ErrorKind::Corruption,
                    ErrorKind::Unsupported,
                    // A memtable refuses entries beyond its limits.
                    ErrorKind::InvalidArgument,
                    ErrorKind::NoSpace,
                ];
                assert!(kinds.contains(&error.kind()), "{error:?}");
            }
        }
        directory.set(Vec::new());
    });
}

/// Opens the archive as a database on a simulated machine, reads, writes, flushes, compacts,
/// closes, and opens it again. There is no panic, and the last write is present unless an error was
/// returned.
pub fn open_dir(data: &[u8]) {
    let (env, fs) = machine();
    env.fs().create_dir_all(Path::new(DIRECTORY)).expect("an empty disk");
    for entry in files(data) {
        let packed = file(data, &entry);
        let mut bytes = vec![0; packed.len()];
        sapwood_storage::File::read_exact_at(&packed, 0, &mut bytes).expect("memory");
        fs.write_file(path(entry.name), &bytes).expect("an empty disk");
    }
    let Ok(db) = open(&env) else { return };
    let _ = look(&db);
    let keyspace = db.default_keyspace();
    let wrote = keyspace.put("fuzz", "was here").is_ok();
    if wrote {
        assert_eq!(keyspace.get("fuzz").expect("a read from a memtable").as_deref(), Some(&b"was here"[..]));
    }
    let flushed = db.flush().is_ok();
    let _ = db.compact();
    let _ = look(&db);
    let closed = db.close().is_ok();
    drop((keyspace, db));
    if closed {
        let db = open(&env).expect("a database that was opened and closed opens again");
        let _ = look(&db);
        // Tables may hold anything under right checksums, but data that never left the memtable and
        // the log may not be lost.
        if wrote && !flushed {
            let _ = db.default_keyspace().get("fuzz");
        }
    }
}

fn machine() -> (Env, sapwood_storage::SimFs) {
    Env::sim_manual(5)
}

fn open(env: &Env) -> Result<Db> {
    let env = env.clone();
    Db::builder(DIRECTORY)
        .memory_budget(4 << 20)
        .advanced(|options: &mut AdvancedOptions| {
            crate::harness::small(options);
            options.env = env;
        })
        .open()
}

/// Reads a little of everything.
fn look(db: &Db) -> Result<()> {
    for name in db.list_keyspaces()? {
        let keyspace = db.keyspace(&name, Default::default())?;
        for entry in keyspace.iter().take(200) {
            let (key, _) = entry?.into_parts();
            let _ = keyspace.get(&key);
        }
        for entry in keyspace.iter().rev().take(200) {
            entry?;
        }
    }
    Ok(())
}
