//! Models of the lock-free parts: slots, pins, and the life of a frame between them.
//!
//! Run with `RUSTFLAGS="--cfg sapwood_loom" cargo test --release -p sapwood-storage --lib models`.
//! The frame is one cell, and loom reports every racing access to it. The epoch is a count of
//! readers under a lock, which provides the one guarantee that the cache needs: the ends of all
//! guards of that time happen before the work done after waiting.
#![allow(unsafe_code)]
use super::pin::PinCount;
use super::slot::{Begin, Slot};
#[cfg(feature = "planted")]
use crate::planted;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

struct World {
    slot: Slot,
    pins: PinCount,
    frame: UnsafeCell<u32>,
    guards: Mutex<u32>,
    retired: Mutex<bool>,
    freed: Mutex<u32>,
}

const OLD: u32 = 1;
const NEW: u32 = 2;

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            slot: Slot::new(),
            pins: PinCount::new(),
            frame: UnsafeCell::new(0),
            guards: Mutex::new(0),
            retired: Mutex::new(false),
            freed: Mutex::new(0),
        })
    }

    fn write(&self, value: u32) {
        // SAFETY: loom fails the model if any other access overlaps.
        self.frame.with_mut(|frame| unsafe { *frame = value });
    }

    fn read(&self) -> u32 {
        // SAFETY: loom fails the model if a write overlaps.
        self.frame.with(|frame| unsafe { *frame })
    }

    fn load_block(&self) {
        self.write(OLD);
        self.slot.publish(0, 4096, false);
    }

    fn enter(&self) {
        *self.guards.lock().unwrap() += 1;
    }

    fn leave(&self) {
        *self.guards.lock().unwrap() -= 1;
    }

    /// Passes the frame to its next user.
    fn free(&self) {
        *self.freed.lock().unwrap() += 1;
        self.pins.reset();
        self.write(NEW);
    }

    /// Takes the block out of its slot, and retires the frame if all guards of that time are
    /// already gone. Otherwise `end` retires it later.
    fn evict(&self) {
        self.slot.clear();
        let is_quiet = *self.guards.lock().unwrap() == 0;
        if is_quiet {
            self.retire();
        }
    }

    fn retire(&self) {
        *self.retired.lock().unwrap() = true;
        if self.pins.retire() {
            self.free();
        }
    }

    /// REQUIRES: all other threads have ended.
    fn end(&self) {
        let is_retired = *self.retired.lock().unwrap();
        if !is_retired {
            self.retire();
        }
        assert_eq!(*self.freed.lock().unwrap(), 1);
        assert_eq!(self.read(), NEW);
    }
}

/// All interleavings with up to three preemptions, which suffice to find the known bugs; more would
/// take hours.
fn model(f: impl Fn() + Sync + Send + 'static) {
    #[cfg(feature = "planted")]
    planted::plant_from_environment();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn a_hit_reads_the_published_bytes_while_the_block_is_loaded_and_evicted() {
    model(|| {
        let world = World::new();
        assert_eq!(world.slot.begin_load(), Begin::Won);
        let loader = {
            let world = world.clone();
            thread::spawn(move || {
                world.load_block();
                world.evict();
            })
        };
        world.enter();
        if let Some((unit, len)) = world.slot.frame() {
            world.slot.touch();
            assert_eq!((unit, len), (0, 4096));
            assert_eq!(world.read(), OLD);
        }
        world.leave();
        loader.join().unwrap();
        world.end();
    });
}

#[test]
fn a_pinned_frame_is_freed_once_and_after_the_last_pin() {
    model(|| {
        let world = World::new();
        assert_eq!(world.slot.begin_load(), Begin::Won);
        world.load_block();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || {
                    world.enter();
                    let found = world.slot.frame().is_some();
                    if found {
                        world.pins.pin();
                    }
                    world.leave();
                    if found {
                        assert_eq!(world.read(), OLD);
                        if world.pins.unpin() {
                            world.free();
                        }
                    }
                })
            })
            .collect();
        world.evict();
        for reader in readers {
            reader.join().unwrap();
        }
        world.end();
    });
}

#[test]
fn a_copied_pin_keeps_a_retired_frame() {
    model(|| {
        let world = World::new();
        world.write(OLD);
        world.pins.pin();
        let other = {
            let world = world.clone();
            // The copy is made while the first pin lives, possibly after the frame was retired.
            thread::spawn(move || {
                world.pins.pin();
                assert_eq!(world.read(), OLD);
                let first = world.pins.unpin();
                let second = world.pins.unpin();
                assert!(!first);
                if second {
                    world.free();
                }
            })
        };
        if world.pins.retire() {
            world.free();
        }
        other.join().unwrap();
        assert_eq!(*world.freed.lock().unwrap(), 1);
    });
}

#[test]
fn one_thread_at_a_time_loads_and_a_failed_load_passes_the_right_on() {
    model(|| {
        let world = World::new();
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                if world.slot.begin_load() == Begin::Won {
                    // The failed load scribbles over its buffer.
                    world.write(0xEE);
                    world.slot.abort();
                }
            })
        };
        match world.slot.begin_load() {
            Begin::Won => world.load_block(),
            Begin::Loading => assert!(world.slot.frame().is_none() || world.read() == OLD),
            Begin::Present => unreachable!("the other thread never publishes"),
        }
        other.join().unwrap();
    });
}

#[test]
fn the_table_is_dropped_while_pins_go() {
    model(|| {
        let world = World::new();
        assert_eq!(world.slot.begin_load(), Begin::Won);
        world.load_block();
        world.pins.pin();
        let reader = {
            let world = world.clone();
            thread::spawn(move || {
                assert_eq!(world.read(), OLD);
                if world.pins.unpin() {
                    world.free();
                }
            })
        };
        // Like the drop of a slot table: no guard is left, so a frame without pins is freed without
        // being retired.
        world.slot.clear();
        if !world.pins.is_pinned() || world.pins.retire() {
            world.free();
        }
        reader.join().unwrap();
        assert_eq!(*world.freed.lock().unwrap(), 1);
    });
}
