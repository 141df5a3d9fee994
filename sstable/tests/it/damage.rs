//! Tables with wrong bytes, and failing files: right results or typed errors, never wrong data,
//! never a panic.
use crate::support::{Entry, MemoryFile, NUMBER, build, build_in, cache, entry, open, order, visible};
use sapwood_base::checksum::{checksum32, place_seed};
use sapwood_base::format::footer::FOOTER_BYTES;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{ErrorKind, Lookup, Result, SequenceNumber, ValueKind};
use sapwood_sstable::{Codec, FilterKind, ReadOptions, Table, TableOptions};
use std::sync::Arc;

fn small_entries() -> Vec<Entry> {
    let mut all: Vec<Entry> = (0..12u64)
        .map(|i| entry(format!("key{i:02}").as_bytes(), 100 + i, ValueKind::Put, &[i as u8; 40]))
        .collect();
    all.extend((0..20).map(|i| entry(b"key05", 10 + i, ValueKind::Put, &[0xAB; 25])));
    all.push(entry(b"key07", 300, ValueKind::Delete, b""));
    order(&mut all);
    all
}

fn all_options() -> Vec<TableOptions> {
    let mut all = Vec::new();
    for compression in [Codec::None, Codec::Lz4, Codec::Zstd(1)] {
        for filter in [FilterKind::None, FilterKind::Blocked, FilterKind::Standard] {
            all.push(TableOptions { block_bytes: 512, compression, filter, ..TableOptions::default() });
        }
    }
    all
}

/// Reads the table in every way. Errors are returned; with `must_be_right`, results must equal
/// `expected`.
fn read_everything(table: &Arc<Table>, expected: &[Entry], must_be_right: bool) -> Result<()> {
    let mut result = Ok(());
    let mut note = |outcome: Result<()>| {
        if let Err(error) = outcome {
            assert!(!must_be_right || error.kind() == ErrorKind::Corruption, "{error}");
            assert!(!must_be_right || error.file().is_some(), "{error}");
            result = Err(error);
        }
    };
    let guard = crossbeam_epoch::pin();
    for wanted in expected {
        for sequence in [wanted.sequence, SequenceNumber::MAX.0] {
            let hash = key_hash(&wanted.key);
            if must_be_right {
                assert!(table.may_contain(hash));
            }
            match table.get(Lookup { key: &wanted.key, hash, sequence: SequenceNumber(sequence) }, &guard) {
                Ok(found) if must_be_right => {
                    let found = found.expect("the table holds the key");
                    let right = visible(expected, &wanted.key, sequence).unwrap();
                    assert_eq!(entry(&wanted.key, found.sequence.0, found.kind, &found.value), *right);
                }
                Ok(_) => {}
                Err(error) => note(Err(error)),
            }
        }
    }
    let mut walk = |iterator: &mut dyn InternalIterator| {
        let mut forward = || -> Result<usize> {
            let mut count = 0;
            iterator.seek_to_first()?;
            while iterator.valid() {
                if must_be_right {
                    assert_eq!(
                        (iterator.key(), iterator.value()),
                        (expected[count].key.as_slice(), expected[count].value.as_slice())
                    );
                }
                count += 1;
                iterator.next()?;
            }
            Ok(count)
        };
        match forward() {
            Ok(count) => assert!(!must_be_right || count == expected.len()),
            Err(error) => note(Err(error)),
        }
        let mut backward = || -> Result<()> {
            iterator.seek_to_last()?;
            while iterator.valid() {
                iterator.prev()?;
            }
            iterator.seek(b"key05")?;
            iterator.seek_before(b"key05")
        };
        note(backward());
    };
    walk(&mut table.iter(ReadOptions::default()));
    walk(&mut table.scan());
    note(table.verify());
    table.approximate_offset(b"key03");
    table.split_keys(3);
    result
}

#[test]
fn every_flipped_byte_is_found_or_harmless() {
    let entries = small_entries();
    for options in all_options() {
        let bytes = build(&entries, &options);
        read_everything(&open(bytes.clone()).unwrap(), &entries, true).unwrap();
        for at in 0..bytes.len() {
            for flip in [1 << (at % 8), 0xFF] {
                let mut wrong = bytes.clone();
                wrong[at] ^= flip;
                let outcome = match open(wrong) {
                    Ok(table) => read_everything(&table, &entries, true),
                    Err(error) => Err(error),
                };
                // All bytes are under a checksum, so every change is detected.
                let error = outcome.expect_err("a flipped byte must be detected");
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert_eq!(error.file().unwrap().to_str(), Some("memory.sst"));
            }
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let entries = small_entries();
    for options in all_options() {
        let bytes = build(&entries, &options);
        for len in 0..bytes.len() {
            assert_eq!(open(bytes[..len].to_vec()).unwrap_err().kind(), ErrorKind::Corruption);
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(open(longer).unwrap_err().kind(), ErrorKind::Corruption);
    }
}

#[test]
fn a_table_under_another_number_is_refused() {
    let bytes = build(&small_entries(), &TableOptions::default());
    let file = Box::new(MemoryFile::new(bytes));
    let error = Table::open(file, sapwood_base::FileNumber(8), &cache()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

/// Stored blocks of a table as (start, end): its data blocks, then its sections.
fn stored_blocks(bytes: &[u8]) -> Vec<(usize, usize)> {
    let footer = &bytes[bytes.len() - FOOTER_BYTES..];
    let number = |i: usize| u64::from_le_bytes(footer.as_chunks().0[i]) as usize;
    let mut blocks: Vec<(usize, usize)> = [1, 3, 5]
        .map(|i| (number(i), number(i) + number(i + 1)))
        .into_iter()
        .filter(|(a, b)| a < b)
        .collect();
    // Offsets are the second column of the index.
    let index = &bytes[number(3)..];
    let count = u32::from_le_bytes(index[..4].try_into().unwrap()) as usize;
    let offsets: Vec<usize> = index[32 + 4 * count..32 + 8 * count]
        .chunks(4)
        .map(|offset| u32::from_le_bytes(offset.try_into().unwrap()) as usize * 16)
        .chain([number(0)])
        .collect();
    blocks.extend(offsets.windows(2).map(|pair| (pair[0], pair[1])));
    blocks
}

#[test]
fn wrong_bytes_under_a_right_checksum_never_panic() {
    let mut random = fastrand::Rng::with_seed(21);
    let entries = small_entries();
    for options in all_options() {
        let bytes = build(&entries, &options);
        let blocks = stored_blocks(&bytes);
        assert!(blocks.len() > 4);
        for _ in 0..1500 {
            let mut wrong = bytes.clone();
            let (start, end) = blocks[random.usize(0..blocks.len())];
            for _ in 0..random.usize(1..4) {
                let at = random.usize(start..end - 4);
                wrong[at] = match random.u8(0..4) {
                    0 => 0,
                    1 => 0xFF,
                    2 => wrong[at].wrapping_add(1),
                    _ => random.u8(..),
                };
            }
            let checksum = checksum32(&wrong[start..end - 4], place_seed(NUMBER.0, start as u64));
            wrong[end - 4..end].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(table) = open(wrong) {
                let _ = read_everything(&table, &entries, false);
            }
        }
    }
}

#[test]
fn garbage_is_not_a_table() {
    let mut random = fastrand::Rng::with_seed(22);
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.usize(0..400)).map(|_| random.u8(..)).collect();
        assert_eq!(open(bytes).unwrap_err().kind(), ErrorKind::Corruption);
    }
}

#[test]
fn a_failing_write_makes_no_table() {
    let entries = small_entries();
    let options = TableOptions { block_bytes: 512, write_buffer_bytes: 1, ..TableOptions::default() };
    let file = MemoryFile::new(Vec::new());
    build_in(&file, &entries, &options).unwrap();
    let calls = i64::MAX - file.calls_left.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls > 4);
    for allowed in 0..calls {
        let file = MemoryFile::new(Vec::new());
        file.calls_left.store(allowed, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(build_in(&file, &entries, &options).unwrap_err().kind(), ErrorKind::NoSpace);
    }
}

#[test]
fn a_builder_that_failed_once_does_not_finish() {
    let file = MemoryFile::new(Vec::new());
    file.calls_left.store(0, std::sync::atomic::Ordering::Relaxed);
    let options = TableOptions { block_bytes: 512, write_buffer_bytes: 1, ..TableOptions::default() };
    let mut builder =
        sapwood_sstable::TableBuilder::new(Box::new(file.clone()), NUMBER, Default::default(), &options);
    let mut failures = 0;
    for i in 0..100u32 {
        let added = builder.add(&i.to_be_bytes(), SequenceNumber(1), ValueKind::Put, &[0; 90]);
        failures += u32::from(added.is_err());
        if added.is_err() {
            file.calls_left.store(100, std::sync::atomic::Ordering::Relaxed);
        }
    }
    assert!(failures > 1);
    assert_eq!(builder.finish().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_failing_read_is_an_error_and_the_next_one_is_not() {
    let entries = small_entries();
    let file =
        MemoryFile::new(build(&entries, &TableOptions { block_bytes: 512, ..TableOptions::default() }));
    let table = Table::open(Box::new(file.clone()), NUMBER, &cache()).unwrap();
    let guard = crossbeam_epoch::pin();
    let mut iterator = table.iter(ReadOptions::default());
    let (key, hash) = (b"key09", key_hash(b"key09"));
    file.calls_left.store(0, std::sync::atomic::Ordering::Relaxed);
    assert!(table.get(Lookup { key, hash, sequence: SequenceNumber::MAX }, &guard).is_err());
    assert!(iterator.seek(key).is_err());
    assert!(!iterator.valid());
    file.calls_left.store(1000, std::sync::atomic::Ordering::Relaxed);
    assert!(table.get(Lookup { key, hash, sequence: SequenceNumber::MAX }, &guard).unwrap().is_some());
    iterator.seek(key).unwrap();
    assert!(iterator.valid());
}

#[test]
fn wrong_arguments_are_errors_and_leave_the_table_whole() {
    let file = MemoryFile::new(Vec::new());
    let mut builder = sapwood_sstable::TableBuilder::new(
        Box::new(file.clone()),
        NUMBER,
        Default::default(),
        &TableOptions::default(),
    );
    let mut add = |key: &[u8], sequence: u64, right: bool| {
        let added = builder.add(key, SequenceNumber(sequence), ValueKind::Put, b"v");
        assert_eq!(
            added.map_err(|error| error.kind()),
            if right { Ok(()) } else { Err(ErrorKind::InvalidArgument) }
        );
    };
    add(b"b", 5, true);
    add(b"a", 9, false);
    add(b"b", 5, false);
    add(b"b", 6, false);
    add(&[b'x'; 65_537], 1, false);
    add(b"c", 1 << 57, false);
    add(b"b", 4, true);
    add(b"c", 4, true);
    builder.finish().unwrap();
    let table = open(file.contents()).unwrap();
    table.verify().unwrap();
    assert_eq!(table.properties().entries, 3);
}

#[test]
fn the_format_is_pinned() {
    let entries = [
        entry(b"apple", 9, ValueKind::Put, b"red"),
        entry(b"apple", 4, ValueKind::Delete, b""),
        entry(b"apricot", 700, ValueKind::Put, b"orange"),
    ];
    let bytes = build(&entries, &TableOptions::default());
    let hex: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        .collect();
    let golden: Vec<&str> = include_str!("golden_table.txt").lines().collect();
    assert_eq!(hex, golden, "the bytes of a table changed: old tables must stay readable");
}
