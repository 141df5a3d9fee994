//! One generation of the memtable: all keyspaces of a database between two rotations.
//!
//! Write path: check the keyspace, prefetch the filter's word, link the record into the keyspace's
//! skiplist, mark the key in the filter. Read path: filter, then skiplist. A list is created at the
//! first insert into its keyspace, so an unwritten keyspace costs nothing.
//!
//! Inserts are linearizable: a read finds every insert that happened before it.
use crate::arena::{Arena, LargeValue};
use crate::filter::Filter;
use crate::skiplist::node::MAX_RELATIVE;
use crate::skiplist::{PrefixCoding, Skiplist};
use parking_lot::Mutex;
use sapwood_base::key::MAX_KEYSPACES;
use sapwood_base::{Error, KeyspaceId, Lookup, Result, SequenceNumber, ValueKind};
use std::sync::Arc;

use lists::Lists;

pub mod iterator;
mod lists;
pub mod bulk;
pub mod scan;

/// Overhead of an entry besides key and value, in bytes: a header, rounding, and its share of a
/// leaf, which may be almost empty.
pub const ENTRY_BYTES: usize = 80;
/// Memtables above this size order every entry at once.
const MOST_APPENDED_BYTES: usize = 512 << 20;

/// A sorted, concurrent, insert-only map from (keyspace, key, sequence number) to a put or a
/// delete.
///
/// Every method may be called from any thread. When the last reference is gone the arena returns to
/// its pool.
///
/// A memtable accepts [`Memtable::SPAN`] sequence numbers from its first one on. An entry stores
/// the distance from the first, so that sequence number, kind and key length fit into one word.
pub struct Memtable {
    id: u64,
    /// No entry has a lower number.
    first: SequenceNumber,
    lists: Lists,
    /// Keyspaces whose list exists, in order of creation. Locked while a list is created.
    created: Mutex<Vec<KeyspaceId>>,
    arena: Arena,
}

/// The result of a lookup. Borrows from the memtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Put or delete.
    pub kind: ValueKind,
    /// Sequence number of the write.
    pub sequence: SequenceNumber,
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

impl Memtable {
    /// Number of sequence numbers that a memtable accepts, from its first one on.
    pub const SPAN: u64 = MAX_RELATIVE.0;

    /// Creates an empty memtable in `arena`, whose first sequence number is 0.
    pub fn new(id: u64, arena: Arena) -> Arc<Memtable> {
        Memtable::starting_at(SequenceNumber::ZERO, id, arena)
    }

    /// Creates an empty memtable in `arena` for sequence numbers from `first` on.
    pub fn starting_at(first: SequenceNumber, id: u64, arena: Arena) -> Arc<Memtable> {
        Arc::new(Memtable { id, first, lists: Lists::new(), created: Mutex::default(), arena })
    }

    /// Relative sequence number of an entry in the skiplist: 1 for the first one.
    #[inline]
    fn relative(&self, sequence: SequenceNumber) -> Result<SequenceNumber> {
        let distance = sequence.0.wrapping_sub(self.first.0);
        if distance < Memtable::SPAN {
            return Ok(SequenceNumber(distance + 1));
        }
        Err(out_of_span(self.first, sequence))
    }

    /// The relative number at which a reader at `sequence` reads. 0, below all entries, if
    /// `sequence` is before the first.
    #[inline]
    fn seen_at(&self, sequence: SequenceNumber) -> SequenceNumber {
        SequenceNumber((sequence.0 + 1).saturating_sub(self.first.0))
    }

    /// The sequence number of a relative one.
    #[inline]
    fn absolute(&self, relative: SequenceNumber) -> SequenceNumber {
        SequenceNumber(self.first.0 + relative.0 - 1)
    }

    /// The number given to [`Memtable::new`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Inserts one entry. `hash` is `sapwood_base::key::key_hash(key)`.
    ///
    /// Runs concurrently with everything. The pair of key and sequence number should be new in its
    /// keyspace; of two equal pairs lookups find the later. Sequence numbers of one key may arrive
    /// in any order.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full, `InvalidArgument` when keyspace, key, value or sequence
    /// number is out of range. On an error nothing is inserted.
    pub fn insert(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<()> {
        let filter = self.filter();
        filter.prefetch(keyspace, hash);
        let list = self.list_to_fill(keyspace)?;
        let relative = self.relative(sequence)?;
        list.insert(&self.arena, key, relative, kind, value, seed_of(hash, sequence))?;
        filter.insert(keyspace, hash);
        Ok(())
    }

    /// The list of a keyspace, created if absent.
    #[inline]
    fn list_to_fill(&self, keyspace: KeyspaceId) -> Result<&Skiplist> {
        match self.list(keyspace) {
            Some(list) => Ok(list),
            None => self.create(keyspace),
        }
    }

    /// [`Memtable::insert`] of an already copied value: the remaining work does not depend on its
    /// length.
    ///
    /// # Errors
    /// As [`Memtable::insert`].
    pub fn insert_large(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        kind: ValueKind,
        value: LargeValue,
    ) -> Result<()> {
        let list = self.list_to_fill(keyspace)?;
        let relative = self.relative(sequence)?;
        list.insert_large(&self.arena, key, relative, kind, value, seed_of(hash, sequence))?;
        self.filter().insert(keyspace, hash);
        Ok(())
    }

    /// Returns the newest version that `lookup` sees.
    #[inline]
    pub fn get(&self, keyspace: KeyspaceId, lookup: Lookup<'_>) -> Option<Found<'_>> {
        let Lookup { key, hash, sequence } = lookup;
        if !self.filter().may_contain(keyspace, hash) {
            return None;
        }
        let record = self.list(keyspace)?.get(&self.arena, key, self.seen_at(sequence))?;
        let sequence = self.absolute(record.sequence());
        Some(Found { kind: record.kind(), sequence, value: record.value() })
    }

    /// Whether a key with this hash may be in `keyspace`; never `false` for a present key.
    /// [`Memtable::get`] includes this check.
    pub fn may_contain(&self, keyspace: KeyspaceId, hash: u64) -> bool {
        self.filter().may_contain(keyspace, hash)
    }

    /// Prefetches the cache line that [`Memtable::get`] reads first.
    #[inline]
    pub fn prefetch(&self, keyspace: KeyspaceId, hash: u64) {
        self.filter().prefetch(keyspace, hash);
    }

    /// Hint: most keys of each keyspace will resemble its keys in `previous`.
    ///
    /// # Errors
    /// As [`Memtable::insert`].
    pub fn expect_prefixes_of(&self, previous: &Arc<Memtable>) -> Result<()> {
        for keyspace in previous.keyspaces() {
            let Some(list) = previous.list(keyspace) else { continue };
            // Ordering the list only for this would cost more than it saves.
            if list.is_unsettled() {
                continue;
            }
            let base = list.learned(&previous.arena);
            if !base.is_plain() {
                self.create_as(keyspace, base, false)?;
            }
        }
        Ok(())
    }

    /// Hint: `keyspace` will probably be written but not read before the memtable is flushed.
    /// Inserts then append entries unordered, and the first positioning of an iterator orders them:
    /// inserts cost less, and the first reader waits. Has an effect only before the keyspace's
    /// first insert.
    ///
    /// # Errors
    /// As [`Memtable::insert`].
    pub fn expect_appends(&self, keyspace: KeyspaceId) -> Result<()> {
        // Ordering the entries needs memory, which must be available at that time.
        if self.arena.size_bytes() > MOST_APPENDED_BYTES {
            return Ok(());
        }
        self.create_as(keyspace, PrefixCoding::default(), true).map(|_| ())
    }

    /// Whether an iterator was ever positioned in `keyspace`.
    pub fn was_read(&self, keyspace: KeyspaceId) -> bool {
        self.list(keyspace).is_some_and(Skiplist::was_read)
    }

    /// Memory in use, in bytes. Includes whole chunks of at most 32 KiB, one per writing thread.
    #[inline]
    pub fn size_bytes(&self) -> usize {
        self.arena.used_bytes()
    }

    /// Memory that further entries can take before inserts fail, in bytes; far more than the
    /// rotation size. An entry takes its key, its value unless that is beyond 256 KiB, and at most
    /// [`ENTRY_BYTES`].
    pub fn room_bytes(&self) -> usize {
        self.arena.room_bytes()
    }

    /// Number of entries in all keyspaces, counting all versions.
    pub fn entries(&self) -> u64 {
        let created = self.created.lock();
        created.iter().filter_map(|keyspace| self.list(*keyspace)).map(Skiplist::entries).sum()
    }

    /// Whether the memtable has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// The keyspaces with entries, ascending.
    pub fn keyspaces(&self) -> impl Iterator<Item = KeyspaceId> + use<> {
        let mut keyspaces = self.created.lock().clone();
        keyspaces.retain(|keyspace| self.entries_of(*keyspace) > 0);
        keyspaces.sort_unstable();
        keyspaces.into_iter()
    }

    /// Number of entries in one keyspace, counting all versions.
    #[inline]
    pub fn entries_of(&self, keyspace: KeyspaceId) -> u64 {
        self.list(keyspace).map_or(0, Skiplist::entries)
    }

    /// Memory of the records of one keyspace in the arena, in bytes. Excludes values beyond 256
    /// KiB.
    pub fn bytes_of(&self, keyspace: KeyspaceId) -> u64 {
        self.list(keyspace).map_or(0, Skiplist::bytes)
    }

    #[inline]
    fn filter(&self) -> Filter<'_> {
        Filter::new(self.arena.filter_words())
    }

    #[inline]
    fn list(&self, keyspace: KeyspaceId) -> Option<&Skiplist> {
        self.lists.get(keyspace)
    }

    #[cold]
    fn create(&self, keyspace: KeyspaceId) -> Result<&Skiplist> {
        self.create_as(keyspace, PrefixCoding::default(), false)
    }

    fn create_as(&self, keyspace: KeyspaceId, base: PrefixCoding, appends: bool) -> Result<&Skiplist> {
        let Some(slot) = self.lists.slot(keyspace) else {
            return Err(Error::invalid_argument(format!(
                "keyspaces have numbers below {MAX_KEYSPACES}, not {keyspace}"
            )));
        };
        let mut created = self.created.lock();
        if let Some(list) = slot.get() {
            return Ok(list);
        }
        let list = Box::new(Skiplist::new(&self.arena, base)?);
        if appends {
            list.expect_appends();
        }
        created.push(keyspace);
        Ok(slot.get_or_init(|| list))
    }
}

#[cold]
fn out_of_span(first: SequenceNumber, sequence: SequenceNumber) -> Error {
    let span = Memtable::SPAN;
    Error::invalid_argument(format!(
        "sequence number {sequence} is none of the {span} of a memtable that begins at {first}"
    ))
}

/// Seed for the height of a new leaf. Includes the sequence number, so that the author of a key
/// cannot choose the height.
#[inline]
fn seed_of(hash: u64, sequence: SequenceNumber) -> u64 {
    let seed = (hash ^ sequence.0.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    seed ^ (seed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::ArenaPool;
    use crate::options::MemtableOptions;
    use sapwood_base::ErrorKind;
    use sapwood_base::iterator::InternalIterator;
    use sapwood_base::key::key_hash;

    fn memtable(size_bytes: usize) -> (Arc<ArenaPool>, Arc<Memtable>) {
        let pool = ArenaPool::new(MemtableOptions { size_bytes });
        let memtable = Memtable::new(1, pool.take().unwrap());
        (pool, memtable)
    }

    fn put(memtable: &Memtable, keyspace: u32, key: &[u8], sequence: u64, value: &[u8]) -> Result<()> {
        let sequence = SequenceNumber(sequence);
        memtable.insert(KeyspaceId(keyspace), key, key_hash(key), sequence, ValueKind::Put, value)
    }

    fn get<'a>(memtable: &'a Memtable, keyspace: u32, key: &[u8], sequence: u64) -> Option<&'a [u8]> {
        let found = memtable.get(KeyspaceId(keyspace), Lookup::new(key, SequenceNumber(sequence)));
        found.map(|found| found.value)
    }

    #[test]
    fn versions_keyspaces_and_counts() {
        let (pool, memtable) = memtable(1 << 20);
        assert!(memtable.is_empty() && memtable.size_bytes() < 1 << 19);
        put(&memtable, 2, b"k", 5, b"five").unwrap();
        put(&memtable, 2, b"k", 9, b"nine").unwrap();
        put(&memtable, 2, b"k", 7, b"seven").unwrap();
        put(&memtable, 0, b"k", 6, b"other").unwrap();
        assert_eq!(get(&memtable, 2, b"k", 4), None);
        assert_eq!(get(&memtable, 2, b"k", 6), Some(&b"five"[..]));
        assert_eq!(get(&memtable, 2, b"k", 8), Some(&b"seven"[..]));
        assert_eq!(get(&memtable, 2, b"k", 100), Some(&b"nine"[..]));
        assert_eq!(get(&memtable, 0, b"k", 100), Some(&b"other"[..]));
        assert_eq!(get(&memtable, 1, b"k", 100), None);
        assert_eq!(get(&memtable, 77, b"k", 100), None);
        assert_eq!(memtable.entries(), 4);
        assert_eq!(memtable.entries_of(KeyspaceId(2)), 3);
        assert!(memtable.bytes_of(KeyspaceId(2)) >= 3 * 18);
        assert_eq!(memtable.keyspaces().collect::<Vec<_>>(), [KeyspaceId(0), KeyspaceId(2)]);
        drop(memtable);
        assert_eq!(pool.idle(), 1);
    }

    #[test]
    fn arguments_out_of_range_are_errors() {
        let (_pool, memtable) = memtable(1 << 20);
        let kinds = [
            put(&memtable, MAX_KEYSPACES, b"k", 1, b"").unwrap_err().kind(),
            put(&memtable, 0, &vec![0; (64 << 10) + 1], 1, b"").unwrap_err().kind(),
            put(&memtable, 0, b"k", SequenceNumber::MAX.0 + 1, b"").unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::InvalidArgument; 3]);
        assert!(memtable.is_empty());
        assert_eq!(memtable.keyspaces().count(), 0);
    }

    #[test]
    fn large_values_live_outside_the_arena() {
        let (_pool, memtable) = memtable(1 << 20);
        for (sequence, len) in [(1, 256 << 10), (2, (256 << 10) + 1), (3, 40 << 20)] {
            let value: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let key = vec![sequence as u8; 64 << 10];
            put(&memtable, 0, &key, sequence, &value).unwrap();
            assert_eq!(get(&memtable, 0, &key, 100), Some(&value[..]));
        }
        assert!(memtable.size_bytes() > 40 << 20);
        assert!(memtable.size_bytes() >= memtable.arena.size_bytes());
    }

    #[test]
    fn a_full_arena_is_an_error_and_keeps_what_it_has() {
        let (_pool, memtable) = memtable(64 << 10);
        let value = vec![1; 200 << 10];
        let mut count = 0u64;
        let error = loop {
            match put(&memtable, 0, &count.to_be_bytes(), count, &value) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(memtable.entries(), count);
        assert!(count > 50);
        for key in 0..count {
            assert_eq!(get(&memtable, 0, &key.to_be_bytes(), 1 << 40), Some(&value[..]));
        }
    }

    #[test]
    fn concurrent_inserts_leave_all_links_in_order() {
        let (_pool, memtable) = memtable(4 << 20);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let memtable = &memtable;
                scope.spawn(move || {
                    for i in 0..5_000u64 {
                        let number = i * 4 + thread;
                        let (near, far) = (number.to_be_bytes(), (number << 50 | number).to_be_bytes());
                        put(memtable, 0, &near, number, b"v").unwrap();
                        put(memtable, 1, &far, number, b"v").unwrap();
                    }
                });
            }
        });
        for keyspace in [0, 1].map(KeyspaceId) {
            memtable.list(keyspace).unwrap().verify(&memtable.arena);
            assert_eq!(memtable.entries_of(keyspace), 20_000);
        }
    }

    #[test]
    fn size_is_close_to_what_the_entries_need() {
        let (_pool, memtable) = memtable(1 << 20);
        let mut random = fastrand::Rng::with_seed(3);
        let mut entries = 0;
        while memtable.size_bytes() + 140 <= memtable.arena.size_bytes() {
            put(&memtable, 0, &random.u128(..).to_be_bytes(), entries, &[7; 100]).unwrap();
            entries += 1;
        }
        memtable.list(KeyspaceId(0)).unwrap().verify(&memtable.arena);
        let per_entry = (1 << 20) / entries;
        assert!((132..175).contains(&per_entry), "{per_entry} bytes per entry of 116 bytes");
    }

    #[test]
    fn the_next_generation_learns_prefixes() {
        let (pool, memtable) = memtable(1 << 20);
        for i in 0..3000u64 {
            put(&memtable, 1, format!("user:profile:{i:08}").as_bytes(), i, b"v").unwrap();
            put(&memtable, 2, &i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes(), i, b"v").unwrap();
            put(&memtable, 3, &(3000 - i).to_be_bytes(), i, b"v").unwrap();
        }
        for i in 0..500u64 {
            put(&memtable, 4, format!("user:profile:{i:08}").as_bytes(), i, b"v").unwrap();
        }
        let next = Memtable::new(2, pool.take().unwrap());
        next.expect_prefixes_of(&memtable).unwrap();
        assert!(next.is_empty() && next.keyspaces().next().is_none());
        // Evenly distributed keys, counters and few keys teach nothing.
        let is_plain = |keyspace| next.list(KeyspaceId(keyspace)).is_none_or(Skiplist::has_plain_prefixes);
        assert_eq!([1, 2, 3, 4].map(is_plain), [false, true, true, true]);
        for i in 0..500u64 {
            put(&next, 1, format!("user:profile:{:08}", i * 7_919).as_bytes(), i, b"w").unwrap();
        }
        put(&next, 1, b"a", 900, b"low").unwrap();
        put(&next, 1, b"z", 901, b"high").unwrap();
        let mut iterator = next.iter(KeyspaceId(1));
        iterator.seek_to_first().unwrap();
        assert_eq!(iterator.key(), b"a");
        iterator.seek_to_last().unwrap();
        assert_eq!(iterator.key(), b"z");
        assert_eq!(get(&next, 1, b"user:profile:00007919", 1000), Some(&b"w"[..]));
    }
}
