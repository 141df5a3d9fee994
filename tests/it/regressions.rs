//! Regression tests of the simulation's findings: the seed of the run, and a separate test where
//! the case has a simple form.
use sapwood::{BackgroundStep, CompactionStyle, Db, Env};
use sapwood_tests::sim::arguments::Settings;
use sapwood_tests::sim::tuning::Tuning;
use sapwood_tests::sim::{crash, fault, meta};

/// Seeds of `sapwood-sim crash` with their findings. A change of the generator changes the run of a
/// seed.
const CRASH: [(u64, &str); 2] = [
    (11, "blocks of a removed MANIFEST were taken for the content of a new, unsynced one"),
    (13, "a standard filter of few keys with many bits could not be read back"),
];

/// Seeds of `sapwood-sim meta`.
const META: [(u64, &str); 4] = [
    (5, "after a change from hybrid to leveled, older versions of keys hid newer ones"),
    (6, "a standard filter of few keys with many bits could not be read back"),
    (8, "the same, met by a compaction"),
    (55, "small tables were rewritten repeatedly, because each slice was planned after another keyspace"),
];

/// Seeds of `sapwood-sim meta --space`, with the settings of the seed.
const SPACE: [(u64, u32, &str); 1] =
    [(2, 2, "small tables were merged across one of their target that was not an input")];

/// Seeds of `sapwood-sim fault`, with the run of the seed, and its options.
const FAULT: [(u64, u32, &[&str], &str); 3] = [
    (
        34,
        45,
        &[],
        "the tree of a unique index was removed though an edit before the refused one had named it",
    ),
    (7_211_003, 66, &[], "the simulation let an allocation succeed that should have failed"),
    (
        8_200_005,
        195,
        &["--indexes"],
        "the simulation checked an index whose drop, the last edit of the MANIFEST, the device had lost",
    ),
];

#[test]
fn seeds_that_found_something_find_nothing_more() {
    let settings = Settings::default().with("--states", 60).with("--no-shrink", "").with("--loose", "");
    for (seed, found) in CRASH {
        let report = crash::seed(seed, &settings);
        assert!(report.violations.is_empty(), "{found}? {}", report.violations.join("\n"));
    }
    for (seed, found) in META {
        let report = meta::seed(seed, &Settings::default());
        assert!(report.violations.is_empty(), "{found}? {}", report.violations.join("\n"));
    }
    for (seed, only, found) in SPACE {
        let settings = Settings::default().with("--space", "").with("--only", only).with("--length", 120);
        let report = meta::seed(seed, &settings);
        assert!(report.violations.is_empty(), "{found}? {}", report.violations.join("\n"));
    }
    for (seed, run, switches, found) in FAULT {
        let settings = Settings::default().with("--only", run);
        let settings = switches.iter().fold(settings, |settings, switch| settings.with(switch, ""));
        let report = fault::seed(seed, &settings);
        assert!(report.violations.is_empty(), "{found}? {}", report.violations.join("\n"));
    }
}

fn open(env: &Env, style: CompactionStyle) -> Db {
    let tuning = Tuning { style, level0_runs: 1, target_file_bytes: 64 << 10, ..Tuning::standard() };
    tuning.builder("db", env).open().unwrap()
}

fn compact_in_steps(db: &Db) {
    while db.background_step(BackgroundStep::Compaction).unwrap() {}
}

#[test]
fn runs_that_hybrid_leaves_go_down_together_when_leveled_takes_over() {
    let (env, _fs) = Env::sim_manual(1);
    let db = open(&env, CompactionStyle::Hybrid);
    for value in ["old", "new"] {
        db.default_keyspace().put("key", value).unwrap();
        db.flush().unwrap();
        compact_in_steps(&db);
    }
    db.close().unwrap();
    let db = open(&env, CompactionStyle::Leveled);
    compact_in_steps(&db);
    assert_eq!(db.default_keyspace().get("key").unwrap().unwrap()[..], *b"new");
}

#[test]
fn levels_that_leveled_leaves_go_down_with_level_0_when_hybrid_takes_over() {
    let (env, _fs) = Env::sim_manual(1);
    let db = open(&env, CompactionStyle::Leveled);
    let keyspace = db.default_keyspace();
    // Enough for a level above the one that hybrid merges into.
    for round in 0..4u32 {
        for number in 0..1000u32 {
            let value = fastrand::Rng::with_seed(u64::from(round * 1000 + number)).u64(..).to_le_bytes();
            keyspace.put(format!("{number:05}"), value.repeat(400)).unwrap();
        }
        db.flush().unwrap();
        compact_in_steps(&db);
    }
    for number in 0..200u32 {
        keyspace.put(format!("{number:05}"), "old").unwrap();
    }
    db.flush().unwrap();
    compact_in_steps(&db);
    let between = db.stats().keyspaces[0].levels.iter().any(|level| (1..5).contains(&level.level));
    assert!(between, "the test needs a level between: {}", db.stats());
    drop(keyspace);
    db.close().unwrap();
    drop(db);
    let db = open(&env, CompactionStyle::Hybrid);
    let keyspace = db.default_keyspace();
    for number in 0..200u32 {
        keyspace.put(format!("{number:05}"), "new").unwrap();
    }
    db.flush().unwrap();
    compact_in_steps(&db);
    for number in 0..200u32 {
        assert_eq!(keyspace.get(format!("{number:05}")).unwrap().unwrap()[..], *b"new", "key {number}");
    }
}
