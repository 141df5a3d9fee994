//! One file: what calls see, what a power loss leaves, and the atoms between the two.
use super::atom::{AtomKind, SECTOR_BYTES};
use super::content::{Content, split};
use std::collections::HashMap;
use std::sync::Arc;

/// More unsynced states of one sector than these are not kept: the newest takes the place of the one before. That
/// only leaves out some crash states, and keeps a log of small records from taking 512 bytes for each.
const MOST_VERSIONS: usize = 4;

#[derive(Clone)]
enum DataAtom {
    /// The whole sector as it was after a write.
    Sector {
        offset: u64,
        image: Arc<[u8; SECTOR_BYTES as usize]>,
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
    pending: Vec<DataAtom>,
    /// Where in `pending` the states of a sector are, since the last change of the length that may cut.
    versions: HashMap<u64, Vec<usize>>,
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

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
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
                self.pending.push(atom);
            } else {
                self.pending[*versions.last().expect("full")] = atom;
            }
        }
        let end = offset + bytes.len() as u64;
        if end > self.cached.len() {
            self.cached.grow(end);
            // Growth step by step, as records are appended, is one atom per sector at most.
            match self.pending.last_mut() {
                Some(DataAtom::Grow(len)) if *len / SECTOR_BYTES == end / SECTOR_BYTES => *len = end,
                _ => self.pending.push(DataAtom::Grow(end)),
            }
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.cached.set_len(len);
        self.pending.push(DataAtom::SetLen(len));
        // A state from before the cut must not be replaced by one from after it.
        self.versions.clear();
    }

    /// Makes all atoms durable.
    pub(super) fn sync(&mut self) {
        self.versions.clear();
        for atom in self.pending.drain(..) {
            atom.apply(&mut self.durable);
        }
        self.durable.cut();
    }

    /// Forgets that the atoms have to be made durable; reads go on to see them.
    pub(super) fn lose_pending(&mut self) {
        self.versions.clear();
        self.pending.clear();
    }

    pub(super) fn atoms(&self) -> impl ExactSizeIterator<Item = AtomKind> + '_ {
        self.pending.iter().map(DataAtom::kind)
    }

    /// The file after a power loss that kept the atoms for which `survives` says so, by position.
    pub(super) fn crashed(&self, mut survives: impl FnMut(usize, AtomKind) -> bool) -> SimInodeFile {
        let mut content = self.durable.clone();
        for (position, atom) in self.pending.iter().enumerate() {
            if survives(position, atom.kind()) {
                atom.apply(&mut content);
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
            if let DataAtom::Sector { offset: start, image } = atom
                && (*start..*start + SECTOR_BYTES).contains(&offset)
            {
                Arc::make_mut(image)[(offset - *start) as usize] ^= mask;
            }
        }
    }

    /// Replaces the content, durable at once.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        *self = SimInodeFile::default();
        self.write(0, bytes);
        self.sync();
    }
}
