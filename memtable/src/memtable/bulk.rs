//! Bulk loading of a memtable that is not in use yet, such as at recovery. Several times as fast as
//! inserting, because records are written in arrival order and sorted by eight bytes each.
use super::Memtable;
use crate::skiplist::{BulkEntry, PrefixCoding};
use sapwood_base::key::MAX_KEYSPACES;
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};
use std::sync::Arc;

/// Entries in the memtable's memory that are not visible yet: see [`Memtable::publish`].
///
/// One thread fills a loader; many loaders of one memtable may be filled at the same time.
pub struct BulkLoader {
    memtable: Arc<Memtable>,
    keyspaces: Vec<OfKeyspace>,
    /// Entries for which the first keyspace reserves room.
    expected: usize,
}

struct OfKeyspace {
    id: KeyspaceId,
    entries: Vec<BulkEntry>,
    /// Hashes of keys not yet in the filter.
    hashes: Vec<u64>,
}

impl OfKeyspace {
    #[inline]
    fn push(&mut self, entries: BulkEntry, hash: u64) {
        self.entries.push(entries);
        self.hashes.push(hash);
    }
}

/// Prefetch distance for words of the filter.
const AHEAD: usize = 16;

impl BulkLoader {
    /// Creates an empty loader of `memtable` for about `expected` entries.
    pub fn new(memtable: &Arc<Memtable>, expected: usize) -> BulkLoader {
        BulkLoader { memtable: memtable.clone(), keyspaces: Vec::new(), expected }
    }

    /// Adds one entry; arguments and errors as for [`Memtable::insert`].
    pub fn add(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<()> {
        let at = self.of(keyspace)?;
        let relative = self.memtable.relative(sequence)?;
        let entries = BulkEntry::write(&self.memtable.arena, key, relative, kind, value)?;
        self.keyspaces[at].push(entries, hash);
        Ok(())
    }

    /// The place of the entries of a keyspace.
    #[inline]
    fn of(&mut self, keyspace: KeyspaceId) -> Result<usize> {
        match self.keyspaces.iter().rposition(|of| of.id == keyspace) {
            Some(at) => Ok(at),
            None => {
                self.memtable.check_keyspace(keyspace)?;
                let expected = std::mem::take(&mut self.expected);
                self.keyspaces.push(OfKeyspace {
                    id: keyspace,
                    entries: Vec::with_capacity(expected),
                    hashes: Vec::with_capacity(expected),
                });
                Ok(self.keyspaces.len() - 1)
            }
        }
    }

    fn is_prepared(&self) -> bool {
        self.keyspaces.iter().all(|of| of.hashes.is_empty())
    }

    /// Inserts the added keys into the filter, so that [`Memtable::publish`] need not do this for
    /// all loaders by itself.
    pub fn prepare(&mut self) {
        let filter = self.memtable.filter();
        for of in &mut self.keyspaces {
            for (i, hash) in of.hashes.iter().enumerate() {
                if let Some(later) = of.hashes.get(i + AHEAD) {
                    filter.prefetch(of.id, *later);
                }
                filter.insert(of.id, *hash);
            }
            of.hashes = Vec::new();
        }
    }
}

impl Memtable {
    /// Publishes the entries of loaders. With `threads` above one, several threads of the current
    /// `rayon` pool share the work.
    ///
    /// REQUIRES: no concurrent use of the memtable, except to fill other loaders. Fastest when the
    /// memtable was empty.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full. Some of the entries are visible then.
    ///
    /// # Panics
    /// If a loader belongs to another memtable.
    pub fn publish(&self, mut loaders: Vec<BulkLoader>, threads: usize) -> Result<()> {
        assert!(
            loaders.iter().all(|loader| std::ptr::eq(&*loader.memtable, self)),
            "a loader of another memtable"
        );
        for loader in loaders.iter_mut().filter(|loader| !loader.is_prepared()) {
            loader.prepare();
        }
        let mut all: Vec<OfKeyspace> = loaders.into_iter().flat_map(|loader| loader.keyspaces).collect();
        all.sort_by_key(|of| of.id);
        for group in all.chunk_by_mut(|a, b| a.id == b.id) {
            let runs: Vec<_> = group.iter_mut().map(|of| std::mem::take(&mut of.entries)).collect();
            let list = match self.list(group[0].id) {
                Some(list) => list,
                None => {
                    let base = PrefixCoding::suiting_bulk(&self.arena, &runs);
                    self.create_as(group[0].id, base, false)?
                }
            };
            list.build(&self.arena, runs, threads)?;
        }
        Ok(())
    }

    fn check_keyspace(&self, keyspace: KeyspaceId) -> Result<()> {
        match keyspace.0 < MAX_KEYSPACES {
            true => Ok(()),
            false => self.create(keyspace).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::ArenaPool;
    use crate::options::MemtableOptions;
    use sapwood_base::ErrorKind;
    use sapwood_base::Lookup;
    use sapwood_base::iterator::InternalIterator;
    use sapwood_base::key::key_hash;

    type Entry = (u32, Vec<u8>, u64, ValueKind, Vec<u8>);

    fn everything(memtable: &Arc<Memtable>) -> Vec<Entry> {
        let mut all = Vec::new();
        for keyspace in memtable.keyspaces() {
            let mut iterator = memtable.iter(keyspace);
            iterator.seek_to_first().unwrap();
            while iterator.valid() {
                let (key, value) = (iterator.key().to_vec(), iterator.value().to_vec());
                all.push((keyspace.0, key, iterator.sequence().0, iterator.kind(), value));
                iterator.next().unwrap();
            }
        }
        all
    }

    fn random_entries(random: &mut fastrand::Rng, prefix: &str, count: u64, from: u64) -> Vec<Entry> {
        (from..from + count)
            .map(|sequence| {
                let key = match random.u8(..4) {
                    0 => format!("{prefix}{:04}", random.u32(..500)).into_bytes(),
                    1 => [prefix.as_bytes(), &vec![b'a'; random.usize(..20)]].concat(),
                    2 => [prefix.as_bytes(), &random.u64(..).to_be_bytes()].concat(),
                    _ => [prefix.as_bytes(), b"same-eight-bytes-", &[random.u8(..)]].concat(),
                };
                let kind = if random.u8(..5) == 0 { ValueKind::Delete } else { ValueKind::Put };
                let value =
                    if kind == ValueKind::Put { vec![random.u8(..); random.usize(..60)] } else { Vec::new() };
                (random.u32(..3), key, sequence, kind, value)
            })
            .collect()
    }

    #[test]
    fn portions_give_what_inserts_give() {
        for seed in 0..24 {
            let mut random = fastrand::Rng::with_seed(seed);
            let pool = ArenaPool::new(MemtableOptions { size_bytes: 8 << 20 });
            let take = |id| Memtable::new(id, pool.take().unwrap());
            let (bulk, single) = (take(1), take(2));
            let prefix = ["", "user:profile:", "k"][seed as usize % 3];
            let mut entries = random_entries(&mut random, prefix, [0, 1, 40, 5000][seed as usize % 4], 1);
            // Recovery has log order; loaders accept any other order.
            if seed % 2 == 0 {
                random.shuffle(&mut entries);
            }
            let insert = |memtable: &Memtable, (keyspace, key, sequence, kind, value): &Entry| {
                let (keyspace, hash) = (KeyspaceId(*keyspace), key_hash(key));
                memtable.insert(keyspace, key, hash, SequenceNumber(*sequence), *kind, value).unwrap();
            };
            let mut loaders = Vec::new();
            for part in entries.chunks(random.usize(1..2000)) {
                let mut loader = BulkLoader::new(&bulk, random.usize(..100));
                for (keyspace, key, sequence, kind, value) in part {
                    let (keyspace, sequence) = (KeyspaceId(*keyspace), SequenceNumber(*sequence));
                    loader.add(keyspace, key, key_hash(key), sequence, *kind, value).unwrap();
                }
                if random.bool() {
                    loader.prepare();
                }
                loaders.push(loader);
            }
            let later = loaders.split_off(loaders.len() - loaders.len().min(random.usize(..2)));
            let threads = if random.bool() { 1 } else { 3 };
            bulk.publish(loaders, threads).unwrap();
            // The second batch finds lists that are not empty.
            bulk.publish(later, threads).unwrap();
            entries.iter().for_each(|entry| insert(&single, entry));
            for entry in random_entries(&mut random, prefix, 3000, 100_000) {
                insert(&bulk, &entry);
                insert(&single, &entry);
            }
            for keyspace in bulk.keyspaces() {
                bulk.list(keyspace).unwrap().verify(&bulk.arena);
                assert_eq!(bulk.entries_of(keyspace), single.entries_of(keyspace));
                assert_eq!(bulk.bytes_of(keyspace), single.bytes_of(keyspace));
            }
            assert_eq!(everything(&bulk), everything(&single), "seed {seed}");
            for (keyspace, key, sequence, ..) in &entries {
                let get = |memtable: &Arc<Memtable>| {
                    let lookup = Lookup::new(key, SequenceNumber(*sequence));
                    let found = memtable.get(KeyspaceId(*keyspace), lookup);
                    found.map(|found| (found.kind, found.sequence, found.value.to_vec()))
                };
                assert_eq!(get(&bulk), get(&single));
                assert!(get(&bulk).is_some());
            }
        }
    }

    #[test]
    fn many_entries_at_once_teach_a_list_what_its_keys_share() {
        const KEYSPACE: KeyspaceId = KeyspaceId(1);
        for threads in [1, 3] {
            let pool = ArenaPool::new(MemtableOptions { size_bytes: 8 << 20 });
            let memtable = Memtable::new(1, pool.take().unwrap());
            let key = |number: u64| format!("{:020}", number * 7_919 % 10_007 * 977).into_bytes();
            let loaders = (0..4).map(|part| {
                let mut loader = BulkLoader::new(&memtable, 0);
                for number in (part..6000).step_by(4) {
                    let (key, sequence) = (key(number), SequenceNumber(number));
                    loader.add(KEYSPACE, &key, key_hash(&key), sequence, ValueKind::Put, b"v").unwrap();
                }
                loader
            });
            memtable.publish(loaders.collect(), threads).unwrap();
            let list = memtable.list(KEYSPACE).unwrap();
            assert!(!list.has_plain_prefixes(), "decimal numbers crowd");
            for number in 6000..8000 {
                let key = key(number);
                let sequence = SequenceNumber(number);
                memtable.insert(KEYSPACE, &key, key_hash(&key), sequence, ValueKind::Put, b"v").unwrap();
            }
            list.verify(&memtable.arena);
            let found: Vec<Vec<u8>> = everything(&memtable).into_iter().map(|entry| entry.1).collect();
            let mut expected: Vec<Vec<u8>> = (0..8000).map(key).collect();
            expected.sort();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn bad_keyspaces_and_full_arenas_are_errors() {
        let pool = ArenaPool::new(MemtableOptions { size_bytes: 64 << 10 });
        let memtable = Memtable::new(1, pool.take().unwrap());
        let mut loader = BulkLoader::new(&memtable, 0);
        let mut add = |keyspace, number: u64| {
            let key = number.to_be_bytes();
            let value = vec![1; 200 << 10];
            loader.add(
                KeyspaceId(keyspace),
                &key,
                key_hash(&key),
                SequenceNumber(number),
                ValueKind::Put,
                &value,
            )
        };
        assert_eq!(add(MAX_KEYSPACES, 1).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let full = (1..).find_map(|number| add(0, number).err()).unwrap();
        assert_eq!(full.kind(), ErrorKind::NoSpace);
    }
}
