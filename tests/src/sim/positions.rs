//! Databases that begin at a chosen position: memory words hold only a part of a position, and the
//! number of positions is finite.
use sapwood_base::FileNumber;
use sapwood_base::format::log_record::{HEADER_BYTES, RecordKind, seal};
use sapwood_base::format::manifest::{Edit, encode, encode_header};
use sapwood_storage::FileSystem;
use std::path::Path;

/// The bits of a position in a word of the commit ring.
const WORD_BITS: u32 = 44;
/// The fewest units that a run writes.
const RUN_UNITS: u64 = 3000;

/// Creates an empty database in `directory` whose first open begins at `position` or shortly
/// after it.
pub fn begin_at(fs: &dyn FileSystem, directory: &Path, position: u64) -> sapwood::Result<()> {
    let edits = [
        Edit::NextFile(FileNumber(10)),
        Edit::NextKeyspace(0),
        Edit::LogStart(position),
        Edit::LogOpened(position),
    ];
    let mut record = vec![0; HEADER_BYTES];
    record.extend(encode(&edits));
    let payload = (record.len() - HEADER_BYTES) as u32;
    seal(&mut record, payload, 77 + 5, 3, RecordKind::Edit, edits.len());
    record.resize(record.len().next_multiple_of(8), 0);
    let mut bytes = encode_header(77).to_vec();
    bytes.extend(record);
    fs.create_dir_all(directory)?;
    let file = fs.create_new(&directory.join("MANIFEST-000005"))?;
    file.write_at(0, &bytes).and_then(|()| file.sync_all())?;
    fs.sync_directory(directory)?;
    fs.sync_directory(directory.parent().expect("it lies in a directory"))
}

/// For one seed in four, a position from which the run crosses the end of a word.
pub fn before_the_end_of_a_word(seed: u64) -> Option<u64> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x0057_0a27);
    (random.u8(..4) == 0).then(|| (random.u64(1..1 << 12) << WORD_BITS) - random.u64(1..RUN_UNITS))
}
