//! The merge of several sorted inputs into one, for reads and for compaction.
//!
//! A binary heap of input numbers, each with an eight-byte prefix of its current key, so most
//! comparisons are one integer comparison and touch no input. The heap replaces its top in place.
//! An input that keeps winning (many entries in a row from one run are the rule) costs two
//! comparisons per entry, and none for entries known to lie before the next input.
use super::InternalIterator;
use crate::error::Result;
use crate::key::{ValueKind, key_prefix};
use crate::sequence::SequenceNumber;
use std::cmp::Ordering;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Yields the entries of all inputs in internal order.
///
/// Two inputs never hold the same (key, sequence number), except through a recovered log, where
/// both entries are equal; then the input listed first comes first.
pub struct MergingIterator<I> {
    inputs: Vec<I>,
    /// Valid inputs; the root is the current one.
    heap: Vec<Place>,
    direction: Direction,
    /// The number of consecutive entries returned from the root.
    streak: u32,
}

/// An input in the heap.
#[derive(Clone, Copy)]
struct Place {
    /// The prefix of the input's current key.
    prefix: u64,
    input: u32,
}

/// After this many consecutive entries from one input, a search for the end of its streak pays
/// off: such a streak mostly continues for longer than the search takes.
const STREAK: u32 = 4;

impl<I: InternalIterator> MergingIterator<I> {
    /// Creates a merge over `inputs`, not positioned yet.
    pub fn new(inputs: Vec<I>) -> MergingIterator<I> {
        let count = inputs.len();
        MergingIterator { inputs, heap: Vec::with_capacity(count), direction: Direction::Forward, streak: 0 }
    }

    /// Makes the iterator unpositioned.
    pub fn clear(&mut self) {
        self.heap.clear();
    }

    /// The input that holds the current entry. REQUIRES: `valid`.
    #[inline(always)]
    pub fn current(&self) -> &I {
        &self.inputs[self.root()]
    }

    /// The number of the input that holds the current entry. REQUIRES: `valid`.
    #[inline(always)]
    fn root(&self) -> usize {
        self.heap[0].input as usize
    }

    /// Whether `a` comes before `b` in the direction of travel.
    #[inline(always)]
    fn before(&self, a: Place, b: Place) -> bool {
        if a.prefix != b.prefix {
            return (a.prefix < b.prefix) == (self.direction == Direction::Forward);
        }
        self.before_on_tie(a.input, b.input)
    }

    fn before_on_tie(&self, a: u32, b: u32) -> bool {
        let (left, right) = (&self.inputs[a as usize], &self.inputs[b as usize]);
        let order = left
            .key()
            .cmp(right.key())
            .then_with(|| right.sequence().cmp(&left.sequence()))
            .then_with(|| a.cmp(&b));
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    #[inline(always)]
    fn sift_down(&mut self, mut at: usize) {
        let len = self.heap.len();
        loop {
            let left = 2 * at + 1;
            if left >= len {
                return;
            }
            let mut child = left;
            if left + 1 < len && self.before(self.heap[left + 1], self.heap[left]) {
                child = left + 1;
            }
            if !self.before(self.heap[child], self.heap[at]) {
                return;
            }
            self.heap.swap(child, at);
            at = child;
        }
    }

    fn rebuild(&mut self, direction: Direction) {
        self.direction = direction;
        self.streak = 0;
        self.heap.clear();
        for (i, input) in self.inputs.iter().enumerate() {
            if input.valid() {
                self.heap.push(Place { prefix: key_prefix(input.key()), input: i as u32 });
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
    }

    fn position(&mut self, direction: Direction, mut seek: impl FnMut(&mut I) -> Result<()>) -> Result<()> {
        self.heap.clear();
        for input in &mut self.inputs {
            seek(input)?;
        }
        self.rebuild(direction);
        Ok(())
    }

    /// Restores the heap order after a move of the root; removes the root if it is exhausted.
    #[inline(always)]
    fn settle_root(&mut self) {
        let root = self.root();
        let input = &self.inputs[root];
        if input.valid() {
            // A single input needs no comparison, so its prefix is not read before the next
            // positioning.
            if self.heap.len() == 1 {
                return;
            }
            self.heap[0].prefix = key_prefix(input.key());
        } else {
            let last = self.heap.pop().expect("the heap holds its root");
            if self.heap.is_empty() {
                return;
            }
            if last.input as usize != root {
                self.heap[0] = last;
            }
        }
        self.sift_down(0);
        self.streak = if self.root() == root { self.streak + 1 } else { 0 };
    }

    /// The next input in the direction of travel once the root has passed it.
    #[inline(never)]
    fn runner_up(&self) -> Option<&I> {
        let second = match self.heap.as_slice() {
            [] | [_] => return None,
            [_, only] => *only,
            [_, left, right, ..] => {
                if self.before(*right, *left) {
                    *right
                } else {
                    *left
                }
            }
        };
        Some(&self.inputs[second.input as usize])
    }

    /// Whether another input may stand on the current key.
    #[inline]
    fn is_shared(&self) -> bool {
        // The next input in order is one of the root's children.
        let prefix = |at: usize| self.heap.get(at).map(|place| place.prefix);
        let others = [prefix(1), prefix(2)];
        others[0].is_some() && others.contains(&prefix(0))
    }

    /// Reverses the direction: places every input at its first entry after (forward) or last entry
    /// before (backward) the current one.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let current = self.current();
        let key = current.key().to_vec();
        let sequence = current.sequence();
        let forward = direction == Direction::Forward;
        self.position(direction, |input| {
            input.seek(&key)?;
            while input.valid()
                && input.key() == key
                && (input.sequence() > sequence || (forward && input.sequence() == sequence))
            {
                input.next()?;
            }
            match (forward, input.valid()) {
                (true, _) => Ok(()),
                (false, true) => input.prev(),
                (false, false) => input.seek_to_last(),
            }
        })
    }
}

impl<I: InternalIterator> InternalIterator for MergingIterator<I> {
    #[inline(always)]
    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.position(Direction::Forward, |input| input.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position(Direction::Backward, |input| input.seek_to_last())
    }

    fn seek(&mut self, target: &[u8]) -> Result<()> {
        self.position(Direction::Forward, |input| input.seek(target))
    }

    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        self.position(Direction::Backward, |input| input.seek_before(target))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if self.direction == Direction::Backward {
            return self.turn(Direction::Forward);
        }
        let root = self.root();
        if let Err(error) = self.inputs[root].next() {
            self.heap.clear();
            return Err(error);
        }
        self.settle_root();
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.direction == Direction::Forward {
            return self.turn(Direction::Backward);
        }
        let root = self.root();
        if let Err(error) = self.inputs[root].prev() {
            self.heap.clear();
            return Err(error);
        }
        self.settle_root();
        Ok(())
    }

    #[inline(always)]
    fn key(&self) -> &[u8] {
        self.current().key()
    }

    #[inline(always)]
    fn sequence(&self) -> SequenceNumber {
        self.current().sequence()
    }

    #[inline(always)]
    fn kind(&self) -> ValueKind {
        self.current().kind()
    }

    #[inline(always)]
    fn value(&self) -> &[u8] {
        self.current().value()
    }

    #[inline(always)]
    fn may_repeat_after(&self) -> bool {
        self.is_shared() || self.current().may_repeat_after()
    }

    #[inline(always)]
    fn may_repeat_before(&self) -> bool {
        self.is_shared() || self.current().may_repeat_before()
    }

    #[inline]
    fn run_ahead(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        debug_assert!(self.direction == Direction::Forward);
        if self.heap.len() > 1 && self.streak < STREAK {
            return 0;
        }
        let other = self.runner_up().map(|input| input.key());
        let nearer = match (limit, other) {
            (Some(limit), Some(other)) => Some(limit.min(other)),
            (limit, other) => limit.or(other),
        };
        self.current().run_ahead(bound, nearer)
    }

    #[inline]
    fn run_behind(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        debug_assert!(self.direction == Direction::Backward);
        if self.heap.len() > 1 && self.streak < STREAK {
            return 0;
        }
        let other = self.runner_up().map(|input| input.key());
        // `None` sorts below every key.
        self.current().run_behind(bound, limit.max(other))
    }

    #[inline(always)]
    fn next_in_run(&mut self) {
        // The root remains the root.
        let root = self.root();
        self.inputs[root].next_in_run();
    }

    #[inline(always)]
    fn prev_in_run(&mut self) {
        let root = self.root();
        self.inputs[root].prev_in_run();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sorted vector as an input.
    struct List {
        entries: Vec<(Vec<u8>, u64)>,
        at: Option<usize>,
    }

    impl InternalIterator for List {
        fn valid(&self) -> bool {
            self.at.is_some()
        }
        fn seek_to_first(&mut self) -> Result<()> {
            self.at = (!self.entries.is_empty()).then_some(0);
            Ok(())
        }
        fn seek_to_last(&mut self) -> Result<()> {
            self.at = self.entries.len().checked_sub(1);
            Ok(())
        }
        fn seek(&mut self, target: &[u8]) -> Result<()> {
            let at = self.entries.partition_point(|(key, _)| key.as_slice() < target);
            self.at = (at < self.entries.len()).then_some(at);
            Ok(())
        }
        fn seek_before(&mut self, target: &[u8]) -> Result<()> {
            self.at = self.entries.partition_point(|(key, _)| key.as_slice() < target).checked_sub(1);
            Ok(())
        }
        fn next(&mut self) -> Result<()> {
            self.at = self.at.map(|at| at + 1).filter(|at| *at < self.entries.len());
            Ok(())
        }
        fn prev(&mut self) -> Result<()> {
            self.at = self.at.and_then(|at| at.checked_sub(1));
            Ok(())
        }
        fn key(&self) -> &[u8] {
            &self.entries[self.at.unwrap()].0
        }
        fn sequence(&self) -> SequenceNumber {
            SequenceNumber(self.entries[self.at.unwrap()].1)
        }
        fn kind(&self) -> ValueKind {
            ValueKind::Put
        }
        fn value(&self) -> &[u8] {
            &[]
        }
    }

    #[test]
    fn a_random_walk_agrees_with_one_sorted_list() {
        let mut state = 0x1234_5678_9ABC_DEFFu64;
        let mut random = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for round in 0..300 {
            let inputs = 1 + random(6) as usize;
            let mut lists: Vec<Vec<(Vec<u8>, u64)>> = vec![Vec::new(); inputs];
            for sequence in 0..random(60) {
                // Long shared prefixes make the eight-byte prefixes tie.
                let key = format!("{}{:02}", if round % 2 == 0 { "shared-prefix-" } else { "" }, random(20));
                lists[random(inputs as u64) as usize].push((key.into_bytes(), sequence));
            }
            let order = |a: &(Vec<u8>, u64), b: &(Vec<u8>, u64)| a.0.cmp(&b.0).then(b.1.cmp(&a.1));
            let mut all: Vec<_> = lists.iter().flatten().cloned().collect();
            all.sort_by(order);
            let inputs = lists
                .into_iter()
                .map(|mut entries| {
                    entries.sort_by(order);
                    List { entries, at: None }
                })
                .collect();
            let mut merged = MergingIterator::new(inputs);
            let mut model = List { entries: all, at: None };
            for _ in 0..100 {
                let target =
                    format!("{}{:02}", if round % 2 == 0 { "shared-prefix-" } else { "" }, random(21));
                match random(8) {
                    0 => (merged.seek_to_first().unwrap(), model.seek_to_first().unwrap()),
                    1 => (merged.seek_to_last().unwrap(), model.seek_to_last().unwrap()),
                    2 => (merged.seek(target.as_bytes()).unwrap(), model.seek(target.as_bytes()).unwrap()),
                    3 => (
                        merged.seek_before(target.as_bytes()).unwrap(),
                        model.seek_before(target.as_bytes()).unwrap(),
                    ),
                    4 | 5 if model.valid() => (merged.next().unwrap(), model.next().unwrap()),
                    _ if model.valid() => (merged.prev().unwrap(), model.prev().unwrap()),
                    _ => ((), ()),
                };
                assert_eq!(merged.valid(), model.valid(), "round {round}");
                if model.valid() {
                    assert_eq!(merged.key(), model.key());
                    assert_eq!(merged.sequence(), model.sequence());
                }
            }
        }
    }
}
