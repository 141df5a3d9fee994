//! Named choices of atoms that one crash keeps: a failing test prints its choice, and the same
//! crash can be repeated.
use super::atom::Atom;
use super::crash::{self, Pending};
use super::underlay::Underlay;
use std::fmt;
use std::ops::Range;

/// The atoms that a power loss keeps, and the content under lengths that persisted without their
/// bytes.
///
/// Atoms are identified by their place in [`SimFs::atoms`](super::SimFs::atoms). The text form is
/// short and has no spaces:
///
/// | text | keeps |
/// |---|---|
/// | `none`, `all` | |
/// | `prefix17` | the first 17 atoms |
/// | `but5`, `only5` | all but the atom at place 5, only that |
/// | `object3`, `but-object3` | only the atoms of the file or directory 3, all others |
/// | `set0-3,7` | those at places 0 to 3 and 7 |
/// | `some50:9` | each with 50 % probability, by seed 9 |
/// | `starts:9` | a beginning of each file's and directory's atoms, by seed 9 |
///
/// Optional suffixes: `/` and the number of atoms that it was made for, then `+` and an
/// [`Underlay`]: `prefix17/40+removed5`.
///
/// ```
/// # use sapwood_storage::sim::CrashChoice;
/// let choice: CrashChoice = "set0-3,7/12+random5".parse().unwrap();
/// assert_eq!(choice.to_string(), "set0-3,7/12+random5");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrashChoice {
    pub(super) keep: Keep,
    pub(super) atoms: Option<usize>,
    pub(super) underlay: Underlay,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Keep {
    None,
    All,
    Prefix(usize),
    But(usize),
    Only(usize),
    Object(u64),
    ButObject(u64),
    Set(Vec<Range<usize>>),
    Some { percent: u32, seed: u64 },
    Starts(u64),
}

impl CrashChoice {
    fn of(keep: Keep) -> CrashChoice {
        CrashChoice { keep, atoms: None, underlay: Underlay::Zeros }
    }

    /// Keeps only synced state.
    pub fn none() -> CrashChoice {
        CrashChoice::of(Keep::None)
    }

    /// Keeps everything.
    pub fn all() -> CrashChoice {
        CrashChoice::of(Keep::All)
    }

    /// Keeps the first `count` atoms.
    pub fn prefix(count: usize) -> CrashChoice {
        CrashChoice::of(Keep::Prefix(count))
    }

    /// Keeps the atoms at whose places `kept` is true: for shrinking a choice, atom by atom.
    pub fn of_kept(kept: &[bool]) -> CrashChoice {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for place in (0..kept.len()).filter(|place| kept[*place]) {
            match ranges.last_mut() {
                Some(range) if range.end == place => range.end += 1,
                _ => ranges.push(place..place + 1),
            }
        }
        CrashChoice { keep: Keep::Set(ranges), atoms: Some(kept.len()), underlay: Underlay::Zeros }
    }

    /// The same atoms with another underlay.
    pub fn over(mut self, underlay: Underlay) -> CrashChoice {
        self.underlay = underlay;
        self
    }

    /// The content under lengths that persisted without their bytes.
    pub fn underlay(&self) -> Underlay {
        self.underlay
    }

    /// Whether it was made for a moment with as many atoms as `atoms`.
    pub fn fits(&self, atoms: &[Atom]) -> bool {
        self.atoms.is_none_or(|count| count == atoms.len())
    }

    /// For each of `atoms`, which are all of a moment as [`SimFs::atoms`](super::SimFs::atoms)
    /// returns them, whether it is kept. Ignores the effect of a
    /// [`Personality`](super::Personality).
    pub fn kept(&self, atoms: &[Atom]) -> Vec<bool> {
        // The other order is by object; ages determine the way back.
        let mut by_object = atoms.to_vec();
        by_object.sort_by_key(|atom| (atom.inode, atom.position));
        let pending = Pending::new(by_object);
        let kept = self.choose(&pending);
        pending.by_age.iter().map(|index| kept[*index]).collect()
    }

    /// The kept atoms, in the order of `pending.atoms`.
    pub(super) fn choose(&self, pending: &Pending) -> Vec<bool> {
        let random = |seed| fastrand::Rng::with_seed(seed);
        let mut kept = vec![false; pending.len()];
        let mut keep_places = |keep: &dyn Fn(usize) -> bool| {
            for (place, index) in pending.by_age.iter().enumerate() {
                kept[*index] = keep(place);
            }
        };
        match &self.keep {
            Keep::None => {}
            Keep::All => kept.fill(true),
            Keep::Prefix(count) => keep_places(&|place| place < *count),
            Keep::But(but) => keep_places(&|place| place != *but),
            Keep::Only(only) => keep_places(&|place| place == *only),
            Keep::Object(inode) => return pending.atoms.iter().map(|atom| atom.inode == *inode).collect(),
            Keep::ButObject(inode) => return pending.atoms.iter().map(|atom| atom.inode != *inode).collect(),
            Keep::Set(ranges) => {
                let places =
                    ranges.iter().flat_map(|range| range.clone().take_while(|place| *place < pending.len()));
                places.for_each(|place| kept[pending.by_age[place]] = true);
            }
            Keep::Some { percent, seed } => {
                let mut random = random(*seed);
                kept.fill_with(|| random.u32(..100) < *percent);
            }
            Keep::Starts(seed) => return crash::beginnings(&mut random(*seed), pending),
        }
        kept
    }
}

impl fmt::Display for CrashChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.keep {
            Keep::None => f.write_str("none")?,
            Keep::All => f.write_str("all")?,
            Keep::Prefix(count) => write!(f, "prefix{count}")?,
            Keep::But(place) => write!(f, "but{place}")?,
            Keep::Only(place) => write!(f, "only{place}")?,
            Keep::Object(inode) => write!(f, "object{inode}")?,
            Keep::ButObject(inode) => write!(f, "but-object{inode}")?,
            Keep::Set(ranges) => {
                f.write_str("set")?;
                for (index, range) in ranges.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    match range.len() {
                        1 => write!(f, "{comma}{}", range.start)?,
                        _ => write!(f, "{comma}{}-{}", range.start, range.end - 1)?,
                    }
                }
            }
            Keep::Some { percent, seed } => write!(f, "some{percent}:{seed}")?,
            Keep::Starts(seed) => write!(f, "starts:{seed}")?,
        }
        if let Some(atoms) = self.atoms {
            write!(f, "/{atoms}")?;
        }
        match self.underlay {
            Underlay::Zeros => Ok(()),
            underlay => write!(f, "+{underlay}"),
        }
    }
}

fn parse_keep(text: &str) -> Option<Keep> {
    let number = |prefix| text.strip_prefix(prefix).and_then(|digits: &str| digits.parse().ok());
    Some(match text {
        "none" => Keep::None,
        "all" => Keep::All,
        _ if text.starts_with("prefix") => Keep::Prefix(number("prefix")?),
        _ if text.starts_with("but-object") => Keep::ButObject(number("but-object")? as u64),
        _ if text.starts_with("but") => Keep::But(number("but")?),
        _ if text.starts_with("only") => Keep::Only(number("only")?),
        _ if text.starts_with("object") => Keep::Object(number("object")? as u64),
        _ if text.starts_with("starts:") => Keep::Starts(text["starts:".len()..].parse().ok()?),
        _ if text.starts_with("some") => {
            let (percent, seed) = text["some".len()..].split_once(':')?;
            Keep::Some { percent: percent.parse().ok()?, seed: seed.parse().ok()? }
        }
        _ => {
            let mut ranges = Vec::new();
            for part in text.strip_prefix("set")?.split(',').filter(|part| !part.is_empty()) {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
                ranges.push(first..last.checked_add(1)?);
            }
            Keep::Set(ranges)
        }
    })
}

impl std::str::FromStr for CrashChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<CrashChoice, String> {
        let wrong = || format!("{text:?} is no choice of a crash");
        let (rest, underlay) = match text.split_once('+') {
            Some((rest, underlay)) => (rest, underlay.parse()?),
            None => (text, Underlay::Zeros),
        };
        let (keep, atoms) = match rest.split_once('/') {
            Some((keep, atoms)) => (keep, Some(atoms.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        Ok(CrashChoice { keep: parse_keep(keep).ok_or_else(wrong)?, atoms, underlay })
    }
}
