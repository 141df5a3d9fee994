//! The keyspace that a compaction works on: the most urgent first, without starvation.
//!
//! A keyspace is claimed by one thread at a time.
use super::state::Background;
use crate::planted;
use sapwood_base::KeyspaceId;
use sapwood_compaction::Version;
use sapwood_compaction::picker::Interrupted;
use std::collections::HashSet;
use std::sync::Arc;

/// Each step for another keyspace adds this to the urgency of a waiting one, in units of its
/// `picker::pressure`.
const WAITING_WEIGHT: f64 = 1.0 / 8.0;

impl Background {
    pub(super) fn claim(&self, keyspace: KeyspaceId) -> bool {
        self.state.lock().busy.insert(keyspace)
    }

    pub(super) fn release(&self, keyspace: KeyspaceId) {
        self.state.lock().busy.remove(&keyspace);
        self.changed.notify_all();
    }

    /// Keyspaces in the order in which to look for a compaction: by urgency, and by how long they
    /// have waited. So a keyspace that always has work cannot starve the others.
    pub(super) fn queue(&self, keyspaces: impl Iterator<Item = (KeyspaceId, f64)>) -> Vec<KeyspaceId> {
        let mut state = self.state.lock();
        let mut queue: Vec<(KeyspaceId, f64)> = keyspaces
            .map(|(id, pressure)| {
                let waited = state.waiting.get(&id).copied().unwrap_or(0);
                (id, pressure + f64::from(waited) * WAITING_WEIGHT)
            })
            .collect();
        if state.waiting.len() > queue.len() {
            // Some were dropped.
            let ids: HashSet<KeyspaceId> = queue.iter().map(|(id, _)| *id).collect();
            state.waiting.retain(|id, _| ids.contains(id));
        }
        if state.merges.len() > queue.len() {
            let ids: HashSet<KeyspaceId> = queue.iter().map(|(id, _)| *id).collect();
            state.merges.retain(|id, _| ids.contains(id));
        }
        if planted::urgent_keyspace_first() {
            queue.sort_by(|a, b| b.1.total_cmp(&a.1));
        }
        queue.into_iter().map(|(id, _)| id).collect()
    }

    /// Remembers the compaction that begins on a keyspace.
    pub(super) fn begin_merge(&self, keyspace: KeyspaceId, merge: Interrupted, version: &Version) {
        let mut state = self.state.lock();
        Interrupted::begin(state.merges.entry(keyspace).or_default(), merge, version);
    }

    /// Forgets the newest compaction of a keyspace at its end.
    pub(super) fn end_merge(&self, keyspace: KeyspaceId) {
        if let Some(merges) = self.state.lock().merges.get_mut(&keyspace) {
            merges.pop();
        }
    }

    /// The compactions of a keyspace that have not reached their end, oldest first.
    pub(super) fn interrupted(&self, keyspace: KeyspaceId) -> Vec<Arc<Interrupted>> {
        self.state.lock().merges.get(&keyspace).cloned().unwrap_or_default()
    }

    /// Records a look at a keyspace. If it had work, those `behind` it wait once more.
    pub(super) fn note_turn(&self, keyspace: KeyspaceId, behind: Option<&[KeyspaceId]>) {
        let mut state = self.state.lock();
        state.waiting.remove(&keyspace);
        for id in behind.unwrap_or_default() {
            *state.waiting.entry(*id).or_insert(0) += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyspace_that_always_has_work_does_not_keep_others_from_theirs() {
        let background = Background::default();
        // The first is saturated: after any merge it is at once as urgent as before.
        let pressures = [6.0, 1.0, 0.2, 0.0];
        let ids: Vec<KeyspaceId> = (0..4).map(KeyspaceId).collect();
        let mut last = [0; 4];
        let mut turns = [0; 4];
        for turn in 1..1000 {
            let queue = background.queue(ids.iter().copied().zip(pressures));
            // All have work.
            let served = queue[0].0 as usize;
            background.note_turn(queue[0], Some(&queue[1..]));
            assert!(turn - last[served] <= 60, "keyspace {served} waited for {} turns", turn - last[served]);
            last[served] = turn;
            turns[served] += 1;
        }
        assert!(last.iter().all(|last| *last > 900), "each has its turns to the end: {last:?}");
        assert!(turns[0] > 800, "the most urgent one has most of them: {turns:?}");
    }

    #[test]
    fn one_without_work_costs_the_others_no_turn() {
        let background = Background::default();
        let ids = [KeyspaceId(0), KeyspaceId(1)];
        for _ in 0..3 {
            let queue = background.queue(ids.iter().copied().zip([1.0, 0.5]));
            assert_eq!(queue, ids);
            background.note_turn(ids[0], None);
            background.note_turn(ids[1], Some(&[]));
        }
        // A keyspace that no longer exists is forgotten.
        background.note_turn(ids[0], Some(&ids[1..]));
        assert_eq!(background.queue([(KeyspaceId(5), 1.0)].into_iter()), [KeyspaceId(5)]);
        background.note_turn(KeyspaceId(5), None);
        assert!(background.state.lock().waiting.len() <= 1);
    }
}
