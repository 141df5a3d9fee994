//! The comparison of a run with its history, and of the images that crashes left.
use super::guests::{Floors, Guests};
use super::{Checked, Done, Notes, Plan, SPACES, WRITERS, counter, number};
use super::{callers, guests, vacancies};
use crate::harness::contents;
use crate::journal::{self};
use crate::oracle::{Map, difference};
use sapwood::{Env, Error, KeyspaceOptions};
use sapwood_storage::sim::SimFs;
use std::sync::Arc;

/// Compares everything with the history.
pub(super) fn check(notes: &mut Notes, fs: &SimFs, plan: &Plan) -> Checked<()> {
    notes.commits.sort_by_key(|commit| commit.sequence);
    if let Some(twice) = notes.commits.windows(2).find(|pair| pair[0].sequence == pair[1].sequence) {
        return Err(format!("O14: two commits have the sequence number {}", twice[0].sequence));
    }
    let floors = guests::floors(&notes.guests, false);
    let finally =
        reopened(fs, plan, &notes.guests, &floors).map_err(|what| format!("after the close: {what}"))?;
    let (finally, later) = without_later(finally);
    if let Some(wrong) = later.iter().find(|rows| **rows != notes.later) {
        let difference = difference(wrong, &notes.later).unwrap_or_default();
        return Err(format!("O1: of the open after the close: {difference}"));
    }
    // A commit that a close has refused may have happened nevertheless, at an unknown place in the
    // history.
    let mut whole = true;
    for (writer, acknowledged) in notes.counts.iter().enumerate() {
        let got = finally[0].get(&counter(writer)).map_or(0, |value| number(value));
        if got != *acknowledged {
            whole = false;
            if got != acknowledged + 1 {
                return Err(format!("O1: after the close, writer {writer} is at {got}, not {acknowledged}"));
            }
        }
    }
    if !whole {
        return Ok(());
    }
    let last = notes.commits.len();
    compare(&notes.commits, &finally, last..=last).map_err(|what| format!("after the close: {what}"))?;
    let until = |sequence: u64| notes.commits.partition_point(|commit| commit.sequence <= sequence);
    for look in &notes.looks {
        let count = until(look.sequence);
        compare(&notes.commits, &look.maps, count..=count)
            .map_err(|what| format!("O4: reader {}, snapshot at {}: {what}", look.reader, look.sequence))?;
    }
    vacancies::check(notes)?;
    for image in &notes.images {
        let floor = until(image.floor);
        let maps = reopened(&image.fs, plan, &notes.guests, &image.guests)
            .map_err(|what| format!("after {}: {what}", image.name))?;
        compare(&notes.commits, &without_later(maps).0, floor..=last)
            .map_err(|what| format!("after {}: {what}", image.name))?;
    }
    Ok(())
}

/// Separates the rows of an open after an early close from all others.
pub(super) fn without_later(maps: Vec<Map>) -> (Vec<Map>, Vec<Map>) {
    let is_later = |key: &[u8]| key.starts_with(callers::LATER_KEYS.as_bytes());
    maps.into_iter().map(|map| map.into_iter().partition(|(key, _)| !is_later(key))).unzip()
}

/// The content of the database when it is opened on this file system; checks its indexes, too.
pub(super) fn reopened(fs: &SimFs, plan: &Plan, guests: &Guests, floors: &Floors) -> Checked<Vec<Map>> {
    let in_words = |error: Error| error.to_string();
    let (env, _) = Env::sim_manual(plan.seed);
    let env = env.with_file_system(Arc::new(fs.clone()));
    let db = plan.builder(&env).open().map_err(in_words)?;
    let (mut spaces, mut maps) = (Vec::new(), Vec::new());
    for name in SPACES {
        // In an image from before the creation of a keyspace, it is empty.
        let space = db.keyspace(name, KeyspaceOptions::default()).map_err(in_words)?;
        maps.push(contents(&space).map_err(in_words)?);
        spaces.push(space);
    }
    plan.compare_indexes(&spaces, None, &maps)?.map_err(in_words)?;
    guests::check(&db, guests, floors)?;
    db.close().map_err(in_words)?;
    Ok(maps)
}

/// Whether the maps are a prefix of the history, of an allowed length.
pub(super) fn compare(
    commits: &[Done],
    maps: &[Map],
    allowed: std::ops::RangeInclusive<usize>,
) -> Checked<()> {
    let counted = (0..WRITERS).filter_map(|writer| maps[0].get(&counter(writer)));
    let count = counted.map(|value| number(value) as usize).sum::<usize>();
    if !allowed.contains(&count) {
        return Err(format!("O1: {count} commits are present, not {} to {}", allowed.start(), allowed.end()));
    }
    let mut state = vec![Map::new(); SPACES.len()];
    journal::apply(&mut state, commits[..count].iter().flat_map(|commit| &commit.changes));
    for ((got, want), name) in maps.iter().zip(&state).zip(SPACES) {
        if let Some(difference) = difference(got, want) {
            return Err(format!("O2: keyspace {name:?} after {count} commits: {difference}"));
        }
    }
    Ok(())
}
