//! The driver's reads: in the latest state and at snapshots, by keys, cursors and ranges.
use super::{Driver, Held, Outcome, Taken, in_context, violation};
use crate::oracle::is_empty;
use crate::sim::operation::{Lookup, Move, Range, show_key};
use crate::sim::verify;
use sapwood_base::key::prefix_successor;
use std::collections::VecDeque;
use std::ops::Bound;

impl Driver {
    pub(super) fn take_snapshot(&mut self, slot: u8) {
        if let Some(commits) = self.present() {
            let snapshot = self.db().snapshot();
            self.snapshots[usize::from(slot)] = Some(Taken { snapshot, commits });
        }
    }

    pub(super) fn get(&mut self, space: u8, key: &[u8], at: Option<u8>, lookup: Lookup) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        let Some((snapshot, commits)) = self.moment(at) else { return Ok(()) };
        let want = self.oracle.get(incarnation, key, commits);
        let got = match (snapshot, lookup) {
            (Some(snapshot), _) => keyspace.get_at(key, snapshot)?.map(|value| value.to_vec()),
            (None, Lookup::Get) => keyspace.get(key)?.map(|value| value.to_vec()),
            (None, Lookup::With) => keyspace.get_with(key, <[u8]>::to_vec)?,
            (None, Lookup::Contains) => {
                let got = keyspace.contains(key)?;
                if got != want.is_some() {
                    return violation(format!("O4: contains {} says {got}", show_key(key)));
                }
                self.answers.update(&[u8::from(got)]);
                return Ok(());
            }
        };
        if got.as_deref() != want.map(|value| &value[..]) {
            let (got, want) = (show(got.as_deref()), show(want.map(|value| &value[..])));
            return violation(format!("O4: get of {} returns {got}, not {want}", show_key(key)));
        }
        self.answers.update(got.as_deref().unwrap_or(b"none"));
        Ok(())
    }

    pub(super) fn multi_get(&mut self, space: u8, keys: &[Vec<u8>]) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        let Some(commits) = self.present() else { return Ok(()) };
        let values = keyspace.multi_get(keys)?;
        if values.len() != keys.len() {
            return violation("O4: multi_get returns another number of results than keys");
        }
        for (key, got) in keys.iter().zip(values) {
            let want = self.oracle.get(incarnation, key, commits);
            if got.as_deref() != want.map(|value| &value[..]) {
                let (got, want) = (show(got.as_deref()), show(want.map(|value| &value[..])));
                return violation(format!("O4: multi_get of {} returns {got}, not {want}", show_key(key)));
            }
            self.answers.update(got.as_deref().unwrap_or(b"none"));
        }
        Ok(())
    }

    pub(super) fn compare(&mut self, at: Option<u8>) -> Outcome {
        let spaces: Vec<u8> = self.oracle.promise().spaces.keys().copied().collect();
        for space in spaces {
            let Some((keyspace, incarnation)) = self.keyspace(space)? else { continue };
            let Some((snapshot, commits)) = self.moment(at) else { return Ok(()) };
            let want = self.oracle.map(incarnation, commits);
            verify::compare(&keyspace, snapshot, &want)
                .and_then(|()| self.compare_indexes(&keyspace, incarnation, snapshot, commits, &want))
                .map_err(|stop| in_context(stop, &format!("keyspace {space}")))?;
        }
        Ok(())
    }

    pub(super) fn open_cursor(&mut self, slot: u8, space: u8, at: Option<u8>) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        let Some((snapshot, commits)) = self.moment(at) else { return Ok(()) };
        let cursor = match snapshot {
            Some(snapshot) => keyspace.cursor_at(snapshot)?,
            None => keyspace.cursor()?,
        };
        let held = Held { cursor, space: incarnation, commits, at: None };
        self.cursors[usize::from(slot)] = Some(held);
        Ok(())
    }

    pub(super) fn move_cursor(&mut self, slot: u8, moves: &[Move]) -> Outcome {
        let Some(held) = &mut self.cursors[usize::from(slot)] else { return Ok(()) };
        for step in moves {
            let now = held.at.take();
            let bounds = match (step, &now) {
                (Move::First, _) => Some((Bound::Unbounded, Bound::Unbounded, true)),
                (Move::Last, _) => Some((Bound::Unbounded, Bound::Unbounded, false)),
                (Move::Seek(key), _) => Some((Bound::Included(key), Bound::Unbounded, true)),
                (Move::SeekForPrev(key), _) => Some((Bound::Unbounded, Bound::Included(key), false)),
                (Move::SeekBefore(key), _) => Some((Bound::Unbounded, Bound::Excluded(key), false)),
                (Move::Next, Some(now)) => Some((Bound::Excluded(now), Bound::Unbounded, true)),
                (Move::Prev, Some(now)) => Some((Bound::Unbounded, Bound::Excluded(now), false)),
                (Move::Next | Move::Prev, None) => None,
            };
            let want = bounds.and_then(|(lower, upper, first)| {
                let bounds = (lower.map(Vec::as_slice), upper.map(Vec::as_slice));
                self.oracle.entry(held.space, bounds, first, held.commits)
            });
            match step {
                Move::First => held.cursor.seek_to_first()?,
                Move::Last => held.cursor.seek_to_last()?,
                Move::Seek(key) => held.cursor.seek(key)?,
                Move::SeekForPrev(key) => held.cursor.seek_for_prev(key)?,
                Move::SeekBefore(key) => held.cursor.seek_before(key)?,
                Move::Next => held.cursor.next()?,
                Move::Prev => held.cursor.prev()?,
            }
            let got = held.cursor.valid().then(|| (held.cursor.key(), held.cursor.value()));
            if got != want.map(|(key, value)| (key, &value[..])) {
                let show = |entry: Option<(&[u8], &[u8])>| match entry {
                    Some((key, value)) => format!("{} = {}", show_key(key), show_key(value)),
                    None => "no entry".to_string(),
                };
                let (got, want) = (show(got), show(want.map(|(key, value)| (key, &value[..]))));
                return violation(format!("O7: cursor after {step:?} is at {got}, not {want}"));
            }
            if let Some((key, value)) = got {
                self.answers.update(key);
                self.answers.update(value);
            }
            held.at = want.map(|(key, _)| key.to_vec());
        }
        Ok(())
    }

    pub(super) fn range(&mut self, range: &Range) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(range.space)? else { return Ok(()) };
        let Some((snapshot, commits)) = self.moment(range.at) else { return Ok(()) };
        let (mut iter, lower, upper) = match &range.prefix {
            Some(prefix) => {
                let upper = prefix_successor(prefix).map_or(Bound::Unbounded, Bound::Excluded);
                (keyspace.prefix(prefix), Bound::Included(prefix.clone()), upper)
            }
            None => {
                let bounds = (range.lower.clone(), range.upper.clone());
                (keyspace.range::<Vec<u8>>(bounds), range.lower.clone(), range.upper.clone())
            }
        };
        if let Some(snapshot) = snapshot {
            iter = iter.at(snapshot);
        }
        if let Some(limit) = range.limit {
            iter = iter.limit(usize::from(limit));
        }
        if range.keys_only {
            iter = iter.keys_only();
        }
        if range.reversed {
            iter = iter.rev();
        }
        let map = self.oracle.map(incarnation, commits);
        let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        let mut want: VecDeque<_> = match is_empty(bounds) {
            true => VecDeque::new(),
            false => map.range::<[u8], _>(bounds).collect(),
        };
        let mut left = range.limit.map_or(usize::MAX, usize::from);
        for front in range.ends.iter().cycle() {
            let got = if *front { iter.next() } else { iter.next_back() }.transpose()?;
            // Reversed, the front is the last entry.
            let expected = match left {
                0 => None,
                _ if *front != range.reversed => want.pop_front(),
                _ => want.pop_back(),
            };
            left -= usize::from(expected.is_some());
            if range.keys_only && got.as_ref().is_some_and(|entry| entry.value().is_ok()) {
                return violation("O7: an iterator of keys only shows a value");
            }
            let got = got.map(|entry| match range.keys_only {
                true => (entry.into_key(), Vec::new()),
                false => (entry.key().to_vec(), entry.into_parts().1.to_vec()),
            });
            let expected =
                expected.map(|(key, value)| (key.as_slice(), if range.keys_only { &[] } else { &value[..] }));
            if got.as_ref().map(|(key, value)| (key.as_slice(), &value[..])) != expected {
                let (got, want) =
                    (show(got.as_ref().map(|(key, _)| &key[..])), show(expected.map(|(key, _)| key)));
                return violation(format!("O7: the range returns {got}, not {want}"));
            }
            let Some((key, value)) = got else { break };
            self.answers.update(&key);
            self.answers.update(&value);
        }
        if iter.next().is_some() || iter.next_back().is_some() {
            return violation("O7: an iterator continues after its end");
        }
        Ok(())
    }
}

pub(super) fn show(bytes: Option<&[u8]>) -> String {
    bytes.map_or("nothing".to_string(), show_key)
}
