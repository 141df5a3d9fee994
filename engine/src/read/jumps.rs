//! The interface of a cursor to vacant ranges: it looks up jumps and records the ranges that it
//! finds.
//!
//! Cursors over keyspaces and over indexes share it; see `vacancy` for the meaning of a range.
use super::vacancy::End;
use crate::keyspace::KeyspaceState;
use crate::planted;
use sapwood_base::SequenceNumber;
use std::sync::Arc;

/// The vacant ranges of a keyspace as a cursor in one state uses them. By default it neither jumps
/// nor learns.
#[derive(Default)]
pub(crate) struct Jumps {
    space: Option<Arc<KeyspaceState>>,
    /// The cursor's view is complete up to here.
    covered: SequenceNumber,
}

impl Jumps {
    /// For a keyspace in which every value was put by a commit. The cursor's view is complete up to
    /// `covered`.
    #[inline]
    pub(crate) fn new(space: &Arc<KeyspaceState>, covered: SequenceNumber) -> Jumps {
        Jumps { space: Some(space.clone()), covered }
    }

    /// Whether it jumps and learns.
    #[inline]
    pub(crate) fn are_on(&self) -> bool {
        self.space.is_some()
    }

    /// Whether there is any vacant range.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.space.as_ref().is_some_and(|space| space.vacancies.any())
    }

    /// A lower bound of the state that a cursor at `sequence` shows. A range that became vacant
    /// later may hold rows of its view.
    fn shown(&self, sequence: SequenceNumber) -> SequenceNumber {
        planted::shown(sequence, self.covered)
    }

    /// See [`Vacancies::end_of`](super::vacancy::Vacancies::end_of).
    #[cold]
    pub(crate) fn end_of(&self, key: &[u8], sequence: SequenceNumber) -> Option<End> {
        self.space.as_ref()?.vacancies.end_of(key, self.shown(sequence))
    }

    /// See [`Vacancies::start_of`](super::vacancy::Vacancies::start_of).
    #[cold]
    pub(crate) fn start_of(&self, key: Option<&[u8]>, sequence: SequenceNumber) -> Option<Vec<u8>> {
        self.space.as_ref()?.vacancies.start_of(key, self.shown(sequence))
    }

    /// See [`Vacancies::learn`](super::vacancy::Vacancies::learn).
    #[cold]
    pub(crate) fn learn(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        sequence: SequenceNumber,
        ahead: Option<Option<&[u8]>>,
    ) {
        if let Some(space) = &self.space {
            space.vacancies.learn(from, to, sequence, self.covered, ahead);
        }
    }

    /// See [`Vacancies::grow`](super::vacancy::Vacancies::grow).
    pub(crate) fn grow(&self, from: &[u8], to: &[u8], sequence: SequenceNumber) {
        if let Some(space) = &self.space {
            space.vacancies.grow(from, to, sequence, self.covered);
        }
    }
}
