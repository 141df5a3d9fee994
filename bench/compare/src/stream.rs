//! Verifiable keys and values: the writes, their order, and the contents that must be found
//! afterwards.
//!
//! A value contains the number of its key and the number of its write; its other bytes follow from
//! these. Therefore every value that an engine returns can be checked without a copy of the data. A
//! replay of the same stream yields the last write of every key.
use crate::settings::Settings;
use fastrand::Rng;
use sapwood_bench::keys::{KeyBuffer, Numbers, Order};
use sapwood_bench::values::{Sizes, ValuePool};
use sapwood_bench::zipfian::spread;
use std::fs;
use std::io;
use std::path::Path;

/// Bytes of a value that hold the numbers of its key and its write.
const HEAD: usize = 16;

/// Makes and checks values.
pub struct Values {
    pool: Vec<u8>,
    value_bytes: usize,
}

impl Values {
    /// Values of the configured size; their bytes compress to a half.
    pub fn new(settings: &Settings) -> Values {
        let pool = ValuePool::new(0.5, Sizes::Fixed(1 << 20));
        let pool = pool.walk(&mut Rng::with_seed(1)).next_value().to_vec();
        Values { pool, value_bytes: settings.value_bytes.max(HEAD) }
    }

    fn body(&self, sequence: u64) -> &[u8] {
        let length = self.value_bytes - HEAD;
        // Consecutive values overlap in the pool, so that making values costs no cache miss.
        let places = (self.pool.len() - length) as u64;
        let start = (sequence.wrapping_mul(length as u64 + 7) % places) as usize;
        &self.pool[start..start + length]
    }

    /// Makes the value of `number` by write `sequence` in `value`.
    #[inline]
    pub fn make(&self, number: u64, sequence: u64, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(&sequence.to_le_bytes());
        value.extend_from_slice(self.body(sequence));
    }

    /// The numbers of key and write of a value, if all its bytes are right.
    pub fn check(&self, value: &[u8]) -> Option<(u64, u64)> {
        let (number, rest) = value.split_first_chunk::<8>()?;
        let (sequence, body) = rest.split_first_chunk::<8>()?;
        let sequence = u64::from_le_bytes(*sequence);
        (body == self.body(sequence)).then_some((u64::from_le_bytes(*number), sequence))
    }
}

/// The secondary key of a row: eight bytes that differ for every write and are spread evenly.
#[inline]
pub fn index_key_of(value: &[u8]) -> [u8; 8] {
    let sequence = value.get(8..HEAD).and_then(|bytes| bytes.first_chunk());
    index_key_of_write(sequence.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}

/// The secondary key of the row of write `sequence`.
#[inline]
pub fn index_key_of_write(sequence: u64) -> [u8; 8] {
    spread(sequence).to_be_bytes()
}

/// The number of a key.
pub fn number_of(key: &[u8]) -> u64 {
    key.first_chunk::<8>().map_or(u64::MAX, |head| u64::from_be_bytes(*head))
}

/// A stream of writes: keys and values in some order.
pub struct Writes<'a> {
    values: &'a Values,
    numbers: Numbers,
    random: Rng,
    keys: KeyBuffer,
    value: Vec<u8>,
    sequence: u64,
}

impl<'a> Writes<'a> {
    /// A stream that restarts with the same arguments. The first write has the number `sequence`.
    pub fn new(
        settings: &Settings,
        values: &'a Values,
        order: Order,
        seed: u64,
        sequence: u64,
    ) -> Writes<'a> {
        let mut random = Rng::with_seed(seed);
        Writes {
            values,
            numbers: Numbers::new(order, settings.rows, &mut random),
            random,
            keys: KeyBuffer::new(settings.key_bytes, 0, 0, settings.rows),
            value: Vec::with_capacity(settings.value_bytes),
            sequence,
        }
    }

    /// The next key and value.
    #[inline]
    pub fn next(&mut self) -> (&[u8], &[u8]) {
        let number = self.numbers.next(&mut self.random);
        self.values.make(number, self.sequence, &mut self.value);
        self.sequence += 1;
        (self.keys.make(number), &self.value)
    }

    /// Records the next `count` writes as done.
    pub fn replay(&mut self, count: u64, history: &mut History) {
        for _ in 0..count {
            let number = self.numbers.next(&mut self.random) as usize;
            history.rows += u64::from(history.last[number] == ABSENT);
            history.last[number] = self.sequence as u32;
            self.sequence += 1;
        }
        history.next_sequence = history.next_sequence.max(self.sequence);
    }
}

/// The existing keys, and the last write of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// By number; [`ABSENT`] if the key was never written.
    last: Vec<u32>,
    rows: u64,
    /// The number of the next write.
    pub next_sequence: u64,
    /// Whether the last write of every key is known: concurrent writers leave it open.
    pub exact: bool,
}

/// A key that was never written.
const ABSENT: u32 = u32::MAX;

impl History {
    /// The history of an empty database.
    pub fn new(rows: u64) -> History {
        History { last: vec![ABSENT; rows as usize], rows: 0, next_sequence: 0, exact: true }
    }

    /// Number of existing keys.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether the key was ever written.
    pub fn contains(&self, number: u64) -> bool {
        self.last.get(number as usize).is_some_and(|last| *last != ABSENT)
    }

    /// The last write of a key.
    pub fn last_write(&self, number: u64) -> Option<u64> {
        self.last.get(number as usize).filter(|last| **last != ABSENT).map(|last| u64::from(*last))
    }

    /// Saves the history for the next process.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.last.len() * 4 + 9);
        bytes.push(u8::from(self.exact));
        bytes.extend_from_slice(&self.next_sequence.to_le_bytes());
        self.last.iter().for_each(|last| bytes.extend_from_slice(&last.to_le_bytes()));
        fs::write(path, bytes)
    }

    /// Loads a saved history.
    pub fn load(path: &Path) -> io::Result<History> {
        let bytes = fs::read(path)?;
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "the history of the database is cut off");
        let (exact, rest) = bytes.split_first().ok_or_else(cut)?;
        let (next_sequence, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let last = rest.chunks_exact(4).map(|chunk| chunk.try_into().map_or(ABSENT, u32::from_le_bytes));
        let last: Vec<u32> = last.collect();
        Ok(History {
            rows: last.iter().filter(|last| **last != ABSENT).count() as u64,
            last,
            next_sequence: u64::from_le_bytes(*next_sequence),
            exact: *exact == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_key_and_its_write_and_tolerates_no_change() {
        let settings = Settings::default();
        let values = Values::new(&settings);
        let mut value = Vec::new();
        values.make(77, 1_234_567, &mut value);
        assert_eq!(value.len(), 100);
        assert_eq!(values.check(&value), Some((77, 1_234_567)));
        assert_eq!(index_key_of(&value), index_key_of_write(1_234_567));
        for at in [8, 16, 99] {
            let mut wrong = value.clone();
            wrong[at] ^= 1;
            assert_ne!(values.check(&wrong), Some((77, 1_234_567)));
        }
        assert_eq!(values.check(&value[..99]), None);
        assert_eq!(values.check(&[]), None);
    }

    #[test]
    fn a_replay_knows_the_last_write_of_every_key() {
        let settings = Settings { rows: 100, ..Settings::default() };
        let values = Values::new(&settings);
        let mut expected = History::new(100);
        let mut writes = Writes::new(&settings, &values, Order::Random, 5, 1000);
        for _ in 0..200 {
            let (key, value) = writes.next();
            let (number, sequence) = values.check(value).unwrap();
            assert_eq!(number_of(key), number);
            expected.rows += u64::from(expected.last[number as usize] == ABSENT);
            expected.last[number as usize] = sequence as u32;
        }
        expected.next_sequence = 1200;
        let mut history = History::new(100);
        Writes::new(&settings, &values, Order::Random, 5, 1000).replay(200, &mut history);
        assert_eq!(history, expected);
        assert!((80..95).contains(&history.rows()));

        let file = tempfile::NamedTempFile::new().unwrap();
        history.exact = false;
        history.save(file.path()).unwrap();
        assert_eq!(History::load(file.path()).unwrap(), history);
        assert!(!history.contains(150) && History::load(file.path()).unwrap().rows() == history.rows());
        fs::write(file.path(), [1, 2]).unwrap();
        assert!(History::load(file.path()).is_err());
    }
}
