//! The counts of garbage in one table: what its entries hide below them, and what it holds for
//! snapshots.
use sapwood_base::SequenceNumber;

/// The number of different spans in a table's [`Held`].
const SPANS_MAX: usize = 16;

/// Older versions that the entries of a table hide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// The number of versions.
    pub entries: u64,
    /// Their approximate size in their files, in bytes.
    pub bytes: u64,
}

/// Bytes that only snapshots in `[from, to]` need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: SequenceNumber,
    to: SequenceNumber,
    bytes: u64,
}

/// Entries that a table holds only for snapshots: versions with a newer one above, and tombstones
/// in the last level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    spans: Vec<Span>,
}

impl Held {
    /// All of `bytes` is needed only by snapshots in `[from, to]`.
    pub fn between(from: SequenceNumber, to: SequenceNumber, bytes: u64) -> Held {
        Held { spans: vec![Span { from, to, bytes }] }
    }

    /// Adds an entry that is visible from `older` on and hidden from `newer` on. `snapshots`,
    /// ascending, are those that it was kept for. An entry that none of them sees is not counted.
    pub fn note(
        &mut self,
        older: SequenceNumber,
        newer: SequenceNumber,
        bytes: u64,
        snapshots: &[SequenceNumber],
    ) {
        let first = snapshots.partition_point(|snapshot| *snapshot < older);
        let end = snapshots.partition_point(|snapshot| *snapshot < newer);
        if first >= end {
            return;
        }
        let (from, to) = (snapshots[first], snapshots[end - 1]);
        let is_full = self.spans.len() == SPANS_MAX;
        if let Some(span) = self.spans.iter_mut().find(|span| (span.from, span.to) == (from, to)) {
            span.bytes += bytes;
        } else if let Some(last) = self.spans.last_mut().filter(|_| is_full) {
            // The merged span may be released later than possible, but never too early.
            *last = Span { from: last.from.min(from), to: last.to.max(to), bytes: last.bytes + bytes };
        } else {
            self.spans.push(Span { from, to, bytes });
        }
    }

    /// Converts raw bytes to bytes of the file, which holds `raw_bytes` of keys and values in
    /// `file_bytes`. Rounds up, so that a table with a short version and good compression does not
    /// count as holding nothing.
    pub fn scaled(mut self, file_bytes: u64, raw_bytes: u64) -> Held {
        for span in &mut self.spans {
            let bytes =
                (u128::from(span.bytes) * u128::from(file_bytes)).div_ceil(u128::from(raw_bytes.max(1)));
            span.bytes = bytes as u64;
        }
        self
    }

    /// All held bytes, whether a snapshot needs them or not.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.bytes).sum()
    }

    /// Bytes that none of `snapshots`, ascending, needs. A merge drops them.
    pub fn releasable(&self, snapshots: &[SequenceNumber]) -> u64 {
        let is_free = |span: &&Span| {
            let first = snapshots.partition_point(|snapshot| *snapshot < span.from);
            snapshots.get(first).is_none_or(|snapshot| *snapshot > span.to)
        };
        self.spans.iter().filter(is_free).map(|span| span.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(notes: &[(u64, u64)], snapshots: &[u64]) -> Held {
        let snapshots: Vec<SequenceNumber> = snapshots.iter().copied().map(SequenceNumber).collect();
        let mut held = Held::default();
        for (older, newer) in notes {
            held.note(SequenceNumber(*older), SequenceNumber(*newer), 1, &snapshots);
        }
        held
    }

    fn releasable(held: &Held, snapshots: &[u64]) -> u64 {
        let snapshots: Vec<SequenceNumber> = snapshots.iter().copied().map(SequenceNumber).collect();
        held.releasable(&snapshots)
    }

    /// The number of versions that some snapshot sees although a newer one exists, by checking each
    /// snapshot.
    fn needed(notes: &[(u64, u64)], snapshots: &[u64]) -> u64 {
        let is_seen = |(older, newer): &&(u64, u64)| snapshots.iter().any(|s| s >= older && s < newer);
        notes.iter().filter(is_seen).count() as u64
    }

    #[test]
    fn little_in_a_table_that_compresses_well_is_not_nothing() {
        let held = held(&[(1, 2)], &[1]).scaled(1000, 1_000_000);
        assert_eq!((held.bytes(), releasable(&held, &[1]), releasable(&held, &[])), (1, 0, 1));
        assert_eq!(Held::default().scaled(1000, 1_000_000).bytes(), 0);
    }

    #[test]
    fn what_is_held_goes_when_the_last_snapshot_that_sees_it_has_gone() {
        let notes: Vec<(u64, u64)> =
            (0..8).flat_map(|older| (older + 1..9).map(move |newer| (older, newer))).collect();
        // All sets of snapshots at the time of writing, and all their subsets that remain.
        for written in 0..256u32 {
            let at = |set: u32| (0..8u64).filter(move |s| set >> s & 1 == 1).collect::<Vec<_>>();
            let kept: Vec<(u64, u64)> =
                notes.iter().copied().filter(|note| needed(&[*note], &at(written)) == 1).collect();
            // As many as a table distinguishes.
            let kept = &kept[..kept.len().min(SPANS_MAX)];
            let held = held(kept, &at(written));
            assert_eq!(held.bytes(), kept.len() as u64);
            let mut left = written;
            loop {
                let free = kept.len() as u64 - needed(kept, &at(left));
                assert_eq!(
                    releasable(&held, &at(left)),
                    free,
                    "{kept:?}, {:?} of {:?}",
                    at(left),
                    at(written)
                );
                if left == 0 {
                    break;
                }
                left = (left - 1) & written;
            }
        }
    }

    #[test]
    fn of_many_spans_none_goes_too_early() {
        let snapshots: Vec<u64> = (0..100).map(|i| i * 10).collect();
        let notes: Vec<(u64, u64)> = (0..99).map(|i| (i * 10, i * 10 + 5)).collect();
        let held = held(&notes, &snapshots);
        assert!(held.spans.len() <= SPANS_MAX);
        assert_eq!(held.bytes(), 99);
        assert_eq!(releasable(&held, &snapshots), 0);
        for gone in 0..100 {
            let left: Vec<u64> = snapshots.iter().copied().skip(gone).collect();
            assert!(releasable(&held, &left) <= 99 - needed(&notes, &left));
        }
        assert_eq!(releasable(&held, &[]), 99);
    }
}
