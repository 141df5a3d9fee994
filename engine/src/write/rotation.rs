//! Memtable generations: rotation, and waiting for a flush.
//!
//! A rotation is a point in the log, so the position of an operation determines its generation.
use super::stall::STEP;
use super::weight::{ArenaRoom, too_heavy};
use crate::background::retries::FLUSH;
use crate::planted;
use crate::read::view::{Generation, View};
use crate::runtime::Core;
use crate::wal::SEGMENTS_MAX;
use sapwood_base::format::log_record::{HEADER_BYTES, RecordKind};
use sapwood_base::{Error, Result, SequenceNumber};
use sapwood_memtable::Memtable;
use std::sync::atomic::Ordering;

impl Core {
    /// Ensures that the active memtable is not full before a commit of `bytes`. Its arena reaches
    /// far beyond that point, so any batch fits.
    #[inline]
    pub(crate) fn make_room(&self, bytes: usize) -> Result<()> {
        {
            let guard = crossbeam_epoch::pin();
            let view = self.view.load(&guard);
            let enough = self.options.memtable_bytes >> u32::from(self.is_last(view));
            if planted::has_room(view.active()?.memtable.size_bytes(), enough) {
                return Ok(());
            }
        }
        self.make_room_slowly(bytes)
    }

    /// Whether no memtable is free after the active one. In the second half of the
    /// last memtable, writers are slowed down for the flush.
    #[inline]
    fn is_last(&self, view: &View) -> bool {
        view.generations.len() >= self.options.advanced.max_memtables
    }

    #[cold]
    fn make_room_slowly(&self, bytes: usize) -> Result<()> {
        let full = self.options.memtable_bytes;
        // If no memtable is free, a little more fits into the last one while the flush works.
        let limit = full + full / 8;
        let mut waited_since = None;
        let result = loop {
            let view = self.view.reference();
            let size = view.active()?.memtable.size_bytes();
            let is_last = self.is_last(&view);
            if size < full && !is_last {
                break Ok(());
            }
            if size >= full && self.rotate(false)? {
                continue;
            }
            if size < limit {
                let scarce = (size.saturating_sub(full / 2), limit - full / 2);
                let is_scarce = || self.is_last(&self.view.reference());
                break match waited_since {
                    None => self.stall.pay_for_memory(self, bytes, scarce, is_scarce),
                    Some(_) => Ok(()),
                };
            }
            let can_wait = self.check_flush_has_space().and_then(|()| self.check_writable());
            if let Err(error) =
                can_wait.and_then(|()| self.background.check_not_paused(self.options.env.now()))
            {
                break Err(error);
            }
            waited_since.get_or_insert_with(|| self.options.env.now());
            drop(view);
            self.give_way();
        };
        if let Some(since) = waited_since {
            let waited = self.options.env.now().saturating_sub(since).as_nanos() as u64;
            self.stall.memtable_nanos.fetch_add(waited, Ordering::Relaxed);
            self.stall.memtable_waits.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Waits until the log has segments for a record of `units`, by flushing the memtables that
    /// retain segments.
    ///
    /// Errors: `InvalidArgument` if the log can never hold it.
    #[cold]
    pub(crate) fn make_log_room(&self, units: u64) -> Result<()> {
        if !self.wal.can_hold(units) {
            let message = format!(
                "the log has {SEGMENTS_MAX} segments of wal_segment_bytes, too few for a batch as long as this; split it, \
                 or raise wal_segment_bytes"
            );
            return Err(Error::invalid_argument(message));
        }
        while self.wal.is_full_for(units) {
            let view = self.view.reference();
            // Rotations and sync marks fill the log too, so an empty memtable counts if it is the
            // only one.
            let keeps_log = view.generations.len() == 1 || !view.active()?.memtable.is_empty();
            drop(view);
            if !(keeps_log && self.rotate(true)?) {
                self.wait_for_flush_step()?;
            }
        }
        Ok(())
    }

    /// Starts a new memtable if the log of the active one spans so many segments that the log could
    /// become full before the memtable does.
    pub(crate) fn rotate_long_log(&self) -> Result<()> {
        let start = self.view.reference().active()?.start();
        if self.wal.segments_since(start)
            > SEGMENTS_MAX / (self.options.advanced.max_memtables.saturating_add(2))
        {
            self.rotate(true)?;
        }
        Ok(())
    }

    /// Waits until a commit of `bytes` leaves memtables for other writers, if it fills one by
    /// itself. Otherwise writers of small records would wait for the flush of another writer's
    /// large ones.
    #[cold]
    pub(crate) fn admit_large(&self, bytes: usize) -> Result<()> {
        if bytes <= self.options.memtable_bytes / 2 {
            return Ok(());
        }
        let most = self.options.advanced.max_memtables.max(3) - 1;
        while self.view.reference().generations.len() >= most {
            self.background.wake_flush();
            self.wait_for_flush_step()?;
        }
        Ok(())
    }

    /// Waits until `ask`, called with the room of the active memtable in bytes, returns `Enough`.
    /// If the memtable has too little room, it is rotated.
    ///
    /// Errors: `InvalidArgument` if not even an empty one has enough.
    #[cold]
    pub(crate) fn make_arena_room(&self, ask: impl Fn(usize) -> ArenaRoom) -> Result<()> {
        loop {
            let view = self.view.reference();
            let active = &view.active()?.memtable;
            match ask(active.room_bytes()) {
                ArenaRoom::Enough => return Ok(()),
                ArenaRoom::TooLittle if active.is_empty() => return Err(too_heavy()),
                ArenaRoom::TooLittle if self.rotate(true)? => {}
                ArenaRoom::TooLittle => {
                    drop(view);
                    self.wait_for_flush_step()?;
                }
                // Other commits are in the middle of their inserts.
                ArenaRoom::TakenByOthers => {
                    drop(view);
                    self.check_writable()?;
                    self.give_way();
                }
            }
        }
    }

    /// Starts a new memtable; with `force` also if the active one is not full. False if there is no
    /// free memtable.
    ///
    /// The rotation is a point in the log: the new generation is published in the view first, its
    /// start is reserved second. A writer that reserves a later position sees the new generation,
    /// because both went through the log's tail. If a writer with an earlier position finds the new
    /// generation, it inserts into the old one.
    fn rotate(&self, force: bool) -> Result<bool> {
        let _rotating = self.rotating.lock();
        let view = self.view.reference();
        let old = &view.active()?.memtable;
        if !force && old.size_bytes() < self.options.memtable_bytes {
            return Ok(true);
        }
        if view.generations.len() >= self.options.advanced.max_memtables {
            self.background.wake_flush();
            return Ok(false);
        }
        let id = self.next_memtable.fetch_add(1, Ordering::Relaxed);
        let first = SequenceNumber(self.wal.position());
        let memtable = Memtable::starting_at(first, id, self.arenas.take()?);
        view.expect_appends(&memtable, Some(old))?;
        memtable.expect_prefixes_of(old)?;
        self.wal.prepare_rotation().inspect_err(|error| self.poison_if_final(error))?;
        let generation = Generation::pending(memtable);
        // The replaced view is released after the start is known, because all writers wait for the
        // start.
        let replaced = self.change_view(|view| View {
            generations: std::iter::once(generation.clone())
                .chain(view.generations.iter().cloned())
                .collect(),
            keyspaces: view.keyspaces.clone(),
        });
        // From here on nothing may fail: writers wait for the start.
        let at = loop {
            match self.wal.reserve_rotation() {
                Ok(at) => break at,
                Err(_) => self.options.env.sleep(STEP),
            }
        };
        generation.begin(at.start());
        let written = self.wal.write(&at, &mut [0; HEADER_BYTES], RecordKind::Rotate, 0);
        self.wal.complete(&at);
        drop(replaced);
        if let Err(error) = written {
            self.poison(&error);
        }
        self.wal.wait_published(at.end);
        self.background.wake_flush();
        Ok(true)
    }

    /// Starts a flush of the active memtable, without waiting for it. False if the memtable is
    /// empty, or another one has to be flushed first.
    pub(crate) fn begin_flush(&self) -> Result<bool> {
        let view = self.view.reference();
        if view.generations.len() > 1 || view.active()?.memtable.is_empty() {
            return Ok(false);
        }
        self.rotate(true)
    }

    /// Flushes everything that is published now.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check_writable()?;
        // Only a full disk met from now on counts.
        self.clear_no_space(FLUSH);
        self.background.retry_now();
        let target = loop {
            let view = self.view.reference();
            let active = &view.active()?.memtable;
            if view.generations.len() == 1 && active.is_empty() {
                return Ok(());
            }
            if active.is_empty() {
                break active.id();
            }
            let id = active.id();
            if self.rotate(true)? {
                break id + 1;
            }
            drop(view);
            self.wait_for_flush_step()?;
        };
        self.background.wake_flush();
        self.wait_until(|| {
            self.check_writable()?;
            self.check_flush_has_space()?;
            let view = self.view.reference();
            Ok(view.generations.iter().all(|generation| generation.memtable.id() >= target))
        })
    }

    fn wait_for_flush_step(&self) -> Result<()> {
        self.check_writable()?;
        self.check_flush_has_space()?;
        self.background.check_not_paused(self.options.env.now())?;
        self.give_way();
        Ok(())
    }
}
