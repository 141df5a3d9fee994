//! Syncs, and what a file system makes durable with them.
use super::{Inode, World, missing};
use crate::sim::atom::InodeNumber;
use crate::sim::directory::SimDirectory;
use crate::sim::fault::Fault;
use crate::sim::file::SimInodeFile;
use crate::sim::operation::Operation;
use crate::sim::personality::{FsyncFailure, Personality};
use sapwood_base::{Error, Result};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

impl World {
    pub(in crate::sim) fn sync_directory(&mut self, path: &Path) -> Result<()> {
        let number = self.look_up(path).ok_or_else(|| missing("sync directory", path))?;
        if self.directory(number).is_none() {
            return Err(Error::io("sync directory", path, io::ErrorKind::NotADirectory.into()));
        }
        if self.personality == Personality::Ordered
            && let Some(age) = self.directory(number).and_then(SimDirectory::last_age)
        {
            self.commit_until(age);
        }
        self.directory_mut(number).sync();
        self.collect_garbage();
        Ok(())
    }

    /// Fails a sync of a directory: no later sync makes its pending changes durable.
    pub(in crate::sim) fn fail_sync_directory(&mut self, path: &Path) {
        if let Some(number) = self.look_up(path).filter(|&number| self.directory(number).is_some()) {
            self.directory_mut(number).lose_pending();
        }
    }

    /// Makes all names and lengths up to this age durable, in all files and directories, as a
    /// journal does.
    fn commit_until(&mut self, age: u64) {
        let concerned = |inode: &Inode| match inode {
            Inode::File(file) => file.last_length_age().is_some(),
            Inode::Directory(directory) => directory.last_age().is_some(),
        };
        for inode in self.inodes.values_mut().filter(|inode| concerned(inode)) {
            match Arc::make_mut(inode) {
                Inode::File(file) => file.sync_lengths_until(age),
                Inode::Directory(directory) => directory.sync_until(age),
            }
        }
    }

    /// Makes an open file durable, or a range of it, with the additional changes that the file
    /// system includes.
    pub(in crate::sim) fn sync_file(&mut self, number: InodeNumber, range: Option<Range<u64>>) {
        let directories = || {
            self.inodes.values().filter_map(|inode| match &**inode {
                Inode::Directory(directory) => Some(directory),
                Inode::File(_) => None,
            })
        };
        let linked_at = directories().filter_map(|directory| directory.linked_at(number)).max();
        match self.personality {
            Personality::Weakest => {}
            Personality::Ordered => {
                let length_age = self.file(number).and_then(SimInodeFile::last_length_age);
                if let Some(age) = linked_at.max(length_age) {
                    self.commit_until(age);
                }
            }
            Personality::Btrfs => {
                let holders: Vec<InodeNumber> = self
                    .inodes
                    .keys()
                    .copied()
                    .filter(|holder| {
                        self.directory(*holder).is_some_and(|directory| directory.linked_at(number).is_some())
                    })
                    .collect();
                holders.into_iter().for_each(|holder| self.directory_mut(holder).sync_link(number));
            }
        }
        let file = self.file_mut(number).expect("an open file stays");
        match range {
            Some(range) => file.sync_range(range),
            None => file.sync(),
        }
    }

    /// Syncs an open file, or a range of it; fails if the fault says so or the file owes an error.
    pub(in crate::sim) fn sync_or_fail(
        &mut self,
        number: InodeNumber,
        path: &Path,
        range: Option<Range<u64>>,
        fault: Option<Fault>,
    ) -> Result<()> {
        let file = self.file_mut(number).expect("an open file stays");
        let fault = if file.take_owed_error() { Some(Fault::Io) } else { fault };
        let says_so = match fault {
            None => {
                self.sync_file(number, range);
                false
            }
            Some(Fault::ErrorButApplied) => {
                self.sync_file(number, range);
                true
            }
            Some(Fault::SyncFailure(failure)) => file.fail_sync(failure),
            // The kernel drops the bytes, or treats them as written: a second sync succeeds without
            // them.
            Some(_) => file.fail_sync(FsyncFailure::Ext4),
        };
        match fault {
            Some(fault) if says_so => Err(fault.error(Operation::Sync, path)),
            _ => Ok(()),
        }
    }
}
