//! Fault injection: calls that fail, or lie, at a test's request.
//!
//! A [`FaultRule`] selects the calls that meet a [`Fault`]; a [`FaultPlan`] is several rules. All
//! three have a text form, so that a failing test can print its plan and a person can replay it.
use super::operation::Operation;
use super::personality::FsyncFailure;
use sapwood_base::Error;
use sapwood_base::checksum::place_seed;
use std::fmt;
use std::path::{Path, PathBuf};

/// The effect on a call: an error, or a false success. [`Fault::applies_to`] lists the calls that
/// can meet each.
///
/// A sync of a file or directory that fails with an error also loses the changes that it should
/// have made durable, while reads still see them, as in kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The device reports an error (`EIO`). Text: `eio`.
    Io,
    /// There is no space (`ENOSPC`).
    NoSpace,
    /// The quota is exhausted (`EDQUOT`).
    Quota,
    /// The process has too many files open (`EMFILE`).
    TooManyOpen,
    /// The machine has too many files open (`ENFILE`).
    TooManyOpenSystem,
    /// The kernel has no memory for the call (`ENOMEM`).
    NoMemory,
    /// Permission is missing (`EACCES`).
    AccessDenied,
    /// The file system has become read-only, as after an error of its device (`EROFS`).
    ReadOnly,
    /// A signal interrupted the call (`EINTR`). Only for calls that the operating-system layer does
    /// not retry: those on names, where a retry could meet the effect of the first attempt.
    Interrupted,
    /// The file would exceed a limit of the process or the file system (`EFBIG`).
    FileTooLarge,
    /// The server has lost the file (`ESTALE`).
    Stale,
    /// The read returns at most this many bytes, as if the file ended there. Text: `short-read:7`.
    ShortRead(u32),
    /// The write stops after this many bytes for lack of space.
    ShortWrite(u32),
    /// The write stops after this many bytes with a device error.
    TornWrite(u32),
    /// The read returns one wrong bit; the next read does not. Bits are counted modulo the length
    /// read.
    FlipRead(u32),
    /// One bit of the bytes read or just written is permanently wrong.
    FlipMedium(u32),
    /// One sector of the bytes read or just written permanently holds zeros. Counted modulo the
    /// number of sectors.
    ZeroSector(u32),
    /// The write lands this many sectors later, or earlier, and succeeds.
    Misdirect(i32),
    /// The write lands in another file, the next one by age that is not empty, and succeeds.
    MisdirectFile,
    /// The write succeeds and is visible, but no sync makes it durable.
    LostWrite,
    /// The read returns the previous content of the place: the bytes as of the last sync, or of a
    /// removed file, or zeros.
    StaleRead,
    /// The call fails although it was carried out; a sync has made everything durable.
    ErrorButApplied,
    /// The call succeeds, but takes this many milliseconds of the machine's clock.
    Latency(u32),
    /// The call succeeds, and the time of day jumps by this many seconds.
    ClockJump(i32),
    /// The sync fails like that of a certain file system.
    SyncFailure(FsyncFailure),
}

impl Fault {
    /// All errors that calls return without any effect.
    pub const ERRORS: [Fault; 11] = [
        Fault::Io,
        Fault::NoSpace,
        Fault::Quota,
        Fault::TooManyOpen,
        Fault::TooManyOpenSystem,
        Fault::NoMemory,
        Fault::AccessDenied,
        Fault::ReadOnly,
        Fault::Interrupted,
        Fault::FileTooLarge,
        Fault::Stale,
    ];

    /// Whether real calls of this kind can meet it. Rules with errors work on other calls too;
    /// rules with other effects (and [`Fault::Interrupted`]) skip the calls that cannot meet them.
    pub fn applies_to(self, operation: Operation) -> bool {
        use Operation::*;
        match self {
            Fault::Latency(_) | Fault::ClockJump(_) => true,
            Fault::Io | Fault::Stale => operation != CheckMemory,
            Fault::NoSpace | Fault::Quota => {
                operation.is_change() && !matches!(operation, Remove | RemoveDirectory)
            }
            // The operating-system layer opens the file that it maps.
            Fault::TooManyOpen | Fault::TooManyOpenSystem => {
                matches!(operation, Create | Open | Lock | List | SyncDirectory | Map)
            }
            Fault::NoMemory => {
                matches!(operation, Create | Open | Lock | List | SyncDirectory | Map | CheckMemory)
            }
            Fault::AccessDenied => !matches!(operation, Read | Write | SetLen | Sync | Space | CheckMemory),
            Fault::ReadOnly | Fault::ErrorButApplied => operation.is_change(),
            Fault::Interrupted => {
                matches!(operation, Rename | Link | Remove | CreateDirectory | RemoveDirectory)
            }
            Fault::FileTooLarge => matches!(operation, Write | SetLen),
            Fault::ShortRead(_) | Fault::FlipRead(_) | Fault::StaleRead => operation == Read,
            Fault::ShortWrite(_) | Fault::TornWrite(_) => operation == Write,
            Fault::Misdirect(_) | Fault::MisdirectFile | Fault::LostWrite => operation == Write,
            Fault::FlipMedium(_) | Fault::ZeroSector(_) => matches!(operation, Read | Write),
            Fault::SyncFailure(FsyncFailure::Ext4Late) => operation == Sync,
            Fault::SyncFailure(_) => matches!(operation, Sync | SyncDirectory),
        }
    }

    /// Whether the call fails before it has begun, so that its work, for instance a sync, can be
    /// retried.
    pub(super) fn comes_first(self) -> bool {
        matches!(self, Fault::TooManyOpen | Fault::TooManyOpenSystem | Fault::NoMemory)
    }

    /// Whether the fault is a plain error.
    pub fn is_error(self) -> bool {
        Fault::ERRORS.contains(&self)
    }

    fn can_befall(self, operation: Operation) -> bool {
        self.applies_to(operation) || (self.is_error() && self != Fault::Interrupted)
    }

    /// The error of a call on `path` that meets the fault.
    pub(super) fn error(self, operation: Operation, path: &Path) -> Error {
        operation.failed(path, self.cause())
    }

    #[cfg(unix)]
    fn cause(self) -> std::io::Error {
        use rustix::io::Errno;
        match self {
            Fault::NoSpace | Fault::ShortWrite(_) => Errno::NOSPC.into(),
            Fault::Quota => Errno::DQUOT.into(),
            Fault::TooManyOpen => Errno::MFILE.into(),
            Fault::TooManyOpenSystem => Errno::NFILE.into(),
            Fault::NoMemory => Errno::NOMEM.into(),
            Fault::AccessDenied => Errno::ACCESS.into(),
            Fault::ReadOnly => Errno::ROFS.into(),
            Fault::Interrupted => Errno::INTR.into(),
            Fault::FileTooLarge => Errno::FBIG.into(),
            Fault::Stale => Errno::STALE.into(),
            _ => std::io::Error::other("simulated failure of the device"),
        }
    }

    #[cfg(not(unix))]
    fn cause(self) -> std::io::Error {
        use std::io::ErrorKind;
        match self {
            Fault::NoSpace | Fault::ShortWrite(_) => ErrorKind::StorageFull.into(),
            Fault::Quota => ErrorKind::QuotaExceeded.into(),
            Fault::NoMemory => ErrorKind::OutOfMemory.into(),
            Fault::AccessDenied => ErrorKind::PermissionDenied.into(),
            Fault::ReadOnly => ErrorKind::ReadOnlyFilesystem.into(),
            Fault::Interrupted => ErrorKind::Interrupted.into(),
            Fault::FileTooLarge => ErrorKind::FileTooLarge.into(),
            Fault::Stale => ErrorKind::StaleNetworkFileHandle.into(),
            _ => std::io::Error::other("simulated failure of the device"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io => f.write_str("eio"),
            Fault::NoSpace => f.write_str("enospc"),
            Fault::Quota => f.write_str("edquot"),
            Fault::TooManyOpen => f.write_str("emfile"),
            Fault::TooManyOpenSystem => f.write_str("enfile"),
            Fault::NoMemory => f.write_str("enomem"),
            Fault::AccessDenied => f.write_str("eacces"),
            Fault::ReadOnly => f.write_str("erofs"),
            Fault::Interrupted => f.write_str("eintr"),
            Fault::FileTooLarge => f.write_str("efbig"),
            Fault::Stale => f.write_str("estale"),
            Fault::ShortRead(bytes) => write!(f, "short-read:{bytes}"),
            Fault::ShortWrite(bytes) => write!(f, "short-write:{bytes}"),
            Fault::TornWrite(bytes) => write!(f, "torn-write:{bytes}"),
            Fault::FlipRead(bit) => write!(f, "flip-read:{bit}"),
            Fault::FlipMedium(bit) => write!(f, "flip-medium:{bit}"),
            Fault::ZeroSector(sector) => write!(f, "zero-sector:{sector}"),
            Fault::Misdirect(sectors) => write!(f, "misdirect:{sectors}"),
            Fault::MisdirectFile => f.write_str("misdirect-file"),
            Fault::LostWrite => f.write_str("lost-write"),
            Fault::StaleRead => f.write_str("stale-read"),
            Fault::ErrorButApplied => f.write_str("error-but-applied"),
            Fault::Latency(milliseconds) => write!(f, "latency-ms:{milliseconds}"),
            Fault::ClockJump(seconds) => write!(f, "clock-jump-s:{seconds}"),
            Fault::SyncFailure(failure) => write!(f, "sync-failure:{failure}"),
        }
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let plain = [Fault::MisdirectFile, Fault::LostWrite, Fault::StaleRead, Fault::ErrorButApplied];
        if let Some(fault) = Fault::ERRORS.into_iter().chain(plain).find(|fault| fault.to_string() == text) {
            return Ok(fault);
        }
        let wrong = || format!("{text:?} is no fault");
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        if name == "sync-failure" {
            return value.parse().map(Fault::SyncFailure);
        }
        let number: i64 = value.parse().map_err(|_| wrong())?;
        let unsigned = || u32::try_from(number).map_err(|_| wrong());
        let signed = || i32::try_from(number).map_err(|_| wrong());
        Ok(match name {
            "short-read" => Fault::ShortRead(unsigned()?),
            "short-write" => Fault::ShortWrite(unsigned()?),
            "torn-write" => Fault::TornWrite(unsigned()?),
            "flip-read" => Fault::FlipRead(unsigned()?),
            "flip-medium" => Fault::FlipMedium(unsigned()?),
            "zero-sector" => Fault::ZeroSector(unsigned()?),
            "misdirect" => Fault::Misdirect(signed()?),
            "latency-ms" => Fault::Latency(unsigned()?),
            "clock-jump-s" => Fault::ClockJump(signed()?),
            _ => return Err(wrong()),
        })
    }
}

/// Selects the calls that meet a fault: by default the next one of its kind, once.
///
/// As text: the kind of call or `any`; then the restrictions, each after a comma; then `=` and the
/// fault.
///
/// ```
/// # use sapwood_storage::sim::{Fault, FaultRule, Operation};
/// let rule = FaultRule::new(Operation::Write, Fault::TornWrite(512)).on(".wal").after(3);
/// assert_eq!(rule.to_string(), "write,after:3,on:.wal=torn-write:512");
/// assert_eq!("write,after:3,on:.wal=torn-write:512".parse(), Ok(rule));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// `None` means any.
    operation: Option<Operation>,
    fault: Fault,
    path_contains: Option<String>,
    skip: u64,
    times: u64,
    /// One in how many calls, and the seed.
    chance: Option<(u32, u64)>,
    /// The number of random draws so far.
    drawn: u64,
}

impl FaultRule {
    /// The next call of this kind meets the fault.
    pub fn new(operation: Operation, fault: Fault) -> FaultRule {
        FaultRule { operation: Some(operation), ..FaultRule::any(fault) }
    }

    /// The next call of any kind that can meet the fault meets it.
    pub fn any(fault: Fault) -> FaultRule {
        FaultRule { operation: None, fault, path_contains: None, skip: 0, times: 1, chance: None, drawn: 0 }
    }

    /// Lets `count` calls pass first.
    pub fn after(mut self, count: u64) -> FaultRule {
        self.skip = count;
        self
    }

    /// Affects `count` calls in a row instead of one.
    pub fn times(mut self, count: u64) -> FaultRule {
        self.times = count;
        self
    }

    /// Affects every call from then on.
    pub fn sticky(self) -> FaultRule {
        self.times(u64::MAX)
    }

    /// Affects one in `calls` calls, at random by `seed`. Unlimited, unless [`FaultRule::times`]
    /// limits it afterwards.
    pub fn one_in(mut self, calls: u32, seed: u64) -> FaultRule {
        self.chance = Some((calls.max(1), seed));
        self.sticky()
    }

    /// Restricts the rule to calls whose path contains `text`. For the text form it must hold no
    /// comma, `=` or `+`.
    pub fn on(mut self, text: impl Into<String>) -> FaultRule {
        self.path_contains = Some(text.into());
        self
    }

    fn concerns(&self, operation: Operation, path: &Path) -> bool {
        self.operation.is_none_or(|own| own == operation)
            && self.fault.can_befall(operation)
            && self.path_contains.as_ref().is_none_or(|text| path.to_string_lossy().contains(text))
    }

    /// Whether the fault affects this call, to which the rule applies.
    fn strikes(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if let Some((calls, seed)) = self.chance {
            self.drawn += 1;
            if fastrand::Rng::with_seed(place_seed(seed, self.drawn)).u32(..calls) != 0 {
                return false;
            }
        }
        self.times > 0
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation.map_or("any", Operation::name))?;
        if self.skip > 0 {
            write!(f, ",after:{}", self.skip)?;
        }
        if let Some((calls, seed)) = self.chance {
            write!(f, ",one-in:{calls}:{seed}")?;
        }
        match self.times {
            u64::MAX if self.chance.is_some() => {}
            u64::MAX => f.write_str(",sticky")?,
            1 if self.chance.is_none() => {}
            times => write!(f, ",times:{times}")?,
        }
        if let Some(text) = &self.path_contains {
            write!(f, ",on:{text}")?;
        }
        write!(f, "={}", self.fault)
    }
}

impl std::str::FromStr for FaultRule {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultRule, String> {
        let wrong = || format!("{text:?} is no rule for faults");
        let (calls, fault) = text.rsplit_once('=').ok_or_else(wrong)?;
        let mut parts = calls.split(',');
        let mut rule = FaultRule::any(fault.parse()?);
        match parts.next() {
            Some("any") | None => {}
            Some(operation) => rule.operation = Some(operation.parse()?),
        }
        for part in parts {
            let (name, value) = part.split_once(':').unwrap_or((part, ""));
            let number = |value: &str| value.parse::<u64>().map_err(|_| wrong());
            rule = match name {
                "after" => rule.after(number(value)?),
                "times" => rule.times(number(value)?),
                "sticky" => rule.sticky(),
                "on" => rule.on(value),
                "one-in" => {
                    let (calls, seed) = value.split_once(':').ok_or_else(wrong)?;
                    rule.one_in(calls.parse().map_err(|_| wrong())?, number(seed)?)
                }
                _ => return Err(wrong()),
            };
        }
        Ok(rule)
    }
}

/// Several rules. As text they are joined by `+`; no rules are the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan(pub Vec<FaultRule>);

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.0.iter().enumerate() {
            write!(f, "{}{rule}", if index > 0 { "+" } else { "" })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for FaultPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultPlan, String> {
        text.split('+')
            .filter(|rule| !rule.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(FaultPlan)
    }
}

/// A fault that a call has met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultMet {
    /// The number of changing operations begun before the call, which is the call's own number if
    /// it is one.
    pub number: u64,
    /// The kind of call.
    pub operation: Operation,
    /// The path of the call.
    pub path: PathBuf,
    /// The fault.
    pub fault: Fault,
}

impl fmt::Display for FaultMet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}: {} {} met {}", self.number, self.operation, self.path.display(), self.fault)
    }
}

/// The rules of a file system.
#[derive(Default)]
pub(super) struct Faults {
    rules: Vec<FaultRule>,
    log: Vec<FaultMet>,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn log(&self) -> &[FaultMet] {
        &self.log
    }

    /// The fault of this call, if a rule selects one. Later rules observe the call too, even if an
    /// earlier one matched.
    pub(super) fn meet(&mut self, operation: Operation, path: &Path, number: u64) -> Option<Fault> {
        let mut fault = None;
        for rule in &mut self.rules {
            if rule.concerns(operation, path) && rule.strikes() && fault.is_none() {
                rule.times = if rule.times == u64::MAX { u64::MAX } else { rule.times - 1 };
                fault = Some(rule.fault);
            }
        }
        if let Some(fault) = fault {
            self.log.push(FaultMet { number, operation, path: path.to_path_buf(), fault });
        }
        fault
    }
}
