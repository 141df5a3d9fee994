//! One step of a workload, concrete to the byte, so that a list of steps can be cut and run again.
use crate::sim::indexes::Question;
use sapwood::Durability;
use std::fmt;
use std::ops::Bound;
use std::time::Duration;

/// The most snapshots, and cursors, that a workload can hold at once.
pub const SLOTS: u8 = 4;

/// The bytes of a value, represented by the parameters of their generator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// Different in each write of a workload.
    pub tag: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Value {
    /// The bytes. Values with an even tag compress well.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        let mut random = fastrand::Rng::with_seed(u64::from(self.tag));
        match self.tag % 2 {
            0 => {
                let unit = random.u64(..).to_le_bytes();
                bytes.iter_mut().zip(unit.iter().cycle()).for_each(|(byte, unit)| *byte = *unit);
            }
            _ => random.fill(&mut bytes),
        }
        bytes
    }
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// The keyspace by its number, see [`space_name`]. Skipped if it does not exist.
    pub space: u8,
    /// The key.
    pub key: Vec<u8>,
    /// The new value; `None` deletes.
    pub value: Option<Value>,
}

/// The way to look up a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// `get`.
    Get,
    /// `get_with`.
    With,
    /// `contains`.
    Contains,
}

/// A move of a cursor.
#[derive(Clone, PartialEq, Eq)]
pub enum Move {
    /// `seek_to_first`.
    First,
    /// `seek_to_last`.
    Last,
    /// `seek`.
    Seek(Vec<u8>),
    /// `seek_for_prev`.
    SeekForPrev(Vec<u8>),
    /// `seek_before`.
    SeekBefore(Vec<u8>),
    /// `next`.
    Next,
    /// `prev`.
    Prev,
}

/// A range read from both ends.
#[derive(Clone, PartialEq, Eq)]
pub struct Range {
    /// The keyspace.
    pub space: u8,
    /// The snapshot in this slot, or the present.
    pub at: Option<u8>,
    /// The lower bound.
    pub lower: Bound<Vec<u8>>,
    /// The upper bound.
    pub upper: Bound<Vec<u8>>,
    /// All keys with this prefix, instead of the bounds.
    pub prefix: Option<Vec<u8>>,
    /// The most entries.
    pub limit: Option<u8>,
    /// Reads keys only.
    pub keys_only: bool,
    /// Iterates in reverse.
    pub reversed: bool,
    /// The end from which each next entry is taken; true is the front.
    pub ends: Vec<bool>,
}

/// A kind of background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A flush.
    Flush,
    /// A compaction, or a slice of it.
    Compaction,
    /// Log segments and periodic syncs.
    Log,
    /// Removal of files.
    Sweep,
}

/// One step of a workload. A step that does not apply (to a missing keyspace, to an empty slot)
/// does nothing, so that any subset of a list is a list.
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// Commits changes: several or none as a batch, one by `put_with` or `delete_with` if `single`.
    Commit {
        /// The changes, in order.
        writes: Vec<Write>,
        /// `put_with` or `delete_with` instead of a batch, if it is one change.
        single: bool,
        /// The durability of the commit.
        durability: Durability,
        /// Whether to wait until it survives a power loss.
        wait: bool,
    },
    /// Looks up a key.
    Get {
        /// The keyspace.
        space: u8,
        /// The key.
        key: Vec<u8>,
        /// The snapshot in this slot, or the present.
        at: Option<u8>,
        /// The call.
        lookup: Lookup,
    },
    /// Looks up several keys.
    MultiGet {
        /// The keyspace.
        space: u8,
        /// The keys.
        keys: Vec<Vec<u8>>,
    },
    /// Takes a snapshot into a slot.
    Snapshot(u8),
    /// Drops the snapshot in a slot.
    Release(u8),
    /// Compares everything that the snapshot in a slot sees, or the present, with the oracle.
    Compare(Option<u8>),
    /// Opens a cursor in a slot.
    OpenCursor {
        /// The slot.
        slot: u8,
        /// The keyspace.
        space: u8,
        /// The snapshot in this slot, or the present.
        at: Option<u8>,
    },
    /// Moves the cursor in a slot.
    MoveCursor {
        /// The slot.
        slot: u8,
        /// The moves, one after the other.
        moves: Vec<Move>,
    },
    /// Drops the cursor in a slot.
    CloseCursor(u8),
    /// Reads a range.
    Range(Range),
    /// `Db::sync`.
    Sync,
    /// `Db::flush`.
    Flush,
    /// `Keyspace::compact_range`.
    CompactRange {
        /// The keyspace.
        space: u8,
        /// The first key.
        lower: Vec<u8>,
        /// The end of the range.
        upper: Vec<u8>,
    },
    /// `Db::compact`.
    Compact,
    /// Background work.
    Background(Step),
    /// `Db::wait_for_background`.
    WaitForBackground,
    /// Creates a keyspace.
    CreateSpace(u8),
    /// Drops a keyspace.
    DropSpace(u8),
    /// Closes and opens, with the same settings or with those that this number determines.
    Reopen(Option<u32>),
    /// `Db::pause_background`.
    Pause,
    /// `Db::resume_background`.
    Resume,
    /// The clock advances.
    Tick(Duration),
    /// Creates a secondary index, see [`crate::sim::indexes`].
    CreateIndex {
        /// The keyspace.
        space: u8,
        /// The number of the index, which determines its options.
        index: u8,
    },
    /// Drops a secondary index.
    DropIndex {
        /// The keyspace.
        space: u8,
        /// The number of the index.
        index: u8,
    },
    /// Rebuilds a secondary index.
    RebuildIndex {
        /// The keyspace.
        space: u8,
        /// The number of the index.
        index: u8,
    },
    /// Queries a secondary index.
    AskIndex {
        /// The keyspace.
        space: u8,
        /// The number of the index.
        index: u8,
        /// The snapshot in this slot, or the present.
        at: Option<u8>,
        /// The query.
        question: Question,
    },
    /// A queue: pushes at the end, each a commit of its own, then pops from the front, each by a
    /// scan of one entry and a deletion.
    Queue {
        /// The keyspace.
        space: u8,
        /// The number of the first pushed entry.
        from: u32,
        /// The number of pushes.
        pushes: u8,
        /// The number of pops.
        pops: u8,
        /// The length of the entries in bytes.
        len: u16,
    },
    /// Overwrites a key many times.
    Overwrite {
        /// The keyspace.
        space: u8,
        /// The key.
        key: Vec<u8>,
        /// The number of writes.
        times: u8,
        /// The first value; the tags of the others count up.
        value: Value,
    },
    /// Flushes, then a power loss that this number determines, and an open: nothing may be
    /// missing.
    PowerLoss(u32),
}

impl Operation {
    /// Whether it may change the trees.
    pub fn may_change_structure(&self) -> bool {
        use Operation::*;
        matches!(
            self,
            Flush
                | CompactRange { .. }
                | Compact
                | Background(Step::Flush | Step::Compaction)
                | WaitForBackground
        )
    }
}

/// The name of keyspace number `space`; 0 is the default one.
pub fn space_name(space: u8) -> String {
    match space {
        0 => "default".to_string(),
        _ => format!("space-{space}"),
    }
}

/// The number of the keyspace `name`.
pub fn space_number(name: &str) -> Option<u8> {
    match name {
        "default" => Some(0),
        _ => name.strip_prefix("space-")?.parse().ok(),
    }
}

/// The key of an entry of a queue. Other keys lie before and after all of them.
pub fn queue_key(number: u32) -> Vec<u8> {
    [QUEUE, &number.to_be_bytes()].concat()
}

/// The prefix of all keys of queues.
pub const QUEUE: &[u8] = b"key-queue";

/// A key for messages: long ones are cut.
pub fn show_key(key: &[u8]) -> String {
    match key.len() {
        0..=40 => format!("\"{}\"", key.escape_ascii()),
        len => format!("\"{}…\" ({len} bytes)", key[..24].escape_ascii()),
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}({})", self.tag, self.len)
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(f, "{}:{}={value:?}", self.space, show_key(&self.key)),
            None => write!(f, "{}:{} deleted", self.space, show_key(&self.key)),
        }
    }
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Move::First => f.write_str("first"),
            Move::Last => f.write_str("last"),
            Move::Seek(key) => write!(f, "seek {}", show_key(key)),
            Move::SeekForPrev(key) => write!(f, "seek_for_prev {}", show_key(key)),
            Move::SeekBefore(key) => write!(f, "seek_before {}", show_key(key)),
            Move::Next => f.write_str("next"),
            Move::Prev => f.write_str("prev"),
        }
    }
}

fn show_at(at: Option<u8>) -> String {
    at.map_or(String::new(), |slot| format!(" at snapshot {slot}"))
}

fn show_bound(bound: &Bound<Vec<u8>>) -> String {
    match bound {
        Bound::Included(key) => format!("[{}]", show_key(key)),
        Bound::Excluded(key) => format!("({})", show_key(key)),
        Bound::Unbounded => "open".to_string(),
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Commit { writes, single, durability, wait } => {
                let how = if *single && writes.len() == 1 { "write" } else { "batch" };
                let wait = if *wait { ", wait_durable" } else { "" };
                write!(f, "{how} {durability}{wait} {writes:?}")
            }
            Operation::Get { space, key, at, lookup } => {
                write!(f, "{lookup:?} {space}:{}{}", show_key(key), show_at(*at))
            }
            Operation::MultiGet { space, keys } => {
                let keys: Vec<String> = keys.iter().map(|key| show_key(key)).collect();
                write!(f, "multi_get {space}: {}", keys.join(" "))
            }
            Operation::Snapshot(slot) => write!(f, "snapshot into {slot}"),
            Operation::Release(slot) => write!(f, "release snapshot {slot}"),
            Operation::Compare(at) => write!(f, "compare all{}", show_at(*at)),
            Operation::OpenCursor { slot, space, at } => {
                write!(f, "cursor {slot} on {space}{}", show_at(*at))
            }
            Operation::MoveCursor { slot, moves } => write!(f, "cursor {slot}: {moves:?}"),
            Operation::CloseCursor(slot) => write!(f, "close cursor {slot}"),
            Operation::Range(range) => {
                let what = match &range.prefix {
                    Some(prefix) => format!("prefix {}", show_key(prefix)),
                    None => format!("range {} to {}", show_bound(&range.lower), show_bound(&range.upper)),
                };
                let ends: String = range.ends.iter().map(|front| if *front { '>' } else { '<' }).collect();
                write!(
                    f,
                    "{what} of {}{}, limit {:?}, keys_only {}, reversed {}, ends {ends}",
                    range.space,
                    show_at(range.at),
                    range.limit,
                    range.keys_only,
                    range.reversed
                )
            }
            Operation::Sync => f.write_str("sync"),
            Operation::Flush => f.write_str("flush"),
            Operation::CompactRange { space, lower, upper } => {
                write!(f, "compact_range {space}: {}..{}", show_key(lower), show_key(upper))
            }
            Operation::Compact => f.write_str("compact"),
            Operation::Background(step) => write!(f, "background {step:?}"),
            Operation::WaitForBackground => f.write_str("wait_for_background"),
            Operation::CreateSpace(space) => write!(f, "create keyspace {space}"),
            Operation::DropSpace(space) => write!(f, "drop keyspace {space}"),
            Operation::Reopen(None) => f.write_str("reopen"),
            Operation::Reopen(Some(tuning)) => write!(f, "reopen with settings {tuning}"),
            Operation::Pause => f.write_str("pause"),
            Operation::Resume => f.write_str("resume"),
            Operation::Tick(duration) => write!(f, "{duration:?} pass"),
            Operation::CreateIndex { space, index } => write!(f, "create index {index} of {space}"),
            Operation::DropIndex { space, index } => write!(f, "drop index {index} of {space}"),
            Operation::RebuildIndex { space, index } => write!(f, "rebuild index {index} of {space}"),
            Operation::AskIndex { space, index, at, question } => {
                write!(f, "query index {index} of {space}{}: {question:?}", show_at(*at))
            }
            Operation::Queue { space, from, pushes, pops, len } => {
                write!(f, "queue of {space}: push {from}+{pushes} of {len} bytes, pop {pops}")
            }
            Operation::Overwrite { space, key, times, value } => {
                write!(f, "overwrite {space}:{} {times} times from {value:?}", show_key(key))
            }
            Operation::PowerLoss(seed) => write!(f, "flush, then power loss {seed}"),
        }
    }
}
