//! Creation and removal of keyspaces and indexes.
use super::core::Core;
use super::views::{announce_indexes, keyspace_view};
use crate::index::state::IndexState;
use crate::keyspace::{DEFAULT_KEYSPACE, KeyspaceOptions, KeyspaceState, check_name};
use crate::manifest::{KeyspaceEntry, Manifest, ManifestState};
use crate::read::view::View;
use crate::refusal::closed;
use crate::write::leave_empty;
use sapwood_base::format::index_definition::IndexDefinition;
use sapwood_base::format::log_record;
use sapwood_base::format::manifest::Edit;
use sapwood_base::key::MAX_KEYSPACES;
use sapwood_base::{Error, ErrorKind, KeyspaceId, Result, SequenceNumber};
use std::collections::HashMap;
use std::sync::Arc;

impl Core {
    pub(crate) fn create_keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Arc<KeyspaceState>> {
        check_name(name)?;
        options.validate()?;
        options.check_available()?;
        self.check_writable()?;
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        if let Some(entry) = manifest.state.by_name(name) {
            return Ok(entry.state.clone());
        }
        let id = next_id(&manifest.state)?;
        let edit = Edit::KeyspaceCreated { id, name: name.to_string(), options: options.to_text() };
        self.append(manifest, vec![edit], &HashMap::new())?;
        self.publish(&manifest.state, [id]);
        Ok(manifest.state.keyspaces[&id].state.clone())
    }

    pub(crate) fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.check_writable()?;
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        let Some(id) = manifest.state.by_name(name).map(|entry| entry.state.id) else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no keyspace {name:?}")));
        };
        if name == DEFAULT_KEYSPACE {
            return Err(Error::invalid_argument("the default keyspace cannot be dropped"));
        }
        let gone: Vec<KeyspaceId> = manifest.state.keyspaces.owned_by(id).chain([id]).collect();
        let entries: Vec<KeyspaceEntry> =
            gone.iter().filter_map(|id| manifest.state.keyspaces.get(id).cloned()).collect();
        self.append(manifest, vec![Edit::KeyspaceDropped(id)], &HashMap::new())?;
        entries.iter().for_each(|entry| self.release_dropped(entry));
        self.publish(&manifest.state, gone);
        Ok(())
    }

    /// Creates an index of a keyspace: a definition and room for entries. Drops the index
    /// `replaced`.
    pub(crate) fn create_index(
        &self,
        definition: IndexDefinition,
        replaced: Option<KeyspaceId>,
    ) -> Result<Arc<IndexState>> {
        self.check_writable()?;
        let id = {
            let mut guard = self.manifest.lock();
            let Some(manifest) = guard.as_mut() else { return Err(closed()) };
            let id = next_id(&manifest.state)?;
            let mut edits = Vec::new();
            edits.extend(replaced.map(Edit::IndexDropped));
            edits.push(Edit::IndexCreated { id, definition });
            self.change_indexes(manifest, edits, replaced)?;
            id
        };
        self.manifest_state(|state| Some(state.keyspaces.get(&id)?.index.as_ref()?.state.clone()))
            .ok_or_else(|| Error::new(ErrorKind::Closed, "the keyspace was dropped"))
    }

    pub(crate) fn drop_index(&self, owner: &KeyspaceState, name: &str) -> Result<()> {
        self.check_writable()?;
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        let Some(index) = manifest.state.index_by_name(owner.id, name) else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no index {name:?}")));
        };
        let id = index.state.id;
        self.change_indexes(manifest, vec![Edit::IndexDropped(id)], Some(id))
    }

    /// Appends edits, one of which drops the index `dropped`, and publishes the result.
    fn change_indexes(
        &self,
        manifest: &mut Manifest,
        edits: Vec<Edit>,
        dropped: Option<KeyspaceId>,
    ) -> Result<()> {
        let gone = dropped.and_then(|id| manifest.state.keyspaces.get(&id).cloned());
        let touched = manifest.state.keyspaces.touched_by(&edits, true);
        self.append(manifest, edits, &HashMap::new())?;
        if let Some(gone) = &gone {
            self.release_dropped(gone);
        }
        self.publish(&manifest.state, touched);
        let owner = gone.as_ref().and_then(|gone| Some(gone.index.as_ref()?.state.owner()));
        if let Some(owner) = owner.and_then(|owner| manifest.state.keyspaces.get(&owner)) {
            announce_indexes(&manifest.state, &owner.state);
        }
        Ok(())
    }

    /// Lets writes add entries to an index from now on. Returns the position from which every row
    /// was written with its entries. REQUIRES: its extractor is attached, and no flush is under
    /// way.
    pub(crate) fn begin_index(&self, index: &IndexState) -> Result<SequenceNumber> {
        {
            let mut guard = self.manifest.lock();
            let Some(manifest) = guard.as_mut() else { return Err(closed()) };
            let Some(owner) = manifest.state.keyspaces.get(&index.owner()) else {
                return Err(Error::new(ErrorKind::Closed, "the keyspace was dropped"));
            };
            index.set_building(true);
            self.publish(&manifest.state, [index.owner(), index.id]);
            announce_indexes(&manifest.state, &owner.state);
        }
        self.barrier()
    }

    /// Appends a barrier to the log, and waits until everything before it is published. A commit
    /// after the barrier sees all state published before this call.
    pub(crate) fn barrier(&self) -> Result<SequenceNumber> {
        let units = log_record::record_units(0);
        let at = self.wal.reserve(units).inspect_err(|error| self.poison_if_final(error))?;
        leave_empty(self, &at)?;
        Ok(SequenceNumber(at.position))
    }

    /// Marks a keyspace dropped, so that its handles return errors, and releases its files to be
    /// removed after their last reader.
    fn release_dropped(&self, entry: &KeyspaceEntry) {
        entry.state.mark_dropped();
        entry.version.tables().for_each(|table| table.handle.mark_obsolete());
        if let Some(tree) = entry.index.as_ref().and_then(|index| index.tree.as_ref()) {
            tree.file.mark_obsolete(&self.files);
        }
    }

    /// Publishes the state of some keyspaces in the view.
    fn publish(&self, state: &ManifestState, changed: impl IntoIterator<Item = KeyspaceId>) {
        let changes: Vec<_> = changed.into_iter().map(|id| (id, keyspace_view(state, id))).collect();
        let _replaced = self.change_view(|view| View {
            generations: view.generations.clone(),
            keyspaces: view.keyspaces.with(changes),
        });
    }
}

fn next_id(state: &ManifestState) -> Result<KeyspaceId> {
    if state.next_keyspace >= MAX_KEYSPACES {
        let message = format!(
            "{MAX_KEYSPACES} keyspaces and indexes have been made in this database, which is the limit"
        );
        return Err(Error::invalid_argument(message));
    }
    Ok(KeyspaceId(state.next_keyspace))
}
