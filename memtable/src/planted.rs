//! The decisions of this crate that a planted bug changes: see [`sapwood_base::planted`].
use sapwood_base::planted::{Bug, is};

/// Whether a leaf with this version is as it was.
#[inline]
pub(crate) fn is_unchanged(version: u64, before: u64) -> bool {
    version == before || is(Bug::TornLeaf)
}

/// Whether the leaf of a shortcut is compared with the key.
#[inline]
pub(crate) fn checks_shortcuts() -> bool {
    !is(Bug::ShortcutBelieved)
}

/// Leaves appended records where they are until they are linked.
#[inline]
pub(crate) fn cut_when_linked(cut: impl FnOnce() -> bool) {
    if is(Bug::CutTooEarly) {
        cut();
    }
}

/// The last appended record that is linked: `top`, whatever is appended now.
#[inline]
pub(crate) fn linked_top<R>(top: R, last: impl FnOnce() -> Option<R>) -> Option<R> {
    if is(Bug::AppendLeftOut) { last() } else { Some(top) }
}
