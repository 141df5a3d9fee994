//! How an edit becomes durable, then visible.
use super::core::Core;
use super::views::{announce_indexes, keyspace_view};
use crate::manifest::{Manifest, ManifestState};
use crate::planted;
use crate::read::view::{Generation, View};
use crate::refusal::closed;
use sapwood_base::format::manifest::Edit;
use sapwood_base::{FileNumber, KeyspaceId, Result};
use sapwood_compaction::{TableHandle, Version};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Takes out the edits of keyspaces that were dropped meanwhile. Their new tables are dropped too.
fn drop_late(edits: &mut Vec<Edit>, state: &ManifestState, handles: &HashMap<FileNumber, Arc<TableHandle>>) {
    let gone = |keyspace: &KeyspaceId| !state.keyspaces.contains_key(keyspace);
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
}

/// The tables that edits remove.
struct Removed {
    files: HashSet<FileNumber>,
    /// The keyspaces that lose some, as they were before.
    before: Vec<(KeyspaceId, Arc<Version>)>,
}

impl Removed {
    /// REQUIRES: `state` does not have `edits` yet.
    fn by(edits: &[Edit], state: &ManifestState) -> Removed {
        let losing: HashSet<KeyspaceId> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::TableRemoved { keyspace, .. } => Some(*keyspace),
                _ => None,
            })
            .collect();
        let version = |id| Some((id, state.keyspaces.get(&id)?.version.clone()));
        Removed {
            files: edits.iter().filter_map(Edit::removed_file).collect(),
            before: losing.into_iter().filter_map(version).collect(),
        }
    }

    /// Releases the tables that are not in `state`, which has the edits.
    fn release(self, state: &ManifestState) {
        for (id, version) in self.before {
            // A table that moved to another level was removed and added.
            let now = state.keyspaces.get(&id);
            let kept: HashSet<FileNumber> = now
                .iter()
                .flat_map(|now| now.version.tables())
                .map(|table| table.handle.file())
                .filter(|file| self.files.contains(file))
                .collect();
            for table in version.tables() {
                let file = table.handle.file();
                if self.files.contains(&file) && !kept.contains(&file) {
                    table.handle.mark_obsolete();
                }
            }
        }
    }
}

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
        drop_late(&mut edits, &manifest.state, &handles);
        let touched = manifest.state.keyspaces.touched_by(&edits, true);
        let outdated = |edit: &Edit| match edit {
            Edit::IndexOutdated(id) => Some(*id),
            _ => None,
        };
        let outdated: Vec<KeyspaceId> = edits.iter().filter_map(outdated).collect();
        let removed = Removed::by(&edits, &manifest.state);
        planted::not_before_edit(
            &*self.files.fs,
            removed.files.iter().map(|file| self.files.table_path(*file)),
        );
        if let Err(error) = self.append(manifest, edits, &handles) {
            // After a failed sync the edit may be on disk, so only a clean refusal removes the
            // files.
            if planted::is_clean_refusal(&error) {
                handles.values().for_each(|handle| handle.mark_obsolete());
            }
            return Err(error);
        }
        let state = &manifest.state;
        removed.release(state);
        let changes: Vec<_> = touched.into_iter().map(|id| (id, keyspace_view(state, id))).collect();
        let stays =
            |generation: &&Arc<Generation>| flushed.is_none_or(|flushed| !Arc::ptr_eq(flushed, generation));
        let _replaced = self.change_view(|view| View {
            generations: view.generations.iter().filter(stays).cloned().collect(),
            keyspaces: view.keyspaces.with(changes),
        });
        let owners = outdated.iter().filter_map(|id| state.keyspaces.get(id)?.index.as_ref());
        for owner in owners.map(|index| index.state.owner()) {
            if let Some(entry) = state.keyspaces.get(&owner) {
                announce_indexes(state, &entry.state);
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
