//! Selection of the crash states of a moment that are worth checking.
//!
//! Up to twelve atoms, all subsets are tried. Beyond that, the states in which file systems are
//! known to differ (after Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014):
//! every prefix, all but one, one alone, one file or directory ahead of or after all others, a
//! partially executed call; and random subsets.
use super::SimFs;
use super::choice::{CrashChoice, Keep};
use super::crash::Pending;
use super::underlay::Underlay;
use super::world::World;
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

/// Maximum number of atoms for which every subset is tried.
const EXHAUSTIVE_ATOMS: usize = 12;
/// Number of random subsets of each kind.
const RANDOM_SUBSETS: usize = 32;

/// Different states after a power loss. See [`SimFs::crash_images`].
pub struct CrashImages {
    world: World,
    pending: Pending,
    /// From the last to the first.
    candidates: Vec<CrashChoice>,
    seen: HashSet<u64>,
    left: usize,
}

impl SimFs {
    /// Returns up to `limit` different states after a power loss at this moment, each with the
    /// choice that reproduces it in [`SimFs::crash_by`]: all subsets of up to 12 atoms, otherwise
    /// those in which file systems are known to differ, and random ones. The empty and the full
    /// choice come first; `seed` decides order and selection of the others. No two have the same
    /// [`SimFs::image_hash`]. This file system may change during the iteration.
    pub fn crash_images(&self, seed: u64, limit: usize) -> CrashImages {
        CrashImages::new(self.copy(), seed, limit)
    }
}

impl CrashImages {
    fn new(world: World, seed: u64, limit: usize) -> CrashImages {
        let pending = world.pending();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut candidates = match pending.len() <= EXHAUSTIVE_ATOMS {
            true => every_subset(&pending, &mut random),
            false => chosen_subsets(&pending, limit, &mut random),
        };
        for choice in &mut candidates {
            choice.atoms = Some(pending.len());
            choice.underlay = Underlay::draw(&mut random);
        }
        candidates.reverse();
        CrashImages { world, pending, candidates, seen: HashSet::new(), left: limit }
    }
}

impl Iterator for CrashImages {
    type Item = (CrashChoice, SimFs);

    fn next(&mut self) -> Option<(CrashChoice, SimFs)> {
        if self.left == 0 {
            return None;
        }
        loop {
            let choice = self.candidates.pop()?;
            let kept = choice.choose(&self.pending);
            let image = self.world.crashed(&self.pending, kept, choice.underlay);
            if self.seen.insert(image.hash()) {
                self.left -= 1;
                return Some((choice, SimFs::of(image)));
            }
        }
    }
}

/// The empty and the full subset first, the others in random order.
fn every_subset(pending: &Pending, random: &mut fastrand::Rng) -> Vec<CrashChoice> {
    let count = pending.len();
    let mut masks: Vec<u32> = (1..(1u32 << count).saturating_sub(1)).collect();
    random.shuffle(&mut masks);
    let subset = |mask: u32| {
        let kept: Vec<bool> = (0..count).map(|place| mask >> place & 1 == 1).collect();
        CrashChoice::of_kept(&kept)
    };
    [CrashChoice::none(), CrashChoice::all()].into_iter().chain(masks.into_iter().map(subset)).collect()
}

/// The empty and the full subset first, then the kinds of subsets in turn, each in random order, so
/// that a prefix of the list has some of each.
fn chosen_subsets(pending: &Pending, limit: usize, random: &mut fastrand::Rng) -> Vec<CrashChoice> {
    let count = pending.len();
    let of = |keep| CrashChoice { keep, ..CrashChoice::none() };
    let objects: BTreeSet<u64> = pending.atoms.iter().map(|atom| atom.inode).collect();
    let mut by_object: Vec<CrashChoice> =
        objects.iter().flat_map(|inode| [of(Keep::Object(*inode)), of(Keep::ButObject(*inode))]).collect();
    random.shuffle(&mut by_object);
    let mut kinds: Vec<Vec<CrashChoice>> = vec![
        places(1..count, limit, random).map(|place| of(Keep::Prefix(place))).collect(),
        places(0..count, limit, random).map(|place| of(Keep::But(place))).collect(),
        places(0..count, limit, random).map(|place| of(Keep::Only(place))).collect(),
        by_object,
        places(1..count, limit, random)
            .filter_map(|place| torn_call(pending, place).map(|ranges| of(Keep::Set(ranges))))
            .collect(),
        (0..RANDOM_SUBSETS).map(|_| of(Keep::Starts(random.u64(..1_000_000)))).collect(),
        (0..RANDOM_SUBSETS)
            .map(|index| {
                let percent = [10, 50, 90, 50][index % 4];
                of(Keep::Some { percent, seed: random.u64(..1_000_000) })
            })
            .collect(),
    ];
    let mut choices = vec![CrashChoice::none(), CrashChoice::all()];
    while kinds.iter().any(|kind| !kind.is_empty()) {
        choices.extend(kinds.iter_mut().filter_map(Vec::pop));
    }
    choices
}

/// Places in random order: all of them, or `most` that are spread over the range.
fn places(range: Range<usize>, most: usize, random: &mut fastrand::Rng) -> std::vec::IntoIter<usize> {
    let mut places: Vec<usize> = match range.len() > most {
        false => range.collect(),
        true => {
            let at =
                |index: usize| range.start + (range.len() as u128 * index as u128 / most as u128) as usize;
            (0..most).map(|index| random.usize(at(index)..at(index + 1))).collect()
        }
    };
    random.shuffle(&mut places);
    places.into_iter()
}

/// All atoms before the call of the atom at `place`, and those of the call itself from there on.
/// `None` if that is the whole call. (The beginning of a call is already a prefix.)
fn torn_call(pending: &Pending, place: usize) -> Option<Vec<Range<usize>>> {
    let age = pending.at(place).age;
    let start = pending.by_age.partition_point(|index| pending.atoms[*index].age < age);
    let end = pending.by_age.partition_point(|index| pending.atoms[*index].age <= age);
    (start < place).then(|| [0..start, place..end].into_iter().filter(|range| !range.is_empty()).collect())
}
