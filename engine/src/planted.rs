//! The decisions that planted bugs change: see `sapwood_base::planted`.
//!
//! Each function has the name of what correct code decides, and is a constant, or the plain call,
//! in a build without the feature. No other file of this crate knows of the bugs. This one imports
//! no other module of it, because all of them may call it.
use sapwood_base::format::manifest::Edit;
use sapwood_base::planted::{Bug, is};
use sapwood_base::{Error, Result};
use sapwood_storage::fs::{FileSystem, LockGuard};
use std::borrow::Cow;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Lock = Option<Box<dyn LockGuard>>;

// Directory.

/// Holds the directory itself, so that its name may change.
#[inline]
pub(crate) fn hold(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Arc<dyn FileSystem>>> {
    if is(Bug::DirectoryByName) { Ok(None) } else { fs.hold(directory) }
}

/// The lock, or the refusal of another owner.
#[inline]
pub(crate) fn lock_of(lock: Result<Lock>) -> Result<Lock> {
    if is(Bug::NoLock) { Ok(lock.unwrap_or(None)) } else { lock }
}

/// Whether a MANIFEST has to prove that it is ours.
#[inline]
pub(crate) fn manifests_need_proof() -> bool {
    !is(Bug::ForeignManifestTaken)
}

/// Whether files have to prove that they are ours before a database is destroyed.
#[inline]
pub(crate) fn destruction_needs_proof() -> bool {
    !is(Bug::DestroyByName)
}

// Keyspaces.

/// Whether a keyspace needs a name of at least a byte.
#[inline]
pub(crate) fn needs_name() -> bool {
    !is(Bug::EmptyKeyspaceName)
}

/// The upper bound of a prefix whose successor is `successor`.
#[inline]
pub(crate) fn end_of_prefix(successor: &[u8]) -> Bound<&[u8]> {
    if is(Bug::PrefixBound) { Bound::Included(successor) } else { Bound::Excluded(successor) }
}

// MANIFEST.

/// The commits before the start of the log, as an edit records them.
#[inline]
pub(crate) fn commits_before_log(commits: u64) -> u64 {
    if is(Bug::CommitsForgotten) { 0 } else { commits }
}

/// Those of the edits of a change that are appended: all.
#[inline]
pub(crate) fn appended(edits: &[Edit]) -> Cow<'_, [Edit]> {
    if is(Bug::DropNotLogged) {
        return edits.iter().filter(|edit| !matches!(edit, Edit::KeyspaceDropped(_))).cloned().collect();
    }
    Cow::Borrowed(edits)
}

/// Whether a new MANIFEST lists the trees of indexes.
#[inline]
pub(crate) fn lists_trees() -> bool {
    !is(Bug::TreeForgotten)
}

/// Whether a new MANIFEST is synced before it has its name.
#[inline]
pub(crate) fn syncs_new_manifest() -> bool {
    !is(Bug::NewManifestNotSynced)
}

/// Whether the name of a new MANIFEST is synced.
#[inline]
pub(crate) fn syncs_name_of_new_manifest() -> bool {
    !is(Bug::NewManifestNameNotSynced)
}

/// Whether edits are synced.
#[inline]
pub(crate) fn syncs_edits() -> bool {
    !is(Bug::ManifestNotSynced)
}

// Installation.

/// Leaves the inputs of a compaction alone: no edit has replaced them yet.
#[inline]
pub(crate) fn before_edit(fs: &dyn FileSystem, inputs: impl Iterator<Item = PathBuf>) {
    if is(Bug::DeletedBeforeEdit) {
        inputs.for_each(|path| drop(fs.remove_file(&path)));
    }
}

/// Whether a failed edit is certainly not on the disk, so that its new files can be removed.
#[inline]
pub(crate) fn is_clean_refusal(error: &Error) -> bool {
    error.is_scarcity() || is(Bug::OutputsTakenBack)
}

/// The position of a fence: after every reservation, published or not.
#[inline]
pub(crate) fn fence(published: impl FnOnce() -> u64, tail: impl FnOnce() -> u64) -> u64 {
    if is(Bug::VacancyUnfenced) { published() + 1 } else { tail() }
}

// Background work.

/// Whether the end of a guard ends its pause.
#[inline]
pub(crate) fn guard_ends_pause() -> bool {
    !is(Bug::PauseOutlivesGuard)
}
