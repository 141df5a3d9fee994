//! Builds a tree from sorted entries, in one pass, with full pages.
//!
//! Every level collects items until they fill some pages, writes all of those but the last, and
//! passes their separators to the level above. Memory is bounded by the height, whatever the number
//! of entries.
use crate::options::{check_entry, out_of_order};
use crate::pack::{Items, NewNode, Separator};
use crate::writer::{PageWriter, Written};
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, MAX_TREE_HEIGHT};

/// The number of pages' worth of items that a level collects.
const PAGES_AT_ONCE: usize = 32;

/// Builds levels from the leaves up.
struct Loader<'b, 'w> {
    writer: &'b mut PageWriter<'w>,
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    items: Items,
    /// The separator between the items and the previous page.
    first: Separator,
}

/// Writes all entries. Returns the top page, the height and the written pages.
pub(crate) fn load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    writer: &mut PageWriter<'_>,
    entries: impl IntoIterator<Item = Result<(K, V)>>,
) -> Result<(Option<Child>, u8, Written)> {
    let mut loader = Loader { writer, levels: vec![Level::default()] };
    let mut previous: Option<Vec<u8>> = None;
    for entry in entries {
        let (key, value) = entry?;
        let (key, value) = (key.as_ref(), value.as_ref());
        check_entry(key, value)?;
        match &mut previous {
            Some(previous) if previous.as_slice() >= key => return Err(out_of_order()),
            Some(previous) => {
                previous.clear();
                previous.extend_from_slice(key);
            }
            None => previous = Some(key.to_vec()),
        }
        let (kept, payload) = loader.writer.shorten(key, value)?;
        loader.levels[0].items.push(kept, payload, None);
        loader.drain(0)?;
    }
    let (top, height) = loader.finish()?;
    Ok((top, height, writer.finish()?))
}

impl Loader<'_, '_> {
    /// Writes the items that are certain to fill pages, from `level` up.
    fn drain(&mut self, level: usize) -> Result<()> {
        let mut level = level;
        while self.levels[level].items.bytes() >= PAGES_AT_ONCE * self.writer.file.page_bytes {
            self.write(level, true)?;
            level += 1;
        }
        Ok(())
    }

    /// Writes the pages of a level and passes them to the level above. With `keep_last` the last
    /// page is kept.
    fn write(&mut self, level: usize, keep_last: bool) -> Result<()> {
        let Level { items, first } = std::mem::take(&mut self.levels[level]);
        let number = level as u8;
        let mut pages = items.fill(0..items.len(), level == 0, self.writer.file.page_bytes, |_| {});
        let kept = if keep_last { pages.pop() } else { None };
        let nodes = self.writer.write_pages(&items, &pages, number, &first, level > 0)?;
        if let Some(kept) = kept {
            let first = if kept.start == 0 {
                first
            } else if level == 0 {
                self.writer.separate(&items.cell(kept.start - 1), &items.cell(kept.start))?
            } else {
                items.separator(kept.start)
            };
            self.levels[level] = Level { items: items.tail(kept.start), first };
        }
        self.hand_up(level + 1, &nodes);
        Ok(())
    }

    fn hand_up(&mut self, level: usize, nodes: &[NewNode]) {
        assert!(level <= usize::from(MAX_TREE_HEIGHT), "a tree of so many pages is not so high");
        if level == self.levels.len() {
            self.levels.push(Level::default());
        }
        let above = &mut self.levels[level];
        if above.items.is_empty()
            && let Some(first) = nodes.first()
        {
            above.first = first.separator.clone();
        }
        nodes.iter().for_each(|node| above.items.push_node(node));
    }

    fn finish(&mut self) -> Result<(Option<Child>, u8)> {
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            let items = &self.levels[level].items;
            if items.is_empty() && is_top {
                return Ok((None, 0));
            }
            if level > 0 && is_top && items.len() == 1 {
                return Ok((Some(items.child(0)), level as u8));
            }
            self.write(level, false)?;
            level += 1;
        }
    }
}
