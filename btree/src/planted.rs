//! The decisions of this crate that a planted bug changes: see [`sapwood_base::planted`].
use sapwood_base::planted::{Bug, is};

/// Whether pages are synced before their root is returned.
#[inline]
pub(crate) fn syncs_pages() -> bool {
    !is(Bug::TreeNotSynced)
}

/// Whether `views` views of a root keep its pages.
#[inline]
pub(crate) fn is_read(views: usize) -> bool {
    views > 0 && !is(Bug::TreePagesReused)
}
