//! The driver's operations on secondary indexes.
use super::{Driver, Observer, in_context, violation};
use crate::oracle::{Incarnation, Map, Spaces};
use crate::sim::driver::Outcome;
use crate::sim::indexes::{self, Question, index_name, index_number, options};
use crate::sim::operation::space_name;
use sapwood::{Db, Keyspace, KeyspaceOptions, Snapshot};
use std::collections::BTreeSet;

impl Driver {
    pub(super) fn create_index(&mut self, space: u8, index: u8, observer: &mut dyn Observer) -> Outcome {
        self.resume();
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        let exists = self.oracle.promise().indexes.contains(&(incarnation, index));
        if !exists {
            self.oracle.creating_index(incarnation, index);
            self.moved(observer)?;
        }
        // Creating it again only returns the existing index.
        keyspace.create_index(&index_name(index), options(index))?;
        if !exists {
            self.oracle.created_index();
            self.index_since.insert((incarnation, index), self.oracle.promise().submitted);
            self.moved(observer)?;
        }
        Ok(())
    }

    pub(super) fn drop_index(&mut self, space: u8, index: u8, observer: &mut dyn Observer) -> Outcome {
        self.resume();
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        if !self.oracle.promise().indexes.contains(&(incarnation, index)) {
            return Ok(());
        }
        let handle = keyspace.index(&index_name(index))?;
        self.oracle.dropping_index(incarnation, index);
        self.moved(observer)?;
        keyspace.drop_index(&index_name(index))?;
        self.oracle.dropped_index();
        self.moved(observer)?;
        if handle.iter().next().is_some_and(|hit| hit.is_ok()) {
            return violation("O5: a handle of a dropped index still reads");
        }
        Ok(())
    }

    pub(super) fn rebuild_index(&mut self, space: u8, index: u8, observer: &mut dyn Observer) -> Outcome {
        self.resume();
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        if !self.oracle.promise().indexes.contains(&(incarnation, index)) {
            return Ok(());
        }
        keyspace.index(&index_name(index))?.rebuild()?;
        self.index_since.insert((incarnation, index), self.oracle.promise().submitted);
        self.moved(observer)
    }

    pub(super) fn ask_index(&mut self, space: u8, index: u8, at: Option<u8>, question: &Question) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        if !self.oracle.promise().indexes.contains(&(incarnation, index)) {
            return Ok(());
        }
        // These two exist only without a snapshot.
        let at = at.filter(|_| !matches!(question, Question::Rank(_) | Question::Nth(_)));
        let Some((snapshot, commits)) = self.moment(at) else { return Ok(()) };
        let want = indexes::expected(index, &self.oracle.map(incarnation, commits));
        let handle = keyspace.index(&index_name(index))?;
        let answered = indexes::ask(&handle, snapshot, question, &want)?;
        self.check_answered(answered, incarnation, index, snapshot, commits)
    }

    /// Compares all indexes of a keyspace with its rows (O5).
    pub(super) fn compare_indexes(
        &self,
        keyspace: &Keyspace,
        incarnation: Incarnation,
        snapshot: Option<&Snapshot>,
        commits: u64,
        rows: &Map,
    ) -> Outcome {
        let promised = &self.oracle.promise().indexes;
        for (_, index) in promised.range((incarnation, 0)..=(incarnation, u8::MAX)) {
            let answered = indexes::compare(keyspace, *index, snapshot, rows)?;
            self.check_answered(answered, incarnation, *index, snapshot, commits)?;
        }
        Ok(())
    }

    /// An index may be unavailable only for states before its creation.
    fn check_answered(
        &self,
        answered: bool,
        incarnation: Incarnation,
        index: u8,
        snapshot: Option<&Snapshot>,
        commits: u64,
    ) -> Outcome {
        let since = self.index_since.get(&(incarnation, index)).copied().unwrap_or(0);
        if !answered && (snapshot.is_none() || commits > since) {
            return violation(format!("O5: index {index} is unavailable, though it is complete"));
        }
        Ok(())
    }

    /// After an open: attaches the code of indexes, and compares the list of indexes with the
    /// oracle.
    pub(super) fn attach_indexes(&mut self) -> Outcome {
        for (space, incarnation) in &self.oracle.promise().spaces.clone() {
            let keyspace = self.db().keyspace(&space_name(*space), self.tuning.keyspace.clone())?;
            let context = format!("keyspace {space}");
            let listed = listed(&keyspace).map_err(|stop| in_context(stop, &context))?;
            let promised = &self.oracle.promise().indexes;
            let wanted: BTreeSet<u8> = promised
                .range((*incarnation, 0)..=(*incarnation, u8::MAX))
                .map(|(_, index)| *index)
                .collect();
            let is_unfinished = |index: &u8| self.unfinished.contains(&(*incarnation, *index));
            if !listed.is_superset(&wanted) || listed.difference(&wanted).any(|index| !is_unfinished(index)) {
                return violation(format!("O5: {context} has indexes {listed:?}, not {wanted:?}"));
            }
            for index in listed {
                if let Err(error) = keyspace.create_index(&index_name(index), options(index)) {
                    self.has_not_attached(&keyspace, *incarnation, index)?;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// An index whose rows were flushed without its code is built again; if that fails it is
    /// dropped.
    fn has_not_attached(&mut self, keyspace: &Keyspace, incarnation: Incarnation, index: u8) -> Outcome {
        if self.is_scarce && !listed(keyspace)?.contains(&index) {
            self.oracle.dropping_index(incarnation, index);
            self.oracle.dropped_index();
            self.unfinished.insert((incarnation, index));
        }
        Ok(())
    }
}

fn listed(keyspace: &Keyspace) -> Outcome<BTreeSet<u8>> {
    let names = keyspace.list_indexes()?;
    let numbers: Option<BTreeSet<u8>> = names.iter().map(|name| index_number(name)).collect();
    match numbers {
        Some(numbers) if numbers.len() == names.len() => Ok(numbers),
        _ => violation(format!("O5: the indexes {names:?} were never created")),
    }
}

/// The indexes that a database has after a crash, by keyspace: the promised ones. An index whose
/// creation or drop was interrupted may or may not exist.
pub fn found(
    db: &Db,
    spaces: &Spaces,
    promised: &BTreeSet<(Incarnation, u8)>,
    unsure: Option<(Incarnation, u8)>,
) -> Outcome<Vec<(u8, u8)>> {
    let mut found = Vec::new();
    for (space, incarnation) in spaces {
        let keyspace = db.keyspace(&space_name(*space), KeyspaceOptions::default())?;
        let listed = listed(&keyspace)?;
        for index in 0..indexes::INDEXES {
            let (is_there, id) = (listed.contains(&index), (*incarnation, index));
            if is_there != promised.contains(&id) && unsure != Some(id) {
                let what = if is_there { "exists" } else { "is missing" };
                return violation(format!("O5: index {index} of keyspace {space} {what} after the crash"));
            }
            if is_there {
                found.push((*space, index));
            }
        }
    }
    Ok(found)
}
