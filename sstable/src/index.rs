//! The index of a table in memory: maps a key to the block that can hold it.
//!
//! It has two levels of eight-byte separator prefixes. The root holds the first prefix of every 32
//! blocks and is small enough to stay in the processor's cache. The groups take four cache lines
//! each. A lookup searches the root, the heads of the four lines (in parallel, as they are
//! independent) and one line. It compares whole separators only where prefixes are equal. If many
//! are equal, as for paths, it first compares the next eight bytes after the bytes that these
//! separators share.
//!
//! Invariants: separators ascend; block 0 has the empty one; unused places of the last group hold
//! `u64::MAX`.
use crate::vector::prefetch;
use sapwood_base::Result;
use sapwood_base::format::table_index::TableIndexColumns;
use sapwood_base::key::{begins_with, common_prefix_len, key_prefix};
use sapwood_base::memory;
use sapwood_base::search::{Cells, partition};

const LINE: usize = 8;
const GROUP_LINES: usize = 4;
pub(crate) const GROUP: usize = LINE * GROUP_LINES;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; LINE]);

/// Fewer separators with equal prefixes are not worth a [`PrefixGroup`].
const LEAST_GROUP: usize = 4;

/// Consecutive blocks whose separators have the same prefix.
struct PrefixGroup {
    from: u32,
    to: u32,
    /// Bytes that the separators share.
    shared: u32,
    /// Where in `deeper` the next eight bytes of each separator begin.
    deeper: u32,
}

/// A block that begins with the last user key of its predecessor, and the block in which that key
/// begins.
struct Continued {
    block: u32,
    start: u32,
}

/// The first separator of each group.
struct Root {
    firsts: Vec<u64>,
    /// All first separators except that of block 0, which shares no bytes with the others.
    cells: Cells,
}

impl Root {
    fn new(firsts: Vec<u64>) -> Root {
        let cells = Cells::new(firsts.iter().skip(1).copied(), 1);
        Root { firsts, cells }
    }

    /// The number of firsts that are not above `head`, where that of block 0 always counts.
    /// REQUIRES: there are blocks.
    #[inline]
    fn not_above(&self, head: u64) -> usize {
        let candidates = self.cells.candidates(head);
        1 + candidates.start + self.firsts[1..][candidates].partition_point(|first| *first <= head)
    }

    fn memory_bytes(&self) -> usize {
        self.firsts.len() * 8 + self.cells.memory_bytes()
    }
}

/// The result of a search in the root.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The block is known.
    Block(usize),
    /// The block is one of a group.
    Group {
        group: usize,
        /// The first bytes of the key after the prefix that all separators share.
        head: u64,
    },
}

pub(crate) struct TableIndex {
    root: Root,
    lines: Vec<Line>,
    /// In ascending order.
    groups: Vec<PrefixGroup>,
    deeper: Vec<u64>,
    continued: Vec<Continued>,
    columns: TableIndexColumns,
}

impl TableIndex {
    /// Decodes the payload of an index section.
    pub(crate) fn decode(payload: &[u8]) -> Result<TableIndex> {
        // The columns and the structures built from them: at most eight words per block, which has
        // at least two words in the payload.
        memory::check(payload.len().saturating_mul(4))?;
        let columns = TableIndexColumns::decode(payload)?;
        let count = columns.block_count();
        let mut lines = vec![Line([u64::MAX; LINE]); count.div_ceil(GROUP) * GROUP_LINES];
        for block in 0..count {
            lines[block / LINE].0[block % LINE] = key_prefix(columns.separator(block));
        }
        let root = Root::new(lines.iter().step_by(GROUP_LINES).map(|line| line.0[0]).collect());
        let mut continued: Vec<Continued> = Vec::with_capacity(columns.continued.len());
        for block in &columns.continued {
            let start = match continued.last() {
                // If the previous block begins with this key too, it holds this key alone.
                Some(last)
                    if last.block + 1 == *block
                        && columns.separator(last.block as usize) == columns.separator(*block as usize) =>
                {
                    last.start
                }
                _ => *block - 1,
            };
            continued.push(Continued { block: *block, start });
        }
        let mut index =
            TableIndex { root, lines, groups: Vec::new(), deeper: Vec::new(), continued, columns };
        index.find_groups();
        Ok(index)
    }

    fn find_groups(&mut self) {
        let (count, mut from) = (self.block_count(), 0);
        while from < count {
            let prefix = self.prefix_of(from);
            let to = (from + 1..count).find(|block| self.prefix_of(*block) != prefix).unwrap_or(count);
            if to - from >= LEAST_GROUP {
                let separator = |block| self.columns.separator(block);
                let shared = common_prefix_len(separator(from), separator(to - 1));
                let deeper = self.deeper.len() as u32;
                self.deeper.extend((from..to).map(|block| word_after(separator(block), shared)));
                let [from, to, shared] = [from, to, shared].map(|number| number as u32);
                self.groups.push(PrefixGroup { from, to, shared, deeper });
            }
            from = to;
        }
    }

    /// The number of blocks.
    #[inline]
    pub(crate) fn block_count(&self) -> usize {
        self.columns.offsets.len()
    }

    /// The first block that can hold an entry of `key`; every entry of an earlier block is below
    /// it. REQUIRES: there are blocks.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> usize {
        self.find_near(key, |_| ())
    }

    /// [`TableIndex::find`], which calls `near` early with the first of the [`GROUP`] blocks that
    /// contain the result.
    #[inline]
    pub(crate) fn find_near(&self, key: &[u8], near: impl FnOnce(usize)) -> usize {
        match self.place(key) {
            Place::Block(block) => block,
            Place::Group { group, head } => {
                near(group * GROUP);
                self.find_in(group, head, key)
            }
        }
    }

    /// Stage 1 of a batched [`TableIndex::find`]: prefetches the lines that stage 2 reads.
    /// REQUIRES: there are blocks.
    #[inline]
    pub(crate) fn prefetch(&self, key: &[u8]) -> Place {
        let place = self.place(key);
        if let Place::Group { group, .. } = place {
            self.lines[group * GROUP_LINES..].iter().take(GROUP_LINES).for_each(prefetch);
        }
        place
    }

    /// Stage 2. REQUIRES: `place` is from [`TableIndex::prefetch`] with this `key`.
    #[inline]
    pub(crate) fn find_at(&self, place: Place, key: &[u8]) -> usize {
        match place {
            Place::Block(block) => block,
            Place::Group { group, head } => self.find_in(group, head, key),
        }
    }

    #[inline]
    fn place(&self, key: &[u8]) -> Place {
        let prefix = self.columns.prefix.as_slice();
        if !begins_with(key, prefix) {
            // Every separator but the first begins with the prefix.
            return Place::Block(if key < prefix { 0 } else { self.block_count() - 1 });
        }
        let head = key_prefix(&key[prefix.len()..]);
        Place::Group { group: self.root.not_above(head) - 1, head }
    }

    #[inline]
    fn find_in(&self, group: usize, head: u64, key: &[u8]) -> usize {
        let lines: &[Line; GROUP_LINES] =
            self.lines[group * GROUP_LINES..].first_chunk().expect("groups are whole");
        let line = (1..GROUP_LINES).map(|line| usize::from(lines[line].0[0] <= head)).sum::<usize>();
        let in_line = lines[line].0.iter().map(|separator| usize::from(*separator <= head)).sum::<usize>();
        // If all bits of the key's prefix are set, unused places count as well.
        let not_above = (group * GROUP + line * LINE + in_line).min(self.block_count()).max(1);
        let block = not_above - 1;
        if self.prefix_of(block) != head {
            return block;
        }
        self.find_among_equals(block, head, &key[self.columns.prefix.len()..])
    }

    #[inline]
    fn prefix_of(&self, block: usize) -> u64 {
        self.lines[block / LINE].0[block % LINE]
    }

    /// [`TableIndex::find`] among equal prefixes. `last` is the last block whose separator's prefix
    /// is `head`.
    fn find_among_equals(&self, last: usize, head: u64, rest: &[u8]) -> usize {
        let not_above = match self.groups.binary_search_by(|group| (group.to as usize).cmp(&(last + 1))) {
            Ok(at) => self.not_above_in(&self.groups[at], rest),
            Err(_) => {
                let from = partition(0, last + 1, |block| self.prefix_of(block) < head);
                self.not_above_among(from, last + 1, rest)
            }
        };
        // Block 0 has the empty separator, so at least that one is not above.
        let block = not_above.max(1) - 1;
        // A key that spans blocks begins in the first of them.
        match self.continued.binary_search_by(|continued| (continued.block as usize).cmp(&block)) {
            Ok(i) if self.columns.separator(block) == rest => self.continued[i].start as usize,
            _ => block,
        }
    }

    /// The number of separators not above `rest`, whose prefix is that of the separators of
    /// `group`.
    fn not_above_in(&self, group: &PrefixGroup, rest: &[u8]) -> usize {
        let (from, to) = (group.from as usize, group.to as usize);
        let shared = &self.columns.separator(from)[..group.shared as usize];
        let Some(rest_key) = rest.strip_prefix(shared) else { return if rest < shared { from } else { to } };
        let word = key_prefix(rest_key);
        let deeper = &self.deeper[group.deeper as usize..][..to - from];
        let low = deeper.partition_point(|other| *other < word);
        let high = low + deeper[low..].partition_point(|other| *other <= word);
        self.not_above_among(from + low, from + high, rest)
    }

    /// The number of separators not above `rest`. Those below `from` are not above it; those from
    /// `to` on are.
    #[inline]
    fn not_above_among(&self, from: usize, to: usize, rest: &[u8]) -> usize {
        partition(from, to, |block| self.columns.separator(block) <= rest)
    }

    /// Whether `block` begins with the last user key of the previous block.
    #[inline]
    pub(crate) fn is_continued(&self, block: usize) -> bool {
        !self.continued.is_empty()
            && self.continued.binary_search_by(|continued| (continued.block as usize).cmp(&block)).is_ok()
    }

    /// The whole separator of `block`.
    pub(crate) fn separator(&self, block: usize) -> Vec<u8> {
        if block == 0 {
            return Vec::new();
        }
        [self.columns.prefix.as_slice(), self.columns.separator(block)].concat()
    }

    /// The offset of `block` in the file in bytes.
    #[inline]
    pub(crate) fn offset(&self, block: usize) -> u64 {
        self.columns.offset(block)
    }

    /// The stored length of `block` in bytes.
    #[inline]
    pub(crate) fn stored_len(&self, block: usize) -> u64 {
        self.columns.stored_len(block)
    }

    /// The length of the raw image of `block` if it is compressed.
    #[inline]
    pub(crate) fn raw_len(&self, block: usize) -> Option<usize> {
        self.columns.raw_lengths.get(block).filter(|len| **len > 0).map(|len| *len as usize)
    }

    /// The length of the data section in bytes.
    pub(crate) fn data_len(&self) -> u64 {
        self.columns.data_len
    }

    /// Memory in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let columns = &self.columns;
        let numbers = columns.ends.len() + columns.offsets.len() + columns.raw_lengths.len();
        self.root.memory_bytes()
            + self.lines.len() * size_of::<Line>()
            + self.groups.len() * size_of::<PrefixGroup>()
            + self.deeper.len() * 8
            + self.continued.len() * size_of::<Continued>()
            + numbers * 4
            + columns.heap.len()
            + columns.prefix.len()
    }
}

/// Eight bytes of `separator` after the first `shared`. Damaged separators may be shorter.
fn word_after(separator: &[u8], shared: usize) -> u64 {
    key_prefix(separator.get(shared..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index of blocks with these (first, last) keys, with separators as the builder makes them.
    fn index(blocks: &[(Vec<u8>, Vec<u8>)]) -> TableIndex {
        let mut columns = TableIndexColumns::default();
        for (i, (first, _)) in blocks.iter().enumerate() {
            let (separator, continued) = if i == 0 {
                (&[][..], false)
            } else {
                let before = &blocks[i - 1].1;
                let shared = sapwood_base::key::common_prefix_len(before, first);
                (&first[..first.len().min(shared + 1)], before == first)
            };
            columns.push(separator, i as u64 * 16, 0, continued).unwrap();
        }
        columns.data_len = blocks.len() as u64 * 16;
        let mut payload = Vec::new();
        columns.encode(&mut payload);
        TableIndex::decode(&payload).unwrap()
    }

    #[test]
    fn find_agrees_with_a_linear_search() {
        let mut random = fastrand::Rng::with_seed(4);
        for round in 0..400 {
            let alphabet = [2, 3, 256][round % 3];
            let longest = [3, 12, 30][round / 3 % 3];
            let prefix: Vec<u8> = vec![b'p'; [0, 1, 20][round % 3]];
            // Some keys share a longer beginning, so that there are groups with shared bytes.
            let middle: &[u8] = [&b""[..], b"middle of many"][round / 9 % 2];
            let mut keys: Vec<Vec<u8>> = (0..random.usize(1..600))
                .map(|_| {
                    let middle = if random.u8(..) < 200 { middle } else { b"" };
                    let len = random.usize(0..=longest);
                    let tail = (0..len).map(|_| random.usize(0..alphabet) as u8 | [0, 0xFE][round % 2]);
                    prefix.iter().chain(middle).copied().chain(tail).collect()
                })
                .collect();
            keys.sort();
            // Duplicates stay as versions of a key; some span blocks.
            let blocks: Vec<_> = keys
                .chunks(random.usize(1..5))
                .map(|chunk| (chunk[0].clone(), chunk[chunk.len() - 1].clone()))
                .collect();
            let index = index(&blocks);
            let probes = keys.iter().cloned().chain([vec![], vec![0xFF; 9], b"p".to_vec(), b"q".to_vec()]);
            for mut probe in probes.collect::<Vec<_>>() {
                for _ in 0..2 {
                    let found = index.find(&probe);
                    // The first block whose last key is not below the probe, or the previous block
                    // if the probe falls between two.
                    let first = blocks.iter().position(|(_, last)| *last >= probe).unwrap_or(blocks.len());
                    let holds = first < blocks.len() && blocks[first].0 <= probe;
                    if holds {
                        assert_eq!(found, first, "round {round} probe {probe:?}");
                    } else {
                        assert!(found == first || found + 1 == first, "round {round}: {found} {first}");
                    }
                    probe.push(random.u8(..));
                }
            }
        }
    }
}
