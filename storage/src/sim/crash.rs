//! Choices of surviving atoms by seed, and all atoms of a moment in both orders.
use super::atom::Atom;
use super::underlay::Underlay;

/// The atoms of a moment.
pub(super) struct Pending {
    /// Grouped by object, and within an object in order of origin.
    pub(super) atoms: Vec<Atom>,
    /// The indices of `atoms` in order of origin: those of one call are adjacent.
    pub(super) by_age: Vec<usize>,
}

impl Pending {
    pub(super) fn new(atoms: Vec<Atom>) -> Pending {
        let mut by_age: Vec<usize> = (0..atoms.len()).collect();
        by_age.sort_by_key(|index| atoms[*index].age);
        Pending { atoms, by_age }
    }

    pub(super) fn len(&self) -> usize {
        self.atoms.len()
    }

    /// The atom at this place in order of origin.
    pub(super) fn at(&self, place: usize) -> &Atom {
        &self.atoms[self.by_age[place]]
    }
}

enum Choice {
    None,
    All,
    /// The atoms of each file and directory up to an individual place.
    Beginnings,
    /// Each atom with this probability.
    Some(f64),
}

/// A choice that depends on nothing but the seed and the atoms. Seed 0 keeps nothing, seed 1
/// everything.
pub(super) fn by_seed(seed: u64, pending: &Pending) -> (Vec<bool>, Underlay) {
    let mut random = fastrand::Rng::with_seed(seed);
    let choice = match seed {
        0 => Choice::None,
        1 => Choice::All,
        _ => match random.u32(..8) {
            0 => Choice::None,
            1 => Choice::All,
            2..=3 => Choice::Beginnings,
            4 => Choice::Some(0.1),
            5 => Choice::Some(0.9),
            _ => Choice::Some(0.5),
        },
    };
    let kept = match choice {
        Choice::None => vec![false; pending.len()],
        Choice::All => vec![true; pending.len()],
        Choice::Beginnings => beginnings(&mut random, pending),
        Choice::Some(probability) => pending.atoms.iter().map(|_| random.f64() < probability).collect(),
    };
    let underlay = if seed < 2 { Underlay::Zeros } else { Underlay::draw(&mut random) };
    (kept, underlay)
}

/// The atoms of each file and directory up to an individual place.
pub(super) fn beginnings(random: &mut fastrand::Rng, pending: &Pending) -> Vec<bool> {
    let mut keep_until = 0;
    let keep = pending.atoms.iter().map(|atom| {
        if atom.position == 0 {
            keep_until = random.usize(..=atom.count);
        }
        atom.position < keep_until
    });
    keep.collect()
}
