//! One file: the content visible to calls, the content after a power loss, and the atoms between
//! the two.
use super::atom::{AtomKind, SECTOR_BYTES};
use super::content::{Content, PAGE_BYTES, Sector, split};
use super::personality::FsyncFailure;
use super::underlay::Ground;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Limit of unsynced states of one sector: beyond it, the newest replaces the one before. That only
/// omits some crash states, and a log of small records does not take 512 bytes for each.
const MOST_VERSIONS: usize = 4;

#[derive(Clone)]
enum DataAtom {
    /// The whole sector as it was after a write.
    Sector {
        offset: u64,
        image: Sector,
    },
    Grow(u64),
    SetLen(u64),
}

impl DataAtom {
    fn kind(&self) -> AtomKind {
        match self {
            DataAtom::Sector { offset, .. } => AtomKind::Sector(*offset),
            DataAtom::Grow(len) => AtomKind::Grow(*len),
            DataAtom::SetLen(len) => AtomKind::SetLen(*len),
        }
    }

    fn apply(&self, content: &mut Content) {
        match self {
            DataAtom::Sector { offset, image } => content.store(*offset, &image[..]),
            DataAtom::Grow(len) => content.grow(*len),
            DataAtom::SetLen(len) => content.set_len(*len),
        }
    }

    /// Clears the bytes of a sector beyond `len`. Returns whether any lie below it.
    fn truncate(&mut self, len: u64) -> bool {
        let DataAtom::Sector { offset, image } = self else { return true };
        let left = len.saturating_sub(*offset);
        if left < SECTOR_BYTES {
            Arc::make_mut(image)[left as usize..].fill(0);
        }
        left > 0
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct SimInodeFile {
    durable: Content,
    cached: Content,
    /// Each with its age.
    pending: Vec<(u64, DataAtom)>,
    /// Positions in `pending` of the states of a sector, since the last change of the length that
    /// may truncate.
    versions: HashMap<u64, Vec<usize>>,
    /// Whether a write exists that no later sync makes durable.
    has_diverged: bool,
    /// Whether a sync has failed that only the next one reports.
    owes_error: bool,
}

impl SimInodeFile {
    pub(super) fn len(&self) -> u64 {
        self.cached.len()
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.cached.allocated_bytes()
    }

    pub(super) fn missing_bytes(&self, offset: u64, len: u64) -> u64 {
        self.cached.missing_bytes(offset, len)
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        self.cached.read(offset, buffer)
    }

    /// The content visible to calls.
    pub(super) fn cached(&self) -> &Content {
        &self.cached
    }

    /// The content after a power loss that keeps no atom.
    pub(super) fn durable(&self) -> &Content {
        &self.durable
    }

    /// Whether every crash leaves the visible state.
    pub(super) fn is_clean(&self) -> bool {
        self.pending.is_empty() && !self.has_diverged
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], age: u64) {
        if bytes.is_empty() {
            return;
        }
        self.cached.store(offset, bytes);
        for (start, _) in split(offset, bytes.len(), SECTOR_BYTES) {
            let offset = start - start % SECTOR_BYTES;
            let atom = DataAtom::Sector { offset, image: self.cached.sector(offset) };
            let versions = self.versions.entry(offset).or_default();
            if versions.len() < MOST_VERSIONS {
                versions.push(self.pending.len());
                self.pending.push((age, atom));
            } else {
                self.pending[*versions.last().expect("full")].1 = atom;
            }
        }
        self.extend(offset + bytes.len() as u64, age);
    }

    /// A write that no sync makes durable, though its length becomes durable.
    pub(super) fn write_lost(&mut self, offset: u64, bytes: &[u8], age: u64) {
        self.cached.store(offset, bytes);
        self.has_diverged = true;
        self.extend(offset + bytes.len() as u64, age);
    }

    /// Makes the file at least this long, because of a write.
    pub(super) fn extend(&mut self, end: u64, age: u64) {
        if end > self.cached.len() {
            self.cached.grow(end);
            // Incremental growth, as by appended records, is at most one atom per sector.
            match self.pending.last_mut() {
                Some((_, DataAtom::Grow(len))) if *len / SECTOR_BYTES == end / SECTOR_BYTES => *len = end,
                _ => self.pending.push((age, DataAtom::Grow(end))),
            }
        }
    }

    pub(super) fn set_len(&mut self, len: u64, age: u64) {
        self.cached.set_len(len);
        self.pending.push((age, DataAtom::SetLen(len)));
        // A state from after the truncation must not replace one from before it.
        self.versions.clear();
    }

    /// Makes all atoms durable.
    pub(super) fn sync(&mut self) {
        self.versions.clear();
        if self.has_diverged {
            for (_, atom) in self.pending.drain(..) {
                atom.apply(&mut self.durable);
            }
            self.durable.cut();
        } else {
            // All atoms together are the visible content, and a copy shares its pages.
            self.pending.clear();
            self.durable = self.cached.clone();
        }
    }

    /// Makes the atoms of the pages that a range touches durable, and lengths.
    pub(super) fn sync_range(&mut self, range: Range<u64>) {
        self.versions.clear();
        let pages = range.start / PAGE_BYTES * PAGE_BYTES..range.end.next_multiple_of(PAGE_BYTES);
        for (age, atom) in std::mem::take(&mut self.pending) {
            match &atom {
                DataAtom::Sector { offset, .. } if !pages.contains(offset) => {
                    self.pending.push((age, atom));
                    continue;
                }
                // A durable truncation has freed the bytes of earlier states.
                DataAtom::SetLen(len) => self.pending.retain_mut(|(_, atom)| atom.truncate(*len)),
                DataAtom::Sector { .. } | DataAtom::Grow(_) => {}
            }
            atom.apply(&mut self.durable);
        }
        self.durable.cut();
    }

    /// Age of the last change of the length that is not durable.
    pub(super) fn last_length_age(&self) -> Option<u64> {
        self.pending.iter().rev().find(|(_, atom)| !atom.kind().is_data()).map(|(age, _)| *age)
    }

    /// Makes the lengths up to this age durable, with the bytes below them that are new since the
    /// last sync.
    pub(super) fn sync_lengths_until(&mut self, age: u64) {
        let last = self.pending.iter().rposition(|(own, atom)| *own <= age && !atom.kind().is_data());
        let Some(last) = last else { return };
        let mut rest = self.pending.split_off(last + 1);
        let first_new = match self.pending.iter().any(|(_, atom)| matches!(atom, DataAtom::SetLen(_))) {
            // The offset does not distinguish bytes before the truncation from later ones.
            true => 0,
            false => self.durable.len().next_multiple_of(SECTOR_BYTES),
        };
        let (old, new): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(_, atom)| matches!(atom, DataAtom::Sector { offset, .. } if *offset < first_new));
        for (_, atom) in new {
            atom.apply(&mut self.durable);
        }
        self.pending = old;
        self.pending.append(&mut rest);
        // Positions have changed. More versions of a sector than usual do no harm.
        self.versions.clear();
    }

    /// Fails a sync. Returns whether the call reports it.
    pub(super) fn fail_sync(&mut self, failure: FsyncFailure) -> bool {
        match failure {
            FsyncFailure::Ext4 => self.lose_pending(),
            FsyncFailure::Ext4Late => {
                self.lose_pending();
                self.owes_error = true;
                return false;
            }
            FsyncFailure::Xfs => {
                self.versions.clear();
                self.has_diverged |= !self.pending.is_empty();
                self.pending.retain(|(_, atom)| !atom.kind().is_data());
            }
            FsyncFailure::Btrfs => {
                let durable = std::mem::take(&mut self.durable);
                *self = SimInodeFile { durable: durable.clone(), cached: durable, ..SimInodeFile::default() };
            }
        }
        true
    }

    /// Returns whether an earlier sync failed without a report, and marks it as reported.
    pub(super) fn take_owed_error(&mut self) -> bool {
        std::mem::take(&mut self.owes_error)
    }

    /// Reads the earlier content of a place: the durable bytes, if they differ, or the bytes of
    /// another file, or zeros.
    pub(super) fn read_stale(&self, offset: u64, buffer: &mut [u8], other: Option<&Content>) -> usize {
        let count = self.cached.read(offset, buffer);
        let mut before = vec![0; count];
        self.durable.read_beyond(offset, &mut before);
        if before == buffer[..count] {
            before.fill(0);
            if let Some(other) = other {
                other.read(offset, &mut before);
            }
        }
        buffer[..count].copy_from_slice(&before);
        count
    }

    /// Forgets that the atoms have to be made durable; reads still see them.
    pub(super) fn lose_pending(&mut self) {
        self.versions.clear();
        self.has_diverged |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// Ages and kinds.
    pub(super) fn atoms(&self) -> impl ExactSizeIterator<Item = (u64, AtomKind)> + '_ {
        self.pending.iter().map(|(age, atom)| (*age, atom.kind()))
    }

    /// The file after a power loss that kept the atoms at whose positions `kept` is true. Where the
    /// file has grown over sectors of which nothing persisted, its content is `ground`, or zeros.
    pub(super) fn crashed(&self, kept: &[bool], ground: Option<&Ground<'_>>) -> SimInodeFile {
        let mut content = self.durable.clone();
        // New sectors, and whether any version of them has persisted.
        let mut new: BTreeMap<u64, bool> = BTreeMap::new();
        let first_new = self.durable.len().next_multiple_of(SECTOR_BYTES);
        for ((_, atom), kept) in self.pending.iter().zip(kept) {
            match atom {
                DataAtom::Sector { offset, .. } if ground.is_some() && *offset >= first_new => {
                    *new.entry(*offset).or_default() |= *kept;
                }
                // Setting a length leaves a hole, which reads as zeros on every file system.
                DataAtom::SetLen(_) => new.clear(),
                DataAtom::Sector { .. } | DataAtom::Grow(_) => {}
            }
            if *kept {
                atom.apply(&mut content);
            }
        }
        if let Some(ground) = ground {
            let bare = new.iter().filter(|(offset, persisted)| !**persisted && **offset < content.len());
            let bare: Vec<u64> = bare.map(|(offset, _)| *offset).collect();
            for offset in bare {
                content.store(offset, &ground.sector(offset));
            }
        }
        // Sectors whose growth was lost are not part of the file.
        content.cut();
        SimInodeFile { durable: content.clone(), cached: content, ..SimInodeFile::default() }
    }

    /// Changes bytes in every state of the file: `change` receives the offset and the byte of each
    /// in the range.
    pub(super) fn damage(&mut self, range: Range<u64>, change: impl Fn(u64, u8) -> u8) {
        for content in [&mut self.durable, &mut self.cached] {
            let range = range.start..range.end.min(content.len());
            if range.is_empty() {
                continue;
            }
            let mut bytes = vec![0; (range.end - range.start) as usize];
            content.read_beyond(range.start, &mut bytes);
            range.clone().zip(&mut bytes).for_each(|(offset, byte)| *byte = change(offset, *byte));
            content.store(range.start, &bytes);
        }
        for (_, atom) in &mut self.pending {
            if let DataAtom::Sector { offset: start, image } = atom {
                let both = range.start.max(*start)..range.end.min(*start + SECTOR_BYTES);
                for offset in both {
                    let byte = &mut Arc::make_mut(image)[(offset - *start) as usize];
                    *byte = change(offset, *byte);
                }
            }
        }
    }

    /// Replaces the content, durable at once.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        *self = SimInodeFile::default();
        self.write(0, bytes, 0);
        self.sync();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(content: &Content) -> Vec<u8> {
        let mut bytes = vec![0; content.len() as usize];
        content.read(0, &mut bytes);
        bytes
    }

    /// The file after a crash that keeps every atom.
    fn with_all_atoms(file: &SimInodeFile) -> Vec<u8> {
        bytes(file.crashed(&vec![true; file.pending.len()], None).cached())
    }

    /// A sector was written, truncated away, and the file has grown over its place. After the
    /// truncation was made durable, the old sector stayed among the atoms, and a crash could put it
    /// into the hole.
    #[test]
    fn a_truncated_sector_does_not_return_behind_a_sync_of_another_range() {
        let mut file = SimInodeFile::default();
        file.write(0, &[1; 12_000], 1);
        file.set_len(4196, 2);
        file.write(13_000, &[2; 100], 3);
        file.sync_range(0..100);
        let visible = bytes(file.cached());
        assert!(visible[4196..13_000].iter().all(|byte| *byte == 0));
        assert!(with_all_atoms(&file) == visible);
        let durable = bytes(file.durable());
        assert!(durable.len() == 13_100 && durable[..4096] == visible[..4096]);
        assert!(durable[4096..].iter().all(|byte| *byte == 0), "outside of the range nothing is synced");
    }

    #[test]
    fn all_atoms_together_are_the_visible_content_whatever_was_synced() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut file = SimInodeFile::default();
            for age in 1..40 {
                let (at, len) = (random.u64(..20_000), random.u64(1..6000));
                match random.u32(..8) {
                    0 | 1 => file.set_len(at, age),
                    2 => file.sync_range(at..at + len),
                    3 => file.sync_lengths_until(random.u64(..=age)),
                    4 if random.u32(..4) == 0 => file.sync(),
                    _ => file.write(at, &vec![age as u8; len as usize], age),
                }
                assert!(with_all_atoms(&file) == bytes(file.cached()), "seed {seed}, call {age}");
            }
            file.sync_range(0..u64::MAX / 2);
            assert!(file.is_clean() && bytes(file.durable()) == bytes(file.cached()), "seed {seed}");
        }
    }
}
