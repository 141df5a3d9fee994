//! The parts of a table, each decoder alone: data blocks, stored blocks, index, filter, footer,
//! properties, codecs.
use super::FILE;
use super::allocation::producing;
use super::bytes::Bytes;
use sapwood_base::format::block::{
    BlockLayout, CodecId, MAX_COMPRESSION_RATIO, SMALL_IMAGE_BYTES, StoredKind, unseal,
};
use sapwood_base::format::footer::{FOOTER_BYTES, TableFooter};
use sapwood_base::format::properties::TableProperties;
use sapwood_base::format::table_index::TableIndexColumns;
use sapwood_base::key::{key_hash, key_head};
use sapwood_sstable::filter::Filter;
use sapwood_sstable::fuzzing;

/// The most entries that are read in one block.
const ENTRIES_MAX: usize = 2000;

/// Reads the input as the raw image of a block.
pub fn sst_block(data: &[u8]) {
    let Ok(layout) = BlockLayout::parse(data) else { return };
    walk(&layout, data, &data[..data.len() % 13]);
}

/// Reads all entries of a parsed block, and searches it.
fn walk(layout: &BlockLayout, image: &[u8], probe: &[u8]) {
    let count = layout.count();
    assert!(count > 0, "a block has entries");
    let lcp = layout.lcp(image);
    assert_eq!(layout.tags(image).len(), count.div_ceil(16));
    let mut is_sound = count <= ENTRIES_MAX;
    let mut before: Option<&[u8]> = None;
    for i in 0..count.min(ENTRIES_MAX) {
        let suffix = layout.suffix(image, i);
        is_sound &= layout.head(image, i) == key_head(suffix) && before.is_none_or(|before| before <= suffix);
        before = Some(suffix);
        let (start, end) = layout.value_range(image, i);
        assert_eq!(layout.value(image, i).len(), end - start);
        let _ = (layout.tag(image, i), layout.kind(image, i), layout.sequence(image, i));
    }
    let last = count - 1;
    let _ = (layout.suffix(image, last), layout.value(image, last), layout.kind(image, last));
    let key = [lcp, layout.suffix(image, last / 2)].concat();
    assert!(layout.key_is(image, last / 2, &key));
    for probe in [&key, probe, lcp, b"", &[0xFF; 9], &[lcp, probe].concat()] {
        let found = layout.lower_bound(image, probe);
        assert!(found <= count);
        if is_sound {
            let below =
                (0..count).take_while(|i| (lcp, layout.suffix(image, *i)).concat_cmp(probe).is_lt()).count();
            assert_eq!(found, below, "the search agrees with a walk");
        }
    }
    let again = BlockLayout::of_validated(image);
    assert_eq!(again.count(), count);
}

/// Compares a key in two parts.
trait ConcatCmp {
    fn concat_cmp(&self, other: &[u8]) -> std::cmp::Ordering;
}

impl ConcatCmp for (&[u8], &[u8]) {
    fn concat_cmp(&self, other: &[u8]) -> std::cmp::Ordering {
        self.0.iter().chain(self.1).cmp(other)
    }
}

/// The number of raw bytes that an index may announce for a stored block of this length.
fn announced(wanted: usize, stored_len: usize) -> usize {
    wanted.min(SMALL_IMAGE_BYTES.max(stored_len.saturating_mul(MAX_COMPRESSION_RATIO))).max(1)
}

/// A raw length from 16 bits and a shift of three: most blocks are short, some may be megabytes.
fn raw_len(low: u16, shift: u8) -> usize {
    usize::from(low) << (shift & 7)
}

/// Runs a decompression of an input of `len` bytes. In addition to the rule it may allocate twice
/// its output.
fn expanding<T>(name: &str, len: usize, expand: impl FnOnce() -> T) -> T {
    fuzzing::take_output();
    producing(name, len, || (expand(), 2 * fuzzing::take_output()))
}

/// A byte with the expected kind, two with the announced raw length, then a stored block at offset
/// 0.
pub fn sst_stored(data: &[u8]) {
    let mut input = Bytes::new(data);
    let choice = input.u8();
    let raw_len = raw_len(input.u16(), choice >> 3);
    let stored = input.all();
    let kind = [StoredKind::Data, StoredKind::Filter, StoredKind::Index, StoredKind::Properties]
        [usize::from(choice & 3)];
    if let Ok((_, len)) = unseal(stored, kind, FILE, 0) {
        assert!(len + 8 <= stored.len(), "a payload precedes its trailer");
    }
    if choice & 4 == 0 {
        if fuzzing::check_image(stored, FILE, 0).is_ok() {
            walk(&BlockLayout::of_validated(stored), stored, b"key");
        }
        return;
    }
    let len = announced(raw_len, stored.len());
    if let Ok(image) = expanding("sst_stored", data.len(), || fuzzing::expand(stored, len, FILE, 0)) {
        assert_eq!(image.len(), len);
        walk(&BlockLayout::of_validated(&image), &image, b"key");
    }
}

/// Reads the input as the payload of an index.
pub fn sst_index(data: &[u8]) {
    let columns = TableIndexColumns::decode(data);
    let index = fuzzing::Index::decode(data);
    let (Ok(columns), Ok(index)) = (&columns, &index) else {
        assert!(columns.is_err() && index.is_err());
        return;
    };
    let count = columns.block_count();
    assert_eq!(index.block_count(), count);
    let stored: u64 = (0..count).map(|block| columns.stored_len(block)).sum();
    assert_eq!(stored, columns.data_len, "blocks fill the data");
    assert!(index.memory_bytes() <= 4096 + 8 * data.len());
    if count == 0 {
        return;
    }
    let step = count / 16 + 1;
    let separators: Vec<Vec<u8>> = (0..count).step_by(step).map(|block| index.separator(block)).collect();
    assert!(separators.is_sorted(), "separators ascend");
    for probe in
        separators.iter().map(Vec::as_slice).chain([&b""[..], b"key", &[0xFF; 12], &data[..data.len() % 16]])
    {
        let found = index.find(probe);
        assert!(found < count);
        assert!(index.separator(found).as_slice() <= probe || found == 0, "a block begins at its separator");
        if found + 1 < count {
            let next = index.separator(found + 1);
            assert!(
                next.as_slice() > probe || index.is_continued(found + 1),
                "the next block begins above, or continues the same key"
            );
        }
    }
    // The decoded index can be written again, with whole separators.
    let mut whole = TableIndexColumns::default();
    for block in 0..count {
        let raw_len = columns.raw_lengths.get(block).copied().unwrap_or(0);
        let pushed =
            whole.push(&index.separator(block), columns.offset(block), raw_len, index.is_continued(block));
        pushed.expect("a table of this length was possible before");
    }
    whole.data_len = columns.data_len;
    let mut again = Vec::new();
    whole.encode(&mut again);
    let second = fuzzing::Index::decode(&again).expect("an encoding of a valid index");
    for block in (0..count).step_by(step) {
        assert_eq!(second.separator(block), index.separator(block));
    }
}

/// Reads the input as the payload of a filter.
pub fn sst_filter(data: &[u8]) {
    let Ok(filter) = Filter::decode(data) else { return };
    assert!(filter.memory_bytes() <= data.len());
    for i in 0..8u64 {
        let hash = key_hash(&i.to_le_bytes());
        filter.prefetch(hash);
        let first = filter.may_contain(hash);
        assert_eq!(first, filter.may_contain(hash));
    }
    for hash in [0, u64::MAX, 1 << 63, u64::from(u32::MAX)] {
        filter.may_contain(hash);
        filter.prefetch(hash);
    }
    let mut again = Vec::new();
    filter.encode(&mut again);
    assert!(again == data, "a filter has one encoding");
}

/// Eight bytes with the length of the file, then a footer.
pub fn sst_footer(data: &[u8]) {
    let mut input = Bytes::new(data);
    let file_len = input.u64();
    let Some(bytes) = input.all().first_chunk::<FOOTER_BYTES>() else { return };
    let Ok(footer) = TableFooter::decode(bytes, FILE, file_len) else { return };
    assert_eq!(footer.encode(FILE), *bytes, "a footer has one encoding");
    assert!(footer.properties.end() + FOOTER_BYTES as u64 == file_len);
    assert!(footer.data_len <= footer.filter.end() && footer.filter.end() <= footer.index.end());
}

/// Reads the input as the payload of properties.
pub fn sst_properties(data: &[u8]) {
    let Ok(properties) = TableProperties::decode(data) else { return };
    assert!(properties.smallest_key <= properties.largest_key);
    assert!(properties.min_sequence <= properties.max_sequence);
    let mut again = Vec::new();
    properties.encode(&mut again);
    assert_eq!(TableProperties::decode(&again).expect("an encoding of valid properties"), properties);
}

/// A byte for the codec, two with the announced raw length, then the payload.
pub fn decompress(data: &[u8]) {
    let mut input = Bytes::new(data);
    let choice = input.u8();
    let codec = [CodecId::None, CodecId::Lz4, CodecId::Zstd][usize::from(choice % 3)];
    let raw_len = raw_len(input.u16(), choice / 3);
    let payload = input.all();
    let len = announced(raw_len, payload.len());
    let image = expanding("decompress", data.len(), || fuzzing::decompress_owned(codec, payload, len));
    let mut first = vec![0x5A; len];
    let is_good = fuzzing::decompress(codec, payload, &mut first).is_ok();
    assert_eq!(image.is_ok(), is_good, "a trusted and an untrusted length return the same");
    let Ok(image) = image else { return };
    assert!(image == first, "stepwise and whole decompression return the same");
    if codec == CodecId::None {
        assert_eq!(image, payload);
    }
    // No byte of the buffer keeps its old value.
    let mut second = vec![0xA5; len + 1];
    assert!(fuzzing::decompress(codec, payload, &mut second).is_err(), "the length must be exact");
    assert!(fuzzing::decompress(codec, payload, &mut second[..len - 1]).is_err(), "the length must be exact");
    second.fill(0xA5);
    fuzzing::decompress(codec, payload, &mut second[..len])
        .expect("the second decompression succeeds like the first");
    assert!(image == second[..len], "every byte comes from the payload");
}
