//! A tour in thirty lines: open, write, read, ranges, batches, snapshots. `cargo run --example
//! quickstart`
use sapwood::{Db, Durability, KeyspaceOptions, Result};

fn main() -> Result<()> {
    // Any folder is suitable; this one is removed at the end.
    let folder =
        tempfile::tempdir().map_err(|error| sapwood::Error::io("create", "a temporary folder", error))?;
    let db = Db::builder(folder.path().join("data")).memory_budget(64 << 20).open()?;

    // A database holds named keyspaces. Keys and values are bytes; keys are ordered bytewise.
    let users = db.keyspace("users", KeyspaceOptions::default())?;
    let cities = db.keyspace("cities", KeyspaceOptions::default())?;
    users.put("u1", "Ann, Oslo")?;
    users.put("u2", "Bo, Rome")?;
    assert_eq!(users.get("u1")?.as_deref(), Some(&b"Ann, Oslo"[..]));
    assert!(users.get("u9")?.is_none());

    // A batch is atomic, over any keyspaces. An ordinary commit survives the end of the process; a
    // commit that has to survive a power loss waits for the device.
    let mut batch = db.batch();
    batch.put(&users, "u3", "Cy, Lima").put(&cities, "Lima", "u3").delete(&users, "u2");
    batch.commit_durable(Durability::Buffered)?.wait_durable()?;

    // A snapshot fixes the state of one moment. Ranges and prefixes are iterated in both
    // directions.
    let snapshot = db.snapshot();
    users.delete("u1")?;
    for entry in users.prefix("u").at(&snapshot).rev().take(10) {
        let entry = entry?;
        println!("{} = {}", entry.key().escape_ascii(), entry.value()?.escape_ascii());
    }
    let now: Vec<_> =
        users.range("u1".."u9").map(|entry| Ok(entry?.key().to_vec())).collect::<Result<_>>()?;
    assert_eq!(now, [b"u3"]);

    print!("{}", db.stats());
    db.close()
}
