//! The workload whose calls fail: its steps, its errors, and its end.
use super::verdict::{Planned, Verdict, may_be_swallowed, may_go_unnoticed};
use super::{OPENS, Over, SECOND, Step, Workload};
use crate::harness::contents;
use crate::journal::Write;
use crate::oracle::{Bytes, Map, difference};
use sapwood::{BackgroundStep, Db, Durability, Error, ErrorKind, Health};
use sapwood_storage::sim::SimFs;
use std::sync::Arc;
use std::time::Duration;

impl Workload {
    pub(super) fn is_damaged(&self) -> bool {
        self.plan.is_some_and(|plan| plan.effect.is_damage()) && !self.injector.met().is_empty()
    }

    pub(super) fn lied(&self) -> bool {
        self.plan.is_some_and(|plan| plan.effect.is_silent()) && !self.injector.met().is_empty()
    }

    /// An error needs a cause, and must not report damage after a mere failure.
    pub(super) fn cause(&mut self, error: &Error) -> Step {
        self.errors += 1;
        if self.injector.met().is_empty() {
            return Err(format!("nothing had failed: {error}"));
        }
        if self.lied() {
            return self.typed(error);
        }
        match error.kind() {
            ErrorKind::Corruption | ErrorKind::Unsupported => {
                Err(format!("a failed call is reported as damage: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// After a lie, errors name the damage, or say that the handle is closed because of it.
    pub(super) fn typed(&self, error: &Error) -> Step {
        match error.kind() {
            ErrorKind::Corruption if error.file().is_none() => Err(format!("damage without a file: {error}")),
            ErrorKind::Corruption | ErrorKind::Poisoned | ErrorKind::Unsupported => Ok(()),
            kind => Err(format!("an error of kind {kind:?} after the device lied: {error}")),
        }
    }

    pub(super) fn db(&self) -> Db {
        self.db.clone().expect("open")
    }

    pub(super) fn is_poisoned(&mut self) -> bool {
        let health = self.db.as_ref().map(|db| db.health());
        match health {
            Some(Health::Poisoned(_)) => {
                self.was_poisoned = true;
                self.errors += 1;
                true
            }
            Some(Health::NoSpace(_)) => {
                self.errors += 1;
                false
            }
            _ => false,
        }
    }

    /// Compares the database with the history, all of which must be there up to `floor`.
    pub(super) fn check(&mut self, floor: u64) -> Step<Option<u64>> {
        let floor = if self.is_damaged() { 0 } else { floor };
        let db = self.db();
        match self.journal.check(&db, floor) {
            Ok(count) => self.check_indexes().map(|()| Some(count)),
            Err(error) => self.cause(&error).map(|()| None),
        }
    }

    /// Opens, three times if necessary, and continues from the content found.
    pub(super) fn open(&mut self, floor: u64) -> Result<Result<(), Over>, String> {
        self.snapshot = None;
        let mut tries = 0;
        loop {
            tries += 1;
            self.opens += 1;
            if tries > 3 || self.opens > 3 * OPENS {
                return Ok(Err(Over));
            }
            match self.builder().advanced(|o| o.idle_compaction = false).open() {
                Ok(db) => self.db = Some(db),
                Err(error) => {
                    self.cause(&error)?;
                    continue;
                }
            }
            let floor = if self.is_damaged() { 0 } else { floor };
            let db = self.db();
            let durable = self.journal.durable();
            let recovered = self.journal.recovered(&db, floor);
            match recovered.and_then(|count| self.forget_lost_indexes().map(|()| count)) {
                Ok(count) => {
                    self.unnoticed |= count < durable;
                    self.check_indexes()?;
                    return Ok(Ok(()));
                }
                Err(error) => {
                    self.cause(&error)?;
                    self.db = None;
                }
            }
        }
    }

    /// After an error: continues, with a new handle if this one is poisoned.
    pub(super) fn mend(&mut self) -> Result<Result<(), Over>, String> {
        if !self.is_poisoned() {
            return Ok(Ok(()));
        }
        let db = self.db();
        match db.default_keyspace().put("poisoned", "") {
            Err(error) if error.kind() == ErrorKind::Poisoned => {}
            other => return Err(format!("a poisoned database accepts writes: {other:?}")),
        }
        self.check(self.journal.acknowledged())?;
        self.snapshot = None;
        if db.close().is_ok() {
            return Err("the close of a poisoned database returns no error".to_string());
        }
        self.db = None;
        self.open(self.journal.acknowledged())
    }

    /// Evaluates a result of the database. `Ok(Ok(true))` if it was a success.
    pub(super) fn outcome<R>(&mut self, result: sapwood::Result<R>) -> Result<Result<bool, Over>, String> {
        match result {
            Ok(_) => {
                // Background work may have failed in the meantime.
                Ok(self.mend()?.map(|()| true))
            }
            Err(error) => {
                self.cause(&error)?;
                Ok(self.mend()?.map(|()| false))
            }
        }
    }

    pub(super) fn commits(&mut self, count: u64) -> Result<Result<(), Over>, String> {
        for _ in 0..count {
            self.number += 1;
            let spaces = self.journal.spaces();
            let writes: Vec<Write> = (0..3)
                .map(|_| {
                    let space = spaces[self.random.usize(..spaces.len())];
                    let key = format!("key-{:03}", self.random.u32(..90)).into_bytes();
                    let value = match self.random.u8(..6) {
                        0 => None,
                        _ => Some(vec![self.random.u8(..); self.random.usize(..1200)].into()),
                    };
                    (space, key, value)
                })
                .collect();
            let durability = match self.number % 6 {
                0 => Durability::Sync,
                3 => Durability::Periodic(Duration::from_millis(1)),
                _ => Durability::Buffered,
            };
            let db = self.db();
            let (length, acknowledged) = (self.journal.len(), self.journal.acknowledged());
            let result = self.journal.commit(&db, writes, durability);
            let refused = result.is_err() && !matches!(db.health(), Health::Poisoned(_));
            if refused && self.journal.len() > length && self.journal.acknowledged() == acknowledged {
                self.journal.withdraw();
            }
            drop(db);
            if self.outcome(result)?.is_err() {
                return Ok(Err(Over));
            }
        }
        Ok(Ok(()))
    }

    pub(super) fn flush(&mut self) -> Result<Result<(), Over>, String> {
        let result = self.db().flush();
        if result.is_ok() {
            self.journal.synced();
        }
        Ok(self.outcome(result)?.map(drop))
    }

    pub(super) fn background(&mut self) -> Result<Result<(), Over>, String> {
        for step in BackgroundStep::ALL {
            for _ in 0..20 {
                let result = self.db().background_step(step);
                let more = *result.as_ref().unwrap_or(&false);
                if self.outcome(result)?.is_err() {
                    return Ok(Err(Over));
                }
                if !more {
                    break;
                }
            }
        }
        Ok(Ok(()))
    }

    pub(super) fn look_back(&mut self) -> Step {
        let Some((snapshot, want)) = self.snapshot.take() else { return Ok(()) };
        let db = self.db();
        let mut got = Map::new();
        for entry in db.default_keyspace().iter().at(&snapshot) {
            match entry {
                Ok(entry) => {
                    let (key, value) = entry.into_parts();
                    got.insert(key, Bytes::from(&value[..]));
                }
                Err(error) => return self.cause(&error),
            }
        }
        match difference(&got, &want) {
            Some(difference) => Err(format!("through the snapshot: {difference}")),
            None => self
                .compare_indexes(&db.default_keyspace(), Some(&snapshot), &want)
                .map_err(|what| format!("through the snapshot: {what}")),
        }
    }

    /// The whole workload, as far as the state of the database allows.
    pub(super) fn work(&mut self) -> Step {
        self.phases().map(drop)
    }

    pub(super) fn phases(&mut self) -> Result<Result<(), Over>, String> {
        macro_rules! go {
            ($step:expr) => {
                match $step? {
                    Ok(value) => value,
                    Err(over) => return Ok(Err(over)),
                }
            };
        }
        go!(self.open(0));
        go!(self.commits(10));
        for _ in 0..2 {
            if !self.journal.has_space(SECOND) {
                let db = self.db();
                let result = self.journal.create_space(&db, SECOND);
                drop(db);
                go!(self.outcome(result));
            }
        }
        go!(self.commits(8));
        go!(self.make_indexes());
        let db = self.db();
        let snapshot = db.snapshot();
        match contents(&db.default_keyspace()) {
            Ok(map) => self.snapshot = Some((snapshot, map)),
            Err(error) => self.cause(&error)?,
        }
        drop(db);
        for _ in 0..3 {
            go!(self.flush());
            go!(self.commits(8));
        }
        go!(self.background());
        self.check(self.journal.acknowledged())?;
        self.look_back()?;
        if self.journal.has_space(SECOND) {
            let db = self.db();
            let result = self.journal.drop_space(&db, SECOND);
            drop(db);
            // As long as the drop is the last edit of the MANIFEST, no later edit proves that it is
            // missing.
            if result.is_ok() && self.is_damaged() {
                self.journal.may_come_back(SECOND);
            }
            go!(self.outcome(result));
        }
        go!(self.commits(6));
        let result = self.db().compact();
        go!(self.outcome(result));
        go!(self.background());
        go!(self.rebuild_index());
        go!(self.drop_index());
        go!(self.commits(14));

        // The process dies, and the next one recovers.
        self.sim.crash_at(0);
        self.injector.die();
        let left = self.sim.kill();
        self.db = None;
        self.snapshot = None;
        self.move_to(left);
        go!(self.open(self.journal.acknowledged()));
        self.check(self.journal.acknowledged())?;
        go!(self.commits(6));
        let result = self.db().sync();
        if result.is_ok() {
            self.journal.synced();
        }
        go!(self.outcome(result));
        go!(self.commits(2));

        self.injector.set_closing(true);
        let result = self.db().close();
        self.injector.set_closing(false);
        if result.is_ok() {
            self.journal.synced();
        } else {
            self.is_poisoned();
        }
        if let Err(error) = result {
            self.cause(&error)?;
        }
        self.db = None;
        match self.builder().read_only(true).open() {
            Ok(db) => {
                self.db = Some(db);
                self.check(self.journal.acknowledged())?;
                self.db = None;
            }
            Err(error) => self.cause(&error)?,
        }
        go!(self.open(self.journal.acknowledged()));
        go!(self.commits(6));
        self.check(self.journal.acknowledged())?;
        Ok(Ok(()))
    }

    pub(super) fn move_to(&mut self, sim: SimFs) {
        self.injector = self.injector.before(&sim);
        self.env = self.env.with_file_system(Arc::new(self.injector.clone()));
        self.sim = sim;
    }

    /// The fault ends. Checks the present state and the states that a kill or a power loss leaves.
    pub(super) fn end(mut self, planned: Option<Planned<'_>>) -> Result<Verdict, String> {
        let met = self.injector.met();
        if met.first() != planned.map(|planned| planned.call) {
            return Ok(Verdict::Elsewhere);
        }
        self.injector.heal();
        if self.db.is_some() {
            self.takes_writes_again()?;
        }
        // The remaining calls of a close must not reach the disk.
        self.sim.crash_at(0);
        self.db = None;
        let images = [
            (self.sim.kill(), self.journal.acknowledged(), "a kill"),
            (self.sim.crash(0), self.journal.durable(), "a power loss that keeps nothing"),
            (self.sim.crash(2 + met.len() as u64), self.journal.durable(), "a power loss"),
        ];
        let (journal, number, indexes) = (self.journal.clone(), self.number, self.indexes.clone());
        for (image, floor, what) in images {
            self.move_to(image);
            self.journal = journal.clone();
            self.number = number;
            self.indexes = indexes.clone();
            self.opens_and_works(floor).map_err(|message| format!("opened after {what}: {message}"))?;
        }
        Ok(match (self.unnoticed, self.was_poisoned, self.errors) {
            (true, ..) => {
                let plan = self.plan.ok_or("synced data is missing")?;
                match may_go_unnoticed(&met[0], plan.effect) {
                    true => Verdict::Unnoticed,
                    false => return Err("synced data is missing without a report".to_string()),
                }
            }
            (_, true, _) => Verdict::Poisoned,
            (_, _, 0) => match planned {
                Some(planned) if !planned.plan.effect.is_silent() && !may_be_swallowed(planned) => {
                    return Err("the failure was not reported, and it is not harmless".to_string());
                }
                _ => Verdict::Harmless,
            },
            _ => Verdict::Told,
        })
    }

    /// A database that is not poisoned must recover by itself.
    pub(super) fn takes_writes_again(&mut self) -> Step {
        if self.is_poisoned() {
            return Ok(());
        }
        let mut last = String::new();
        for _ in 0..50 {
            let db = self.db();
            let write: Write = (0, b"healed".to_vec(), Some(b"yes"[..].into()));
            let length = self.journal.len();
            let result = self.journal.commit(&db, vec![write], Durability::Sync);
            match result {
                Ok(()) => {
                    let flushed = db.flush();
                    if self.is_damaged() {
                        // The damage is permanent, and a read may meet it only now.
                        return flushed.or_else(|error| self.cause(&error));
                    }
                    flushed.map_err(|error| format!("the fault is over, and a flush fails: {error}"))?;
                    self.journal.synced();
                    // Work that met a full disk reports it until the retry.
                    while BackgroundStep::ALL
                        .into_iter()
                        .any(|step| db.background_step(step).unwrap_or(false))
                    {}
                    return match db.health() {
                        Health::Good => Ok(()),
                        other => Err(format!("the fault is over, and the health is {other:?}")),
                    };
                }
                Err(error) if self.is_poisoned() => {
                    // The earlier damage was found now.
                    return self.cause(&error);
                }
                Err(error) => {
                    last = error.to_string();
                    self.cause(&error)?;
                    if self.journal.len() > length {
                        self.journal.withdraw();
                    }
                    for step in BackgroundStep::ALL {
                        let _ = db.background_step(step);
                    }
                }
            }
        }
        // Damage is permanent, and a write to a keyspace with an index reads the row before it.
        match self.is_damaged() {
            true => Ok(()),
            false => Err(format!("the fault is over, and writes are refused: {last}")),
        }
    }

    /// A healthy machine opens the remains, finds everything, and accepts work that survives in
    /// turn.
    pub(super) fn opens_and_works(&mut self, floor: u64) -> Step {
        let damaged = self.is_damaged();
        let wrong = |error: Error| match damaged {
            true => Ok(()),
            false => Err(error.to_string()),
        };
        self.opens = 0;
        let db = match self.builder().open() {
            Ok(db) => db,
            Err(error) => {
                self.cause(&error)?;
                return wrong(error);
            }
        };
        self.db = Some(db.clone());
        let durable = self.journal.durable().min(floor);
        let recovered = self.journal.recovered(&db, if damaged { 0 } else { floor });
        match recovered.and_then(|count| self.forget_lost_indexes().map(|()| count)) {
            Ok(count) => {
                self.unnoticed |= count < durable;
                self.check_indexes()?;
            }
            Err(error) => {
                self.cause(&error)?;
                self.db = None;
                return wrong(error);
            }
        }
        let write: Write = (0, b"after".to_vec(), Some(b"all"[..].into()));
        let result = self
            .journal
            .commit(&db, vec![write], Durability::Sync)
            .and_then(|()| db.compact())
            .and_then(|()| db.close());
        drop(db);
        self.db = None;
        if let Err(error) = result {
            self.cause(&error)?;
            return wrong(error);
        }
        let left = self.sim.crash(0);
        self.move_to(left);
        let wrong = |error: Error| {
            wrong(error).map_err(|message| format!("and after the next power loss: {message}"))
        };
        let db = match self.builder().open() {
            Ok(db) => db,
            Err(error) => {
                self.cause(&error)?;
                return wrong(error);
            }
        };
        let checked = self.journal.check(&db, self.journal.durable());
        self.db = Some(db);
        let checked = match checked.and_then(|_| self.forget_lost_indexes()) {
            Ok(()) => self.check_indexes(),
            Err(error) => self.cause(&error).and_then(|()| wrong(error)),
        };
        self.db = None;
        checked
    }
}
