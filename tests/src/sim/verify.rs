//! Checks of a database that was just opened, whatever its history.
use crate::oracle::{Bytes, Contents, Map, differences, sum_of};
use crate::sim::driver::{Outcome, Stop};
use crate::sim::operation::space_number;
use sapwood::{BackgroundStep, Db, Keyspace, KeyspaceOptions, Snapshot};
use sapwood_base::format::file_name::FileName;
use sapwood_storage::sim::SimFs;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::Xxh3;

fn violation<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Stop::Violation(what.into()))
}

/// The content of every keyspace, by forward scans.
pub fn contents(db: &Db) -> Outcome<Contents> {
    let mut contents = Contents::new();
    for name in db.list_keyspaces()? {
        let Some(number) = space_number(&name) else {
            return violation(format!("O6: the keyspace {name:?} was never created"));
        };
        let keyspace = db.keyspace(&name, KeyspaceOptions::default())?;
        contents.insert(number, scan(&keyspace, None)?);
    }
    Ok(contents)
}

/// The sum of each keyspace, for [`crate::oracle::Oracle::find`].
pub fn sums(contents: &Contents) -> BTreeMap<u8, u128> {
    let sum = |map: &Map| sum_of(map.iter().map(|(key, value)| (key.as_slice(), &value[..])));
    contents.iter().map(|(space, map)| (*space, sum(map))).collect()
}

fn scan(keyspace: &Keyspace, at: Option<&Snapshot>) -> Outcome<Map> {
    let iter = keyspace.iter();
    let iter = match at {
        Some(snapshot) => iter.at(snapshot),
        None => iter,
    };
    let mut map = Map::new();
    for entry in iter {
        let (key, value) = entry?.into_parts();
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return violation("O7: a scan is not in key order");
        }
        map.insert(key, Bytes::from(&value[..]));
    }
    Ok(map)
}

/// Compares a keyspace with `want`: forwards, backwards, and key by key.
pub fn compare(keyspace: &Keyspace, at: Option<&Snapshot>, want: &Map) -> Outcome {
    let got = scan(keyspace, at)?;
    if got != *want {
        return violation(format!("O4: a scan differs: {}", some(&differences(&got, want))));
    }
    let iter = keyspace.iter();
    let mut back = match at {
        Some(snapshot) => iter.at(snapshot),
        None => iter,
    }
    .rev();
    for (key, value) in want.iter().rev() {
        let got = back.next().transpose()?.map(|entry| entry.into_parts());
        if got.as_ref().is_none_or(|(other, bytes)| other != key || bytes[..] != value[..]) {
            return violation("O4: a backward scan differs from a forward one");
        }
    }
    if back.next().is_some() {
        return violation("O4: a backward scan has more entries than a forward one");
    }
    for (key, value) in want {
        let got = match at {
            Some(snapshot) => keyspace.get_at(key, snapshot)?,
            None => keyspace.get(key)?,
        };
        if got.as_deref() != Some(&value[..]) {
            return violation("O4: a get differs from the scan");
        }
    }
    Ok(())
}

/// The first of several differences.
fn some(differences: &[String]) -> String {
    differences.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ")
}

/// The directory holds one MANIFEST, the lock, segments, the referenced tables, and nothing else
/// (O8).
///
/// REQUIRES: no handle retains old tables. Tables are removed when no thread of this process can
/// read them, so threads that work on other databases may delay this check.
pub fn check_directory(db: &Db, fs: &SimFs) -> Outcome {
    let mut last = String::new();
    for attempt in 0..2000 {
        if attempt > 10 {
            std::thread::yield_now();
        }
        db.background_step(BackgroundStep::Sweep)?;
        match check_directory_once(db, fs) {
            Ok(()) => return Ok(()),
            Err(what) => last = what,
        }
    }
    violation(format!("O8: {last}"))
}

fn check_directory_once(db: &Db, fs: &SimFs) -> Result<(), String> {
    let (mut manifests, mut tables, mut trees) = (0, 0, 0);
    let directory = db.path().file_name();
    for path in fs.files().iter().filter(|path| path.parent().is_some_and(|up| up.file_name() == directory)) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match FileName::parse(name) {
            Some(FileName::Manifest(_)) => manifests += 1,
            Some(FileName::Table(_)) => tables += 1,
            Some(FileName::Tree(_)) => trees += 1,
            Some(FileName::Log(_) | FileName::Lock) => {}
            Some(FileName::Unsynced | FileName::Unfinished(..)) | None => {
                return Err(format!("file {name} is unreferenced"));
            }
        }
    }
    let referenced: usize =
        db.stats().keyspaces.iter().flat_map(|space| &space.levels).map(|level| level.files).sum();
    if manifests != 1 {
        return Err(format!("there are {manifests} MANIFEST files"));
    }
    if tables != referenced {
        return Err(format!("there are {tables} tables, {referenced} of them referenced"));
    }
    let referenced = db.stats().keyspaces.iter().filter(|space| space.tree.is_some()).count();
    if trees != referenced {
        return Err(format!("there are {trees} trees, {referenced} of them referenced"));
    }
    Ok(())
}

/// A hash of all files, names and bytes, except the lock, which an open creates if it is
/// missing.
pub fn files_hash(fs: &SimFs) -> u64 {
    let mut hash = Xxh3::new();
    for path in fs.files().into_iter().filter(|path| !path.ends_with(FileName::Lock.format())) {
        let bytes = fs.read_file(&path).expect("listed just now");
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    hash.digest()
}
