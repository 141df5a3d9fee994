//! The state that the edits of a MANIFEST result in.
use super::keyspaces::{KeyspaceEntry, Keyspaces};
use crate::index::state::{IndexMeta, IndexState, Phase, TreeFile, TreeState};
use crate::keyspace::{KeyspaceOptions, KeyspaceState};
use crate::planted;
use crate::wal::commit_ring::LogPoint;
use sapwood_base::format::index_definition::IndexDefinition;
use sapwood_base::format::manifest::Edit;
use sapwood_base::{Error, ErrorKind, FileNumber, KeyspaceId, Result};
use sapwood_compaction::TableHandle;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The edits that begin the log at `start`.
pub(crate) fn log_start(start: LogPoint) -> [Edit; 2] {
    let commits = planted::commits_before_log(start.commits);
    [Edit::LogStart(start.position), Edit::LogCommits(commits)]
}

/// The state that results from the edits.
#[derive(Clone, Default)]
pub(crate) struct ManifestState {
    pub(crate) next_file: u64,
    pub(crate) next_keyspace: u32,
    /// Position from which the log is needed.
    pub(crate) log_start: u64,
    /// Number of commits before it.
    pub(crate) log_commits: u64,
    /// Start and end of the log of earlier sessions, as far as needed, in order.
    pub(crate) closed_sessions: Vec<(u64, u64)>,
    /// If set, closed sessions are synced below this position only.
    pub(crate) log_synced: Option<u64>,
    /// Start of the log of the last session.
    pub(crate) log_opened: u64,
    pub(crate) keyspaces: Keyspaces,
    /// Optional fields of a later version, as they are encoded, in their order.
    pub(crate) unknown: Vec<u8>,
}

impl ManifestState {
    /// Whether the log at `position` is needed: not below its start, and of a closed session or of
    /// the open one.
    pub(crate) fn needs_log_at(&self, position: u64) -> bool {
        let is_closed = || self.closed_sessions.iter().any(|(start, end)| (*start..*end).contains(&position));
        position >= self.log_start && (position >= self.log_opened || is_closed())
    }

    /// The start of the needed log.
    pub(crate) fn log_start_point(&self) -> LogPoint {
        LogPoint { position: self.log_start, commits: self.log_commits }
    }

    /// Everything that it says about the log.
    pub(crate) fn log(&self) -> impl PartialEq + use<> {
        let Self { log_start, log_commits, log_synced, log_opened, .. } = *self;
        (log_start, log_commits, self.closed_sessions.clone(), log_synced, log_opened)
    }

    /// Whether it says that the log is empty and begins at `start`.
    pub(crate) fn has_empty_log_at(&self, start: LogPoint) -> bool {
        self.log_opened == start.position
            && self.log_start_point() == start
            && self.closed_sessions.is_empty()
    }

    /// Drops the entries of sessions that are not needed any more.
    pub(crate) fn forget_log(&mut self) {
        let start = self.log_start;
        self.closed_sessions.retain(|(_, end)| *end > start);
        let last = self.closed_sessions.last().map_or(0, |(_, end)| *end);
        self.log_synced = self.log_synced.filter(|synced| *synced < last);
    }

    /// Below this position the needed log was synced as a whole: an invalid record there is damage.
    /// Above, the first invalid record may be the end of the log.
    pub(crate) fn log_surely_synced(&self) -> u64 {
        let opened = self.log_opened.max(self.log_start);
        self.log_synced.map_or(opened, |synced| synced.max(self.log_start).min(opened))
    }

    /// Applies one edit record. New tables come with their handles.
    pub(crate) fn apply(
        &mut self,
        edits: &[Edit],
        handles: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<()> {
        edits.iter().try_for_each(|edit| self.apply_one(edit))?;
        self.finish(edits, handles)
    }

    /// The first half of [`ManifestState::apply`]: everything but tables.
    pub(super) fn apply_one(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::NextFile(next) => self.next_file = self.next_file.max(next.0),
            Edit::LogStart(position) => {
                self.log_start = self.log_start.max(*position);
                self.forget_log();
            }
            Edit::LogCommits(commits) => self.log_commits = self.log_commits.max(*commits),
            Edit::LogClosed { start, end } => self.closed_sessions.push((*start, *end)),
            Edit::LogOpened(position) => self.log_opened = *position,
            Edit::LogSynced(position) => {
                self.log_synced = Some(*position);
                self.forget_log();
            }
            Edit::KeyspaceCreated { id, name, options } => self.create_keyspace(*id, name, options)?,
            Edit::KeyspaceDropped(id) => {
                let indexes: Vec<KeyspaceId> = self.keyspaces.owned_by(*id).collect();
                indexes.into_iter().chain([*id]).for_each(|id| self.keyspaces.remove(id));
            }
            Edit::IndexCreated { id, definition } => self.create_index(*id, definition)?,
            Edit::IndexDropped(id) => {
                self.index_mut(*id)?;
                self.keyspaces.remove(*id);
            }
            Edit::IndexReady { id, start, built } => {
                let index = self.index_mut(*id)?;
                index.phase = Phase::Ready;
                index.state.set_start(*start);
                index.state.set_built_sequence(*built);
            }
            Edit::IndexOutdated(id) => {
                self.index_mut(*id)?.phase = Phase::Outdated;
            }
            Edit::IndexTree { id, file, root } => {
                let index = self.index_mut(*id)?;
                let known = index.tree.as_ref().map(|tree| &tree.file);
                let file = match known.filter(|known| known.number == *file) {
                    Some(known) => known.clone(),
                    None => TreeFile::new(*file),
                };
                index.tree = Some(TreeState::new(file, *root));
            }
            Edit::NextKeyspace(id) => self.next_keyspace = self.next_keyspace.max(*id),
            Edit::Unknown(fields) => self.unknown.extend_from_slice(fields),
            Edit::TableAdded(_) | Edit::TableRemoved { .. } => {}
        }
        Ok(())
    }

    fn create_keyspace(&mut self, id: KeyspaceId, name: &str, options: &str) -> Result<()> {
        let broken =
            |what: &str| Error::new(ErrorKind::Corruption, format!("keyspace {id} ({name:?}) {what}"));
        if self.keyspaces.contains_key(&id) {
            return Err(broken("is created twice"));
        }
        if self.by_name(name).is_some() {
            return Err(broken("has the name of another one"));
        }
        let options = options.parse().map_err(|error| broken(&format!("has bad options: {error}")))?;
        let state = KeyspaceState::new(id, name, options);
        let entry = KeyspaceEntry { state, version: Arc::default(), index: None };
        self.keyspaces.insert(id, entry);
        self.next_keyspace = self.next_keyspace.max(id.0 + 1);
        Ok(())
    }

    fn create_index(&mut self, id: KeyspaceId, definition: &IndexDefinition) -> Result<()> {
        let broken = |what: &str| {
            let message = format!("index {id} ({:?}) {what}", definition.name);
            Error::new(ErrorKind::Corruption, message)
        };
        if self.keyspaces.contains_key(&id) {
            return Err(broken("is created twice"));
        }
        let owner = self.keyspaces.get(&definition.keyspace);
        let Some(owner) = owner.filter(|owner| owner.index.is_none()) else {
            return Err(broken("is of a keyspace that does not exist"));
        };
        if self.index_by_name(definition.keyspace, &definition.name).is_some() {
            return Err(broken("has the name of another one"));
        }
        let name = format!("{}/{}", owner.state.name, definition.name);
        let state = KeyspaceState::new(id, &name, KeyspaceOptions::default());
        let index =
            IndexMeta { state: IndexState::new(id, definition.clone()), phase: Phase::Building, tree: None };
        let entry = KeyspaceEntry { state, version: Arc::default(), index: Some(index) };
        self.keyspaces.insert(id, entry);
        self.next_keyspace = self.next_keyspace.max(id.0 + 1);
        Ok(())
    }

    /// The second half: the tables among `edits`, after all edits of a record were applied.
    pub(super) fn finish(
        &mut self,
        edits: &[Edit],
        handles: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<()> {
        // Overlapping sessions would replay the same operations twice.
        let ends = self.closed_sessions.iter().map(|(_, end)| *end);
        let starts = self.closed_sessions.iter().skip(1).map(|(start, _)| *start).chain([self.log_opened]);
        if ends.zip(starts).any(|(end, next)| end > next) {
            return Err(Error::new(ErrorKind::Corruption, "sessions of the log overlap"));
        }
        let mut touched: Vec<KeyspaceId> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::TableAdded(table) => Some(table.keyspace),
                Edit::TableRemoved { keyspace, .. } => Some(*keyspace),
                _ => None,
            })
            .collect();
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let Some(entry) = self.keyspaces.get_mut(id) else {
                let message = format!("version edit concerns keyspace {id}, which does not exist");
                return Err(Error::new(ErrorKind::Corruption, message));
            };
            entry.version = Arc::new(entry.version.apply(id, edits, handles)?);
        }
        Ok(())
    }

    /// The edits that create this state from an empty one.
    pub(crate) fn snapshot(&self) -> Vec<Edit> {
        let mut edits = vec![
            Edit::NextFile(FileNumber(self.next_file)),
            Edit::NextKeyspace(self.next_keyspace),
            Edit::LogStart(self.log_start),
            Edit::LogCommits(self.log_commits),
            Edit::LogOpened(self.log_opened),
        ];
        edits.extend(
            self.closed_sessions.iter().map(|(start, end)| Edit::LogClosed { start: *start, end: *end }),
        );
        edits.extend(self.log_synced.map(Edit::LogSynced));
        for entry in self.named() {
            edits.push(Edit::KeyspaceCreated {
                id: entry.state.id,
                name: entry.state.name.clone(),
                options: entry.state.options.to_text(),
            });
        }
        for index in self.indexes() {
            let id = index.state.id;
            edits.push(Edit::IndexCreated { id, definition: index.state.definition.clone() });
            match index.phase {
                Phase::Building => {}
                Phase::Ready => {
                    let (start, built) = (index.state.start(), index.state.built_sequence());
                    edits.push(Edit::IndexReady { id, start, built });
                }
                Phase::Outdated => edits.push(Edit::IndexOutdated(id)),
            }
            if let Some(tree) = index.tree.as_ref().filter(|_| planted::lists_trees()) {
                edits.push(Edit::IndexTree { id, file: tree.file.number, root: tree.root });
            }
        }
        for entry in self.keyspaces.values() {
            edits.extend(entry.version.tables().map(|table| Edit::TableAdded((*table.meta).clone())));
        }
        if !self.unknown.is_empty() {
            edits.push(Edit::Unknown(self.unknown.clone()));
        }
        edits
    }

    /// A table that two keyspaces list: dropping the first of them would remove it. A version
    /// covers its own keyspace only.
    pub(super) fn file_in_two_keyspaces(&self) -> Option<FileNumber> {
        let mut listed = HashSet::new();
        let tables = self.keyspaces.values().flat_map(|entry| entry.version.tables());
        tables.map(|table| table.handle.file()).find(|file| !listed.insert(*file))
    }

    /// The keyspaces that have a name of their own: all but those of indexes.
    pub(crate) fn named(&self) -> impl Iterator<Item = &KeyspaceEntry> {
        self.keyspaces.values().filter(|entry| entry.index.is_none())
    }

    /// A keyspace by name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&KeyspaceEntry> {
        self.keyspaces.by_name(name)
    }

    /// All indexes.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = &IndexMeta> {
        self.keyspaces.values().filter_map(|entry| entry.index.as_ref())
    }

    /// The indexes of a keyspace.
    pub(crate) fn indexes_of(&self, owner: KeyspaceId) -> impl Iterator<Item = &IndexMeta> {
        self.keyspaces.owned_by(owner).filter_map(|id| self.keyspaces.get(&id)?.index.as_ref())
    }

    /// An index by its name within its keyspace.
    pub(crate) fn index_by_name(&self, owner: KeyspaceId, name: &str) -> Option<&IndexMeta> {
        self.indexes_of(owner).find(|index| index.state.definition.name == name)
    }

    fn index_mut(&mut self, id: KeyspaceId) -> Result<&mut IndexMeta> {
        self.keyspaces.get_mut(id).and_then(|entry| entry.index.as_mut()).ok_or_else(|| {
            let message = format!("version edit concerns index {id}, which does not exist");
            Error::new(ErrorKind::Corruption, message)
        })
    }
}

/// Undoes edits: the earlier values of every part of a state that they may change.
pub(super) struct Undo {
    /// All but the keyspaces and the unknown fields, which are empty here.
    rest: ManifestState,
    entries: Vec<(KeyspaceId, Option<KeyspaceEntry>)>,
}

impl Undo {
    /// For `edits`, before they are applied to `state`.
    pub(super) fn new(state: &ManifestState, edits: &[Edit]) -> Undo {
        let touched = state.keyspaces.touched_by(edits, false);
        let entries = touched.into_iter().map(|id| (id, state.keyspaces.get(&id).cloned())).collect();
        let rest = ManifestState {
            keyspaces: Keyspaces::default(),
            closed_sessions: state.closed_sessions.clone(),
            unknown: Vec::new(),
            ..*state
        };
        Undo { rest, entries }
    }

    /// Restores the earlier `state`.
    pub(super) fn restore(self, state: &mut ManifestState) {
        let mut keyspaces = std::mem::take(&mut state.keyspaces);
        for (id, entry) in self.entries {
            match entry {
                Some(entry) => keyspaces.insert(id, entry),
                None => keyspaces.remove(id),
            }
        }
        // No edit of ours changes them.
        let unknown = std::mem::take(&mut state.unknown);
        *state = ManifestState { keyspaces, unknown, ..self.rest };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapwood_base::format::manifest::{Edits, encode};

    fn decode(bytes: &[u8]) -> Vec<Edit> {
        Edits::new(bytes).collect::<Result<_>>().expect("valid edits")
    }

    #[test]
    fn optional_fields_of_later_versions_stay_in_every_snapshot() {
        let created = Edit::KeyspaceCreated { id: KeyspaceId(1), name: "a".into(), options: "".into() };
        let mut state = ManifestState::default();
        state.apply(&[created], &HashMap::new()).unwrap();
        for field in [&[64, 1, b'x'][..], &[70, 0], &[64, 1, b'y']] {
            state.apply(&decode(field), &HashMap::new()).unwrap();
        }
        for _ in 0..2 {
            // A failed edit leaves them alone.
            let edits = [Edit::NextFile(FileNumber(9))];
            let undo = Undo::new(&state, &edits);
            state.apply(&edits, &HashMap::new()).unwrap();
            undo.restore(&mut state);
            let written = encode(&state.snapshot());
            assert!(written.ends_with(&[64, 1, b'x', 70, 0, 64, 1, b'y']));
            state = ManifestState::default();
            state.apply(&decode(&written), &HashMap::new()).unwrap();
            assert!(state.by_name("a").is_some());
        }
    }
}
