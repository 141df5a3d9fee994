//! The observer of a run: captures moments, crashes them, and recovers.
use super::recovery::recover;
use super::{Campaign, Place, REMOVAL_ONE_IN, STATES_PER_MOMENT, Trace};
use crate::oracle::{Oracle, Promise};
use crate::sim::driver::{DIRECTORY, Observer};
use sapwood_base::format::file_name::FileName;
use sapwood_storage::sim::{Atom, AtomKind, CrashChoice, Moment, Operation as CallKind, SimFs};
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use xxhash_rust::xxh3::xxh3_64;

/// A captured moment of a watched run.
pub(super) struct Caught {
    pub(super) operation: u64,
    /// A description.
    pub(super) what: String,
    pub(super) image: SimFs,
    /// The table that was just removed, if the moment is taken for that reason alone.
    pub(super) removed: Option<OsString>,
    /// Numbers that no new file may have, see [`Numbers`].
    pub(super) durable_numbers: HashSet<u64>,
}

/// The numbers of created files. No number is assigned to a second file (O14), except after a crash
/// that removed every trace of the first.
#[derive(Default)]
pub(super) struct Numbers {
    /// Of all files since the last crash, and of the files that it left.
    pub(super) seen: HashSet<u64>,
    /// Of files whose directory entries may still be lost.
    pub(super) unsynced: HashSet<u64>,
    /// Of files whose directory entries a power loss cannot remove.
    pub(super) durable: HashSet<u64>,
    pub(super) violation: Option<String>,
}

impl Numbers {
    /// The numbers that must not occur again after a crash that has left `fs`. After a `power_loss`
    /// the files of `fs` are durable.
    pub(super) fn after_crash(durable: &HashSet<u64>, fs: &SimFs, power_loss: bool) -> Numbers {
        let left: HashSet<u64> = fs.files().iter().filter_map(|path| number_of(path)).collect();
        let (mut durable, mut unsynced) = (durable.clone(), HashSet::new());
        match power_loss {
            true => durable.extend(&left),
            false => unsynced.extend(left.difference(&durable)),
        }
        Numbers { seen: &durable | &left, unsynced, durable, violation: None }
    }

    /// Records a call that was executed.
    pub(super) fn note(&mut self, moment: &Moment<'_>) {
        match (moment.operation, number_of(moment.path)) {
            (CallKind::Create, Some(number)) => {
                self.unsynced.insert(number);
                if !self.seen.insert(number) {
                    let what = format!("O14: the number of a file is used again, {moment:?}");
                    self.violation.get_or_insert(what);
                }
            }
            (CallKind::Remove, Some(number)) => drop(self.unsynced.remove(&number)),
            (CallKind::SyncDirectory, _) if moment.path.ends_with(DIRECTORY) => {
                self.durable.extend(self.unsynced.drain());
            }
            _ => {}
        }
    }
}

/// The number in a file's name.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse)?;
    name.number().map(|number| number.0)
}

pub(super) type Queue = Arc<Mutex<Vec<Caught>>>;

/// Watches one run and recovers from the states that crashes leave.
pub(super) struct Crasher {
    pub(super) campaign: Rc<Campaign>,
    /// 1 for crashes of the workload, 2 for crashes of a recovery, …
    pub(super) level: u32,
    pub(super) queue: Queue,
    pub(super) numbers: Arc<Mutex<Numbers>>,
    /// The promise at the time when the queued moments were captured.
    pub(super) promise: Promise,
    /// Whether moments are taken; with a number, only that one is.
    pub(super) taken: Option<Option<u64>>,
    /// The states to which a power loss may return while nothing of `promise` is durable: a
    /// recovery shows the remains of a kill, and continues with them, before it syncs them.
    pub(super) before: Vec<Rc<(Oracle, Promise)>>,
    pub(super) random: fastrand::Rng,
}

impl Observer for Crasher {
    fn moved(&mut self, oracle: &Oracle) -> Result<(), String> {
        if let Some(what) = self.numbers.lock().expect("no panic held it").violation.take() {
            return Err(what);
        }
        let caught = std::mem::take(&mut *self.queue.lock().expect("no panic held it"));
        let promise = self.promise.clone();
        for caught in caught {
            self.crash(&caught, oracle, &promise)?;
        }
        self.promise = oracle.promise().clone();
        Ok(())
    }

    fn time_passed(&mut self, oracle: &Oracle, fs: &SimFs) {
        self.promise = oracle.promise().clone();
        let operation = fs.operations();
        if self.taken.is_some_and(|only| only.is_none_or(|only| only == operation)) {
            let caught = Caught {
                operation,
                what: "when time had passed".to_string(),
                image: fs.kill(),
                removed: None,
                durable_numbers: self.numbers.lock().expect("no panic holds it").durable.clone(),
            };
            self.queue.lock().expect("no panic holds it").push(caught);
        }
    }
}

impl Crasher {
    pub(super) fn new(campaign: &Rc<Campaign>, level: u32, promise: Promise, numbers: Numbers) -> Crasher {
        let random = fastrand::Rng::with_seed(campaign.seed ^ u64::from(level) << 56);
        let (queue, numbers) = (Queue::default(), Arc::new(Mutex::new(numbers)));
        let before = Vec::new();
        Crasher { campaign: campaign.clone(), level, queue, numbers, promise, taken: None, before, random }
    }

    /// The states of the history to which a power loss may also return.
    pub(super) fn still_before(&self, promise: &Promise) -> Vec<Rc<(Oracle, Promise)>> {
        // A commit becomes durable only together with its predecessors.
        if promise.durable > 0 { Vec::new() } else { self.before.clone() }
    }

    /// Watches `fs` and captures the moments whose hash is below `threshold`.
    pub(super) fn attach(&mut self, fs: &SimFs, threshold: u64, trace: Option<Arc<Mutex<Trace>>>) {
        let (queue, numbers) = (self.queue.clone(), self.numbers.clone());
        let (salt, level) = (self.random.u64(..), self.level);
        let print = self.campaign.only.as_ref().is_some_and(|only| only.print) && threshold > 0;
        let only = self.campaign.only.clone().filter(|_| level == 1).map(|only| only.operation);
        self.taken = (threshold > 0).then_some(only);
        fs.watch(move |moment: &Moment<'_>| {
            if let Some(trace) = &trace {
                let call = (moment.number, moment.operation, moment.path.to_path_buf());
                trace.lock().expect("no panic holds it").calls.push(call);
            }
            if print {
                println!("level {level}: {moment:?}");
            }
            let mut numbers = numbers.lock().expect("no panic holds it");
            if moment.after && !moment.failed {
                numbers.note(moment);
            }
            if threshold == 0 {
                return;
            }
            let mut hash = [0; 17];
            hash[..8].copy_from_slice(&moment.number.to_le_bytes());
            hash[8] = u8::from(moment.after);
            hash[9..].copy_from_slice(&salt.to_le_bytes());
            let hash = xxh3_64(&hash);
            let is_removal = moment.after
                && !moment.failed
                && moment.operation == CallKind::Remove
                && moment.path.extension().is_some_and(|extension| extension == "sst");
            let is_drawn = hash < threshold;
            let is_taken = is_drawn || (is_removal && hash.is_multiple_of(REMOVAL_ONE_IN));
            if is_taken && only.is_none_or(|only| only == moment.number) {
                let removed = moment.path.file_name().filter(|_| !is_drawn).map(ToOwned::to_owned);
                let caught = Caught {
                    operation: moment.number,
                    what: format!("{moment:?}"),
                    image: moment.image(),
                    removed,
                    durable_numbers: numbers.durable.clone(),
                };
                queue.lock().expect("no panic holds it").push(caught);
            }
        });
    }

    /// Crashes one moment in several ways.
    pub(super) fn crash(
        &mut self,
        caught: &Caught,
        oracle: &Oracle,
        promise: &Promise,
    ) -> Result<(), String> {
        let limit = if self.level == 1 { STATES_PER_MOMENT } else { 1 };
        let images: Vec<(String, SimFs, bool)> = match self.only_choice() {
            Some(choice) if choice == "kill" => vec![(choice, caught.image.kill(), false)],
            Some(text) => {
                let choice: CrashChoice = text.parse()?;
                if !choice.fits(&caught.image.atoms()) {
                    // The choice belongs to the other moment of the call.
                    return Ok(());
                }
                vec![(text, caught.image.crash_by(&choice), true)]
            }
            None if caught.removed.is_some() => {
                let gone = |atom: &Atom| matches!(&atom.kind, AtomKind::Unlink(name) if Some(name) == caught.removed.as_ref());
                let kept: Vec<bool> = caught.image.atoms().iter().map(gone).collect();
                let choice = CrashChoice::of_kept(&kept);
                vec![(choice.to_string(), caught.image.crash_by(&choice), true)]
            }
            None if self.random.u8(..6) == 0 || (self.level > 1 && self.random.u8(..4) == 0) => {
                vec![("kill".to_string(), caught.image.kill(), false)]
            }
            None => {
                // The list begins with the crash that keeps nothing and the crash that keeps
                // everything.
                let skip = if self.level == 1 { 0 } else { self.random.usize(..6) };
                let images = caught.image.crash_images(self.random.u64(..), limit + skip);
                let mut images: Vec<_> =
                    images.map(|(choice, image)| (choice.to_string(), image, true)).collect();
                images.drain(..skip.min(images.len().saturating_sub(1)));
                images
            }
        };
        for (choice, image, power_loss) in images {
            let campaign = self.campaign.clone();
            let known = format!("{promise:?} {power_loss}");
            if !campaign.seen.borrow_mut().insert((image.image_hash(), xxh3_64(known.as_bytes()))) {
                continue;
            }
            if self.level == 1 {
                *campaign.place.borrow_mut() =
                    Some(Place { operation: caught.operation, choice: choice.clone() });
            }
            campaign.states.set(campaign.states.get() + 1);
            campaign.nested.set(campaign.nested.get() + u64::from(self.level > 1));
            if campaign.only.as_ref().is_some_and(|only| only.print) {
                println!("level {}: crash {}, {choice}: {:?}", self.level, caught.what, image.files());
            }
            let seed = xxh3_64(choice.as_bytes()) ^ caught.operation ^ u64::from(self.level) << 60;
            let numbers = Numbers::after_crash(&caught.durable_numbers, &image, power_loss);
            let mut crasher = Crasher::new(&campaign, self.level + 1, promise.clone(), numbers);
            crasher.before = self.still_before(promise);
            let outcome = recover(crasher, image, oracle, power_loss, seed);
            outcome.map_err(|what| {
                let promise_name =
                    if caught.removed.is_some() { "O10: a table was removed too early: " } else { "" };
                format!("{promise_name}{what}\n  crash of level {}: {}, {choice}", self.level, caught.what)
            })?;
            if self.level == 1 {
                *campaign.place.borrow_mut() = None;
            }
        }
        Ok(())
    }

    pub(super) fn only_choice(&self) -> Option<String> {
        if self.level > 1 {
            return None;
        }
        self.campaign.only.as_ref().and_then(|only| only.choice.clone())
    }
}
