//! The cursor: visible entries of one keyspace, in key order, both ways.
//!
//! It merges the memtables and runs of its view. Of the versions of a key it shows the newest one
//! that its sequence number sees, unless that is a tombstone.
use super::resolve::{has_value, is_seen};
use crate::keyspace::KeyspaceState;
use crate::planted;
use crate::read::jumps::Jumps;
use crate::read::vacancy::{LOWEST, WORTH_A_RANGE, WORTH_GROWING};
use crate::read::view::View;
use sapwood_base::iterator::{InternalIterator, KeyRange, merging::MergingIterator};
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};
use sapwood_btree::TreeCursor;
use sapwood_compaction::version::iterator::{Cached, RunIterator};
use sapwood_memtable::MemtableIterator;
use sapwood_sstable::ReadOptions;
use std::sync::Arc;

/// One input of the merge.
enum Source {
    Memtable(MemtableIterator),
    Run(RunIterator<Cached>),
    Tree(TreeSource),
}

/// The tree of an index: puts that are older than all other versions of their keys.
struct TreeSource {
    cursor: TreeCursor,
    sequence: SequenceNumber,
}

impl InternalIterator for TreeSource {
    #[inline]
    fn valid(&self) -> bool {
        self.cursor.valid()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.cursor.seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.cursor.seek_to_last()
    }
    fn seek(&mut self, target: &[u8]) -> Result<()> {
        self.cursor.seek(target)
    }
    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        self.cursor.seek_before(target)
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        self.cursor.next()
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.cursor.prev()
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.cursor.key()
    }
    #[inline]
    fn sequence(&self) -> SequenceNumber {
        self.sequence
    }
    #[inline]
    fn kind(&self) -> ValueKind {
        ValueKind::Put
    }
    #[inline]
    fn value(&self) -> &[u8] {
        self.cursor.value()
    }
}

macro_rules! delegate {
    ($self:ident, $source:ident => $call:expr) => {
        match $self {
            Source::Memtable($source) => $call,
            Source::Run($source) => $call,
            Source::Tree($source) => $call,
        }
    };
}

impl InternalIterator for Source {
    #[inline(always)]
    fn valid(&self) -> bool {
        delegate!(self, source => source.valid())
    }
    #[inline(always)]
    fn seek_to_first(&mut self) -> Result<()> {
        delegate!(self, source => source.seek_to_first())
    }
    #[inline(always)]
    fn seek_to_last(&mut self) -> Result<()> {
        delegate!(self, source => source.seek_to_last())
    }
    #[inline(always)]
    fn seek(&mut self, target: &[u8]) -> Result<()> {
        delegate!(self, source => source.seek(target))
    }
    #[inline(always)]
    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        delegate!(self, source => source.seek_before(target))
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        delegate!(self, source => source.next())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        delegate!(self, source => source.prev())
    }
    #[inline(always)]
    fn key(&self) -> &[u8] {
        delegate!(self, source => source.key())
    }
    #[inline(always)]
    fn sequence(&self) -> SequenceNumber {
        delegate!(self, source => source.sequence())
    }
    #[inline(always)]
    fn kind(&self) -> ValueKind {
        delegate!(self, source => source.kind())
    }
    #[inline(always)]
    fn value(&self) -> &[u8] {
        delegate!(self, source => source.value())
    }
    #[inline(always)]
    fn may_repeat_after(&self) -> bool {
        delegate!(self, source => source.may_repeat_after())
    }
    #[inline(always)]
    fn may_repeat_before(&self) -> bool {
        delegate!(self, source => source.may_repeat_before())
    }
    fn run_ahead(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        delegate!(self, source => source.run_ahead(bound, limit))
    }
    fn run_behind(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        delegate!(self, source => source.run_behind(bound, limit))
    }
    #[inline(always)]
    fn next_in_run(&mut self) {
        delegate!(self, source => source.next_in_run());
    }
    #[inline(always)]
    fn prev_in_run(&mut self) {
        delegate!(self, source => source.prev_in_run());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first positioning, past an end, or after an error.
    Nowhere,
    /// On an entry, and the merge stands on it.
    Forward,
    /// On an entry, and the merge, moving backward, stands on it: no version of its key comes
    /// before.
    BackwardSingle,
    /// On an entry whose key and value are held here; the merge stands on the last entry of a
    /// smaller key.
    Backward,
}

/// The part of an index above its tree: the newest version of each entry, deletions too.
pub(crate) struct Overlay {
    merged: MergingIterator<Source>,
    range: KeyRange,
    sequence: SequenceNumber,
    key: Vec<u8>,
    value: Vec<u8>,
    is_first: bool,
    _view: Arc<View>,
}

/// An entry of an [`Overlay`].
pub(crate) struct Overlaid<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) is_put: bool,
}

impl Overlay {
    /// The overlay within `range` that `sequence` sees; `None` if there is nothing in it. Not
    /// positioned.
    pub(crate) fn new(
        view: &Arc<View>,
        keyspace: KeyspaceId,
        sequence: SequenceNumber,
        range: &KeyRange,
    ) -> Option<Overlay> {
        let sources = sources(view, keyspace, sequence, ReadOptions::default(), range);
        (!sources.is_empty()).then(|| Overlay {
            merged: MergingIterator::new(sources),
            range: range.clone(),
            sequence,
            key: Vec::new(),
            value: Vec::new(),
            is_first: true,
            _view: view.clone(),
        })
    }

    /// Moves to before the first entry.
    pub(crate) fn seek_to_first(&mut self) -> Result<()> {
        self.is_first = true;
        match &self.range.lower {
            Some(lower) => self.merged.seek(lower),
            None => self.merged.seek_to_first(),
        }
    }

    /// The next entry that the sequence number sees a version of.
    pub(crate) fn next_key(&mut self) -> Result<Option<Overlaid<'_>>> {
        while self.merged.valid() && !self.range.is_above(self.merged.key()) {
            let is_old = !self.is_first && self.merged.key() == self.key.as_slice();
            if is_old || !is_seen(self.merged.sequence(), self.sequence) {
                self.merged.next()?;
                continue;
            }
            self.is_first = false;
            self.key.clear();
            self.key.extend_from_slice(self.merged.key());
            self.value.clear();
            self.value.extend_from_slice(self.merged.value());
            let is_put = has_value(self.merged.kind());
            self.merged.next()?;
            return Ok(Some(Overlaid { key: &self.key, value: &self.value, is_put }));
        }
        Ok(None)
    }
}

/// The nonempty memtables and runs of a keyspace, newest first, for a reader that stays within
/// `range`.
fn sources(
    view: &View,
    keyspace: KeyspaceId,
    sequence: SequenceNumber,
    options: ReadOptions,
    range: &KeyRange,
) -> Vec<Source> {
    let runs = view.keyspace(keyspace).map_or(&[][..], |keyspace| &keyspace.version.runs);
    // Room for the tree of an index as well.
    let mut sources = Vec::with_capacity(view.generations.len() + runs.len() + 1);
    for generation in &view.generations {
        if generation.memtable.entries_of(keyspace) > 0 {
            let memtable = &generation.memtable;
            sources.push(Source::Memtable(planted::versions_seen(
                || memtable.iter_at(keyspace, sequence),
                || memtable.iter(keyspace),
            )));
        }
    }
    for run in runs {
        sources.push(Source::Run(RunIterator::within(run.clone(), Cached(options), range)));
    }
    sources
}

/// A position among the visible entries of a keyspace.
///
/// Owns all it needs (`'static`, `Send`): the tables and memtables that it reads stay until it is
/// dropped, so do not keep an idle cursor for long. It sees the state at its creation (or the
/// snapshot's); later writes do not change it. It does not keep the database open (see
/// [`Db`](crate::Db)).
pub struct Cursor {
    merged: MergingIterator<Source>,
    sequence: SequenceNumber,
    state: State,
    /// The number of further moves in the direction of `state` that need no check of the entry they
    /// reach.
    plain: usize,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Of the current entry, while moving backward.
    entry_sequence: SequenceNumber,
    /// Its bounds on both sides. No source reads past its bound.
    range: KeyRange,
    /// Versions that were passed over.
    passed: u64,
    jumps: Jumps,
    /// Whether the last seek forward began with a jump.
    has_jumped: bool,
    /// Where the dead versions that are being passed over begin (backward: end), once they are
    /// worth remembering.
    dead_from: Vec<u8>,
    _view: Arc<View>,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor")
            .field("valid", &self.valid())
            .field("sequence", &self.sequence.0)
            .finish_non_exhaustive()
    }
}

impl Cursor {
    #[inline]
    pub(crate) fn new(
        view: Arc<View>,
        keyspace: KeyspaceId,
        sequence: SequenceNumber,
        options: ReadOptions,
        range: KeyRange,
    ) -> Cursor {
        Cursor::with_base(view, keyspace, sequence, options, range, None)
    }

    /// A cursor that merges a tree with the sources above it; entries of the tree count as written
    /// at the number that comes with it.
    #[inline]
    pub(crate) fn with_base(
        view: Arc<View>,
        keyspace: KeyspaceId,
        sequence: SequenceNumber,
        options: ReadOptions,
        range: KeyRange,
        base: Option<(TreeCursor, SequenceNumber)>,
    ) -> Cursor {
        let mut sources = sources(&view, keyspace, sequence, options, &range);
        sources.extend(base.map(|(cursor, sequence)| Source::Tree(TreeSource { cursor, sequence })));
        Cursor {
            merged: MergingIterator::new(sources),
            sequence,
            state: State::Nowhere,
            plain: 0,
            key: Vec::new(),
            value: Vec::new(),
            entry_sequence: SequenceNumber::ZERO,
            range,
            passed: 0,
            jumps: Jumps::default(),
            has_jumped: false,
            dead_from: Vec::new(),
            _view: view,
        }
    }

    /// The same with jumps over ranges known to be vacant; it also records the vacant ranges that
    /// it finds. For a keyspace in which every value was put by a commit: `space`. The cursor's
    /// view is complete up to `covered`.
    #[inline]
    pub(crate) fn jumping(mut self, space: &Arc<KeyspaceState>, covered: SequenceNumber) -> Cursor {
        self.jumps = Jumps::new(space, covered);
        self
    }

    /// Whether the cursor stands on an entry.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// assert!(!cursor.valid());
    /// cursor.seek_to_first()?;
    /// assert!(cursor.valid());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "is_valid")]
    #[inline(always)]
    pub fn valid(&self) -> bool {
        self.state != State::Nowhere
    }

    /// The key. REQUIRES: [`Cursor::valid`] (empty otherwise).
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek("u2")?;
    /// assert_eq!(cursor.key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline(always)]
    pub fn key(&self) -> &[u8] {
        match self.state {
            State::Forward | State::BackwardSingle => self.merged.key(),
            State::Backward => &self.key,
            State::Nowhere => &[],
        }
    }

    /// The value, without a copy. REQUIRES: [`Cursor::valid`] (empty otherwise).
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek("u2")?;
    /// assert_eq!(cursor.value(), b"Bo");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline(always)]
    pub fn value(&self) -> &[u8] {
        match self.state {
            State::Forward | State::BackwardSingle => self.merged.value(),
            State::Backward => &self.value,
            State::Nowhere => &[],
        }
    }

    /// The sequence number of the entry. REQUIRES: [`Cursor::valid`].
    #[inline]
    pub(crate) fn sequence(&self) -> SequenceNumber {
        match self.state {
            State::Forward | State::BackwardSingle => self.merged.sequence(),
            _ => self.entry_sequence,
        }
    }

    /// Moves to the first entry.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek_to_first()?;
    /// assert_eq!(cursor.key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "first")]
    #[doc(alias = "SeekToFirst")]
    pub fn seek_to_first(&mut self) -> Result<()> {
        match self.range.lower.clone() {
            Some(lower) => self.seek_from(&lower),
            None if self.jumps.any() => self.seek_from(LOWEST),
            None => {
                self.state = State::Nowhere;
                self.merged.seek_to_first()?;
                self.settle_forward(false, Some(LOWEST))
            }
        }
    }

    /// Moves to the last entry.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek_to_last()?;
    /// assert_eq!(cursor.key(), b"u3");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "last")]
    #[doc(alias = "SeekToLast")]
    pub fn seek_to_last(&mut self) -> Result<()> {
        let upper = self.range.upper.clone();
        self.seek_back_from(upper.as_deref())
    }

    /// Moves to the first entry whose key is `>= target`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek("u15")?;
    /// assert_eq!(cursor.key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "lower_bound")]
    #[doc(alias = "Seek")]
    pub fn seek(&mut self, target: impl AsRef<[u8]>) -> Result<()> {
        let target = target.as_ref();
        if self.range.is_below(target) {
            return self.seek_to_first();
        }
        self.seek_from(target)
    }

    /// Moves to the last entry whose key is `<= target`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek_for_prev("u15")?;
    /// assert_eq!(cursor.key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "SeekForPrev")]
    pub fn seek_for_prev(&mut self, target: impl AsRef<[u8]>) -> Result<()> {
        // The smallest key above `target`. A seek to `target` itself would have to move forward
        // from there.
        self.seek_before([target.as_ref(), &[0]].concat())
    }

    /// Moves to the last entry whose key is `< target`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek_before("u2")?;
    /// assert_eq!(cursor.key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn seek_before(&mut self, target: impl AsRef<[u8]>) -> Result<()> {
        let target = target.as_ref();
        if self.range.is_above(target) {
            return self.seek_to_last();
        }
        self.seek_back_from(Some(target))
    }

    /// Moves to the first entry from `target` on. REQUIRES: that is not below the range.
    fn seek_from(&mut self, target: &[u8]) -> Result<()> {
        self.state = State::Nowhere;
        if self.range.is_above(target) {
            return Ok(());
        }
        let end = self.jumps.any().then(|| self.jumps.end_of(target, self.sequence)).flatten();
        self.has_jumped = end.is_some();
        match end {
            None => self.merged.seek(target)?,
            Some(Some(end)) if !self.range.is_above(&end) => self.merged.seek(&end)?,
            Some(_) => return Ok(()),
        }
        self.settle_forward(false, Some(target))
    }

    /// Moves to the last entry before `target`. REQUIRES: that is not above the range.
    fn seek_back_from(&mut self, target: Option<&[u8]>) -> Result<()> {
        self.state = State::Nowhere;
        if target.is_some_and(|target| self.range.is_below(target)) {
            return Ok(());
        }
        match (self.jumps.any().then(|| self.jumps.start_of(target, self.sequence)).flatten(), target) {
            (Some(start), _) if self.range.is_below(&start) => return Ok(()),
            (Some(start), _) => self.merged.seek_before(&start)?,
            (None, Some(target)) => self.merged.seek_before(target)?,
            (None, None) => self.merged.seek_to_last()?,
        }
        self.settle_backward(Some(target))
    }

    /// Leaves the cursor not valid.
    pub(crate) fn clear(&mut self) {
        self.state = State::Nowhere;
    }

    /// Moves to the next entry; past the last one the cursor is not valid. A no-op on a cursor that
    /// is not valid.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek_to_first()?;
    /// cursor.next()?;
    /// assert_eq!(cursor.key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[expect(
        clippy::should_implement_trait,
        reason = "`next` beside `prev` is what a cursor's moves are called"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        if self.state == State::Forward && self.plain > 0 {
            self.plain -= 1;
            self.merged.next_in_run();
            return Ok(());
        }
        self.next_and_measure_run()
    }

    fn next_and_measure_run(&mut self) -> Result<()> {
        self.next_settled()?;
        if self.state == State::Forward {
            self.plain = self.merged.run_ahead(self.sequence, self.range.upper.as_deref());
        }
        Ok(())
    }

    #[inline]
    fn next_settled(&mut self) -> Result<()> {
        match self.state {
            State::Forward if !self.merged.may_repeat_after() => {
                self.state = State::Nowhere;
                self.merged.next()?;
                self.settle_forward(false, None)
            }
            State::Forward => {
                self.key.clear();
                self.key.extend_from_slice(self.merged.key());
                self.state = State::Nowhere;
                self.merged.next()?;
                self.settle_forward(true, None)
            }
            State::Backward | State::BackwardSingle => {
                if self.state == State::BackwardSingle {
                    self.key.clear();
                    self.key.extend_from_slice(self.merged.key());
                }
                self.state = State::Nowhere;
                let key = std::mem::take(&mut self.key);
                let result = self.merged.seek(&key);
                self.key = key;
                result?;
                self.settle_forward(true, None)
            }
            State::Nowhere => Ok(()),
        }
    }

    /// Moves to the previous entry; before the first one the cursor is not valid. A no-op on a
    /// cursor that is not valid.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let mut cursor = users.cursor()?;
    /// cursor.seek_to_last()?;
    /// cursor.prev()?;
    /// assert_eq!(cursor.key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        if self.state == State::BackwardSingle && self.plain > 0 {
            self.plain -= 1;
            self.merged.prev_in_run();
            return Ok(());
        }
        self.prev_and_measure_run()
    }

    fn prev_and_measure_run(&mut self) -> Result<()> {
        self.prev_settled()?;
        if self.state == State::BackwardSingle {
            self.plain = self.merged.run_behind(self.sequence, self.range.lower.as_deref());
        }
        Ok(())
    }

    #[inline]
    fn prev_settled(&mut self) -> Result<()> {
        match self.state {
            State::Forward => {
                self.key.clear();
                self.key.extend_from_slice(self.merged.key());
                self.state = State::Nowhere;
                self.merged.seek_before(planted::end_of_previous(&mut self.key))?;
                self.settle_backward(None)
            }
            State::BackwardSingle => {
                self.state = State::Nowhere;
                self.merged.prev()?;
                self.settle_backward(None)
            }
            State::Backward => {
                self.state = State::Nowhere;
                self.settle_backward(None)
            }
            State::Nowhere => Ok(()),
        }
    }

    /// Number of versions passed over so far: deletions, versions that they hide, and those too old
    /// or too new.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Moves on to the first visible entry. With `skip`, versions of the key in `self.key` are
    /// passed over. `from` is the key at which the move began, unless it began at an entry.
    #[inline]
    fn settle_forward(&mut self, mut skip: bool, from: Option<&[u8]>) -> Result<()> {
        self.plain = 0;
        let mut steps = 0;
        while self.merged.valid() {
            let current = self.merged.current();
            let key = current.key();
            let is_above = self.range.is_above(key);
            if is_above && planted::bounds_end_scans() {
                break;
            }
            if is_seen(current.sequence(), self.sequence) && !(skip && key == self.key.as_slice()) {
                if has_value(current.kind()) {
                    self.state = if is_above { State::Nowhere } else { State::Forward };
                    break;
                }
                self.key.clear();
                self.key.extend_from_slice(key);
                skip = true;
            }
            steps += 1;
            if steps % WORTH_A_RANGE == 0 && self.look_ahead(steps, from)? {
                continue;
            }
            self.merged.next()?;
        }
        self.passed += steps as u64;
        if steps >= WORTH_A_RANGE {
            self.remember_forward(from);
        } else if steps >= WORTH_GROWING && self.has_jumped && steps.is_power_of_two() {
            self.grow(from);
        }
        Ok(())
    }

    /// Called at intervals while versions are passed over. Records where they begin, and
    /// jumps if the current place is in a vacant range. Returns whether it jumped.
    #[cold]
    fn look_ahead(&mut self, steps: usize, from: Option<&[u8]>) -> Result<bool> {
        if steps == WORTH_A_RANGE && from.is_none() {
            // After the current key, which may be alive: these may be older versions of the entry
            // that the cursor comes from.
            self.dead_from.clear();
            self.dead_from.extend_from_slice(self.merged.key());
            self.dead_from.push(0);
        }
        if !self.jumps.any() {
            return Ok(false);
        }
        match self.jumps.end_of(self.merged.key(), self.sequence) {
            None => return Ok(false),
            Some(Some(end)) if !self.range.is_above(&end) => self.merged.seek(&end)?,
            Some(_) => self.merged.clear(),
        }
        Ok(true)
    }

    /// The cursor has found the next entry, or none: everything before it is vacant.
    #[cold]
    fn remember_forward(&mut self, from: Option<&[u8]>) {
        if !self.jumps.are_on() {
            return;
        }
        let to = match self.state {
            State::Nowhere => self.range.upper.as_deref(),
            _ => Some(self.merged.key()),
        };
        let ahead = from.is_some().then_some(self.range.upper.as_deref());
        self.jumps.learn(from.unwrap_or(&self.dead_from), to, self.sequence, ahead);
    }

    /// The cursor has found the next entry soon after a jump.
    fn grow(&self, from: Option<&[u8]>) {
        if let (Some(from), State::Forward) = (from, self.state) {
            self.jumps.grow(from, self.merged.key(), self.sequence);
        }
    }

    /// Moves backward over the versions of one key after the other, oldest first, until one shows a
    /// value. `to` is the key at which the move began (`Some(None)`: the end of the keyspace),
    /// unless it began at an entry.
    #[inline]
    fn settle_backward(&mut self, to: Option<Option<&[u8]>>) -> Result<()> {
        self.plain = 0;
        let mut steps = 0;
        while self.merged.valid() && !self.range.is_below(self.merged.key()) {
            if self.merged.may_repeat_before() {
                if self.newest_version_behind(&mut steps, to)? {
                    self.state = State::Backward;
                    break;
                }
            } else if is_seen(self.merged.sequence(), self.sequence) && has_value(self.merged.kind()) {
                self.state = State::BackwardSingle;
                break;
            } else {
                self.pass_backward(&mut steps, to)?;
            }
        }
        if steps >= WORTH_A_RANGE {
            self.remember_backward(to);
        }
        Ok(())
    }

    /// Moves backward over the versions of one key, oldest first, and holds the newest one that is
    /// seen. Returns whether it has a value.
    #[inline]
    fn newest_version_behind(&mut self, steps: &mut usize, to: Option<Option<&[u8]>>) -> Result<bool> {
        self.key.clear();
        self.key.extend_from_slice(self.merged.key());
        let mut visible = false;
        while self.merged.valid() && self.merged.key() == self.key.as_slice() {
            // Sequence numbers ascend: the last version that is seen is the newest.
            if is_seen(self.merged.sequence(), self.sequence) {
                visible = has_value(self.merged.kind());
                self.entry_sequence = self.merged.sequence();
                self.value.clear();
                if visible {
                    self.value.extend_from_slice(self.merged.value());
                }
            }
            if self.pass_backward(steps, to)? {
                return Ok(false);
            }
        }
        self.passed -= u64::from(visible);
        Ok(visible)
    }

    /// Moves backward over one version. Returns whether that was a jump.
    #[inline]
    fn pass_backward(&mut self, steps: &mut usize, to: Option<Option<&[u8]>>) -> Result<bool> {
        self.passed += 1;
        *steps += 1;
        if steps.is_multiple_of(WORTH_A_RANGE) && self.look_behind(*steps, to)? {
            return Ok(true);
        }
        self.merged.prev()?;
        Ok(false)
    }

    /// [`Cursor::look_ahead`] on the way back.
    #[cold]
    fn look_behind(&mut self, steps: usize, to: Option<Option<&[u8]>>) -> Result<bool> {
        if steps == WORTH_A_RANGE && to.is_none() {
            // Before the current key, which may be alive.
            self.dead_from.clear();
            self.dead_from.extend_from_slice(self.merged.key());
        }
        if !self.jumps.any() {
            return Ok(false);
        }
        // A range that holds the current key.
        let behind = [self.merged.key(), &[0]].concat();
        match self.jumps.start_of(Some(&behind), self.sequence) {
            None => return Ok(false),
            Some(start) if self.range.is_below(&start) => self.merged.clear(),
            Some(start) => self.merged.seek_before(&start)?,
        }
        Ok(true)
    }

    /// The cursor has found the previous entry, or none: the keys after it are vacant.
    #[cold]
    fn remember_backward(&mut self, to: Option<Option<&[u8]>>) {
        if !self.jumps.are_on() {
            return;
        }
        let from = match self.state {
            State::Nowhere => self.range.lower.as_deref().unwrap_or_default().to_vec(),
            _ => [self.key(), &[0]].concat(),
        };
        let to = to.unwrap_or(Some(&self.dead_from));
        self.jumps.learn(&from, to, self.sequence, None);
    }
}
