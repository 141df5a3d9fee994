//! How an edit becomes durable, then visible.
use super::core::Core;
use super::views::{announce_indexes, keyspace_view};
use crate::manifest::Manifest;
use crate::read::super_version::{Generation, SuperVersion};
use crate::refusal::closed;
use sapwood_base::format::manifest::Edit;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{FileNumber, KeyspaceId, Result};
use sapwood_compaction::{TableHandle, Version};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Core {
    /// Makes an edit durable, then visible. The same step removes `flushed` from the view.
    pub(crate) fn install(
        &self,
        mut edits: Vec<Edit>,
        handles: HashMap<FileNumber, Arc<TableHandle>>,
        flushed: Option<&Arc<Generation>>,
    ) -> Result<()> {
        let mut guard = self.manifest.lock();
        let Some(manifest) = guard.as_mut() else { return Err(closed()) };
        // The tables of a keyspace that was dropped meanwhile are dropped too.
        let gone = |keyspace: &KeyspaceId| !manifest.state.keyspaces.contains_key(keyspace);
        edits.retain(|edit| match edit {
            Edit::TableAdded(table) if gone(&table.keyspace) => {
                if let Some(handle) = handles.get(&table.file) {
                    handle.mark_obsolete();
                }
                false
            }
            Edit::TableRemoved { keyspace, .. } => !gone(keyspace),
            Edit::IndexTree { id, .. } | Edit::IndexReady { id, .. } | Edit::IndexOutdated(id) => !gone(id),
            _ => true,
        });
        let touched = manifest.state.keyspaces.touched_by(&edits, true);
        let outdated: Vec<KeyspaceId> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::IndexOutdated(id) => Some(*id),
                _ => None,
            })
            .collect();
        let removed: HashSet<FileNumber> = edits.iter().filter_map(Edit::removed_file).collect();
        let losing: HashSet<KeyspaceId> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::TableRemoved { keyspace, .. } => Some(*keyspace),
                _ => None,
            })
            .collect();
        let before: Vec<(KeyspaceId, Arc<Version>)> = losing
            .into_iter()
            .filter_map(|id| Some((id, manifest.state.keyspaces.get(&id)?.version.clone())))
            .collect();
        if planted::is(Bug::DeletedBeforeEdit) {
            removed
                .iter()
                .for_each(|file| drop(self.context.fs.remove_file(&self.context.table_path(*file))));
        }
        if let Err(error) = self.append(manifest, edits, &handles) {
            // After a failed sync the edit may be on disk, so only a clean refusal removes the
            // files.
            if error.is_scarcity() || planted::is(Bug::OutputsTakenBack) {
                handles.values().for_each(|handle| handle.mark_obsolete());
            }
            return Err(error);
        }
        for (id, version) in before {
            // A table that moved to another level was removed and added.
            let now = manifest.state.keyspaces.get(&id);
            let kept: HashSet<FileNumber> = now
                .iter()
                .flat_map(|now| now.version.tables())
                .map(|table| table.handle.file())
                .filter(|file| removed.contains(file))
                .collect();
            for table in version.tables() {
                let file = table.handle.file();
                if removed.contains(&file) && !kept.contains(&file) {
                    table.handle.mark_obsolete();
                }
            }
        }
        let changes: Vec<_> =
            touched.into_iter().map(|id| (id, keyspace_view(&manifest.state, id))).collect();
        let _replaced = self.change_view(|view| SuperVersion {
            generations: view
                .generations
                .iter()
                .filter(|generation| flushed.is_none_or(|flushed| !Arc::ptr_eq(flushed, generation)))
                .cloned()
                .collect(),
            keyspaces: view.keyspaces.with(changes),
        });
        let owners = outdated.iter().filter_map(|id| manifest.state.keyspaces.get(id)?.index.as_ref());
        for owner in owners.map(|index| index.state.owner()) {
            if let Some(entry) = manifest.state.keyspaces.get(&owner) {
                announce_indexes(&manifest.state, &entry.state);
            }
        }
        Ok(())
    }

    /// Appends to the MANIFEST. If the MANIFEST closes itself for good, the write path closes too.
    pub(super) fn append(
        &self,
        manifest: &mut Manifest,
        edits: Vec<Edit>,
        handles: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<()> {
        manifest.append(edits, handles).inspect_err(|error| self.poison_if_final(error))
    }
}
