//! Back-pressure without cliffs: each commit pays a delay that grows with what is still to be done.
//!
//! Two things set a price per byte: the compaction debt (how far level 0 is above its trigger), and, while the last
//! memtable fills and the others wait for the flush, how little room is left. Commits advance a virtual clock by their
//! price and sleep, in short steps, while it is ahead of the real one; so all writers share one rate, and nobody is
//! stopped for long. Only when every memtable is full does a writer wait for a flush, because there is nowhere left
//! to write to.
use crate::db::Core;
use sapwood_base::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest single sleep.
pub(crate) const STEP: Duration = Duration::from_micros(50);
/// Price per byte at a debt of one (level 0 at twice its trigger), in picoseconds.
const PRICE_AT_ONE: f64 = 20_000.0;
/// Price per byte when half of the last room in memory is used up, in picoseconds, times two. From there it grows
/// without bound: a flush of 64 MiB may take a second longer than the writers need to fill as much, and none of them
/// waits longer than some steps at once.
const PRICE_OF_MEMORY: f64 = 10_000.0;

/// The price, and what was paid.
#[derive(Default)]
pub(crate) struct Stall {
    /// Picoseconds per byte; 0 when there is no debt, and then nothing else here is touched.
    price: AtomicU64,
    /// The virtual clock, in nanoseconds.
    next_free: AtomicU64,
    /// Nanoseconds that writers were delayed for compaction debt.
    pub(crate) delayed_nanos: AtomicU64,
    /// Nanoseconds that writers waited for a free memtable, or were delayed because there soon would be none.
    pub(crate) memtable_nanos: AtomicU64,
    /// How often a writer waited for a free memtable.
    pub(crate) memtable_waits: AtomicU64,
}

impl Stall {
    /// Sets the price for a debt. Quadratic: a small debt is hardly felt, a large one is paid off.
    pub(crate) fn set_debt(&self, debt: f64) {
        // Relaxed: a price that is read late is as good.
        self.price.store((debt * debt * PRICE_AT_ONE) as u64, Ordering::Relaxed);
    }

    /// Delays a commit of `bytes` by its price.
    #[inline]
    pub(crate) fn pay(&self, core: &Core, bytes: usize) -> Result<()> {
        let price = self.price.load(Ordering::Relaxed);
        if price == 0 {
            return Ok(());
        }
        let waited = self.pay_at(core, bytes, price, || self.price.load(Ordering::Relaxed) > 0)?;
        self.delayed_nanos.fetch_add(waited, Ordering::Relaxed);
        Ok(())
    }

    /// Delays a commit of `bytes` while `is_scarce`, when `used` of the last `room` bytes of memory are used up.
    #[cold]
    pub(crate) fn pay_for_memory(
        &self,
        core: &Core,
        bytes: usize,
        (used, room): (usize, usize),
        is_scarce: impl Fn() -> bool,
    ) -> Result<()> {
        let share = used as f64 / room as f64;
        let price = PRICE_OF_MEMORY * share * share / (1.0 - share).max(1e-3);
        let waited = self.pay_at(core, bytes, price as u64, is_scarce)?;
        self.memtable_nanos.fetch_add(waited, Ordering::Relaxed);
        Ok(())
    }

    /// Delays by a price while `is_owed`. Returns for how many nanoseconds.
    #[cold]
    fn pay_at(&self, core: &Core, bytes: usize, price: u64, is_owed: impl Fn() -> bool) -> Result<u64> {
        let env = &core.options.env;
        let now = env.now();
        let cost = price.saturating_mul(bytes as u64) / 1000;
        let mut free = self.next_free.load(Ordering::Relaxed);
        loop {
            // Time in which nothing was written is not saved up.
            let next = free.max(now.as_nanos() as u64) + cost;
            match self.next_free.compare_exchange_weak(free, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    free = next;
                    break;
                }
                Err(current) => free = current,
            }
        }
        let due = Duration::from_nanos(free);
        let mut slept = false;
        // A sleep is worth its overhead only from a full step on.
        while due.saturating_sub(env.now()) >= STEP && is_owed() {
            crate::background::give_way(core);
            slept = true;
            core.check_writable()?;
        }
        Ok(if slept { env.now().saturating_sub(now).as_nanos() as u64 } else { 0 })
    }
}
