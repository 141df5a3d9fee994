//! Where the database lies: the folder that `--db` names, or a temporary one that disappears with the process.
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The database's folder.
#[derive(Debug)]
pub enum Folder {
    /// Named by the user; stays.
    Named(PathBuf),
    /// Made by us; goes.
    Temporary(TemporaryFolder),
}

impl Folder {
    /// The folder `name`, or a temporary one if `name` is empty.
    pub fn new(name: &str) -> io::Result<Folder> {
        if name.is_empty() {
            TemporaryFolder::new().map(Folder::Temporary)
        } else {
            Ok(Folder::Named(name.into()))
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Folder::Named(path) => path,
            Folder::Temporary(folder) => folder.folder.path(),
        }
    }
}

/// A folder that is removed when it is dropped, and also when the process dies before that.
///
/// A shell waits at the other end of a pipe that nobody writes to. When this process ends in any way, Ctrl-C and
/// `kill -9` included, the system closes the pipe, the shell wakes up and removes the folder. A benchmark's data can be
/// many gigabytes, and no signal handler would catch all ways to die. Without a shell only the drop removes it.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: TempDir,
    guard: Option<Child>,
}

impl TemporaryFolder {
    fn new() -> io::Result<TemporaryFolder> {
        let folder = tempfile::Builder::new().prefix("sapwood-bench-").tempdir()?;
        let guard = Command::new("sh")
            // Ctrl-C goes to all processes of the terminal; the shell must outlive it.
            .args(["-c", r#"trap "" INT TERM HUP; read -r _; rm -rf -- "$1""#, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            // Whoever reads our output through a pipe should not wait for the shell.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok();
        Ok(TemporaryFolder { folder, guard })
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // If the shell fails, the folder's own drop, which comes next, removes what is left.
            let _ = guard.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_with_its_contents() {
        let folder = Folder::new("").unwrap();
        let path = folder.path().to_owned();
        std::fs::create_dir(path.join("inner")).unwrap();
        std::fs::write(path.join("inner/file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
        assert_eq!(Folder::new("/some/where").unwrap().path(), Path::new("/some/where"));
    }
}
