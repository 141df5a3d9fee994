//! The sources that a query of an index searched: the report of
//! [`IndexIter::explain`](super::iterator::IndexIter::explain).
//!
//! The query is the ordinary one. The blocks of delta runs and the pages of the tree that it had to
//! read follow from the state of the cache before it; those of the rows, from gets with an
//! observer.
use super::cursor::{Bounds, IndexCursor, dropped, index_meta, tree_view};
use super::iterator::IndexIter;
use super::reference::IndexReference;
use super::verify::no_row;
use crate::read::explain::{
    Before, Explain, ExplainedRows, ExplainedSource, Outcome, Place, count_blocks, tables_before, text,
};
use crate::read::state::ReadState;
use sapwood_base::{Error, Result};
use sapwood_btree::TreeView;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

impl IndexIter {
    /// Reads the entries to their end, or to the limit, and returns a report of the sources that it
    /// searched.
    ///
    /// Errors: the first error of the iterator.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// println!("{}", by_name.range("B"..).explain()?);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn explain(self) -> Result<Explain> {
        self.explain_it(false)
    }

    /// [`IndexIter::explain`], with the row of each entry.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// println!("{}", by_name.range("B"..).explain_with_rows()?);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn explain_with_rows(self) -> Result<Explain> {
        self.explain_it(true)
    }

    fn explain_it(self, with_rows: bool) -> Result<Explain> {
        let state = self.state.as_ref().map_err(Error::duplicate)?;
        let db = state.database()?;
        let index = IndexReference { db: &db, keyspace: &self.keyspace, state: &self.index };
        let Self { limit, reversed, .. } = self;
        Query { index, state, bounds: &self.bounds, limit, reversed }.explain(with_rows)
    }
}

/// A query of at most `limit` entries within `bounds`.
#[derive(Clone, Copy)]
struct Query<'a> {
    index: IndexReference<'a>,
    state: &'a ReadState,
    bounds: &'a Bounds,
    limit: usize,
    reversed: bool,
}

/// The sources of a query, with the state of the cache before it.
struct Prepared {
    sources: Vec<ExplainedSource>,
    tables: Vec<Before>,
    /// Pages of the tree, and whether each is in the cache.
    pages: Vec<(u32, bool)>,
}

/// The result of running a query.
#[derive(Default)]
struct Outcomes {
    entries: u64,
    bytes: u64,
    /// The last entry, if the limit ended the query.
    reached: Option<Arc<[u8]>>,
    rows: Option<ExplainedRows>,
    passed_versions: u64,
    stale_entries: u64,
    time: Duration,
}

impl Query<'_> {
    fn explain(self, with_rows: bool) -> Result<Explain> {
        let prepared = self.prepare()?;
        let outcomes = self.run(with_rows)?;
        let sources = self.count_blocks(prepared, outcomes.reached)?;
        let bound = |bound: &Option<Arc<[u8]>>| bound.as_deref().map_or(String::new(), text);
        Ok(Explain {
            operation: "index scan",
            keyspace: self.index.keyspace.name.clone(),
            index: Some(self.index.state.definition.name.clone()),
            target: format!("{}..{}", bound(&self.bounds.lower), bound(&self.bounds.upper)),
            sequence: self.state.sequence.0,
            sources,
            entries: outcomes.entries,
            bytes: outcomes.bytes,
            passed_versions: outcomes.passed_versions,
            stale_entries: outcomes.stale_entries,
            rows: outcomes.rows,
            time: outcomes.time,
        })
    }

    fn tree(&self) -> Result<Option<&TreeView>> {
        tree_view(self.index.core(), index_meta(&self.state.view, self.index.state.id)?)
    }

    fn prepare(&self) -> Result<Prepared> {
        let view = &self.state.view;
        let space = view.keyspace(self.index.state.id).ok_or_else(dropped)?;
        let (lower, upper) = (self.bounds.lower.as_deref(), self.bounds.upper.as_deref());
        let (sources, tables) = tables_before(view, space, lower, upper, self.reversed)?;
        let pages = self.tree()?.map_or(Ok(Vec::new()), |tree| tree.pages_between(lower, upper))?;
        Ok(Prepared { sources, tables, pages })
    }

    /// Reads the entries, and their rows if requested.
    fn run(&self, with_rows: bool) -> Result<Outcomes> {
        let ReadState { view, sequence, covered, .. } = self.state;
        let (core, id) = (self.index.core(), self.index.state.id);
        let mut outcomes = Outcomes { rows: with_rows.then(ExplainedRows::default), ..Default::default() };
        let start = core.options.env.now();
        let cursor = IndexCursor::open_prepared(view.clone(), id, *sequence, self.bounds.clone())?;
        let mut cursor = cursor.jumping(*covered);
        if self.limit > 0 {
            if self.reversed { cursor.seek_to_last()? } else { cursor.seek_to_first()? }
        }
        while cursor.valid() {
            outcomes.entries += 1;
            outcomes.bytes += (cursor.composite().len() + cursor.covering().len()) as u64;
            if let Some(rows) = &mut outcomes.rows
                && !rows.add(core, self.index.keyspace, cursor.primary_key(), *sequence)?
            {
                return Err(no_row(cursor.primary_key()));
            }
            if outcomes.entries == self.limit as u64 {
                outcomes.reached = Some(cursor.composite().into());
                break;
            }
            if self.reversed { cursor.prev()? } else { cursor.next()? }
        }
        outcomes.time = core.options.env.now().saturating_sub(start);
        outcomes.passed_versions = cursor.passed_versions();
        outcomes.stale_entries = cursor.stale_entries();
        Ok(outcomes)
    }

    /// Counts the blocks and pages that the query reached. A limited query did not read past its
    /// last entry, `reached`.
    fn count_blocks(&self, prepared: Prepared, reached: Option<Arc<[u8]>>) -> Result<Vec<ExplainedSource>> {
        let Prepared { mut sources, tables, pages } = prepared;
        let (mut lower, mut upper) = (self.bounds.lower.as_deref(), self.bounds.upper.as_deref());
        if reached.is_some() {
            *(if self.reversed { &mut lower } else { &mut upper }) = reached.as_deref();
        }
        let has_read = self.limit > 0;
        if has_read {
            count_blocks(tables, lower, upper, &mut sources);
        }
        let found = index_meta(&self.state.view, self.index.state.id)?;
        if let (Some(tree), Some(state)) = (self.tree()?, &found.tree) {
            let (file, height) = (state.file.number.0, state.root.height);
            let place = Place::Tree { file, height, entries: tree.len() };
            let mut source = ExplainedSource::new(place, Outcome::Merged { tables: 0 });
            if has_read {
                let reached = tree.pages_between(lower, upper)?;
                let reached: HashSet<u32> = reached.into_iter().map(|(page, _)| page).collect();
                for (_, is_cached) in pages.into_iter().filter(|(page, _)| reached.contains(page)) {
                    source.count((is_cached, u64::from(state.root.page_bytes)));
                }
            }
            sources.push(source);
        }
        Ok(sources)
    }
}
