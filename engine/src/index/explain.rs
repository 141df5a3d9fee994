//! The sources that a query of an index searched: the report of
//! [`IndexIter::explain`](super::iterator::IndexIter::explain).
//!
//! The query is the ordinary one. The blocks of delta runs and the pages of the tree that it had to
//! read follow from the state of the cache before it; those of the rows, from gets with an
//! observer.
use super::cursor::{Bounds, IndexCursor, dropped, entry, tree_view};
use super::iterator::IndexIter;
use super::reference::IndexReference;
use crate::read::explain::{
    Explain, ExplainedRows, ExplainedSource, Outcome, Place, count_blocks, tables_before, text,
};
use crate::read::state::State;
use sapwood_base::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;

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
        let bounds = self.bounds.clone();
        explain(index, state, bounds, self.limit, self.reversed, with_rows)
    }
}

/// Reads at most `limit` entries within `bounds`, and their rows if requested.
fn explain(
    index: IndexReference<'_>,
    State { view, sequence, covered, .. }: &State,
    bounds: Bounds,
    limit: usize,
    reversed: bool,
    with_rows: bool,
) -> Result<Explain> {
    let core = index.core();
    let env = &core.options.env;
    let sequence = *sequence;
    let space = view.keyspace(index.state.id).ok_or_else(dropped)?;
    let found = entry(view, index.state.id)?;
    let bound = |bound: &Option<Arc<[u8]>>| bound.as_deref().map_or(String::new(), text);
    let target = format!("{}..{}", bound(&bounds.lower), bound(&bounds.upper));
    let (mut lower, mut upper) = (bounds.lower.clone(), bounds.upper.clone());
    let (mut sources, mut tables) = tables_before(view, space, lower.as_deref(), upper.as_deref(), reversed)?;
    let tree = tree_view(core, found)?;
    let pages = match tree {
        Some(tree) => tree.pages_between(lower.as_deref(), upper.as_deref())?,
        None => Vec::new(),
    };

    let start = env.now();
    let (mut entries, mut bytes, mut reached) = (0, 0, None);
    let mut rows = with_rows.then(ExplainedRows::default);
    let cursor = IndexCursor::open_prepared(view.clone(), index.state.id, sequence, bounds)?;
    let mut cursor = cursor.jumping(*covered);
    if limit > 0 {
        if reversed { cursor.seek_to_last()? } else { cursor.seek_to_first()? }
    }
    while limit > 0 && cursor.valid() {
        entries += 1;
        bytes += (cursor.composite().len() + cursor.covering().len()) as u64;
        if let Some(rows) = &mut rows
            && !rows.add(core, index.keyspace, cursor.primary_key(), sequence)?
        {
            return Err(super::verify::no_row(cursor.primary_key()));
        }
        if entries == limit as u64 {
            reached = Some(cursor.composite().into());
            break;
        }
        if reversed { cursor.prev()? } else { cursor.next()? }
    }
    let time = env.now().saturating_sub(start);
    // A limited query did not read past its last entry.
    if reached.is_some() {
        *(if reversed { &mut lower } else { &mut upper }) = reached;
    }
    if limit == 0 {
        tables.clear();
    }
    count_blocks(tables, lower.as_deref(), upper.as_deref(), &mut sources);
    if let (Some(tree), Some(state)) = (tree, &found.tree) {
        let place = Place::Tree { file: state.file.number.0, height: state.root.height, entries: tree.len() };
        let mut source = ExplainedSource::new(place, Outcome::Merged { tables: 0 });
        if limit > 0 {
            let reached = tree.pages_between(lower.as_deref(), upper.as_deref())?;
            let reached: HashSet<u32> = reached.into_iter().map(|(page, _)| page).collect();
            for (_, is_cached) in pages.into_iter().filter(|(page, _)| reached.contains(page)) {
                source.count((is_cached, u64::from(state.root.page_bytes)));
            }
        }
        sources.push(source);
    }
    Ok(Explain {
        operation: "index scan",
        keyspace: index.keyspace.name.clone(),
        index: Some(index.state.definition.name.clone()),
        target,
        sequence: sequence.0,
        sources,
        entries,
        bytes,
        passed_versions: cursor.passed_versions(),
        stale_entries: cursor.stale_entries(),
        rows,
        time,
    })
}
