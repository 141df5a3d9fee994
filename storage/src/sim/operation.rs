//! The kinds of calls.
use sapwood_base::Error;
use std::fmt;
use std::path::Path;

/// The kinds of calls to a file system and its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `create_new`.
    Create,
    /// `open`.
    Open,
    /// `exists`, `file_len`, `len`.
    LookUp,
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `set_len`.
    SetLen,
    /// `sync_data`, `sync_all`.
    Sync,
    /// `rename`.
    Rename,
    /// `hard_link`.
    Link,
    /// `remove_file`.
    Remove,
    /// `create_dir_all`.
    CreateDirectory,
    /// `remove_dir`.
    RemoveDirectory,
    /// `list`.
    List,
    /// `sync_directory`.
    SyncDirectory,
    /// `lock`.
    Lock,
    /// `space`.
    Space,
    /// `map_shared`.
    Map,
    /// `check_memory`.
    CheckMemory,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 18] = [
        Operation::Create,
        Operation::Open,
        Operation::LookUp,
        Operation::Read,
        Operation::Write,
        Operation::SetLen,
        Operation::Sync,
        Operation::Rename,
        Operation::Link,
        Operation::Remove,
        Operation::CreateDirectory,
        Operation::RemoveDirectory,
        Operation::List,
        Operation::SyncDirectory,
        Operation::Lock,
        Operation::Space,
        Operation::Map,
        Operation::CheckMemory,
    ];

    /// Whether it changes the content of the disk, and so counts as a crash point.
    pub fn is_change(self) -> bool {
        use Operation::*;
        !matches!(self, Open | LookUp | Read | List | Space | Map | CheckMemory)
    }

    /// Its name in text: `create`, `set-len`, `sync-directory`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Open => "open",
            Operation::LookUp => "look-up",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::SetLen => "set-len",
            Operation::Sync => "sync",
            Operation::Rename => "rename",
            Operation::Link => "link",
            Operation::Remove => "remove",
            Operation::CreateDirectory => "create-directory",
            Operation::RemoveDirectory => "remove-directory",
            Operation::List => "list",
            Operation::SyncDirectory => "sync-directory",
            Operation::Lock => "lock",
            Operation::Space => "space",
            Operation::Map => "map",
            Operation::CheckMemory => "check-memory",
        }
    }

    /// The verb phrase of its error messages.
    fn action(self) -> &'static str {
        match self {
            Operation::LookUp => "look up",
            Operation::SetLen => "set the length of",
            Operation::CreateDirectory => "create directory",
            Operation::RemoveDirectory => "remove directory",
            Operation::SyncDirectory => "sync directory",
            Operation::Space => "ask for the space of",
            Operation::CheckMemory => "check",
            other => other.name(),
        }
    }

    /// The error of this call on `path` with this cause.
    pub(super) fn failed(self, path: &Path, cause: std::io::Error) -> Error {
        Error::io(self.action(), path, cause)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Operation, String> {
        let found = Operation::ALL.into_iter().find(|operation| operation.name() == text);
        found.ok_or_else(|| format!("{text:?} is no kind of call"))
    }
}
