//! A scan whose reads are counted.
use super::report::{Explain, text};
use super::sources::{count_blocks, tables_before};
use crate::keyspace::KeyspaceState;
use crate::read::iterator::Iter;
use crate::read::state::ReadState;
use crate::runtime::Core;
use sapwood_base::Result;
use std::ops::Bound;
use std::sync::Arc;

impl Iter {
    /// Reads the range to its end, or to the limit, and returns a report of the sources that it
    /// searched.
    ///
    /// Errors: the first error of the iterator; `Closed` if the database is no longer open.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// println!("{}", users.range("u1".."u3").explain()?);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn explain(self) -> Result<Explain> {
        let state = match &self.state {
            Ok(state) => state.clone(),
            Err(error) => return Err(error.duplicate()),
        };
        let db = state.database()?;
        let key = |bound: &Option<Arc<[u8]>>, has_zero: bool| {
            let key = bound.as_deref()?;
            Some(key[..key.len() - usize::from(has_zero)].to_vec())
        };
        let lower = match (key(&self.range.lower, self.excludes_lower), self.excludes_lower) {
            (Some(key), true) => Bound::Excluded(key),
            (Some(key), false) => Bound::Included(key),
            (None, _) => Bound::Unbounded,
        };
        let upper = match (key(&self.range.upper, self.includes_upper), self.includes_upper) {
            (Some(key), true) => Bound::Included(key),
            (Some(key), false) => Bound::Excluded(key),
            (None, _) => Bound::Unbounded,
        };
        let (keyspace, reversed) = (self.keyspace.clone(), self.reversed);
        scan(&db.core, &keyspace, (lower, upper), reversed, &state, self)
    }
}

/// The bounds of a scan.
type KeyBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Reads `iter`, which has these bounds and this state.
fn scan(
    core: &Core,
    keyspace: &KeyspaceState,
    (lower, upper): KeyBounds,
    reversed: bool,
    ReadState { view, sequence, .. }: &ReadState,
    mut iter: Iter,
) -> Result<Explain> {
    let env = &core.options.env;
    let target = format!("{}{}", lower_text(&lower), upper_text(&upper));
    let (mut lower, mut upper) = (key_of(&lower), key_of(&upper));
    let (mut all, mut tables) = match view.keyspace(keyspace.id) {
        Some(space) => tables_before(view, space, lower.as_deref(), upper.as_deref(), reversed)?,
        None => Default::default(),
    };
    let (mut entries, mut bytes, mut reached) = (0, 0, Vec::new());
    let start = env.now();
    let mut at_end = true;
    let limit = iter.remaining();
    for entry in iter.by_ref() {
        let entry = entry?;
        entries += 1;
        bytes += (entry.key().len() + entry.value().map_or(0, |value| value.len())) as u64;
        reached = entry.into_key();
        at_end = entries < limit as u64;
    }
    let time = env.now().saturating_sub(start);
    // A limited scan did not read past its last entry.
    if !at_end {
        *(if reversed { &mut lower } else { &mut upper }) = Some(reached);
    } else if limit == 0 {
        tables.clear();
    }
    count_blocks(tables, lower.as_deref(), upper.as_deref(), &mut all);
    Ok(Explain {
        operation: "scan",
        keyspace: keyspace.name.clone(),
        index: None,
        target,
        sequence: sequence.0,
        sources: all,
        entries,
        bytes,
        passed_versions: iter.passed(),
        stale_entries: 0,
        rows: None,
        time,
    })
}

fn key_of(bound: &Bound<Vec<u8>>) -> Option<Vec<u8>> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
        Bound::Unbounded => None,
    }
}

fn lower_text(bound: &Bound<Vec<u8>>) -> String {
    match bound {
        Bound::Included(key) => format!("{}..", text(key)),
        Bound::Excluded(key) => format!("({})..", text(key)),
        Bound::Unbounded => "..".to_string(),
    }
}

fn upper_text(bound: &Bound<Vec<u8>>) -> String {
    match bound {
        Bound::Included(key) => format!("={}", text(key)),
        Bound::Excluded(key) => text(key),
        Bound::Unbounded => String::new(),
    }
}
