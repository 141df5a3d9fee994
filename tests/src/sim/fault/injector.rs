//! A file system in front of the simulated one that counts calls and lets one of them fail, or all
//! from one on.
//!
//! The simulated machine itself provides failures and a full disk. This layer adds finer effects:
//! every error number, calls that fail half done or although they are done, and calls that report
//! success and lie.
use sapwood_base::{Error, Result};
use sapwood_storage::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use sapwood_storage::sim::{Fault, FaultRule, Operation, SECTOR_BYTES, SimFs};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The effect on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call fails with this error and has no effect. A failed sync also discards the data that
    /// it should have made durable.
    Fails(Cause),
    /// The call is executed, and returns this error nevertheless.
    DoneButFails(Cause),
    /// A write stores its first half, and returns this error.
    HalfThenFails(Cause),
    /// A read returns fewer bytes than the file has.
    Short,
    /// A read returns one wrong bit, this time only.
    FlipRead,
    /// One bit is stored wrong.
    FlipWritten,
    /// A sector of a write is stored as zeros.
    ZeroWritten,
    /// A write is stored one sector too far.
    Astray,
    /// A write is never stored.
    LostWrite,
    /// A sync makes nothing durable, now or later.
    LyingSync,
}

/// Errors of the operating system, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(clippy::upper_case_acronyms, reason = "the system's own names")]
pub enum Cause {
    /// An error of the device.
    EIO = 5,
    /// No memory, or no address space.
    ENOMEM = 12,
    /// Not permitted.
    EACCES = 13,
    /// Too many open files in the system.
    ENFILE = 23,
    /// Too many open files in the process.
    EMFILE = 24,
    /// Too large a file.
    EFBIG = 27,
    /// No space.
    ENOSPC = 28,
    /// Mounted for reading only.
    EROFS = 30,
    /// A stale handle of a network file system.
    ESTALE = 116,
    /// The quota is exceeded.
    EDQUOT = 122,
}

impl Cause {
    fn error(self, path: &Path) -> Error {
        Error::io("inject a failure into", path, std::io::Error::from_raw_os_error(self as i32))
    }

    /// Whether it is a temporary shortage: background work retries its step when there is space, or
    /// a descriptor, again.
    pub fn is_scarcity(self) -> bool {
        matches!(self, Cause::ENOSPC | Cause::EDQUOT | Cause::EMFILE | Cause::ENFILE | Cause::ENOMEM)
    }
}

impl Effect {
    /// The possible effects on a call of this kind.
    pub fn all(call: &Call) -> Vec<Effect> {
        use Cause::*;
        use Effect::*;
        let fails = |causes: &[Cause]| causes.iter().map(|cause| Fails(*cause)).collect::<Vec<_>>();
        let mut effects = match call.operation {
            Operation::Create => fails(&[EIO, ENOSPC, EDQUOT, EMFILE, EACCES, EROFS]),
            Operation::Open => fails(&[EIO, EMFILE, ENFILE, EACCES]),
            Operation::LookUp | Operation::Lock => fails(&[EIO, EACCES]),
            Operation::Read => fails(&[EIO, ESTALE]),
            Operation::Write => fails(&[EIO, ENOSPC, EDQUOT, EFBIG]),
            Operation::SetLen | Operation::Sync | Operation::SyncDirectory => fails(&[EIO, ENOSPC, EDQUOT]),
            Operation::Rename | Operation::Link => fails(&[EIO, ENOSPC, EACCES, EROFS]),
            Operation::Remove | Operation::RemoveDirectory => fails(&[EIO, EACCES, EROFS]),
            Operation::CreateDirectory => fails(&[EIO, ENOSPC, EACCES, EROFS]),
            Operation::List => fails(&[EIO, EMFILE]),
            Operation::Space => fails(&[EIO]),
            Operation::Map => fails(&[ENOMEM, EMFILE, EIO]),
            Operation::CheckMemory => fails(&[ENOMEM]),
        };
        match call.operation {
            Operation::Read => effects.extend([Short, FlipRead]),
            Operation::Write => effects.extend([
                HalfThenFails(ENOSPC),
                HalfThenFails(EIO),
                DoneButFails(EIO),
                FlipWritten,
                ZeroWritten,
                Astray,
                LostWrite,
            ]),
            Operation::Sync => effects.push(LyingSync),
            Operation::Create
            | Operation::Rename
            | Operation::Link
            | Operation::Remove
            | Operation::CreateDirectory => effects.push(DoneButFails(EIO)),
            _ => {}
        }
        effects
    }

    /// Whether the call reports success.
    pub fn is_silent(self) -> bool {
        !matches!(self, Effect::Fails(_) | Effect::DoneButFails(_) | Effect::HalfThenFails(_))
    }

    /// Whether the disk is wrong afterwards without a report.
    pub fn is_damage(self) -> bool {
        self.is_silent() && !matches!(self, Effect::Short | Effect::FlipRead)
    }
}

/// A call, as recorded in a run without faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The kind of call.
    pub operation: Operation,
    /// The file or directory.
    pub path: PathBuf,
    /// The offset of reads and writes.
    pub offset: u64,
    /// The number of bytes.
    pub len: usize,
    /// Whether the database was being closed.
    pub closing: bool,
}

impl Call {
    /// The kind of file: `log`, `table`, `MANIFEST` and so on.
    pub fn file(&self) -> &'static str {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.as_str() {
            "LOCK" => "lock",
            name if name.ends_with(".sst") => "table",
            name if name.ends_with(".wal") => "log",
            name if name.contains("MANIFEST") => "MANIFEST",
            _ => "directory",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.operation, self.path.display())?;
        match self.operation {
            Operation::Read | Operation::Write => write!(f, " {}+{}", self.offset, self.len),
            _ => Ok(()),
        }
    }
}

/// The call that fails, and the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its number, from 0.
    pub at: u64,
    /// The effect.
    pub effect: Effect,
    /// Whether all later calls of the kind fail as well.
    pub sticky: bool,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    /// The process has died: the calls of its destructors do not count.
    dead: bool,
    /// A close is under way.
    closing: bool,
    /// The operation that a sticky plan concerns, once it has occurred.
    concerns: Option<Operation>,
    calls: u64,
    record: Option<Vec<Call>>,
    met: Vec<Call>,
}

/// The file system. Clones share counts and plan, also in front of another machine.
#[derive(Clone)]
pub struct Injector {
    inner: SimFs,
    state: Arc<Mutex<State>>,
}

impl Injector {
    /// An injector in front of `fs`, with this plan.
    pub fn new(fs: &SimFs, plan: Option<Plan>) -> Injector {
        let state = State { plan, record: plan.is_none().then(Vec::new), ..State::default() };
        Injector { inner: fs.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// An injector with the same counts and plan in front of another file system.
    pub fn before(&self, fs: &SimFs) -> Injector {
        self.state().dead = false;
        Injector { inner: fs.clone(), state: self.state.clone() }
    }

    /// All later calls succeed.
    pub fn heal(&self) {
        self.state().plan = None;
    }

    /// The process dies: calls of its database's destructor are neither counted nor fail.
    pub fn die(&self) {
        self.state().dead = true;
    }

    /// Sets whether the following calls belong to a close.
    pub fn set_closing(&self, closing: bool) {
        self.state().closing = closing;
    }

    /// The calls that failed.
    pub fn met(&self) -> Vec<Call> {
        self.state().met.clone()
    }

    /// All calls so far, if there is no plan.
    pub fn record(&self) -> Vec<Call> {
        self.state().record.clone().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// Counts a call and returns the effect on it.
    fn begin(&self, operation: Operation, path: &Path, offset: u64, len: usize) -> Option<Effect> {
        let mut state = self.state();
        if state.dead {
            return None;
        }
        let (number, closing) = (state.calls, state.closing);
        state.calls += 1;
        let call = || Call { operation, path: path.to_path_buf(), offset, len, closing };
        if let Some(record) = &mut state.record {
            record.push(call());
        }
        let plan = state.plan?;
        let again = plan.sticky && state.concerns == Some(operation);
        if number != plan.at && !again {
            return None;
        }
        state.concerns = Some(operation);
        state.met.push(call());
        Some(plan.effect)
    }

    /// Executes a call without bytes.
    fn call<R>(&self, operation: Operation, path: &Path, body: impl FnOnce() -> Result<R>) -> Result<R> {
        match self.begin(operation, path, 0, 0) {
            Some(Effect::Fails(cause)) => Err(cause.error(path)),
            Some(Effect::DoneButFails(cause)) => {
                body()?;
                Err(cause.error(path))
            }
            _ => body(),
        }
    }

    /// Executes a sync, of a file or a directory.
    fn sync(&self, operation: Operation, path: &Path, body: impl FnOnce() -> Result<()>) -> Result<()> {
        let effect = self.begin(operation, path, 0, 0);
        if effect.is_some() {
            // The machine forgets the data that it should have written.
            self.inner.fail(FaultRule::new(operation, Fault::Io));
        }
        let result = body();
        match effect {
            Some(Effect::Fails(cause)) => Err(cause.error(path)),
            Some(_) => Ok(()),
            None => result,
        }
    }

    fn file(&self, inner: Box<dyn File>) -> Box<dyn File> {
        Box::new(InjectedFile { injector: self.clone(), inner })
    }
}

impl FileSystem for Injector {
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        self.inner.absolute(path)
    }

    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        self.call(Operation::Create, path, || self.inner.create_new(path)).map(|file| self.file(file))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        self.call(Operation::Open, path, || self.inner.open(path, mode)).map(|file| self.file(file))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.call(Operation::LookUp, path, || self.inner.exists(path))
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        self.call(Operation::LookUp, path, || self.inner.file_len(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.call(Operation::Rename, from, || self.inner.rename(from, to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.call(Operation::Link, to, || self.inner.hard_link(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.call(Operation::Remove, path, || self.inner.remove_file(path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.call(Operation::CreateDirectory, path, || self.inner.create_dir_all(path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.call(Operation::RemoveDirectory, path, || self.inner.remove_dir(path))
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        self.call(Operation::List, path, || self.inner.list(path))
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        self.sync(Operation::SyncDirectory, path, || self.inner.sync_directory(path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.call(Operation::Lock, path, || self.inner.lock(path))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.call(Operation::Space, path, || self.inner.space(path))
    }

    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>> {
        self.call(Operation::Map, path, || self.inner.map_shared(path, len))
    }

    fn check_memory(&self, bytes: usize) -> Result<()> {
        self.call(Operation::CheckMemory, Path::new("memory"), || self.inner.check_memory(bytes))
    }
}

struct InjectedFile {
    injector: Injector,
    inner: Box<dyn File>,
}

impl File for InjectedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let path = self.inner.path();
        match self.injector.begin(Operation::Read, path, offset, buffer.len()) {
            Some(Effect::Fails(cause)) => Err(cause.error(path)),
            Some(Effect::Short) => {
                let half = buffer.len().div_ceil(2);
                self.inner.read_at(offset, &mut buffer[..half])
            }
            Some(Effect::FlipRead) => {
                let read = self.inner.read_at(offset, buffer)?;
                if let Some(byte) = buffer[..read].get_mut(place_in(offset, read)) {
                    *byte ^= 0x10;
                }
                Ok(read)
            }
            _ => self.inner.read_at(offset, buffer),
        }
    }

    fn allocate(&self, len: u64) -> Result<bool> {
        let path = self.inner.path();
        match self.injector.begin(Operation::Write, path, 0, 0) {
            Some(Effect::Fails(cause)) => Err(cause.error(path)),
            Some(Effect::DoneButFails(cause) | Effect::HalfThenFails(cause)) => {
                self.inner.allocate(len)?;
                Err(cause.error(path))
            }
            _ => self.inner.allocate(len),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = self.inner.path();
        let sector = SECTOR_BYTES as usize;
        match self.injector.begin(Operation::Write, path, offset, bytes.len()) {
            None | Some(Effect::Short | Effect::FlipRead | Effect::LyingSync) => {
                self.inner.write_at(offset, bytes)
            }
            Some(Effect::Fails(cause)) => Err(cause.error(path)),
            Some(Effect::DoneButFails(cause)) => {
                self.inner.write_at(offset, bytes)?;
                Err(cause.error(path))
            }
            Some(Effect::HalfThenFails(cause)) => {
                self.inner.write_at(offset, &bytes[..bytes.len() / 2])?;
                Err(cause.error(path))
            }
            Some(Effect::LostWrite) => Ok(()),
            Some(Effect::Astray) => self.inner.write_at(offset + SECTOR_BYTES, bytes),
            Some(Effect::FlipWritten) => {
                let mut bytes = bytes.to_vec();
                let place = place_in(offset, bytes.len());
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 0x10;
                }
                self.inner.write_at(offset, &bytes)
            }
            Some(Effect::ZeroWritten) => {
                let mut bytes = bytes.to_vec();
                let from = place_in(offset, bytes.len()) / sector * sector;
                let to = (from + sector).min(bytes.len());
                bytes[from..to].fill(0);
                self.inner.write_at(offset, &bytes)
            }
        }
    }

    fn sync_data(&self) -> Result<()> {
        self.injector.sync(Operation::Sync, self.inner.path(), || self.inner.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.injector.sync(Operation::Sync, self.inner.path(), || self.inner.sync_all())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.injector.call(Operation::SetLen, self.inner.path(), || self.inner.set_len(len))
    }

    fn len(&self) -> Result<u64> {
        self.injector.call(Operation::LookUp, self.inner.path(), || self.inner.len())
    }

    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.inner.prefetch(offset, len);
    }
}

/// The place of a byte within `len`, the same for the same call.
fn place_in(offset: u64, len: usize) -> usize {
    (offset as usize / 8 * 7919 + 31) % len.max(1)
}
