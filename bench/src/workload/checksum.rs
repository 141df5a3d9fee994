//! Benchmarks of the machine: checksums, hashes and atomic loads. They touch no database.
use super::Worker;
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_base::checksum::checksum64;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of a checksum benchmark, as in RocksDB's.
const CHECKSUM_BYTES: u64 = 500 << 20;

/// crc32c. The engine does not use it; it serves to compare machines.
pub fn crc32c(worker: &mut Worker<'_>) -> Result<()> {
    let tables = Crc32cTables::new();
    checksums(worker, Operation::Crc, |block| u64::from(tables.of(block)))
}

/// xxhash: XXH32.
pub fn xxhash(worker: &mut Worker<'_>) -> Result<()> {
    checksums(worker, Operation::Hash, |block| u64::from(xxh32(block)))
}

/// xxhash64: XXH64.
pub fn xxhash64(worker: &mut Worker<'_>) -> Result<()> {
    checksums(worker, Operation::Hash, xxh64)
}

/// xxh3, the checksum of the engine's blocks and log records.
pub fn xxh3(worker: &mut Worker<'_>) -> Result<()> {
    checksums(worker, Operation::Hash, |block| checksum64(block, 0))
}

fn checksums(worker: &mut Worker<'_>, operation: Operation, checksum: impl Fn(&[u8]) -> u64) -> Result<()> {
    let size = worker.flags.block_size.clamp(1, 1 << 30) as u64;
    let block = vec![b'x'; size as usize];
    let mut bytes = 0;
    let mut last = 0;
    while bytes < CHECKSUM_BYTES {
        last = std::hint::black_box(checksum(std::hint::black_box(&block)));
        bytes += size;
        worker.stats.finish_operations(1, operation);
    }
    worker.stats.add_bytes(bytes);
    worker.stats.set_message(format!("({size} bytes per op; {last:#x})"));
    Ok(())
}

/// acquireload: an operation is a thousand loads.
pub fn acquire_load(worker: &mut Worker<'_>) -> Result<()> {
    let word = AtomicU64::new(worker.thread as u64);
    for _ in 0..100_000 {
        for _ in 0..1000 {
            // Acquire: the measured ordering.
            std::hint::black_box(word.load(Ordering::Acquire));
        }
        worker.stats.finish_operations(1, Operation::Other);
    }
    worker.stats.set_message("(each op is 1000 loads)");
    Ok(())
}

/// XXH32 with seed 0 (Yann Collet's specification, version 0.1.1).
fn xxh32(bytes: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D, 0x27D4_EB2F, 0x1656_67B1];
    let round = |lane: u32, word: u32| {
        lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(13).wrapping_mul(PRIMES[0])
    };
    let (stripes, rest) = bytes.as_chunks::<16>();
    let mut hash = if stripes.is_empty() {
        PRIMES[4]
    } else {
        let mut lanes = [PRIMES[0].wrapping_add(PRIMES[1]), PRIMES[1], 0, 0u32.wrapping_sub(PRIMES[0])];
        for stripe in stripes {
            let (words, _) = stripe.as_chunks::<4>();
            lanes
                .iter_mut()
                .zip(words)
                .for_each(|(lane, word)| *lane = round(*lane, u32::from_le_bytes(*word)));
        }
        let turned = lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
        turned.fold(0, u32::wrapping_add)
    };
    hash = hash.wrapping_add(bytes.len() as u32);
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIMES[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIMES[3]);
    }
    for byte in rest {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(PRIMES[4]));
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 16)
}

/// XXH64 with seed 0 (the same specification).
fn xxh64(bytes: &[u8]) -> u64 {
    const PRIMES: [u64; 5] = [
        0x9E37_79B1_85EB_CA87,
        0xC2B2_AE3D_27D4_EB4F,
        0x1656_67B1_9E37_79F9,
        0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ];
    let round = |lane: u64, word: u64| {
        lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
    };
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() {
        PRIMES[4]
    } else {
        let mut lanes = [PRIMES[0].wrapping_add(PRIMES[1]), PRIMES[1], 0, 0u64.wrapping_sub(PRIMES[0])];
        for stripe in stripes {
            let (words, _) = stripe.as_chunks::<8>();
            lanes
                .iter_mut()
                .zip(words)
                .for_each(|(lane, word)| *lane = round(*lane, u64::from_le_bytes(*word)));
        }
        let turned = lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
        let mixed = turned.fold(0, u64::wrapping_add);
        lanes.iter().fold(mixed, |hash, lane| {
            (hash ^ round(0, *lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
        })
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIMES[0]);
        hash = hash.rotate_left(23).wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
    }
    for byte in rest {
        hash ^= u64::from(*byte).wrapping_mul(PRIMES[4]);
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

/// CRC-32C (Castagnoli's polynomial), eight bytes at a time with eight tables, after Intel's
/// "slicing-by-8" (Kounavis and Berry, 2005): the fastest method without a special instruction.
struct Crc32cTables([[u32; 256]; 8]);

impl Crc32cTables {
    fn new() -> Crc32cTables {
        let one_byte =
            |byte: u32| (0..8).fold(byte, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 });
        let first: [u32; 256] = std::array::from_fn(|byte| one_byte(byte as u32));
        let mut tables = [first; 8];
        for table in 1..8 {
            // Each table is the previous one advanced by a zero byte.
            tables[table] = tables[table - 1].map(|crc| (crc >> 8) ^ first[(crc & 0xFF) as usize]);
        }
        Crc32cTables(tables)
    }

    fn of(&self, bytes: &[u8]) -> u32 {
        let tables = &self.0;
        let mut crc = u32::MAX;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word) ^ u64::from(crc);
            crc = (0..8).fold(0, |crc, at| crc ^ tables[7 - at][(word >> (8 * at) & 0xFF) as usize]);
        }
        for byte in rest {
            crc = (crc >> 8) ^ tables[0][((crc ^ u32::from(*byte)) & 0xFF) as usize];
        }
        !crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxhashes_give_the_values_of_the_specification() {
        // The values of `xxhsum` and of the specification's test vectors for these texts.
        assert_eq!(xxh32(b""), 0x02CC_5D05);
        assert_eq!(xxh32(b"abc"), 0x32D1_53FF);
        assert_eq!(xxh64(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"abc"), 0x44BC_2CF5_AD77_0999);
        let text = b"Nobody inspects the spammish repetition";
        assert_eq!((xxh32(text), xxh64(text)), (0xE229_3B2F, 0xFBCE_A83C_8A37_8BF1));
    }

    #[test]
    fn crc32c_gives_the_values_of_the_standard() {
        let tables = Crc32cTables::new();
        // RFC 3720, appendix B.4, and the check value of the polynomial.
        assert_eq!(tables.of(b"123456789"), 0xE306_9283);
        assert_eq!(tables.of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(tables.of(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(tables.of(b""), 0);
    }
}
