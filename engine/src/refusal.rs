//! Errors of calls that the state of the database excludes.
use sapwood_base::{Error, ErrorKind};

/// The database is closed.
#[cold]
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}

/// The process was forked after the database was opened.
#[cold]
pub(crate) fn forked() -> Error {
    let message = "the database was opened before this process was forked; close it before the fork, and open it \
                   after the fork, in the process that uses it";
    Error::new(ErrorKind::Closed, message)
}
