//! The secondary indexes of the simulation, and their expected content (O5).
//!
//! The number of an index determines everything about it, so a database after a crash can be
//! checked without its history: every index in its list must agree with its rows.
use crate::oracle::Map;
use crate::sim::driver::{Outcome, Stop};
use crate::sim::operation::show_key;
use sapwood::{
    Builtin, Emit, ErrorKind, Field, Index, IndexOptions, KeyKind, Keyspace, Maintenance, Snapshot,
};
use sapwood_base::key::key_hash;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The number of different indexes that a keyspace can have.
pub const INDEXES: u8 = 4;

/// Index key and primary key.
pub type EntryKey = (Vec<u8>, Vec<u8>);

/// The content of an index: covering bytes by entry, in the order of the index.
pub type Entries = BTreeMap<EntryKey, Vec<u8>>;

/// A query of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// All entries, in either direction.
    All {
        /// In reverse.
        reversed: bool,
    },
    /// One index key.
    Get(Vec<u8>),
    /// A prefix of index keys.
    Prefix(Vec<u8>),
    /// A range, in either direction.
    Range {
        /// The lower bound.
        lower: Bound<Vec<u8>>,
        /// The upper bound.
        upper: Bound<Vec<u8>>,
        /// In reverse.
        reversed: bool,
        /// The most entries.
        limit: Option<u8>,
    },
    /// The number of entries of a range.
    Count {
        /// The lower bound.
        lower: Bound<Vec<u8>>,
        /// The upper bound.
        upper: Bound<Vec<u8>>,
    },
    /// The number of entries below an index key. Without a snapshot only.
    Rank(Vec<u8>),
    /// The entry at a position. Without a snapshot only.
    Nth(u16),
}

/// The name of index number `index`.
pub fn index_name(index: u8) -> String {
    format!("index-{index}")
}

/// The number of the index `name`.
pub fn index_number(name: &str) -> Option<u8> {
    name.strip_prefix("index-")?.parse().ok().filter(|index| *index < INDEXES)
}

/// The options of index number `index`.
pub fn options(index: u8) -> IndexOptions {
    match index {
        0 => IndexOptions::new(letters),
        // Without code: it is maintained from the open on, by any program.
        1 => IndexOptions::builtin(
            Builtin::new(Field::value().range(0, 1), KeyKind::Bytes).covering(Field::value().range(1, 2)),
        ),
        2 => IndexOptions::new(letters).maintenance(Maintenance::Strict),
        _ => IndexOptions::new(identity).unique(true),
    }
}

/// Whether commits to rows with index number `index` are in the log regardless of their durability:
/// strict indexes and unique ones.
pub fn needs_log(index: u8) -> bool {
    index >= 2
}

/// A letter for each of the first bytes, so that rows share index keys and have several; and the
/// length of the value.
fn letters(_key: &[u8], value: &[u8], emit: &mut Emit<'_>) {
    for byte in value.iter().take(3) {
        emit.entry([b'a' + byte % 8], (value.len() as u32).to_be_bytes());
    }
}

/// One index key for each row, different from all others.
fn identity(key: &[u8], value: &[u8], emit: &mut Emit<'_>) {
    emit.entry(key_hash(key).to_be_bytes(), value.get(..1).unwrap_or_default());
}

/// The expected content of index number `index` for these rows. An independent implementation of
/// the extractors.
pub fn expected(index: u8, rows: &Map) -> Entries {
    let mut entries = Entries::new();
    for (key, value) in rows {
        match index {
            0 | 2 => {
                let len = (value.len() as u32).to_be_bytes().to_vec();
                for byte in value.iter().take(3) {
                    entries.insert((vec![b'a' + byte % 8], key.clone()), len.clone());
                }
            }
            1 => {
                if let Some(first) = value.first() {
                    let covering = value.get(1..3).unwrap_or_default().to_vec();
                    entries.insert((vec![*first], key.clone()), covering);
                }
            }
            _ => {
                let first = value.iter().take(1).copied().collect();
                entries.insert((key_hash(key).to_be_bytes().to_vec(), key.clone()), first);
            }
        }
    }
    entries
}

fn violation<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Stop::Violation(what.into()))
}

/// Runs a query and compares its result with the expected content. `Ok(false)` if the index is
/// unavailable for this state.
pub fn ask(index: &Index, at: Option<&Snapshot>, question: &Question, want: &Entries) -> Outcome<bool> {
    let number = |result: sapwood::Result<u64>, want: usize| -> Outcome<bool> {
        match result {
            Ok(got) if got == want as u64 => Ok(true),
            Ok(got) => violation(format!("O5: {}: {question:?} returns {got}, not {want}", index.name())),
            Err(error) if error.kind() == ErrorKind::IndexUnavailable => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    let in_range = |lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>| {
        let (lower, upper) = (lower.clone(), upper.clone());
        want.iter().filter(move |((key, _), _)| {
            (match &lower {
                Bound::Included(lower) => key >= lower,
                Bound::Excluded(lower) => key > lower,
                Bound::Unbounded => true,
            }) && match &upper {
                Bound::Included(upper) => key <= upper,
                Bound::Excluded(upper) => key < upper,
                Bound::Unbounded => true,
            }
        })
    };
    let (iter, mut wanted, reversed, limit): (_, Vec<_>, bool, Option<u8>) = match question {
        Question::All { reversed } => (index.iter(), want.iter().collect(), *reversed, None),
        Question::Get(key) => {
            let wanted = want.iter().filter(|((index_key, _), _)| index_key == key).collect();
            (index.get(key), wanted, false, None)
        }
        Question::Prefix(prefix) => {
            let wanted = want.iter().filter(|((index_key, _), _)| index_key.starts_with(prefix)).collect();
            (index.prefix(prefix), wanted, false, None)
        }
        Question::Range { lower, upper, reversed, limit } => {
            let range = (lower.clone(), upper.clone());
            (index.range(range), in_range(lower, upper).collect(), *reversed, *limit)
        }
        Question::Count { lower, upper } => {
            let range = (lower.clone(), upper.clone());
            let got = match at {
                Some(at) => index.count_at(range, at),
                None => index.count(range),
            };
            return number(got, in_range(lower, upper).count());
        }
        Question::Rank(key) => {
            return number(index.rank(key), want.keys().filter(|(other, _)| other < key).count());
        }
        Question::Nth(n) => {
            let got = match index.nth(u64::from(*n)) {
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::IndexUnavailable => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let got = got
                .map(|hit| ((hit.index_key().to_vec(), hit.primary_key().to_vec()), hit.covering().to_vec()));
            let want =
                want.iter().nth(usize::from(*n)).map(|(key, covering)| (key.clone(), covering.clone()));
            if got != want {
                return violation(format!(
                    "O5: {}: {question:?} returns {got:?}, not {want:?}",
                    index.name()
                ));
            }
            return Ok(true);
        }
    };
    let iter = if let Some(at) = at { iter.at(at) } else { iter };
    let iter = if reversed { iter.rev() } else { iter };
    let iter = if let Some(limit) = limit { iter.limit(usize::from(limit)) } else { iter };
    if reversed {
        wanted.reverse();
    }
    wanted.truncate(limit.map_or(usize::MAX, usize::from));
    let mut wanted = wanted.into_iter();
    for hit in iter {
        let hit = match hit {
            Ok(hit) => hit,
            Err(error) if error.kind() == ErrorKind::IndexUnavailable => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let next = wanted.next();
        let is_right = next.is_some_and(|((index_key, primary_key), covering)| {
            hit.index_key() == index_key && hit.primary_key() == primary_key && hit.covering() == covering
        });
        if !is_right {
            return violation(format!(
                "O5: {}: {question:?} returns {} of row {} covering {:?}, {}",
                index.name(),
                show_key(hit.index_key()),
                show_key(hit.primary_key()),
                hit.covering(),
                show(next)
            ));
        }
    }
    match wanted.next() {
        None => Ok(true),
        missing => violation(format!("O5: {}: {question:?} ends, {}", index.name(), show(missing))),
    }
}

fn show(entry: Option<(&EntryKey, &Vec<u8>)>) -> String {
    match entry {
        None => "not the end".to_string(),
        Some(((index_key, primary_key), covering)) => {
            format!("not {} of row {} covering {covering:?}", show_key(index_key), show_key(primary_key))
        }
    }
}

/// Reads all entries in both directions, and their count.
pub fn compare(keyspace: &Keyspace, index: u8, at: Option<&Snapshot>, rows: &Map) -> Outcome<bool> {
    let want = expected(index, rows);
    let handle = keyspace.index(&index_name(index))?;
    let count = Question::Count { lower: Bound::Unbounded, upper: Bound::Unbounded };
    for question in [Question::All { reversed: false }, Question::All { reversed: true }, count] {
        if !ask(&handle, at, &question, &want)? {
            return Ok(false);
        }
    }
    Ok(true)
}
