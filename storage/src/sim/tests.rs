//! Tests of the simulated file system: which changes survive which crash, and agreement with the
//! real one.
use super::*;
mod faults;
mod images;
mod personalities;
mod watching;
mod schedule;

use crate::Env;
use crate::fs::fill_zeros;
use crate::fs::os::OsFileSystem;
use std::collections::BTreeSet;
use std::time::Duration;

fn path(name: &str) -> PathBuf {
    PathBuf::from("/db").join(name)
}

fn sim() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("/db")).unwrap();
    fs.sync_directory(Path::new("/")).unwrap();
    fs
}

#[test]
fn what_is_synced_survives_every_crash() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    file.write_at(0, &[1; 3000]).unwrap();
    file.sync_data().unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    assert!(fs.atoms().is_empty());
    file.write_at(1000, &[2; 3000]).unwrap();
    for seed in 0..200 {
        let bytes = fs.crash(seed).read_file(path("a")).unwrap();
        assert!((3000..=4000).contains(&bytes.len()));
        assert_eq!(bytes[..1000], [1; 1000]);
        // Sectors are whole: those inside both writes have one colour.
        for sector in bytes[1024..2560].chunks(512) {
            assert!(sector == [1; 512] || sector == [2; 512], "{sector:?}");
        }
    }
}

#[test]
fn a_name_survives_only_by_a_sync_of_its_directory() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync_all().unwrap();
    assert!(!fs.crash(0).exists(&path("a")).unwrap());
    assert!(fs.crash(1).exists(&path("a")).unwrap());
    fs.sync_directory(Path::new("/db")).unwrap();
    fs.rename(&path("a"), &path("b")).unwrap();
    for seed in 0..50 {
        let crashed = fs.crash(seed);
        let names: Vec<bool> = ["a", "b"].iter().map(|name| crashed.exists(&path(name)).unwrap()).collect();
        assert!(names == [true, false] || names == [false, true], "a renaming is one change: {names:?}");
    }
    fs.remove_file(&path("b")).unwrap();
    assert_eq!(file.len().unwrap(), 1, "an open file outlives its names");
    let survivors: BTreeSet<usize> = (0..50).map(|seed| fs.crash(seed).files().len()).collect();
    assert_eq!(survivors, BTreeSet::from([0, 1]), "a removal can be lost too");
}

#[test]
fn unsynced_sectors_survive_in_any_combination() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fill_zeros(&*file, 0, 2048).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    file.write_at(0, &[7; 2048]).unwrap();
    let states: BTreeSet<Vec<u8>> = (0..400)
        .map(|seed| fs.crash(seed).read_file(path("a")).unwrap().into_iter().step_by(512).collect())
        .collect();
    assert_eq!(states.len(), 16);
}

#[test]
fn a_sector_holds_the_bytes_of_earlier_writes_to_it() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    for record in 0..20u8 {
        file.write_at(u64::from(record) * 20, &[record + 1; 20]).unwrap();
    }
    for seed in 0..100 {
        let bytes = fs.crash(seed).read_file(path("a")).unwrap();
        let written =
            bytes.iter().enumerate().take_while(|(i, byte)| usize::from(**byte) == i / 20 + 1).count();
        if written > 0 {
            assert_eq!(written % 20, 0);
            assert!(bytes[written..].iter().all(|byte| *byte == 0));
        }
        // If the sector was lost the file may still have grown, over arbitrary content.
    }
    let atoms = fs.atoms();
    assert!(atoms.len() < 20, "{atoms:?}");
}

#[test]
fn lost_growth_hides_the_bytes_and_lost_bytes_read_as_zeros() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    file.write_at(0, &[5; 600]).unwrap();
    let without_growth = fs.crash_with(|atom| !matches!(atom.kind, AtomKind::Grow(_)));
    assert_eq!(without_growth.read_file(path("a")).unwrap(), b"");
    // Bytes after the end do not return.
    let handle = without_growth.open(&path("a"), OpenMode::ReadWrite).unwrap();
    handle.set_len(10).unwrap();
    assert_eq!(without_growth.read_file(path("a")).unwrap(), [0; 10]);
    let only_growth = fs.crash_with(|atom| matches!(atom.kind, AtomKind::Grow(_)));
    assert_eq!(only_growth.read_file(path("a")).unwrap(), [0; 600]);
}

#[test]
fn a_killed_process_loses_nothing_but_a_later_crash_may() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    file.write_at(0, b"written").unwrap();
    let lock = fs.lock(&path("LOCK")).unwrap();
    assert_eq!(fs.lock(&path("LOCK")).err().unwrap().kind(), ErrorKind::Locked);
    let after = fs.kill();
    assert_eq!(after.read_file(path("a")).unwrap(), b"written");
    drop(after.lock(&path("LOCK")).unwrap());
    assert!(!after.crash(0).exists(&path("a")).unwrap());
    // The two worlds do not share later changes.
    file.write_at(0, b"changed").unwrap();
    assert_eq!(after.read_file(path("a")).unwrap(), b"written");
    drop(lock);
    drop(fs.lock(&path("LOCK")).unwrap());
}

#[test]
fn the_world_stops_at_the_chosen_operation() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    let before = fs.operations();
    fs.crash_at(before + 1);
    file.write_at(0, b"one").unwrap();
    assert!(file.write_at(3, b"two").is_err());
    assert!(fs.has_crashed());
    assert!(file.sync_data().is_err());
    assert!(file.read_at(0, &mut [0]).is_err());
    assert!(fs.exists(&path("a")).is_err());
    assert_eq!(fs.operations(), before + 1);
    assert_eq!(fs.crash(1).read_file(path("a")).unwrap(), b"one");
    assert_eq!(fs.crash(0).files(), Vec::<PathBuf>::new());
}

#[test]
fn rules_make_calls_fail() {
    let fs = sim();
    fs.fail(FaultRule::new(Operation::Write, Fault::NoSpace).after(1).on("/a"));
    let file = fs.create_new(&path("a")).unwrap();
    let other = fs.create_new(&path("b")).unwrap();
    file.write_at(0, b"first").unwrap();
    other.write_at(0, b"other").unwrap();
    let error = file.write_at(5, b"second").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    file.write_at(5, b"second").unwrap();
    assert_eq!(fs.read_file(path("a")).unwrap(), b"firstsecond");
    fs.fail(FaultRule::new(Operation::Read, Fault::Io).sticky());
    for _ in 0..3 {
        assert_eq!(file.read_at(0, &mut [0; 4]).unwrap_err().kind(), ErrorKind::Io);
    }
    fs.clear_faults();
    assert_eq!(file.read_at(0, &mut [0; 4]).unwrap(), 4);
    assert_eq!(fs.faults_met(), 4);
}

#[test]
fn a_failed_sync_loses_its_bytes_and_the_next_one_does_not_bring_them_back() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    file.write_at(0, &[1; 512]).unwrap();
    fs.fail(FaultRule::new(Operation::Sync, Fault::Io));
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(fs.read_file(path("a")).unwrap(), [1; 512]);
    for seed in 0..400 {
        assert_eq!(fs.crash(seed).read_file(path("a")).unwrap(), b"");
    }
}

#[test]
fn a_full_device_refuses_until_there_is_room() {
    let fs = sim();
    fs.set_capacity_bytes(Some(8192));
    let file = fs.create_new(&path("a")).unwrap();
    file.write_at(0, &[1; 8192]).unwrap();
    file.write_at(100, &[2; 100]).unwrap();
    let error = file.write_at(8192, &[3]).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::NoSpace, Some(8192)));
    assert_eq!(fs.space(Path::new("/db")).unwrap().available, 0);
    fs.remove_file(&path("a")).unwrap();
    let other = fs.create_new(&path("b")).unwrap();
    assert!(other.write_at(0, &[1]).is_err(), "an open file keeps its space");
    drop(file);
    other.write_at(0, &[1]).unwrap();
    fs.set_capacity_bytes(None);
    other.write_at(0, &[1; 20_000]).unwrap();
}

#[test]
fn damage_reaches_every_state() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    file.write_at(0, &[0xF0; 100]).unwrap();
    fs.corrupt(path("a"), 50, 0x01);
    assert_eq!(fs.read_file(path("a")).unwrap()[50], 0xF1);
    file.sync_data().unwrap();
    assert_eq!(fs.crash(0).read_file(path("a")).unwrap()[50], 0xF1);
    fs.write_file(path("b"), b"given").unwrap();
    assert_eq!(fs.crash(0).read_file(path("b")).unwrap(), b"given");
}

#[test]
fn a_handle_for_reading_does_not_write() {
    let fs = sim();
    fs.write_file(path("a"), b"x").unwrap();
    let file = fs.open(&path("a"), OpenMode::Read).unwrap();
    assert!(file.write_at(0, b"y").is_err());
    assert!(file.set_len(0).is_err());
    assert!(fs.map_shared(&path("a"), 1).unwrap().is_none());
}

#[test]
fn the_clock_moves_when_asked_and_randomness_repeats() {
    let (env, _) = Env::sim(7);
    let (twin, fs) = Env::sim(7);
    let start = env.now();
    env.sleep(Duration::from_secs(3600));
    let passed = env.now() - start;
    assert!(passed >= Duration::from_secs(3600) && passed < Duration::from_secs(3601));
    assert!(env.unix_time() > Duration::from_secs(1_735_689_600));
    assert_eq!([env.random_u64(), env.random_u64()], [twin.random_u64(), twin.random_u64()]);
    twin.fs().create_dir_all(Path::new("/x")).unwrap();
    assert!(fs.exists(Path::new("/x")).unwrap());
    let after = twin.with_file_system(Arc::new(fs.kill()));
    assert!(after.fs().exists(Path::new("/x")).unwrap());
    assert!(after.now() > Duration::ZERO);
}

/// The same random calls on both file systems return the same results.
#[test]
fn it_agrees_with_the_real_file_system() {
    for seed in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let systems: [(Box<dyn FileSystem>, PathBuf); 2] = [
            (Box::new(OsFileSystem::new()), folder.path().to_path_buf()),
            (Box::new(sim()), PathBuf::from("/db")),
        ];
        let mut random = fastrand::Rng::with_seed(seed);
        let mut files: Vec<[Box<dyn File>; 2]> = Vec::new();
        for step in 0..300 {
            let choice = random.u32(..12);
            let names = [random.u32(..6), random.u32(..6)].map(|name| format!("d{}/f{name}", name % 2));
            let (offset, len) = (random.u64(..9000), random.usize(..3000));
            let byte = random.u8(..);
            let handle = random.usize(..files.len().max(1));
            let mut opened = Vec::new();
            let results: Vec<String> = (0..2)
                .map(|i| {
                    let (fs, root) = &systems[i];
                    let [a, b] = [root.join(&names[0]), root.join(&names[1])];
                    let ok = |result: Result<()>| format!("{}", result.is_ok());
                    match choice {
                        0 => ok(fs.create_dir_all(a.parent().unwrap())),
                        1 => ok(fs.remove_dir(a.parent().unwrap())),
                        2 | 3 => ok(fs.create_new(&a).map(|file| opened.push(file))),
                        4 => ok(fs.open(&a, OpenMode::ReadWrite).map(|file| opened.push(file))),
                        5 => ok(fs.remove_file(&a)),
                        // Both in one directory, as the contract requires.
                        6 if a.parent() == b.parent() => ok(fs.rename(&a, &b)),
                        7 => ok(fs.hard_link(&a, &b)),
                        8 => {
                            let mut names = fs.list(a.parent().unwrap()).unwrap_or_default();
                            names.sort();
                            format!("{names:?} {:?} {:?}", fs.exists(&b).unwrap(), fs.file_len(&b).ok())
                        }
                        _ if files.is_empty() => String::new(),
                        9 => ok(files[handle][i].set_len(offset)),
                        10 => {
                            let mut buffer = vec![0; len];
                            let count = files[handle][i].read_at(offset, &mut buffer).unwrap();
                            format!("{:?} {}", &buffer[..count], files[handle][i].len().unwrap())
                        }
                        _ => ok(files[handle][i].write_at(offset, &vec![byte; len])),
                    }
                })
                .collect();
            assert_eq!(results[0], results[1], "seed {seed}, step {step}, call {choice} of {names:?}");
            if let Ok(pair) = <[Box<dyn File>; 2]>::try_from(opened) {
                files.push(pair);
            }
        }
    }
}
