//! Allocation and state of frames. Plain data, used under the keeper's lock.
//!
//! A slab belongs to one size class at a time; when its last frame is freed any class may take it.
//! If one class starves while others hold every slab, the keeper *drains* a slab: it allocates no
//! new frames until it is empty.
//!
//! A frame above the size of a slab is a *row*: consecutive slabs, of which the first represents
//! all. Rows take fresh address space, of which there is far more than memory, so no slab has to
//! move for them.
use super::frames::{SLAB_BYTES, UNIT_BYTES, UNITS_PER_PIN, UNITS_PER_SLAB};
use super::slot::{MAX_LEN, Slot};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// The longest block that gets a frame, in bytes.
pub(super) const MAX_FRAME_BYTES: usize = 4 << 20;
const CLASSES: usize = 42;
/// Frame sizes in units: steps of 512 bytes up to 8 KiB, then four steps per doubling up to 64 KiB,
/// parts of a slab, and whole slabs.
///
/// The shorter sizes are an odd number of cache lines. If 4 KiB blocks were 4 KiB apart, the first
/// lines of all of them would compete for one set of the L1 cache.
const CLASS_UNITS: [u32; CLASSES] = [
    9,
    17,
    25,
    33,
    41,
    49,
    57,
    65,
    73,
    81,
    89,
    97,
    105,
    113,
    121,
    129,
    160,
    192,
    224,
    256,
    320,
    384,
    448,
    512,
    640,
    768,
    896,
    1024,
    1365,
    2048,
    SLAB_UNITS,
    2 * SLAB_UNITS,
    3 * SLAB_UNITS,
    4 * SLAB_UNITS,
    5 * SLAB_UNITS,
    6 * SLAB_UNITS,
    7 * SLAB_UNITS,
    8 * SLAB_UNITS,
    10 * SLAB_UNITS,
    12 * SLAB_UNITS,
    14 * SLAB_UNITS,
    16 * SLAB_UNITS,
];
const SLAB_UNITS: u32 = UNITS_PER_SLAB as u32;
const _: () = assert!(CLASS_UNITS[CLASSES - 1] as usize * UNIT_BYTES == MAX_FRAME_BYTES);
const _: () = assert!(MAX_FRAME_BYTES <= MAX_LEN);
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
        let units = len.div_ceil(UNIT_BYTES) as u32;
        Class(CLASS_UNITS.partition_point(|&class_units| class_units < units) as u8)
    }

    fn units(self) -> usize {
        CLASS_UNITS[usize::from(self.0)] as usize
    }

    /// Frames per slab, or per row.
    fn frames_per_slab(self) -> usize {
        (UNITS_PER_SLAB / self.units()).max(1)
    }

    /// Slabs per frame: one, unless it is a row.
    pub(super) fn slabs(self) -> usize {
        self.units().div_ceil(UNITS_PER_SLAB)
    }

    /// Cost of a frame: its share of a slab, including the slab's unusable rest.
    pub(super) fn cost_bytes(self) -> usize {
        self.slabs() * SLAB_BYTES / self.frames_per_slab()
    }
}

/// State of a frame.
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
    /// Out of its slot, and pinned beyond the last reader: the last pin frees it.
    Retired,
}

/// The keeper's state of one frame.
pub(super) struct Frame {
    pub(super) place: Place,
    /// Neighbours in the queue: units, or `NOWHERE`.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// The slots of the table that owns this block, while `Small` or `Main`.
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
    /// Frames in limbo that no pin keeps there.
    leaving_count: usize,
    frames: Vec<Frame>,
    /// Position in its class's list of slabs with free frames, or `NOWHERE`.
    available_position: u32,
    draining: bool,
}

/// See the module.
pub(super) struct Slabs {
    /// All slabs that were ever used. Slab `i` begins at unit `i * UNITS_PER_SLAB`.
    slabs: Vec<Slab>,
    /// Maximum number of slabs.
    reserved: usize,
    /// Maximum number of slabs with memory.
    limit: usize,
    /// Number of slabs with memory.
    committed: usize,
    /// Slabs without frames in use: those that hold memory, and those that do not.
    empty: Vec<u32>,
    decommitted: Vec<u32>,
    /// The same for rows, by class.
    empty_rows: [Vec<u32>; CLASSES],
    decommitted_rows: [Vec<u32>; CLASSES],
    available: [Vec<u32>; CLASSES],
    draining: VecDeque<u32>,
    /// Frames in limbo, per class.
    limbo: [usize; CLASSES],
    /// Where the search for a slab to drain continues.
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
            empty_rows: [const { Vec::new() }; CLASSES],
            decommitted_rows: [const { Vec::new() }; CLASSES],
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

    /// Number of slabs with memory.
    pub(super) fn committed(&self) -> usize {
        self.committed
    }

    /// Memory of the bookkeeping, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slabs.iter().map(|slab| size_of::<Slab>() + slab.frames.capacity() * size_of::<Frame>()).sum()
    }

    /// Allocates a frame, now `Loading`; `None` if the class has none and no slab is available.
    /// Adds empty slabs that gave up their memory for it to `superfluous`: the caller decommits
    /// those.
    pub(super) fn allocate(&mut self, class: Class, superfluous: &mut Vec<usize>) -> Option<u32> {
        if self.available[usize::from(class.0)].is_empty() {
            let slab = self.take_slabs(class, superfluous)?;
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

    /// Allocates a frame of a class of at most twice the size, from a slab that has a free one.
    pub(super) fn allocate_larger(&mut self, class: Class) -> Option<u32> {
        let larger = (class.0 + 1..CLASSES as u8).map(Class);
        let mut affordable = larger.take_while(|larger| larger.units() <= 2 * class.units());
        let larger = affordable.find(|larger| !self.available[usize::from(larger.0)].is_empty())?;
        // The frame is free already, so no slab has to give up memory.
        self.allocate(larger, &mut Vec::new())
    }

    /// Returns a slab for a class, or a row, with memory and without frames.
    fn take_slabs(&mut self, class: Class, superfluous: &mut Vec<usize>) -> Option<u32> {
        let count = class.slabs();
        let empty = if count == 1 { &mut self.empty } else { &mut self.empty_rows[usize::from(class.0)] };
        if let Some(slab) = empty.pop() {
            return Some(slab);
        }
        if count > self.limit {
            return None;
        }
        while self.committed + count > self.limit {
            superfluous.extend(self.give_up_empty()?);
        }
        let slab = match count {
            1 => self.take_address(),
            _ => self.decommitted_rows[usize::from(class.0)].pop().or_else(|| self.fresh(count)),
        }?;
        self.committed += count;
        Some(slab)
    }

    /// Returns the place of one slab without memory. Splits rows without memory if there is no
    /// other.
    fn take_address(&mut self) -> Option<u32> {
        if let Some(slab) = self.decommitted.pop().or_else(|| self.fresh(1)) {
            return Some(slab);
        }
        let class = (0..CLASSES).find(|class| !self.decommitted_rows[*class].is_empty())?;
        let first = self.decommitted_rows[class].pop()?;
        let count = Class(class as u8).slabs() as u32;
        self.decommitted.extend(first..first + count);
        self.decommitted.pop()
    }

    /// Returns consecutive slabs that were never used.
    fn fresh(&mut self, count: usize) -> Option<u32> {
        let first = self.slabs.len();
        if first + count > self.reserved {
            return None;
        }
        self.slabs.resize_with(first + count, || Slab {
            class: Class(0),
            free: [0; MOST_FRAMES_PER_SLAB / 64],
            free_count: 0,
            leaving_count: 0,
            frames: Vec::new(),
            available_position: NOWHERE,
            draining: false,
        });
        Some(first as u32)
    }

    /// Removes an empty slab or row from those that hold memory.
    fn give_up_empty(&mut self) -> Option<Range<usize>> {
        if let Some(slab) = self.empty.pop() {
            self.committed -= 1;
            self.decommitted.push(slab);
            return Some(slab as usize..slab as usize + 1);
        }
        let class = (0..CLASSES).find(|class| !self.empty_rows[*class].is_empty())?;
        let first = self.empty_rows[class].pop()?;
        self.decommitted_rows[class].push(first);
        let count = Class(class as u8).slabs();
        self.committed -= count;
        Some(first as usize..first as usize + count)
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
        slab.leaving_count = 0;
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

    /// The frames whose place satisfies `is_wanted`.
    pub(super) fn units_in(&self, is_wanted: impl Fn(Place) -> bool) -> Vec<u32> {
        let mut units = Vec::new();
        for (index, slab) in self.slabs.iter().enumerate() {
            for (frame, _) in slab.frames.iter().enumerate().filter(|(_, frame)| is_wanted(frame.place)) {
                units.push((index * UNITS_PER_SLAB + frame * slab.class.units()) as u32);
            }
        }
        units
    }

    /// Moves a frame that has left its slot to limbo.
    pub(super) fn enter_limbo(&mut self, unit: u32) {
        let class = self.class_of(unit);
        self.limbo[usize::from(class.0)] += 1;
        self.slabs[unit as usize / UNITS_PER_SLAB].leaving_count += 1;
        self.frame_mut(unit).place = Place::Limbo;
    }

    /// Leaves a frame in limbo until its last pin is gone.
    pub(super) fn leave_to_pins(&mut self, unit: u32) {
        let class = self.class_of(unit);
        self.limbo[usize::from(class.0)] -= 1;
        self.slabs[unit as usize / UNITS_PER_SLAB].leaving_count -= 1;
        self.frame_mut(unit).place = Place::Retired;
    }

    /// Frees a frame that is not in a slot. Returns the slabs to decommit, if some have become
    /// superfluous.
    #[must_use]
    pub(super) fn free(&mut self, unit: u32) -> Range<usize> {
        let (index, frame) = self.locate(unit);
        let slab = &mut self.slabs[index];
        match std::mem::replace(&mut slab.frames[frame].place, Place::Free) {
            Place::Loading | Place::Retired => {}
            Place::Limbo => {
                self.limbo[usize::from(slab.class.0)] -= 1;
                slab.leaving_count -= 1;
            }
            place => unreachable!("a frame is freed only when nobody can find it, not from {place:?}"),
        }
        slab.free[frame / 64] |= 1 << (frame % 64);
        slab.free_count += 1;
        let is_empty = slab.free_count == slab.frames.len();
        if slab.available_position == NOWHERE && !slab.draining {
            self.make_available(index as u32);
        }
        if is_empty { self.release_slab(index) } else { 0..0 }
    }

    fn release_slab(&mut self, index: usize) -> Range<usize> {
        let slab = &mut self.slabs[index];
        let (class, count) = (usize::from(slab.class.0), slab.class.slabs());
        if std::mem::take(&mut slab.draining) {
            self.draining.retain(|&other| other as usize != index);
        } else {
            self.make_unavailable(index as u32);
        }
        let slab = &mut self.slabs[index];
        slab.frames.clear();
        slab.free_count = 0;
        let is_superfluous = self.committed > self.limit;
        let list = match (is_superfluous, count) {
            (true, 1) => &mut self.decommitted,
            (true, _) => &mut self.decommitted_rows[class],
            (false, 1) => &mut self.empty,
            (false, _) => &mut self.empty_rows[class],
        };
        list.push(index as u32);
        if is_superfluous {
            self.committed -= count;
            return index..index + count;
        }
        0..0
    }

    /// Whether a frame of this class will be free soon.
    pub(super) fn has_limbo(&self, class: Class) -> bool {
        self.limbo[usize::from(class.0)] > 0
    }

    /// Sets how many slabs may hold memory. Returns slabs to decommit; more follow as frames are
    /// freed.
    #[must_use]
    pub(super) fn set_limit(&mut self, limit: usize) -> Vec<usize> {
        self.limit = limit.min(self.reserved);
        let mut superfluous = Vec::new();
        while self.committed > self.limit {
            let Some(slabs) = self.give_up_empty() else { break };
            superfluous.extend(slabs);
        }
        superfluous
    }

    /// Whether slabs hold more memory than the limit, not counting those being drained.
    pub(super) fn is_over_limit(&self) -> bool {
        let draining: usize = self.draining.iter().map(|slab| self.slabs[*slab as usize].class.slabs()).sum();
        self.committed - draining > self.limit
    }

    /// How many slabs of any class will be empty as soon as the current readers are gone.
    pub(super) fn soon_empty(&self) -> usize {
        let slabs = self.draining.iter().map(|slab| &self.slabs[*slab as usize]);
        let leaving = slabs.filter(|slab| slab.leaving_count + slab.free_count == slab.frames.len());
        leaving.map(|slab| slab.class.slabs()).sum()
    }

    /// Chooses a slab with few frames in use, of a class other than `wanted`, stops allocating from
    /// it, and returns the units of its frames that are in slots: the caller evicts them. `None` if
    /// there is no candidate. A slab with a frame that `is_pinned` would take long, so it is chosen
    /// only if `wanted` is `None`.
    pub(super) fn drain(
        &mut self,
        wanted: Option<Class>,
        is_pinned: impl Fn(u32) -> bool,
    ) -> Option<Vec<u32>> {
        /// Number of compared slabs.
        const LOOK_AT: usize = 16;
        if wanted.is_some() && self.draining.len() > self.committed / 64 {
            // A slab with a pinned frame may take long. Return it to its class, to be chosen
            // another time.
            let oldest = self.draining.pop_front().expect("counted above");
            let slab = &mut self.slabs[oldest as usize];
            slab.draining = false;
            if slab.free_count > 0 {
                self.make_available(oldest);
            }
        }
        let mut candidates: Vec<(usize, usize)> = Vec::with_capacity(LOOK_AT);
        let mut seen = 0;
        while seen < self.slabs.len() && candidates.len() < LOOK_AT {
            self.hand = (self.hand + 1) % self.slabs.len();
            seen += 1;
            let slab = &self.slabs[self.hand];
            let used = slab.frames.len() - slab.free_count;
            if slab.draining || used == 0 || Some(slab.class) == wanted {
                continue;
            }
            // In bytes, so that classes are comparable.
            candidates.push((used * slab.class.cost_bytes(), self.hand));
        }
        candidates.sort_unstable();
        let is_free_of_pins = |index: usize| {
            let step = self.slabs[index].class.units();
            let used = |frame: &Frame| frame.place != Place::Free;
            let frames = self.slabs[index].frames.iter().enumerate().filter(|(_, frame)| used(frame));
            frames.map(|(i, _)| (index * UNITS_PER_SLAB + i * step) as u32).all(|unit| !is_pinned(unit))
        };
        let chosen = candidates.iter().find(|(_, index)| wanted.is_none() || is_free_of_pins(*index));
        let &(_, index) = chosen?;
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
        for len in (1..=64 << 10).chain((64 << 10..=MAX_FRAME_BYTES).step_by(509)) {
            let bytes = Class::of(len).units() * UNIT_BYTES;
            assert!(bytes >= len);
            let least = if len <= 64 << 10 { 576.max(len / 4) } else { SLAB_BYTES.max(len / 4) };
            assert!(bytes - len < least, "{len} bytes in a frame of {bytes}");
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
            match slabs.allocate(Class::of(len), &mut Vec::new()) {
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
            assert_eq!(slabs.free(unit), 0..0);
        }
        assert_eq!(slabs.empty.len(), 4);
        assert_eq!(slabs.set_limit(1).len(), 3);
        assert_eq!(slabs.committed(), 1);
    }

    #[test]
    fn a_drained_slab_serves_another_class() {
        let mut slabs = Slabs::new(1, 1);
        let unit = slabs.allocate(Class::of(4096), &mut Vec::new()).unwrap();
        assert_eq!(slabs.allocate(Class::of(8192), &mut Vec::new()), None);
        slabs.frame_mut(unit).place = Place::Small;
        assert_eq!(slabs.drain(Some(Class::of(8192)), |_| false), Some(vec![unit]));
        assert_eq!(slabs.allocate(Class::of(4096), &mut Vec::new()), None);
        slabs.enter_limbo(unit);
        assert_eq!(slabs.free(unit), 0..0);
        assert!(slabs.allocate(Class::of(8192), &mut Vec::new()).is_some());
    }

    #[test]
    fn rows_and_single_slabs_give_way_to_each_other() {
        let mut slabs = Slabs::new(64, 8);
        let row = Class::of((1 << 20) + 100);
        assert_eq!((row.slabs(), row.cost_bytes()), (5, 5 * SLAB_BYTES));
        let mut superfluous = Vec::new();
        let first = slabs.allocate(row, &mut superfluous).unwrap();
        assert_eq!((slabs.committed(), slabs.allocate(row, &mut superfluous)), (5, None));
        let single: Vec<u32> =
            (0..3 * 3).map(|_| slabs.allocate(Class::of(80 << 10), &mut superfluous).unwrap()).collect();
        assert_eq!((slabs.committed(), superfluous.len()), (8, 0));
        assert_eq!(slabs.allocate(Class::of(80 << 10), &mut superfluous), None);
        // The row has no frame any more: its memory goes to other slabs, and its place is reused.
        assert_eq!(slabs.free(first), 0..0);
        slabs.allocate(Class::of(200 << 10), &mut superfluous).unwrap();
        assert_eq!((slabs.committed(), superfluous.len()), (4, 5));
        superfluous.clear();
        single.into_iter().for_each(|unit| drop(slabs.free(unit)));
        assert_eq!(slabs.allocate(row, &mut superfluous), Some(first));
        assert_eq!((slabs.committed(), superfluous.len()), (8, 1));
        // After lowering the limit, a row goes as a whole.
        assert_eq!(slabs.set_limit(0).len(), 2);
        assert_eq!(slabs.free(first).len(), 5);
    }

    #[test]
    fn places_of_rows_serve_single_slabs_when_no_other_is_left() {
        let mut slabs = Slabs::new(5, 5);
        let row = slabs.allocate(Class::of(1 << 20), &mut Vec::new()).unwrap();
        let _ = slabs.free(row);
        for _ in 0..5 {
            assert!(slabs.allocate(Class::of(256 << 10), &mut Vec::new()).is_some());
        }
        assert_eq!(slabs.allocate(Class::of(256 << 10), &mut Vec::new()), None);
    }
}
