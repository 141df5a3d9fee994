//! Tests of the changes that each kind of file system keeps, and of its failed syncs.
use super::*;

fn of(personality: Personality) -> SimFs {
    let fs = sim();
    fs.set_personality(personality);
    fs
}

/// Whether any crash state satisfies this.
fn any_crash(fs: &SimFs, test: impl Fn(&SimFs) -> bool) -> bool {
    fs.crash_images(1, usize::MAX).any(|(_, image)| test(&image))
}

fn has(fs: &SimFs, name: &str) -> bool {
    fs.exists(&path(name)).unwrap()
}

#[test]
fn names_and_lengths_persist_in_order_only_where_promised() {
    for personality in Personality::ALL {
        let fs = of(personality);
        drop(fs.create_new(&path("a")).unwrap());
        drop(fs.create_new(&path("b")).unwrap());
        let out_of_order = any_crash(&fs, |image| has(image, "b") && !has(image, "a"));
        assert_eq!(out_of_order, personality == Personality::Weakest, "{personality}");
        assert!(any_crash(&fs, |image| has(image, "a") && !has(image, "b")));
        assert_eq!(fs.kill().crash(1).personality(), personality);
    }
}

#[test]
fn a_renaming_may_be_late_except_where_order_is_kept() {
    for personality in Personality::ALL {
        let fs = of(personality);
        drop(fs.create_new(&path("a")).unwrap());
        fs.sync_directory(Path::new("/db")).unwrap();
        fs.rename(&path("a"), &path("b")).unwrap();
        drop(fs.create_new(&path("c")).unwrap());
        let late = any_crash(&fs, |image| has(image, "c") && !has(image, "b"));
        assert_eq!(late, personality != Personality::Ordered, "{personality}");
    }
}

#[test]
fn a_length_brings_its_bytes_only_where_promised() {
    for personality in Personality::ALL {
        let fs = of(personality);
        let file = fs.create_new(&path("a")).unwrap();
        fs.sync_directory(Path::new("/db")).unwrap();
        file.write_at(0, &[1; 600]).unwrap();
        file.sync_data().unwrap();
        file.write_at(0, &[2; 3000]).unwrap();
        let mut is_bare = false;
        let mut keeps_old = false;
        for (_, image) in fs.crash_images(3, usize::MAX) {
            let bytes = image.read_file(path("a")).unwrap();
            assert!([600, 3000].contains(&bytes.len()));
            is_bare |= bytes.len() == 3000 && bytes[1024..].iter().any(|byte| *byte != 2);
            keeps_old |= bytes.len() == 3000 && bytes[0] == 1;
        }
        assert_eq!(is_bare, personality == Personality::Weakest, "{personality}");
        assert!(keeps_old, "bytes that are written over are not tied to the length: {personality}");
    }
}

#[test]
fn a_sync_of_a_new_file_keeps_its_name_only_where_promised() {
    for personality in Personality::ALL {
        let fs = of(personality);
        drop(fs.create_new(&path("other")).unwrap());
        let file = fs.create_new(&path("a")).unwrap();
        drop(fs.create_new(&path("later")).unwrap());
        file.write_at(0, b"x").unwrap();
        file.sync_data().unwrap();
        let after = fs.crash(0);
        assert_eq!(has(&after, "a"), personality != Personality::Weakest, "{personality}");
        // The journal persists everything up to the length of the file; a tree log only the file.
        assert_eq!(has(&after, "other"), personality == Personality::Ordered);
        assert_eq!(has(&after, "later"), personality == Personality::Ordered);
        if has(&after, "a") {
            assert_eq!(after.read_file(path("a")).unwrap(), b"x");
        }
    }
}

/// A new file takes over the name of a removed one: older changes must not undo what persisted
/// early.
#[test]
fn a_name_that_was_synced_with_its_file_stays() {
    for personality in [Personality::Ordered, Personality::Btrfs] {
        let fs = of(personality);
        fs.write_file(path("a"), b"old").unwrap();
        fs.remove_file(&path("a")).unwrap();
        let file = fs.create_new(&path("a")).unwrap();
        file.write_at(0, b"new").unwrap();
        file.sync_data().unwrap();
        for (choice, image) in fs.crash_images(1, usize::MAX) {
            assert_eq!(image.read_file(path("a")).unwrap(), b"new", "{personality} {choice}");
        }
    }
}

/// Random work: the states of the stronger file systems are states of the weakest one, and synced
/// data is there.
#[test]
fn stronger_file_systems_leave_states_of_the_weakest() {
    for personality in [Personality::Ordered, Personality::Btrfs] {
        for seed in 0..40 {
            let fs = of(personality);
            let mut random = fastrand::Rng::with_seed(seed);
            let file = fs.create_new(&path("a")).unwrap();
            fs.sync_directory(Path::new("/db")).unwrap();
            let mut synced = Vec::new();
            for _ in 0..30 {
                match random.u32(..8) {
                    0 => {
                        file.sync_data().unwrap();
                        synced = fs.read_file(path("a")).unwrap();
                    }
                    1 => {
                        // A journal that another file's sync writes includes this one's lengths.
                        let other = fs.create_new(&path(&format!("f{}", random.u64(..)))).unwrap();
                        other.sync_all().unwrap();
                    }
                    _ => {
                        let bytes = vec![random.u8(1..); random.usize(1..900)];
                        file.write_at(fs.file_len(&path("a")).unwrap(), &bytes).unwrap();
                    }
                }
            }
            let full = fs.read_file(path("a")).unwrap();
            for (choice, image) in fs.crash_images(seed, 60) {
                let bytes = image.read_file(path("a")).unwrap();
                assert!(bytes.starts_with(&synced), "{personality} seed {seed} {choice}");
                // Only appended: no sector is uncovered, though the end of an earlier one can be.
                for (left, full) in bytes.chunks(512).zip(full.chunks(512)) {
                    let there = left.iter().zip(full).take_while(|(left, full)| left == full).count();
                    assert!(there > 0, "{personality} seed {seed} {choice}");
                    assert!(
                        left[there..].iter().all(|byte| *byte == 0),
                        "{personality} seed {seed} {choice}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_failed_sync_is_told_once_and_its_bytes_do_not_come_back() {
    for failure in FsyncFailure::ALL {
        let fs = sim();
        fs.write_file(path("a"), &[1; 512]).unwrap();
        let file = fs.open(&path("a"), OpenMode::ReadWrite).unwrap();
        file.write_at(0, &[2; 1024]).unwrap();
        fs.fail(FaultRule::new(Operation::Sync, Fault::SyncFailure(failure)));
        let outcomes: Vec<bool> = (0..3).map(|_| file.sync_data().is_ok()).collect();
        let expected = match failure {
            FsyncFailure::Ext4Late => [true, false, true],
            _ => [false, true, true],
        };
        assert_eq!(outcomes, expected, "{failure}");
        let seen = fs.read_file(path("a")).unwrap();
        match failure {
            FsyncFailure::Btrfs => assert_eq!(seen, [1; 512]),
            _ => assert_eq!(seen, [2; 1024]),
        }
        for seed in 0..50 {
            let left = fs.crash(seed).read_file(path("a")).unwrap();
            assert_eq!(left[..512], [1; 512], "{failure}");
            match failure {
                FsyncFailure::Xfs => assert_eq!(left[512..], [0; 512]),
                _ => assert_eq!(left.len(), 512),
            }
        }
        // Bytes written after the failure can be made durable.
        file.write_at(2048, &[3; 512]).unwrap();
        file.sync_data().unwrap();
        assert_eq!(fs.crash(0).read_file(path("a")).unwrap()[2048..], [3; 512]);
    }
}

#[test]
fn personalities_and_failures_are_text() {
    for personality in Personality::ALL {
        assert_eq!(personality.to_string().parse(), Ok(personality));
    }
    for failure in FsyncFailure::ALL {
        assert_eq!(failure.to_string().parse(), Ok(failure));
    }
    assert!("ext3".parse::<FsyncFailure>().is_err() && "ext4".parse::<Personality>().is_err());
}
