//! The cost of the log: puts with and without it, and durable puts of one thread.
//!
//! The log is not public, so the difference of two puts stands for an append. Keys come in order,
//! which minimizes the memtable's share. Floor, measured with a small probe on 2 cores of a cloud
//! VM: 15 ns for a record stored into a mapped, recycled segment, against 900 to 1900 ns for
//! `write(2)`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sapwood::{Db, Durability, Keyspace, WriteOptions};

const VALUE: [u8; 100] = [7; 100];

/// Puts keys in order.
struct Puts {
    keyspace: Keyspace,
    options: WriteOptions,
    next: u64,
}

impl Puts {
    fn put(&mut self) {
        let key = u128::from(self.next).rotate_left(64).to_be_bytes();
        self.next += 1;
        self.keyspace.put_with(key, VALUE, &self.options).expect("space on the device");
    }
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put, keys in order");
    group.sample_size(10);
    let modes = [
        ("with the log, mapped", Durability::Buffered, true),
        ("with the log, written by calls", Durability::Buffered, false),
        ("without the log", Durability::None, true),
        ("to the device", Durability::Sync, true),
    ];
    for (name, durability, mapped) in modes {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Db::builder(folder.path().join("db"))
            .memory_budget(1 << 30)
            .advanced(|advanced| advanced.wal_mapped = mapped)
            .open()
            .expect("a new database opens");
        let options = WriteOptions { durability: Some(durability) };
        let mut puts = Puts { keyspace: db.default_keyspace(), options, next: 0 };
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| puts.put()));
        db.close().expect("space on the device");
    }
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
