//! One error type through all layers.
//!
//! [`ErrorKind`] is for a program's decisions, the message is for a person, and file and offset
//! locate the failure.
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of every fallible operation.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of an [`Error`], for a program that handles it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operating system reported an error that has no other kind here.
    Io,
    /// The device or the quota is full. Reads continue; writes resume when there is room.
    NoSpace,
    /// The process or the system has no file descriptor, thread or memory left for the call.
    /// Nothing is lost or closed: the same call succeeds once such resources are released. The
    /// message names the limit.
    OutOfResources,
    /// Bytes on disk differ from those written. The error names the file and the offset.
    Corruption,
    /// Another process, or another handle of this process, has the database open.
    Locked,
    /// An earlier failure (a failed sync, a panicked background thread) closed the write path.
    /// Reopen the database.
    Poisoned,
    /// An argument is outside its documented range.
    InvalidArgument,
    /// The files were written by a newer format, or the platform lacks a requested feature.
    Unsupported,
    /// The database is closed, or the keyspace or the index was dropped; the message says which.
    /// The state is permanent: a handle that returns this once returns it forever.
    Closed,
    /// Background work is paused, and the call would have waited for it.
    Paused,
    /// The handle is read-only.
    ReadOnly,
    /// The directory holds no database, or the keyspace does not exist.
    NotFound,
    /// Two transactions touched the same keys; retry the loser. No call of this version returns it.
    Conflict,
    /// A lock was not granted in time. No call of this version returns it.
    Timeout,
    /// The index is being built, or must be rebuilt, or needs its extractor; the message says
    /// which.
    IndexUnavailable,
    /// The index is unique and another row already has the index key.
    UniqueViolation,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    file: Option<PathBuf>,
    offset: Option<u64>,
    system: Option<Arc<io::Error>>,
}

/// An error with its kind, a message for a person, and file and offset where they apply.
///
/// `Display` prints one line: message, file, offset, and the text of the operating system's error.
/// The chain of sources does not repeat that text; [`Error::io_error`] returns the operating
/// system's error itself. `Clone` copies the message, which is cheap compared with the failure.
// One pointer wide, so that `Result<Option<…>>` on hot paths stays small.
#[derive(Clone)]
pub struct Error(Box<Inner>);

impl Error {
    /// Creates an error of `kind` with a message that says what to do.
    #[cold]
    #[doc(hidden)]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner { kind, message: message.into(), file: None, offset: None, system: None }))
    }

    /// An error of kind [`ErrorKind::Corruption`] about bytes whose file the caller adds.
    #[cold]
    pub fn malformed(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corruption, message)
    }

    /// Wrong bytes at `offset` of `file`.
    #[cold]
    #[doc(hidden)]
    pub fn corruption(file: impl AsRef<Path>, offset: u64, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corruption, message).at(file, offset)
    }

    /// An argument is outside its documented range.
    #[cold]
    #[doc(hidden)]
    pub fn invalid_argument(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// An operating-system error during `action` (a verb phrase such as "sync") on `file`.
    #[cold]
    #[doc(hidden)]
    pub fn io(action: &str, file: impl AsRef<Path>, source: io::Error) -> Error {
        Error::system(action, source).in_file(file)
    }

    /// An operating-system error during `action`, which concerns no file: "start a thread", "map 2
    /// MiB".
    #[cold]
    #[doc(hidden)]
    pub fn system(action: &str, source: io::Error) -> Error {
        let (kind, advice) = match (scarce_resource(&source), source.kind()) {
            (Some(advice), _) => (ErrorKind::OutOfResources, advice),
            (None, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => (ErrorKind::NoSpace, ""),
            _ => (ErrorKind::Io, ""),
        };
        let mut error = Error::new(kind, format!("cannot {action}{advice}"));
        error.0.system = Some(Arc::new(source));
        error
    }

    /// The same error, placed at `offset` of `file`.
    #[doc(hidden)]
    pub fn at(mut self, file: impl AsRef<Path>, offset: u64) -> Error {
        self.0.file = Some(file.as_ref().to_path_buf());
        self.0.offset = Some(offset);
        self
    }

    /// The same error, placed in `file` (or directory) as a whole.
    #[doc(hidden)]
    pub fn in_file(mut self, file: impl AsRef<Path>) -> Error {
        self.0.file = Some(file.as_ref().to_path_buf());
        self
    }

    /// The same error with `context` prefixed to its message.
    #[doc(hidden)]
    pub fn context(mut self, context: &str) -> Error {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file concerned, if any.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The byte offset inside [`Error::file`], if one is known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Whether the same call can succeed later without reopening the database.
    pub fn is_retryable(&self) -> bool {
        self.is_scarcity()
            || matches!(self.0.kind, ErrorKind::Conflict | ErrorKind::Timeout | ErrorKind::Locked)
    }

    /// Whether the cause is a temporary shortage of device space, descriptors, threads or memory.
    /// Background work waits and retries its step after such an error; any other error is final.
    pub fn is_scarcity(&self) -> bool {
        matches!(self.0.kind, ErrorKind::NoSpace | ErrorKind::OutOfResources)
    }

    /// The operating system's error that caused this one, if any. `Display` includes its text.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.system.as_deref()
    }

    /// A copy for a second receiver: the earlier name of `clone`.
    #[doc(hidden)]
    pub fn duplicate(&self) -> Error {
        self.clone()
    }
}

/// The advice for an error of an exhausted resource other than device space; `None` for other
/// errors.
fn scarce_resource(error: &io::Error) -> Option<&'static str> {
    const FILES: &str =
        " (no file descriptor is left: raise the limit, RLIMIT_NOFILE, or lower max_open_files)";
    const SYSTEM: &str =
        " (the system has no file descriptor left: raise fs.file-max, or lower max_open_files)";
    const MEMORY: &str = " (no memory is left: free some, raise the limit, or lower memory_budget)";
    const THREADS: &str = " (a limit of threads or locked memory is reached: raise it)";
    match (error.raw_os_error(), error.kind()) {
        // EMFILE and ENFILE have the same numbers on every Unix.
        (Some(24), _) if cfg!(unix) => Some(FILES),
        (Some(23), _) if cfg!(unix) => Some(SYSTEM),
        // ERROR_TOO_MANY_OPEN_FILES, ERROR_NO_SYSTEM_RESOURCES.
        (Some(4), _) if cfg!(windows) => Some(FILES),
        (Some(1450), _) if cfg!(windows) => Some(MEMORY),
        (_, io::ErrorKind::OutOfMemory) => Some(MEMORY),
        // EAGAIN from starting a thread, from `mmap` and from `madvise`.
        (_, io::ErrorKind::WouldBlock) => Some(THREADS),
        _ => None,
    }
}

// The error is immutable.
impl std::panic::UnwindSafe for Error {}
impl std::panic::RefUnwindSafe for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(file) = &self.0.file {
            write!(f, " [{}", file.display())?;
            if let Some(offset) = self.0.offset {
                write!(f, " at byte {offset}")?;
            }
            f.write_str("]")?;
        }
        if let Some(system) = &self.0.system {
            write!(f, ": {system}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `Display` includes the text of the system's error, so the chain continues with the cause
        // of that one.
        self.0.system.as_ref().and_then(|system| system.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_a_sentence_with_file_and_offset() {
        let error = Error::corruption("000007.sst", 4096, "block checksum does not match");
        assert_eq!(error.to_string(), "block checksum does not match [000007.sst at byte 4096]");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(error.offset(), Some(4096));
    }

    #[test]
    fn a_chain_of_sources_says_everything_once() {
        let cause = io::Error::other("the cable is out");
        let error = Error::io("sync", "000001.wal", io::Error::from_raw_os_error(5));
        let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(|error| error.to_string())
            .collect::<Vec<_>>()
            .join(": ");
        let system = error.io_error().unwrap().to_string();
        assert_eq!(text.matches(&system).count(), 1, "{text}");
        assert_eq!(error.clone().to_string(), error.to_string());
        let error = Error::io("sync", "000001.wal", io::Error::other(cause));
        assert_eq!(error.to_string(), "cannot sync [000001.wal]: the cable is out");
        assert_eq!(error.clone().io_error().unwrap().kind(), io::ErrorKind::Other);
    }

    #[test]
    fn a_full_disk_has_its_own_kind_and_survives_duplication() {
        let full = io::Error::from_raw_os_error(28);
        let error = Error::io("append", "x.wal", full).duplicate();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.is_retryable());
    }

    #[cfg(unix)]
    #[test]
    fn a_scarcity_of_descriptors_memory_or_threads_is_not_final() {
        for (code, hint) in [(24, "max_open_files"), (23, "file-max"), (12, "memory")] {
            let error = Error::io("open", "7.sst", io::Error::from_raw_os_error(code)).duplicate();
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{code}");
            assert!(error.is_retryable() && error.is_scarcity(), "{code}");
            assert!(error.to_string().contains(hint), "{error}");
        }
        let error = Error::io("start", "sapwood-flush", io::ErrorKind::WouldBlock.into());
        assert_eq!(error.kind(), ErrorKind::OutOfResources);
        let error = Error::io("read", "7.sst", io::Error::from_raw_os_error(5));
        assert!(!error.is_retryable() && error.kind() == ErrorKind::Io);
    }
}
