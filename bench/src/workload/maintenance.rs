//! Benchmarks around the data: open, flush, compact, checksums, and everything that prints a state.
use super::{Bench, Parameters, Worker};
use crate::process;
use crate::report::statistics::Level;
use crate::report::{Operation, Stats};
use sapwood_base::Result;
use sapwood_base::checksum::checksum64;
use std::fmt::Write as _;
use std::time::Instant;

/// open: closes the database and opens it, again and again.
pub fn open(bench: &mut Bench, parameters: &Parameters, stats: &mut Stats) -> Result<()> {
    for _ in 0..parameters.num {
        bench.close()?;
        bench.engine()?;
        stats.finish_operations(1, Operation::Other);
    }
    Ok(())
}

/// compact, compactall.
pub fn compact(bench: &mut Bench, _: &Parameters, stats: &mut Stats) -> Result<()> {
    bench.engine()?.compact()?;
    stats.finish_operations(1, Operation::Other);
    Ok(())
}

/// flush.
pub fn flush(bench: &mut Bench, _: &Parameters, stats: &mut Stats) -> Result<()> {
    bench.engine()?.flush()?;
    stats.finish_operations(1, Operation::Other);
    Ok(())
}

/// waitforcompaction.
pub fn wait_for_compaction(bench: &mut Bench) -> Result<()> {
    let path = bench.folder.path().display().to_string();
    crate::print(&format!("waitforcompaction({path}): started\n"));
    let start = Instant::now();
    bench.engine()?.wait_for_background()?;
    let seconds = start.elapsed().as_secs_f64();
    crate::print(&format!("waitforcompaction({path}): finished in {seconds:.3} seconds\n"));
    Ok(())
}

/// stats.
pub fn stats(bench: &mut Bench) -> Result<()> {
    let text = bench.engine()?.statistics();
    crate::print(&format!("{text}\n"));
    Ok(())
}

/// levelstats, in the columns of RocksDB.
pub fn level_stats(bench: &mut Bench) -> Result<()> {
    let mut text = String::from("Level Files Size(MB)\n--------------------\n");
    for Level { level, files, bytes } in bench.engine()?.figures().levels {
        let _ = writeln!(text, "{level:3} {files:8} {:8.0}", bytes as f64 / 1_048_576.0);
    }
    crate::print(&format!("\n{text}\n"));
    Ok(())
}

/// resetstats.
pub fn reset_stats(bench: &mut Bench) -> Result<()> {
    bench.engine()?.reset_statistics();
    Ok(())
}

/// memstats: the engine's account of its memory beside the system's, and the bytes written.
pub fn memory_stats(bench: &mut Bench) -> Result<()> {
    let mut text = bench.engine()?.memory();
    let megabytes = |bytes: u64| bytes as f64 / 1_048_576.0;
    let resident = process::resident();
    let written = process::written();
    let _ = writeln!(
        text,
        "Process memory: {:.1} MB resident, {:.1} MB of it mapped files, {:.1} MB at its peak",
        megabytes(resident.now),
        megabytes(resident.file),
        megabytes(resident.peak),
    );
    let _ = writeln!(
        text,
        "Process writes: {:.1} MB by system calls (without the mapped log), {:.1} MB towards the device",
        megabytes(written.calls),
        megabytes(written.device),
    );
    crate::print(&text);
    Ok(())
}

/// The bytes that a checksum benchmark goes over, as in RocksDB's.
const CHECKSUM_BYTES: u64 = 500 << 20;

/// crc32c. The engine does not use it; it is here to compare machines.
pub fn crc32c(worker: &mut Worker<'_>) -> Result<()> {
    let tables = Crc32cTables::new();
    checksums(worker, Operation::Crc, |block| u64::from(tables.of(block)))
}

/// xxh3, as the engine computes it for blocks and log records.
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

/// CRC-32C (Castagnoli's polynomial) over eight bytes at a time with eight tables, after Intel's "slicing-by-8"
/// (Kounavis and Berry, 2005): the fastest way that needs no instruction of its own.
struct Crc32cTables([[u32; 256]; 8]);

impl Crc32cTables {
    fn new() -> Crc32cTables {
        let one_byte =
            |byte: u32| (0..8).fold(byte, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 });
        let first: [u32; 256] = std::array::from_fn(|byte| one_byte(byte as u32));
        let mut tables = [first; 8];
        for table in 1..8 {
            // Each table is the one before with a zero byte behind.
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
    fn crc32c_gives_the_values_of_the_standard() {
        let tables = Crc32cTables::new();
        // RFC 3720, appendix B.4, and the check value of the polynomial.
        assert_eq!(tables.of(b"123456789"), 0xE306_9283);
        assert_eq!(tables.of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(tables.of(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(tables.of(b""), 0);
    }
}
