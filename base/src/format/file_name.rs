//! The names of the files of a database. A name that does not match the grammar is not ours and is never touched.
use crate::key::FileNumber;

/// What a file of the database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileName {
    /// `LOCK`: held by the process that has the database open.
    Lock,
    /// `UNSYNCED`: empty; a sync of the log has failed, so what reads show of it may not be on the disk.
    Unsynced,
    /// `MANIFEST-000005`: the history of version edits.
    Manifest(FileNumber),
    /// `000123.wal`: a slot of the log. Its header, not its number, says which part of the log it holds.
    Log(FileNumber),
    /// `000124.sst`: a sorted table.
    Table(FileNumber),
    /// `000125.tree`: the B+ tree of an index.
    Tree(FileNumber),
}

impl FileName {
    /// The name inside the directory of the database.
    pub fn format(self) -> String {
        match self {
            FileName::Lock => "LOCK".to_string(),
            FileName::Unsynced => "UNSYNCED".to_string(),
            FileName::Manifest(number) => format!("MANIFEST-{:06}", number.0),
            FileName::Log(number) => format!("{:06}.wal", number.0),
            FileName::Table(number) => format!("{:06}.sst", number.0),
            FileName::Tree(number) => format!("{:06}.tree", number.0),
        }
    }

    /// The number in the name, for those that have one.
    pub fn number(self) -> Option<FileNumber> {
        match self {
            FileName::Lock | FileName::Unsynced => None,
            FileName::Manifest(number)
            | FileName::Log(number)
            | FileName::Table(number)
            | FileName::Tree(number) => Some(number),
        }
    }

    /// The file that `name` stands for, or `None` if it is not ours.
    pub fn parse(name: &str) -> Option<FileName> {
        let parsed = if name == "LOCK" {
            FileName::Lock
        } else if name == "UNSYNCED" {
            FileName::Unsynced
        } else if let Some(digits) = name.strip_prefix("MANIFEST-") {
            FileName::Manifest(number(digits)?)
        } else if let Some(digits) = name.strip_suffix(".wal") {
            FileName::Log(number(digits)?)
        } else if let Some(digits) = name.strip_suffix(".tree") {
            FileName::Tree(number(digits)?)
        } else {
            FileName::Table(number(name.strip_suffix(".sst")?)?)
        };
        // Only the canonical spelling is ours: `7.sst` and `+00007.sst` are not.
        (parsed.format() == name).then_some(parsed)
    }
}

fn number(digits: &str) -> Option<FileNumber> {
    digits.parse().ok().map(FileNumber).filter(|number| *number <= FileNumber::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_left_alone() {
        for name in [
            FileName::Lock,
            FileName::Unsynced,
            FileName::Manifest(FileNumber(5)),
            FileName::Log(FileNumber(123)),
            FileName::Table(FileNumber(12_345_678)),
            FileName::Tree(FileNumber(7)),
        ] {
            assert_eq!(FileName::parse(&name.format()), Some(name));
        }
        for stranger in [
            "",
            "7.sst",
            "7.tree",
            "+00007.sst",
            "000007.sst.bak",
            "MANIFEST-",
            "MANIFEST-5",
            "lock",
            "a.wal",
            "18446744073709551615.sst",
        ] {
            assert_eq!(FileName::parse(stranger), None, "{stranger}");
        }
    }
}
