//! The keyspaces and indexes of a database: by number, by name, and by the owner of an index.
//!
//! Lookups and changes take the same time with ten and with ten thousand of them. Changes can be
//! undone: an edit that does not fit, or that the disk refuses, must leave no trace.
use crate::index::state::IndexMeta;
use crate::keyspace::KeyspaceState;
use sapwood_base::KeyspaceId;
use sapwood_base::format::manifest::Edit;
use sapwood_compaction::Version;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;

/// A keyspace in the state, or the internal one that has the entries of an index.
#[derive(Clone)]
pub(crate) struct KeyspaceEntry {
    pub(crate) state: Arc<KeyspaceState>,
    pub(crate) version: Arc<Version>,
    pub(crate) index: Option<IndexMeta>,
}

/// The table of keyspaces. It lends its entries as a map by number.
#[derive(Clone, Default)]
pub(crate) struct Keyspaces {
    entries: BTreeMap<KeyspaceId, KeyspaceEntry>,
    /// Numbers of the keyspaces that have a name of their own: all but those of indexes.
    names: HashMap<String, KeyspaceId>,
    /// Owner and number of each index.
    owned: BTreeSet<(KeyspaceId, KeyspaceId)>,
}

impl Deref for Keyspaces {
    type Target = BTreeMap<KeyspaceId, KeyspaceEntry>;

    fn deref(&self) -> &BTreeMap<KeyspaceId, KeyspaceEntry> {
        &self.entries
    }
}

impl Keyspaces {
    /// Adds an entry, or replaces the one of this number.
    pub(crate) fn insert(&mut self, id: KeyspaceId, entry: KeyspaceEntry) {
        self.remove(id);
        match &entry.index {
            Some(index) => drop(self.owned.insert((index.state.owner(), id))),
            None => drop(self.names.insert(entry.state.name.clone(), id)),
        }
        self.entries.insert(id, entry);
    }

    /// Removes an entry, if it exists; does not remove the indexes of a keyspace.
    pub(crate) fn remove(&mut self, id: KeyspaceId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        match &entry.index {
            Some(index) => drop(self.owned.remove(&(index.state.owner(), id))),
            None => drop(self.names.remove(&entry.state.name)),
        }
    }

    /// An entry to be changed: its version, phase or tree, but neither its name nor its owner.
    pub(crate) fn get_mut(&mut self, id: KeyspaceId) -> Option<&mut KeyspaceEntry> {
        self.entries.get_mut(&id)
    }

    /// A keyspace by name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&KeyspaceEntry> {
        self.entries.get(self.names.get(name)?)
    }

    /// The numbers of the indexes of a keyspace, in order.
    pub(crate) fn owned_by(&self, owner: KeyspaceId) -> impl Iterator<Item = KeyspaceId> {
        self.owned.range((owner, KeyspaceId(0))..=(owner, KeyspaceId(u32::MAX))).map(|(_, id)| *id)
    }

    /// The keyspaces and indexes that `edits` may change, in order, each once. With `owners` also
    /// the keyspaces of these indexes.
    pub(crate) fn touched_by(&self, edits: &[Edit], owners: bool) -> Vec<KeyspaceId> {
        let mut touched = BTreeSet::new();
        for edit in edits {
            match edit {
                Edit::KeyspaceCreated { id, .. }
                | Edit::IndexDropped(id)
                | Edit::IndexReady { id, .. }
                | Edit::IndexOutdated(id)
                | Edit::IndexTree { id, .. } => drop(touched.insert(*id)),
                Edit::IndexCreated { id, definition } => {
                    touched.insert(*id);
                    if owners {
                        touched.insert(definition.keyspace);
                    }
                }
                Edit::KeyspaceDropped(id) => {
                    touched.insert(*id);
                    touched.extend(self.owned_by(*id));
                }
                Edit::TableAdded(table) => drop(touched.insert(table.keyspace)),
                Edit::TableRemoved { keyspace, .. } => drop(touched.insert(*keyspace)),
                Edit::NextFile(_)
                | Edit::NextKeyspace(_)
                | Edit::LogStart(_)
                | Edit::LogCommits(_)
                | Edit::LogClosed { .. }
                | Edit::LogOpened(_)
                | Edit::LogSynced(_)
                | Edit::Unknown(_) => {}
            }
        }
        if owners {
            let owner = |id: &KeyspaceId| Some(self.entries.get(id)?.index.as_ref()?.state.owner());
            let of_indexes: Vec<KeyspaceId> = touched.iter().filter_map(owner).collect();
            touched.extend(of_indexes);
        }
        touched.into_iter().collect()
    }
}
