//! `LOG`, the file beside a database from which scripts read the version of its writer.
//!
//! RocksDB writes one and this engine does not. So `db_bench` writes it, for a database in a named
//! folder. It also records the folder of the log: opened without its log, a database would have
//! only the contents of its tables.
use crate::flags::Flags;
use crate::report::header;
use sapwood_base::{Error, Result};
use std::path::{Path, PathBuf};

/// Identifies a file of this program.
const SIGNATURE: &str = "db_bench of Sapwood";
/// Precedes the folder of the log.
const LOG_FOLDER: &str = "Folder of the log: ";

fn path(folder: &Path) -> PathBuf {
    folder.join("LOG")
}

/// The text of the file, if it exists and is of this program.
fn read(folder: &Path) -> Option<String> {
    std::fs::read_to_string(path(folder)).ok().filter(|text| text.contains(SIGNATURE))
}

/// Writes the file, unless another program's file exists.
pub fn write(folder: &Path, flags: &Flags) -> Result<()> {
    let path = path(folder);
    if path.exists() && read(folder).is_none() {
        return Ok(());
    }
    // Scripts read the fifth word of a line, after the time and a thread.
    let at = format!("{}.000000 {}", header::time_of_day(), std::process::id());
    let log = flags.log_folder().unwrap_or_default();
    let text = format!(
        "{at} RocksDB version: {}\n{at} Git sha {}\n{at} {LOG_FOLDER}{}\n{at} written by {SIGNATURE}\n",
        header::version(),
        header::commit(),
        log.display(),
    );
    std::fs::write(&path, text).map_err(|error| Error::io("write", &path, error))
}

/// Refuses a database whose log is not in the folder of the flags.
pub fn check(folder: &Path, flags: &Flags) -> Result<()> {
    let Some(text) = read(folder) else { return Ok(()) };
    let made = text.lines().find_map(|line| line.split_once(LOG_FOLDER)).map_or("", |(_, log)| log.trim());
    if Path::new(made) == flags.log_folder().unwrap_or_default() {
        return Ok(());
    }
    let message = match made {
        "" => "the log of this database is in its own folder: leave --wal_dir out".to_owned(),
        made => format!("the log of this database is in another folder: give --wal_dir={made}"),
    };
    Err(Error::invalid_argument(message).in_file(folder))
}

/// Removes the file, if it is of this program.
pub fn remove(folder: &Path) -> Result<()> {
    match read(folder) {
        Some(_) => {
            let path = path(folder);
            std::fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_checked_and_removed_and_anothers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags { db: "db".into(), wal_dir: "wal".into(), ..Flags::default() };
        check(folder.path(), &flags).unwrap();
        write(folder.path(), &flags).unwrap();
        let text = read(folder.path()).unwrap();
        let word = |line: usize, word: usize| text.lines().nth(line).unwrap().split(' ').nth(word).unwrap();
        assert!(
            word(0, 4).starts_with("Sapwood-") && word(1, 3) == "sha" && !word(1, 4).is_empty(),
            "{text}"
        );
        check(folder.path(), &flags).unwrap();
        let error = check(folder.path(), &Flags::default()).unwrap_err().to_string();
        assert!(error.contains("give --wal_dir=wal"), "{error}");
        write(folder.path(), &Flags::default()).unwrap();
        assert!(check(folder.path(), &flags).unwrap_err().to_string().contains("leave --wal_dir out"));
        remove(folder.path()).unwrap();
        assert!(!folder.path().join("LOG").exists());
        std::fs::write(folder.path().join("LOG"), "of RocksDB").unwrap();
        write(folder.path(), &flags).unwrap();
        remove(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("LOG")).unwrap(), "of RocksDB");
    }
}
