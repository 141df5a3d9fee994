//! openclose: resources that the process retains after opening and closing, and the cost of many
//! open databases.
//!
//! Memory, descriptors and threads are read from `/proc` before, between and after. The final
//! number of descriptors and threads must not exceed the initial one. Memory is only printed, since
//! an allocator may retain some.
use super::{Bench, Parameters, wrong};
use crate::engine::{Engine, WriteMode};
use crate::flags::Flags;
use crate::report::{Operation, Stats};
use sapwood_base::{Error, Result};
use sapwood_bench::process::Usage;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// openclose: opens a database, writes a row and closes it, `--open_rounds` times; then keeps
/// `--open_databases` databases open at once. Their folders are inside that of the benchmarks'
/// database, which is closed during this.
pub fn open_close(bench: &mut Bench, _: &Parameters, stats: &mut Stats) -> Result<()> {
    bench.close()?;
    let flags =
        Flags { use_existing_db: false, readonly: false, wal_dir: String::new(), ..bench.flags.clone() };
    let folder = Rounds::new(bench.folder.path())?;
    let mut text = String::new();
    let mut line = |what: &str, usage: Usage| {
        let _ = writeln!(text, "  {what:<24} {usage}");
    };
    let rounds = flags.open_rounds as u64;
    // The first rounds fill the caches of the allocator and of libraries.
    let (warm, mut before) = (rounds.min(10), Usage::now());
    line("at the start", before);
    for round in 0..rounds {
        if round == warm {
            before = Usage::now();
            line(&format!("after {round} rounds"), before);
        }
        let engine = Engine::open(&folder.database(0), &flags)?;
        write_one(&engine, round)?;
        engine.close()?;
        stats.finish_operations(1, Operation::Other);
    }
    stats.stop();
    let after_rounds = Usage::now();
    line(&format!("after {rounds} rounds"), after_rounds);
    let mut databases = Vec::new();
    for number in 0..flags.open_databases as u64 {
        let engine = Engine::open(&folder.database(number + 1), &flags)?;
        write_one(&engine, number)?;
        databases.push(engine);
    }
    let many = databases.len();
    line(&format!("{many} databases open"), Usage::now());
    databases.into_iter().try_for_each(Engine::close)?;
    let after = Usage::now();
    line("all of them closed", after);
    stats.set_message(format!("({many} databases at once)\n{}", text.trim_end()));
    for (what, later) in [("rounds", after_rounds), ("databases at once", after)] {
        if later.descriptors > before.descriptors || later.threads > before.threads {
            return Err(wrong(format!("{what} left descriptors or threads open:\n{}", text.trim_end())));
        }
    }
    Ok(())
}

fn write_one(engine: &Engine, number: u64) -> Result<()> {
    engine.put(&number.to_be_bytes(), b"row", WriteMode::Default)
}

/// The folder of these databases; removed on drop.
struct Rounds(PathBuf);

impl Rounds {
    fn new(folder: &Path) -> Result<Rounds> {
        let folder = folder.join("openclose");
        std::fs::create_dir(&folder).map_err(|error| Error::io("create", &folder, error))?;
        Ok(Rounds(folder))
    }

    fn database(&self, number: u64) -> PathBuf {
        self.0.join(number.to_string())
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        // A failed removal is visible in the folder; the figures do not depend on it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
