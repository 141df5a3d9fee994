//! From a row to its index entries, as emitted by the application's extractor or a built-in one.
//!
//! An extractor is a function of key and value alone. It is called again for the same row, on other
//! threads and in later sessions: for the old row of an overwrite, by the online build, by
//! verification. It must emit the same every time; when its code changes, its version in the
//! definition of the index changes too.
//!
//! Entries are *composites* (`sapwood_base::ordered::composite`): escaped index key, end, primary
//! key. The buffer is reused from row to row, so that extraction allocates nothing once it has
//! grown.
use sapwood_base::format::btree_page::MAX_TREE_VALUE_BYTES;
use sapwood_base::ordered::Ordered;
use sapwood_base::ordered::composite::{composite_len, put_composite};
use sapwood_base::{Error, MAX_KEY_BYTES, Result};
use std::fmt;

mod builtin;

pub use builtin::BuiltinExtractor;

/// The most that one row may emit to one index, in bytes: every entry counts with its key, the
/// primary key and its covering bytes. Each entry is written in full, so a row with a long indexed
/// array and long covering bytes would otherwise become many times its own length.
pub const MAX_EMITTED_BYTES: usize = 64 << 20;

/// Emits the index keys of a row. Implemented by closures; [`Emit`] lists the calls available to
/// them.
pub trait Extractor: Send + Sync + 'static {
    /// Emits zero or more index keys for the row. Must not panic, and must emit the same whenever
    /// it is called for the same row.
    fn extract(&self, key: &[u8], value: &[u8], emit: &mut Emit<'_>);
}

impl<F: Fn(&[u8], &[u8], &mut Emit<'_>) + Send + Sync + 'static> Extractor for F {
    fn extract(&self, key: &[u8], value: &[u8], emit: &mut Emit<'_>) {
        self(key, value, emit);
    }
}

/// Takes the index keys of one row.
///
/// Keys may be emitted in any order and more than once; if a key is emitted twice, the later
/// covering bytes count. A row that emits more than [`MAX_EMITTED_BYTES`] is refused.
pub struct Emit<'a> {
    buffer: &'a mut EmitBuffer,
    primary_key: &'a [u8],
}

impl fmt::Debug for Emit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emit").field("entries", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Emit<'_> {
    /// Emits an index key: bytes that compare as the index shall be sorted.
    ///
    /// ```
    /// let words = sapwood::IndexOptions::new(|_key, value, emit| {
    ///     for word in value.split(|byte| *byte == b' ') {
    ///         emit.key(word);
    ///     }
    /// });
    /// # let _ = words;
    /// ```
    #[inline]
    pub fn key(&mut self, index_key: impl AsRef<[u8]>) {
        self.entry(index_key, []);
    }

    /// Emits an index key with covering bytes (at most 16 MiB), which a query returns without
    /// reading the row.
    ///
    /// ```
    /// let by_length = sapwood::IndexOptions::new(|_key, value, emit| emit.entry([value.len() as u8], value));
    /// # let _ = by_length;
    /// ```
    #[inline]
    pub fn entry(&mut self, index_key: impl AsRef<[u8]>, covering: impl AsRef<[u8]>) {
        self.buffer.push(index_key.as_ref(), self.primary_key, covering.as_ref());
    }

    /// Emits a number, string or tuple in its order-preserving form (`sapwood::ordered`).
    ///
    /// ```
    /// let by_length = sapwood::IndexOptions::new(|_key, value, emit| emit.value(&(value.len() as u64)));
    /// # let _ = by_length;
    /// ```
    #[inline]
    pub fn value<T: Ordered + ?Sized>(&mut self, value: &T) {
        self.value_entry(value, []);
    }

    /// Emits a number, string or tuple in its order-preserving form, with covering bytes.
    ///
    /// ```
    /// let by_length =
    ///     sapwood::IndexOptions::new(|_key, value, emit| emit.value_entry(&(value.len() as u64), value));
    /// # let _ = by_length;
    /// ```
    pub fn value_entry<T: Ordered + ?Sized>(&mut self, value: &T, covering: impl AsRef<[u8]>) {
        self.with_scratch(covering.as_ref(), |scratch| {
            value.put_ordered(scratch);
            true
        });
    }

    /// Emits the bytes that `fill` writes into an empty buffer, if it returns `true`.
    fn with_scratch(&mut self, covering: &[u8], fill: impl FnOnce(&mut Vec<u8>) -> bool) {
        let mut scratch = std::mem::take(&mut self.buffer.scratch);
        scratch.clear();
        if fill(&mut scratch) {
            self.buffer.push(&scratch, self.primary_key, covering);
        }
        self.buffer.scratch = scratch;
    }
}

/// Positions of the parts of an entry in the bytes of a buffer.
#[derive(Clone, Copy, Debug)]
struct Emitted {
    composite: Part,
    covering: Part,
}

/// A part of a buffer, whose length always fits a `u32`: see [`MAX_EMITTED_BYTES`].
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    start: u32,
    end: u32,
}

impl Part {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// The reason why the entries of a row are refused.
#[derive(Clone, Copy, Debug)]
enum Refused {
    TooLong { composite: usize, covering: usize },
    TooMuch,
}

/// The entries of one row: sorted, each composite once.
#[derive(Debug, Default)]
pub struct EmitBuffer {
    bytes: Vec<u8>,
    entries: Vec<Emitted>,
    scratch: Vec<u8>,
    /// Bytes that the row has emitted so far; `bytes` may hold less.
    emitted: usize,
    refused: Option<Refused>,
}

impl EmitBuffer {
    /// Replaces the content with the entries of a row.
    ///
    /// Errors: `InvalidArgument` if an index key or its covering bytes are too long, or if there is
    /// more than [`MAX_EMITTED_BYTES`] in all; the buffer is empty then.
    pub fn fill<E: Extractor + ?Sized>(&mut self, extractor: &E, key: &[u8], value: &[u8]) -> Result<()> {
        self.clear();
        extractor.extract(key, value, &mut Emit { buffer: self, primary_key: key });
        if let Some(refused) = self.refused {
            self.clear();
            return Err(Error::invalid_argument(refused.message()));
        }
        if self.entries.len() > 1 {
            self.sort();
        }
        Ok(())
    }

    /// The memory that is kept for the next row, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.scratch.capacity() + self.entries.capacity() * size_of::<Emitted>()
    }

    /// The entries in ascending order: composite, covering bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (entry.composite.of(&self.bytes), entry.covering.of(&self.bytes)))
    }

    /// Whether `composite` is the key of an entry.
    pub fn contains(&self, composite: &[u8]) -> bool {
        self.covering_of(composite).is_some()
    }

    /// The covering bytes of the entry whose key is `composite`.
    pub fn covering_of(&self, composite: &[u8]) -> Option<&[u8]> {
        let key = |entry: &Emitted| entry.composite.of(&self.bytes);
        let at = self.entries.binary_search_by(|entry| key(entry).cmp(composite)).ok()?;
        Some(self.entries[at].covering.of(&self.bytes))
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.emitted = 0;
        self.refused = None;
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the row has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline]
    fn push(&mut self, index_key: &[u8], primary_key: &[u8], covering: &[u8]) {
        if self.refused.is_some() {
            return;
        }
        // Escapes can only make it longer. A key that is too long already is not copied at all.
        let least = index_key.len() + primary_key.len();
        if least > MAX_KEY_BYTES || covering.len() > MAX_TREE_VALUE_BYTES {
            let composite = composite_len(index_key, primary_key);
            self.refused = Some(Refused::TooLong { composite, covering: covering.len() });
            return;
        }
        if self.emitted + least + covering.len() > MAX_EMITTED_BYTES {
            self.refused = Some(Refused::TooMuch);
            return;
        }
        let start = self.bytes.len();
        put_composite(&mut self.bytes, index_key, primary_key);
        let key_end = self.bytes.len();
        let composite = key_end - start;
        if composite > MAX_KEY_BYTES {
            self.refused = Some(Refused::TooLong { composite, covering: covering.len() });
            return;
        }
        self.emitted += composite + covering.len();
        let composite = Part { start: start as u32, end: key_end as u32 };
        // The entries of a row mostly have the same covering bytes, which need not be stored more
        // than once.
        let covering = match self.entries.last().map(|last| last.covering) {
            Some(last) if last.of(&self.bytes) == covering => last,
            _ => {
                self.bytes.extend_from_slice(covering);
                Part { start: key_end as u32, end: self.bytes.len() as u32 }
            }
        };
        self.entries.push(Emitted { composite, covering });
    }

    /// Sorts the entries and keeps the last of equal ones.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        let key = |entry: &Emitted| entry.composite.of(bytes);
        // Stable, so that the last of equal keys stays the last.
        self.entries.sort_by(|a, b| key(a).cmp(key(b)));
        self.entries.dedup_by(|later, earlier| {
            let same = key(later) == key(earlier);
            if same {
                *earlier = *later;
            }
            same
        });
    }
}

impl Refused {
    fn message(self) -> String {
        match self {
            Refused::TooLong { composite, covering } => format!(
                "an index key has at most {MAX_KEY_BYTES} bytes with its primary key, not {composite}, and at most \
                 {MAX_TREE_VALUE_BYTES} covering bytes, not {covering}"
            ),
            Refused::TooMuch => format!(
                "a row has at most {MAX_EMITTED_BYTES} bytes of entries in an index, keys and covering bytes counted \
                 for each; index fewer elements, or cover less"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapwood_base::ErrorKind;

    fn entries(extractor: &dyn Extractor, key: &[u8], value: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut buffer = EmitBuffer::default();
        buffer.fill(extractor, key, value).unwrap();
        buffer.iter().map(|(key, covering)| (key.to_vec(), covering.to_vec())).collect()
    }

    #[test]
    fn closures_are_extractors_and_their_entries_come_sorted_and_once() {
        let words = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| {
            for (i, word) in value.split(|byte| *byte == b' ').enumerate() {
                emit.entry(word, [i as u8]);
            }
        };
        let found = entries(&words, b"pk", b"b a b c");
        let expected = [(&b"a\0pk"[..], 1), (b"b\0pk", 2), (b"c\0pk", 3)];
        assert_eq!(found, expected.map(|(key, covering)| (key.to_vec(), vec![covering])));
    }

    #[test]
    fn values_are_emitted_in_their_order() {
        let extractor = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| {
            emit.value(&("a", value.len() as u16));
            emit.value_entry(&-1i8, b"covered");
        };
        let found = entries(&extractor, b"k", b"12345");
        // The tuple is 61 00 00 05, the end of its string among the zeros, and these are escaped.
        assert_eq!(found[0], (b"a\x01\x01\x01\x01\x05\0k".to_vec(), Vec::new()));
        assert_eq!(found[1], (b"\x7F\0k".to_vec(), b"covered".to_vec()));
    }

    #[test]
    fn a_buffer_forgets_the_row_before_and_refuses_long_keys() {
        let mut buffer = EmitBuffer::default();
        let whole = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.key(value);
        buffer.fill(&whole, b"k", b"v").unwrap();
        assert_eq!(buffer.len(), 1);
        let error = buffer.fill(&whole, b"k", &vec![b'x'; MAX_KEY_BYTES]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(buffer.is_empty());
        buffer.fill(&whole, b"k", &vec![b'x'; MAX_KEY_BYTES - 2]).unwrap();
        assert_eq!(buffer.iter().next().unwrap().0.len(), MAX_KEY_BYTES);
        // An entry that the tree could not hold is refused before it is written anywhere.
        let covering = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.entry("i", value);
        buffer.fill(&covering, b"k", &vec![0; MAX_TREE_VALUE_BYTES]).unwrap();
        let error = buffer.fill(&covering, b"k", &vec![0; MAX_TREE_VALUE_BYTES + 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        buffer.fill(&|_: &[u8], _: &[u8], _: &mut Emit<'_>| (), b"k", b"v").unwrap();
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_all_entries_cover_is_held_once_and_counts_for_each() {
        let extractor = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| {
            for i in 0..u32::from_be_bytes(value[..4].try_into().unwrap()) {
                emit.value_entry(&i, value);
            }
        };
        let row = |entries: u32| {
            let mut value = vec![b'x'; 100_000];
            value[..4].copy_from_slice(&entries.to_be_bytes());
            value
        };
        let mut buffer = EmitBuffer::default();
        buffer.fill(&extractor, b"k", &row(600)).unwrap();
        assert_eq!(buffer.len(), 600);
        assert!(buffer.iter().all(|(_, covering)| covering == row(600)));
        assert!(buffer.bytes.len() < 120_000, "{} bytes", buffer.bytes.len());
        // Written in full, that would be ten gigabytes.
        let error = buffer.fill(&extractor, b"k", &row(100_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("67108864 bytes"), "{error}");
        assert!(buffer.is_empty() && buffer.bytes.capacity() < 1 << 20);
        buffer.fill(&extractor, b"k", &row(1)).unwrap();
        assert_eq!(buffer.len(), 1);
    }

    #[test]
    fn covering_bytes_that_differ_stay_apart() {
        let extractor = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| {
            for (i, word) in value.split(|byte| *byte == b' ').enumerate() {
                emit.value_entry(&(9 - i as u8), word);
            }
        };
        let found = entries(&extractor, b"k", b"a a b  b a");
        let covering: Vec<&[u8]> = found.iter().map(|(_, covering)| covering.as_slice()).collect();
        assert_eq!(covering, [&b"a"[..], b"b", b"", b"b", b"a", b"a"]);
    }
}
