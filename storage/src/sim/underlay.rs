//! Content under a length that persisted without its bytes: a file system that writes the length
//! first shows the former content of the new sectors.
use super::atom::{InodeNumber, SECTOR_BYTES};
use super::content::Content;
use sapwood_base::checksum::place_seed;
use std::collections::VecDeque;
use std::fmt;

/// Content of the sectors of a grown file if the growth persisted and they did not. A crash has one
/// for all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Underlay {
    /// Zeros, as nearly all file systems promise.
    #[default]
    Zeros,
    /// Random bytes, by this seed.
    Random(u32),
    /// Bytes of a previously removed file, by this seed: at the same offset or at another one.
    /// Zeros where no file was removed or its bytes do not reach.
    Removed(u32),
}

impl Underlay {
    /// Zeros in 60 of 100 cases, random bytes and bytes of a removed file in 20 each.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Underlay {
        match random.u32(..10) {
            0..6 => Underlay::Zeros,
            6..8 => Underlay::Random(random.u32(..1000)),
            _ => Underlay::Removed(random.u32(..1000)),
        }
    }
}

impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Underlay::Zeros => f.write_str("zeros"),
            Underlay::Random(seed) => write!(f, "random{seed}"),
            Underlay::Removed(seed) => write!(f, "removed{seed}"),
        }
    }
}

impl std::str::FromStr for Underlay {
    type Err = String;

    fn from_str(text: &str) -> Result<Underlay, String> {
        let wrong = |_| format!("{text:?} does not say what lies under a grown length");
        if text == "zeros" {
            Ok(Underlay::Zeros)
        } else if let Some(seed) = text.strip_prefix("random") {
            seed.parse().map(Underlay::Random).map_err(wrong)
        } else if let Some(seed) = text.strip_prefix("removed") {
            seed.parse().map(Underlay::Removed).map_err(wrong)
        } else {
            Err(format!("{text:?} is none of zeros, random<seed>, removed<seed>"))
        }
    }
}

/// An [`Underlay`] that is not zeros, for one file.
pub(super) struct Ground<'w> {
    random: fastrand::Rng,
    /// The removed file, and how much earlier in it the bytes are.
    removed: Option<(&'w Content, u64)>,
}

impl<'w> Ground<'w> {
    /// Returns `None` if the underlay of the file is zeros.
    pub(super) fn new(
        underlay: Underlay,
        inode: InodeNumber,
        removed: &'w VecDeque<Content>,
    ) -> Option<Ground<'w>> {
        let seeded = |seed: u32| fastrand::Rng::with_seed(place_seed(u64::from(seed), inode));
        match underlay {
            Underlay::Zeros => None,
            Underlay::Random(seed) => Some(Ground { random: seeded(seed), removed: None }),
            Underlay::Removed(seed) => {
                let mut random = seeded(seed);
                let content = removed.get(random.usize(..removed.len().max(1)))?;
                // Bytes at the place where they would be valid are the most deceptive.
                let sectors = content.len() / SECTOR_BYTES;
                let shift = if random.bool() { 0 } else { random.u64(..=sectors) * SECTOR_BYTES };
                Some(Ground { random, removed: Some((content, shift)) })
            }
        }
    }

    pub(super) fn sector(&self, offset: u64) -> [u8; SECTOR_BYTES as usize] {
        let mut sector = [0; SECTOR_BYTES as usize];
        match self.removed {
            Some((content, shift)) => {
                content.read(offset + shift, &mut sector);
            }
            None => {
                // The same sector gets the same bytes, regardless of other losses.
                let seed = place_seed(self.random.get_seed(), offset);
                fastrand::Rng::with_seed(seed).fill(&mut sector);
            }
        }
        sector
    }
}
