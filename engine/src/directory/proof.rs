//! The proof that a file is ours: a name alone proves nothing, see `directory`.
use sapwood_base::Result;
use sapwood_base::format::btree_root::TREE_MAGIC;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::footer::{FOOTER_BYTES, TABLE_MAGIC};
use sapwood_base::format::log_segment::{HEADER_BYTES, LOG_MAGIC, SegmentHeader};
use sapwood_base::format::manifest::{HEADER_BYTES as MANIFEST_HEADER_BYTES, MANIFEST_MAGIC, decode_header};
use sapwood_storage::fs::{File, FileSystem, OpenMode, is_no_file};
use std::path::Path;

/// Bytes read at a time by the check for zeros.
const BLANK_BYTES: usize = 1 << 16;
/// The longest file of ours that can be blank: the longest log segment.
const LONGEST_BLANK: u64 = 1 << 30;

/// The origin of a file with a name of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It has the magic number that goes with the name, and names no other database.
    Ours,
    /// Empty, or zeros only: an interrupted creation, without data.
    Blank,
    /// From another program, or damaged beyond recognition.
    Foreign,
}

/// Examines a file with a name of ours. `database` is the number that it must have, if known.
pub(crate) fn proof(
    fs: &dyn FileSystem,
    directory: &Path,
    name: FileName,
    database: Option<u64>,
) -> Result<Proof> {
    let path = directory.join(name.format());
    if matches!(name, FileName::Unfinished(..)) {
        return Ok(Proof::Ours);
    }
    let file = match fs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        // Removed in between, a directory, a link, a pipe.
        Err(error) if is_no_file(&error) => return Ok(Proof::Foreign),
        Err(error) => return Err(error),
    };
    match prove(&*file, name, database) {
        Err(error) if is_no_file(&error) => Ok(Proof::Foreign),
        result => result,
    }
}

fn prove(file: &dyn File, name: FileName, database: Option<u64>) -> Result<Proof> {
    let len = file.len()?;
    let is_of = |number: Option<u64>| match (number, database) {
        (Some(number), Some(wanted)) => number == wanted || number == 0,
        _ => true,
    };
    let is_ours = match name {
        FileName::Lock | FileName::Unsynced => {
            return Ok(if len == 0 { Proof::Ours } else { Proof::Foreign });
        }
        FileName::Unfinished(..) => return Ok(Proof::Ours),
        FileName::Manifest(_) => {
            let mut header = [0; MANIFEST_HEADER_BYTES];
            let count = read_up_to(file, 0, &mut header)?;
            // A damaged header does not identify the database.
            begins_with(&header[..count], MANIFEST_MAGIC) && is_of(decode_header(&header).ok())
        }
        FileName::Log(_) => {
            let mut header = [0; HEADER_BYTES];
            let count = read_up_to(file, 0, &mut header)?;
            let decoded = SegmentHeader::decode(&header).ok().flatten();
            begins_with(&header[..count], LOG_MAGIC) && is_of(decoded.map(|header| header.database))
        }
        FileName::Tree(_) => {
            let mut magic = [0; 8];
            let count = read_up_to(file, 0, &mut magic)?;
            begins_with(&magic[..count], TREE_MAGIC)
        }
        FileName::Table(_) => {
            let mut footer = [0; FOOTER_BYTES];
            let count = read_up_to(file, len.saturating_sub(FOOTER_BYTES as u64), &mut footer)?;
            let number = footer.as_chunks().0[8];
            count == FOOTER_BYTES && footer.ends_with(&TABLE_MAGIC) && is_of(Some(u64::from_le_bytes(number)))
        }
    };
    match is_ours {
        true => Ok(Proof::Ours),
        false if is_blank(file, len)? => Ok(Proof::Blank),
        false => Ok(Proof::Foreign),
    }
}

fn begins_with(bytes: &[u8], magic: [u8; 8]) -> bool {
    bytes.starts_with(&magic)
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(offset + done as u64, &mut buffer[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn is_blank(file: &dyn File, len: u64) -> Result<bool> {
    if len > LONGEST_BLANK {
        return Ok(false);
    }
    let mut buffer = vec![0; BLANK_BYTES.min(len as usize)];
    let mut offset = 0;
    while offset < len {
        let count = read_up_to(file, offset, &mut buffer)?;
        if count == 0 {
            break;
        }
        if buffer[..count].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += count as u64;
    }
    Ok(true)
}
