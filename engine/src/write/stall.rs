//! Back-pressure without cliffs: each commit pays a delay that grows with the outstanding work.
//!
//! Two quantities set a price per byte: the compaction debt (how far level 0 is above its trigger),
//! and, while the last memtable fills and the others wait for the flush, the room left. Commits
//! advance a virtual clock by their price and sleep, in short steps, while it is ahead of the real
//! one; so all writers share one rate. Only when every memtable is full does a writer wait for a
//! flush, because there is nowhere left to write to.
//!
//! A large record pays in instalments, and the virtual clock is never far ahead: so writers of
//! small records wait for one instalment, and neither for the price of the whole record nor for a
//! price that is long outdated.
use crate::planted;
use sapwood_base::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest single sleep.
pub(crate) const STEP: Duration = Duration::from_micros(50);
/// Price per byte at a debt of one (level 0 at twice its trigger), in picoseconds.
const PRICE_AT_ONE: f64 = 20_000.0;
/// Price per byte when half of the last room in memory is used up, in picoseconds, times two. From
/// there it grows without bound: a flush of 64 MiB may take a second longer than the writers need
/// to fill as much, and none of them waits longer than some steps at once.
const PRICE_OF_MEMORY: f64 = 10_000.0;

/// Paid at once, in nanoseconds; the rest of a larger price is paid afterwards.
const INSTALMENT: u64 = 1_000_000;
/// The most that the virtual clock is ahead of the real one, in nanoseconds.
const MOST_AHEAD: u64 = 5_000_000;
/// The most that one commit pays, in nanoseconds.
const MOST_PER_COMMIT: u64 = 1_000_000_000;

/// The means of a writer to wait.
pub(crate) trait Waiter {
    /// The time of a monotonic clock.
    fn now(&self) -> Duration;

    /// Waits for one [`STEP`]. Errors: those of a write that is refused by now.
    fn wait(&self) -> Result<()>;
}

/// The price, and the payments.
#[derive(Default)]
pub(crate) struct Stall {
    /// Picoseconds per byte; 0 when there is no debt, and then nothing else here is touched.
    price: AtomicU64,
    /// The virtual clock, in nanoseconds.
    next_free: AtomicU64,
    /// The least price, for tests.
    #[cfg(feature = "sim")]
    pub(crate) least_price: AtomicU64,
    /// Nanoseconds that writers were delayed for compaction debt.
    pub(crate) delayed_nanos: AtomicU64,
    /// Nanoseconds that writers waited for a free memtable, or were delayed because there would
    /// soon be none.
    pub(crate) memtable_nanos: AtomicU64,
    /// How often a writer waited for a free memtable.
    pub(crate) memtable_waits: AtomicU64,
}

impl Stall {
    /// Sets the price for a debt. Quadratic: a small debt is hardly felt, a large one is paid off.
    pub(crate) fn set_debt(&self, debt: f64) {
        let price = (debt * debt * PRICE_AT_ONE) as u64;
        #[cfg(feature = "sim")]
        let price = price.max(self.least_price.load(Ordering::Relaxed));
        // Relaxed: a price that is read late is as good.
        self.price.store(price, Ordering::Relaxed);
    }

    /// Sets a lower bound of the debt from now on.
    #[cfg(feature = "sim")]
    pub(crate) fn pretend_debt(&self, debt: f64) {
        self.least_price.store((debt * debt * PRICE_AT_ONE) as u64, Ordering::Relaxed);
        self.set_debt(debt);
    }

    /// Delays a commit of `bytes` by its price.
    #[inline]
    pub(crate) fn pay(&self, waiter: &impl Waiter, bytes: usize) -> Result<()> {
        let price = self.price.load(Ordering::Relaxed);
        if price == 0 {
            return Ok(());
        }
        let waited = self.pay_at(waiter, bytes, price, || self.price.load(Ordering::Relaxed) > 0)?;
        self.delayed_nanos.fetch_add(waited, Ordering::Relaxed);
        Ok(())
    }

    /// Delays a commit of `bytes` while `is_scarce`, when `used` of the last `room` bytes of memory
    /// are used up.
    #[cold]
    pub(crate) fn pay_for_memory(
        &self,
        waiter: &impl Waiter,
        bytes: usize,
        (used, room): (usize, usize),
        is_scarce: impl Fn() -> bool,
    ) -> Result<()> {
        let share = used as f64 / room as f64;
        let price = PRICE_OF_MEMORY * share * share / (1.0 - share).max(1e-3);
        let waited = self.pay_at(waiter, bytes, price as u64, is_scarce)?;
        self.memtable_nanos.fetch_add(waited, Ordering::Relaxed);
        Ok(())
    }

    /// Delays by a price while `is_owed`. Returns the delay in nanoseconds.
    #[cold]
    fn pay_at(
        &self,
        waiter: &impl Waiter,
        bytes: usize,
        price: u64,
        is_owed: impl Fn() -> bool,
    ) -> Result<u64> {
        let began = waiter.now();
        let mut slept = false;
        let mut now = began;
        for instalment in instalments(price.saturating_mul(bytes as u64) / 1000) {
            let due = self.advance(now.as_nanos() as u64, instalment);
            now = waiter.now();
            // A sleep is worth its overhead only from a full step on.
            while due.saturating_sub(now) >= STEP && is_owed() {
                slept = true;
                waiter.wait()?;
                now = waiter.now();
            }
            if !is_owed() {
                break;
            }
        }
        Ok(if slept { now.saturating_sub(began).as_nanos() as u64 } else { 0 })
    }

    /// Advances the virtual clock by `nanos`. Returns its time.
    fn advance(&self, now: u64, nanos: u64) -> Duration {
        let most = planted::limit_of_stall(now + MOST_AHEAD);
        let mut free = self.next_free.load(Ordering::Relaxed);
        loop {
            // Time without writes is not saved up.
            let next = free.max(now).saturating_add(nanos).min(most);
            match self.next_free.compare_exchange_weak(free, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Duration::from_nanos(next),
                Err(current) => free = current,
            }
        }
    }
}

/// The parts in which a cost is paid.
fn instalments(cost: u64) -> impl Iterator<Item = u64> {
    let mut left = cost.min(planted::limit_of_stall(MOST_PER_COMMIT));
    let part = planted::limit_of_stall(INSTALMENT);
    std::iter::from_fn(move || {
        let now = left.min(part);
        left -= now;
        (now > 0).then_some(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_prices_are_paid_in_instalments_and_the_clock_stays_near() {
        assert_eq!(instalments(0).count(), 0);
        assert_eq!(instalments(30).collect::<Vec<_>>(), [30]);
        assert_eq!(instalments(2 * INSTALMENT + 5).collect::<Vec<_>>(), [INSTALMENT, INSTALMENT, 5]);
        assert_eq!(instalments(u64::MAX).sum::<u64>(), MOST_PER_COMMIT);
        let stall = Stall::default();
        for _ in 0..1000 {
            assert!(stall.advance(7, INSTALMENT) <= Duration::from_nanos(7 + MOST_AHEAD));
        }
        // A clock that lags counts from now.
        assert_eq!(stall.advance(1 << 40, 9), Duration::from_nanos((1 << 40) + 9));
    }
}
