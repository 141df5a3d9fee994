//! A small database of known content. `make_database` wrote one in each released format; they are
//! committed, and every later release reads them.
use crate::oracle::Map;
use sapwood::{Builtin, Db, Field, IndexOptions, KeyKind, Keyspace, KeyspaceOptions, Result};
use std::path::Path;

const ROWS: u32 = 500;
/// Rows that only the log holds, per session.
const LATE_ROWS: u32 = 40;

fn builder(path: &Path) -> sapwood::DbBuilder {
    Db::builder(path).memory_budget(8 << 20).advanced(|options| {
        options.memtable_bytes = Some(256 << 10);
        options.wal_segment_bytes = 64 << 10;
        options.target_file_bytes = 64 << 10;
        options.max_memtables = 3;
    })
}

/// Keyspaces with all codecs, with block lengths that make many blocks, and with separated values.
fn spaces(db: &Db) -> Result<[Keyspace; 3]> {
    let options = [
        ("plain", "compression=none;block_bytes=1024"),
        ("lz4", "compression=lz4;block_bytes=2048"),
        ("zstd", "compression=zstd:3;block_bytes=4096"),
    ];
    let mut spaces = Vec::new();
    for (name, options) in options {
        spaces.push(db.keyspace(name, options.parse::<KeyspaceOptions>()?)?);
    }
    Ok(spaces.try_into().unwrap_or_else(|_| unreachable!("there are three options")))
}

/// An index key: the first byte of the value.
fn first_byte() -> IndexOptions {
    IndexOptions::builtin(Builtin::new(Field::value().range(0, 1), KeyKind::Bytes))
}

fn key(space: usize, row: u32) -> Vec<u8> {
    match space {
        0 => row.to_be_bytes().to_vec(),
        1 => format!("user:{row:06}").into_bytes(),
        _ => [b"shared prefix of many keys ".to_vec(), row.wrapping_mul(0x9E37_79B9).to_be_bytes().to_vec()]
            .concat(),
    }
}

fn value(space: usize, row: u32) -> Vec<u8> {
    let len = match row % 100 {
        7 => 9_000,
        8 => 0,
        _ => 20 + (row as usize * 7) % 90,
    };
    let mut value = vec![b'a' + (row % 11) as u8; len];
    if let [first, second, ..] = value.as_mut_slice() {
        (*first, *second) = (row as u8, space as u8);
    }
    value
}

/// Whether a row is deleted: early, so that the deletion is in a table, or late, so that it is in
/// the log.
fn is_deleted(row: u32) -> bool {
    row % 13 == 5 || row % 97 == 11
}

/// Writes the database into `path`, which must not exist.
///
/// # Errors
/// Those of [`Db::open`] and of writes.
pub fn write(path: &Path) -> Result<()> {
    let db = builder(path).open()?;
    let all = spaces(&db)?;
    all[0].create_index("first byte", first_byte())?;
    for (number, space) in all.iter().enumerate() {
        for row in 0..ROWS {
            space.put(key(number, row), value(number, row))?;
        }
        for row in (0..ROWS).filter(|row| row % 13 == 5) {
            space.delete(key(number, row))?;
        }
    }
    db.flush()?;
    db.settle()?;
    db.close()?;
    drop((all, db));
    for late in 0..2 {
        let db = builder(path).open()?;
        let all = spaces(&db)?;
        for (number, space) in all.iter().enumerate() {
            let mut batch = db.batch();
            for row in ROWS + late * LATE_ROWS..ROWS + (late + 1) * LATE_ROWS {
                batch.put(space, key(number, row), value(number, row));
            }
            for row in (0..ROWS).filter(|row| row % 97 == 11 && row % 2 == late) {
                batch.delete(space, key(number, row));
            }
            batch.commit()?;
        }
        db.close()?;
    }
    Ok(())
}

/// The rows of keyspace number `space`.
fn expected(space: usize) -> Map {
    let rows = (0..ROWS).filter(|row| !is_deleted(*row)).chain(ROWS..ROWS + 2 * LATE_ROWS);
    rows.map(|row| (key(space, row), value(space, row).into())).collect()
}

/// Opens the database in `path`, which an open may change, and compares all of it.
///
/// # Errors
/// Those of [`Db::open`] and of reads.
///
/// # Panics
/// If the content differs.
pub fn check(path: &Path, read_only: bool) -> Result<()> {
    let db = builder(path).read_only(read_only).open()?;
    for (number, space) in spaces(&db)?.iter().enumerate() {
        assert!(crate::harness::contents(space)? == expected(number), "keyspace {:?}", space.name());
    }
    let index = spaces(&db)?[0].index("first byte")?;
    let report = index.verify()?;
    assert!(report.is_right(), "{report:?}");
    let with_a = expected(0).values().filter(|value| value.first() == Some(&b'a')).count() as u64;
    assert_eq!(index.count([b'a']..=[b'a'])?, with_a);
    if !read_only {
        db.compact()?;
        for (number, space) in spaces(&db)?.iter().enumerate() {
            assert!(crate::harness::contents(space)? == expected(number), "compacted {:?}", space.name());
        }
    }
    db.close()
}
