//! Back-pressure without cliffs: each commit pays a delay proportional to the compaction debt.
//!
//! The debt (how far level 0 is above its trigger) sets a price per byte. Commits advance a virtual clock by their
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

/// The price, and what was paid.
#[derive(Default)]
pub(crate) struct Stall {
    /// Picoseconds per byte; 0 when there is no debt, and then nothing else here is touched.
    price: AtomicU64,
    /// The virtual clock, in nanoseconds.
    next_free: AtomicU64,
    /// Nanoseconds that writers were delayed for compaction debt.
    pub(crate) delayed_nanos: AtomicU64,
    /// Nanoseconds that writers waited for a free memtable.
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
        self.pay_at(core, bytes, price)
    }

    #[cold]
    fn pay_at(&self, core: &Core, bytes: usize, price: u64) -> Result<()> {
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
        while due.saturating_sub(env.now()) >= STEP && self.price.load(Ordering::Relaxed) > 0 {
            crate::background::give_way(core);
            slept = true;
            core.check_writable()?;
        }
        if slept {
            let waited = env.now().saturating_sub(now).as_nanos() as u64;
            self.delayed_nanos.fetch_add(waited, Ordering::Relaxed);
        }
        Ok(())
    }
}
