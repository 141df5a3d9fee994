//! Memory and disk space.
use crate::harness::{builder, eventually};
use sapwood::{BackgroundStep, Env, ErrorKind};

pub(super) fn memory() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    for number in 0..6000u32 {
        keyspace.put(number.to_be_bytes(), [7; 2000]).expect("written");
        let memory = db.memory();
        let used = memory.memtables + memory.cache;
        assert!(used <= memory.budget, "{used} bytes are in use, the budget is {}", memory.budget);
    }
}

pub(super) fn space() {
    let (env, fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    for round in 0..40u8 {
        for number in 0..100u32 {
            keyspace.put(number.to_be_bytes(), [round; 1000]).expect("written");
        }
        db.flush().expect("flushed");
    }
    db.compact().expect("merged");
    let tables = || -> u64 {
        let paths = fs.files().into_iter().filter(|path| path.extension().is_some_and(|name| name == "sst"));
        paths.map(|path| env.fs().file_len(&path).unwrap_or(0)).sum()
    };
    for _ in 0..500 {
        if tables() < 300_000 {
            return;
        }
        for step in BackgroundStep::ALL {
            db.background_step(step).expect("a healthy machine");
        }
    }
    panic!("100 KB of data take {} bytes in tables", tables());
}

pub(super) fn full_disk() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    let space = env.fs().space(db.path()).expect("known");
    fs.set_capacity_bytes(Some(space.total - space.available + 150_000));
    let error = (0..5000u32)
        .find_map(|number| keyspace.put(number.to_be_bytes(), [7; 2000]).err())
        .expect("the disk is full at some time");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    // The flush has no space either.
    let _ = db.flush();
    fs.set_capacity_bytes(None);
    eventually("writes continue", || match keyspace.put("later", "") {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            false
        }
    });
}
