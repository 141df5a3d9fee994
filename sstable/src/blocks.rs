//! Data blocks between file and reader: read, check, decompress, and search for a key.
//!
//! Invariant: every image that leaves this module has passed [`BlockLayout::parse`], so readers use
//! [`BlockLayout::of_validated`].
use crate::codec::{decompress, decompress_grown, is_unbelievable};
use crate::index::TableIndex;
use crate::vector::match_tags;
use sapwood_base::format::block::{BlockLayout, CodecId, StoredKind, TAG_GROUP, unseal};
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};
use sapwood_storage::File;
use std::cell::RefCell;

/// Scratch memory for stored blocks that a thread keeps between compressed blocks.
const KEPT_SCRATCH_BYTES: usize = 1 << 20;

/// The length of the image of `block` in memory. For an uncompressed block it includes padding and
/// trailer.
#[inline]
pub(crate) fn image_len(index: &TableIndex, block: usize) -> usize {
    // Stored lengths are differences of 32-bit numbers of 16-byte units, and a file read into
    // memory fits `usize`.
    index.raw_len(block).unwrap_or(index.stored_len(block) as usize)
}

/// Reads `block` into `image`, which is [`image_len`] bytes long, and checks it.
pub(crate) fn read_block(
    file: &dyn File,
    number: FileNumber,
    index: &TableIndex,
    block: usize,
    image: &mut [u8],
) -> Result<()> {
    let offset = index.offset(block);
    if index.raw_len(block).is_none() {
        file.read_exact_at(offset, image)?;
        return check_image(image, number, offset).map_err(|error| error.at(file.path(), offset));
    }
    with_stored(file, index, block, |stored| expand(stored, image, number, offset))
}

/// Reads a compressed block whose announced length is unbelievable: see [`is_unbelievable`]. `None`
/// if the length can be taken for granted.
#[inline]
pub(crate) fn read_unbelievable(
    file: &dyn File,
    number: FileNumber,
    index: &TableIndex,
    block: usize,
) -> Result<Option<Vec<u8>>> {
    match index.raw_len(block) {
        Some(len) if is_unbelievable(len, index.stored_len(block) as usize) => {
            let offset = index.offset(block);
            with_stored(file, index, block, |stored| expand_owned(stored, len, number, offset)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Passes a stored block to `run`, in scratch memory that is kept for the next block.
fn with_stored<T>(
    file: &dyn File,
    index: &TableIndex,
    block: usize,
    run: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // A thread that is shutting down keeps no scratch memory.
    let mut scratch = SCRATCH.try_with(RefCell::take).unwrap_or_default();
    let (offset, len) = (index.offset(block), index.stored_len(block) as usize);
    if scratch.len() < len {
        memory::resize(&mut scratch, len, 0)?;
    }
    let result = file
        .read_exact_at(offset, &mut scratch[..len])
        .and_then(|()| run(&scratch[..len]).map_err(|error| error.at(file.path(), offset)));
    if scratch.len() <= KEPT_SCRATCH_BYTES {
        let _ = SCRATCH.try_with(|kept| kept.replace(scratch));
    }
    result
}

/// Checks a stored block that is not compressed.
pub(crate) fn check_image(stored: &[u8], number: FileNumber, offset: u64) -> Result<()> {
    let (codec, len) = unseal(stored, StoredKind::Data, number, offset)?;
    if codec != CodecId::None {
        return Err(Error::new(ErrorKind::Corruption, "block is compressed, its index entry says it is not"));
    }
    BlockLayout::parse(&stored[..len]).map(|_| ())
}

/// Checks a compressed stored block and decompresses it into the whole of `image`.
pub(crate) fn expand(stored: &[u8], image: &mut [u8], number: FileNumber, offset: u64) -> Result<()> {
    let (codec, len) = unseal(stored, StoredKind::Data, number, offset)?;
    decompress(codec, &stored[..len], image)?;
    BlockLayout::parse(image).map(|_| ())
}

/// Checks a compressed stored block and decompresses it into a new buffer of `len` bytes.
pub(crate) fn expand_owned(stored: &[u8], len: usize, number: FileNumber, offset: u64) -> Result<Vec<u8>> {
    if is_unbelievable(len, stored.len()) {
        let (codec, payload_len) = unseal(stored, StoredKind::Data, number, offset)?;
        let image = decompress_grown(codec, &stored[..payload_len], len)?;
        return BlockLayout::parse(&image).map(|_| image);
    }
    let mut image = memory::filled(0, len)?;
    expand(stored, &mut image, number, offset).map(|()| image)
}

/// The result of a search for a key at a sequence number.
pub(crate) enum Search {
    /// The slot of the newest visible version.
    Found(usize),
    /// This block has no visible version, and later blocks do not have the key.
    Absent,
    /// No version here is visible, but the block ends with the key: older versions may follow.
    AtEnd,
}

/// Searches for the newest version of `key` that a reader at `sequence` sees.
///
/// Compares all tags of the block, sixteen at a time. A slot with the right tag is a false hit once
/// in 256.
#[inline]
pub(crate) fn search(
    layout: &BlockLayout,
    image: &[u8],
    key: &[u8],
    tag: u8,
    sequence: SequenceNumber,
) -> Search {
    let count = layout.count();
    for (group, tags) in layout.tags(image).iter().enumerate() {
        let mut mask = match_tags(tags, tag);
        while mask != 0 {
            let slot = group * TAG_GROUP + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            // The zeros of the padding match the tag zero.
            if slot >= count {
                break;
            }
            // Comparing sequence numbers is cheaper, and versions that are too new need no key
            // comparison.
            if layout.sequence(image, slot) <= sequence && layout.key_is(image, slot, key) {
                return Search::Found(slot);
            }
        }
    }
    let last = count - 1;
    if layout.tag(image, last) == tag
        && layout.sequence(image, last) > sequence
        && layout.key_is(image, last, key)
    {
        return Search::AtEnd;
    }
    Search::Absent
}

/// The first slot with this tag, which is where a search compares first.
#[inline]
pub(crate) fn likely_slot(layout: &BlockLayout, image: &[u8], tag: u8) -> Option<usize> {
    let mut groups = layout.tags(image).iter().map(|tags| match_tags(tags, tag)).enumerate();
    let (group, mask) = groups.find(|(_, mask)| *mask != 0)?;
    Some(group * TAG_GROUP + mask.trailing_zeros() as usize).filter(|slot| *slot < layout.count())
}
