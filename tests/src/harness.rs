//! Seeds, replay commands, watchdogs, small settings, and reads of a whole keyspace in every way.
#![allow(clippy::disallowed_methods, reason = "the watchdog watches real time on a real thread")]
use crate::oracle::{Bytes, Map};
use crate::patience::{LOOK, Patience};
use sapwood::{AdvancedOptions, Db, DbBuilder, Env, Keyspace};
use sapwood_base::memory;
use sapwood_base::planted::Bug;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Plants the bug that `SAPWOOD_PLANTED` names. Every helper of this file calls this function; a
/// test that uses none of them calls it first.
///
/// # Panics
/// If there is no bug of that name, or this build lacks the feature `planted`.
pub fn plant() {
    if let Ok(name) = std::env::var("SAPWOOD_PLANTED") {
        plant_named(&name).expect("a bug to plant");
    }
}

/// Plants a bug by its name.
///
/// Errors: a message for the user, if there is no such bug or this build lacks the feature
/// `planted`.
pub fn plant_named(name: &str) -> Result<(), String> {
    let Some(bug) = Bug::named(name) else { return Err(format!("there is no bug named {name:?}")) };
    #[cfg(feature = "planted")]
    sapwood_base::planted::plant(bug);
    match sapwood_base::planted::is(bug) {
        true => Ok(()),
        false => Err(format!("{name} cannot be planted: build with --features planted")),
    }
}

/// The seeds of a test: `SEED` if it is set, otherwise `seeds`.
pub fn seeds(seeds: Range<u64>) -> Vec<u64> {
    plant();
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => seeds.collect(),
    }
}

/// While alive, prints the command that replays a seed if the test panics.
pub struct Replay {
    seed: u64,
    test: &'static str,
}

impl Replay {
    /// A guard for `seed` of `test`, in the form of `cargo test`'s names.
    pub fn new(seed: u64, test: &'static str) -> Replay {
        plant();
        Replay { seed, test }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with: SEED={} cargo test -p sapwood-tests --test it {}", self.seed, self.test);
        }
    }
}

/// Runs `body` on a thread of its own and panics if it exceeds `limit`, so that a hang is a failure
/// with a name. On a busy machine the limit is longer, see [`Patience`].
pub fn within<R: Send + 'static>(
    limit: Duration,
    what: &str,
    body: impl FnOnce() -> R + Send + 'static,
) -> R {
    plant();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(body());
    });
    let mut patience = Patience::new(std::process::id(), limit);
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(result) => {
                thread.join().expect("it has sent its result");
                return result;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                assert!(!patience.is_over(), "{what} hangs: not done after {limit:?}");
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("a thread that ends well sends its result"),
            },
        }
    }
}

/// Polls `done` until it is true. Panics after a minute, or later on a busy machine, see
/// [`Patience`]. For work of background threads.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let mut patience = Patience::new(std::process::id(), Duration::from_secs(60));
    while !done() {
        assert!(!patience.is_over(), "{what}: not true after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The smallest memtables, segments and files, so that little data exercises every mechanism.
pub fn small(options: &mut AdvancedOptions) {
    options.memtable_bytes = Some(64 << 10);
    options.cache_bytes = Some(256 << 10);
    options.wal_segment_bytes = 64 << 10;
    options.target_file_bytes = 32 << 10;
    options.level0_runs = 3;
}

/// A small database in `path` on `env`.
pub fn builder(path: impl AsRef<Path>, env: &Env) -> DbBuilder {
    plant();
    let env = env.clone();
    Db::builder(path).memory_budget(8 << 20).advanced(|options| {
        small(options);
        options.env = env;
    })
}

/// Reads everything in a keyspace forwards, backwards and key by key; panics if the three disagree.
pub fn contents(keyspace: &Keyspace) -> sapwood::Result<Map> {
    let mut map = Map::new();
    for entry in keyspace.iter() {
        let (key, value) = entry?.into_parts();
        assert!(map.last_key_value().is_none_or(|(last, _)| *last < key), "keys come in order, and once");
        map.insert(key, copy(&value)?);
    }
    let mut backward = Map::new();
    for entry in keyspace.iter().rev() {
        let (key, value) = entry?.into_parts();
        backward.insert(key, copy(&value)?);
    }
    assert!(
        map == backward,
        "a forward scan returns {} entries, a backward scan {}",
        map.len(),
        backward.len()
    );
    for (key, value) in &map {
        let got = keyspace.get(key)?;
        assert!(
            got.as_deref() == Some(&value[..]),
            "get of {:?} differs from the scan",
            key.escape_ascii().to_string()
        );
    }
    Ok(map)
}

/// A copy of a value, or an error if there is no memory for it.
fn copy(value: &[u8]) -> sapwood::Result<Bytes> {
    memory::check(value.len())?;
    Ok(Bytes::from(value))
}

/// The message of a caught panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match panic.downcast_ref::<&str>() {
        Some(text) => (*text).to_string(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "not a text".to_string()),
    }
}
