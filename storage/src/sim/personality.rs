//! Guarantees of file system kinds beyond the contract, and their behaviour on failed syncs.
//!
//! The weakest file system is the one to test on: a state that survives there survives everywhere.
//! The others serve to find out which real one a failure needs. Sources: the documentation of ext4
//! and Btrfs; Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.
use super::atom::{AtomKind, SECTOR_BYTES};
use super::crash::Pending;
use std::fmt;

/// Which changes a power loss can tear apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Personality {
    /// Any subset of the atoms may persist, and grown files may show the former content of their
    /// sectors.
    #[default]
    Weakest,
    /// Like ext4 with `data=ordered`: names and lengths persist in order of origin, across all
    /// files and directories, and a length not without the new sectors below it. A sync of a file
    /// that is new or has grown makes all names and lengths up to its own durable.
    Ordered,
    /// Like Btrfs: as [`Personality::Ordered`] except that renamings may be late, even later than
    /// all subsequent changes; and a sync of a new file persists that one name only.
    Btrfs,
}

impl Personality {
    /// All of them.
    pub const ALL: [Personality; 3] = [Personality::Weakest, Personality::Ordered, Personality::Btrfs];

    /// Restricts a choice of atoms to one that this file system can leave. `durable_len` returns
    /// the length of a file after a power loss that keeps no atom.
    pub(super) fn admit(self, pending: &Pending, kept: &mut [bool], durable_len: impl Fn(u64) -> u64) {
        if self == Personality::Weakest {
            return;
        }
        let mut has_committed = true;
        for &index in &pending.by_age {
            let kind = &pending.atoms[index].kind;
            let is_free = self == Personality::Btrfs && matches!(kind, AtomKind::Rename(..));
            if !kind.is_data() && !is_free {
                has_committed &= kept[index];
                kept[index] = has_committed;
            }
        }
        // A length needs the bytes below it that are new since the last sync.
        let mut start = 0;
        while start < pending.len() {
            let object = start..start + pending.atoms[start].count;
            start = object.end;
            let is_length = |kind: &AtomKind| matches!(kind, AtomKind::Grow(_) | AtomKind::SetLen(_));
            let is_kept_length = |index: &usize| kept[*index] && is_length(&pending.atoms[*index].kind);
            let Some(last) = object.clone().rev().find(is_kept_length) else { continue };
            let below = object.start..last;
            let is_cut = |index: usize| matches!(pending.atoms[index].kind, AtomKind::SetLen(_));
            let first_new = match (object.start..=last).any(is_cut) {
                true => 0,
                false => durable_len(pending.atoms[last].inode).next_multiple_of(SECTOR_BYTES),
            };
            for index in below {
                let is_new =
                    matches!(pending.atoms[index].kind, AtomKind::Sector(offset) if offset >= first_new);
                kept[index] |= is_new;
            }
        }
    }
}

impl fmt::Display for Personality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Personality::Weakest => "weakest",
            Personality::Ordered => "ordered",
            Personality::Btrfs => "btrfs",
        })
    }
}

impl std::str::FromStr for Personality {
    type Err = String;

    fn from_str(text: &str) -> Result<Personality, String> {
        let found = Personality::ALL.into_iter().find(|personality| personality.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is none of weakest, ordered, btrfs"))
    }
}

/// Behaviour of a file system on a failed sync. In all cases the error is returned once, the next
/// sync succeeds, and after a crash the old bytes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsyncFailure {
    /// Reads still see the new bytes.
    Ext4,
    /// The failing sync reports success; the next one of the file returns the error.
    /// (`data=journal`.)
    Ext4Late,
    /// As `Ext4`, but the length is safe: the file has grown, over zeros.
    Xfs,
    /// Reads see the old bytes again immediately.
    Btrfs,
}

impl FsyncFailure {
    /// All of them.
    pub const ALL: [FsyncFailure; 4] =
        [FsyncFailure::Ext4, FsyncFailure::Ext4Late, FsyncFailure::Xfs, FsyncFailure::Btrfs];
}

impl fmt::Display for FsyncFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FsyncFailure::Ext4 => "ext4",
            FsyncFailure::Ext4Late => "ext4-late",
            FsyncFailure::Xfs => "xfs",
            FsyncFailure::Btrfs => "btrfs",
        })
    }
}

impl std::str::FromStr for FsyncFailure {
    type Err = String;

    fn from_str(text: &str) -> Result<FsyncFailure, String> {
        let found = FsyncFailure::ALL.into_iter().find(|failure| failure.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is none of ext4, ext4-late, xfs, btrfs"))
    }
}
