//! The smallest changes that a power loss keeps or takes.
use std::ffi::OsString;

/// A sector persists as a whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// One change that is not durable yet, as a crash is asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atom {
    /// The file or directory that is changed, by a number that stays the same over renamings and crashes.
    pub inode: u64,
    /// The position among the atoms of that file or directory, and how many there are.
    pub position: usize,
    /// How many atoms that file or directory has.
    pub count: usize,
    /// When it arose: later calls have larger numbers, the atoms of one call share one. Goes on over kills.
    pub age: u64,
    /// What changes.
    pub kind: AtomKind,
}

/// What an [`Atom`] changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtomKind {
    /// The 512 bytes at this offset, as they were after one write. Of two atoms of one sector the later holds the
    /// earlier's bytes too.
    Sector(u64),
    /// The file grows to this length because of a write.
    Grow(u64),
    /// The file gets this length.
    SetLen(u64),
    /// A name for a file or directory with this number.
    Link(OsString, u64),
    /// A name goes.
    Unlink(OsString),
    /// A name becomes another one: one change, never half of it.
    Rename(OsString, OsString),
}

impl AtomKind {
    /// Whether it is content. Names and lengths are not.
    pub fn is_data(&self) -> bool {
        matches!(self, AtomKind::Sector(_))
    }
}
