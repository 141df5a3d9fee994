//! The driver's background work, its keyspaces, and its clock.
use super::{CLOCK_ALLOWANCE, Driver, Observer, Outcome, Stop, violation};
use crate::sim::operation::{Step, space_name};
use sapwood::{BackgroundStep, Durability, Health};
use std::time::Duration;

impl Driver {
    pub(super) fn sync(&mut self, observer: &mut dyn Observer) -> Outcome {
        self.db().sync()?;
        self.oracle.synced();
        self.moved(observer)
    }

    pub(super) fn flush(&mut self, observer: &mut dyn Observer) -> Outcome {
        self.resume();
        self.db().flush()?;
        self.oracle.flushed();
        self.moved(observer)
    }

    pub(super) fn compact_range(
        &mut self,
        space: u8,
        lower: &[u8],
        upper: &[u8],
        observer: &mut dyn Observer,
    ) -> Outcome {
        let Some((keyspace, _)) = self.keyspace(space)? else { return Ok(()) };
        self.resume();
        keyspace.compact_range(lower..upper)?;
        self.oracle.flushed();
        self.moved(observer)
    }

    pub(super) fn compact(&mut self, observer: &mut dyn Observer) -> Outcome {
        self.resume();
        self.db().compact()?;
        self.oracle.flushed();
        self.moved(observer)
    }

    pub(super) fn wait_for_background(&mut self) -> Outcome {
        self.resume();
        self.db().wait_for_background()?;
        self.check_tidy()
    }

    pub(super) fn pause(&mut self) -> Outcome {
        if !self.paused {
            self.db().pause_background()?;
            self.paused = true;
        }
        Ok(())
    }

    pub(super) fn create_space(&mut self, space: u8, observer: &mut dyn Observer) -> Outcome {
        if self.oracle.space(space).is_some() {
            return Ok(());
        }
        self.oracle.creating(space);
        self.moved(observer)?;
        self.db().keyspace(&space_name(space), self.tuning.keyspace.clone())?;
        self.oracle.created();
        self.moved(observer)
    }

    pub(super) fn drop_space(&mut self, space: u8, observer: &mut dyn Observer) -> Outcome {
        if space == 0 {
            return Ok(());
        }
        let Some((keyspace, _)) = self.keyspace(space)? else { return Ok(()) };
        self.oracle.dropping(space);
        self.moved(observer)?;
        self.db().drop_keyspace(&space_name(space))?;
        self.oracle.dropped();
        self.moved(observer)?;
        match keyspace.get("any") {
            Ok(_) => violation("O6: a handle of a dropped keyspace still reads"),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn background(&mut self, step: Step, observer: &mut dyn Observer) -> Outcome {
        let kind = match step {
            Step::Flush => BackgroundStep::Flush,
            Step::Compaction => BackgroundStep::Compaction,
            Step::Log => BackgroundStep::Log,
            Step::Sweep => BackgroundStep::Sweep,
        };
        let done = self.db().background_step(kind)?;
        match self.db().health() {
            Health::Good => {}
            Health::NoSpace(error) | Health::Poisoned(error) => return Err(Stop::Error(error)),
        }
        if done && step == Step::Log {
            self.oracle.synced();
            self.moved(observer)?;
        }
        Ok(())
    }

    /// Advances the clock, and runs the log thread on time.
    pub(super) fn tick(&mut self, duration: Duration, observer: &mut dyn Observer) -> Outcome {
        let end = self.env.now() + duration;
        loop {
            let now = self.env.now();
            let wakes = self.log_wakes.filter(|_| self.oracle.waits_for_the_clock());
            let until = wakes.map_or(end, |wakes| wakes.min(end));
            self.env.sleep(until.saturating_sub(now));
            if until == end {
                return Ok(());
            }
            // Record the commits that were due before the thread woke.
            self.note_time(observer)?;
            self.be_log_thread(observer)?;
        }
    }

    /// Runs the steps of the log thread that are due by now.
    pub(super) fn be_log_thread(&mut self, observer: &mut dyn Observer) -> Outcome {
        let Some(mut wakes) = self.log_wakes.filter(|_| self.db.is_some()) else { return Ok(()) };
        while self.oracle.waits_for_the_clock() {
            let sleeps = self.db().log_sleeps()?;
            if !sleeps.is_zero() && self.env.now() < wakes {
                break;
            }
            self.background(Step::Log, observer)?;
            wakes = self.env.now() + self.db().log_sleeps()?;
            self.log_wakes = Some(wakes);
        }
        self.note_time(observer)
    }

    /// Counts commits as durable that are due by now.
    pub(super) fn note_time(&mut self, observer: &mut dyn Observer) -> Outcome {
        let now = self.env.now().saturating_sub(CLOCK_ALLOWANCE);
        let Some(commits) = self.oracle.due_by(now) else { return Ok(()) };
        // Earlier events count by the earlier promise.
        self.moved(observer)?;
        self.oracle.time_passed(commits);
        observer.time_passed(&self.oracle, &self.fs);
        self.moved(observer)
    }

    /// Records the due time of the last commit, acknowledged with `durability`.
    pub(super) fn note_due(&mut self, durability: Durability) {
        if let Durability::Periodic(every) = durability
            && self.log_wakes.is_some()
        {
            self.oracle.promise_by(self.env.now() + every);
        }
    }
}
