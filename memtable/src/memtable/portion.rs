//! Filling a memtable that nobody uses yet, such as at recovery: several times as fast as inserting, because records
//! are written in the order in which they come and sorted by eight bytes each.
use super::Memtable;
use crate::skiplist::{PrefixBase, Staged};
use sapwood_base::key::common_prefix_len;
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};
use std::sync::Arc;

/// Entries that are in the memtable's memory and not visible yet: see [`Memtable::publish`].
///
/// One thread fills a portion; many portions of one memtable may be filled at the same time.
pub struct Portion {
    memtable: Arc<Memtable>,
    keyspaces: Vec<OfKeyspace>,
}

struct OfKeyspace {
    id: KeyspaceId,
    /// What all keys begin with.
    common: Vec<u8>,
    staged: Vec<Staged>,
    /// Hashes of keys that the filter does not know yet.
    hashes: Vec<u64>,
}

/// How far ahead of their use words of the filter are asked for.
const AHEAD: usize = 16;

impl Portion {
    /// An empty portion of `memtable`.
    pub fn new(memtable: &Arc<Memtable>) -> Portion {
        Portion { memtable: memtable.clone(), keyspaces: Vec::new() }
    }

    /// Adds one entry; arguments and errors as of [`Memtable::insert`].
    pub fn add(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<()> {
        let at = match self.keyspaces.iter().rposition(|of| of.id == keyspace) {
            Some(at) => at,
            None => {
                self.memtable.check_keyspace(keyspace)?;
                self.keyspaces.push(OfKeyspace {
                    id: keyspace,
                    common: key.to_vec(),
                    staged: Vec::new(),
                    hashes: Vec::new(),
                });
                self.keyspaces.len() - 1
            }
        };
        let of = &mut self.keyspaces[at];
        of.common.truncate(common_prefix_len(&of.common, key));
        let arena = &self.memtable.arena;
        of.staged.push(Staged::write(arena, &PrefixBase::default(), key, sequence, kind, value)?);
        of.hashes.push(hash);
        Ok(())
    }

    fn is_prepared(&self) -> bool {
        self.keyspaces.iter().all(|of| of.hashes.is_empty())
    }

    /// Prepares what was added, which [`Memtable::publish`] would otherwise do alone for all portions.
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
            // Otherwise prefixes will be taken anew.
            if of.common.is_empty() {
                of.staged.sort_unstable_by_key(Staged::prefix);
            }
        }
    }
}

impl Memtable {
    /// Makes the entries of portions visible.
    ///
    /// REQUIRES: nobody else uses the memtable meanwhile, except to fill other portions. Fastest when the memtable
    /// was empty.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full. Some of the entries are visible then.
    ///
    /// # Panics
    /// If a portion belongs to another memtable.
    pub fn publish(&self, mut portions: Vec<Portion>) -> Result<()> {
        assert!(
            portions.iter().all(|portion| std::ptr::eq(&*portion.memtable, self)),
            "a portion of another memtable"
        );
        for portion in portions.iter_mut().filter(|portion| !portion.is_prepared()) {
            portion.prepare();
        }
        let mut all: Vec<OfKeyspace> = portions.into_iter().flat_map(|portion| portion.keyspaces).collect();
        // Stable: portions of one keyspace keep their order.
        all.sort_by_key(|of| of.id);
        for group in all.chunk_by_mut(|a, b| a.id == b.id) {
            let common = group.iter().skip(1).fold(group[0].common.as_slice(), |common, of| {
                &common[..common_prefix_len(common, &of.common)]
            });
            let list = self.create(group[0].id, common)?;
            let mut staged = Vec::with_capacity(group.iter().map(|of| of.staged.len()).sum());
            for of in group.iter_mut() {
                staged.append(&mut of.staged);
            }
            if !list.has_plain_prefixes() {
                list.rebase(&self.arena, &mut staged);
            }
            list.build(&self.arena, staged)?;
        }
        Ok(())
    }

    fn check_keyspace(&self, keyspace: KeyspaceId) -> Result<()> {
        match (keyspace.0 as usize) < self.lists.len() {
            true => Ok(()),
            false => self.create(keyspace, &[]).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::ArenaPool;
    use crate::memtable::MemtableOptions;
    use sapwood_base::ErrorKind;
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
            let take = |id| Memtable::new(id, pool.take().unwrap(), 4);
            let (bulk, single) = (take(1), take(2));
            let prefix = ["", "user:profile:", "k"][seed as usize % 3];
            let mut entries = random_entries(&mut random, prefix, [0, 1, 40, 5000][seed as usize % 4], 1);
            // Recovery sees log order; portions are also right in any other.
            if seed % 2 == 0 {
                random.shuffle(&mut entries);
            }
            let insert = |memtable: &Memtable, (keyspace, key, sequence, kind, value): &Entry| {
                let (keyspace, hash) = (KeyspaceId(*keyspace), key_hash(key));
                memtable.insert(keyspace, key, hash, SequenceNumber(*sequence), *kind, value).unwrap();
            };
            let mut portions = Vec::new();
            for part in entries.chunks(random.usize(1..2000)) {
                let mut portion = Portion::new(&bulk);
                for (keyspace, key, sequence, kind, value) in part {
                    let (keyspace, hash) = (KeyspaceId(*keyspace), key_hash(key));
                    portion.add(keyspace, key, hash, SequenceNumber(*sequence), *kind, value).unwrap();
                }
                if random.bool() {
                    portion.prepare();
                }
                portions.push(portion);
            }
            let later = portions.split_off(portions.len() - portions.len().min(random.usize(..2)));
            bulk.publish(portions).unwrap();
            // What comes second meets lists that are not empty.
            bulk.publish(later).unwrap();
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
                    let (hash, sequence) = (key_hash(key), SequenceNumber(*sequence));
                    let found = memtable.get(KeyspaceId(*keyspace), key, hash, sequence);
                    found.map(|found| (found.kind, found.sequence, found.value.to_vec()))
                };
                assert_eq!(get(&bulk), get(&single));
                assert!(get(&bulk).is_some());
            }
        }
    }

    #[test]
    fn bad_keyspaces_and_full_arenas_are_errors() {
        let pool = ArenaPool::new(MemtableOptions { size_bytes: 64 << 10 });
        let memtable = Memtable::new(1, pool.take().unwrap(), 2);
        let mut portion = Portion::new(&memtable);
        let mut add = |keyspace, number: u64| {
            let key = number.to_be_bytes();
            let value = vec![1; 200 << 10];
            portion.add(
                KeyspaceId(keyspace),
                &key,
                key_hash(&key),
                SequenceNumber(number),
                ValueKind::Put,
                &value,
            )
        };
        assert_eq!(add(2, 1).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let full = (1..).find_map(|number| add(0, number).err()).unwrap();
        assert_eq!(full.kind(), ErrorKind::NoSpace);
    }
}
