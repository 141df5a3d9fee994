//! Few descriptors, many tables.
use super::*;

fn open_with(path: &std::path::Path, most: Option<usize>) -> Db {
    let tiny = |o: &mut AdvancedOptions| {
        o.target_file_bytes = 12 << 10;
        o.memtable_bytes = Some(512 << 10);
        o.wal_segment_bytes = 1 << 20;
        o.max_open_files = most;
    };
    Db::builder(path).memory_budget(32 << 20).advanced(tiny).open().unwrap()
}

fn tables(db: &Db) -> usize {
    db.stats().keyspaces.iter().flat_map(|space| &space.levels).map(|level| level.files).sum()
}

pub(super) fn hundreds_of_tables_are_read_written_and_merged_with_ten_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = Resources::now().unwrap();
    let rows = 30_000;
    for round in 0..2 {
        let db = open_with(folder.path(), Some(10));
        let space = db.default_keyspace();
        let by_value = space
            .create_index(
                "value",
                IndexOptions::new(|_: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.key(&value[..1])),
            )
            .unwrap();
        for i in 0..rows {
            space.put(key(i), [(i + round) as u8; 100]).unwrap();
        }
        db.settle().unwrap();
        assert!(tables(&db) > 200, "{} tables", tables(&db));
        let mut most = 0;
        for i in (0..rows).step_by(7) {
            assert_eq!(space.get(key(i)).unwrap().unwrap()[..], [(i + round) as u8; 100]);
            if i % 64 == 0 {
                most = most.max(Resources::now().unwrap().descriptors);
            }
        }
        assert_eq!(space.iter().count() as u64, rows);
        assert_eq!(by_value.count(..=[255]).unwrap(), rows);
        let more = most - before.descriptors;
        assert!(more < 10 + 16, "{more} descriptors");
        db.close().unwrap();
        drop((space, by_value, db));
        match round {
            // The allocator's remainder of the first round is no leak.
            0 => {
                before = Resources {
                    descriptors: before.descriptors,
                    threads: before.threads,
                    ..Resources::now().unwrap()
                }
            }
            _ => before.check_back(Slack { anonymous_bytes: 64 << 20, ..Slack::default() }).unwrap(),
        }
    }
}
