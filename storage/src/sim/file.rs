//! One file: what calls see, what a power loss leaves, and the atoms between the two.
use super::atom::{AtomKind, SECTOR_BYTES};
use super::content::{Content, Sector, split};
use super::underlay::Ground;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// More unsynced states of one sector than these are not kept: the newest takes the place of the one before. That
/// only leaves out some crash states, and keeps a log of small records from taking 512 bytes for each.
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
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct SimInodeFile {
    durable: Content,
    cached: Content,
    /// With the age of each.
    pending: Vec<(u64, DataAtom)>,
    /// Where in `pending` the states of a sector are, since the last change of the length that may cut.
    versions: HashMap<u64, Vec<usize>>,
    /// Whether something was written that no later sync brings to disk.
    has_diverged: bool,
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

    /// What calls see.
    pub(super) fn cached(&self) -> &Content {
        &self.cached
    }

    /// What a power loss leaves if it keeps no atom.
    pub(super) fn durable(&self) -> &Content {
        &self.durable
    }

    /// Whether every crash leaves what calls see.
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
        let end = offset + bytes.len() as u64;
        if end > self.cached.len() {
            self.cached.grow(end);
            // Growth step by step, as records are appended, is one atom per sector at most.
            match self.pending.last_mut() {
                Some((_, DataAtom::Grow(len))) if *len / SECTOR_BYTES == end / SECTOR_BYTES => *len = end,
                _ => self.pending.push((age, DataAtom::Grow(end))),
            }
        }
    }

    pub(super) fn set_len(&mut self, len: u64, age: u64) {
        self.cached.set_len(len);
        self.pending.push((age, DataAtom::SetLen(len)));
        // A state from before the cut must not be replaced by one from after it.
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
            // All atoms together are what calls see, and a copy shares its pages.
            self.pending.clear();
            self.durable = self.cached.clone();
        }
    }

    /// Forgets that the atoms have to be made durable; reads go on to see them.
    pub(super) fn lose_pending(&mut self) {
        self.versions.clear();
        self.has_diverged |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// Ages and kinds.
    pub(super) fn atoms(&self) -> impl ExactSizeIterator<Item = (u64, AtomKind)> + '_ {
        self.pending.iter().map(|(age, atom)| (*age, atom.kind()))
    }

    /// The file after a power loss that kept the atoms at whose positions `kept` is true. Where the file has grown
    /// over sectors of which nothing persisted lies what
    /// `ground` says, or zeros.
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
                // A length that was set leaves a hole, which reads as zeros on every file system.
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

    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) {
        for content in [&mut self.durable, &mut self.cached] {
            let mut byte = [0];
            content.read_beyond(offset, &mut byte);
            if offset < content.len() {
                content.store(offset, &[byte[0] ^ mask]);
            }
        }
        for atom in &mut self.pending {
            if let (_, DataAtom::Sector { offset: start, image }) = atom
                && (*start..*start + SECTOR_BYTES).contains(&offset)
            {
                Arc::make_mut(image)[(offset - *start) as usize] ^= mask;
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
