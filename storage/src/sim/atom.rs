//! The smallest changes that a power loss keeps or takes.
use std::ffi::OsString;

/// A sector persists as a whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// Names a file or directory permanently.
pub(super) type InodeNumber = u64;

/// One change that is not durable yet; a crash decides whether it persists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atom {
    /// The changed file or directory, by a number that is stable across renamings and crashes.
    pub inode: u64,
    /// The position among the atoms of that file or directory.
    pub position: usize,
    /// The number of atoms of that file or directory.
    pub count: usize,
    /// Time of the change: later calls have larger numbers, the atoms of one call share one.
    /// Continues across kills.
    pub age: u64,
    /// The kind of change.
    pub kind: AtomKind,
}

/// The kind of change of an [`Atom`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtomKind {
    /// The 512 bytes at this offset, as they were after one write. The later of two atoms of one
    /// sector includes the earlier one's bytes.
    Sector(u64),
    /// The file grows to this length because of a write.
    Grow(u64),
    /// The file gets this length.
    SetLen(u64),
    /// A name for a file or directory with this number.
    Link(OsString, u64),
    /// A name is removed.
    Unlink(OsString),
    /// A name becomes another one: one change, never half of it.
    Rename(OsString, OsString),
}

impl AtomKind {
    /// Whether it is content, as opposed to a name or length.
    pub fn is_data(&self) -> bool {
        matches!(self, AtomKind::Sector(_))
    }
}
