//! A writing process is killed repeatedly: every acknowledged commit is present, and none is
//! present in part.
use sapwood_tests::harness::seeds;
use sapwood_tests::sim::arguments::Settings;
use sapwood_tests::sim::{kill, power};

#[test]
fn every_acknowledged_write_survives_kills_and_shortages() {
    let mut kills = 0;
    for seed in seeds(6..9) {
        let report = kill::seed(seed, &Settings::default().with("--lives", 20));
        assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
        kills += report.counts[0];
    }
    // If the disk is too small, all of them may be refused a resource before.
    assert!(kills > 0, "some child was killed");
}

#[test]
fn every_synced_write_survives_power_losses_of_a_real_file_system() {
    for seed in seeds(1..3) {
        let report = power::seed(seed, &Settings::default().with("--lives", 10));
        assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
    }
}
