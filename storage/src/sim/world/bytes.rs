//! Reads and writes of open files, with their faults.
use super::World;
use crate::sim::atom::{InodeNumber, SECTOR_BYTES};
use crate::sim::fault::Fault;
use crate::sim::file::SimInodeFile;
use crate::sim::operation::Operation;
use sapwood_base::Result;
use std::ops::Range;
use std::path::Path;

impl World {
    /// Writes to an open file, subject to the fault.
    pub(in crate::sim) fn write(
        &mut self,
        number: InodeNumber,
        path: &Path,
        offset: u64,
        bytes: &[u8],
        fault: Option<Fault>,
    ) -> Result<()> {
        let age = self.age;
        let end = offset + bytes.len() as u64;
        let error = |fault: Fault, offset| Err(fault.error(Operation::Write, path).at(path, offset));
        let part = match fault {
            Some(fault) if fault.is_error() => return error(fault, offset),
            Some(Fault::ShortWrite(count) | Fault::TornWrite(count)) => {
                &bytes[..bytes.len().min(count as usize)]
            }
            _ => bytes,
        };
        self.check_space(number, offset, part.len() as u64, path)?;
        let file = self.file_mut(number).expect("an open file stays");
        match fault {
            Some(Fault::LostWrite) => file.write_lost(offset, bytes, age),
            Some(Fault::Misdirect(sectors)) => {
                let distance = i64::from(sectors) * SECTOR_BYTES as i64;
                // No place exists before the beginning: the write lands as far after its place
                // instead.
                let target = offset.checked_add_signed(distance).unwrap_or(offset + distance.unsigned_abs());
                file.write(target, bytes, age);
                file.extend(end, age);
            }
            Some(Fault::MisdirectFile) => {
                file.extend(end, age);
                self.write_elsewhere(number, offset, bytes);
            }
            _ => file.write(offset, part, age),
        }
        match fault {
            Some(Fault::ShortWrite(_) | Fault::TornWrite(_)) => {
                error(fault.expect("matched"), offset + part.len() as u64)
            }
            Some(Fault::ErrorButApplied) => error(Fault::ErrorButApplied, offset),
            Some(fault) => {
                self.damage(number, offset..end, fault);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A write that reaches another file: the next one that has bytes.
    fn write_elsewhere(&mut self, number: InodeNumber, offset: u64, bytes: &[u8]) {
        let has_bytes = |other: &InodeNumber| self.file(*other).is_some_and(|file| file.len() > 0);
        let later = self.inodes.range(number + 1..).map(|(other, _)| *other);
        let others = later.chain(self.inodes.range(..number).map(|(other, _)| *other));
        let Some(victim) = others.into_iter().find(has_bytes) else { return };
        let file = self.file_mut(victim).expect("found as a file");
        // The same place if the file has it, and another place otherwise.
        let start =
            if offset < file.len() { offset } else { offset % file.len() / SECTOR_BYTES * SECTOR_BYTES };
        let end = file.len().min(start + bytes.len() as u64);
        file.damage(start..end, |offset, _| bytes[(offset - start) as usize]);
    }

    /// Reads from an open file, subject to the fault.
    pub(in crate::sim) fn read(
        &mut self,
        number: InodeNumber,
        offset: u64,
        buffer: &mut [u8],
        fault: Option<Fault>,
    ) -> usize {
        if let Some(fault) = fault {
            let len = self.file(number).map_or(0, SimInodeFile::len);
            self.damage(number, offset..len.min(offset.saturating_add(buffer.len() as u64)), fault);
        }
        let file = self.file(number).expect("an open file stays");
        match fault {
            Some(Fault::StaleRead) => file.read_stale(offset, buffer, self.removed.back()),
            Some(Fault::ShortRead(most)) => {
                let most = buffer.len().min(most as usize);
                file.read(offset, &mut buffer[..most])
            }
            Some(Fault::FlipRead(bit)) => {
                let count = file.read(offset, buffer);
                if count > 0 {
                    buffer[bit as usize / 8 % count] ^= 1 << (bit % 8);
                }
                count
            }
            _ => file.read(offset, buffer),
        }
    }

    /// Applies a fault to the medium below a range of a file.
    fn damage(&mut self, number: InodeNumber, range: Range<u64>, fault: Fault) {
        let Some(len) = range.end.checked_sub(range.start).filter(|len| *len > 0) else { return };
        let file = self.file_mut(number).expect("an open file stays");
        match fault {
            Fault::FlipMedium(bit) => {
                let at = range.start + u64::from(bit) / 8 % len;
                file.damage(at..at + 1, |_, byte| byte ^ 1 << (bit % 8));
            }
            Fault::ZeroSector(sector) => {
                let first = range.start / SECTOR_BYTES;
                let count = range.end.div_ceil(SECTOR_BYTES) - first;
                let start = (first + u64::from(sector) % count) * SECTOR_BYTES;
                file.damage(start..start + SECTOR_BYTES, |_, _| 0);
            }
            _ => {}
        }
    }

    /// Sets the length of an open file.
    pub(in crate::sim) fn set_len(&mut self, number: InodeNumber, len: u64) {
        let age = self.age;
        self.file_mut(number).expect("an open file stays").set_len(len, age);
    }

    /// Checks that there is room for a write.
    pub(in crate::sim) fn check_space(
        &self,
        number: InodeNumber,
        offset: u64,
        len: u64,
        path: &Path,
    ) -> Result<()> {
        let Some(capacity) = self.capacity_bytes else { return Ok(()) };
        let missing = self.file(number).map_or(0, |file| file.missing_bytes(offset, len));
        if missing > 0 && self.used_bytes() + missing > capacity {
            let fault = if self.is_quota { Fault::Quota } else { Fault::NoSpace };
            return Err(fault.error(Operation::Write, path).at(path, offset));
        }
        Ok(())
    }
}
