//! The folder of the database: the one of `--db`, or a temporary one that is removed when the
//! process ends.
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The database's folder.
#[derive(Debug)]
pub enum Folder {
    /// Named by the user; it stays.
    Named(PathBuf),
    /// Created by the program; it is removed.
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

/// A folder that is removed on drop, and also if the process dies before.
///
/// A shell reads from a pipe that is never written to. When this process ends in any way, Ctrl-C
/// and `kill -9` included, the system closes the pipe, and the shell removes the folder. The data
/// of a benchmark can be many gigabytes, and no signal handler catches all ways to die. Without a
/// shell only the drop removes the folder.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: TempDir,
    guard: Option<Child>,
}

impl TemporaryFolder {
    fn new() -> io::Result<TemporaryFolder> {
        let folder = tempfile::Builder::new().prefix("sapwood-bench-").tempdir()?;
        let guard = Command::new("sh")
            // Ctrl-C signals all processes of the terminal; the shell must survive it.
            .args(["-c", r#"trap "" INT TERM HUP; read -r _; rm -rf -- "$1""#, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            // A reader of this program's output must not wait for the shell.
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
            // If the shell fails, the drop of `folder`, which follows, removes the rest.
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
