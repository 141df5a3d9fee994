//! A process that writes is killed again and again: what it had acknowledged is there, nothing is half there.
#![allow(clippy::disallowed_methods, reason = "kills a real process after a real time")]
use sapwood::{Db, KeyspaceOptions};
use sapwood_tests::harness::{Replay, contents, difference, seeds, small};
use sapwood_tests::history::{SPACES, State};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const KILLS: usize = 50;

/// Starts a child, kills it after `life`, and gives the number of the last commit that it acknowledged.
fn live_and_die(path: &Path, seed: u64, floor: u64, life: Duration) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kill_child"))
        .arg(path)
        .arg(seed.to_string())
        .arg(floor.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        bytes
    });
    std::thread::sleep(life);
    // `kill` on Unix is SIGKILL.
    child.kill().unwrap();
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the child ended by itself ({status}): {message}");
    assert!(message.is_empty(), "{message}");
    let acknowledged = reader.join().unwrap();
    let mut last = floor;
    for (i, number) in acknowledged.chunks_exact(8).enumerate() {
        let number = u64::from_le_bytes(number.try_into().unwrap());
        // The first report is what was found, which may include the commit under way at the last kill.
        assert!(
            number == last + 1 || i == 0 && number == last,
            "commit {number} was acknowledged after {last}"
        );
        last = number;
    }
    last
}

#[test]
fn every_acknowledged_write_survives_kills() {
    for seed in seeds(7..8) {
        let _replay = Replay::new(seed, "kill::every_acknowledged_write_survives_kills");
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut floor = 0;
        for _ in 0..KILLS {
            // Some die while they recover, most while they write.
            let life = if random.u8(..4) == 0 { random.u64(..40) } else { random.u64(40..350) };
            floor = live_and_die(&path, seed, floor, Duration::from_millis(life));
        }
        assert!(floor > 500, "only {floor} commits got through");
        // A last look from this process, with other settings.
        let db = Db::builder(&path).memory_budget(16 << 20).advanced(small).open().unwrap();
        let spaces = SPACES.map(|name| db.keyspace(name, KeyspaceOptions::default()).unwrap());
        let maps = spaces.each_ref().map(|space| contents(space).unwrap());
        let mut state = State::new(seed);
        state.advance_to(floor);
        if maps != state.maps {
            state.advance_to(floor + 1);
        }
        for (map, want) in maps.iter().zip(&state.maps) {
            assert_eq!(difference(map, want), None);
        }
        assert!(db.stats().keyspaces.iter().all(|keyspace| keyspace.runs > 0), "the test reaches tables");
        db.close().unwrap();
    }
}
