//! Waits of calls for background work.
use super::core::Core;
use crate::background::state::LOOK_UP;
use crate::write::stall::{STEP, Waiter};
use sapwood_base::Result;
use std::time::Duration;

/// On a machine without threads: number of consecutive turns without work after which a wait is
/// hopeless. A step that meets a full disk counts as no work.
const FRUITLESS_MAX: u32 = 1000;

impl Core {
    /// Waits until `done` returns true. It is called again after every step.
    pub(crate) fn wait_until(&self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let mut fruitless = 0;
        loop {
            if done()? {
                return Ok(());
            }
            if !self.options.env.starts_threads() {
                fruitless = if (self.any_step)(self) { 0 } else { fruitless + 1 };
                assert!(fruitless < FRUITLESS_MAX, "waits for background work that there is not");
                self.options.env.sleep(LOOK_UP);
                continue;
            }
            self.background.wait_for_step()?;
        }
    }

    /// Lets background work proceed: a short sleep, or one step of it on a machine without threads.
    pub(crate) fn give_way(&self) {
        if !self.options.env.starts_threads() {
            (self.any_step)(self);
        }
        self.options.env.sleep(STEP);
    }
}

impl Waiter for Core {
    fn now(&self) -> Duration {
        self.options.env.now()
    }

    fn wait(&self) -> Result<()> {
        self.give_way();
        self.check_writable()
    }
}
