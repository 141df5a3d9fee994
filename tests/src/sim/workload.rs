//! Workloads, as functions of a seed. Keys are few, so that operations meet. Each kind of operation
//! is absent from some workloads (swarm testing, Groce et al., ISSTA 2012), since one kind may mask
//! the faults of another.
use crate::sim::draw::Draw;
use crate::sim::indexes::{INDEXES, Question};
use crate::sim::operation::{Lookup, Move, Operation, Range, SLOTS, Step, Value, Write};
use crate::sim::tuning::Tuning;
use sapwood::Durability;
use std::ops::Bound;
use std::time::Duration;

/// Kinds of operations with their weights, if no kind is absent.
const KINDS: [(Kind, u32); 27] = [
    (Kind::Put, 30),
    (Kind::Delete, 10),
    (Kind::Batch, 20),
    (Kind::Get, 8),
    (Kind::MultiGet, 3),
    (Kind::Snapshot, 4),
    (Kind::Release, 3),
    (Kind::Compare, 2),
    (Kind::OpenCursor, 3),
    (Kind::MoveCursor, 8),
    (Kind::CloseCursor, 2),
    (Kind::Range, 5),
    (Kind::Sync, 3),
    (Kind::Flush, 5),
    (Kind::CompactRange, 3),
    (Kind::Compact, 1),
    (Kind::FlushStep, 3),
    (Kind::CompactionStep, 6),
    (Kind::LogStep, 3),
    (Kind::SweepStep, 3),
    (Kind::WaitForBackground, 1),
    (Kind::CreateSpace, 3),
    (Kind::DropSpace, 2),
    (Kind::Reopen, 2),
    (Kind::Pause, 1),
    (Kind::Resume, 2),
    (Kind::Tick, 2),
];

/// Additional kinds for secondary indexes.
const INDEX_KINDS: [(Kind, u32); 4] =
    [(Kind::CreateIndex, 4), (Kind::DropIndex, 1), (Kind::RebuildIndex, 1), (Kind::AskIndex, 14)];

/// Additional kinds for long runs of deletions and of versions.
const RUN_KINDS: [(Kind, u32); 2] = [(Kind::Queue, 14), (Kind::Overwrite, 4)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    Delete,
    Batch,
    Get,
    MultiGet,
    Snapshot,
    Release,
    Compare,
    OpenCursor,
    MoveCursor,
    CloseCursor,
    Range,
    Sync,
    Flush,
    CompactRange,
    Compact,
    FlushStep,
    CompactionStep,
    LogStep,
    SweepStep,
    WaitForBackground,
    CreateSpace,
    DropSpace,
    Reopen,
    Pause,
    Resume,
    Tick,
    CreateIndex,
    DropIndex,
    RebuildIndex,
    AskIndex,
    Queue,
    Overwrite,
}

/// The parameters of a run.
#[derive(Clone)]
pub struct Workload {
    /// The seed.
    pub seed: u64,
    /// The settings of the first session.
    pub tuning: Tuning,
    /// The operations.
    pub operations: Vec<Operation>,
}

impl Workload {
    /// The workload of `seed`, with `length` operations.
    ///
    /// Every second seed has secondary indexes. One in eight has queues, and keys that are
    /// overwritten repeatedly.
    pub fn new(seed: u64, length: usize) -> Workload {
        Workload::of(seed, length, seed % 2 == 1)
    }

    /// The workload of `seed` with secondary indexes, or without.
    pub fn of(seed: u64, length: usize, has_indexes: bool) -> Workload {
        let mut random = fastrand::Rng::with_seed(seed);
        let tuning = match random.one_in(3) {
            true => Tuning::standard(),
            false => Tuning::draw(&mut random),
        };
        let mut generator = Generator::new(&mut random);
        if has_indexes {
            generator.add_indexes();
        }
        if matches!(seed % 16, 4 | 9) {
            generator.add_runs();
        }
        let mut operations: Vec<Operation> = (0..length).map(|_| generator.operation(&mut random)).collect();
        if has_indexes {
            // One index early, so that later operations meet it.
            let at = random.usize(..length.min(12) + 1);
            operations.insert(at, Operation::CreateIndex { space: 0, index: random.u8(..INDEXES) });
        }
        Workload { seed, tuning, operations }
    }
}

/// Draws one operation after the other, with fixed preferences.
pub struct Generator {
    kinds: Vec<(Kind, u32)>,
    weight: u32,
    spaces: u8,
    keys: Vec<Vec<u8>>,
    lengths: Vec<u32>,
    durabilities: Vec<Durability>,
    next_tag: u32,
    next_push: u32,
}

impl Generator {
    /// Draws preferences.
    pub fn new(draw: &mut impl Draw) -> Generator {
        let mut kinds: Vec<(Kind, u32)> = KINDS.into_iter().filter(|_| draw.below(10) >= 3).collect();
        if !kinds.iter().any(|(kind, _)| matches!(kind, Kind::Put | Kind::Batch)) {
            kinds.push((Kind::Batch, 20));
        }
        let weight = kinds.iter().map(|(_, weight)| weight).sum();
        let keys = keys(draw);
        let mut lengths: Vec<u32> = (0..1 + draw.below(4))
            .map(|_| *draw.pick(&[0, 1, 7, 30, 100, 100, 600, 4096, 4096, 9000, 30_000]))
            .collect();
        if draw.one_in(30) {
            lengths.push(150_000);
            // More than an arena holds: such a payload is written apart from its record.
            if draw.below(2) == 0 {
                lengths.push(300_000);
            }
        }
        let every = Duration::from_millis([5, 1, 300, 499, 700][kinds.len() % 5]);
        let mut durabilities = Vec::new();
        for (durability, one_in) in [
            (Durability::Buffered, 1),
            (Durability::Buffered, 1),
            (Durability::Buffered, 2),
            (Durability::Sync, 2),
            (Durability::Periodic(every), 4),
            (Durability::None, 6),
        ] {
            if draw.one_in(one_in) {
                durabilities.push(durability);
            }
        }
        Generator {
            kinds,
            weight,
            spaces: 1 + draw.below(4) as u8,
            keys,
            lengths,
            durabilities,
            next_tag: 1,
            next_push: 0,
        }
    }

    /// Adds secondary indexes to the kinds.
    pub fn add_indexes(&mut self) {
        self.kinds.extend(INDEX_KINDS);
        self.weight += INDEX_KINDS.iter().map(|(_, weight)| weight).sum::<u32>();
    }

    /// Adds queues and keys with many versions to the kinds.
    pub fn add_runs(&mut self) {
        self.kinds.extend(RUN_KINDS);
        self.weight += RUN_KINDS.iter().map(|(_, weight)| weight).sum::<u32>();
    }

    /// The next operation.
    pub fn operation(&mut self, draw: &mut impl Draw) -> Operation {
        let mut at = draw.below(self.weight);
        let kind = self
            .kinds
            .iter()
            .find_map(|(kind, weight)| match at.checked_sub(*weight) {
                Some(rest) => {
                    at = rest;
                    None
                }
                None => Some(*kind),
            })
            .expect("the weights add up");
        let space = draw.below(u32::from(self.spaces)) as u8;
        let slot = draw.below(u32::from(SLOTS)) as u8;
        match kind {
            Kind::Put => {
                let value = Some(self.value(draw));
                self.commit(draw, |key| vec![Write { space, key, value }])
            }
            Kind::Delete => self.commit(draw, |key| vec![Write { space, key, value: None }]),
            Kind::Batch => {
                // Some are large enough to fill a memtable.
                let count = match draw.below(12) {
                    0 => 0,
                    1 => 10 + draw.below(50),
                    _ => 1 + draw.below(8),
                };
                let writes = (0..count)
                    .map(|_| Write {
                        space: draw.below(u32::from(self.spaces)) as u8,
                        key: self.key(draw),
                        value: (!draw.one_in(4)).then(|| self.value(draw)),
                    })
                    .collect();
                self.commit(draw, |_| writes)
            }
            Kind::Get => {
                let lookup = *draw.pick(&[Lookup::Get, Lookup::Get, Lookup::With, Lookup::Contains]);
                Operation::Get { space, key: self.key(draw), at: self.at(draw), lookup }
            }
            Kind::MultiGet => {
                let keys = (0..draw.below(12)).map(|_| self.key(draw)).collect();
                Operation::MultiGet { space, keys }
            }
            Kind::Snapshot => Operation::Snapshot(slot),
            Kind::Release => Operation::Release(slot),
            Kind::Compare => Operation::Compare(self.at(draw)),
            Kind::OpenCursor => Operation::OpenCursor { slot, space, at: self.at(draw) },
            Kind::MoveCursor => {
                let moves = (0..1 + draw.below(12)).map(|_| self.cursor_move(draw)).collect();
                Operation::MoveCursor { slot, moves }
            }
            Kind::CloseCursor => Operation::CloseCursor(slot),
            Kind::Range => Operation::Range(self.range(draw, space)),
            Kind::Sync => Operation::Sync,
            Kind::Flush => Operation::Flush,
            Kind::CompactRange => {
                let (a, b) = (self.key(draw), self.key(draw));
                Operation::CompactRange { space, lower: a.clone().min(b.clone()), upper: a.max(b) }
            }
            Kind::Compact => Operation::Compact,
            Kind::FlushStep => Operation::Background(Step::Flush),
            Kind::CompactionStep => Operation::Background(Step::Compaction),
            Kind::LogStep => Operation::Background(Step::Log),
            Kind::SweepStep => Operation::Background(Step::Sweep),
            Kind::WaitForBackground => Operation::WaitForBackground,
            Kind::CreateSpace => Operation::CreateSpace(space),
            Kind::DropSpace => Operation::DropSpace(space),
            Kind::Reopen => Operation::Reopen(draw.one_in(2).then(|| draw.below(1 << 16))),
            Kind::Pause => Operation::Pause,
            Kind::Resume => Operation::Resume,
            Kind::CreateIndex => Operation::CreateIndex { space, index: index(draw) },
            Kind::DropIndex => Operation::DropIndex { space, index: index(draw) },
            Kind::RebuildIndex => Operation::RebuildIndex { space, index: index(draw) },
            Kind::AskIndex => {
                let (index, at) = (index(draw), self.at(draw));
                Operation::AskIndex { space, index, at, question: question(draw) }
            }
            Kind::Queue => {
                let (pushes, from) = (draw.below(60) as u8, self.next_push);
                self.next_push += u32::from(pushes);
                let len = *draw.pick(&[0, 8, 100, 700]);
                Operation::Queue { space, from, pushes, pops: draw.below(60) as u8, len }
            }
            Kind::Overwrite => {
                let value = self.value(draw);
                let times = 1 + draw.below(80) as u8;
                self.next_tag += u32::from(times);
                let value = Value { len: value.len.min(600), ..value };
                Operation::Overwrite { space, key: self.key(draw), times, value }
            }
            Kind::Tick => Operation::Tick(Duration::from_millis(*draw.pick(&[1, 20, 1100]))),
        }
    }

    fn commit(&mut self, draw: &mut impl Draw, writes: impl FnOnce(Vec<u8>) -> Vec<Write>) -> Operation {
        let writes = writes(self.key(draw));
        Operation::Commit {
            single: draw.one_in(2),
            durability: *draw.pick(&self.durabilities),
            wait: draw.one_in(16),
            writes,
        }
    }

    fn key(&self, draw: &mut impl Draw) -> Vec<u8> {
        draw.pick(&self.keys).clone()
    }

    fn value(&mut self, draw: &mut impl Draw) -> Value {
        let tag = self.next_tag;
        self.next_tag += 1;
        Value { tag, len: *draw.pick(&self.lengths) }
    }

    fn at(&self, draw: &mut impl Draw) -> Option<u8> {
        draw.one_in(3).then(|| draw.below(u32::from(SLOTS)) as u8)
    }

    fn cursor_move(&self, draw: &mut impl Draw) -> Move {
        match draw.below(12) {
            0 => Move::First,
            1 => Move::Last,
            2 => Move::Seek(self.key(draw)),
            3 => Move::SeekForPrev(self.key(draw)),
            4 => Move::SeekBefore(self.key(draw)),
            5..9 => Move::Next,
            _ => Move::Prev,
        }
    }

    fn range(&self, draw: &mut impl Draw, space: u8) -> Range {
        let bound = |draw: &mut _| match Draw::below(draw, 3) {
            0 => Bound::Included(self.key(draw)),
            1 => Bound::Excluded(self.key(draw)),
            _ => Bound::Unbounded,
        };
        let prefix = draw.one_in(4).then(|| {
            let key = self.key(draw);
            let len = draw.below(key.len().min(30) as u32 + 1) as usize;
            key[..len].to_vec()
        });
        // All from one end, or a mix.
        let ends = match draw.below(3) {
            0 => vec![true],
            1 => vec![false],
            _ => (0..8).map(|_| draw.one_in(2)).collect(),
        };
        Range {
            space,
            at: self.at(draw),
            lower: bound(draw),
            upper: bound(draw),
            prefix,
            limit: draw.one_in(4).then(|| draw.below(12) as u8),
            keys_only: draw.one_in(8),
            reversed: draw.one_in(4),
            ends,
        }
    }
}

fn index(draw: &mut impl Draw) -> u8 {
    draw.below(u32::from(INDEXES)) as u8
}

fn question(draw: &mut impl Draw) -> Question {
    // Letters are keys of some indexes, other bytes of the others.
    fn index_key(draw: &mut impl Draw) -> Vec<u8> {
        match draw.below(8) {
            0 => Vec::new(),
            1 | 2 => vec![draw.below(256) as u8],
            3 => vec![b'a' + draw.below(8) as u8, 0],
            _ => vec![b'a' + draw.below(9) as u8],
        }
    }
    fn bound(draw: &mut impl Draw) -> Bound<Vec<u8>> {
        match draw.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(index_key(draw)),
            _ => Bound::Excluded(index_key(draw)),
        }
    }
    match draw.below(8) {
        0 => Question::All { reversed: draw.one_in(2) },
        1 => Question::Get(index_key(draw)),
        2 => Question::Prefix(index_key(draw)),
        3 | 4 => Question::Range {
            lower: bound(draw),
            upper: bound(draw),
            reversed: draw.one_in(2),
            limit: draw.one_in(3).then(|| draw.below(5) as u8),
        },
        5 => Question::Count { lower: bound(draw), upper: bound(draw) },
        6 => Question::Rank(index_key(draw)),
        _ => Question::Nth(draw.below(40) as u16),
    }
}

/// A few keys. Some are prefixes of others, some differ only at the end, and some have lengths that
/// are awkward for filters and eight-byte prefixes.
fn keys(draw: &mut impl Draw) -> Vec<Vec<u8>> {
    let count = *draw.pick(&[2, 6, 16, 16, 40, 100]);
    let shared = *draw.pick(&[3, 8, 24, 200]);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count {
        let number = draw.below(1000);
        let key = match draw.below(16) {
            0 => Vec::new(),
            1 => vec![draw.below(256) as u8],
            2 => vec![0xFF; draw.below(12) as usize],
            3 => vec![0; draw.below(12) as usize],
            4 | 5 => u64::from(number).to_be_bytes().to_vec(),
            6 => number.to_le_bytes().repeat(6),
            7 => format!("{number:0255}").into_bytes(),
            8 => format!("{number:0256}").into_bytes(),
            9 if draw.one_in(4) => [number.to_be_bytes().as_slice(), &[b'k'; 3000]].concat(),
            10 | 11 if !keys.is_empty() => {
                // A prefix of another key, or an extension of it.
                let mut key = draw.pick(&keys).clone();
                match draw.below(3) {
                    0 => key.truncate(key.len().saturating_sub(1)),
                    1 => key.push(0),
                    _ => key.push(draw.below(256) as u8),
                }
                key
            }
            12 | 13 => [vec![b'p'; shared], number.to_string().into_bytes()].concat(),
            _ => format!("key-{number:03}").into_bytes(),
        };
        keys.push(key);
    }
    keys
}
