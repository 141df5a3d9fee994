//! Benchmarks of the whole database: open, flush, compact, and those that print its state.
use super::{Bench, Parameters};
use crate::report::statistics::Level;
use crate::report::{Operation, Stats};
use sapwood_base::{Error, Result};
use sapwood_bench::process;
use std::fmt::Write as _;
use std::time::Instant;

/// open: repeatedly closes and opens the database.
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

/// compact0, compact1: scripts use them to empty level 0.
pub fn compact_level(bench: &mut Bench) -> Result<()> {
    bench.engine()?.flush()?;
    wait_for_compaction(bench)
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

/// sstables: the table files in the folder.
pub fn tables(bench: &mut Bench) -> Result<()> {
    bench.engine()?;
    let path = bench.folder.path();
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| Error::io("list", path, error))? {
        let entry = entry.map_err(|error| Error::io("list", path, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A compaction may remove a table while the folder is listed.
        if let (true, Ok(metadata)) = (name.ends_with(".sst"), entry.metadata()) {
            tables.push((name, metadata.len()));
        }
    }
    tables.sort();
    let bytes: u64 = tables.iter().map(|(_, bytes)| bytes).sum();
    let mut text = format!("{} tables, {bytes} bytes\n", tables.len());
    for (name, bytes) in tables {
        let _ = writeln!(text, "  {name} {bytes:>12}");
    }
    crate::print(&(text + "\n"));
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
