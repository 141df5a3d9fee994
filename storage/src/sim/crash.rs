//! Which atoms survive a crash, by seed.
use super::atom::Atom;

enum Choice {
    None,
    All,
    /// The atoms of each file and directory up to a place of its own.
    Beginnings,
    /// Each atom with this probability.
    Some(f64),
}

/// A choice that depends on nothing but the seed and the atoms. Seed 0 keeps nothing, seed 1 everything.
pub(super) fn by_seed(seed: u64) -> impl FnMut(&Atom) -> bool {
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
    let mut keep_until = 0;
    move |atom| match choice {
        Choice::None => false,
        Choice::All => true,
        Choice::Beginnings => {
            if atom.position == 0 {
                keep_until = random.usize(..=atom.count);
            }
            atom.position < keep_until
        }
        Choice::Some(probability) => random.f64() < probability,
    }
}
