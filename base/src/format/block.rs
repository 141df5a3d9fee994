//! The data block: the entries of one range of a table, split into columns.
//!
//! A *raw image* is a header, then one section per column (tags, heads, ends, sequence numbers,
//! kinds, key suffixes, values); the byte map is in `FORMAT.md`. A column that is constant over the
//! block is absent. The image is used as it is: an uncompressed block has the same bytes on disk
//! and in the cache, and a lookup decodes nothing.
//!
//! A *stored block* is a payload (the image, or its compressed form), padding, and an eight-byte
//! trailer whose checksum is seeded with the file and the offset. The sections of a table (filter,
//! index, properties) are stored in the same way.

mod encoder;
mod layout;
mod stored;

pub use encoder::BlockEncoder;
pub use layout::{BLOCK_HEADER_BYTES, BlockLayout, MAX_BLOCK_BYTES, MAX_BLOCK_ENTRIES, TAG_GROUP, tag_of};
pub use stored::{
    BLOCK_TRAILER_BYTES, CodecId, MAX_COMPRESSION_RATIO, SMALL_IMAGE_BYTES, StoredKind, seal, unseal,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FileNumber, ValueKind};
    use crate::sequence::SequenceNumber;

    type Entry = (Vec<u8>, u64, ValueKind, Vec<u8>);

    fn encode(entries: &[Entry]) -> Vec<u8> {
        let mut encoder = BlockEncoder::default();
        let mut expected = 0;
        for (key, sequence, kind, value) in entries {
            expected = encoder.len_with(key, SequenceNumber(*sequence), *kind, value.len());
            assert!(expected <= encoder.len_bound_with(key.len(), value.len()));
            encoder.push(key, key.len() as u8, SequenceNumber(*sequence), *kind, value);
        }
        let mut out = Vec::new();
        assert_eq!(encoder.encode(&mut out), expected);
        assert_eq!(out.len(), expected);
        out
    }

    fn samples() -> Vec<Vec<Entry>> {
        let put = ValueKind::Put;
        vec![
            vec![(b"".to_vec(), 0, put, b"".to_vec())],
            vec![(b"a".to_vec(), 9, ValueKind::Delete, b"".to_vec())],
            (0..40u64).map(|i| (format!("user{i:04}").into_bytes(), 7, put, vec![i as u8; 10])).collect(),
            (0..40u64).map(|i| (b"same".to_vec(), 1000 - i * 9, put, vec![i as u8; i as usize])).collect(),
            (0..17u64).map(|i| (vec![b'k'; i as usize], i << 40, put, vec![1; 3])).collect(),
            vec![(vec![7; 65536], 1, put, vec![1; 70_000]), (vec![8; 65536], 1 << 20, put, vec![2; 5])],
            vec![(vec![7; 65536], 1, put, vec![])],
        ]
    }

    #[test]
    fn entries_come_back_from_their_columns() {
        for entries in samples() {
            let image = encode(&entries);
            let layout = BlockLayout::parse(&image).unwrap();
            assert_eq!(layout.count(), entries.len());
            for (i, (key, sequence, kind, value)) in entries.iter().enumerate() {
                assert_eq!([layout.lcp(&image), layout.suffix(&image, i)].concat(), *key);
                assert!(layout.key_is(&image, i, key));
                assert_eq!(layout.sequence(&image, i).0, *sequence);
                assert_eq!(layout.kind(&image, i), *kind);
                assert_eq!(layout.value(&image, i), *value);
                assert_eq!(layout.tag(&image, i), key.len() as u8);
                let first = entries.iter().position(|entry| entry.0 == *key).unwrap();
                assert_eq!(layout.lower_bound(&image, key), first);
                let mut above = key.clone();
                above.push(0);
                assert_eq!(layout.lower_bound(&image, &above), entries.partition_point(|e| e.0 < above));
            }
            assert_eq!(layout.lower_bound(&image, b""), 0);
            assert_eq!(layout.lower_bound(&image, &[0xFF; 3]), entries.len());
        }
    }

    #[test]
    fn every_entry_shows_where_all_are_said_to() {
        let put = ValueKind::Put;
        let mut blocks = samples();
        // Spans of every width, up to the largest that each holds and up to the largest of all.
        for span in [0, 1, 255, 256, 65535, 65536, u64::from(u32::MAX), 1 << 32] {
            for first in [0, 9, SequenceNumber::MAX.0 - span] {
                let entry = |key: &[u8], sequence| (key.to_vec(), sequence, put, vec![]);
                blocks.push(vec![entry(b"a", first), entry(b"b", first + span)]);
            }
        }
        for entries in blocks {
            let image = encode(&entries);
            let layout = BlockLayout::parse(&image).unwrap();
            let shows = |bound| {
                let all = (0..entries.len()).all(|i| layout.shows(&image, i, SequenceNumber(bound)));
                let is_said = layout.shows_all(SequenceNumber(bound));
                assert!(all || !is_said, "bound {bound}");
                is_said
            };
            let last = entries.iter().map(|entry| entry.1).max().unwrap();
            for bound in [0, last.saturating_sub(1), last, last.saturating_add(1), u64::MAX] {
                shows(bound);
            }
            // In the useful case, `shows_all` is true.
            let first = entries.iter().map(|entry| entry.1).min().unwrap();
            let is_near = last - first <= u64::from(u32::MAX);
            let are_puts = entries.iter().all(|entry| entry.2 == put);
            assert_eq!(shows(1 << 60), is_near && are_puts);
        }
    }

    #[test]
    fn wrong_images_are_errors_or_stay_inside() {
        for entries in samples().into_iter().take(5) {
            let image = encode(&entries);
            for len in 0..image.len() {
                assert!(BlockLayout::parse(&image[..len]).is_err());
            }
            for at in 0..image.len() {
                for bit in 0..8 {
                    let mut wrong = image.clone();
                    wrong[at] ^= 1 << bit;
                    if let Ok(layout) = BlockLayout::parse(&wrong) {
                        for i in 0..layout.count() {
                            let _ = layout.suffix(&wrong, i).len() + layout.value(&wrong, i).len();
                            let _ = (layout.sequence(&wrong, i), layout.kind(&wrong, i));
                        }
                        layout.lower_bound(&wrong, b"user0007");
                    }
                }
            }
        }
    }

    #[test]
    fn a_stored_block_validates_only_in_its_place() {
        let mut out = b"before".to_vec();
        out.extend_from_slice(b"payload");
        seal(&mut out, 6, 5, CodecId::None, StoredKind::Data, FileNumber(3), 4096);
        let stored = &out[6..];
        assert_eq!(unseal(stored, StoredKind::Data, FileNumber(3), 4096).unwrap(), (CodecId::None, 7));
        assert!(unseal(stored, StoredKind::Data, FileNumber(4), 4096).is_err());
        assert!(unseal(stored, StoredKind::Data, FileNumber(3), 8192).is_err());
        assert!(unseal(stored, StoredKind::Index, FileNumber(3), 4096).is_err());
        for len in 0..stored.len() {
            assert!(unseal(&stored[..len], StoredKind::Data, FileNumber(3), 4096).is_err());
        }
    }
}
