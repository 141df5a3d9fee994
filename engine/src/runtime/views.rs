//! The keyspaces of a MANIFEST's state, as reads and writes see them.
use crate::keyspace::KeyspaceState;
use crate::manifest::ManifestState;
use crate::read::keyspace_views::{KeyspaceView, KeyspaceViews};
use sapwood_base::KeyspaceId;
use std::sync::Arc;

/// Announces to the writers of a keyspace that its indexes have changed. REQUIRES: the view has
/// them.
pub(super) fn announce_indexes(state: &ManifestState, owner: &KeyspaceState) {
    owner.change_indexes(state.indexes_of(owner.id).any(|index| index.is_kept_up()));
}

/// All keyspaces of a state, as reads see them.
pub(super) fn keyspace_views(state: &ManifestState) -> KeyspaceViews {
    let views = state.keyspaces.keys().map(|id| (*id, keyspace_view(state, *id)));
    KeyspaceViews::default().with(views)
}

/// One of them; `None` if it was dropped.
pub(super) fn keyspace_view(state: &ManifestState, id: KeyspaceId) -> Option<Arc<KeyspaceView>> {
    let entry = state.keyspaces.get(&id)?;
    let kept_up = state.indexes_of(id).filter(|index| index.is_kept_up());
    Some(Arc::new(KeyspaceView {
        state: entry.state.clone(),
        version: entry.version.clone(),
        indexes: kept_up.map(|index| index.state.clone()).collect(),
        index: entry.index.clone(),
    }))
}
