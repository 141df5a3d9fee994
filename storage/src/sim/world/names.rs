//! Names: paths, and the calls that change directories.
use super::{Inode, ROOT, World, missing};
use crate::sim::atom::InodeNumber;
use crate::sim::directory::SimDirectory;
use crate::sim::file::SimInodeFile;
use sapwood_base::{Error, Result};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

impl World {
    pub(in crate::sim) fn look_up(&self, path: &Path) -> Option<InodeNumber> {
        let mut way = vec![ROOT];
        // An absolute path replaces the working directory.
        let path = self.working_directory.join(path);
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let next = self.directory(*way.last()?)?.get(name)?;
                    way.push(next);
                }
                // The parent of the root is the root.
                Component::ParentDir if way.len() > 1 => drop(way.pop()),
                Component::ParentDir | Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            }
        }
        way.pop()
    }

    pub(in crate::sim) fn look_up_file(&self, path: &Path) -> Result<InodeNumber> {
        let number = self.look_up(path).ok_or_else(|| missing("open", path))?;
        match self.inodes.get(&number).map(|inode| &**inode) {
            Some(Inode::File(_)) => Ok(number),
            _ => Err(Error::io("open", path, io::ErrorKind::IsADirectory.into())),
        }
    }

    pub(in crate::sim) fn look_up_directory(&self, path: &Path) -> Result<InodeNumber> {
        let number = self.look_up(path).ok_or_else(|| missing("open directory", path))?;
        match self.directory(number) {
            Some(_) => Ok(number),
            None => Err(Error::io("open directory", path, io::ErrorKind::NotADirectory.into())),
        }
    }

    /// The path of a directory, if it has one.
    pub(in crate::sim) fn path_of(&self, number: InodeNumber) -> Option<PathBuf> {
        let mut to_visit = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, visited)) = to_visit.pop() {
            if visited == number {
                return Some(path);
            }
            let names = self.directory(visited).into_iter().flat_map(SimDirectory::names);
            to_visit.extend(names.map(|(name, number)| (path.join(name), number)));
        }
        None
    }

    /// The directory that contains `path`, and the last name of `path`.
    fn parent<'p>(&self, action: &str, path: &'p Path) -> Result<(InodeNumber, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| missing(action, path))?;
        let parent =
            self.look_up(path.parent().unwrap_or(Path::new(""))).ok_or_else(|| missing(action, path))?;
        if self.directory(parent).is_none() {
            return Err(Error::io(action, path, io::ErrorKind::NotADirectory.into()));
        }
        Ok((parent, name))
    }

    pub(in crate::sim) fn create_file(&mut self, path: &Path) -> Result<InodeNumber> {
        let (parent, name) = self.parent("create", path)?;
        if self.directory(parent).is_some_and(|directory| directory.get(name).is_some()) {
            return Err(Error::io("create", path, io::ErrorKind::AlreadyExists.into()));
        }
        let number = self.add(Inode::File(SimInodeFile::default()));
        let age = self.age;
        self.directory_mut(parent).link(name, number, age);
        Ok(number)
    }

    pub(in crate::sim) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let (parent, from_name) = self.parent("rename", from)?;
        let (to_parent, to_name) = self.parent("rename", to)?;
        if parent != to_parent {
            return Err(Error::io("rename", from, io::ErrorKind::CrossesDevices.into()));
        }
        let age = self.age;
        let directory = self.directory_mut(parent);
        let number = directory.get(from_name).ok_or_else(|| missing("rename", from))?;
        // Two names of one file: POSIX keeps both.
        if directory.get(to_name) != Some(number) {
            directory.rename(from_name, to_name, number, age);
        }
        Ok(())
    }

    pub(in crate::sim) fn hard_link(&mut self, from: &Path, to: &Path) -> Result<()> {
        let number = self.look_up_file(from)?;
        let (parent, name) = self.parent("link", to)?;
        let age = self.age;
        let directory = self.directory_mut(parent);
        if directory.get(name).is_some() {
            return Err(Error::io("link", to, io::ErrorKind::AlreadyExists.into()));
        }
        directory.link(name, number, age);
        Ok(())
    }

    pub(in crate::sim) fn remove_file(&mut self, path: &Path) -> Result<()> {
        self.look_up_file(path).map_err(|_| missing("remove", path))?;
        let (parent, name) = self.parent("remove", path)?;
        let age = self.age;
        self.directory_mut(parent).unlink(name, age);
        Ok(())
    }

    pub(in crate::sim) fn create_dir_all(&mut self, path: &Path) -> Result<()> {
        let mut prefix = PathBuf::new();
        let path = &self.working_directory.join(path);
        for component in path.components() {
            prefix.push(component);
            match self.look_up(&prefix) {
                Some(number) if self.directory(number).is_some() => {}
                Some(_) => {
                    return Err(Error::io("create directory", path, io::ErrorKind::NotADirectory.into()));
                }
                None => {
                    let (parent, name) = self.parent("create directory", &prefix)?;
                    let number = self.add(Inode::Directory(SimDirectory::default()));
                    let age = self.age;
                    self.directory_mut(parent).link(name, number, age);
                }
            }
        }
        Ok(())
    }

    pub(in crate::sim) fn remove_dir(&mut self, path: &Path) -> Result<()> {
        let (parent, name) = self.parent("remove directory", path)?;
        let number = self.look_up(path).ok_or_else(|| missing("remove directory", path))?;
        let refused = |kind: io::ErrorKind| Err(Error::io("remove directory", path, kind.into()));
        match self.directory(number) {
            None => refused(io::ErrorKind::NotADirectory),
            Some(directory) if directory.names().next().is_some() => {
                refused(io::ErrorKind::DirectoryNotEmpty)
            }
            Some(_) => {
                let age = self.age;
                self.directory_mut(parent).unlink(name, age);
                Ok(())
            }
        }
    }

    pub(in crate::sim) fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let number = self.look_up(path).ok_or_else(|| missing("list", path))?;
        match self.directory(number) {
            Some(directory) => Ok(directory.names().map(|(name, _)| PathBuf::from(name)).collect()),
            None => Err(Error::io("list", path, io::ErrorKind::NotADirectory.into())),
        }
    }

    pub(in crate::sim) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut to_visit = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, number)) = to_visit.pop() {
            match &*self.inodes[&number] {
                Inode::File(_) => files.push(path),
                Inode::Directory(directory) => {
                    to_visit.extend(directory.names().map(|(name, number)| (path.join(name), number)));
                }
            }
        }
        files.sort();
        files
    }

    /// Makes a file with this content, durable at once.
    pub(in crate::sim) fn put_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let (parent, name) = self.parent("create", path)?;
        let number = match self.look_up(path) {
            Some(number) => number,
            None => self.add(Inode::File(SimInodeFile::default())),
        };
        let Some(file) = self.file_mut(number) else {
            return Err(Error::io("create", path, io::ErrorKind::IsADirectory.into()));
        };
        file.put(bytes);
        self.directory_mut(parent).put(name, number);
        Ok(())
    }
}
