//! The keyspaces of a view, by their number.
//!
//! A read looks here first, so it should be one load. A number is never given out twice, though: where most keyspaces
//! have been dropped, or a damaged MANIFEST names a high one, an array of all numbers would be megabytes. So there is
//! an array as long as the number of keyspaces justifies, and a map for those beyond it.
use super::super_version::KeyspaceView;
use sapwood_base::KeyspaceId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An array of so many places is always worth it.
const NEAR_MIN: usize = 64;
/// Places of the array for each keyspace that there is.
const NEAR_FACTOR: usize = 4;

/// What a view has of every keyspace.
#[derive(Clone, Default)]
pub(crate) struct KeyspaceViews {
    /// By number; `None` for one that was dropped.
    near: Vec<Option<Arc<KeyspaceView>>>,
    /// Those with higher numbers.
    far: BTreeMap<KeyspaceId, Arc<KeyspaceView>>,
}

impl KeyspaceViews {
    /// Views by number, in ascending order.
    pub(crate) fn new(mut views: Vec<(KeyspaceId, Arc<KeyspaceView>)>) -> KeyspaceViews {
        let most = NEAR_MIN.max(views.len() * NEAR_FACTOR);
        let far = views.split_off(views.partition_point(|(id, _)| (id.0 as usize) < most));
        let mut near = vec![None; views.last().map_or(0, |(id, _)| id.0 as usize + 1)];
        for (id, view) in views {
            near[id.0 as usize] = Some(view);
        }
        KeyspaceViews { near, far: far.into_iter().collect() }
    }

    /// A keyspace, unless it was dropped.
    #[inline]
    pub(crate) fn get(&self, id: KeyspaceId) -> Option<&Arc<KeyspaceView>> {
        match self.near.get(id.0 as usize) {
            Some(view) => view.as_ref(),
            None => self.far.get(&id),
        }
    }

    /// All of them, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<KeyspaceView>> {
        self.near.iter().flatten().chain(self.far.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{KeyspaceOptions, KeyspaceState};
    use sapwood_base::key::MAX_KEYSPACES;

    fn views(numbers: impl IntoIterator<Item = u32>) -> KeyspaceViews {
        let view = |number| {
            let id = KeyspaceId(number);
            let state = KeyspaceState::new(id, &number.to_string(), KeyspaceOptions::default());
            let version = Arc::default();
            (id, Arc::new(KeyspaceView { state, version, indexes: Vec::new(), index: None }))
        };
        KeyspaceViews::new(numbers.into_iter().map(view).collect())
    }

    #[test]
    fn memory_follows_the_keyspaces_and_not_their_numbers() {
        let few = [0, 7, 63, 64, 5000, MAX_KEYSPACES - 1];
        let of_few = views(few);
        assert!(of_few.near.len() <= NEAR_MIN && of_few.far.len() == 3);
        // Many are in the array, also where some were dropped.
        let many = || (0..3000).filter(|number| number % 3 != 0);
        assert!(views(many()).far.is_empty());
        for (views, numbers) in [(of_few, few.to_vec()), (views(many()), many().collect())] {
            assert!(views.iter().map(|view| view.state.id.0).eq(numbers.iter().copied()));
            for number in (0..6000).chain([MAX_KEYSPACES - 2, MAX_KEYSPACES - 1, u32::MAX]) {
                let found = views.get(KeyspaceId(number)).map(|view| view.state.id.0);
                assert_eq!(found, numbers.contains(&number).then_some(number));
            }
        }
        assert!(views([]).iter().next().is_none() && views([]).get(KeyspaceId(0)).is_none());
    }
}
