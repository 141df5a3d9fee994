//! Data blocks on their way from the file to a reader: reading, checking, decompressing; and finding a key in one.
//!
//! Invariant: an image that leaves this module went through [`BlockLayout::parse`], so readers use
//! [`BlockLayout::of_validated`].
use crate::codec::{decompress, decompress_grown, is_unbelievable};
use crate::index::TableIndex;
use crate::vector::match_tags;
use sapwood_base::format::block::{BlockLayout, CodecId, StoredKind, TAG_GROUP, unseal};
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};
use sapwood_storage::File;
use std::cell::RefCell;

/// Memory for stored blocks that is kept from one compressed block to the next.
const KEPT_SCRATCH_BYTES: usize = 1 << 20;

/// The length of the image of `block` as it is loaded: for an uncompressed one its padding and trailer included.
#[inline]
pub(crate) fn image_len(index: &TableIndex, block: usize) -> usize {
    // Stored lengths are differences of 32-bit numbers of 16-byte units; a file read into memory fits `usize`.
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

/// The image of a compressed block that is as long as its index entry says, if only the block itself can tell whether it
/// is: see [`is_unbelievable`]. `None` if its length can be taken for granted.
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

/// Hands out a stored block, in memory that is kept for the next one.
fn with_stored<T>(
    file: &dyn File,
    index: &TableIndex,
    block: usize,
    run: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // A thread that is being torn down keeps none.
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

/// Checks a compressed stored block and decompresses it into memory of its own, `len` bytes.
pub(crate) fn expand_owned(stored: &[u8], len: usize, number: FileNumber, offset: u64) -> Result<Vec<u8>> {
    if is_unbelievable(len, stored.len()) {
        let (codec, payload_len) = unseal(stored, StoredKind::Data, number, offset)?;
        let image = decompress_grown(codec, &stored[..payload_len], len)?;
        return BlockLayout::parse(&image).map(|_| image);
    }
    let mut image = memory::filled(0, len)?;
    expand(stored, &mut image, number, offset).map(|()| image)
}

/// What a block says about a key at a sequence number.
pub(crate) enum Search {
    /// The newest visible version is in this slot.
    Found(usize),
    /// There is no visible version in this block, and later blocks do not have the key.
    Absent,
    /// There is no visible version, but the block ends with the key: older versions may follow.
    AtEnd,
}

/// Looks for the newest version of `key` that a reader at `sequence` sees.
///
/// All tags of the block are compared, sixteen at a time; a slot with the right tag is a false hit once in 256.
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
            // Zeros of the padding match the tag zero.
            if slot >= count {
                break;
            }
            // The sequence number is the cheaper question, and versions too new need no comparison of keys.
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

/// The first slot with this tag: where a search will look first.
#[inline]
pub(crate) fn likely_slot(layout: &BlockLayout, image: &[u8], tag: u8) -> Option<usize> {
    let mut groups = layout.tags(image).iter().map(|tags| match_tags(tags, tag)).enumerate();
    let (group, mask) = groups.find(|(_, mask)| *mask != 0)?;
    Some(group * TAG_GROUP + mask.trailing_zeros() as usize).filter(|slot| *slot < layout.count())
}
