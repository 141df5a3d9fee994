//! Failing calls, one place after the other: the tree keeps its state and continues, or reports
//! that it cannot.
use crate::support::*;
use sapwood_base::ErrorKind;
use sapwood_storage::sim::{Fault, FaultRule, Operation};
use std::sync::Arc;

fn pair() -> Pair {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pair = Pair::new(1, 512);
    pair.apply(&random_changes(&mut random, Keys::Long, 2000, 1500, 0.0, 512));
    pair.apply(&random_changes(&mut random, Keys::Long, 2000, 500, 0.5, 512));
    pair
}

#[test]
fn a_write_that_fails_changes_nothing_and_the_next_one_goes_on() {
    for fault in [Fault::Io, Fault::NoSpace] {
        let mut random = fastrand::Rng::with_seed(2);
        let mut pair = pair();
        for place in 0.. {
            let changes = random_changes(&mut random, Keys::Long, 2000, 200, 0.4, 512);
            let before = *pair.tree.root();
            pair.fs.fail(FaultRule::new(Operation::Write, fault).after(place));
            let result = pair.tree.apply(&borrow(&changes));
            let met = pair.fs.faults_met() > 0;
            pair.fs.clear_faults();
            match result {
                Ok(_) => {
                    pair.tree.install();
                    apply_to_model(&mut pair.model, &changes);
                    if pair.fs.faults_met() <= place {
                        // All places of a batch were tried.
                        assert!(place > 3);
                        break;
                    }
                }
                Err(error) => {
                    assert!(met);
                    assert_eq!(
                        error.kind(),
                        if fault == Fault::Io { ErrorKind::Io } else { ErrorKind::NoSpace }
                    );
                    assert!(error.file().is_some());
                    assert_eq!(*pair.tree.root(), before);
                    pair.tree.verify().unwrap();
                }
            }
            check_same(&pair.tree.view(), &pair.model);
            pair.apply(&random_changes(&mut random, Keys::Long, 2000, 20, 0.4, 512));
        }
        pair.tree.verify().unwrap();
        pair.reopen();
        check_same(&pair.tree.view(), &pair.model);
    }
}

#[test]
fn a_failed_sync_is_final() {
    let mut pair = pair();
    pair.fs.fail(FaultRule::new(Operation::Sync, Fault::Io));
    let changes = [(b"k".to_vec(), Some(b"v".to_vec()))];
    assert_eq!(pair.tree.apply(&borrow(&changes)).unwrap_err().kind(), ErrorKind::Io);
    pair.fs.clear_faults();
    let operations = pair.fs.operations();
    assert_eq!(pair.tree.apply(&borrow(&changes)).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(pair.fs.operations(), operations, "nothing is written after a failed sync");
    check_same(&pair.tree.view(), &pair.model);
    pair.reopen();
    pair.apply(&changes);
    check_same(&pair.tree.view(), &pair.model);
}

#[test]
fn what_is_written_after_a_failed_sync_and_an_opening_survives_a_power_loss() {
    let mut pair = pair();
    let mut random = fastrand::Rng::with_seed(3);
    let changes = random_changes(&mut random, Keys::Numbers, 20_000, 3000, 0.0, 512);
    pair.fs.fail(FaultRule::new(Operation::Sync, Fault::Io));
    assert_eq!(pair.tree.apply(&borrow(&changes)).unwrap_err().kind(), ErrorKind::Io);
    pair.fs.clear_faults();
    let before = *pair.tree.root();
    pair.reopen();
    pair.apply(&changes);
    assert!(pair.tree.root().file_pages > before.file_pages, "the test needs a tree that grows");
    pair.fs = pair.fs.crash_with(|_| false);
    pair.env = pair.env.with_file_system(Arc::new(pair.fs.clone()));
    pair.reopen();
    pair.tree.verify().unwrap();
    check_same(&pair.tree.view(), &pair.model);
}

#[test]
fn a_read_that_fails_is_an_error_each_time_and_nothing_else() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut pair = pair();
    for place in 0..60 {
        // A new handle has an empty cache.
        pair.reopen();
        let changes = random_changes(&mut random, Keys::Long, 2000, 50, 0.4, 512);
        pair.fs.fail(FaultRule::new(Operation::Read, Fault::Io).after(place));
        let result = pair.tree.apply(&borrow(&changes));
        pair.fs.clear_faults();
        if let Err(error) = &result {
            assert_eq!(error.kind(), ErrorKind::Io);
        } else {
            pair.tree.install();
            apply_to_model(&mut pair.model, &changes);
        }
        pair.reopen();
        pair.fs.fail(FaultRule::new(Operation::Read, Fault::Io).after(place));
        let key = random_key(&mut random, Keys::Long, 2000);
        let view = pair.tree.view();
        let results = [view.get(&key).err(), view.rank(&key).err(), view.verify().err()];
        pair.fs.clear_faults();
        assert!(results.into_iter().flatten().all(|error| error.kind() == ErrorKind::Io));
        check_same(&pair.tree.view(), &pair.model);
        pair.tree.verify().unwrap();
    }
}

#[test]
fn a_full_disk_can_be_waited_out() {
    let mut random = fastrand::Rng::with_seed(4);
    let mut pair = pair();
    let len = file_bytes(&pair.fs).len() as u64;
    pair.fs.set_capacity_bytes(Some(len + 8192));
    let changes = random_changes(&mut random, Keys::Numbers, 1 << 40, 30_000, 0.0, 512);
    assert_eq!(pair.tree.apply(&borrow(&changes)).unwrap_err().kind(), ErrorKind::NoSpace);
    check_same(&pair.tree.view(), &pair.model);
    pair.tree.verify().unwrap();
    pair.fs.set_capacity_bytes(None);
    pair.apply(&changes);
    check_same(&pair.tree.view(), &pair.model);
    pair.tree.verify().unwrap();
}
