//! Repairs checksums after a mutation, and lengths whose damage would hide everything after them.
//!
//! Every function works in place and leaves an intact artefact unchanged. The fuzzer keeps control
//! of kinds, flags, versions, positions and counts.
use super::image;
use super::log::segments;
use super::{DATABASE, FILE};
use sapwood::fuzzing::manifest_owner;
use sapwood_base::FileNumber;
use sapwood_base::checksum::{checksum32, checksum64, place_seed};
use sapwood_base::format::FORMAT_VERSION;
use sapwood_base::format::block::BLOCK_TRAILER_BYTES;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::footer::{FOOTER_BYTES, TABLE_MAGIC};
use sapwood_base::format::log_record::{
    self, COMMITS_AT, HEADER_BYTES, KIND_AT, OPERATIONS_AT, PAYLOAD_BYTES_AT, RecordKind, RecordPlace,
    UNIT_BYTES, record_units,
};
use sapwood_base::format::{log_segment, manifest as manifest_format};

/// For formats without checksums.
pub fn nothing(_data: &mut [u8]) {}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// The header of a log segment: magic, database, checksum. A header of zeros stays one.
pub fn segment_header(data: &mut [u8]) {
    let Some(header) = data.first_chunk_mut::<{ log_segment::HEADER_BYTES }>() else { return };
    if header.iter().all(|byte| *byte == 0) {
        return;
    }
    put(header, 0, &log_segment::LOG_MAGIC);
    put(header, 8, &FORMAT_VERSION.to_le_bytes());
    put(header, 24, &DATABASE.to_le_bytes());
    let end = log_segment::HEADER_BYTES - size_of::<u64>();
    let sum = checksum64(&header[..end], 0x5A50_574C_4F47);
    put(header, end, &sum.to_le_bytes());
}

/// A stream of records sealed for `owner` that begins at `position`, up to the first header of
/// zeros: kind, length within the stream, position, checksum.
fn stream(data: &mut [u8], owner: u64, position: u64, fallback: RecordKind) {
    let mut at = 0;
    // The first record determines how many commits came before; the others follow it.
    let mut commits = if data.len() < HEADER_BYTES { 0 } else { u64_at(data, COMMITS_AT) };
    while data.len() - at >= HEADER_BYTES {
        let rest = &mut data[at..];
        if rest[..HEADER_BYTES].iter().all(|byte| *byte == 0) {
            return;
        }
        let kind = RecordKind::from_u8(rest[KIND_AT]).filter(|kind| !kind.is_reserved()).unwrap_or(fallback);
        let room = rest.len() - HEADER_BYTES;
        let mut payload = u32_at(rest, PAYLOAD_BYTES_AT) as usize;
        let operations = usize::from(u16::from_le_bytes([rest[OPERATIONS_AT], rest[OPERATIONS_AT + 1]]));
        let position = position.wrapping_add((at / UNIT_BYTES) as u64);
        let covered = if kind.is_header_alone() {
            0
        } else {
            payload = payload.min(room);
            payload
        };
        let place = RecordPlace { database: owner, position, commits };
        log_record::seal_at(&mut rest[..HEADER_BYTES + covered], payload as u32, &place, kind, operations);
        commits = commits.wrapping_add(u64::from(kind.is_commit()));
        let next = at as u64 + record_units(payload) * UNIT_BYTES as u64;
        match usize::try_from(next) {
            Ok(next) if next <= data.len() => at = next,
            _ => return,
        }
    }
}

/// MANIFEST 1.
pub fn manifest(data: &mut [u8]) {
    manifest_of(data, FileNumber(1));
}

/// A MANIFEST with this number: header and records.
fn manifest_of(data: &mut [u8], number: FileNumber) {
    const HEADER: usize = manifest_format::HEADER_BYTES;
    if data.len() < HEADER {
        return;
    }
    put(data, 0, &manifest_format::MANIFEST_MAGIC);
    put(data, 8, &FORMAT_VERSION.to_le_bytes());
    put(data, 12, &DATABASE.to_le_bytes());
    let end = HEADER - size_of::<u32>();
    let sum = checksum32(&data[..end], u64::from_le_bytes(manifest_format::MANIFEST_MAGIC));
    put(data, end, &sum.to_le_bytes());
    let owner = manifest_owner(DATABASE, number);
    stream(&mut data[HEADER..], owner, (HEADER / UNIT_BYTES) as u64, RecordKind::Edit);
}

/// An input of `wal_reader`.
pub fn log(data: &mut [u8]) {
    let pieces = segments(data);
    log_pieces(data, &pieces);
}

/// Segments at (header, data, end): headers, then the records of each run of adjacent segments.
fn log_pieces(data: &mut [u8], pieces: &[(usize, usize, usize)]) {
    let mut by_position = Vec::new();
    for (header, body, end) in pieces {
        segment_header(&mut data[*header..*body]);
        let units = u64::from(u32_at(data, header + 12));
        let base = u64_at(data, header + 16);
        // A run continues only after complete data.
        let whole = (units as usize).saturating_mul(UNIT_BYTES) == end - body;
        by_position.push((base, base.wrapping_add(units), whole, *body..*end));
    }
    by_position.sort_by_key(|piece| piece.0);
    let mut at = 0;
    while at < by_position.len() {
        let first = at;
        while at + 1 < by_position.len() && by_position[at].2 && by_position[at].1 == by_position[at + 1].0 {
            at += 1;
        }
        at += 1;
        let group = &by_position[first..at];
        if let [(base, _, _, range)] = group {
            stream(&mut data[range.clone()], DATABASE, *base, RecordKind::Batch);
            continue;
        }
        let mut gathered: Vec<u8> =
            group.iter().flat_map(|(_, _, _, range)| &data[range.clone()]).copied().collect();
        stream(&mut gathered, DATABASE, group[0].0, RecordKind::Batch);
        let mut rest = gathered.as_slice();
        for (_, _, _, range) in group {
            let (piece, behind) = rest.split_at(range.len());
            data[range.clone()].copy_from_slice(piece);
            rest = behind;
        }
    }
}

/// A stored block at `offset` of `file`: its checksum.
fn stored(block: &mut [u8], file: FileNumber, offset: u64) {
    if let Some((body, sum)) = block.split_last_chunk_mut::<4>() {
        *sum = checksum32(body, place_seed(file.0, offset)).to_le_bytes();
    }
}

/// An input of `sst_stored`.
pub fn stored_input(data: &mut [u8]) {
    if let Some(block) = data.get_mut(3..) {
        stored(block, FILE, 0);
    }
}

fn footer_of(bytes: &mut [u8], file: FileNumber) {
    put(bytes, 56, &file.0.to_le_bytes());
    put(bytes, 76, &FORMAT_VERSION.to_le_bytes());
    put(bytes, 88, &TABLE_MAGIC);
    let sum = checksum32(&bytes[..84], place_seed(file.0, u64::MAX));
    put(bytes, 84, &sum.to_le_bytes());
}

/// An input of `sst_footer`.
pub fn footer_input(data: &mut [u8]) {
    if let Some(bytes) = data.get_mut(8..8 + FOOTER_BYTES) {
        footer_of(bytes, FILE);
    }
}

/// A whole table.
pub fn table(data: &mut [u8]) {
    table_of(data, FILE);
}

/// A whole table with this number: the footer, the places of the sections after data of the
/// remaining length, and the checksums of sections and blocks.
fn table_of(data: &mut [u8], file: FileNumber) {
    let Some(end) = data.len().checked_sub(FOOTER_BYTES) else { return };
    let footer = end;
    let len_of =
        |data: &[u8], slot: usize| usize::try_from(u64_at(data, footer + slot * 8)).unwrap_or(usize::MAX);
    let lens = [2, 4, 6].map(|slot| len_of(data, slot));
    let Some(data_len) = lens.iter().try_fold(end, |left, len| left.checked_sub(*len)) else {
        return footer_of(&mut data[end..], file);
    };
    let mut offset = data_len as u64;
    put(data, footer, &offset.to_le_bytes());
    for (slot, len) in [1, 3, 5].into_iter().zip(lens) {
        put(data, footer + slot * 8, &offset.to_le_bytes());
        offset += len as u64;
    }
    footer_of(&mut data[end..], file);
    let index = data_len + lens[0];
    let properties = index + lens[1];
    if lens[1] >= 32 + BLOCK_TRAILER_BYTES {
        put(data, index + 8, &(data_len as u64).to_le_bytes());
        let count = u32_at(data, index) as usize;
        let offsets = count.checked_mul(4).map(|len| (index + 32 + len, len));
        if let Some((from, len)) = offsets.filter(|(from, len)| from + len <= properties) {
            let at = |i: usize| u64::from(u32_at(data, from + 4 * i)) * 16;
            let ends = (0..count).map(|i| if i + 1 < count { at(i + 1) } else { data_len as u64 });
            let blocks: Vec<(u64, u64)> = (0..count).map(at).zip(ends).collect();
            debug_assert_eq!(len, 4 * count);
            for (start, stop) in blocks {
                if start < stop && stop <= data_len as u64 {
                    stored(&mut data[start as usize..stop as usize], file, start);
                }
            }
        }
    }
    for (start, stop) in [(data_len, index), (index, properties), (properties, end)] {
        stored(&mut data[start..stop], file, start as u64);
    }
}

/// An archive of files.
pub fn image(data: &mut [u8]) {
    let mut pieces = Vec::new();
    for entry in image::files(data) {
        let bytes = &mut data[entry.start..entry.end];
        match entry.name {
            FileName::Manifest(number) => manifest_of(bytes, number),
            FileName::Table(number) => {
                // A table without a database number is accepted in any database.
                if let Some(at) = bytes.len().checked_sub(FOOTER_BYTES - 64)
                    && bytes[at..at + 8] != [0; 8]
                {
                    put(bytes, at, &DATABASE.to_le_bytes());
                }
                table_of(bytes, number);
            }
            FileName::Log(number) if bytes.len() >= log_segment::HEADER_BYTES => {
                // A header of another file only if a mutation has enlarged the number.
                if bytes[..log_segment::HEADER_BYTES].iter().any(|byte| *byte != 0) && bytes[33..40] == [0; 7]
                {
                    put(bytes, 32, &number.0.to_le_bytes());
                }
                pieces.push((entry.start, entry.start + log_segment::HEADER_BYTES, entry.end));
            }
            _ => {}
        }
    }
    log_pieces(data, &pieces);
}

#[cfg(test)]
mod tests {
    use crate::targets::{TARGETS, seeds};

    #[test]
    fn intact_artefacts_stay_as_they_are() {
        let mut seen = 0;
        for (name, seed) in seeds::all() {
            let target = crate::targets::target(name);
            let mut repaired = seed.clone();
            (target.repair)(&mut repaired);
            assert!(repaired == seed, "a seed of {name} ({} bytes) was changed", seed.len());
            seen += 1;
        }
        assert!(seen > TARGETS.len());
    }

    #[test]
    fn repaired_artefacts_pass_their_checksums() {
        // One byte inside a payload changes; after the repair the decoder passes the checksum
        // again.
        let mut random = fastrand::Rng::with_seed(1);
        let (mut passed, mut tried) = (0, 0);
        for (name, seed) in seeds::all().into_iter().filter(|(name, _)| *name == "manifest_replay") {
            for _ in 0..50 {
                let mut wrong = seed.clone();
                let at = random.usize(24..wrong.len());
                wrong[at] = wrong[at].wrapping_add(1 + random.u8(..100));
                (crate::targets::target(name).repair)(&mut wrong);
                tried += 1;
                passed += usize::from(crate::targets::manifest::passes_checksums(&wrong));
            }
        }
        assert!(tried >= 50 && passed == tried, "{passed} of {tried}");
    }
}
