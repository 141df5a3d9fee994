//! Vacant ranges: ranges of keys without live entries, found by scans. They make queues linear.
//!
//! A queue repeatedly takes the first entry of a keyspace and deletes it. That leaves deletions,
//! and every scan from the beginning would step over all of them. A scan that has stepped over
//! several of them records the range here, and a later scan that reaches it seeks to its end at
//! once.
//!
//! *Meaning of a range.* `Known` since `d`: no key of the range has a value in any state from `d`
//! on. This is a statement about the history of the keyspace and not about memtables or tables, so
//! it holds across flushes and merges. Only a put could invalidate it, so every put takes its key
//! out of the range that holds it (`cut`) before it is published. A reader that sees the put has
//! read the sequence number after that, and so finds the range cut. Deletions change nothing.
//! Ranges are not on disk; after a restart, scans find them again.
//!
//! *How a range becomes known.* A scan at `s` knows its range to be vacant at `s`. Puts between
//! `s` and now may have passed before there was a range to cut. Hence three steps:
//! 1. The scan *announces* the range: from now on, puts cut it.
//! 2. The next cursor *watches* it, when it is opened, from the next position `p` of the log on,
//!    taken from the log's tail as writers do: a put with a position of `p` or above sees the
//!    announcement, and cuts.
//! 3. A scan at `s` finds the rest of it vacant. If the scan has read everything below `p`, the
//!    range is known since `s`. (Its view may lack operations below `s`, where a rotation came
//!    between the two: see `Core::covered`.)
//!
//! So a range is stepped over twice, and then no more. If there are too many ranges, some are
//! dropped; then a scan steps over them again.
//!
//! *Queues.* Step 3 does not depend on why a range is watched. So a scan that begins with a vacant
//! range also announces the keys after the row that it has found, up to the next range: rows will
//! be taken there next. When they are gone, one scan finds this watched place vacant, and the range
//! before it grows by it (`grow`). A put into a range that is only watched ends the range there. So
//! in a queue everything is watched up to the first put after the announcement, and later puts
//! touch nothing.
use crate::planted;
use crate::sync::step;
use parking_lot::RwLock;
use sapwood_base::SequenceNumber;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

/// A scan that has passed over so many versions in a row records them. Fewer cost less than a jump.
pub(crate) const WORTH_A_RANGE: usize = 16;
/// A scan that has jumped over a range and then passed over so many versions grows the range, if
/// the keys after it are watched.
pub(crate) const WORTH_GROWING: usize = 2;
/// Up to this many ranges are searched linearly.
const FEW: usize = 4;
/// Capacity for the ranges of a keyspace, in bytes.
const CAPACITY_BYTES: usize = 1 << 20;
/// Approximate bytes of a range besides its keys.
const RANGE_BYTES: usize = 128;

/// The lowest key, at an address that can be read from. To compare an empty slice that has none
/// takes some 50 ns (EPYC): `memcmp` loads under a mask that leaves out every byte, and the
/// processor looks into why that would have failed.
pub(crate) const LOWEST: &[u8] = [0_u8].split_at(0).0;

/// The end of a range: the smallest key above it; `None` if there is none.
pub(crate) type End = Option<Vec<u8>>;

/// The state of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A scan has found it vacant.
    Announced,
    /// Puts from this position on cut it.
    Watched(u64),
    /// It is vacant in this state and later ones.
    Known(SequenceNumber),
}

impl Kind {
    /// The joint kind of two ranges, the second adjacent to the first.
    fn joined(self, other: Kind) -> Option<Kind> {
        match (self, other) {
            (Kind::Announced, Kind::Announced) => Some(Kind::Announced),
            (Kind::Watched(a), Kind::Watched(b)) => Some(Kind::Watched(a.max(b))),
            (Kind::Known(a), Kind::Known(b)) => Some(Kind::Known(a.max(b))),
            _ => None,
        }
    }
}

struct Range {
    end: End,
    kind: Kind,
    /// Whether a scan has jumped over it, or it is new, since the last look of [`Ranges::shrink`].
    used: AtomicBool,
}

/// Disjoint ranges by their first key.
#[derive(Default)]
struct Ranges {
    map: BTreeMap<Vec<u8>, Range>,
    /// The first keys of announced ranges, and of some that no longer are.
    announced: Vec<Vec<u8>>,
    bytes: usize,
    /// Where the next look for one to drop begins.
    hand: Vec<u8>,
}

/// The vacant ranges of a keyspace.
#[derive(Default)]
pub(crate) struct Vacancies {
    /// Whether there are any. Set under the lock.
    any: AtomicBool,
    /// Whether one is announced and not watched yet. Set under the lock.
    has_announced: AtomicBool,
    /// A holder of the lock never blocks.
    ranges: RwLock<Ranges>,
}

impl Vacancies {
    /// Whether there are any, of whatever kind.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: readers may miss one; writers have taken a position after the announcement.
        self.any.load(Ordering::Relaxed)
    }

    /// Whether [`Vacancies::watch`] has something to do.
    #[inline]
    pub(crate) fn has_announced(&self) -> bool {
        // Relaxed: the next cursor will see it.
        self.has_announced.load(Ordering::Relaxed)
    }

    /// The key at which a scan at `sequence` that has reached `key` can continue: its place and the
    /// next are in a range that ends there. The end is `None` if no key follows the range.
    pub(crate) fn end_of(&self, key: &[u8], sequence: SequenceNumber) -> Option<End> {
        let ranges = self.ranges.read();
        let (_, range) = ranges.containing(key)?;
        range.allows(sequence).then(|| range.end.clone())
    }

    /// The same for a backward scan from before `key` (the end of the keyspace if `None`): every
    /// key below it, down to and including the returned one, is vacant.
    pub(crate) fn start_of(&self, key: Option<&[u8]>, sequence: SequenceNumber) -> Option<Vec<u8>> {
        let ranges = self.ranges.read();
        let below = key.map_or(Bound::Unbounded, Bound::Excluded);
        let (start, range) = ranges.map.range::<[u8], _>((Bound::Unbounded, below)).next_back()?;
        let reaches = match (&range.end, key) {
            (None, _) => true,
            (Some(end), Some(key)) => end.as_slice() >= key,
            (Some(_), None) => false,
        };
        (reaches && range.allows(sequence)).then(|| start.clone())
    }

    /// Records the result of a scan at `sequence`: no key is alive from `from` up to, and without,
    /// `to`. The scan's view is complete up to `covered`, which is not above `sequence`. With
    /// `ahead`, the keys after `to` are announced as well, up to that end or the next range.
    pub(crate) fn learn(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        sequence: SequenceNumber,
        covered: SequenceNumber,
        ahead: Option<Option<&[u8]>>,
    ) {
        if to.is_some_and(|to| from >= to) {
            return;
        }
        step();
        let mut ranges = self.ranges.write();
        ranges.learn(from, to, sequence, covered);
        if let (Some(to), Some(end)) = (to, ahead) {
            ranges.announce_ahead(to, end);
        }
        self.publish(&ranges);
    }

    /// [`Vacancies::learn`] for keys that begin in or after a known range and continue in a
    /// watched one after it: the former grows, the latter shrinks. Otherwise a no-op.
    pub(crate) fn grow(&self, from: &[u8], to: &[u8], sequence: SequenceNumber, covered: SequenceNumber) {
        step();
        self.ranges.write().grow(from, to, sequence, covered);
    }

    /// Watches the announced ranges. `fence` returns the next position of the log, ordered with all
    /// writers that reserve one.
    pub(crate) fn watch(&self, fence: impl FnOnce() -> u64) {
        step();
        let mut ranges = self.ranges.write();
        // Under the lock: whatever is announced was so before the position was taken.
        let position = fence();
        for start in std::mem::take(&mut ranges.announced) {
            if let Some(range) = ranges.map.get_mut(&start)
                && range.kind == Kind::Announced
            {
                range.kind = Kind::Watched(position);
            }
        }
        self.publish(&ranges);
    }

    /// Takes `key` out of the range that holds it. Called by a put, between reserving its position
    /// and being published.
    #[inline]
    pub(crate) fn cut(&self, key: &[u8]) {
        if self.any() && planted::puts_cut_ranges() {
            self.cut_if_held(key);
        }
    }

    fn cut_if_held(&self, key: &[u8]) {
        step();
        if self.ranges.read().containing(key).is_none() {
            return;
        }
        let mut ranges = self.ranges.write();
        ranges.cut(key);
        self.publish(&ranges);
    }

    fn publish(&self, ranges: &Ranges) {
        self.any.store(!ranges.map.is_empty(), Ordering::Relaxed);
        self.has_announced.store(!ranges.announced.is_empty(), Ordering::Relaxed);
    }
}

impl Range {
    /// Whether a scan at `sequence` may jump over it.
    fn allows(&self, sequence: SequenceNumber) -> bool {
        let allows = match self.kind {
            Kind::Known(since) => planted::is_known_at(since, sequence),
            _ => false,
        };
        if allows {
            // Relaxed: only decides which range is dropped first.
            self.used.store(true, Ordering::Relaxed);
        }
        allows
    }
}

impl Ranges {
    fn containing(&self, key: &[u8]) -> Option<(&Vec<u8>, &Range)> {
        let (start, range) = self.at_or_before(key)?;
        is_above(&range.end, key).then_some((start, range))
    }

    /// The last range that begins at `key` or before it.
    fn at_or_before(&self, key: &[u8]) -> Option<(&Vec<u8>, &Range)> {
        // A lookup in the map costs several times the rest of a jump.
        match self.map.len() <= FEW {
            true => self.map.iter().rev().find(|(start, _)| start.as_slice() <= key),
            false => self.map.range::<[u8], _>(up_to(key)).next_back(),
        }
    }

    /// The first range that begins after `key`.
    fn behind(&self, key: &[u8]) -> Option<(&Vec<u8>, &Range)> {
        match self.map.len() <= FEW {
            true => self.map.iter().find(|(start, _)| start.as_slice() > key),
            false => self.map.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded)).next(),
        }
    }

    fn insert(&mut self, mut start: Vec<u8>, end: End, kind: Kind) {
        if !is_above(&end, &start) {
            return;
        }
        // So that an empty one has an address: see `LOWEST`.
        start.reserve(1);
        if kind == Kind::Announced {
            self.announced.push(start.clone());
        }
        self.bytes += bytes_of(&start, &end);
        self.map.insert(start, Range { end, kind, used: AtomicBool::new(true) });
    }

    fn remove(&mut self, start: &[u8]) -> Option<(Vec<u8>, Range)> {
        let (start, range) = self.map.remove_entry(start)?;
        self.bytes -= bytes_of(&start, &range.end);
        Some((start, range))
    }

    fn cut(&mut self, key: &[u8]) {
        let Some((start, _)) = self.containing(key) else { return };
        let start = start.clone();
        if let Some((start, range)) = self.remove(&start) {
            self.insert(start, Some(key.to_vec()), range.kind);
            if matches!(range.kind, Kind::Known(_)) {
                self.insert([key, &[0]].concat(), range.end, range.kind);
            }
        }
        self.shrink();
    }

    fn announce_ahead(&mut self, from: &[u8], end: Option<&[u8]>) {
        if self.containing(from).is_some() {
            return;
        }
        let end = nearer(&end.map(<[u8]>::to_vec), self.behind(from).map(|(start, _)| start.as_slice()));
        self.insert(from.to_vec(), end, Kind::Announced);
        self.shrink();
    }

    fn grow(&mut self, from: &[u8], to: &[u8], sequence: SequenceNumber, covered: SequenceNumber) {
        let Some((start, Range { end: Some(end), kind: Kind::Known(since), .. })) = self.at_or_before(from)
        else {
            return;
        };
        if end.as_slice() < from || end.as_slice() >= to {
            return;
        }
        let is_watched = |kind| matches!(kind, Kind::Watched(position) if covered.0 + 1 >= position);
        match self.behind(start) {
            Some((next, range))
                if next == end
                    && range.end.as_deref().is_none_or(|end| end >= to)
                    && planted::grows_over(is_watched(range.kind)) => {}
            _ => return,
        }
        let (start, end, kind) = (start.clone(), end.clone(), Kind::Known(sequence.max(*since)));
        if let (Some((mut next, rest)), Some(range)) = (self.remove(&end), self.map.get_mut(&start)) {
            range.end = Some(to.to_vec());
            range.kind = kind;
            self.bytes += to.len();
            self.bytes -= end.len();
            next.clear();
            next.extend_from_slice(to);
            self.insert(next, rest.end, rest.kind);
        }
    }

    fn learn(&mut self, from: &[u8], to: Option<&[u8]>, sequence: SequenceNumber, covered: SequenceNumber) {
        // All that overlap the new range, or touch it.
        let first = match self.at_or_before(from) {
            Some((start, range)) if range.end.as_deref().is_none_or(|end| end >= from) => start.as_slice(),
            _ => from,
        };
        let met =
            self.map.range::<[u8], _>((Bound::Included(first), Bound::Unbounded)).map(|(start, _)| start);
        let met: Vec<Vec<u8>> =
            met.take_while(|start| to.is_none_or(|to| start.as_slice() <= to)).cloned().collect();
        let mut pieces = Pieces::default();
        let mut at = from.to_vec();
        for start in met {
            let Some((start, Range { end, kind, .. })) = self.remove(&start) else { continue };
            if at < start {
                pieces.push(at.clone(), Some(start.clone()), Kind::announced(sequence));
            }
            // The parts before the new range, in it, and after it.
            let inside_from = start.as_slice().max(from).to_vec();
            let inside_to = nearer(&end, to);
            pieces.push(start, nearer(&end, Some(from)), kind);
            let is_seen = |position| covered.0 + 1 >= position;
            let inside = match kind {
                Kind::Watched(position) if is_seen(position) => Kind::Known(sequence),
                kind => kind,
            };
            pieces.push(inside_from.clone(), inside_to.clone(), inside);
            if let Some(inside_to) = &inside_to {
                at = at.max(inside_to.clone());
            }
            match to {
                Some(to) => pieces.push(inside_from.max(to.to_vec()), end, kind),
                None if inside_to.is_none() => return self.put_back(pieces),
                None => {}
            }
        }
        pieces.push(at, to.map(<[u8]>::to_vec), Kind::announced(sequence));
        self.put_back(pieces);
    }

    fn put_back(&mut self, pieces: Pieces) {
        for (start, end, kind) in pieces.list {
            self.insert(start, end, kind);
        }
        self.shrink();
    }

    /// Drops ranges that no scan has reached for long, until the rest fits.
    fn shrink(&mut self) {
        while self.bytes > CAPACITY_BYTES {
            let behind = (Bound::Excluded(self.hand.as_slice()), Bound::Unbounded);
            let next = self.map.range::<[u8], _>(behind).next().or_else(|| self.map.iter().next());
            let Some((start, range)) = next else { return };
            self.hand.clone_from(start);
            if !range.used.swap(false, Ordering::Relaxed) {
                let start = start.clone();
                self.remove(&start);
            }
        }
        // Each was announced once; most of them are watched by now, or dropped.
        if self.announced.len() > 2 * self.map.len() + 64 {
            let map = &self.map;
            self.announced.sort_unstable();
            self.announced.dedup();
            self.announced.retain(|start| map.get(start).is_some_and(|range| range.kind == Kind::Announced));
        }
    }
}

impl Kind {
    /// The kind of a range that a scan at `sequence` has found.
    fn announced(sequence: SequenceNumber) -> Kind {
        planted::watched_first(Kind::Announced, Kind::Known(sequence))
    }
}

/// Ranges in order, those that touch and are of one kind joined.
#[derive(Default)]
struct Pieces {
    list: Vec<(Vec<u8>, End, Kind)>,
}

impl Pieces {
    fn push(&mut self, start: Vec<u8>, end: End, kind: Kind) {
        if !is_above(&end, &start) {
            return;
        }
        if let Some((_, last_end, last_kind)) = self.list.last_mut()
            && last_end.as_ref() == Some(&start)
            && let Some(joined) = last_kind.joined(kind)
        {
            (*last_end, *last_kind) = (end, joined);
            return;
        }
        self.list.push((start, end, kind));
    }
}

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

fn is_above(end: &End, key: &[u8]) -> bool {
    end.as_deref().is_none_or(|end| end > key)
}

fn nearer(end: &End, other: Option<&[u8]>) -> End {
    match (end, other) {
        (Some(end), Some(other)) => Some(end.as_slice().min(other).to_vec()),
        (end, other) => end.clone().or(other.map(<[u8]>::to_vec)),
    }
}

fn bytes_of(start: &[u8], end: &End) -> usize {
    start.len() + end.as_ref().map_or(0, Vec::len) + RANGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Vec<u8> {
        vec![number as u8]
    }

    /// The state of each key, with the number or position of its kind.
    type Model = Vec<Option<Kind>>;

    fn model_of(vacancies: &Vacancies, keys: u64) -> Model {
        let ranges = vacancies.ranges.read();
        let mut last: Option<(End, Kind)> = None;
        let mut bytes = 0;
        for (start, range) in &ranges.map {
            assert!(is_above(&range.end, start), "an empty range");
            if let Some((end, _)) = &last {
                assert!(end.as_ref().is_some_and(|end| end <= start), "ranges overlap");
            }
            bytes += bytes_of(start, &range.end);
            last = Some((range.end.clone(), range.kind));
        }
        assert_eq!(bytes, ranges.bytes);
        for (start, range) in &ranges.map {
            assert!(range.kind != Kind::Announced || ranges.announced.contains(start));
        }
        (0..keys).map(|number| ranges.containing(&key(number)).map(|(_, range)| range.kind)).collect()
    }

    /// Permitted deviations of a step from the model.
    enum Leeway {
        None,
        /// Ranges above this key that are not `Known` may be dropped.
        Cut(u64),
        /// A range that holds no key of the model may block the announcement ahead.
        Ahead,
        /// Ranges that were watched early enough may be `Known`.
        Growth(SequenceNumber, SequenceNumber),
    }

    #[test]
    fn random_steps_agree_with_a_list_of_keys() {
        const KEYS: u64 = 40;
        let mut growths = 0;
        for seed in 0..400 {
            let mut random = fastrand::Rng::with_seed(seed);
            let vacancies = Vacancies::default();
            let mut model: Model = vec![None; KEYS as usize];
            let mut now = 10;
            for _ in 0..60 {
                now += random.u64(1..4);
                let (from, to) = (random.u64(..KEYS), random.u64(..KEYS + 8));
                let sequence = SequenceNumber(now - random.u64(..4));
                let covered = SequenceNumber(sequence.0 - random.u64(..2));
                let mut leeway = Leeway::None;
                match random.u8(..8) {
                    0..=2 => {
                        let end = (to < KEYS).then(|| key(to));
                        let ahead = random.bool().then(|| random.u64(..KEYS));
                        let ahead_end = ahead.map(key);
                        let ahead_end = ahead_end.as_ref().map(|end| Some(end.as_slice()));
                        vacancies.learn(&key(from), end.as_deref(), sequence, covered, ahead_end);
                        for slot in model.iter_mut().take(to as usize).skip(from as usize) {
                            *slot = match *slot {
                                None => Some(Kind::Announced),
                                Some(Kind::Watched(position)) if position <= covered.0 + 1 => {
                                    Some(Kind::Known(sequence))
                                }
                                kind => kind,
                            };
                        }
                        if let Some(end) = ahead.filter(|_| from < to) {
                            leeway = Leeway::Ahead;
                            let slots = model.iter_mut().take(end as usize).skip(to as usize);
                            slots
                                .take_while(|slot| slot.is_none())
                                .for_each(|slot| *slot = Some(Kind::Announced));
                        }
                    }
                    3 => {
                        vacancies.watch(|| now);
                        for slot in &mut model {
                            if *slot == Some(Kind::Announced) {
                                *slot = Some(Kind::Watched(now));
                            }
                        }
                        assert!(!vacancies.has_announced());
                    }
                    4 | 5 => {
                        vacancies.cut(&key(from));
                        model[from as usize] = None;
                        leeway = Leeway::Cut(from);
                    }
                    _ => {
                        vacancies.grow(&key(from), &key(to), sequence, covered);
                        leeway = Leeway::Growth(sequence, covered);
                    }
                }
                let got = model_of(&vacancies, KEYS);
                for (number, (got, want)) in (0..).zip(got.iter().zip(&model)) {
                    match (got, want, &leeway) {
                        // Joined ranges are known later than each part may be.
                        (Some(Kind::Known(got)), Some(Kind::Known(want)), _) => assert!(got >= want),
                        (Some(Kind::Watched(got)), Some(Kind::Watched(want)), _) => assert!(got >= want),
                        (None, Some(Kind::Watched(_) | Kind::Announced), Leeway::Cut(cut))
                            if number > *cut => {}
                        (None, Some(Kind::Announced), Leeway::Ahead) => {}
                        (
                            Some(Kind::Known(got)),
                            Some(Kind::Watched(position)),
                            Leeway::Growth(at, covered),
                        ) if (from..to).contains(&number) => {
                            growths += 1;
                            assert!(got >= at && *position <= covered.0 + 1, "seed {seed}");
                        }
                        (got, want, _) => assert_eq!(got, want, "seed {seed}, {number}"),
                    }
                }
                model = got;
                for number in 0..KEYS {
                    let end = vacancies.end_of(&key(number), SequenceNumber(now));
                    assert_eq!(end.is_some(), matches!(model[number as usize], Some(Kind::Known(_))));
                    if let Some(Some(end)) = end {
                        assert!(end > key(number));
                    }
                    let behind = [number as u8, 0];
                    let start = vacancies.start_of(Some(&behind), SequenceNumber(now));
                    assert_eq!(start.is_some(), matches!(model[number as usize], Some(Kind::Known(_))));
                    assert!(start.is_none_or(|start| start <= key(number)));
                    assert_eq!(vacancies.end_of(&key(number), SequenceNumber(3)), None);
                }
            }
        }
        assert!(growths > 100, "{growths}");
    }

    #[test]
    fn a_queue_is_watched_ahead_and_its_range_grows() {
        let vacancies = Vacancies::default();
        let name = |number: u64| number.to_be_bytes().to_vec();
        let at = SequenceNumber;
        let end = |sequence| vacancies.end_of(&[], at(sequence)).map(|end| end.expect("rows are behind it"));
        // Rows 0 to 99, of which 0 to 15 are gone.
        vacancies.learn(&[], Some(&name(16)), at(10), at(10), Some(None));
        vacancies.watch(|| 11);
        vacancies.learn(&[], Some(&name(16)), at(10), at(10), Some(None));
        assert_eq!(end(10), Some(name(16)));
        vacancies.cut(&name(100));
        vacancies.cut(&name(101));
        assert!(!vacancies.has_announced());
        assert_eq!(vacancies.ranges.read().map.len(), 2);
        for front in 17..=100 {
            vacancies.grow(&[], &name(front), at(front), at(front));
            assert_eq!((end(front), end(front - 1)), (Some(name(front)), None));
        }
        // After the first row that was put since, no range is watched.
        vacancies.grow(&[], &name(101), at(200), at(200));
        assert_eq!(end(200), Some(name(100)));
        assert_eq!(vacancies.ranges.read().map.len(), 1);
    }

    #[test]
    fn ranges_have_a_budget_and_those_in_use_stay() {
        let vacancies = Vacancies::default();
        let name = |number: u64| format!("{number:08}").into_bytes();
        let learn = |number: u64| {
            let (from, to) = (name(number), [&name(number)[..], b"z"].concat());
            for sequence in [1, 2] {
                let sequence = SequenceNumber(sequence);
                vacancies.learn(&from, Some(&to), sequence, sequence, None);
                vacancies.watch(|| 2);
            }
        };
        for number in 0..40_000 {
            learn(number);
            assert!(vacancies.end_of(&name(number), SequenceNumber(2)).is_some());
            if number >= 5 {
                assert!(vacancies.end_of(&name(5), SequenceNumber(2)).is_some(), "{number}");
            }
        }
        let ranges = vacancies.ranges.read();
        assert!(ranges.bytes <= CAPACITY_BYTES && ranges.map.len() > 4000, "{}", ranges.map.len());
        assert!(ranges.announced.len() < 20_000);
    }
}
