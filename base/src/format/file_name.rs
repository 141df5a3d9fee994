//! The names of the files of a database. A name that does not match the grammar is foreign and is
//! never touched.
use crate::key::FileNumber;

/// No other program uses this prefix, so the name alone proves that the file is ours.
const UNFINISHED: &str = "sapwood-new-";

/// The content of a file of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileName {
    /// `LOCK`: held by the process that has the database open.
    Lock,
    /// `UNSYNCED`: empty. A sync of the log has failed, so the data that reads show from it may not
    /// be on the disk.
    Unsynced,
    /// `MANIFEST-000005`: the history of version edits.
    Manifest(FileNumber),
    /// `000123.wal`: a slot of the log. Its header, not its number, says which part of the log it
    /// holds.
    Log(FileNumber),
    /// `000124.sst`: a sorted table.
    Table(FileNumber),
    /// `000125.tree`: the B+ tree of an index.
    Tree(FileNumber),
    /// `sapwood-new-000126.sst`: a file that is being written. It is renamed to the part after
    /// `sapwood-new-` when it is complete and synced. So a file with a final name that lacks the
    /// beginning or the end of its kind is not of this engine.
    Unfinished(Kind, FileNumber),
}

/// The kind of content of a file with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`FileName::Manifest`].
    Manifest,
    /// [`FileName::Log`].
    Log,
    /// [`FileName::Table`].
    Table,
    /// [`FileName::Tree`].
    Tree,
}

impl Kind {
    fn name(self, number: FileNumber) -> FileName {
        match self {
            Kind::Manifest => FileName::Manifest(number),
            Kind::Log => FileName::Log(number),
            Kind::Table => FileName::Table(number),
            Kind::Tree => FileName::Tree(number),
        }
    }
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
            FileName::Unfinished(kind, number) => format!("{UNFINISHED}{}", kind.name(number).format()),
        }
    }

    /// The name of the file while it is written; `None` for `LOCK`, `UNSYNCED` and unfinished
    /// files.
    pub fn unfinished(self) -> Option<FileName> {
        let (kind, number) = match self {
            FileName::Lock | FileName::Unsynced | FileName::Unfinished(..) => return None,
            FileName::Manifest(number) => (Kind::Manifest, number),
            FileName::Log(number) => (Kind::Log, number),
            FileName::Table(number) => (Kind::Table, number),
            FileName::Tree(number) => (Kind::Tree, number),
        };
        Some(FileName::Unfinished(kind, number))
    }

    /// The number in the name, if it has one.
    pub fn number(self) -> Option<FileNumber> {
        match self {
            FileName::Lock | FileName::Unsynced => None,
            FileName::Manifest(number)
            | FileName::Log(number)
            | FileName::Table(number)
            | FileName::Tree(number)
            | FileName::Unfinished(_, number) => Some(number),
        }
    }

    /// The file that `name` stands for, or `None` for a foreign name.
    pub fn parse(name: &str) -> Option<FileName> {
        let parsed = if name == "LOCK" {
            FileName::Lock
        } else if name == "UNSYNCED" {
            FileName::Unsynced
        } else if let Some(rest) = name.strip_prefix(UNFINISHED) {
            FileName::parse(rest)?.unfinished()?
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
            FileName::Unfinished(Kind::Manifest, FileNumber(8)),
            FileName::Unfinished(Kind::Table, FileNumber(9)),
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
            "sapwood-new-",
            "sapwood-new-LOCK",
            "sapwood-new-7.sst",
            "sapwood-new-sapwood-new-000007.sst",
            "18446744073709551615.sst",
        ] {
            assert_eq!(FileName::parse(stranger), None, "{stranger}");
        }
    }
}
