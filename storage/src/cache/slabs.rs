//! Which frames are free, and what is known about those that are not. Plain data, used under the keeper's lock.
//!
//! A slab belongs to one size class at a time; when its last frame is freed any class may take it. If one class starves
//! while others hold every slab, the keeper *drains* a slab: it takes no new frames until it is empty.
use super::frames::{SLAB_BYTES, UNIT_BYTES, UNITS_PER_PIN, UNITS_PER_SLAB};
use super::slot::Slot;
use std::collections::VecDeque;
use std::sync::Arc;

/// The longest block that gets a frame, in bytes.
pub(super) const MAX_FRAME_BYTES: usize = 64 << 10;
const CLASSES: usize = 28;
/// Frame sizes in units: steps of 512 bytes up to 8 KiB, then four steps per doubling.
///
/// The steps of the shorter ones have an odd number of cache lines. Were 4 KiB blocks 4 KiB apart, the first lines of
/// all of them would fight for one set of the processor's first cache.
const CLASS_UNITS: [u16; CLASSES] = [
    9, 17, 25, 33, 41, 49, 57, 65, 73, 81, 89, 97, 105, 113, 121, 129, 160, 192, 224, 256, 320, 384, 448,
    512, 640, 768, 896, 1024,
];
/// Frames in a slab of the smallest class, rounded up to whole words of a bit set.
const MOST_FRAMES_PER_SLAB: usize = (UNITS_PER_SLAB / 9).next_multiple_of(64);
const _: () = assert!(CLASS_UNITS[0] as usize >= UNITS_PER_PIN);
/// The end of every list below.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A frame size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// The smallest class for `len` bytes. REQUIRES: `len <= MAX_FRAME_BYTES`.
    pub(super) fn of(len: usize) -> Class {
        let units = len.div_ceil(UNIT_BYTES) as u16;
        Class(CLASS_UNITS.partition_point(|&class_units| class_units < units) as u8)
    }

    fn units(self) -> usize {
        usize::from(CLASS_UNITS[usize::from(self.0)])
    }

    fn frames_per_slab(self) -> usize {
        UNITS_PER_SLAB / self.units()
    }

    /// What a frame costs: its share of a slab, the slab's unusable rest included.
    pub(super) fn cost_bytes(self) -> usize {
        SLAB_BYTES / self.frames_per_slab()
    }
}

/// What a frame is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its slab's free set.
    Free,
    /// Being filled by a loader.
    Loading,
    /// In a slot, and in the queue of newcomers.
    Small,
    /// In a slot, and in the queue of blocks that were used again.
    Main,
    /// Out of its slot; readers may still be using it.
    Limbo,
}

/// What the keeper knows about one frame.
pub(super) struct Frame {
    pub(super) place: Place,
    /// Neighbours in the queue: units, or `NOWHERE`.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// The slots of the table whose block this is, while `Small` or `Main`.
    pub(super) owner: Option<Arc<[Slot]>>,
    /// The block's index in `owner`.
    pub(super) index: u32,
    /// The table's number, for fingerprints.
    pub(super) table: u32,
}

struct Slab {
    class: Class,
    /// One bit per frame.
    free: [u64; MOST_FRAMES_PER_SLAB / 64],
    free_count: usize,
    frames: Vec<Frame>,
    /// Where it stands in its class's list of slabs with free frames, or `NOWHERE`.
    available_position: u32,
    draining: bool,
}

/// See the module.
pub(super) struct Slabs {
    /// All slabs that were ever used. Slab `i` begins at unit `i * UNITS_PER_SLAB`.
    slabs: Vec<Slab>,
    /// How many slabs there can be at all.
    reserved: usize,
    /// How many slabs may hold memory.
    limit: usize,
    /// How many slabs hold memory.
    committed: usize,
    /// Slabs without frames in use that hold memory, and those that do not.
    empty: Vec<u32>,
    decommitted: Vec<u32>,
    available: [Vec<u32>; CLASSES],
    draining: VecDeque<u32>,
    /// Frames in limbo, per class.
    limbo: [usize; CLASSES],
    /// Where the search for a slab to drain goes on.
    hand: usize,
}

impl Slabs {
    pub(super) fn new(reserved: usize, limit: usize) -> Slabs {
        Slabs {
            slabs: Vec::new(),
            reserved,
            limit: limit.min(reserved),
            committed: 0,
            empty: Vec::new(),
            decommitted: Vec::new(),
            available: [const { Vec::new() }; CLASSES],
            draining: VecDeque::new(),
            limbo: [0; CLASSES],
            hand: 0,
        }
    }

    fn locate(&self, unit: u32) -> (usize, usize) {
        let slab = unit as usize / UNITS_PER_SLAB;
        (slab, unit as usize % UNITS_PER_SLAB / self.slabs[slab].class.units())
    }

    /// The frame that begins at `unit`.
    pub(super) fn frame(&self, unit: u32) -> &Frame {
        let (slab, frame) = self.locate(unit);
        &self.slabs[slab].frames[frame]
    }

    /// The frame that begins at `unit`.
    pub(super) fn frame_mut(&mut self, unit: u32) -> &mut Frame {
        let (slab, frame) = self.locate(unit);
        &mut self.slabs[slab].frames[frame]
    }

    /// The size class of the frame at `unit`.
    pub(super) fn class_of(&self, unit: u32) -> Class {
        self.slabs[unit as usize / UNITS_PER_SLAB].class
    }

    /// How many slabs hold memory.
    pub(super) fn committed(&self) -> usize {
        self.committed
    }

    /// The memory that the knowledge about the frames takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slabs.iter().map(|slab| size_of::<Slab>() + slab.frames.capacity() * size_of::<Frame>()).sum()
    }

    /// A free frame, `Loading` now; `None` if the class has none and no slab is to be had.
    pub(super) fn allocate(&mut self, class: Class) -> Option<u32> {
        if self.available[usize::from(class.0)].is_empty() {
            let slab = self.take_slab()?;
            self.assign(slab, class);
        }
        let index = *self.available[usize::from(class.0)].last().expect("filled above");
        let slab = &mut self.slabs[index as usize];
        let word = slab.free.iter().position(|word| *word != 0).expect("an available slab has a free frame");
        let bit = slab.free[word].trailing_zeros() as usize;
        slab.free[word] &= slab.free[word] - 1;
        slab.free_count -= 1;
        if slab.free_count == 0 {
            self.make_unavailable(index);
        }
        let frame = word * 64 + bit;
        let slab = &mut self.slabs[index as usize];
        debug_assert_eq!(slab.frames[frame].place, Place::Free);
        slab.frames[frame].place = Place::Loading;
        Some((index as usize * UNITS_PER_SLAB + frame * class.units()) as u32)
    }

    /// A free frame of a class of at most twice the size, from a slab that has one.
    pub(super) fn allocate_larger(&mut self, class: Class) -> Option<u32> {
        let larger = (class.0 + 1..CLASSES as u8).map(Class);
        let mut affordable = larger.take_while(|larger| larger.units() <= 2 * class.units());
        let larger = affordable.find(|larger| !self.available[usize::from(larger.0)].is_empty())?;
        self.allocate(larger)
    }

    fn take_slab(&mut self) -> Option<u32> {
        if let Some(slab) = self.empty.pop() {
            return Some(slab);
        }
        if self.committed >= self.limit {
            return None;
        }
        let slab = match self.decommitted.pop() {
            Some(slab) => slab,
            None if self.slabs.len() < self.reserved => {
                self.slabs.push(Slab {
                    class: Class(0),
                    free: [0; MOST_FRAMES_PER_SLAB / 64],
                    free_count: 0,
                    frames: Vec::new(),
                    available_position: NOWHERE,
                    draining: false,
                });
                (self.slabs.len() - 1) as u32
            }
            None => return None,
        };
        self.committed += 1;
        Some(slab)
    }

    fn assign(&mut self, index: u32, class: Class) {
        let slab = &mut self.slabs[index as usize];
        let count = class.frames_per_slab();
        slab.class = class;
        slab.frames.clear();
        slab.frames.shrink_to(count);
        slab.frames.resize_with(count, || Frame {
            place: Place::Free,
            previous: NOWHERE,
            next: NOWHERE,
            owner: None,
            index: 0,
            table: 0,
        });
        slab.free = [0; MOST_FRAMES_PER_SLAB / 64];
        for frame in 0..count {
            slab.free[frame / 64] |= 1 << (frame % 64);
        }
        slab.free_count = count;
        self.make_available(index);
    }

    fn make_available(&mut self, index: u32) {
        let slab = &mut self.slabs[index as usize];
        let list = &mut self.available[usize::from(slab.class.0)];
        slab.available_position = list.len() as u32;
        list.push(index);
    }

    fn make_unavailable(&mut self, index: u32) {
        let slab = &mut self.slabs[index as usize];
        let position = std::mem::replace(&mut slab.available_position, NOWHERE) as usize;
        let list = &mut self.available[usize::from(slab.class.0)];
        list.swap_remove(position);
        if let Some(&moved) = list.get(position) {
            self.slabs[moved as usize].available_position = position as u32;
        }
    }

    /// Notes that a frame has left its slot.
    pub(super) fn enter_limbo(&mut self, unit: u32) {
        let class = self.class_of(unit);
        self.limbo[usize::from(class.0)] += 1;
        self.frame_mut(unit).place = Place::Limbo;
    }

    /// Frees a frame that is `Loading` or in `Limbo`. Returns the slab to decommit, if one has become superfluous.
    #[must_use]
    pub(super) fn free(&mut self, unit: u32) -> Option<usize> {
        let (index, frame) = self.locate(unit);
        let slab = &mut self.slabs[index];
        match std::mem::replace(&mut slab.frames[frame].place, Place::Free) {
            Place::Loading => {}
            Place::Limbo => self.limbo[usize::from(slab.class.0)] -= 1,
            place => unreachable!("a frame is freed only when nobody can find it, not from {place:?}"),
        }
        slab.free[frame / 64] |= 1 << (frame % 64);
        slab.free_count += 1;
        let is_empty = slab.free_count == slab.frames.len();
        if slab.available_position == NOWHERE && !slab.draining {
            self.make_available(index as u32);
        }
        if is_empty { self.release_slab(index) } else { None }
    }

    fn release_slab(&mut self, index: usize) -> Option<usize> {
        let slab = &mut self.slabs[index];
        if std::mem::take(&mut slab.draining) {
            self.draining.retain(|&other| other as usize != index);
        } else {
            self.make_unavailable(index as u32);
        }
        if self.committed > self.limit {
            self.committed -= 1;
            self.decommitted.push(index as u32);
            return Some(index);
        }
        self.empty.push(index as u32);
        None
    }

    /// Whether a frame of this class will be free soon.
    pub(super) fn has_limbo(&self, class: Class) -> bool {
        self.limbo[usize::from(class.0)] > 0
    }

    /// Sets how many slabs may hold memory. Returns slabs to decommit; more follow as frames are freed.
    #[must_use]
    pub(super) fn set_limit(&mut self, limit: usize) -> Vec<usize> {
        self.limit = limit.min(self.reserved);
        let mut superfluous = Vec::new();
        while self.committed > self.limit {
            let Some(slab) = self.empty.pop() else { break };
            self.committed -= 1;
            self.decommitted.push(slab);
            superfluous.push(slab as usize);
        }
        superfluous
    }

    /// Whether slabs hold more memory than they may, beyond those that are being drained.
    pub(super) fn is_over_limit(&self) -> bool {
        self.committed - self.draining.len() > self.limit
    }

    /// Chooses a slab with few frames in use, of another class than `wanted`, stops allocating from it, and returns
    /// the units of its frames that are in slots: the caller evicts them. `None` if there is none to choose.
    pub(super) fn drain(&mut self, wanted: Option<Class>) -> Option<Vec<u32>> {
        /// How many slabs are compared.
        const LOOK_AT: usize = 16;
        if wanted.is_some() && self.draining.len() > self.committed / 64 {
            // A slab with a pinned frame may take long. Let it serve its class again, and be chosen another time.
            let oldest = self.draining.pop_front().expect("counted above");
            let slab = &mut self.slabs[oldest as usize];
            slab.draining = false;
            if slab.free_count > 0 {
                self.make_available(oldest);
            }
        }
        let mut best: Option<(usize, usize)> = None;
        let (mut seen, mut looked_at) = (0, 0);
        while seen < self.slabs.len() && looked_at < LOOK_AT {
            self.hand = (self.hand + 1) % self.slabs.len();
            seen += 1;
            let slab = &self.slabs[self.hand];
            let used = slab.frames.len() - slab.free_count;
            if slab.draining || used == 0 || Some(slab.class) == wanted {
                continue;
            }
            looked_at += 1;
            // In bytes, so that classes compare.
            let used_bytes = used * slab.class.cost_bytes();
            if best.is_none_or(|(least, _)| used_bytes < least) {
                best = Some((used_bytes, self.hand));
            }
        }
        let (_, index) = best?;
        if self.slabs[index].available_position != NOWHERE {
            self.make_unavailable(index as u32);
        }
        let slab = &mut self.slabs[index];
        slab.draining = true;
        self.draining.push_back(index as u32);
        let (first, step) = (index * UNITS_PER_SLAB, slab.class.units());
        let in_slots = |frame: &Frame| matches!(frame.place, Place::Small | Place::Main);
        let frames = slab.frames.iter().enumerate().filter(|(_, frame)| in_slots(frame));
        Some(frames.map(|(i, _)| (first + i * step) as u32).collect())
    }
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;

    #[test]
    fn classes_fit_their_lengths_and_waste_little() {
        for len in 1..=MAX_FRAME_BYTES {
            let bytes = Class::of(len).units() * UNIT_BYTES;
            assert!(bytes >= len);
            assert!(bytes - len < 576.max(len / 4), "{len} bytes in a frame of {bytes}");
        }
    }

    #[test]
    fn frames_do_not_overlap_and_come_back() {
        let mut slabs = Slabs::new(4, 4);
        let mut frames = Vec::new();
        let mut lengths = [700usize, 4096, 4500, 65536].into_iter().cycle();
        let mut refused = 0;
        while refused < 4 {
            let len = lengths.next().unwrap();
            match slabs.allocate(Class::of(len)) {
                Some(unit) => frames.push((unit, len.div_ceil(UNIT_BYTES) as u32)),
                None => refused += 1,
            }
        }
        frames.sort_unstable();
        for pair in frames.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        assert_eq!(slabs.committed(), 4);
        for (unit, _) in frames {
            assert_eq!(slabs.free(unit), None);
        }
        assert_eq!(slabs.empty.len(), 4);
        assert_eq!(slabs.set_limit(1).len(), 3);
        assert_eq!(slabs.committed(), 1);
    }

    #[test]
    fn a_drained_slab_serves_another_class() {
        let mut slabs = Slabs::new(1, 1);
        let unit = slabs.allocate(Class::of(4096)).unwrap();
        assert_eq!(slabs.allocate(Class::of(8192)), None);
        slabs.frame_mut(unit).place = Place::Small;
        assert_eq!(slabs.drain(Some(Class::of(8192))), Some(vec![unit]));
        assert_eq!(slabs.allocate(Class::of(4096)), None);
        slabs.enter_limbo(unit);
        assert_eq!(slabs.free(unit), None);
        assert!(slabs.allocate(Class::of(8192)).is_some());
    }
}
