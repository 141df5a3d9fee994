//! Tests of every fault, of the rules that cause them, and of their text.
use super::*;

/// Creates a file of 4 durable sectors of different bytes, and another one.
fn four_sectors() -> (SimFs, Box<dyn File>) {
    let fs = sim();
    fs.write_file(path("a"), &[[1; 512], [2; 512], [3; 512], [4; 512]].concat()).unwrap();
    fs.write_file(path("b"), &[9; 600]).unwrap();
    let file = fs.open(&path("a"), OpenMode::ReadWrite).unwrap();
    (fs, file)
}

fn read(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let count = file.read_at(0, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

/// The first bytes of the sectors.
fn colours(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().step_by(512).collect()
}

#[test]
fn errors_have_their_codes_and_kinds() {
    let (fs, file) = four_sectors();
    for fault in Fault::ERRORS {
        if fault == Fault::Interrupted {
            continue;
        }
        fs.fail(FaultRule::new(Operation::Write, fault));
        let error = file.write_at(0, &[0; 512]).unwrap_err();
        let kind = match fault {
            Fault::NoSpace | Fault::Quota => ErrorKind::NoSpace,
            Fault::TooManyOpen | Fault::TooManyOpenSystem | Fault::NoMemory => ErrorKind::OutOfResources,
            _ => ErrorKind::Io,
        };
        assert_eq!(error.kind(), kind, "{fault}");
        assert_eq!(error.file(), Some(&*path("a")), "{fault}");
        assert!(error.io_error().is_some());
        #[cfg(unix)]
        {
            let source = error.io_error();
            assert_eq!(source.unwrap().raw_os_error().is_some(), fault != Fault::Io, "{fault}");
        }
    }
    assert_eq!(colours(&read(&*file)), [1, 2, 3, 4]);
}

#[test]
fn a_mapping_fails_for_want_of_memory_and_handles() {
    let (fs, _file) = four_sectors();
    assert!(fs.map_shared(&path("a"), 512).unwrap().is_none());
    for fault in [Fault::NoMemory, Fault::TooManyOpen] {
        fs.fail(FaultRule::any(fault));
        let error = fs.map_shared(&path("a"), 512).unwrap_err();
        assert_eq!((error.kind(), error.file()), (ErrorKind::OutOfResources, Some(&*path("a"))), "{fault}");
        assert!(fs.map_shared(&path("a"), 512).unwrap().is_none());
    }
    assert!(fs.map_shared(&path("c"), 512).is_err(), "there is no such file");
    fs.set_handle_limit(Some(fs.open_handles()));
    assert_eq!(fs.map_shared(&path("a"), 512).unwrap_err().kind(), ErrorKind::OutOfResources);
    assert_eq!(fs.calls(Operation::Map), 7);
}

/// The system's layer retries calls that a signal interrupts, so only calls on names can report it.
#[test]
fn interruptions_reach_only_calls_that_are_not_repeated() {
    let (fs, file) = four_sectors();
    fs.fail(FaultRule::any(Fault::Interrupted).sticky());
    file.write_at(0, &[1; 512]).unwrap();
    file.sync_data().unwrap();
    read(&*file);
    assert!(fs.rename(&path("a"), &path("c")).is_err());
    assert!(fs.remove_file(&path("a")).is_err());
    assert_eq!(fs.faults_met(), 2);
}

#[test]
fn reads_can_lie_once_or_forever() {
    let (fs, file) = four_sectors();
    let fail = |fault| fs.fail(FaultRule::new(Operation::Read, fault));
    fail(Fault::ShortRead(700));
    assert_eq!(read(&*file).len(), 700);
    assert_eq!(read(&*file).len(), 2048);
    fail(Fault::FlipRead(8 * 600 + 3));
    assert_eq!(read(&*file)[600], 2 ^ 8);
    assert_eq!(read(&*file)[600], 2);
    fail(Fault::StaleRead);
    assert_eq!(read(&*file), [0; 2048], "nothing was there before");
    file.write_at(512, &[7; 512]).unwrap();
    fail(Fault::StaleRead);
    assert_eq!(colours(&read(&*file)), [1, 2, 3, 4]);
    assert_eq!(colours(&read(&*file)), [1, 7, 3, 4]);
    file.sync_data().unwrap();
    fs.remove_file(&path("b")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    fail(Fault::StaleRead);
    assert_eq!(colours(&read(&*file)), [9, 9, 0, 0], "the bytes of a removed file");
    fail(Fault::FlipMedium(8 * 600 + 3));
    assert_eq!(read(&*file)[600], 7 ^ 8);
    assert_eq!(read(&*file)[600], 7 ^ 8);
    fail(Fault::ZeroSector(5));
    assert_eq!(colours(&read(&*file)), [1, 0, 3, 4], "sector 5 of 4 is sector 1");
    assert_eq!(colours(&fs.crash(0).read_file(path("a")).unwrap()), [1, 0, 3, 4]);
    // At the end of the file there is nothing to damage.
    for fault in [Fault::FlipMedium(1), Fault::FlipRead(1), Fault::ZeroSector(0), Fault::ShortRead(1)] {
        fail(fault);
        assert_eq!(file.read_at(2048, &mut [0; 10]).unwrap(), 0);
    }
}

#[test]
fn writes_can_stop_short() {
    for (fault, kind) in
        [(Fault::ShortWrite(700), ErrorKind::NoSpace), (Fault::TornWrite(700), ErrorKind::Io)]
    {
        let (fs, file) = four_sectors();
        fs.fail(FaultRule::new(Operation::Write, fault));
        let error = file.write_at(512, &[7; 1536]).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (kind, Some(1212)));
        let bytes = read(&*file);
        assert_eq!(bytes[512..1212], [7; 700]);
        assert_eq!(bytes[1212..1536], [3; 324]);
        assert_eq!(fs.crash(1).read_file(path("a")).unwrap(), bytes);
        fs.fail(FaultRule::new(Operation::Write, Fault::TornWrite(0)));
        assert!(file.write_at(0, &[8; 100]).is_err());
        assert_eq!(read(&*file), bytes);
    }
}

#[test]
fn writes_can_go_astray() {
    let (fs, file) = four_sectors();
    let fail = |fault| fs.fail(FaultRule::new(Operation::Write, fault));
    fail(Fault::Misdirect(2));
    file.write_at(512, &[7; 512]).unwrap();
    assert_eq!(colours(&read(&*file)), [1, 2, 3, 7]);
    fail(Fault::Misdirect(-1));
    file.write_at(2048, &[8; 512]).unwrap();
    assert_eq!(colours(&read(&*file)), [1, 2, 3, 8, 0], "the file has grown even so");
    fail(Fault::Misdirect(-1));
    file.write_at(0, &[6; 512]).unwrap();
    assert_eq!(colours(&read(&*file)), [1, 6, 3, 8, 0], "there is nothing before the beginning");
    fail(Fault::MisdirectFile);
    file.write_at(0, &[5; 512]).unwrap();
    assert_eq!(colours(&read(&*file)), [1, 6, 3, 8, 0]);
    let other = fs.read_file(path("b")).unwrap();
    assert_eq!((&other[..512], &other[512..]), (&[5; 512][..], &[9; 88][..]));
    fail(Fault::FlipMedium(9));
    file.write_at(512, &[0; 4]).unwrap();
    assert_eq!(read(&*file)[512..517], [0, 2, 0, 0, 6]);
    fail(Fault::ZeroSector(1));
    file.write_at(1024, &[1; 1024]).unwrap();
    assert_eq!(colours(&read(&*file)), [1, 0, 1, 0, 0]);
}

#[test]
fn a_lost_write_is_seen_until_the_crash() {
    let (fs, file) = four_sectors();
    fs.fail(FaultRule::new(Operation::Write, Fault::LostWrite));
    file.write_at(1536, &[7; 1024]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(colours(&read(&*file)), [1, 2, 3, 7, 7]);
    assert_eq!(colours(&fs.kill().read_file(path("a")).unwrap()), [1, 2, 3, 7, 7]);
    for seed in 0..20 {
        assert_eq!(colours(&fs.crash(seed).read_file(path("a")).unwrap()), [1, 2, 3, 4, 0]);
    }
}

#[test]
fn calls_can_fail_after_they_were_carried_out() {
    let (fs, file) = four_sectors();
    let next = || fs.fail(FaultRule::any(Fault::ErrorButApplied));
    let failed = |result: Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
    next();
    failed(file.write_at(0, &[7; 512]));
    assert_eq!(colours(&read(&*file)), [7, 2, 3, 4]);
    next();
    failed(file.sync_data());
    assert_eq!(colours(&fs.crash(0).read_file(path("a")).unwrap()), [7, 2, 3, 4]);
    next();
    failed(file.set_len(512));
    assert_eq!(file.len().unwrap(), 512);
    next();
    failed(fs.create_new(&path("c")).map(drop));
    next();
    failed(fs.rename(&path("c"), &path("d")));
    next();
    failed(fs.hard_link(&path("d"), &path("e")));
    next();
    failed(fs.remove_file(&path("d")));
    assert_eq!(fs.files(), [path("a"), path("b"), path("e")]);
    next();
    failed(fs.sync_directory(Path::new("/db")));
    assert_eq!(fs.crash(0).files(), [path("a"), path("b"), path("e")]);
    next();
    failed(fs.create_dir_all(&path("x")));
    next();
    failed(fs.remove_dir(&path("x")));
    assert!(!fs.exists(&path("x")).unwrap());
    assert_eq!(fs.faults_met(), 10);
}

#[test]
fn time_passes_and_jumps() {
    let (env, fs) = Env::sim(1);
    fs.fail(FaultRule::new(Operation::CreateDirectory, Fault::Latency(5000)));
    let (now, date) = (env.now(), env.unix_time());
    fs.create_dir_all(Path::new("/db")).unwrap();
    let passed = env.now() - now;
    assert!(passed >= Duration::from_secs(5) && passed < Duration::from_secs(6));
    fs.fail(FaultRule::any(Fault::ClockJump(-3600)));
    assert!(fs.exists(Path::new("/db")).unwrap());
    let back = date - env.unix_time();
    assert!(back > Duration::from_secs(3590) && back < Duration::from_secs(3600), "{back:?}");
    assert!(env.now() - now < Duration::from_secs(6), "the time that passes does not jump");
    fs.kill().jump_clock(7200);
    assert!(env.unix_time() > date, "the clock belongs to the machine");
    fs.jump_clock(-10_000_000_000_000);
    assert!(env.unix_time() < Duration::from_secs(60));
}

#[test]
fn the_log_names_every_fault() {
    let (fs, file) = four_sectors();
    let number = fs.operations();
    fs.fail_by(&"write,after:1=eio+read,sticky=short-read:3+sync,on:/b=eio".parse().unwrap());
    file.write_at(0, &[1; 4]).unwrap();
    assert!(file.write_at(0, &[1; 4]).is_err());
    assert_eq!(read(&*file), [1; 3]);
    file.sync_data().unwrap();
    let log: Vec<String> = fs.faults_log().iter().map(FaultMet::to_string).collect();
    let expected = [
        format!("operation {}: write /db/a met eio", number + 1),
        format!("operation {}: read /db/a met short-read:3", number + 2),
    ];
    assert_eq!(log, expected);
    assert_eq!(fs.calls(Operation::Write), 2);
    assert_eq!(fs.calls(Operation::Remove), 0);
    fs.clear_faults();
    assert_eq!(read(&*file).len(), 2048);
}

#[test]
fn chances_repeat_with_their_seed() {
    let count = |rule: &FaultRule| {
        let (fs, file) = four_sectors();
        fs.fail(rule.clone());
        let failed: Vec<bool> = (0..1000).map(|_| file.write_at(0, &[1]).is_err()).collect();
        failed
    };
    let rule = FaultRule::new(Operation::Write, Fault::Io).one_in(10, 7);
    let failed = count(&rule);
    let times = failed.iter().filter(|failed| **failed).count();
    assert!((60..150).contains(&times), "{times}");
    assert_eq!(failed, count(&rule.to_string().parse().unwrap()));
    assert_ne!(failed, count(&FaultRule::new(Operation::Write, Fault::Io).one_in(10, 8)));
    assert_eq!(count(&rule.times(2)).iter().filter(|failed| **failed).count(), 2);
}

#[test]
fn rules_and_faults_are_text() {
    let others = [
        Fault::ShortRead(0),
        Fault::ShortWrite(1),
        Fault::TornWrite(4096),
        Fault::FlipRead(3),
        Fault::FlipMedium(9),
        Fault::ZeroSector(2),
        Fault::Misdirect(-5),
        Fault::MisdirectFile,
        Fault::LostWrite,
        Fault::StaleRead,
        Fault::ErrorButApplied,
        Fault::Latency(50),
        Fault::ClockJump(-3600),
    ];
    let failures = FsyncFailure::ALL.map(Fault::SyncFailure);
    for fault in Fault::ERRORS.into_iter().chain(others).chain(failures) {
        assert_eq!(fault.to_string().parse(), Ok(fault));
        assert!(Operation::ALL.into_iter().any(|operation| fault.applies_to(operation)));
        let rule = FaultRule::any(fault).on(".sst").after(2).times(3);
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
    for operation in Operation::ALL {
        assert_eq!(operation.to_string().parse(), Ok(operation));
    }
    let texts = [
        "any=eio",
        "write=enospc",
        "sync,sticky=eio",
        "read,after:3,one-in:50:7,times:2,on:.sst=flip-read:3",
        "rename,one-in:2:1=error-but-applied",
        "write,on:=eio",
    ];
    for text in texts {
        assert_eq!(text.parse::<FaultRule>().unwrap().to_string(), text);
    }
    let plan: FaultPlan = texts.join("+").parse().unwrap();
    assert_eq!((plan.0.len(), plan.to_string()), (texts.len(), texts.join("+")));
    assert_eq!("".parse(), Ok(FaultPlan::default()));
    for text in [
        "",
        "write",
        "write=",
        "=eio",
        "write,often=eio",
        "write,after:x=eio",
        "any=short-read",
        "any=misdirect:1.5",
    ] {
        assert!(text.parse::<FaultRule>().is_err(), "{text:?}");
    }
}
