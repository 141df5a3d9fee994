//! The full check of a table: verifies, entry by entry, the properties that readers rely on without
//! checking.
use super::Table;
use super::scanner::{READ_BYTES, ScannedBlocks};
use crate::cursor::BlockSource;
use sapwood_base::format::block::{BlockLayout, tag_of};
use sapwood_base::format::properties::TableProperties;
use sapwood_base::key::{key_hash, key_head};
use sapwood_base::{Error, Result, SequenceNumber, ValueKind};
use std::cmp::Ordering;

pub(super) fn verify(table: &Table) -> Result<()> {
    let corrupt = |offset: u64, message: &str| Err(Error::corruption(table.file.path(), offset, message));
    let mut source = ScannedBlocks::new(table, READ_BYTES);
    let mut counted = TableProperties {
        keyspace: table.properties.keyspace,
        min_sequence: SequenceNumber(u64::MAX),
        smallest_key: table.properties.smallest_key.clone(),
        unknown: table.properties.unknown.clone(),
        ..TableProperties::default()
    };
    let (mut key, mut last_key, mut last_sequence) = (Vec::new(), Vec::new(), SequenceNumber::MAX);
    for block in 0..table.index.block_count() {
        let offset = table.index.offset(block);
        source.load(block)?;
        let image = source.image();
        let layout = BlockLayout::of_validated(image);
        for slot in 0..layout.count() {
            let suffix = layout.suffix(image, slot);
            key.clear();
            key.extend_from_slice(layout.lcp(image));
            key.extend_from_slice(suffix);
            let sequence = layout.sequence(image, slot);
            let is_new_key = counted.entries == 0
                || match key.cmp(&last_key) {
                    Ordering::Greater => true,
                    Ordering::Equal if sequence < last_sequence => false,
                    _ => return corrupt(offset, "entries are not in order"),
                };
            if counted.entries == 0 && key != table.properties.smallest_key {
                return corrupt(offset, "the first key is not the smallest of the properties");
            }
            if slot == 0 && block > 0 {
                let separator = table.index.separator(block);
                if separator > key || (is_new_key && separator <= last_key) {
                    return corrupt(offset, "separator does not separate");
                }
                if table.index.is_continued(block) == is_new_key || (!is_new_key && separator != key) {
                    return corrupt(offset, "index is wrong about a key that spans blocks");
                }
            }
            let hash = key_hash(&key);
            if layout.tag(image, slot) != tag_of(hash) || layout.head(image, slot) != key_head(suffix) {
                return corrupt(offset, "tag or head of an entry does not match its key");
            }
            if !table.filter.may_contain(hash) {
                return corrupt(offset, "filter does not know a key of the table");
            }
            counted.entries += 1;
            counted.user_keys += u64::from(is_new_key);
            counted.tombstones += u64::from(layout.kind(image, slot) == ValueKind::Delete);
            counted.raw_key_bytes += key.len() as u64;
            counted.raw_value_bytes += layout.value(image, slot).len() as u64;
            counted.min_sequence = counted.min_sequence.min(sequence);
            counted.max_sequence = counted.max_sequence.max(sequence);
            std::mem::swap(&mut key, &mut last_key);
            last_sequence = sequence;
        }
    }
    if counted.entries == 0 {
        counted.min_sequence = SequenceNumber::ZERO;
    }
    counted.largest_key = last_key;
    if counted != table.properties {
        return corrupt(table.index.data_len(), "table properties do not match the entries");
    }
    Ok(())
}
