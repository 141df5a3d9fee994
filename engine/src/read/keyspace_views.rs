//! The keyspaces of a view, by their number.
//!
//! Every read starts with this lookup, so it should cost two loads. Numbers are never reused, so
//! most of the allocated ones may be of dropped keyspaces, and a damaged MANIFEST may name any
//! number. Hence chunks: views share the unchanged ones, so creating or dropping a keyspace takes
//! the same time with ten keyspaces and with ten thousand, and an empty chunk costs a pointer.
use crate::index::state::{IndexMeta, IndexState};
use crate::keyspace::KeyspaceState;
use sapwood_base::KeyspaceId;
use sapwood_compaction::Version;
use std::sync::Arc;

/// Places of a chunk; a power of two.
const CHUNK: usize = 256;

/// A keyspace as a read sees it, or the internal one of an index.
pub(crate) struct KeyspaceView {
    pub(crate) state: Arc<KeyspaceState>,
    pub(crate) version: Arc<Version>,
    /// The indexes that writes keep up.
    pub(crate) indexes: Vec<Arc<IndexState>>,
    /// The index whose entries the keyspace stores, if any.
    pub(crate) index: Option<IndexMeta>,
}

type Chunk = [Option<Arc<KeyspaceView>>; CHUNK];

/// The part of a view for every keyspace.
#[derive(Clone, Default)]
pub(crate) struct KeyspaceViews {
    /// By number; the slot of a dropped keyspace is empty, and so is a chunk of empty slots.
    chunks: Vec<Option<Arc<Chunk>>>,
}

impl KeyspaceViews {
    /// A copy with some of them replaced, added, or, for `None`, removed.
    pub(crate) fn with(
        &self,
        changes: impl IntoIterator<Item = (KeyspaceId, Option<Arc<KeyspaceView>>)>,
    ) -> KeyspaceViews {
        let mut chunks = self.chunks.clone();
        for (id, view) in changes {
            let (number, place) = (id.0 as usize / CHUNK, id.0 as usize % CHUNK);
            if number >= chunks.len() {
                if view.is_none() {
                    continue;
                }
                chunks.resize(number + 1, None);
            }
            let chunk = chunks[number].get_or_insert_with(|| Arc::new([const { None }; CHUNK]));
            // Copied at its first change; further changes of the same call find it unshared.
            Arc::make_mut(chunk)[place] = view;
            if chunk.iter().all(Option::is_none) {
                chunks[number] = None;
            }
        }
        let len = chunks.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        chunks.truncate(len);
        KeyspaceViews { chunks }
    }

    /// A keyspace, unless it was dropped.
    #[inline]
    pub(crate) fn get(&self, id: KeyspaceId) -> Option<&Arc<KeyspaceView>> {
        let chunk = self.chunks.get(id.0 as usize / CHUNK)?.as_ref()?;
        chunk[id.0 as usize % CHUNK].as_ref()
    }

    /// All of them, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<KeyspaceView>> {
        self.chunks.iter().flatten().flat_map(|chunk| chunk.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{KeyspaceOptions, KeyspaceState};
    use sapwood_base::key::MAX_KEYSPACES;
    use std::collections::BTreeSet;

    fn view(number: u32) -> Option<Arc<KeyspaceView>> {
        let id = KeyspaceId(number);
        let state = KeyspaceState::new(id, &number.to_string(), KeyspaceOptions::default());
        let version = Arc::default();
        Some(Arc::new(KeyspaceView { state, version, indexes: Vec::new(), index: None }))
    }

    #[test]
    fn changes_are_seen_in_the_new_views_and_not_in_those_before() {
        let mut random = fastrand::Rng::with_seed(5);
        for most in [40, 300, 5000, MAX_KEYSPACES] {
            let mut views = KeyspaceViews::default();
            let mut numbers = BTreeSet::new();
            for step in 0..600 {
                let (before, numbers_before) = (views.clone(), numbers.clone());
                let changes = (0..random.usize(..4)).map(|_| {
                    let number = random.u32(..most);
                    // Grows first, and shrinks then.
                    let adds = random.bool() || step < 300 && random.bool();
                    match adds {
                        true => numbers.insert(number),
                        false => numbers.remove(&number),
                    };
                    (KeyspaceId(number), adds.then(|| view(number)).flatten())
                });
                views = views.with(changes.collect::<Vec<_>>());
                for (views, numbers) in [(&views, &numbers), (&before, &numbers_before)] {
                    assert!(views.iter().map(|view| view.state.id.0).eq(numbers.iter().copied()));
                    let last = numbers.last().map_or(0, |last| *last as usize / CHUNK + 1);
                    assert_eq!(views.chunks.len(), last);
                }
                let asked = random.u32(..most);
                let found = views.get(KeyspaceId(asked)).map(|view| view.state.id.0);
                assert_eq!(found, numbers.contains(&asked).then_some(asked));
                assert!(views.get(KeyspaceId(u32::MAX)).is_none());
            }
            let all: Vec<_> = numbers.iter().map(|number| (KeyspaceId(*number), None)).collect();
            assert!(views.with(all).chunks.is_empty());
        }
    }
}
