//! verify: compares the rows of the database with those of another one.
use super::{Bench, Parameters, wrong};
use crate::engine::Engine;
use crate::flags::Flags;
use crate::report::{Operation, Stats};
use sapwood_base::Result;
use std::path::Path;

/// verify: reads every row of the database in `--truth_db` with a get, then scans both in parallel.
/// A difference ends the program with an error.
pub fn verify(bench: &mut Bench, _: &Parameters, stats: &mut Stats) -> Result<()> {
    let flags = Flags { readonly: true, wal_dir: String::new(), ..bench.flags.clone() };
    let truth = Engine::open(Path::new(&flags.truth_db), &flags)?;
    let engine = bench.engine()?;
    let mut cursor = truth.cursor()?;
    cursor.seek_to_first()?;
    let mut rows = 0;
    while cursor.valid() {
        if engine.get(cursor.key(), |value| value == cursor.value())? != Some(true) {
            return Err(wrong(format!("a get does not return row {rows} of --truth_db")));
        }
        rows += 1;
        stats.finish_operations(1, Operation::Read);
        cursor.next()?;
    }
    let mut own = engine.cursor()?;
    own.seek_to_first()?;
    cursor.seek_to_first()?;
    for row in 0.. {
        match (own.valid(), cursor.valid()) {
            (false, false) => break,
            (true, true) if own.key() == cursor.key() && own.value() == cursor.value() => {}
            _ => return Err(wrong(format!("row {row} is not that of --truth_db"))),
        }
        stats.finish_operations(1, Operation::Read);
        own.next()?;
        cursor.next()?;
    }
    stats.set_message(format!("({rows} rows are those of {})", flags.truth_db));
    drop(cursor);
    truth.close()
}
